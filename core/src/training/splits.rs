//! What trains, what decides when to stop, what tests: by speaker and by wording, drawn before anything else and written
//! down.
//!
//! Each speaker and each wording has a [`Role`]; the two roles of a clip give its [`Cell`]:
//!
//! | wording \ speaker | train | validation | test |
//! |---|---|---|---|
//! | train | train, few: test_seen, validation | validation_voice | test_voice |
//! | validation | validation_wording | validation_both | unused |
//! | test | test_wording | unused | test_both |
//!
//! Roles come from a seeded hash of the name: they do not depend on the order of the lines, and a clip that is added
//! moves nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::manifest::{Manifest, UNKNOWN_SPEAKER};
use crate::error::{Error, Result, printable};

/// With fewer wordings than this an intent keeps all of them for training.
const MIN_WORDINGS: usize = 4;
/// With fewer speakers than this all of them train.
const MIN_SPEAKERS: usize = 4;

/// What a speaker or a wording is for.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Learned from.
    Train,
    /// Decides when to stop, and calibrates.
    Validation,
    /// Set aside.
    Test,
}

/// A part of the data.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Ord, PartialOrd, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Learned from.
    Train,
    /// Speaker and wording are learned from, the clip is not.
    Validation,
    /// A new speaker, for validation.
    ValidationVoice,
    /// A new wording, for validation.
    ValidationWording,
    /// Both new, for validation.
    ValidationBoth,
    /// Speaker and wording are learned from, the clip is not.
    TestSeen,
    /// A new speaker.
    TestVoice,
    /// A new wording.
    TestWording,
    /// Both new.
    TestBoth,
    /// Half validation and half test: neither.
    Unused,
}

impl Cell {
    /// Every part.
    pub const ALL: [Self; 10] = [
        Self::Train,
        Self::Validation,
        Self::ValidationVoice,
        Self::ValidationWording,
        Self::ValidationBoth,
        Self::TestSeen,
        Self::TestVoice,
        Self::TestWording,
        Self::TestBoth,
        Self::Unused,
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::ValidationVoice => "validation_voice",
            Self::ValidationWording => "validation_wording",
            Self::ValidationBoth => "validation_both",
            Self::TestSeen => "test_seen",
            Self::TestVoice => "test_voice",
            Self::TestWording => "test_wording",
            Self::TestBoth => "test_both",
            Self::Unused => "unused",
        }
    }

    /// The part of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cell| cell.name() == name)
    }
}

/// How much goes where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitOptions {
    /// Of the draw.
    pub seed: u64,
    /// Share of the speakers.
    pub validation_speakers: f64,
    /// Share of the speakers.
    pub test_speakers: f64,
    /// Share of each intent's wordings.
    pub validation_wordings: f64,
    /// Share of each intent's wordings.
    pub test_wordings: f64,
    /// Share of the clips of training speakers and wordings, for each of validation and test_seen.
    pub seen_share: f64,
    /// Speakers that test whatever is drawn, by pattern: `*` stands for any characters.
    pub held_out_speakers: Vec<String>,
    /// Wordings that test whatever is drawn.
    pub held_out_wordings: Vec<String>,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            validation_speakers: 0.10,
            test_speakers: 0.15,
            validation_wordings: 0.08,
            test_wordings: 0.15,
            seen_share: 0.03,
            held_out_speakers: Vec::new(),
            held_out_wordings: Vec::new(),
        }
    }
}

/// Splits that were made or read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Splits {
    /// Of each clip, in the manifest's order.
    pub cells: Vec<Cell>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// Draws the roles and gives each clip its part. The manifest's own splits are used where it has them.
