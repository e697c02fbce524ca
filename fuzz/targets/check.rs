//! What holds of every door: a refusal has a code of its list and a sentence fit to be shown, and weights are what
//! their shapes say.

#![allow(dead_code, reason = "a target uses its own part")]

use okyeame_core::Error;
use okyeame_core::weights::{StoredData, WeightSource};

/// A refusal with one of `codes`: the input was not read.
#[track_caller]
pub(crate) fn refused(error: &Error, codes: &[&str]) -> bool {
    assert!(codes.contains(&error.code()), "the code {} is none of {codes:?}: {error}", error.code());
    sentence(&error.to_string());
    false
}

/// A sentence for a stranger: something, and nothing about this machine.
#[track_caller]
pub(crate) fn sentence(detail: &str) {
    assert!(detail.len() > 10, "'{detail}' says nothing");
    for inner in [env!("CARGO_MANIFEST_DIR"), "panicked at", "stack backtrace"] {
        assert!(!detail.contains(inner), "it tells what is inside: {detail}");
    }
}

/// Every tensor has the elements that its shape says, and no more than the file's `n_bytes` can hold.
#[track_caller]
pub(crate) fn weights(source: &dyn WeightSource, n_bytes: usize) {
    for name in source.names() {
        let Some(tensor) = source.get(&name) else { continue };
        assert_eq!(source.shape(&name).as_ref(), Some(&tensor.shape), "{name}");
        let n_values = tensor.to_f32().len();
        if matches!(tensor.data, StoredData::Other { .. }) {
            assert_eq!(n_values, 0, "{name} cannot be read");
        } else {
            assert_eq!(Some(n_values), n_elements(&tensor.shape), "{name} {:?}", tensor.shape);
        }
        assert!(n_values <= n_bytes, "{name} has {n_values} numbers in {n_bytes} bytes");
        if let StoredData::Int8 { scales, .. } = &tensor.data {
            assert!(scales.len() <= n_bytes, "{name} has {} scales in {n_bytes} bytes", scales.len());
        }
    }
    // What `okyeame info` says of a file.
    assert!(!source.main_dtype().is_empty() && source.n_elements() <= (source.names().len() * n_bytes) as u64);
}

/// `None` if they cannot be counted. An axis without elements makes all others nothing.
fn n_elements(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) { Some(0) } else { shape.iter().try_fold(1_usize, |n, axis| n.checked_mul(*axis)) }
}
