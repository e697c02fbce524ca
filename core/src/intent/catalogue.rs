//! A shop's own words, given at run time: products, brands, categories, sizes, colours and whatever other slots it
//! has, each value with the names that customers call it by, in Twi and English.
//!
//! As JSON, where a plain text stands for a value that is its own name:
//! ```json
//! {"version": 1, "products": [{"value": "rice", "names": ["ɛmo", "rice", "royal aroma"]}, "iPhone 15"],
//!  "brands": [], "categories": [], "sizes": [], "colors": [], "slots": {"any_slot": ["…"]}}
//! ```
//! or as a table with the heading `slot,value,name`, parted by commas or tabs.
//!
//! Names are prepared once for [`super::slots`]: each as it is written, and with its English words as they sound
//! (`core/data/english_sounds.tsv`). Not for how many (`quantity`, `delta`): numbers are read without a catalogue. A
//! name that holds no letter of the Latin script and no digit cannot be heard, and is passed over.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::normalize::letters;
use super::slots::spellings::Spellings;
use crate::error::{Error, Result, printable};

/// Largest catalogue, bytes.
pub const MAX_CATALOGUE_BYTES: usize = 1 << 20; // 1 MiB
/// Most names of a catalogue.
pub const MAX_NAMES: usize = 20_000;
/// Longest name or value, characters.
pub const MAX_NAME_CHARS: usize = 100;
/// Longest name of a slot, characters.
const MAX_SLOT_CHARS: usize = 40;

const ENGLISH_SOUNDS: &str = include_str!("../../data/english_sounds.tsv");

/// The lists of the JSON form, and the slot that each is for.
const LISTS: [(&str, &str); 6] = [
    ("products", "product"),
    ("brands", "brand"),
    ("categories", "category"),
    ("sizes", "size"),
    ("colors", "color"),
    ("colours", "color"),
];

/// A shop's names, ready to be found. Two are equal if they say the same; serialised it is its digest.
pub struct Catalogue {
    spellings: Spellings,
    n_names: usize,
    /// Every row once, in one spelling.
    content: Vec<u8>,
    digest: u128,
}

impl Catalogue {
    /// Reads JSON or a table.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] with what is wrong and where: not such a file, or beyond [`MAX_CATALOGUE_BYTES`],
    /// [`MAX_NAMES`] or [`MAX_NAME_CHARS`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_CATALOGUE_BYTES {
            return Err(invalid(format!("it is larger than the limit of {MAX_CATALOGUE_BYTES} bytes")));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| invalid("it is not text in UTF-8".to_owned()))?;
        let text = text.trim_start_matches('\u{FEFF}').trim();
        let rows = if text.starts_with('{') { from_json(text)? } else { from_table(text)? };
        Ok(Self::new(rows.0))
    }

    fn new(rows: Vec<Row>) -> Self {
        let mut seen = HashSet::new();
        let mut content = Vec::new();
        let mut spelled = Vec::new();
        for Row { slot, value, name } in rows {
            let name = letters(&name);
            if !seen.insert((slot.clone(), value.clone(), name.clone())) {
                continue;
            }
            // None of the three holds a control character.
            content.extend_from_slice(format!("{slot}\0{value}\0{name}\n").as_bytes());
            let as_it_sounds = spoken(&name);
            if as_it_sounds != name {
                spelled.push((slot.clone(), json!(value), name));
                spelled.push((slot, json!(value), as_it_sounds));
            } else {
                spelled.push((slot, json!(value), name));
            }
        }
        Self { spellings: Spellings::new(spelled), n_names: seen.len(), digest: fnv1a(&content), content }
    }

    /// How many different names it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.n_names
    }

    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.n_names == 0
    }

    /// Every row in one spelling: what an answer depends on. For the key of a cache; the digest is only for logs, since
    /// who wants to can make two catalogues of one digest.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// The digest, 32 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("{:032x}", self.digest)
    }

    pub(super) fn spellings(&self) -> &Spellings {
        &self.spellings
    }
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalogue")
            .field("n_names", &self.n_names)
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Catalogue {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.content == other.content
    }
}

impl Eq for Catalogue {}

impl Hash for Catalogue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl Serialize for Catalogue {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.digest())
    }
}

/// For `#[serde(serialize_with)]`: serde knows `Arc` only with its feature `rc`.
///
/// # Errors
/// What the serializer says.
pub fn serialize_shared<S: Serializer>(
    catalogue: &Option<Arc<Catalogue>>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    catalogue.as_deref().serialize(serializer)
}