///
/// # Errors
/// [`Error::InvalidConfig`] if the manifest's own splits put a speaker or a wording that is to be unseen into training.
pub fn make_splits(manifest: &Manifest, labels: &[String], options: &SplitOptions) -> Result<Splits> {
    let mut splits = Splits::default();
    if let Some(cells) = manifest.examples.iter().map(|example| example.split).collect::<Option<Vec<Cell>>>() {
        splits.notes.push("the manifest's own splits are used".to_owned());
        splits.cells = cells;
        splits.check(manifest, "the manifest")?;
        return Ok(splits);
    }
    let speakers = speaker_roles(manifest, options, &mut splits.notes);
    let wordings = wording_roles(manifest, labels, options, &mut splits.notes);
    splits.cells = manifest
        .examples
        .iter()
        .map(|example| {
            let draw = order(options.seed, "clip", &example.content) as f64 / u64::MAX as f64;
            match (speakers[example.speaker.as_str()], wordings[example.wording.as_str()]) {
                (Role::Train, Role::Train) if draw < options.seen_share => Cell::TestSeen,
                (Role::Train, Role::Train) if draw < 2.0 * options.seen_share => Cell::Validation,
                (Role::Train, Role::Train) => Cell::Train,
                (Role::Validation, Role::Train) => Cell::ValidationVoice,
                (Role::Train, Role::Validation) => Cell::ValidationWording,
                (Role::Validation, Role::Validation) => Cell::ValidationBoth,
                (Role::Test, Role::Train) => Cell::TestVoice,
                (Role::Train, Role::Test) => Cell::TestWording,
                (Role::Test, Role::Test) => Cell::TestBoth,
                (Role::Validation, Role::Test) | (Role::Test, Role::Validation) => Cell::Unused,
            }
        })
        .collect();
    splits.keep_seen_ones_seen(manifest);
    Ok(splits)
}

fn speaker_roles<'a>(
    manifest: &'a Manifest,
    options: &SplitOptions,
    notes: &mut Vec<String>,
) -> HashMap<&'a str, Role> {
    // Nobody knows who an unknown speaker is: never a new voice.
    let (unknown, named): (Vec<&str>, Vec<&str>) =
        unique(manifest.examples.iter().map(|e| e.speaker.as_str())).into_iter().partition(|s| *s == UNKNOWN_SPEAKER);
    for pattern in &options.held_out_speakers {
        if !named.iter().any(|name| matches(pattern, name)) {
            notes.push(format!("no speaker is called '{}'", printable(pattern)));
        }
    }
    let mut shares = [options.validation_speakers, options.test_speakers];
    if named.len() < MIN_SPEAKERS {
        notes.push(format!("{} named speakers are too few to draw any for the tests", named.len()));
        shares = [0.0, 0.0];
    }
    let mut roles = draw("speaker", named, shares, &options.held_out_speakers, options.seed);
    roles.extend(unknown.into_iter().map(|name| (name, Role::Train)));
    roles
}

