#![allow(clippy::unwrap_used, clippy::print_stdout)]

use proptest::prelude::*;

use super::*;
use crate::intent::labels::{built_in, label_id};

fn find(intent: &str, transcript: &str, phrase: &str, annotation: &Value, shop: Option<&Catalogue>) -> Vec<Slot> {
    let allowed = &built_in()[label_id(intent).unwrap()].slots;
    find_slots(transcript, allowed, phrase, annotation.as_object().unwrap(), shop)
}

fn pairs(slots: Vec<Slot>) -> Vec<(String, Value)> {
    slots.into_iter().map(|s| (s.slot, s.value)).collect()
}

fn slots(intent: &str, transcript: &str) -> Vec<(String, Value)> {
    pairs(find(intent, transcript, "", &json!({}), None))
}

fn slots_like(intent: &str, transcript: &str, phrase: &str, annotation: &Value) -> Vec<(String, Value)> {
    pairs(find(intent, transcript, phrase, annotation, None))
}

fn slots_of_shop(intent: &str, transcript: &str, shop: &Catalogue) -> Vec<(String, Value)> {
    pairs(find(intent, transcript, "", &json!({}), Some(shop)))
}

fn one(slot: &str, value: Value) -> Vec<(String, Value)> {
    vec![(slot.to_owned(), value)]
}

fn shop(catalogue: &Value) -> Catalogue {
    Catalogue::parse(catalogue.to_string().as_bytes()).unwrap()
}

#[test]
fn numbers_in_twi_english_and_digits() {
    assert_eq!(slots("set_quantity", "Yɛ no mmiɛnsa"), one("quantity", json!(3)));
    assert_eq!(slots("set_quantity", "yeno miensa"), one("quantity", json!(3)));
    assert_eq!(slots("set_quantity", "Set quantity to 12."), one("quantity", json!(12)));
    assert_eq!(slots("set_quantity", "Make it five ma me"), one("quantity", json!(5)));
    assert_eq!(slots("set_quantity", "Yɛ no aduonu baako"), one("quantity", json!(21)));
    assert_eq!(slots("set_quantity", "Make it half a dozen"), one("quantity", json!(6)));
    assert_eq!(slots("add_to_cart", "Fa nnuan mmienu to cart no mu"), one("quantity", json!(2)));
    assert_eq!(slots("set_quantity", "Dodow no nyɛ hwee"), vec![]);
    assert_eq!(slots("open_orders", "Kɔ me orders mmienu"), vec![], "only slots of the intent");
}

#[test]
fn a_change_has_a_sign_and_a_size() {
    for (transcript, delta) in [
        ("Fa mmienu ka ho", 2),
        ("Yi mmienu firi so", -2),
        ("Te so kakra", -1),
        ("Baako bio", 1),
        ("te baako so", -1),
        ("reduce it by three", -3),
        ("two more", 2),
        ("one less", -1),
        ("give me another two", 2),
        ("yi mmienu", -2),
        ("remove 2", -2),
        ("add a dozen more", 12),
        ("increase by aduonu baako", 21),
        ("-2", -2),
        ("+3", 3),
        ("from 2 to 5", 3),
    ] {
        assert_eq!(slots("change_quantity", transcript), one("delta", json!(delta)), "{transcript}");
    }
}

#[test]
fn the_longest_spelling_wins() {
    assert_eq!(slots("select_size", "Kɛse paa no na mepɛ"), one("size", json!("xlarge")));
    assert_eq!(slots("change_size", "kɔ extra small"), one("size", json!("xsmall")));
    assert_eq!(slots("select_size", "Size L na mepɛ"), one("size", json!("large")));
    assert_eq!(slots("make_payment", "Fa me Visa card no tua"), one("payment_method", json!("card")));
}

#[test]
fn too_large_is_no_choice() {
    assert_eq!(slots("change_size", "Ɛyɛ kɛse dodo"), vec![]);
    assert_eq!(slots("change_size", "Ɛyɛ ketewa dodo, ma me large"), one("size", json!("large")));
}

#[test]
fn fo_is_a_price_under_a_filter_and_cheap_in_a_search() {
    assert_eq!(slots("apply_filter", "deɛ ne boɔ yɛ fo nko ara"), one("price_range", json!("low")));
    let found = slots("search", "Hwehwɛ mpaboa a ne boɔ yɛ fo");
    assert_eq!(found, vec![("category".to_owned(), json!("shoes")), ("qualifier".to_owned(), json!("cheap"))]);
}

#[test]
fn of_two_values_the_one_that_is_meant() {
    for transcript in [
        "ɛnyɛ kɔkɔɔ, tuntum",
        "not red but black",
        "black instead of red",
        "black rather than red",
        "sesa firi kɔkɔɔ kɔ tuntum",
        "from red to black",
        "change red to black",
        "kɔkɔɔ no, mmom tuntum",
        "ma ɛnyɛ tuntum",
    ] {
        assert_eq!(slots("change_color", transcript), one("color", json!("black")), "{transcript}");
    }
    for (transcript, quantity) in [
        ("ɛnyɛ mmienu, mmiɛnsa", 3),
        ("not two but three", 3),
        ("three instead of two", 3),
        ("change from two to five", 5),
        ("sesa mmienu kɔ nnum", 5),
        ("Ma ɛnyɛ nson", 7),
    ] {
        assert_eq!(slots("set_quantity", transcript), one("quantity", json!(quantity)), "{transcript}");
    }
}

