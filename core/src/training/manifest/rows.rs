//! What the rows of a manifest mean: the intent, the slots, who speaks, which words.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::table::{Fields, Read, Row};
use super::{Example, ManifestOptions, Problem, UNKNOWN_SPEAKER, counted, some_of};
use crate::error::printable;
use crate::intent::built_in;
use crate::intent::calibration::OUT_OF_SCOPE_LABELS;
use crate::intent::normalize::{fold, letters};
use crate::training::splits::Cell;

/// Jaro-Winkler similarity from which a label is worth suggesting.
const MIN_SIMILARITY: f64 = 0.7;
/// Characters of an unknown intent that are compared.
const MAX_COMPARED_CHARS: usize = 60;

/// An example that nobody has listened to yet, and what is wrong with its line.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) example: Example,
    /// Each the end of a sentence that begins with the path.
    pub(super) faults: Vec<String>,
    /// Its split is `test`, whichever test that is.
    is_plain_test: bool,
}

/// Makes examples of rows; `folder` is the manifest's. Rows that cannot be read become problems.
pub(super) fn read_rows(
    rows: Vec<Row>,
    folder: &Path,
    options: &ManifestOptions,
    notes: &mut Vec<String>,
    problems: &mut Vec<Problem>,
) -> Vec<Draft> {
    let some_have_a_split = rows.iter().any(|row| row.fields.as_ref().is_ok_and(|fields| !fields.split.is_empty()));
    let mut labels = LabelIndex::new(&options.labels);
    let mut drafts = Vec::new();
    for Row { line, fields } in rows {
        match fields {
            Ok(fields) => drafts.push(draft(line, fields, folder, &mut labels, some_have_a_split)),
            Err(what) => problems.push(Problem { line, what }),
        }
    }
    fill_wordings(&mut drafts, notes);
    name_plain_tests(&mut drafts);
    notes.extend(speakers_note(&drafts));
    notes.extend(slots_note(&drafts, &options.labels));
    drafts
}

fn draft(line: usize, fields: Fields, folder: &Path, labels: &mut LabelIndex<'_>, some_have_a_split: bool) -> Draft {
    let mut faults = Vec::new();
    let mut or_fault = |what: String| faults.push(what);
    let label = labels.label_of(&fields.intent).unwrap_or_else(|what| {
        or_fault(what);
        None
    });
    let slots = slots_of(fields.slots).unwrap_or_else(|what| {
        or_fault(what);
        Map::new()
    });
    let split_name = normal_label(&fields.split);
    let is_plain_test = split_name == "test";
    let split = match split_name.as_str() {
        "" if some_have_a_split => {
            or_fault("it has no split, but other lines have one".to_owned());
            None
        }
        "" => None,
        // Until the others are known: [`name_plain_tests`].
        "test" => Some(Cell::TestSeen),
        name => {
            let cell = Cell::from_name(name);
            if cell.is_none() {
                let known: Vec<&str> = Cell::ALL.iter().map(|cell| cell.name()).collect();
                let name = printable(name);
                or_fault(format!("the split '{name}' is not known; there are test, {}", known.join(", ")));
            }
            cell
        }
    };
    let intent = normal_label(&fields.intent);
    let kind = match label {
        _ if !fields.kind.is_empty() => fields.kind,
        Some(_) => "command".to_owned(),
        None if ["silence", "no_speech"].contains(&intent.as_str()) => intent,
        None => "talk".to_owned(),
    };
    let example = Example {
        line,
        // An absolute path stands for itself.
        path: folder.join(&fields.path),
        shown_path: fields.path,
        text: fields.text,
        label,
        slots,
        speaker: if fields.speaker.is_empty() { UNKNOWN_SPEAKER.to_owned() } else { fields.speaker },
        wording: fields.wording,
        kind,
        language: fields.language,
        split,
        duration_s: 0.0,
        content: [0; 32],
    };
    Draft { example, faults, is_plain_test }
}

/// The intents by their names, however they are spelled.
struct LabelIndex<'a> {
    labels: &'a [String],
    exact: HashMap<&'a str, usize>,
    normal: HashMap<String, usize>,
    /// What is said about names that are none.
    unknown: HashMap<String, String>,
}

impl<'a> LabelIndex<'a> {
    fn new(labels: &'a [String]) -> Self {
        let exact = labels.iter().enumerate().map(|(id, label)| (label.as_str(), id)).collect();
        let mut normal = HashMap::new();
        for (id, label) in labels.iter().enumerate() {
            normal.entry(normal_label(label)).or_insert(id);
        }
        Self { labels, exact, normal, unknown: HashMap::new() }
    }

    /// The label's place; `None` for no command.
    fn label_of(&mut self, intent: &str) -> Read<Option<usize>> {
        if let Some(id) = self.exact.get(intent) {
            return Ok(Some(*id));
        }
        let normal = normal_label(intent);
        if let Some(id) = self.normal.get(&normal) {
            return Ok(Some(*id));
        }
        if normal.is_empty() || OUT_OF_SCOPE_LABELS.contains(&normal.as_str()) {
            return Ok(None);
        }
        let labels = self.labels;
        let what = self.unknown.entry(normal).or_insert_with_key(|normal| {
            let cut: String = normal.chars().take(MAX_COMPARED_CHARS).collect();
            let nearest = labels
                .iter()
                .map(|label| (strsim::jaro_winkler(&cut, &normal_label(label)), label))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY);
            match nearest {
                Some((_, label)) => format!("is not in the list; is it '{}'?", printable(label)),
                None => "is not in the list; speech that is no command is 'none'".to_owned(),
            }
        });
        Err(format!("the intent '{}' {what}", printable(intent)))
    }
}

