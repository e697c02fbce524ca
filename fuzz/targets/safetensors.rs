//! `model.safetensors` of a repository of the hub: `weights::safetensors`.

use std::borrow::Cow;

use okyeame_core::weights::safetensors::Safetensors;
use okyeame_core::weights::{StoredData, StoredType, WeightSource};
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::check;

const FILE: &str = "model.safetensors";

/// Says whether it was read.
pub(crate) fn run(input: &[u8]) -> bool {
    match Safetensors::from_bytes(input.to_vec(), FILE) {
        Ok(model) => {
            check::weights(&model, input.len());
            written_again_it_is_the_same(&model);
            true
        }
        Err(error) => check::refused(&error, &["damaged_weights"]),
    }
}

fn written_again_it_is_the_same(model: &Safetensors) {
    let mut views = Vec::new();
    for name in model.names() {
        let Some(tensor) = model.get(&name) else { continue };
        let StoredData::Float { dtype, bytes: Cow::Borrowed(bytes) } = tensor.data else { continue };
        let dtype = match dtype {
            StoredType::F32 => Dtype::F32,
            StoredType::F16 => Dtype::F16,
            StoredType::Bf16 => Dtype::BF16,
            StoredType::F64 => Dtype::F64,
        };
        views.push((name, TensorView::new(dtype, tensor.shape, bytes).expect("it was read with this shape")));
    }
    if views.is_empty() {
        return;
    }
    let names: Vec<String> = views.iter().map(|(name, _)| name.clone()).collect();
    let file = serialize(views, None).expect("tensors that were read can be written");
    let again = Safetensors::from_bytes(file, FILE).expect("a file that was written can be read");
    for name in names {
        let (was, is) = (model.get(&name).expect("it was there"), again.get(&name).expect("it was written"));
        assert!(was.is_same(&is), "{name}");
    }
}
