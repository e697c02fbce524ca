//! `manifest.json` of a web bundle, as a browser fetches it: `weights::web_bundle`.

use okyeame_core::weights::web_bundle::{Manifest, StageName, WebBundle};

use crate::check;

/// Says whether it was read.
pub(crate) fn run(input: &[u8]) -> bool {
    match Manifest::parse(input) {
        Ok(manifest) => {
            holds(manifest, input);
            true
        }
        Err(error) => check::refused(&error, &["invalid_config", "unsupported_bundle"]),
    }
}

fn holds(manifest: Manifest, input: &[u8]) {
    let mut bundle = WebBundle::new(input).expect("it was read above");
    assert_eq!(bundle.add_part("../manifest.json", b"").expect_err("no such part").code(), "model_not_found");
    for stage in &manifest.stages {
        assert!(!bundle.is_complete(stage.name));
        for part in &stage.parts {
            // No part is empty.
            assert_eq!(bundle.add_part(&part.file, b"").expect_err("cut short").code(), "damaged_weights");
        }
        for tensor in &stage.tensors {
            assert_eq!(tensor.encoding.bytes(&tensor.shape), Some(tensor.bytes));
            assert!(tensor.offset + tensor.bytes <= stage.bytes);
        }
    }
    if manifest.stage(StageName::Intent).is_some_and(|stage| !stage.parts.is_empty()) {
        let error = bundle.folder(false).expect_err("no part is there");
        assert!(!check::refused(&error, &["model_not_found"]));
    }
    // Without what was measured: serde_json reads a fraction that it wrote to within a last digit.
    let manifest = Manifest { check: None, loss: None, ..manifest };
    let file = serde_json::to_vec(&manifest).expect("numbers and texts");
    assert_eq!(Manifest::parse(&file).expect("written as it was read"), manifest);
}