fn wording_roles<'a>(
    manifest: &'a Manifest,
    labels: &[String],
    options: &SplitOptions,
    notes: &mut Vec<String>,
) -> HashMap<&'a str, Role> {
    // Of each intent, and of each kind of what is no command, its share. A wording that has two meanings is drawn once.
    let mut groups: BTreeMap<(Option<usize>, &str), Vec<&str>> = BTreeMap::new();
    let mut home: HashMap<&str, (Option<usize>, &str)> = HashMap::new();
    for example in &manifest.examples {
        let kind = if example.label.is_some() { "" } else { example.kind.as_str() };
        let group = *home.entry(&example.wording).or_insert((example.label, kind));
        groups.entry(group).or_default().push(&example.wording);
    }
    let mut roles = HashMap::new();
    for ((label, kind), names) in groups {
        let names = unique(names.into_iter());
        let mut shares = [options.validation_wordings, options.test_wordings];
        if names.len() < MIN_WORDINGS {
            let what = label.map_or(kind, |label| labels.get(label).map_or("", String::as_str));
            notes.push(format!("{}: {} wordings are too few to draw any for the tests", printable(what), names.len()));
            shares = [0.0, 0.0];
        }
        roles.extend(draw("wording", names, shares, &options.held_out_wordings, options.seed));
    }
    roles
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Gives roles by the order of the names' hashes: first what tests, then what validates.
fn draw<'a>(
    what: &str,
    mut names: Vec<&'a str>,
    [validation, test]: [f64; 2],
    held_out: &[String],
    seed: u64,
) -> HashMap<&'a str, Role> {
    let is_held_out = |name: &str| held_out.iter().any(|pattern| matches(pattern, name));
    let n = names.len() as f64;
    let n_free = names.iter().filter(|name| !is_held_out(name)).count();
    let n_test = ((n * test).round() as usize).saturating_sub(names.len() - n_free);
    // Somebody is left to learn from, whatever the shares.
    let n_test = n_test.min(n_free.saturating_sub(1));
    let n_validation = if validation > 0.0 { ((n * validation).round() as usize).max(1) } else { 0 };
    let n_validation = n_validation.min(n_free.saturating_sub(n_test + 1));
    names.sort_by_key(|name| (order(seed, what, name.as_bytes()), *name));
    let mut drawn = 0;
    names
        .into_iter()
        .map(|name| {
            if is_held_out(name) {
                return (name, Role::Test);
            }
            drawn += 1;
            match drawn {
                _ if drawn <= n_test => (name, Role::Test),
                _ if drawn <= n_test + n_validation => (name, Role::Validation),
                _ => (name, Role::Train),
            }
        })
        .collect()
}

fn order(seed: u64, what: &str, name: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(what.as_bytes()).update(&[0]).update(name);
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[derive(Serialize, Deserialize)]
struct Line {
    path: String,
    speaker: String,
    wording: String,
    cell: Cell,
}

impl Splits {
    /// Writes `path,speaker,wording,cell`, a line for each clip.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, manifest: &Manifest, path: &Path) -> Result<()> {
        let io = |error: csv::Error| Error::Io { what: "writing the splits".to_owned(), source: error.into() };
        let mut writer = csv::Writer::from_path(path).map_err(io)?;
        for (example, cell) in manifest.examples.iter().zip(&self.cells) {
            let (path, speaker) = (example.shown_path.clone(), example.speaker.clone());
            writer.serialize(Line { path, speaker, wording: example.wording.clone(), cell: *cell }).map_err(io)?;
        }
        writer.flush().map_err(|e| io(e.into()))
    }

    /// Reads splits that were written for these clips; other lines are passed over.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if it is no such file, if clips of the manifest are not in it, or if what it calls unseen
    /// is in training.
    pub fn read(path: &Path, manifest: &Manifest) -> Result<Self> {
        let mut reader = csv::Reader::from_path(path).map_err(|e| wrong(SPLITS_FILE, e.to_string()))?;
        let mut cells: HashMap<String, Cell> = HashMap::new();
        for line in reader.deserialize::<Line>() {
            let line = line.map_err(|e| wrong(SPLITS_FILE, e.to_string()))?;
            if cells.insert(line.path.clone(), line.cell).is_some_and(|cell| cell != line.cell) {
                return Err(wrong(SPLITS_FILE, format!("{} is in two splits", printable(&line.path))));
            }
        }
        let missing: Vec<String> = manifest
            .examples
            .iter()
            .filter(|example| !cells.contains_key(&example.shown_path))
            .map(|example| printable(&example.shown_path))
            .collect();
        if let Some(first) = missing.first() {
            let n = missing.len();
            return Err(wrong(
                SPLITS_FILE,
                format!("{n} clips are not in it, {first} is the first: it is of other clips"),
            ));
        }
        let cells = manifest.examples.iter().map(|example| cells[&example.shown_path]).collect();
        let splits = Self { cells, notes: Vec::new() };
        splits.check(manifest, SPLITS_FILE)?;
        Ok(splits)
    }

    /// Holds what is called unseen against what is trained on.
    fn check(&self, manifest: &Manifest, file: &str) -> Result<()> {
        let clips = || manifest.examples.iter().zip(&self.cells);
        let learned = |cell: Cell| {
            matches!(
                cell,
                Cell::Train | Cell::Validation | Cell::ValidationVoice | Cell::ValidationWording | Cell::ValidationBoth
            )
        };
        let speakers: BTreeSet<&str> = clips().filter(|(_, c)| learned(**c)).map(|(e, _)| e.speaker.as_str()).collect();
        let wordings: BTreeSet<&str> = clips().filter(|(_, c)| learned(**c)).map(|(e, _)| e.wording.as_str()).collect();
        for (example, cell) in clips() {
            let seen = match cell {
                Cell::TestVoice | Cell::TestBoth if speakers.contains(example.speaker.as_str()) => "speaker",
                Cell::TestWording | Cell::TestBoth if wordings.contains(example.wording.as_str()) => "wording",
                _ => continue,
            };
            let (line, cell) = (example.line, cell.name());
            return Err(wrong(file, format!("line {line} is {cell}, but its {seen} is in training or validation too")));
        }
        Ok(())
    }

    /// A clip is no test of what was seen if nothing else of its speaker or its wording is trained on.
    fn keep_seen_ones_seen(&mut self, manifest: &Manifest) {
        let mut speakers = BTreeSet::new();
        let mut wordings = BTreeSet::new();
        for (example, cell) in manifest.examples.iter().zip(&self.cells) {
            if *cell == Cell::Train {
                speakers.insert(example.speaker.as_str());
                wordings.insert(example.wording.as_str());
            }
        }
        for (example, cell) in manifest.examples.iter().zip(&mut self.cells) {
            let is_seen = speakers.contains(example.speaker.as_str()) && wordings.contains(example.wording.as_str());
            if matches!(cell, Cell::TestSeen | Cell::Validation) && !is_seen {
                *cell = Cell::Train;
            }
        }
    }
}

