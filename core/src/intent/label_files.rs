//! The labels of a head's classes, from whichever file of a repository names them.
//!
//! Looked at in this order: `intent_labels.json`, `label_map.json`, then `id2label` or `label2id` of `config.json`.
//! Forms, each met in a repository or written by a training script:
//! - `{"label_to_id": {…}, "id_to_label": {…}}`, either or both, also `intent_to_id`, `id_to_intent`, `label2id`,
//!   `id2label`;
//! - `{"labels": […]}` or `{"intents": […]}`, or the list alone, of strings or of objects with `intent`, `label` or
//!   `name` and perhaps `id`;
//! - a flat map, label to class or class to label.
//!
//! Classes must be `0..n` without holes, and every label stands for one class: a head whose answers were shifted by one
//! would look as if it worked. As in Python's `json`, the last of two equal keys counts.
//!
//! Not for the meaning of labels: [`super::labels`] knows those of the shop. Long for its tests of every form and fault.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::head::MAX_LABELS;
use crate::error::Result;
use crate::whisper::config::invalid;

const INTENT_LABELS: &str = "intent_labels.json";
const LABEL_MAP: &str = "label_map.json";
const CONFIG: &str = "config.json";

/// Longer labels are something else that got into the file.
const MAX_LABEL_BYTES: usize = 200;
/// Classes or labels that a message names.
const MAX_NAMED: usize = 8;
/// Characters of a file's own text that a message repeats.
const MAX_SHOWN_CHARS: usize = 40;

/// Keys under which a file may hold a list or a map, in the order in which they are told apart in messages.
const WRAPPERS: [&str; 8] =
    ["label_to_id", "id_to_label", "intent_to_id", "id_to_intent", "label2id", "id2label", "labels", "intents"];

/// The labels of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// In class order.
    pub names: Vec<String>,
    /// Where they are from.
    pub file: &'static str,
    /// What a person should know about the files that were not used.
    pub notes: Vec<String>,
}

/// Labels of one source, and what is odd about it.
type Found = (Vec<String>, Option<String>);
/// What was read, or why it cannot be used: the end of a sentence that begins with the file.
type Read<T> = std::result::Result<T, String>;

/// Reads the labels of a repository: the first source that has any. `None` if there are none, or only transformers'
/// placeholders (`LABEL_0`, `LABEL_1`, …).
///
/// # Errors
/// [`crate::Error::InvalidConfig`] for a file that comes first and cannot be used; what is wrong with one that is not
/// needed is a note.
pub fn read_labels(intent_labels: Option<&[u8]>, label_map: Option<&[u8]>, config: &Value) -> Result<Option<Labels>> {
    let sources = [
        (INTENT_LABELS, intent_labels.map_or(Ok(None), from_file)),
        (LABEL_MAP, label_map.map_or(Ok(None), from_file)),
        (CONFIG, from_config(config)),
    ];
    let mut labels: Option<Labels> = None;
    for (file, found) in sources {
        let found = found.map_err(|reason| invalid(file, reason));
        if let Some(used) = &mut labels {
            match found {
                Ok(Some((names, _))) if names != used.names => {
                    used.notes.push(format!("{file} names other labels than {}, which is used", used.file));
                }
                Ok(_) => {}
                Err(error) => used.notes.push(format!("{error}; {} is used", used.file)),
            }
        } else {
            labels = found?.map(|(names, note)| Labels { names, file, notes: note.into_iter().collect() });
        }
    }
    Ok(labels)
}

/// Whether there is a label for each class of the head.
///
/// # Errors
/// [`crate::Error::InvalidConfig`] with both numbers.
pub fn check_count(labels: &Labels, n_classes: usize) -> Result<()> {
    let count = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    let n_labels = labels.names.len();
    if n_labels == n_classes {
        return Ok(());
    }
    let (names, has) = (count(n_labels, "label", "labels"), count(n_classes, "class", "classes"));
    Err(invalid(labels.file, format!("it names {names}, but the head has {has}")))
}

fn from_file(bytes: &[u8]) -> Read<Option<Found>> {
    // Editors on Windows put a byte order mark first.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let value: Value = serde_json::from_slice(bytes).map_err(|e| format!("it is not JSON ({e})"))?;
    let Some(map) = value.as_object() else { return Ok(real(listed(&value)?)) };
    let mut wrapped = WRAPPERS
        .into_iter()
        .filter_map(|key| map.get(key).filter(|v| v.is_object() || v.is_array()).map(|value| (key, value)));
    let Some((first_key, first)) = wrapped.next() else { return Ok(real(of_map(map)?)) };
    let names = listed(first)?;
    for (key, value) in wrapped {
        let others = listed(value)?;
        if others != names {
            return Err(format!("{first_key} and {key} do not agree{}", difference(&names, &others)));
        }
    }
    Ok(real(names))
}

