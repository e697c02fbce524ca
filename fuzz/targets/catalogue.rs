//! A shop's own names, which come with a request: `intent::catalogue`, and `intent::slots` that reads with them.

use okyeame_core::intent::catalogue::{Catalogue, MAX_NAMES};
use okyeame_core::intent::slots::find_slots;
use serde_json::Map;

use crate::check;

/// Says whether it was read.
pub(crate) fn run(input: &[u8]) -> bool {
    match Catalogue::parse(input) {
        Ok(catalogue) => {
            holds(&catalogue, input);
            true
        }
        Err(error) => check::refused(&error, &["invalid_config"]),
    }
}

fn holds(catalogue: &Catalogue, input: &[u8]) {
    assert!(catalogue.len() <= MAX_NAMES);
    let again = Catalogue::parse(input).expect("it was read above");
    assert!(again == *catalogue && again.digest() == catalogue.digest());
    let content = std::str::from_utf8(catalogue.content()).expect("made of text");
    let rows: Vec<Vec<&str>> = content.lines().map(|row| row.split('\0').collect()).collect();
    assert_eq!(rows.len(), catalogue.len(), "a row for each name");
    // A customer who says the first name.
    let Some(row) = rows.first() else { return };
    let [slot, _, name] = row[..] else { panic!("a row is slot, value and name, not {row:?}") };
    for found in find_slots(name, &[slot.to_owned()], "", &Map::new(), Some(catalogue)) {
        assert_eq!(found.slot, slot, "only what is asked for");
    }
}