#[test]
fn what_is_refused_is_not_brought_back_by_the_phrase() {
    assert_eq!(slots("change_color", "not red"), vec![]);
    assert_eq!(slots_like("change_color", "not red", "Sesa no kɔ red", &json!({"color": "red"})), vec![]);
}

#[test]
fn the_transcript_wins_and_the_phrase_fills_in_what_was_heard() {
    let like = |heard| slots_like("change_size", heard, "Sesa size no kɔ medium", &json!({"size": "medium"}));
    assert_eq!(like("Sesa size no kɔ large"), one("size", json!("large")));
    assert_eq!(like("sesa sais no ko midim"), one("size", json!("medium")));
    assert_eq!(like("sesa sais no ko"), vec![], "nothing like it was heard");
    let two = slots_like("add_to_cart", "add to my cart", "Add two to my cart", &json!({"quantity": 2}));
    assert_eq!(two, vec![]);
    let phrase = "Fa ɛmo no hyɛ me cart no mu";
    let rice = slots_like("add_to_cart", "fa emo to kat no mu", phrase, &json!({"product": "rice"}));
    assert_eq!(rice, one("product", json!("rice")));
}

#[test]
fn the_shop_s_names_come_first_and_then_the_built_in_values() {
    let shop = shop(&json!({
        "version": 1,
        "products": [{"value": "rice-5kg", "names": ["ɛmo", "rice", "royal aroma"]}, "large pizza", "Galaxy S24"],
        "brands": ["Samsung"],
        "colors": [{"value": "crimson", "names": ["kɔkɔɔ"]}, {"value": "wrong", "names": ["jellow"]}],
        "sizes": [{"value": "40", "names": [40]}],
    }));
    assert_eq!(slots_of_shop("select_color", "mepɛ kɔkɔɔ no", &shop), one("color", json!("crimson")));
    assert_eq!(slots_of_shop("select_color", "mepɛ tuntum no", &shop), one("color", json!("black")));
    assert_eq!(slots_of_shop("select_color", "yellow no na mepɛ", &shop), one("color", json!("yellow")), "as written");
    assert_eq!(slots_of_shop("select_size", "size 40 na mepɛ", &shop), one("size", json!("40")));
    assert_eq!(
        slots_of_shop("remove_from_cart", "Yi Royal Aroma no firi mu", &shop),
        one("product", json!("rice-5kg"))
    );
    assert_eq!(slots_of_shop("remove_from_cart", "yi roial aroma firi mu", &shop), one("product", json!("rice-5kg")));
    let found = slots_of_shop("search", "hwehwɛ samsung galasi S24", &shop);
    assert_eq!(found, vec![("brand".to_owned(), json!("Samsung")), ("product".to_owned(), json!("Galaxy S24"))]);
    assert_eq!(slots_of_shop("search", "hwehwɛ large pidza", &shop), one("product", json!("large pizza")));
    assert_eq!(slots("remove_from_cart", "Yi Royal Aroma no firi mu"), vec![], "without it nobody knows the name");
}

#[test]
fn a_number_in_a_name_is_no_quantity() {
    let shop = shop(&json!({"products": ["iPhone 15", "Seven Up"], "brands": ["5 Star"], "sizes": [15]}));
    let product = |name: &str| ("product".to_owned(), json!(name));
    let quantity = |n: i64| ("quantity".to_owned(), json!(n));
    assert_eq!(slots_of_shop("add_to_cart", "fa iPhone 15 to cart no mu", &shop), [product("iPhone 15")]);
    assert_eq!(slots_of_shop("add_to_cart", "fa ifon fifteen to cart no mu", &shop), [product("iPhone 15")]);
    let two = slots_of_shop("add_to_cart", "fa iPhone 15 mmienu to cart no mu", &shop);
    assert_eq!(two, [product("iPhone 15"), quantity(2)]);
    let six = slots_of_shop("add_to_cart", "fa six seven up to cart no mu", &shop);
    assert_eq!(six, [product("Seven Up"), quantity(6)]);
    for transcript in ["Set iPhone 15 to three", "5 star no nyɛ mmiɛnsa"] {
        assert_eq!(slots_of_shop("set_quantity", transcript, &shop), [quantity(3)], "{transcript}");
    }
    assert_eq!(slots_of_shop("set_quantity", "Set quantity to 15", &shop), [quantity(15)], "a size is a number too");
    let more = slots_of_shop("change_quantity", "iPhone 15 mmienu ka ho", &shop);
    assert_eq!(more, one("delta", json!(2)));
}