fn from_config(config: &Value) -> Read<Option<Found>> {
    let read = |key: &str| -> Read<Option<Vec<String>>> {
        let is_empty = |v: &Value| v.is_null() || v.as_object().is_some_and(Map::is_empty);
        let Some(value) = config.get(key).filter(|v| !is_empty(v)) else { return Ok(None) };
        let names = listed(value).map_err(|reason| format!("{key}: {reason}"))?;
        Ok(real(names).map(|(names, _)| names))
    };
    let Some(names) = read("id2label")? else { return Ok(read("label2id")?.map(|names| (names, None))) };
    // transformers answers by id2label; a label2id that was left behind by another model harms nothing.
    let agrees = matches!(read("label2id"), Ok(other) if other.as_ref().is_none_or(|other| *other == names));
    let note = (!agrees).then(|| format!("{CONFIG}: label2id does not agree with id2label, which is used"));
    Ok(Some((names, note)))
}

/// Nothing, if these are what transformers writes where nobody named the classes.
fn real(names: Vec<String>) -> Option<Found> {
    let placeholders = names.iter().enumerate().all(|(class, name)| *name == format!("LABEL_{class}"));
    (!placeholders).then_some((names, None))
}

/// The labels of a list or a map, in class order.
fn listed(value: &Value) -> Read<Vec<String>> {
    match value {
        Value::Array(rows) => of_list(rows),
        Value::Object(map) => of_map(map),
        other => Err(format!("{} stands where labels are expected", shown(&other.to_string()))),
    }
}

/// A map either way round: strings as values are labels, everything else should be a class.
fn of_map(map: &Map<String, Value>) -> Read<Vec<String>> {
    let is_class = |text: &str| text.trim().parse::<u64>().is_ok();
    // transformers' examples write {"search": "0"}: classes as strings, against labels as keys.
    let written_out = map.values().all(|v| v.as_str().is_some_and(is_class)) && !map.keys().all(|key| is_class(key));
    let by_class = map.values().all(Value::is_string) && !written_out;
    let class_of = |value: &Value| match value.as_str() {
        Some(text) if written_out => text.trim().parse().ok(),
        _ => value.as_u64(),
    };
    let pairs = map.iter().map(|(key, value)| match value.as_str().filter(|_| by_class) {
        Some(label) => checked_class(key.trim().parse().ok(), label, key).map(|class| (class, label)),
        None => checked_class(class_of(value), key, &value.to_string()).map(|class| (class, key.as_str())),
    });
    in_class_order(pairs.collect::<Read<_>>()?)
}

/// Strings, or objects that hold one.
fn of_list(rows: &[Value]) -> Read<Vec<String>> {
    let mut n_with_class = 0;
    let mut pairs = Vec::with_capacity(rows.len());
    for (at, row) in rows.iter().enumerate() {
        let text = |key: &str| row.get(key).and_then(Value::as_str);
        let label = row.as_str().or_else(|| text("intent")).or_else(|| text("label")).or_else(|| text("name"));
        let label = label.ok_or_else(|| {
            format!("entry {at} of the list is neither a string nor has it an 'intent', a 'label' or a 'name'")
        })?;
        // Some write {"label": 3, "name": "search"}.
        let class = row.get("id").or_else(|| row.get("label").filter(|v| v.is_number()));
        n_with_class += usize::from(class.is_some());
        let class = class.map_or(Ok(at), |class| checked_class(class.as_u64(), label, &class.to_string()))?;
        pairs.push((class, label));
    }
    if n_with_class > 0 && n_with_class < rows.len() {
        return Err(format!("{n_with_class} of the {} entries have an id and the others have none", rows.len()));
    }
    in_class_order(pairs)
}

/// A class that can be one; `raw` is what the file says.
fn checked_class(class: Option<u64>, label: &str, raw: &str) -> Read<usize> {
    class.and_then(|class| usize::try_from(class).ok()).filter(|class| *class < MAX_LABELS).ok_or_else(|| {
        let last = MAX_LABELS - 1;
        format!("the class of {} is {}, expected a whole number from 0 to {last}", shown(label), shown(raw))
    })
}