/// FNV-1a of 128 bits (Fowler, Noll and Vo): the same on every platform.
fn fnv1a(bytes: &[u8]) -> u128 {
    let offset = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    bytes.iter().fold(offset, |hash: u128, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

fn invalid(reason: String) -> Error {
    Error::InvalidConfig { file: "catalogue".to_owned(), reason }
}

/// One name.
struct Row {
    slot: String,
    value: String,
    name: String,
}

/// The names read so far.
#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    /// Checks a name and keeps it. `place` says where it stands.
    fn push(&mut self, slot: &str, value: &str, name: &str, place: &str) -> Result<()> {
        let (slot, value, name) = (slot.trim(), value.trim(), name.trim());
        let is_slot = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if slot.is_empty() || slot.chars().count() > MAX_SLOT_CHARS || !slot.chars().all(is_slot) {
            let slot = printable(slot);
            let allowed = format!("1 to {MAX_SLOT_CHARS} characters of a-z, 0-9 and _");
            return Err(invalid(format!("{place}: '{slot}' is no name of a slot; it has {allowed}")));
        }
        if ["quantity", "delta"].contains(&slot) {
            return Err(invalid(format!("{place}: the slot '{slot}' is a number, which is read without a catalogue")));
        }
        for (what, text) in [("value", value), ("name", name)] {
            if text.is_empty() || text.chars().count() > MAX_NAME_CHARS || text.chars().any(char::is_control) {
                let text = printable(text);
                let allowed = format!("1 to {MAX_NAME_CHARS} characters on one line");
                return Err(invalid(format!("{place}: the {what} '{text}' is not {allowed}")));
            }
        }
        if self.0.len() == MAX_NAMES {
            return Err(invalid(format!("it has more than {MAX_NAMES} names")));
        }
        self.0.push(Row { slot: slot.to_owned(), value: value.to_owned(), name: name.to_owned() });
        Ok(())
    }
}

fn from_json(text: &str) -> Result<Rows> {
    let file: Map<String, Value> = serde_json::from_str(text).map_err(|e| invalid(format!("it is not JSON: {e}")))?;
    let mut rows = Rows::default();
    for (key, value) in &file {
        let list = LISTS.iter().find(|(list, _)| list == key);
        match (list, key.as_str()) {
            (Some((list, slot)), _) => push_list(&mut rows, slot, value, list)?,
            (None, "version") if *value == 1 => {}
            (None, "version") => return Err(invalid("its version is not 1, the only one that is known".to_owned())),
            (None, "slots") => {
                let slots = value.as_object().ok_or_else(|| invalid("'slots' is not an object of lists".to_owned()))?;
                for (slot, list) in slots {
                    push_list(&mut rows, slot, list, &format!("slots.{}", printable(slot)))?;
                }
            }
            _ => {
                let known = "version, products, brands, categories, sizes, colors and slots";
                return Err(invalid(format!("'{}' is not known; there are {known}", printable(key))));
            }
        }
    }
    Ok(rows)
}

fn push_list(rows: &mut Rows, slot: &str, list: &Value, place: &str) -> Result<()> {
    let list = list.as_array().ok_or_else(|| invalid(format!("'{place}' is not a list")))?;
    for (at, entry) in list.iter().enumerate() {
        let place = format!("{place}, entry {}", at + 1);
        let wrong = || invalid(format!("{place} is neither a name nor {{\"value\": …, \"names\": […]}}"));
        if let Some(name) = plain(entry) {
            rows.push(slot, &name, &name, &place)?;
            continue;
        }
        let entry = entry.as_object().ok_or_else(wrong)?;
        if entry.keys().any(|key| !["value", "names"].contains(&key.as_str())) {
            return Err(wrong());
        }
        let value = entry.get("value").and_then(plain).ok_or_else(wrong)?;
        match entry.get("names") {
            Some(names) => {
                for name in names.as_array().ok_or_else(wrong)? {
                    rows.push(slot, &value, &plain(name).ok_or_else(wrong)?, &place)?;
                }
            }
            None => rows.push(slot, &value, &value, &place)?,
        }
    }
    Ok(())
}

/// A text, or a whole number such as a shoe's size.
fn plain(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|n| n.to_string()))
}

fn from_table(text: &str) -> Result<Rows> {
    let mut lines = text.lines().enumerate();
    let heading = lines.next().map_or("", |(_, line)| line);
    let delimiter = if heading.contains('\t') { '\t' } else { ',' };
    let names = cells(heading, delimiter).unwrap_or_default();
    if !names.iter().map(|name| name.trim().to_ascii_lowercase()).eq(["slot", "value", "name"]) {
        let forms = "neither JSON, which begins with {, nor a table with the heading slot,value,name";
        return Err(invalid(format!("it is {forms}")));
    }
    let mut rows = Rows::default();
    for (at, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("line {}", at + 1);
        match cells(line, delimiter).as_deref() {
            Some([slot, value, name]) => rows.push(slot, value, name, &place)?,
            _ => return Err(invalid(format!("{place} has not the three cells slot, value and name"))),
        }
    }
    Ok(rows)
}

/// The cells of a line; `None` if a quoted one does not end. A quote inside quotes is doubled, as in RFC 4180.
fn cells(line: &str, delimiter: char) -> Option<Vec<String>> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let cell = cells.last_mut().expect("never empty");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if cell.is_empty() => quoted = true,
            c if c == delimiter && !quoted => cells.push(String::new()),
            c => cell.push(c),
        }
    }
    (!quoted).then_some(cells)
}

/// A name with its English words as they sound.
fn spoken(name: &str) -> String {
    static SOUNDS: OnceLock<HashMap<&str, &str>> = OnceLock::new();
    let sounds = SOUNDS.get_or_init(|| ENGLISH_SOUNDS.lines().skip(1).filter_map(|l| l.split_once('\t')).collect());
    name.split(' ').map(|word| sounds.get(word).copied().unwrap_or(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