#[test]
fn a_slot_of_the_shop_s_own_is_found_where_an_intent_allows_it() {
    let shop = shop(&json!({"slots": {"branch": [{"value": "kumasi", "names": ["Kumasi", "Kejetia"]}]}}));
    let found = find_slots("kɔ Kejetia", &["branch".to_owned()], "", &Map::new(), Some(&shop));
    assert_eq!(found, [Slot { slot: "branch".to_owned(), value: json!("kumasi"), text: "kejetia".to_owned() }]);
}

#[test]
fn the_words_of_a_value_are_told() {
    let found = find("set_quantity", "Yɛ no aduonu baako ma me", "", &json!({}), None);
    assert_eq!(found[0].text, "aduonu baako");
    let found = find("change_quantity", "Mepa wo kyɛw te baako so", "", &json!({}), None);
    assert_eq!(found[0].text, "te baako so");
}

/// Counts of values that are right, that are wrong or not said, and that were missed.
fn counts(with_phrase: bool) -> [usize; 3] {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let phrases = std::fs::read_to_string(folder.join("data/phrases.tsv")).unwrap();
    let annotations: std::collections::HashMap<(&str, &str), Map<String, Value>> = phrases
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let slots = columns.get(2).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
            ((columns[0], columns[1]), slots)
        })
        .collect();
    let heard = folder.join("../tests/intent/transcripts_unseen_voice.tsv");
    let (mut right, mut wrong, mut missed, mut clips) = (0, 0, 0, 0);
    for line in std::fs::read_to_string(heard).unwrap().lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [phrase, intent, _, _, transcript, ..] = columns[..] else { panic!("{line}") };
        let Some(said) = annotations.get(&(intent, phrase)) else { continue };
        let allowed = &built_in()[label_id(intent).unwrap()].slots;
        clips += usize::from(!allowed.is_empty());
        let none = Map::new();
        let (phrase, annotation) = if with_phrase { (phrase, said) } else { ("", &none) };
        let found = find_slots(transcript, allowed, phrase, annotation, None);
        let hits = found.iter().filter(|s| said.get(&s.slot) == Some(&s.value)).count();
        right += hits;
        wrong += found.len() - hits;
        missed += said.len() - hits;
    }
    assert!(clips >= 150, "{clips}");
    [right, wrong, missed]
}

/// What whisper-base made of voices that nothing here was fitted on. Measured by a script that does the same: with the
/// phrase 48 right, 6 wrong, 42 missed (F1 0.67; by edit distance, as it was before, 0.39); by the words alone 19, 6
/// and 71 (0.33; before, 0.22). Most of what is missed is not in the transcript at all.
#[test]
fn values_are_found_in_what_whisper_writes_for_unseen_voices() {
    for (with_phrase, least_f1, least_precision) in [(true, 0.63, 0.85), (false, 0.28, 0.70)] {
        let [right, wrong, missed] = counts(with_phrase).map(|n| n as f64);
        let (f1, precision) = (2.0 * right / (2.0 * right + wrong + missed), right / (right + wrong));
        println!(
            "phrase {with_phrase}: {right} right, {wrong} wrong, {missed} missed, F1 {f1:.3}, precision {precision:.3}"
        );
        assert!(f1 >= least_f1 && precision >= least_precision, "{with_phrase}: {f1} {precision}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn never_panics_and_gives_only_allowed_slots(text in any::<String>(), names in prop::collection::vec(any::<String>(), 0..5)) {
        let shop = Catalogue::parse(json!({"products": names, "sizes": names}).to_string().as_bytes()).ok();
        for intent in built_in().iter().filter(|intent| !intent.slots.is_empty()) {
            for transcript in [text.as_str(), names.join(" ").as_str()] {
                let found = find_slots(transcript, &intent.slots, transcript, &Map::new(), shop.as_ref());
                prop_assert!(found.iter().all(|s| intent.slots.contains(&s.slot)));
                prop_assert!(found.windows(2).all(|s| s[0].slot != s[1].slot), "one value each");
            }
        }
    }

    #[test]
    fn what_sounds_like_words_never_panics(text in "([a-zɛɔ]{1,7}|[0-9]{1,4}|not|from|two|dozen|te|so|ka ho|size|dodo|kɔkɔɔ|[ ,.-]){0,30}") {
        for intent in built_in().iter().filter(|intent| !intent.slots.is_empty()) {
            let _ = find_slots(&text, &intent.slots, &text, &Map::new(), None);
        }
    }

    #[test]
    fn a_name_that_is_said_is_found(name in "[b-d][aeiou][k-n][aeiou][r-t][a-z]{0,6}( [b-d][aeiou][0-9]{0,3})?") {
        let shop = shop(&json!({"products": [name.as_str()]}));
        let found = slots_of_shop("add_to_cart", &format!("Fa {} to cart no mu", name.to_uppercase()), &shop);
        prop_assert_eq!(&found[0], &("product".to_owned(), json!(name)));
    }
}
