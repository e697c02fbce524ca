//! The manifest: a table of recordings with what each is, checked line by line before any work is done on it.
//!
//! A CSV, TSV or JSON Lines file with `path`, `intent` and, if known, `text`, `slots`, `speaker`, `wording`, `kind`,
//! `language` and `split`. Every file is decoded once here, so that a training that runs for hours does not stop at
//! clip 9000; what is wrong is told for all lines at once. In three steps: `table` (bytes to rows), `rows` (rows to
//! examples), `probe` (what the files hold).
//!
//! Paths are the researcher's own and may lead anywhere. Not for what a server is sent.

mod probe;
mod rows;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::rows::{Draft, read_rows};
use super::splits::Cell;
use crate::error::{Error, Result, printable};
use crate::intent::built_in;

/// The speaker of a line that names none.
pub const UNKNOWN_SPEAKER: &str = "unknown";

/// Millions of lines; more is no manifest.
const MAX_MANIFEST_BYTES: u64 = 1 << 30;
/// Problems that an error spells out.
const MAX_SHOWN_PROBLEMS: usize = 20;
/// Lines or labels that a note names.
const MAX_NAMED: usize = 10;

/// A recording, and what is said in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// In the manifest's file, from 1.
    pub line: usize,
    /// Where the file is.
    pub path: PathBuf,
    /// The path as the manifest has it.
    pub shown_path: String,
    /// What is said, or empty.
    pub text: String,
    /// The place of its intent among [`ManifestOptions::labels`]; `None`: no command.
    pub label: Option<usize>,
    /// Values that the command carries.
    pub slots: Map<String, Value>,
    /// Who says it, or [`UNKNOWN_SPEAKER`].
    pub speaker: String,
    /// The same for all recordings of the same words.
    pub wording: String,
    /// `command`, or what else it is: `talk`, `noise`, …
    pub kind: String,
    /// As the manifest has it, or empty.
    pub language: String,
    /// As the manifest has it; `test` alone is the test cell that its speaker and wording make it.
    pub split: Option<Cell>,
    /// In seconds.
    pub duration_s: f64,
    /// BLAKE3 of the samples, 16 kHz mono.
    pub content: [u8; 32],
}

/// What can be learned from, and what a person should know about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// In the order of the file; no two hold the same audio.
    pub examples: Vec<Example>,
    /// Sentences on what was noticed and is no fault.
    pub notes: Vec<String>,
    /// With [`ManifestOptions::skip_bad`], the lines that are not in `examples`, but for repetitions.
    pub left_out: Vec<Problem>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// Such as `clips/a.wav: no such file`.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// What a manifest has to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManifestOptions {
    /// Leaves bad lines out instead of refusing the manifest.
    pub skip_bad: bool,
    /// Shortest recording, in seconds.
    pub min_duration_s: f64,
    /// Longest recording, in seconds.
    pub max_duration_s: f64,
    /// Fewest recordings of an intent that has any.
    pub min_per_intent: usize,
    /// The intents, in class order.
    pub labels: Vec<String>,
}

impl Default for ManifestOptions {
    /// The shop's intents, two recordings of each that is there, 0.1 s to Whisper's 30 s.
    fn default() -> Self {
        Self {
            skip_bad: false,
            min_duration_s: 0.1,
            max_duration_s: 30.0,
            min_per_intent: 2,
            labels: built_in().iter().map(|intent| intent.intent.clone()).collect(),
        }
    }
}

impl ManifestOptions {
    fn check(&self) -> Result<()> {
        let wrong = |name, allowed: &str| Err(Error::InvalidParameter { name, allowed: allowed.to_owned() });
        if !(self.max_duration_s > 0.0 && self.max_duration_s <= 3600.0) {
            return wrong("max_duration_s", "above 0, up to 3600 seconds");
        }
        if !(self.min_duration_s >= 0.0 && self.min_duration_s <= self.max_duration_s) {
            return wrong("min_duration_s", "0 to max_duration_s");
        }
        if self.labels.is_empty() {
            return wrong("labels", "one label or more");
        }
        Ok(())
    }
}

