//! Half precision on a GPU device. In a file of its own, so in a process of its own: a device takes its number type once.

#![cfg(feature = "wgpu")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use burn::tensor::{Tensor, TensorData};
use common::{Array, Loaded, Tensors, compare, golden};
use okyeame_core::device::{Compute, DeviceChoice, DtypeChoice};

/// Half precision where the adapter has it.
#[test]
fn half_precision_is_near_or_refused_by_name() {
    match Compute::choose(DeviceChoice::Wgpu, DtypeChoice::F16, None) {
        Err(error) => {
            eprintln!("f16: {error}");
            assert_eq!(error.code(), "device_unavailable");
        }
        Ok(compute) => {
            let stages = Tensors::read(&golden("tiny-2/stages.safetensors"));
            let model = Loaded::open_on(&golden("tiny-2"), compute.device.clone()).unwrap().model;
            let mel = stages.get("encoder.input");
            let shape = <[usize; 3]>::try_from(mel.shape.as_slice()).unwrap();
            let mel = Tensor::from_data(TensorData::new(mel.data.clone(), shape), &compute.device);
            let got = Array::of(model.whisper.encoder.forward(mel).unwrap());
            compare("tiny-2 in f16", &got, stages.get("encoder.ln_post"), 5e-2);
        }
    }
}