const SPLITS_FILE: &str = "splits.csv";

fn wrong(file: &str, reason: String) -> Error {
    Error::InvalidConfig { file: file.to_owned(), reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::manifest::Example;
    use super::*;

    /// `(speaker, wording, label)` of each clip.
    fn manifest(clips: &[(u8, u8, u8)]) -> Manifest {
        let example = |(at, (speaker, wording, label)): (usize, &(u8, u8, u8))| Example {
            line: at + 2,
            path: format!("{at}.wav").into(),
            shown_path: format!("{at}.wav"),
            text: String::new(),
            label: (*label < 3).then_some(usize::from(*label)),
            slots: serde_json::Map::new(),
            speaker: format!("s{speaker}"),
            wording: format!("w{wording}"),
            kind: if *label < 3 { "command" } else { "talk" }.to_owned(),
            language: String::new(),
            split: None,
            duration_s: 1.0,
            content: *blake3::hash(&at.to_le_bytes()).as_bytes(),
        };
        Manifest { examples: clips.iter().enumerate().map(example).collect(), notes: Vec::new(), left_out: Vec::new() }
    }

    fn labels() -> Vec<String> {
        ["a", "b", "c"].map(str::to_owned).to_vec()
    }

    /// Everybody says everything.
    fn full() -> Vec<(u8, u8, u8)> {
        (0..20).flat_map(|speaker| (0..40).map(move |wording| (speaker, wording, wording % 4))).collect()
    }

    fn made(manifest: &Manifest, options: &SplitOptions) -> Splits {
        make_splits(manifest, &labels(), options).unwrap()
    }

    #[test]
    fn every_part_has_its_share() {
        let manifest = manifest(&full());
        let splits = made(&manifest, &SplitOptions::default());
        let n = |cell| splits.cells.iter().filter(|c| **c == cell).count();
        for cell in Cell::ALL {
            assert!(n(cell) > 0, "{}", cell.name());
        }
        // Of 20 speakers 3 test and 2 validate; of each 10 wordings 2 and 1. Of 15 times 28 clips, 6 % are kept apart.
        assert!((370..=420).contains(&n(Cell::Train)), "{}", n(Cell::Train));
        assert_eq!((n(Cell::TestVoice), n(Cell::TestWording), n(Cell::TestBoth)), (3 * 28, 15 * 8, 3 * 8));
        assert_ne!(splits, made(&manifest, &SplitOptions { seed: 2, ..SplitOptions::default() }));
    }

    #[test]
    fn held_out_speakers_test_and_unknown_ones_do_not() {
        let mut manifest = manifest(&full());
        manifest.examples.iter_mut().filter(|e| e.speaker == "s1").for_each(|e| e.speaker = UNKNOWN_SPEAKER.to_owned());
        let held_out = ["s7".to_owned(), "s1*".to_owned(), "nobody".to_owned()];
        let splits = made(&manifest, &SplitOptions { held_out_speakers: held_out.to_vec(), ..SplitOptions::default() });
        assert_eq!(splits.notes, ["no speaker is called 'nobody'"]);
        for (example, cell) in manifest.examples.iter().zip(&splits.cells) {
            let is_held_out = example.speaker == "s7" || example.speaker.starts_with("s1");
            let is_new = matches!(cell, Cell::TestVoice | Cell::TestBoth | Cell::Unused);
            assert!(!is_held_out || is_new, "{} {cell:?}", example.speaker);
            assert!(example.speaker != UNKNOWN_SPEAKER || !is_new);
        }
    }

    #[test]
    fn splits_are_read_as_they_were_written_and_held_against_the_clips() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("splits.csv");
        let manifest = manifest(&full());
        let splits = made(&manifest, &SplitOptions::default());
        splits.write(&manifest, &path).unwrap();
        assert_eq!(Splits::read(&path, &manifest).unwrap().cells, splits.cells);

        let mut more = manifest.clone();
        more.examples[3].shown_path = "new.wav".to_owned();
        let error = Splits::read(&path, &more).unwrap_err().to_string();
        assert!(error.contains("1 clips are not in it, new.wav is the first"), "{error}");

        let text = std::fs::read_to_string(&path).unwrap();
        let leaky = text.replacen(",train\n", ",test_voice\n", 1);
        std::fs::write(&path, leaky).unwrap();
        let error = Splits::read(&path, &manifest).unwrap_err().to_string();
        assert!(error.contains("is test_voice, but its speaker is in training"), "{error}");
        for text in ["", "path,cell\n", "path,speaker,wording,cell\n0.wav,s,w,nonsense\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Splits::read(&path, &manifest).unwrap_err().code(), "invalid_config", "{text}");
        }
    }

    #[test]
    fn patterns_are_those_of_a_shell() {
        for (pattern, name, fits) in [
            ("ama", "ama", true),
            ("ama", "amas", false),
            ("flite-*", "flite-awb", true),
            ("*-awb", "flite-awb", true),
            ("f*t*b", "flite-awb", true),
            ("*", "", true),
            ("a*a", "a", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_unseen_is_nowhere_in_training(
            clips in prop::collection::vec((0u8..12, 0u8..20, 0u8..5), 1..120),
            seed in 0u64..1000,
            shares in prop::array::uniform4(0.0f64..1.0),
        ) {
            let manifest = manifest(&clips);
            let options = SplitOptions {
                seed,
                validation_speakers: shares[0],
                test_speakers: shares[1],
                validation_wordings: shares[2],
                test_wordings: shares[3],
                ..SplitOptions::default()
            };
            let splits = made(&manifest, &options);
            prop_assert!(splits.check(&manifest, "").is_ok());
            // Not by the order of the lines.
            let mut turned = manifest.clone();
            turned.examples.reverse();
            let mut cells = made(&turned, &options).cells;
            cells.reverse();
            let shared = clips.iter().any(|a| clips.iter().any(|b| a.1 == b.1 && (a.2.min(3)) != (b.2.min(3))));
            // A wording with two meanings belongs to the one that comes first.
            prop_assert!(shared || cells == splits.cells);
        }
    }
}
