//! Two tiny seeded models, every stage against transformers' Whisper.
//!
//! tiny-multilingual has whisper-base's proportions; tiny-2 has 128 mels, unequal stacks and other token numbers.
//! Tolerance: 1e-4 for every stage (the reference's own f32 is 5e-6 off f64), 1e-5 for attention weights, which lie
//! in 0..1, and for what must not depend on the cache or the batch. Token sequences are exact: the smallest lead of a
//! chosen token over the second is 0.034.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Array, Loaded, Tensors, block_on, compare, golden, json};
use okyeame_core::decoding::SpeechModel;
use okyeame_core::whisper::encoder::EncoderStages;

const ATOL: f32 = 1e-4;
const ATOL_OF_WEIGHTS: f32 = 1e-5;
/// The same computation in another order.
const ATOL_OF_ORDER: f32 = 1e-5;
const NAMES: [&str; 2] = ["tiny-multilingual", "tiny-2"];
/// Tokens that `cached.prompt_logits` took at once; the others followed one by one.
const PROMPT_TOKENS: usize = 3;
/// Mel frames of the `fitted` window, of 100.
const FITTED_FRAMES: usize = 60;

struct Tiny {
    name: &'static str,
    loaded: Loaded,
    stages: Tensors,
    /// `[item][token]`
    tokens: Vec<Vec<u32>>,
}

impl Tiny {
    fn open(name: &'static str) -> Self {
        let stages = Tensors::read(&golden(name).join("stages.safetensors"));
        let tokens = stages.get("decoder.tokens").token_rows();
        Self { name, loaded: Loaded::open(&golden(name)).unwrap(), stages, tokens }
    }

    #[track_caller]
    fn compare(&self, stage: &str, item: Option<usize>, got: &Array, expected: &Array, atol: f32) {
        let item = item.map_or_else(String::new, |i| format!("[{i}]"));
        compare(&format!("{} {stage}{item}", self.name), got, expected, atol);
    }

    /// The reference's encoding of one item, so that an error of the encoder is not told again by the decoder.
    fn encoding(&self, item: usize) -> Array {
        self.stages.get("encoder.ln_post").item(item)
    }

    /// Our encoder on both items: its stages as the reference names them, and its output.
    fn encode(&self, mel: &Array) -> (Vec<(String, Array)>, Array) {
        let mut stages = EncoderStages::default();
        let output = self.loaded.model.whisper.encoder.forward_stages(mel.tensor(), Some(&mut stages)).unwrap();
        let mut named = Vec::new();
        for (i, conv) in stages.convs.into_iter().enumerate() {
            named.push((format!("conv{}", i + 1), Array::of(conv).transposed()));
        }
        named.push(("embedded".to_owned(), Array::of(stages.embedded.unwrap())));
        for (i, block) in stages.blocks.into_iter().enumerate() {
            named.push((format!("block.{i}"), Array::of(block)));
        }
        (named, Array::of(output))
    }
}

#[test]
fn encoder_stages() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        let (stages, output) = tiny.encode(tiny.stages.get("encoder.input"));
        assert_eq!(stages.len(), 3 + tiny.loaded.model.whisper.config.encoder_layers);
        for (stage, got) in &stages {
            let stage = format!("encoder.{stage}");
            tiny.compare(&stage, None, got, tiny.stages.get(&stage), ATOL);
        }
        tiny.compare("encoder.ln_post", None, &output, tiny.stages.get("encoder.ln_post"), ATOL);
    }
}

#[test]
fn decoder_stages() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        let decoder = &tiny.loaded.model.whisper.decoder;
        for (item, tokens) in tiny.tokens.iter().enumerate() {
            let mut cache = decoder.start(&tiny.encoding(item).tensor(), 1);
            let mut stages = Vec::new();
            let states = decoder.forward_stages(std::slice::from_ref(tokens), &mut cache, Some(&mut stages)).unwrap();
            assert_eq!(cache.len(), tokens.len());
            assert_eq!(stages.len(), 1 + tiny.loaded.model.whisper.config.decoder_layers);
            for (i, got) in stages.into_iter().enumerate() {
                let stage = if i == 0 { "decoder.embedded".to_owned() } else { format!("decoder.block.{}", i - 1) };
                tiny.compare(&stage, Some(item), &Array::of(got), &tiny.stages.get(&stage).item(item), ATOL);
            }
            let logits = Array::of(decoder.logits(states.clone()));
            let states = Array::of(states);
            tiny.compare("decoder.ln", Some(item), &states, &tiny.stages.get("decoder.ln").item(item), ATOL);
            tiny.compare("decoder.logits", Some(item), &logits, &tiny.stages.get("decoder.logits").item(item), ATOL);
        }
    }
}