/// Lower case, words parted by one `_`.
fn normal_label(label: &str) -> String {
    let lower = label.to_lowercase();
    let words = lower.split(|c: char| c == '-' || c == '_' || c.is_whitespace()).filter(|word| !word.is_empty());
    words.collect::<Vec<&str>>().join("_")
}

fn slots_of(slots: Value) -> Read<Map<String, Value>> {
    let wrong = || "the slots are no JSON object such as {\"quantity\": 2}".to_owned();
    match slots {
        Value::Null => Ok(Map::new()),
        Value::Object(slots) => Ok(slots),
        Value::String(text) if text.trim().is_empty() => Ok(Map::new()),
        Value::String(text) => serde_json::from_str(&text).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

/// One name for a text, however it is spelled; `None` if there is none.
fn words_of(text: &str) -> Option<String> {
    let folded: String = fold(text).into_iter().map(char::from).collect();
    if !folded.is_empty() {
        return Some(folded);
    }
    // Digits and other scripts, which the folding drops.
    let words = letters(text).split_whitespace().collect::<Vec<&str>>().join(" ");
    (!words.is_empty()).then_some(words)
}

/// Names the wordings that the manifest does not: as another line with the same text does, else by the text, else by
/// the file.
fn fill_wordings(drafts: &mut [Draft], notes: &mut Vec<String>) {
    let words: Vec<Option<String>> = drafts.iter().map(|draft| words_of(&draft.example.text)).collect();
    let mut named: HashMap<&str, String> = HashMap::new();
    let mut n_split_texts = 0;
    for (draft, words) in drafts.iter().zip(&words) {
        if let (Some(words), false) = (words, draft.example.wording.is_empty()) {
            let wording = named.entry(words).or_insert_with(|| draft.example.wording.clone());
            n_split_texts += usize::from(*wording != draft.example.wording);
        }
    }
    if n_split_texts > 0 {
        notes.push(format!(
            "{} the wording of which differs from that of an earlier line with the same text: words that test the head \
             may be learned under the other name",
            counted(n_split_texts, "line")
        ));
    }
    for (draft, words) in drafts.iter_mut().zip(&words) {
        let example = &mut draft.example;
        if example.wording.is_empty() {
            example.wording = match words {
                Some(words) => named.get(words.as_str()).unwrap_or(words).clone(),
                None => file_stem(&example.path, &example.shown_path),
            };
        }
    }
}

/// Says of each clip whose split is `test` what it tests: a voice or wording is new if nothing else of the manifest's
/// training or validation has it. An unknown voice is never new.
fn name_plain_tests(drafts: &mut [Draft]) {
    let (mut speakers, mut wordings) = (HashSet::from([UNKNOWN_SPEAKER.to_owned()]), HashSet::new());
    for Draft { example, .. } in drafts.iter() {
        let is_learned_from = |cell: &Cell| cell.name() == "train" || cell.name().starts_with("validation");
        if example.split.as_ref().is_some_and(is_learned_from) {
            speakers.insert(example.speaker.clone());
            wordings.insert(example.wording.clone());
        }
    }
    for draft in drafts.iter_mut().filter(|draft| draft.is_plain_test) {
        let example = &mut draft.example;
        example.split = Some(match (speakers.contains(&example.speaker), wordings.contains(&example.wording)) {
            (true, true) => Cell::TestSeen,
            (false, true) => Cell::TestVoice,
            (true, false) => Cell::TestWording,
            (false, false) => Cell::TestBoth,
        });
    }
}

fn file_stem(path: &Path, shown: &str) -> String {
    path.file_stem().map_or_else(|| shown.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

fn speakers_note(drafts: &[Draft]) -> Option<String> {
    let n = drafts.iter().filter(|draft| draft.example.speaker == UNKNOWN_SPEAKER).count();
    if n == 0 {
        None
    } else if n == drafts.len() {
        Some("no line names a speaker: splits by speaker are not possible".to_owned())
    } else {
        Some(format!(
            "{} of {} name no speaker: splits by speaker are not possible for them, and the voices that test the head \
             may be among them",
            n,
            counted(drafts.len(), "line")
        ))
    }
}

/// Slots that an intent of the shop does not carry; what intents of another list carry is not known.
fn slots_note(drafts: &[Draft], labels: &[String]) -> Option<String> {
    let carried: Vec<Option<&[String]>> = labels
        .iter()
        .map(|label| built_in().iter().find(|intent| intent.intent == *label).map(|intent| intent.slots.as_slice()))
        .collect();
    let mut odd: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for Draft { example, .. } in drafts {
        let (intent, known) = match example.label {
            Some(label) => (labels[label].as_str(), carried[label]),
            None => ("none", Some(&[][..])),
        };
        let Some(known) = known else { continue };
        for slot in example.slots.keys().filter(|slot| !known.contains(slot)) {
            odd.entry((intent, slot.as_str())).or_insert(example.line);
        }
    }
    let named = some_of(
        odd.iter()
            .map(|((intent, slot), line)| format!("'{}' of {} (line {line})", printable(slot), printable(intent))),
    );
    (!odd.is_empty()).then(|| format!("slots that their intent does not carry: {named}"))
}