fn in_class_order(pairs: Vec<(usize, &str)>) -> Read<Vec<String>> {
    let Some(last) = pairs.iter().map(|(class, _)| *class).max() else {
        return Err("it names no label".to_owned());
    };
    if pairs.len() > MAX_LABELS {
        return Err(format!("it names {} labels, and at most {MAX_LABELS} are read", pairs.len()));
    }
    let mut names: Vec<Option<&str>> = vec![None; last + 1]; // `last` is below MAX_LABELS
    let (mut doubled, mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (class, label) in pairs {
        let label = checked_label(class, label)?;
        if !seen.insert(label) {
            repeated.insert(label);
        }
        if names[class].replace(label).is_some() {
            doubled.insert(class);
        }
    }
    let missing: BTreeSet<usize> = (0..=last).filter(|class| names[*class].is_none()).collect();
    for (classes, one, many) in
        [(doubled, "has more than one label", "have more than one label"), (missing, "has no label", "have no label")]
    {
        if !classes.is_empty() {
            let (noun, verb) = if classes.len() == 1 { ("class", one) } else { ("classes", many) };
            return Err(format!("{noun} {} {verb}", enumerated(classes.iter().map(usize::to_string))));
        }
    }
    if !repeated.is_empty() {
        let labels = enumerated(repeated.into_iter().map(shown));
        return Err(format!("each label stands for one class, but these are there more than once: {labels}"));
    }
    Ok(names.into_iter().flatten().map(str::to_owned).collect())
}

/// The label without the space around it.
fn checked_label(class: usize, label: &str) -> Read<&str> {
    let label = label.trim();
    if label.is_empty() {
        Err(format!("the label of class {class} is empty"))
    } else if label.len() > MAX_LABEL_BYTES {
        Err(format!("the label of class {class} is longer than {MAX_LABEL_BYTES} bytes: {}", shown(label)))
    } else if label.chars().any(char::is_control) {
        Err(format!("the label of class {class} holds control characters: {}", shown(label)))
    } else {
        Ok(label)
    }
}

/// Where two lists of labels first differ.
fn difference(a: &[String], b: &[String]) -> String {
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(class) => format!(": class {class} is {} and {}", shown(&a[class]), shown(&b[class])),
        None => format!(": {} labels and {}", a.len(), b.len()),
    }
}

/// `a, b and c`, or the first few `and 12 more`.
fn enumerated(items: impl ExactSizeIterator<Item = String>) -> String {
    let n = items.len();
    let mut items: Vec<String> = items.take(MAX_NAMED).collect();
    let last = if n > MAX_NAMED { Some(format!("{} more", n - MAX_NAMED)) } else { items.pop() };
    match last {
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
        None => String::new(),
    }
}

