//! What a profile of a tiny seeded model counts: every kernel of every stage, as often as the model has it, with as many
//! multiply-adds as its shapes make.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor, TensorData};
use common::golden;
use okyeame_core::kernels::Target;
use okyeame_core::kernels::profile::{self, CROSS_KEYS, DECODER, ENCODER, LINEAR, MLP, Profile, VOCABULARY};
use okyeame_core::weights::folder::ModelFolder;
use okyeame_core::whisper::{Whisper, WhisperConfig};

/// There is one profile in a process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const FRAMES: usize = 60;
/// Positions of a fitted window of so many frames.
const CTX: usize = FRAMES / 2;
/// Taken in one after the other; each time the logits of the last are asked for.
const TOKENS: [&[u32]; 3] = [&[59, 60, 64], &[5], &[6]];

fn tiny(int8: bool) -> (Whisper, Device) {
    let device = Device::flex();
    let files = ModelFolder::open(&golden("tiny-multilingual")).unwrap().into_whisper().unwrap();
    let whisper = Whisper::load(files.config, &*files.weights, Target { int8, ..Target::from(&device) }).unwrap();
    (whisper, device)
}

fn pass((whisper, device): &(Whisper, Device)) {
    let n_mels = whisper.config.num_mel_bins;
    let mel: Vec<f32> = (0..n_mels * FRAMES).map(|i| (i % 17) as f32 / 17.0).collect();
    let mel = Tensor::<3>::from_data(TensorData::new(mel, [1, n_mels, FRAMES]), device);
    let encoding = whisper.encoder.forward(mel).unwrap();
    let mut cache = whisper.decoder.start(&encoding, 1);
    for tokens in TOKENS {
        let states = whisper.decoder.forward(&[tokens.to_vec()], &mut cache).unwrap();
        let logits = whisper.decoder.logits(states.slice([0..1, tokens.len() - 1..tokens.len()]));
        assert_eq!(logits.dims(), [1, 1, whisper.config.vocab_size]);
    }
}

type Counts = BTreeMap<(&'static str, &'static str, Option<[usize; 2]>), (usize, u64)>;

/// Calls and multiply-adds, whatever number type they were done in.
fn counts(profile: &Profile) -> Counts {
    let mut counts = Counts::new();
    for op in &profile.ops {
        let (calls, multiply_adds) = counts.entry((op.stage, op.op, op.shape)).or_default();
        *calls += op.calls;
        *multiply_adds += op.multiply_adds;
    }
    counts
}

/// In 8-bit integers both layers of an MLP are one kernel.
fn expected(config: &WhisperConfig, int8: bool) -> Counts {
    let (n, n_mels, n_vocab) = (config.d_model, config.num_mel_bins, config.vocab_size);
    let (encoder_mlp, decoder_mlp) = (config.encoder_ffn_dim, config.decoder_ffn_dim);
    let (encoders, decoders) = (config.encoder_layers, config.decoder_layers);
    let passes = TOKENS.len();
    let tokens: usize = TOKENS.iter().map(|tokens| tokens.len()).sum();
    // The prompt's three tokens are computed onto all three; then one onto four, one onto five.
    let pairs = 3 * 3 + 4 + 5;
    let mut counts = Counts::new();
    let mut linear = |stage, calls: usize, rows: usize, d_input: usize, d_output: usize| {
        let multiply_adds = (rows * d_input * d_output) as u64;
        counts.insert((stage, LINEAR, Some([d_input, d_output])), (calls, multiply_adds));
    };
    linear(ENCODER, encoders, encoders * CTX, n, 3 * n);
    linear(ENCODER, encoders, encoders * CTX, n, n);
    linear(CROSS_KEYS, decoders, decoders * CTX, n, 2 * n);
    linear(DECODER, passes * decoders, decoders * tokens, n, 3 * n);
    // Out of self-attention, and on both sides of cross-attention.
    linear(DECODER, 3 * passes * decoders, 3 * decoders * tokens, n, n);
    linear(VOCABULARY, passes, passes, n, n_vocab);
    for (stage, calls, rows, hidden) in
        [(ENCODER, encoders, encoders * CTX, encoder_mlp), (DECODER, passes * decoders, decoders * tokens, decoder_mlp)]
    {
        if int8 {
            counts.insert((stage, MLP, Some([n, hidden])), (calls, (2 * rows * n * hidden) as u64));
        } else {
            for shape in [[n, hidden], [hidden, n]] {
                counts.insert((stage, LINEAR, Some(shape)), (calls, (rows * n * hidden) as u64));
            }
        }
    }
    let conv = |d_input: usize, frames: usize| (1, (frames * n * 3 * d_input) as u64);
    counts.insert((ENCODER, "conv1d", Some([n_mels, n])), conv(n_mels, FRAMES));
    counts.insert((ENCODER, "conv1d", Some([n, n])), conv(n, CTX));
    let mut plain = |stage, op, calls: usize, multiply_adds: usize| {
        counts.insert((stage, op, None), (calls, multiply_adds as u64));
    };
    plain(ENCODER, "layer norm", 2 * encoders + 1, 0);
    plain(ENCODER, "self-attention", encoders, encoders * 2 * CTX * CTX * n);
    plain(CROSS_KEYS, "packing of keys", decoders, 0);
    plain(DECODER, "layer norm", passes * (3 * decoders + 1), 0);
    plain(DECODER, "self-attention", passes * decoders, decoders * 2 * pairs * n);
    plain(DECODER, "cross-attention", passes * decoders, decoders * 2 * tokens * CTX * n);
    counts
}

#[test]
fn every_kernel_is_counted_in_its_stage() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for int8 in [false, true] {
        let model = tiny(int8);
        profile::start();
        pass(&model);
        let profile = profile::stop();
        assert_eq!(counts(&profile), expected(&model.0.config, int8), "int8: {int8}");
        let in_integers = profile.ops.iter().any(|op| op.int8);
        assert_eq!(in_integers, int8);
        let stages: Vec<_> = profile.stages.iter().map(|time| (time.stage, time.calls)).collect();
        assert_eq!(stages, [(ENCODER, 1), (CROSS_KEYS, 1), (DECODER, 3), (VOCABULARY, 3)]);
        for stage in &profile.stages {
            let in_ops: f64 = profile.ops.iter().filter(|op| op.stage == stage.stage).map(|op| op.ms).sum();
            assert!(in_ops > 0.0 && in_ops <= stage.ms, "{}: {in_ops} of {} ms", stage.stage, stage.ms);
        }
    }
}

#[test]
fn nothing_is_kept_while_no_profile_is_taken_nor_from_one_to_the_next() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let model = tiny(false);
    pass(&model);
    assert_eq!(profile::stop(), Profile::default());
    for _ in 0..2 {
        profile::start();
        pass(&model);
        assert_eq!(counts(&profile::stop()), expected(&model.0.config, false));
    }
}
