#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use burn::tensor::Device;

use super::*;
use crate::intent::calibration::Thresholds;
use crate::weights::folder::{Base, ModelFolder, OpenOptions};
use crate::weights::web_bundle::{Delivery, PackOptions, WebBundle, pack};

const SENTENCES: &str = "ab ba\nba a\n";

/// A head on the fixture's encoder that writes so many letters.
fn head(letters: &str, sentences: &str) -> TrainedHead {
    let shape = HeadShape {
        n_layers: 1,
        n_state: 32,
        d_projector: 8,
        n_context: 1,
        context_kernel: 3,
        d_attention: 4,
        n_pool: 2,
        d_hidden: 0,
        n_classes: 3,
        n_letters: letters.chars().count(),
    };
    let thresholds = Thresholds { in_scope_below: 0.5, confidence_below: 0.5, ambiguous_above: 0.5 };
    TrainedHead {
        tensors: rounded(shape.init(3, &Device::flex()).unwrap().tensors().unwrap()),
        reader: Vec::new(),
        alphabet: if letters.is_empty() { Alphabet::default() } else { Alphabet::new(letters).unwrap() },
        sentences: sentences.to_owned(),
        shape,
        n_encoder_layers: 2,
        position_stride: 2,
        labels: vec!["add_to_cart".to_owned()],
        base: "okyeame-tests/tiny-multilingual".to_owned(),
        calibration: Calibration::new(1.0, thresholds),
        lora: None,
    }
}

fn open(folder: &Path) -> ModelFolder {
    ModelFolder::open_with(folder, &OpenOptions::default(), &mut |name| {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny-multilingual");
        Ok(Base { name: name.unwrap_or_default().to_owned(), folder })
    })
    .unwrap()
}

fn n_words(folder: &ModelFolder) -> Option<usize> {
    folder.head.as_ref().unwrap().spec.alphabet.lexicon().map(crate::intent::lexicon::Lexicon::n_words)
}

#[test]
fn sentences_go_with_the_head_also_to_browsers() {
    let folder = tempfile::tempdir().unwrap();
    head(" ab", SENTENCES).write(folder.path()).unwrap();
    let opened = open(folder.path());
    assert_eq!(n_words(&opened), Some(3));

    let options =
        PackOptions { dtype: Delivery::Int8, trim_vocabulary: false, texts: Vec::new(), licences: Vec::new() };
    let packed = pack(&opened, &options).unwrap();
    let mut bundle = WebBundle::new(&serde_json::to_vec(&packed.manifest).unwrap()).unwrap();
    packed.parts.iter().for_each(|(file, bytes)| bundle.add_part(file, bytes).unwrap());
    let arrived = bundle.folder(false).unwrap();
    let [before, after] = [&opened, &arrived].map(|folder| folder.head.as_ref().unwrap());
    assert_eq!(after.sentences.as_deref(), Some(SENTENCES.as_bytes()));
    assert_eq!(after.spec, before.spec);

    // A head without sentences in the same folder leaves none of another's behind.
    head(" ab", "").write(folder.path()).unwrap();
    assert!(n_words(&open(folder.path())).is_none() && !folder.path().join(SENTENCES_FILE).exists());
}

#[test]
fn sentences_that_cannot_be_used_are_said() {
    let folder = tempfile::tempdir().unwrap();
    head(" ab", SENTENCES).write(folder.path()).unwrap();
    for damaged in [&b"\xFF\xFEa\x00b\x00"[..], b"", b"123\n", "ɔkyeame".as_bytes()] {
        fs::write(folder.path().join(SENTENCES_FILE), damaged).unwrap();
        let problem = open(folder.path()).head.unwrap().problem.unwrap();
        assert_eq!(problem.code(), "invalid_config");
        assert!(problem.to_string().starts_with("sentences.txt cannot be used"), "{problem}");
    }
    head("", SENTENCES).write(folder.path()).unwrap();
    let opened = open(folder.path());
    assert!(opened.head.as_ref().unwrap().problem.is_none() && n_words(&opened).is_none());
    assert!(
        opened.fallbacks.iter().any(|note| note.starts_with("sentences.txt is not used")),
        "{:?}",
        opened.fallbacks
    );
}
