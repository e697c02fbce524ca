//! `model.bin` of a repository of the hub: `weights::ctranslate2`.

use okyeame_core::weights::ctranslate2::Ctranslate2;

use crate::check;

/// Says whether it was read.
pub(crate) fn run(input: &[u8]) -> bool {
    match Ctranslate2::from_bytes(input.to_vec(), "model.bin") {
        Ok(model) => {
            check::weights(&model, input.len());
            let _ = (model.n_head("encoder"), model.n_head("decoder"));
            true
        }
        Err(error) => check::refused(&error, &["damaged_weights"]),
    }
}
