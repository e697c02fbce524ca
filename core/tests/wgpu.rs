//! The models on a GPU device (wgpu, WGSL shaders), held against the CPU and against the reference.
//!
//! Runs on whatever adapter is there; on a machine without a GPU that is Mesa's software driver, llvmpipe (Debian's
//! `mesa-vulkan-drivers`), which `make test-wgpu` installs. Tolerance: 1e-4 against the CPU and the reference, as on the
//! CPU itself; 1e-5 for what must not depend on the cache. What is chosen must be equal: tokens, classes.

#![cfg(feature = "wgpu")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use burn::tensor::{Device, Tensor, TensorData};
use common::{Array, Loaded, Tensors, block_on, compare, golden};
use okyeame_core::decoding::{SpeechModel, decode_window};
use okyeame_core::device::{Compute, DeviceChoice, DtypeChoice};
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::tokenizer::SpeechTask;
use okyeame_core::weights::folder::{ModelFolder, OpenOptions};
use okyeame_core::{RecognizeOptions, Recognizer};

const ATOL: f32 = 1e-4;
const ATOL_OF_ORDER: f32 = 1e-5;
const NAMES: [&str; 2] = ["tiny-multilingual", "tiny-2"];

fn gpu() -> Compute {
    Compute::choose(DeviceChoice::Wgpu, DtypeChoice::F32, None)
        .expect("an adapter is needed: a GPU, or Debian's mesa-vulkan-drivers")
}

fn on(device: &Device, array: &Array) -> Tensor<3> {
    let shape = <[usize; 3]>::try_from(array.shape.as_slice()).unwrap();
    Tensor::from_data(TensorData::new(array.data.clone(), shape), device)
}

#[test]
fn encoder_equals_the_cpu_and_the_reference() {
    let device = gpu().device;
    for name in NAMES {
        let stages = Tensors::read(&golden(name).join("stages.safetensors"));
        let model = Loaded::open_on(&golden(name), device.clone()).unwrap().model;
        let cpu = Loaded::open(&golden(name)).unwrap().model;
        let mel = stages.get("encoder.input");
        let got = Array::of(model.whisper.encoder.forward(on(&device, mel)).unwrap());
        let expected = Array::of(cpu.whisper.encoder.forward(mel.tensor()).unwrap());
        compare(&format!("{name} against the CPU"), &got, &expected, ATOL);
        compare(&format!("{name} against transformers"), &got, stages.get("encoder.ln_post"), ATOL);
        // A fitted window: 60 of 100 frames.
        let fitted = Array::of(model.whisper.encoder.forward(on(&device, &mel.columns(0, 60))).unwrap());
        compare(&format!("{name} fitted"), &fitted, stages.get("fitted.ln_post"), ATOL);
    }
}

#[test]
fn decoder_with_its_cache_equals_the_cpu_and_one_pass() {
    let device = gpu().device;
    for name in NAMES {
        let stages = Tensors::read(&golden(name).join("stages.safetensors"));
        let model = Loaded::open_on(&golden(name), device.clone()).unwrap().model;
        let decoder = &model.whisper.decoder;
        for (item, tokens) in stages.get("decoder.tokens").token_rows().into_iter().enumerate() {
            let encoding = on(&device, &stages.get("encoder.ln_post").item(item));
            let mut cache = decoder.start(&encoding, 1);
            let states = decoder.forward(&[tokens.clone()], &mut cache).unwrap();
            let at_once = Array::of(decoder.logits(states));
            compare(&format!("{name} logits[{item}]"), &at_once, &stages.get("decoder.logits").item(item), ATOL);
            // three tokens, then one by one
            let mut cache = decoder.restart(&cache, 1);
            let mut stepwise = Vec::new();
            for piece in std::iter::once(tokens[..3].to_vec()).chain(tokens[3..].iter().map(|t| vec![*t])) {
                let states = decoder.forward(&[piece], &mut cache).unwrap();
                stepwise.extend(Array::of(decoder.logits(states)).data);
            }
            let stepwise = Array::new(&at_once.shape, stepwise);
            compare(&format!("{name} cached[{item}]"), &stepwise, &at_once, ATOL_OF_ORDER);
        }
    }
}

#[test]
fn beams_are_reordered_and_tokens_equal_the_cpus() {
    let device = gpu().device;
    for name in NAMES {
        let stages = Tensors::read(&golden(name).join("stages.safetensors"));
        let (gpu, cpu) =
            (Loaded::open_on(&golden(name), device.clone()).unwrap(), Loaded::open(&golden(name)).unwrap());
        let mel = stages.get("encoder.input").item(0).data;
        let language = cpu.tokenizer.special().languages[0].0.clone();
        for beam_size in [1, 4] {
            let mut options = cpu.exact(&language, SpeechTask::Transcribe, false);
            options.beam_size = beam_size;
            let decoded = [&gpu, &cpu].map(|loaded| {
                let window = block_on(loaded.model.encode(&mel)).unwrap();
                block_on(decode_window(&loaded.model, &loaded.tokenizer, &window, &options)).unwrap()
            });
            assert_eq!(decoded[0].tokens, decoded[1].tokens, "{name}, {beam_size} beams");
            assert!(!decoded[0].tokens.is_empty());
        }
    }
}

/// Every kind of model, from its folder to its answer.
#[test]
fn recognisers_answer_as_on_the_cpu() {
    let audio = common::clip("tw_go_cart");
    for (folder, adapter) in [
        ("heads/classification", None),
        ("heads/one-encoder", None),
        ("heads/multitask", None),
        ("wav2vec2-base", None),
        ("wav2vec2-xlsr", None),
        ("wav2vec2-mms", Some("twi")),
    ] {
        let answers = [Compute::cpu(), gpu()].map(|compute| {
            let options = OpenOptions { adapter: adapter.map(str::to_owned) };
            let folder = ModelFolder::open_with(&golden(folder), &options, &mut |_| unreachable!()).unwrap();
            let recognizer = Recognizer::from_folder(folder, LoadOptions { compute, task: None }).unwrap();
            let answer = block_on(recognizer.recognize(&audio, &RecognizeOptions::default())).unwrap();
            // The weights are there; the CPU has no memory of its own.
            let compute = recognizer.compute();
            let holds = compute.memory().map(|m| m.in_use_bytes > 0 && m.reserved_bytes >= m.in_use_bytes);
            assert_eq!(holds, (compute.name != "cpu").then_some(true), "{:?}", compute.memory());
            answer
        });
        let [cpu, gpu] = &answers;
        assert_eq!((gpu.run.device.as_str(), cpu.run.device.as_str()), ("wgpu", "cpu"));
        assert_eq!((&gpu.transcription, &gpu.intent), (&cpu.transcription, &cpu.intent), "{folder}");
        for (g, c) in gpu.top_predictions.iter().zip(&cpu.top_predictions) {
            assert_eq!(g.intent, c.intent, "{folder}");
            assert!((g.confidence - c.confidence).abs() < 1e-3, "{folder}: {} and {}", g.confidence, c.confidence);
        }
    }
}

#[test]
fn a_software_adapter_is_not_chosen_by_itself() {
    let chosen = Compute::choose(DeviceChoice::Auto, DtypeChoice::Auto, None).unwrap();
    eprintln!("auto: {} ({})", chosen.name, chosen.reason);
    assert!(chosen.name != "wgpu" || !chosen.reason.contains("software"));
    if chosen.name == "cpu" {
        assert!(chosen.reason.contains("wgpu"), "{}", chosen.reason);
    }
}