/// Reads a manifest and listens to every file that it names, on rayon's threads. `progress` is told how many of how many
/// files are done.
///
/// # Errors
/// - [`Error::BadManifest`] with everything that is wrong, or, with `skip_bad`, if no line is left;
/// - [`Error::Io`] if the manifest itself cannot be read;
/// - [`Error::InvalidParameter`] for options that make no sense.
pub fn read_manifest(
    path: &Path,
    options: &ManifestOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Manifest> {
    options.check()?;
    let file = file_name(path);
    let bytes = bytes_of(path, &file)?;
    let table = table::read_table(path, &bytes).map_err(|what| refused(&file, &[what]))?;
    drop(bytes);
    let mut notes = table.notes;
    let mut problems = Vec::new();
    let drafts = read_rows(table.rows, path.parent().unwrap_or(Path::new("")), options, &mut notes, &mut problems);
    let (mut examples, mut labels_of_bad) = probe_all(drafts, options, progress, &mut problems);

    labels_of_bad.extend(one_of_each_sound(&mut examples, &mut problems, &mut notes));
    // A line that can be repaired still counts, or every missing file would be told twice.
    let labels_that_count: &[usize] = if options.skip_bad { &[] } else { &labels_of_bad };
    enough_of_each(&mut examples, labels_that_count, options, &mut problems);
    if !problems.is_empty() && (!options.skip_bad || examples.is_empty()) {
        problems.sort_by_key(|problem| problem.line);
        let shown: Vec<String> = problems.iter().map(Problem::to_string).collect();
        return Err(refused(&file, &shown));
    }
    problems.sort_by_key(|problem| problem.line);
    notes.extend(labels_note(&examples, options));
    Ok(Manifest { examples, notes, left_out: problems })
}

/// A manifest, or a file of splits, that cannot be used: the first problems, and how many there are.
pub(super) fn refused(file: &str, problems: &[String]) -> Error {
    Error::BadManifest {
        file: file.to_owned(),
        problems: problems.iter().take(MAX_SHOWN_PROBLEMS).cloned().collect(),
        n_problems: problems.len(),
    }
}

/// A file's name without its folders, as messages have it.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| "the manifest".to_owned(), |name| printable(&name.to_string_lossy()))
}

/// All bytes of a file of at most [`MAX_MANIFEST_BYTES`].
pub(super) fn bytes_of(path: &Path, file: &str) -> Result<Vec<u8>> {
    let io = |source| Error::Io { what: format!("reading {file}"), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|f| f.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes)).map_err(io)?;
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(refused(file, &[format!("it is larger than {} MB", MAX_MANIFEST_BYTES >> 20)]));
    }
    Ok(bytes)
}

/// Listens to every file. Gives the good lines, and the labels of the others.
fn probe_all(
    drafts: Vec<Draft>,
    options: &ManifestOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
    problems: &mut Vec<Problem>,
) -> (Vec<Example>, Vec<usize>) {
    let (n_done, n_drafts) = (AtomicUsize::new(0), drafts.len());
    let probed: Vec<Draft> = drafts
        .into_par_iter()
        .map(|mut draft| {
            let example = &mut draft.example;
            match probe::probe(&example.path, options.min_duration_s, options.max_duration_s) {
                Ok(probe) => (example.duration_s, example.content) = (probe.duration_s, probe.content),
                Err(what) => draft.faults.push(what),
            }
            progress(n_done.fetch_add(1, Ordering::Relaxed) + 1, n_drafts);
            draft
        })
        .collect();
    let (mut examples, mut labels_of_bad) = (Vec::new(), Vec::new());
    for Draft { example, faults, .. } in probed {
        if faults.is_empty() {
            examples.push(example);
            continue;
        }
        labels_of_bad.extend(example.label);
        problems.extend(faults.into_iter().map(|what| problem(&example, &what)));
    }
    (examples, labels_of_bad)
}

