//! Linear layers in 8-bit integers against the same model in f32: whisper-base on the project's clips.
//!
//! | what | within |
//! |---|---|
//! | encoder, each stage, root mean square over that of the f32 stage | 20 %; 0.5 % refined, as second looks are |
//! | decoder, each stage and the logits of one token, the same way | 20 % |
//! | the likeliest tokens' logits against their rows and the state, in f32 | 0.1 |
//! | intents from the sound, on every clip | the same |
//!
//! The model is found as in `golden_base`, which says what happens without it. How the kernel rounds is tested where it
//! stands (`kernels/int8.rs`); what becomes of 1000 clips' intents, and of words, is measured (README.md, "8-bit integers").

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use common::{block_on, clip, model_folder};
use okyeame_core::Recognizer;
use okyeame_core::audio::LogMelExtractor;
use okyeame_core::decoding::TranscribeOptions;
use okyeame_core::device::{Compute, DeviceChoice, DtypeChoice};
use okyeame_core::kernels::Target;
use okyeame_core::recognizer::{LoadOptions, RecognizeOptions};
use okyeame_core::weights::folder::{Base, ModelFolder, OpenOptions};
use okyeame_core::whisper::encoder::EncoderStages;
use okyeame_core::whisper::{AudioEncoder, Whisper};

const MAX_RELATIVE_ERROR: f64 = 0.2;
const MAX_REFINED_ERROR: f64 = 0.005;
const MAX_LOGIT_ERROR: f32 = 0.1;

fn values(tensor: Tensor<3>) -> Vec<f32> {
    tensor.into_data().try_into_vec_as::<f32>().unwrap()
}

fn relative_rms(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let (error, power) = got
        .iter()
        .zip(expected)
        .fold((0.0, 0.0), |(error, power), (a, b)| (error + f64::from(a - b).powi(2), power + f64::from(*b).powi(2)));
    (error / power).sqrt()
}

fn load(folder: &Path, device: &Device, int8: bool) -> Whisper {
    let files = ModelFolder::open(folder).unwrap().into_whisper().unwrap();
    let target = Target { int8, refined: true, ..Target::from(device) };
    Whisper::load(files.config, &*files.weights, target).unwrap()
}

/// What the encoder gives of a clip, behind each block and at last; the last as a tensor, too.
fn encoded(encoder: &AudioEncoder, device: &Device) -> (Vec<Vec<f32>>, Tensor<3>) {
    let sound = clip("tw_shoes");
    let mel = LogMelExtractor::new(80).extract_padded(sound.samples(), sound.samples().len() / 320 * 320).unwrap();
    let mut stages = EncoderStages::default();
    let mel = Tensor::from_data(TensorData::new(mel.data, [1, mel.n_mels, mel.n_frames]), device);
    let last = encoder.forward_stages(mel, Some(&mut stages)).unwrap();
    let mut all = stages.blocks;
    all.push(last.clone());
    (all.into_iter().map(values).collect(), last)
}

/// The largest error of all stages; each of them is told.
fn worst(what: &str, got: &[Vec<f32>], expected: &[Vec<f32>]) -> f64 {
    let errors: Vec<f64> = got.iter().zip(expected).map(|(got, expected)| relative_rms(got, expected)).collect();
    eprintln!("{what}, relative error behind each block, and normalised: {errors:.5?}");
    assert_eq!(got.len(), expected.len());
    errors.into_iter().fold(0.0, f64::max)
}

/// The project's own clips.
const CLIPS: [&str; 9] =
    ["en_short", "en_medium", "en_eleven", "en_numbers", "fr_shop", "sw_shop", "tw_cart", "tw_go_cart", "tw_shoes"];

