//! `pytorch_model.bin` of a repository of the hub, zip or older: `weights::pytorch`, with its containers and its pickle.

use okyeame_core::weights::WeightSource;
use okyeame_core::weights::pytorch::{PytorchFile, PytorchLimits};

use crate::check;

const LIMITS: PytorchLimits = PytorchLimits { max_tensors: 64, max_bytes: 1 << 20 };

/// Says whether it was read.
pub(crate) fn run(input: &[u8]) -> bool {
    match PytorchFile::from_bytes(input.to_vec(), "pytorch_model.bin", &LIMITS) {
        Ok(file) => {
            assert!(file.names().len() <= LIMITS.max_tensors);
            check::weights(&file, input.len());
            true
        }
        Err(error) => check::refused(&error, &["damaged_weights", "unsafe_pickle", "weights_too_large"]),
    }
}