fn problem(example: &Example, what: &str) -> Problem {
    Problem { line: example.line, what: format!("{}: {what}", printable(&example.shown_path)) }
}

/// Takes recordings out that are there more than once: all of them if their lines contradict each other. Gives the
/// labels of those that became problems.
fn one_of_each_sound(examples: &mut Vec<Example>, problems: &mut Vec<Problem>, notes: &mut Vec<String>) -> Vec<usize> {
    let mut of_content: HashMap<[u8; 32], Vec<&Example>> = HashMap::new();
    for example in examples.iter() {
        of_content.entry(example.content).or_default().push(example);
    }
    let mut drop_lines = HashSet::new();
    let (mut repeated, mut labels_of_bad) = (Vec::new(), Vec::new());
    for same in of_content.values() {
        let [first, others @ ..] = same.as_slice() else { continue };
        let as_line = |other: &Example| format!("line {} ({})", other.line, printable(&other.shown_path));
        if let Some(other) = others.iter().find(|other| other.label != first.label) {
            for example in same {
                let against = if example.label == first.label { other } else { first };
                let what = format!("the same audio as {}, which has another intent", as_line(against));
                problems.push(problem(example, &what));
                labels_of_bad.extend(example.label);
                drop_lines.insert(example.line);
            }
            continue;
        }
        for example in others {
            drop_lines.insert(example.line);
            if example.split == first.split {
                repeated.push(example.line);
            } else {
                let what = format!("the same audio as {}, which is in another split", as_line(first));
                problems.push(problem(example, &what));
                labels_of_bad.extend(example.label);
            }
        }
    }
    drop(of_content);
    repeated.sort_unstable();
    if !repeated.is_empty() {
        notes.push(format!(
            "{} with the audio and the intent of an earlier one, not used: {}",
            counted(repeated.len(), "line"),
            some_of(repeated.iter().map(usize::to_string))
        ));
    }
    examples.retain(|example| !drop_lines.contains(&example.line));
    labels_of_bad
}

/// Takes the recordings of intents out that have too few.
fn enough_of_each(
    examples: &mut Vec<Example>,
    labels_of_bad: &[usize],
    options: &ManifestOptions,
    problems: &mut Vec<Problem>,
) {
    let mut n_of_label: BTreeMap<usize, usize> = BTreeMap::new();
    for label in examples.iter().filter_map(|example| example.label).chain(labels_of_bad.iter().copied()) {
        *n_of_label.entry(label).or_default() += 1;
    }
    let n_of = |example: &Example| example.label.map(|label| n_of_label[&label]);
    for example in examples.iter() {
        if let (Some(label), Some(n)) = (example.label, n_of(example).filter(|n| *n < options.min_per_intent)) {
            let what = format!(
                "the intent '{}' has {}, at least {} are needed",
                printable(&options.labels[label]),
                counted(n, "recording"),
                options.min_per_intent
            );
            problems.push(problem(example, &what));
        }
    }
    examples.retain(|example| n_of(example).is_none_or(|n| n >= options.min_per_intent));
}

/// The labels that nothing can be learned about.
fn labels_note(examples: &[Example], options: &ManifestOptions) -> Option<String> {
    let found: HashSet<usize> = examples.iter().filter_map(|example| example.label).collect();
    let missing: Vec<&String> =
        options.labels.iter().enumerate().filter(|(id, _)| !found.contains(id)).map(|(_, label)| label).collect();
    let named = some_of(missing.iter().map(|label| printable(label)));
    let of = options.labels.len();
    (!missing.is_empty()).then(|| format!("{} of {of} intents have no recordings: {named}", missing.len()))
}

/// `1 line`, `2 lines`.
pub(super) fn counted(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// The first few, and how many more there are.
pub(super) fn some_of(names: impl ExactSizeIterator<Item = String>) -> String {
    let n_more = names.len().saturating_sub(MAX_NAMED);
    let named = names.take(MAX_NAMED).collect::<Vec<String>>().join(", ");
    if n_more == 0 { named } else { format!("{named} and {n_more} more") }
}