#[test]
fn every_stage_is_near_that_in_floating_point() {
    let Some(folder) = model_folder() else { return };
    let device = Device::flex();
    let (float, int8) = (load(&folder, &device, false), load(&folder, &device, true));
    let (expected, encoding) = encoded(&float.encoder, &device);
    let once = worst("encoder", &encoded(&int8.encoder, &device).0, &expected);
    assert!(once > MAX_REFINED_ERROR && once < MAX_RELATIVE_ERROR, "{once}");
    let refined = worst("encoder, refined", &encoded(&int8.encoder.refined().unwrap(), &device).0, &expected);
    assert!(refined > 0.0 && refined < MAX_REFINED_ERROR, "{refined}");
    assert!(float.encoder.refined().is_none());

    // Start of transcript, Swahili, transcribe, no timestamps: the state behind them says the first word.
    let tokens = vec![50258, 50318, 50359, 50363];
    let decoded = |model: &Whisper| {
        let mut stages = Vec::new();
        let mut cache = model.decoder.start(&encoding, 1);
        let states =
            model.decoder.forward_stages(std::slice::from_ref(&tokens), &mut cache, Some(&mut stages)).unwrap();
        stages.push(states.clone());
        let last = states.slice([0..1, tokens.len() - 1..tokens.len()]);
        (stages.into_iter().map(values).collect::<Vec<_>>(), values(last.clone()), values(model.decoder.logits(last)))
    };
    let ((expected, _, logits), (got, state, from_integers)) = (decoded(&float), decoded(&int8));
    let decoder = worst("decoder", &got, &expected);
    let of_logits = relative_rms(&from_integers, &logits);
    eprintln!("logits: {of_logits:.5}");
    assert!(decoder > 0.0 && decoder.max(of_logits) < MAX_RELATIVE_ERROR, "{decoder}, logits {of_logits}");
    // Where it is decided, the vocabulary's product is nearly that of the same state in floating point: only the rows are rounded, each 32 numbers to
    // 8 bits.
    let of_same_state = values(float.decoder.logits(Tensor::from_data(TensorData::new(state, [1, 1, 512]), &device)));
    let mut likeliest: Vec<usize> = (0..logits.len()).collect();
    likeliest.sort_by(|a, b| from_integers[*b].total_cmp(&from_integers[*a]));
    for token in &likeliest[..8] {
        let (got, expected) = (from_integers[*token], of_same_state[*token]);
        eprintln!("token {token}: {got}, in floating point {expected}");
        assert!((got - expected).abs() < MAX_LOGIT_ERROR, "token {token}: {got}, not {expected}");
    }
}

/// What the sound is taken for, and whether it is acted on, on every clip of the project.
#[test]
fn intents_are_those_in_floating_point() {
    let Some(base) = model_folder() else { return };
    let head = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/twi-shop");
    let opened = OpenOptions::default();
    let of_base = || Base { name: "whisper-base".to_owned(), folder: base.clone() };
    let load = |dtype| {
        let compute = Compute::choose(DeviceChoice::Cpu, dtype, None).unwrap();
        let folder = ModelFolder::open_with(&head, &opened, &mut |_| Ok(of_base())).unwrap();
        Recognizer::from_folder(folder, LoadOptions { compute, task: None }).unwrap()
    };
    let (float, int8) = (load(DtypeChoice::F32), load(DtypeChoice::Int8));
    let options = RecognizeOptions { transcribe: false, ..RecognizeOptions::default() };
    for name in CLIPS {
        let sound = clip(name);
        let answers = |model: &Recognizer| block_on(model.recognize(&sound, &options)).unwrap();
        let (expected, got) = (answers(&float), answers(&int8));
        eprintln!("{name}: {} {:.4}, in integers {:.4}", expected.intent, expected.confidence, got.confidence);
        assert_eq!((got.intent, got.accepted), (expected.intent, expected.accepted), "{name}");
    }
}

#[test]
fn english_words_are_those_in_floating_point() {
    let Some(folder) = model_folder() else { return };
    let load = |dtype: DtypeChoice| {
        let compute = Compute::choose(DeviceChoice::Cpu, dtype, None).unwrap();
        assert_eq!(compute.dtype, dtype.name());
        Recognizer::from_folder(ModelFolder::open(&folder).unwrap(), LoadOptions { compute, task: None }).unwrap()
    };
    let (float, int8) = (load(DtypeChoice::F32), load(DtypeChoice::Int8));
    assert_eq!((float.info().dtype.as_str(), int8.info().dtype.as_str()), ("f32", "int8"));
    for name in ["en_short", "en_medium", "en_eleven", "en_numbers"] {
        let sound = clip(name);
        let words = |model: &Recognizer| {
            let options = TranscribeOptions::default();
            block_on(model.transcribe(&sound, Some("en"), &options)).unwrap().text
        };
        let expected = words(&float);
        assert!(!expected.trim().is_empty());
        assert_eq!(words(&int8), expected, "{name}");
    }
}
