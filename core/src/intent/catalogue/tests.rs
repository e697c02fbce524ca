#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Catalogue> {
    Catalogue::parse(text.as_bytes())
}

#[track_caller]
fn refused(text: &str, part: &str) {
    let error = parse(text).unwrap_err();
    assert_eq!(error.code(), "invalid_config");
    let sentence = error.to_string();
    assert!(sentence.starts_with("catalogue cannot be used: ") && sentence.contains(part), "{sentence}");
    assert!(sentence.len() < 400, "{sentence}");
}

#[test]
fn json_and_tables_say_the_same() {
    let json = r#"{"version": 1, "products": [{"value": "rice", "names": ["ɛmo", "rice, long"]}],
        "sizes": [38], "slots": {"branch": ["Kumasi"]}}"#;
    let csv =
        "slot,value,name\r\nproduct,rice,ɛmo\r\nproduct,rice,\"rice, long\"\r\nsize,38,38\nbranch,Kumasi,Kumasi\n\n";
    let tsv = "\u{FEFF}slot\tvalue\tname\nproduct\trice\tɛmo\nproduct\trice\trice, long\nsize\t38\t38\nbranch\tKumasi\tKumasi";
    let json = parse(json).unwrap();
    assert_eq!(json.len(), 4);
    assert_eq!(json, parse(csv).unwrap());
    assert_eq!(json, parse(tsv).unwrap());
    assert_eq!(json.digest(), parse(csv).unwrap().digest());
}

#[test]
fn writing_a_name_in_another_way_changes_nothing() {
    let shop = |name: &str| parse(&json!({"products": [{"value": "rice", "names": [name]}]}).to_string()).unwrap();
    for other in ["ƐMO", " ɛmo ", "εmo", "ԑmo"] {
        assert_eq!(shop("ɛmo"), shop(other), "{other}");
    }
    assert_ne!(shop("ɛmo"), shop("ɛmu"));
    assert_ne!(shop("2.5kg").content(), shop("25kg").content(), "figures count");
    assert_eq!(shop("ɛmo"), parse(r#"{"products": [{"value": "rice", "names": ["ɛmo", "Ɛmo", "ɛmo"]}]}"#).unwrap());
    assert_ne!(shop("ɛmo"), parse(r#"{"brands": [{"value": "rice", "names": ["ɛmo"]}]}"#).unwrap());
}

#[test]
fn a_digest_stands_for_it() {
    let shop = parse(r#"{"products": ["rice"]}"#).unwrap();
    let digest = shop.digest();
    assert_eq!(digest.len(), 32);
    assert_eq!(serde_json::to_value(&shop).unwrap(), json!(digest));
    assert!(!format!("{shop:?}").contains("rice"), "no list of names in a log");
    #[derive(Serialize)]
    struct Options {
        #[serde(serialize_with = "serialize_shared")]
        catalogue: Option<Arc<Catalogue>>,
    }
    let options = |catalogue| serde_json::to_value(Options { catalogue }).unwrap();
    assert_eq!(options(Some(Arc::new(shop))), json!({"catalogue": digest}));
    assert_eq!(options(None), json!({"catalogue": null}));
}

/// Two vectors that are published with FNV; Go's hash/fnv has them too.
#[test]
fn the_digest_is_fnv_1a() {
    assert_eq!(fnv1a(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
    assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
}

#[test]
fn an_empty_catalogue_is_one() {
    for text in
        ["{}", r#"{"version": 1, "products": []}"#, "slot,value,name", r#"{"products": [{"value": "x", "names": []}]}"#]
    {
        assert!(parse(text).unwrap().is_empty(), "{text}");
    }
    assert_eq!(parse(r#"{"products": ["火", "🍚"]}"#).unwrap().len(), 2, "cannot be heard, and does no harm");
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    refused("", "heading slot,value,name");
    refused("product,rice,rice", "heading slot,value,name");
    refused("[]", "heading slot,value,name");
    refused("{", "not JSON");
    refused(&format!("{{\"products\": {}{}}}", "[".repeat(5000), "]".repeat(5000)), "not JSON");
    refused(r#"{"version": 2}"#, "version");
    refused(r#"{"version": "1"}"#, "version");
    refused(r#"{"product": []}"#, "'product' is not known");
    refused(r#"{"products": {}}"#, "'products' is not a list");
    refused(r#"{"slots": []}"#, "'slots'");
    refused(r#"{"products": ["rice", ["x"]]}"#, "products, entry 2");
    refused(r#"{"products": [{"names": ["x"]}]}"#, "products, entry 1");
    refused(r#"{"products": [{"value": "x", "name": ["x"]}]}"#, "products, entry 1");
    refused(r#"{"products": [{"value": "x", "names": "x"}]}"#, "products, entry 1");
    refused(r#"{"products": [1.5, null]}"#, "products, entry 1");
    refused(r#"{"products": [" "]}"#, "products, entry 1");
    refused(r#"{"products": ["a\nb"]}"#, "products, entry 1");
    refused(r#"{"slots": {"Größe": ["x"]}}"#, "no name of a slot");
    refused(r#"{"slots": {"quantity": ["carton"]}}"#, "read without a catalogue");
    refused("slot,value,name\nproduct,rice", "line 2");
    refused("slot,value,name\nproduct,rice,\"rice", "line 2");
    refused("slot\tvalue\tname\nproduct\trice\trice\tx", "line 2");
}

#[test]
fn limits_are_kept() {
    refused(&json!({"products": ["ɔ".repeat(MAX_NAME_CHARS + 1)]}).to_string(), "100 characters");
    assert_eq!(parse(&json!({"products": ["ɔ".repeat(MAX_NAME_CHARS)]}).to_string()).unwrap().len(), 1);
    refused(&json!({"products": vec!["x"; MAX_NAMES + 1]}).to_string(), "20000 names");
    assert_eq!(parse(&json!({"products": vec!["x"; MAX_NAMES]}).to_string()).unwrap().len(), 1);
    refused(&" ".repeat(MAX_CATALOGUE_BYTES + 1), "larger than the limit");
    assert_eq!(Catalogue::parse(b"\xFF\xFE{}").unwrap_err().code(), "invalid_config");
}

#[test]
fn english_words_are_known_as_they_sound() {
    let (written, sounds) = ENGLISH_SOUNDS.lines().skip(1).find_map(|line| line.split_once('\t')).unwrap();
    assert_eq!(spoken(&format!("ɛmo {written}")), format!("ɛmo {sounds}"));
    assert_eq!(spoken("asikyire"), "asikyire");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in any::<String>()) {
        let _ = Catalogue::parse(&bytes);
        let _ = parse(&format!("slot,value,name\n{text}"));
        let _ = parse(&json!({"brands": [text.as_str()], "slots": {text.as_str(): [text.as_str()]}}).to_string());
    }
}
