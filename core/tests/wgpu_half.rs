//! Half precision on a GPU device. In a file of its own, so in a process of its own: a device takes its number type once.

#![cfg(feature = "wgpu")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use burn::tensor::{Tensor, TensorData};
use common::{Array, Loaded, Tensors, compare, golden};
use okyeame_core::device::{Compute, DeviceChoice, DtypeChoice};
use okyeame_core::whisper::encoder::EncoderStages;

/// Values reach 5. torch's half precision on the CPU, which adds up in single precision, comes within 1.6e-2; the products of
/// WGSL shaders add up in half precision, and come within 8.1e-2 on llvmpipe.
const ATOL: f32 = 1e-1;

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
            let mut kept = EncoderStages::default();
            let got = Array::of(model.whisper.encoder.forward_stages(mel, Some(&mut kept)).unwrap());
            for (i, conv) in kept.convs.into_iter().enumerate() {
                let name = format!("encoder.conv{}", i + 1);
                compare(&name, &Array::of(conv).transposed(), stages.get(&name), ATOL);
            }
            for (i, block) in kept.blocks.into_iter().enumerate() {
                let name = format!("encoder.block.{i}");
                compare(&name, &Array::of(block), stages.get(&name), ATOL);
            }
            compare("tiny-2 in f16", &got, stages.get("encoder.ln_post"), ATOL);
        }
    }
}
