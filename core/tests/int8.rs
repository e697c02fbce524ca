//! Linear layers in 8-bit integers against the same model in f32: whisper-base on the project's clips.
//!
//! | what | within |
//! |---|---|
//! | encoder, each stage, root mean square over that of the f32 stage | 4 % |
//! | words of English speech | the same on three clips; the fourth, `en_short`, hears "in size 42" as "inside for the two" |
//!
//! The model is found as in `golden_base`, which says what happens without it. How the kernel rounds is tested where it
//! stands (`kernels/int8.rs`); what becomes of intents is measured (README.md, "8-bit integers").

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use burn::tensor::{Device, Tensor, TensorData};
use common::{block_on, clip, model_folder};
use okyeame_core::Recognizer;
use okyeame_core::audio::LogMelExtractor;
use okyeame_core::decoding::TranscribeOptions;
use okyeame_core::device::{Compute, DeviceChoice, DtypeChoice};
use okyeame_core::kernels::Target;
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::weights::folder::ModelFolder;
use okyeame_core::whisper::Whisper;
use okyeame_core::whisper::encoder::EncoderStages;

const MAX_RELATIVE_ERROR: f64 = 0.04;

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

#[test]
fn the_encoders_stages_are_near_those_in_floating_point() {
    let Some(folder) = model_folder() else { return };
    let device = Device::flex();
    let load = |int8: bool| {
        let files = ModelFolder::open(&folder).unwrap().into_whisper().unwrap();
        Whisper::load(files.config, &*files.weights, Target { int8, ..Target::from(&device) }).unwrap()
    };
    let (float, int8) = (load(false), load(true));
    let sound = clip("tw_shoes");
    let mel = LogMelExtractor::new(80).extract_padded(sound.samples(), sound.samples().len() / 320 * 320).unwrap();
    let shape = [1, mel.n_mels, mel.n_frames];
    let stages = |model: &Whisper| {
        let mut stages = EncoderStages::default();
        let mel = Tensor::from_data(TensorData::new(mel.data.clone(), shape), &device);
        let last = model.encoder.forward_stages(mel, Some(&mut stages)).unwrap();
        let mut all = stages.blocks;
        all.push(last);
        all.into_iter().map(values).collect::<Vec<_>>()
    };
    let errors: Vec<f64> =
        stages(&int8).iter().zip(stages(&float)).map(|(got, expected)| relative_rms(got, &expected)).collect();
    eprintln!("relative error behind each block, and normalised: {errors:.4?}");
    assert_eq!(errors[0], 0.0, "the first block is in floating point");
    let worst = errors.iter().copied().enumerate().fold((0, 0.0), |best, x| if x.1 > best.1 { x } else { best });
    assert!(worst.1 > 0.0 && worst.1 < MAX_RELATIVE_ERROR, "stage {}: {:.4}", worst.0, worst.1);
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
    for name in ["en_medium", "en_eleven", "en_numbers"] {
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