#[test]
fn cached_steps() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        let decoder = &tiny.loaded.model.whisper.decoder;
        for (item, tokens) in tiny.tokens.iter().enumerate() {
            let mut cache = decoder.start(&tiny.encoding(item).tensor(), 1);
            let (prompt, rest) = tokens.split_at(PROMPT_TOKENS);
            let states = decoder.forward(&[prompt.to_vec()], &mut cache).unwrap();
            let got = Array::of(decoder.logits(states));
            let expected = tiny.stages.get("cached.prompt_logits").item(item);
            tiny.compare("cached.prompt_logits", Some(item), &got, &expected, ATOL);
            let expected = tiny.stages.get("cached.logits").item(item);
            let uncached = tiny.stages.get("decoder.logits").item(item);
            for (step, token) in rest.iter().enumerate() {
                let states = decoder.forward(&[vec![*token]], &mut cache).unwrap();
                let got = Array::of(decoder.logits(states));
                let name = format!("cached.logits, step {step}");
                tiny.compare(&name, Some(item), &got, &expected.rows(step, step + 1), ATOL);
                let at = PROMPT_TOKENS + step;
                tiny.compare(&format!("{name}, uncached"), Some(item), &got, &uncached.rows(at, at + 1), ATOL);
            }
            assert_eq!(cache.len(), tokens.len());
        }
    }
}

#[test]
fn cross_attention_weights() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        let decoder = &tiny.loaded.model.whisper.decoder;
        let config = &tiny.loaded.model.whisper.config;
        for (item, tokens) in tiny.tokens.iter().enumerate() {
            let cache = decoder.start(&tiny.encoding(item).tensor(), 1);
            for layer in 0..config.decoder_layers {
                let heads: Vec<[usize; 2]> = (0..config.decoder_attention_heads).map(|head| [layer, head]).collect();
                let got = block_on(decoder.cross_weights(tokens, &cache, &heads)).unwrap();
                assert_eq!(got.len(), heads.len());
                let stage = format!("decoder.cross_attention.{layer}");
                let expected = tiny.stages.get(&stage).item(item); // [1, n_head, n_tokens, n_audio_ctx]
                tiny.compare(
                    &stage,
                    Some(item),
                    &Array::new(&expected.shape, got.concat()),
                    &expected,
                    ATOL_OF_WEIGHTS,
                );
            }
            // Heads are given in the order in which they were asked for; those that do not exist are left out.
            let all = tiny.stages.get("decoder.cross_attention.0").item(item);
            let n = tokens.len() * config.max_source_positions;
            let got = block_on(decoder.cross_weights(tokens, &cache, &[[0, 1], [99, 0], [0, 0], [0, 99]])).unwrap();
            let swapped = [&all.data[n..2 * n], &all.data[..n]].concat();
            let shape = [2, tokens.len(), config.max_source_positions];
            let (got, swapped) = (Array::new(&shape, got.concat()), Array::new(&shape, swapped));
            tiny.compare("heads in order", Some(item), &got, &swapped, ATOL_OF_WEIGHTS);
        }
    }
}

#[test]
fn a_fitted_window() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        let mel = tiny.stages.get("encoder.input").columns(0, FITTED_FRAMES);
        let (stages, output) = tiny.encode(&mel);
        let stages: std::collections::HashMap<String, Array> = stages.into_iter().collect();
        for stage in ["conv2", "embedded"] {
            let name = format!("fitted.{stage}");
            tiny.compare(&name, None, &stages[stage], tiny.stages.get(&name), ATOL);
        }
        tiny.compare("fitted.ln_post", None, &output, tiny.stages.get("fitted.ln_post"), ATOL);
        // Here the decoder reads our own encoding: from the mel to the logits.
        let decoder = &tiny.loaded.model.whisper.decoder;
        for (item, tokens) in tiny.tokens.iter().enumerate() {
            let mut cache = decoder.start(&output.item(item).tensor(), 1);
            let states = decoder.forward(std::slice::from_ref(tokens), &mut cache).unwrap();
            let got = Array::of(decoder.logits(states));
            tiny.compare("fitted.logits", Some(item), &got, &tiny.stages.get("fitted.logits").item(item), ATOL);
        }
    }
}

#[test]
fn a_batch_is_its_items() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        let mel = tiny.stages.get("encoder.input");
        let (_, both) = tiny.encode(mel);
        for item in 0..2 {
            let (_, single) = tiny.encode(&mel.item(item));
            tiny.compare("encoder, batch of 2", Some(item), &both.item(item), &single, ATOL_OF_ORDER);
        }
        // The decoder's batch is several texts on one encoding.
        let decoder = &tiny.loaded.model.whisper.decoder;
        let encoding = tiny.encoding(0).tensor();
        let alone: Vec<Array> = tiny
            .tokens
            .iter()
            .map(|tokens| {
                let mut cache = decoder.start(&encoding, 1);
                Array::of(decoder.forward(std::slice::from_ref(tokens), &mut cache).unwrap())
            })
            .collect();
        tiny.compare("text on its own encoding", Some(0), &alone[0], &tiny.stages.get("decoder.ln").item(0), ATOL);
        let mut cache = decoder.start(&encoding, 2);
        let together = Array::of(decoder.forward(&tiny.tokens, &mut cache).unwrap());
        for (item, alone) in alone.iter().enumerate() {
            tiny.compare("decoder, batch of 2", Some(item), &together.item(item), alone, ATOL_OF_ORDER);
        }
        // Beams that change places, and become three, go on as what they were.
        let mut cache = decoder.restart(&cache, 2);
        let first: Vec<Vec<u32>> = tiny.tokens.iter().map(|row| row[..5].to_vec()).collect();
        let _ = decoder.forward(&first, &mut cache).unwrap();
        let source = [1, 0, 1];
        cache.reorder(&source);
        let rest: Vec<Vec<u32>> = source.iter().map(|i| tiny.tokens[*i][5..].to_vec()).collect();
        let moved = Array::of(decoder.forward(&rest, &mut cache).unwrap());
        for (beam, i) in source.into_iter().enumerate() {
            let expected = alone[i].rows(5, tiny.tokens[i].len());
            tiny.compare("reordered beam", Some(beam), &moved.item(beam), &expected, ATOL_OF_ORDER);
        }
    }
}