/// A file's own text in a message: quoted, printable and short.
fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = "'".to_owned();
    for c in chars.by_ref().take(MAX_SHOWN_CHARS) {
        if matches!(c, '\'' | '"') { out.push(c) } else { out.extend(c.escape_debug()) }
    }
    out + if chars.next().is_some() { "…'" } else { "'" }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn one(value: &Value) -> Result<Option<Labels>> {
        read_labels(Some(value.to_string().as_bytes()), None, &Value::Null)
    }

    fn reason(value: &Value) -> String {
        let error = one(value).unwrap_err();
        assert_eq!(error.code(), "invalid_config");
        let text = error.to_string();
        text.strip_prefix("intent_labels.json cannot be used: ").unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    #[test]
    fn every_form_gives_the_same_labels() {
        let forms = [
            json!({
                "label_to_id": {"search": 1, "add": 0, "unknown": 2},
                "id_to_label": {"0": "add", "1": "search", "2": "unknown"}
            }),
            json!({"label_to_id": {"search": 1, "add": 0, "unknown": 2}, "num_labels": 3, "version": "1.0"}),
            json!({"id_to_label": {"2": "unknown", "0": "add", "1": "search"}}),
            json!({"intent_to_id": {"search": 1, "add": 0, "unknown": 2}}),
            json!({"id_to_intent": {"2": "unknown", "0": "add", "1": " search "}}),
            json!({"intents": ["add", "search", "unknown"]}),
            json!({"labels": ["add", "search", "unknown"], "about": "three"}),
            json!({"labels": {"add": 0, "search": 1, "unknown": 2}}),
            json!({"search": 1, "add": 0, "unknown": 2}),
            json!({"2": "unknown", "0": "add", "1": "search"}),
            json!({"label2id": {"search": "1", "add": "0", "unknown": "2"}}),
            json!({"search": "1", "add": "0", "unknown": "2"}),
            json!(["add", "search", "unknown\n"]),
            json!([{"intent": "add", "risk": "undo"}, {"intent": "search"}, {"intent": "unknown"}]),
            json!([{"label": "search", "id": 1}, {"name": "unknown", "id": 2}, {"intent": "add", "id": 0}]),
            json!([{"label": 1, "name": "search"}, {"label": 0, "name": "add"}, {"label": 2, "name": "unknown"}]),
        ];
        for form in forms {
            let labels = one(&form).unwrap().unwrap();
            assert_eq!(labels.names, ["add", "search", "unknown"], "{form}");
            assert_eq!((labels.file, labels.notes.len()), ("intent_labels.json", 0), "{form}");
        }
        let config = json!({"id2label": {"0": "add", "1": "search"}, "label2id": {"search": 1, "add": 0}});
        let labels = read_labels(None, None, &config).unwrap().unwrap();
        assert_eq!((labels.file, labels.notes.len()), ("config.json", 0));
        assert_eq!(labels.names, ["add", "search"]);
        let labels = read_labels(Some(b"\xef\xbb\xbf[\"add\"]"), None, &Value::Null).unwrap().unwrap();
        assert_eq!(labels.names, ["add"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = "x".repeat(201);
        let sparse: Map<String, Value> = (0..30).map(|i| (format!("l{i}"), json!(2 * i))).collect();
        for (value, expected) in [
            (json!({"a": 0, "b": 1, "c": 2, "d": 4, "e": 5, "f": 6, "g": 8}), "classes 3 and 7 have no label"),
            (json!({"a": 1}), "class 0 has no label"),
            (Value::Object(sparse), "classes 1, 3, 5, 7, 9, 11, 13, 15 and 21 more have no label"),
            (json!({"a": 0, "b": 0, "c": 1}), "class 0 has more than one label"),
            (json!({"0": "a", " 0": "b"}), "class 0 has more than one label"),
            (json!(["a", "b", "a "]), "each label stands for one class, but these are there more than once: 'a'"),
            (json!({"a": -1}), "the class of 'a' is '-1', expected a whole number from 0 to 99999"),
            (json!({"a": 1.0}), "the class of 'a' is '1.0', expected"),
            (json!({"a": 0, "b": 100_000}), "the class of 'b' is '100000', expected"),
            (json!({"a": u64::MAX}), "the class of 'a' is '18446744073709551615', expected"),
            (json!({"a": 0, "b": "1"}), "the class of 'b' is '\"1\"', expected"),
            (json!({"a": "b"}), "the class of 'b' is 'a', expected"),
            (json!({"a": 0, "b": null}), "the class of 'b' is 'null', expected"),
            (json!([{"intent": "a", "id": 0}, "b"]), "1 of the 2 entries have an id and the others have none"),
            (json!(["a", 7]), "entry 1 of the list is neither a string"),
            (json!(["a", " "]), "the label of class 1 is empty"),
            (json!(["a", "b\u{7}c"]), "the label of class 1 holds control characters: 'b\\u{7}c'"),
            (json!([long]), "the label of class 0 is longer than 200 bytes: 'xxx"),
            (json!({}), "it names no label"),
            (json!({"labels": []}), "it names no label"),
            (json!(3), "'3' stands where labels are expected"),
            (
                json!({"label_to_id": {"a": 0, "b": 1}, "id_to_label": {"0": "b", "1": "a"}}),
                "label_to_id and id_to_label do not agree: class 0 is 'a' and 'b'",
            ),
            (
                json!({"label_to_id": {"a": 0, "b": 1}, "id_to_label": {"0": "a"}}),
                "label_to_id and id_to_label do not agree: 2 labels and 1",
            ),
        ] {
            let reason = reason(&value);
            assert!(reason.starts_with(expected), "{value}: {reason}");
        }
        for bytes in [&b"{"[..], b"", b"\xff", &b"[".repeat(100_000)] {
            let error = read_labels(None, Some(bytes), &Value::Null).unwrap_err();
            assert!(error.to_string().starts_with("label_map.json cannot be used: it is not JSON ("), "{error}");
        }
        let error = read_labels(None, None, &json!({"id2label": {"1": "a"}})).unwrap_err();
        assert_eq!(error.to_string(), "config.json cannot be used: id2label: class 0 has no label");
        let many: Vec<String> = (0..=MAX_LABELS).map(|i| i.to_string()).collect();
        assert!(reason(&json!(many)).starts_with("it names 100001 labels"));
    }

    #[test]
    fn placeholders_are_no_labels() {
        let config = json!({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}});
        assert_eq!(read_labels(None, None, &config).unwrap(), None);
        assert_eq!(read_labels(None, None, &json!({"id2label": {}, "label2id": null})).unwrap(), None);
        assert_eq!(read_labels(None, None, &json!([])).unwrap(), None);
        let labels = read_labels(Some(br#"["LABEL_0"]"#), Some(br#"["a"]"#), &config).unwrap().unwrap();
        assert_eq!((labels.file, labels.notes.len()), ("label_map.json", 0));
        // One real name among them makes them labels; label2id stands in for placeholders.
        let config = json!({"id2label": {"0": "LABEL_0"}, "label2id": {"search": 0}});
        assert_eq!(read_labels(None, None, &config).unwrap().unwrap().names, ["search"]);
        assert_eq!(one(&json!(["LABEL_0", "search"])).unwrap().unwrap().names.len(), 2);
    }

    #[test]
    fn the_first_file_wins_and_says_so() {
        let config = json!({"id2label": {"0": "a", "1": "c"}, "label2id": {"x": 0}});
        let labels = read_labels(Some(br#"["a", "b"]"#), Some(br#"["b", "a"]"#), &config).unwrap().unwrap();
        assert_eq!(labels.names, ["a", "b"]);
        assert_eq!(
            labels.notes,
            [
                "label_map.json names other labels than intent_labels.json, which is used",
                "config.json names other labels than intent_labels.json, which is used"
            ]
        );
        let labels = read_labels(Some(br#"["a"]"#), Some(b"{}"), &Value::Null).unwrap().unwrap();
        assert_eq!(labels.notes, ["label_map.json cannot be used: it names no label; intent_labels.json is used"]);
        let labels = read_labels(None, None, &config).unwrap().unwrap();
        assert_eq!(labels.notes, ["config.json: label2id does not agree with id2label, which is used"]);
    }

    #[test]
    fn there_is_one_label_a_class() {
        let labels = one(&json!(["a", "b"])).unwrap().unwrap();
        check_count(&labels, 2).unwrap();
        assert_eq!(
            check_count(&labels, 1).unwrap_err().to_string(),
            "intent_labels.json cannot be used: it names 2 labels, but the head has 1 class"
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            prop::sample::select(WRAPPERS.to_vec()).prop_map(str::to_owned),
            prop::sample::select(vec!["intent", "label", "name", "id"]).prop_map(str::to_owned),
            (0u32..9).prop_map(|i| i.to_string()),
            ".{0,8}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0u64..9).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::btree_map(key.clone(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_gives_sound_labels_or_a_reason(a in any_json(), b in any_json(), config in any_json()) {
            let (a, b) = (a.to_string(), b.to_string());
            if let Ok(Some(labels)) = read_labels(Some(a.as_bytes()), Some(b.as_bytes()), &config) {
                let unique: BTreeSet<&String> = labels.names.iter().collect();
                prop_assert!(!labels.names.is_empty() && unique.len() == labels.names.len());
                prop_assert!(labels.names.iter().all(|n| !n.is_empty() && n.trim() == n && n.len() <= MAX_LABEL_BYTES));
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = read_labels(Some(&bytes), Some(&bytes), &Value::Null);
        }

        #[test]
        fn every_form_holds_any_labels(
            labels in prop::collection::btree_set("[a-zɛɔ][a-z_ɛɔ]{0,11}", 1..30),
            by in 0usize..30,
        ) {
            let mut names: Vec<String> = labels.into_iter().collect();
            let n = names.len();
            names.rotate_left(by % n);
            let classes = || names.iter().enumerate();
            let to_id: Map<String, Value> = classes().map(|(i, l)| (l.clone(), json!(i))).collect();
            let to_label: Map<String, Value> = classes().map(|(i, l)| (i.to_string(), json!(l))).collect();
            let both = json!({"label_to_id": to_id, "id_to_label": to_label});
            for form in [json!(to_id), json!(to_label), json!(names), both] {
                let labels = one(&form).unwrap().unwrap();
                prop_assert_eq!(&labels.names, &names);
            }
        }
    }
}