/// What decoding sees, [`SpeechModel`], is the same numbers: rows at the wanted places, of every beam in turn.
#[test]
fn logits_at_wanted_places() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        let model = &tiny.loaded.model;
        let expected = tiny.stages.get("decoder.logits").item(0);
        let window = block_on(model.encode(&tiny.stages.get("encoder.input").item(0).data)).unwrap();
        let tokens = &tiny.tokens[0];
        let last = tokens.len() - 1;
        for at in [vec![last], vec![0, last], vec![2, 5, 1], (0..tokens.len()).collect()] {
            let mut cache = model.start(&window, 2);
            let got = block_on(model.logits(&[tokens.clone(), tokens.clone()], &mut cache, &at)).unwrap();
            let rows: Vec<f32> = at.iter().flat_map(|i| expected.rows(*i, *i + 1).data).collect();
            let n_vocab = expected.shape[2];
            let twice = Array::new(&[2 * at.len(), n_vocab], [rows.clone(), rows].concat());
            let got = Array::new(&[got.len() / n_vocab, n_vocab], got);
            tiny.compare(&format!("logits at {at:?}"), None, &got, &twice, ATOL);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let tiny = Tiny::open("tiny-2");
    let model = &tiny.loaded.model.whisper;
    let mel = tiny.stages.get("encoder.input").item(0);
    let (n_mels, n_frames) = (mel.shape[1], mel.shape[2]);
    let zeros = |shape: [usize; 3]| Array::new(&shape, vec![0.0; shape.iter().product()]);
    for shape in [[1, n_mels, n_frames + 2], [1, n_mels, n_frames - 1], [1, n_mels, 0], [1, n_mels - 1, n_frames]] {
        let error = model.encoder.forward(zeros(shape).tensor()).unwrap_err();
        assert_eq!(error.code(), "shape_mismatch", "{shape:?}");
    }
    let encoding = tiny.encoding(0).tensor();
    let n_text_ctx = model.decoder.n_text_ctx();
    let n_vocab = u32::try_from(model.config.vocab_size).unwrap();
    let bad: [(usize, Vec<Vec<u32>>); 7] = [
        (1, vec![vec![n_vocab]]),
        (1, vec![vec![u32::MAX]]),
        (1, vec![vec![1; n_text_ctx + 1]]),
        (1, vec![vec![]]),
        (1, vec![]),
        (1, vec![vec![1], vec![2]]),
        (2, vec![vec![1, 2], vec![3]]),
    ];
    for (batch, tokens) in bad {
        let mut cache = model.decoder.start(&encoding, batch);
        let error = model.decoder.forward(&tokens, &mut cache).unwrap_err();
        assert_eq!(error.code(), "shape_mismatch", "{tokens:?}");
        assert_eq!(cache.len(), 0, "a refused text leaves no trace");
    }
    // Exactly full is allowed, one more is not.
    let mut cache = model.decoder.start(&encoding, 1);
    let _ = model.decoder.forward(&[vec![1; n_text_ctx]], &mut cache).unwrap();
    assert_eq!(model.decoder.forward(&[vec![1]], &mut cache).unwrap_err().code(), "shape_mismatch");
}

/// The fixture is what its README says: otherwise the tests above would compare little.
#[test]
fn the_fixtures_are_lively() {
    for name in NAMES {
        let facts: serde_json::Value = json(&format!("{name}/generate.json"));
        let tiny = Tiny::open(name);
        let stages = facts["stages"].as_object().unwrap();
        assert!(stages.len() > 15);
        for (stage, facts) in stages {
            let array = tiny.stages.get(stage);
            let shape: Vec<usize> = serde_json::from_value(facts["shape"].clone()).unwrap();
            assert_eq!(array.shape, shape, "{name} {stage}");
            let largest = array.data.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            assert!((f64::from(largest) / facts["max_abs"].as_f64().unwrap() - 1.0).abs() < 1e-3, "{name} {stage}");
        }
    }
}
