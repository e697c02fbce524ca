//! Four tiny seeded Wav2Vec2ForCTC models, every stage and every word against transformers.
//!
//! `tests/golden/golden_wav2vec2.py` says what each of them breaks that code may take for granted. Tolerance: 1e-4 for
//! every stage (the reference's own f32 is 6e-6 off f64), 1e-3 for logits, which go up to 70 (the reference's are 2e-5
//! off). Texts and the frames of words are exact: the smallest lead of a best class over the second is 0.0013.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use common::{Array, Tensors, block_on, bytes_of, clip, compare, golden, json};
use okyeame_core::Error;
use okyeame_core::decoding::Word;
use okyeame_core::wav2vec2::encoder::Wav2Vec2Stages;
use okyeame_core::wav2vec2::speech::normalise;
use okyeame_core::wav2vec2::{
    CtcVocabulary, VocabularyFiles, Wav2Vec2, Wav2Vec2Config, Wav2Vec2OnDevice, features_from_json,
};
use okyeame_core::weights::WeightSource;
use okyeame_core::weights::overlay::Overlay;
use okyeame_core::weights::pytorch::{PytorchFile, PytorchLimits};
use okyeame_core::weights::safetensors::Safetensors;
use serde::Deserialize;

const ATOL: f32 = 1e-4;
const ATOL_OF_LOGITS: f32 = 1e-3;
const ATOL_OF_INPUT: f32 = 1e-5;
/// Decoded text and word offsets: times in seconds, computed from whole frames.
const ATOL_OF_TIMES_S: f64 = 1e-6;

/// The part of a clip that the stages were made of, as in the script.
const STAGE_CLIP: (&str, usize, usize) = ("tw_go_cart", 4_000, 8_000);
/// The two clips of the padded batch.
const BATCH: [(&str, usize, usize); 2] = [("tw_go_cart", 4_000, 9_000), ("tw_cart", 3_000, 15_000)];

#[derive(Deserialize)]
struct Decoded {
    clips: Vec<DecodedClip>,
    long: Option<Long>,
}

#[derive(Deserialize)]
struct DecodedClip {
    clip: String,
    start: usize,
    n_samples: usize,
    text: String,
    /// Word, first frame, frame behind the last.
    words: Vec<(String, usize, usize)>,
    avg_logprob: f32,
}

#[derive(Deserialize)]
struct Long {
    clip: String,
    text: String,
    /// Word, start and end in seconds.
    words: Vec<(String, f64, f64)>,
}

/// One of the models, in one of its languages.
struct Tiny {
    name: &'static str,
    /// Before the names of its tensors.
    prefix: String,
    speech: Wav2Vec2OnDevice,
    notes: Vec<String>,
    stages: Tensors,
    decoded: Decoded,
}

impl Tiny {
    fn open(name: &'static str, language: Option<&str>) -> Self {
        let folder = golden(name);
        let decoded = match language {
            None => json(&format!("{name}/decoded.json")),
            Some(language) => {
                let mut all: serde_json::Value = json(&format!("{name}/decoded.json"));
                serde_json::from_value(all[language].take()).unwrap()
            }
        };
        let config = Wav2Vec2Config::from_json(&bytes_of(&folder.join("config.json"))).unwrap();
        let pad_token_id = config.pad_token_id;
        let model = Wav2Vec2::load(config, &*weights(&folder, language), &Device::flex()).unwrap();
        let optional = |file: &str| std::fs::read(folder.join(file)).ok();
        let [tokenizer_config, special_tokens_map] =
            ["tokenizer_config.json", "special_tokens_map.json"].map(&optional);
        let files = VocabularyFiles {
            vocab: &bytes_of(&folder.join("vocab.json")),
            tokenizer_config: tokenizer_config.as_deref(),
            special_tokens_map: special_tokens_map.as_deref(),
            added_tokens: None,
        };
        let (vocabulary, mut notes) = CtcVocabulary::new(&files, pad_token_id, language).unwrap();
        let (do_normalize, more) = features_from_json(optional("preprocessor_config.json").as_deref()).unwrap();
        notes.extend(more);
        Self {
            name,
            prefix: language.map_or_else(String::new, |l| format!("{l}.")),
            speech: Wav2Vec2OnDevice::new(model, vocabulary, do_normalize).unwrap(),
            notes,
            stages: Tensors::read(&folder.join("stages.safetensors")),
            decoded,
        }
    }

    fn all() -> [Self; 5] {
        [
            Self::open("wav2vec2-base", None),
            Self::open("wav2vec2-xlsr", None),
            Self::open("wav2vec2-mms", Some("eng")),
            Self::open("wav2vec2-mms", Some("twi")),
            Self::open("wav2vec2-old", None),
        ]
    }

    fn input(&self, samples: &[f32]) -> Vec<f32> {
        if self.speech.do_normalize { normalise(samples) } else { samples.to_vec() }
    }

    fn logits(&self, input: &[f32]) -> Array {
        Array::of(self.speech.model.forward(input).unwrap())
    }

    /// Against the golden tensor of that name, if this language has it.
    #[track_caller]
    fn compare(&self, stage: &str, got: &Array, atol: f32) -> bool {
        let Some(expected) = self.stages.0.get(&format!("{}{stage}", self.prefix)) else { return false };
        compare(&format!("{} {}{stage}", self.name, self.prefix), got, expected, atol);
        true
    }
}

/// The weights of a folder; with a language, its adapter laid over them.
fn weights(folder: &Path, language: Option<&str>) -> Arc<dyn WeightSource> {
    let safetensors = |file: &str| -> Arc<dyn WeightSource> {
        Arc::new(Safetensors::from_bytes(bytes_of(&folder.join(file)), file).unwrap())
    };
    if let Some(language) = language {
        let adapter = safetensors(&format!("adapter.{language}.safetensors"));
        return Arc::new(Overlay::new(adapter, safetensors("model.safetensors")));
    }
    let bin = folder.join("pytorch_model.bin");
    if bin.is_file() {
        let limits = PytorchLimits { max_tensors: 1_000, max_bytes: 10_000_000 };
        return Arc::new(PytorchFile::from_bytes(bytes_of(&bin), "pytorch_model.bin", &limits).unwrap());
    }
    safetensors("model.safetensors")
}

fn cut((name, start, n_samples): (&str, usize, usize)) -> Vec<f32> {
    clip(name).samples()[start..start + n_samples].to_vec()
}

#[test]
fn every_stage() {
    for tiny in Tiny::all() {
        let mut stages = Wav2Vec2Stages::default();
        let input = tiny.input(&cut(STAGE_CLIP));
        let logits = Array::of(tiny.speech.model.forward_stages(&input, Some(&mut stages)).unwrap());
        assert_eq!(logits.shape[1], tiny.speech.model.config.n_frames(input.len()));
        let mut named = vec![
            ("clip.features".to_owned(), stages.features.unwrap()),
            ("clip.projected".to_owned(), stages.projected.unwrap()),
            ("clip.embedded".to_owned(), stages.embedded.unwrap()),
            ("clip.last".to_owned(), stages.last.unwrap()),
        ];
        assert_eq!(stages.blocks.len(), tiny.speech.model.config.num_hidden_layers);
        named.extend(stages.blocks.into_iter().enumerate().map(|(i, x)| (format!("clip.block.{i}"), x)));
        // Twi has the body of English: only what its adapters change is stored for it.
        let is_second = tiny.prefix == "twi.";
        for (stage, got) in named {
            let is_there = tiny.compare(&stage, &Array::of(got), ATOL);
            assert!(is_there || (is_second && !stage.contains("block")), "{stage} is not among the vectors");
        }
        assert!(tiny.compare("clip.logits", &logits, ATOL_OF_LOGITS));
    }
}

#[test]
fn a_short_clip_and_one_too_short_for_a_frame() {
    for tiny in Tiny::all() {
        let stored = |name: &str| tiny.stages.0.get(&format!("{}{name}", tiny.prefix));
        // Twi shares them with English.
        let samples = stored("short.samples").unwrap_or_else(|| tiny.stages.get("eng.short.samples")).data.clone();
        let input = tiny.input(&samples);
        let as_array = Array::new(&[input.len()], input.clone());
        assert!(tiny.compare("short.input", &as_array, ATOL_OF_INPUT) || tiny.prefix == "twi.");
        assert!(tiny.compare("short.logits", &tiny.logits(&input), ATOL_OF_LOGITS));

        // The model refuses what is no whole frame; the recogniser pads it.
        let error = tiny.speech.model.forward(&tiny.input(&samples[..100])).unwrap_err();
        assert_eq!(error.code(), "shape_mismatch");
        let mut padded = tiny.input(&samples[..100]);
        padded.resize(tiny.speech.model.config.min_samples(), 0.0);
        let logits = tiny.logits(&padded);
        assert!(tiny.compare("too_short.logits", &logits, ATOL_OF_LOGITS));
        let log_probs = block_on(tiny.speech.log_probs(&samples[..100])).unwrap();
        let total = common::log_sum_exp(&logits.data);
        let expected = logits.data.iter().map(|v| v - total).collect();
        compare("padded", &Array::new(&logits.shape, log_probs), &Array::new(&logits.shape, expected), 1e-5);
        assert_eq!(block_on(tiny.speech.transcribe(&[], 1)).unwrap_err().code(), "empty_audio");
        assert_eq!(tiny.speech.model.forward(&[]).unwrap_err().code(), "empty_audio");
    }
}

/// Models with an attention mask: a clip alone is the same clip in a padded batch with its mask. (For group norm, such
/// as wav2vec2-base, transformers uses no mask, and a padded batch moves the logits by 6 of 65: each clip has to run
/// alone.)
#[test]
fn alone_is_as_in_a_padded_batch_with_its_mask() {
    let mut n = 0;
    for tiny in Tiny::all() {
        for (i, part) in BATCH.into_iter().enumerate() {
            let logits = tiny.logits(&tiny.input(&cut(part)));
            let is_there = tiny.compare(&format!("batch.{i}.logits"), &logits, ATOL_OF_LOGITS);
            assert_eq!(is_there, tiny.speech.model.config.has_layer_norm_features());
            n += usize::from(is_there);
        }
    }
    assert_eq!(n, 6);
}

#[track_caller]
fn same_words(name: &str, got: &[Word], expected: &[(String, f64, f64)], lower_case: bool) {
    let texts = |words: Vec<&str>| words.join(" ");
    let expected_texts: Vec<String> =
        expected.iter().map(|(w, ..)| if lower_case { w.to_lowercase() } else { w.clone() }).collect();
    assert_eq!(
        texts(got.iter().map(|w| w.text.trim_start()).collect()),
        texts(expected_texts.iter().map(String::as_str).collect()),
        "{name}"
    );
    for (got, (text, start_s, end_s)) in got.iter().zip(expected) {
        assert!(got.text.starts_with(' '), "{name}: {got:?} has its leading space");
        let off = (got.start_s - start_s).abs().max((got.end_s - end_s).abs());
        assert!(off < ATOL_OF_TIMES_S, "{name}: '{text}' is {start_s} to {end_s} s, not {got:?}");
    }
}

#[test]
fn texts_and_word_times() {
    for tiny in Tiny::all() {
        let frame_s = tiny.speech.model.config.frame_s();
        // wav2vec2-base lower-cases its text; the reference leaves its words as they are.
        let lower_case = tiny.name == "wav2vec2-base";
        for expected in &tiny.decoded.clips {
            let name = format!("{} {}{}", tiny.name, tiny.prefix, expected.clip);
            let samples = cut((expected.clip.as_str(), expected.start, expected.n_samples));
            let got = block_on(tiny.speech.transcribe(&samples, 1)).unwrap();
            assert_eq!(got.text, expected.text, "{name}");
            let words: Vec<(String, f64, f64)> =
                expected.words.iter().map(|(w, s, e)| (w.clone(), *s as f64 * frame_s, *e as f64 * frame_s)).collect();
            same_words(&name, &got.words, &words, lower_case);
            common::compare_number(&name, got.avg_logprob, expected.avg_logprob, 1e-4);

            // A wide search finds a text that is at least as likely as the best path's.
            let wide = block_on(tiny.speech.transcribe(&samples, 8)).unwrap();
            assert!(wide.avg_logprob >= got.avg_logprob - 1e-5, "{name}: {} < {}", wide.avg_logprob, got.avg_logprob);
            assert!(!wide.words.is_empty() && wide.words.is_sorted_by(|a, b| a.end_s <= b.start_s), "{name}");
        }
    }
}

/// 43 s: the pipeline's windows of 30 s with 5 s of context on either side, joined before decoding.
#[test]
fn long_clips_are_the_pipelines() {
    let mut n = 0;
    for tiny in Tiny::all() {
        let Some(expected) = &tiny.decoded.long else { continue };
        let got = block_on(tiny.speech.transcribe(clip(&expected.clip).samples(), 1)).unwrap();
        let name = format!("{} {}", tiny.name, expected.clip);
        assert_eq!(got.text, expected.text, "{name}");
        same_words(&name, &got.words, &expected.words, tiny.name == "wav2vec2-base");
        n += 1;
    }
    assert_eq!(n, 2);
}

#[test]
fn a_language_brings_its_own_head() {
    let [eng, twi] = ["eng", "twi"].map(|language| Tiny::open("wav2vec2-mms", Some(language)));
    assert_eq!((eng.speech.model.config.vocab_size, twi.speech.model.config.vocab_size), (26, 29));
    assert_eq!(eng.speech.vocabulary.languages(), ["eng", "twi"]);
    assert_eq!(twi.speech.vocabulary.language(), Some("twi"));
    // A vocabulary of more tokens than the head has classes is refused.
    let error = Wav2Vec2OnDevice::new(eng.speech.model, twi.speech.vocabulary, true).unwrap_err();
    assert_eq!(error.code(), "invalid_config");
    // The model's own file holds English.
    let folder = golden("wav2vec2-mms");
    let config = Wav2Vec2Config::from_json(&bytes_of(&folder.join("config.json"))).unwrap();
    let model = Wav2Vec2::load(config, &*weights(&folder, None), &Device::flex()).unwrap();
    let input = normalise(&cut(STAGE_CLIP));
    let logits = Array::of(model.forward(&input).unwrap());
    compare("without an adapter file", &logits, eng.stages.get("eng.clip.logits"), ATOL_OF_LOGITS);
}

#[test]
fn what_the_files_leave_out_is_told() {
    for tiny in Tiny::all() {
        let notes = tiny.notes.join("; ");
        match tiny.name {
            // special_tokens_map.json names the blank, and nothing the delimiter.
            "wav2vec2-old" => assert!(notes.contains("'|' separates words") && tiny.notes.len() == 1, "{notes}"),
            _ => assert!(tiny.notes.is_empty(), "{}: {notes}", tiny.name),
        }
    }
}

#[test]
fn loading_is_strict() {
    let folder = golden("wav2vec2-base");
    let config = Wav2Vec2Config::from_json(&bytes_of(&folder.join("config.json"))).unwrap();
    let source = weights(&folder, None);
    let n_parameters = Wav2Vec2::load(config.clone(), &*source, &Device::flex()).unwrap().n_parameters();
    // Everything in the file but the mask's embedding, which only training reads.
    let in_file = |name: &String| source.get(name).unwrap().shape.iter().product::<usize>();
    let total: usize = source.names().iter().map(in_file).sum();
    assert_eq!(n_parameters as usize, total - config.hidden_size);
    let other = Wav2Vec2Config { conv_bias: true, vocab_size: 25, num_hidden_layers: 1, ..config };
    match Wav2Vec2::load(other, &*source, &Device::flex()).unwrap_err() {
        Error::WeightMismatch { missing, unused, misshapen } => {
            assert_eq!(missing.len(), 7, "{missing:?}");
            assert!(missing.contains(&"wav2vec2.feature_extractor.conv_layers.6.conv.bias".to_owned()), "{missing:?}");
            assert_eq!(unused.len(), 16, "{unused:?}");
            assert!(unused.iter().all(|name| name.starts_with("wav2vec2.encoder.layers.1.")), "{unused:?}");
            assert_eq!(misshapen.len(), 2, "{misshapen:?}");
            assert!(misshapen.contains(&"lm_head.weight: expected [25, 32], got [24, 32]".to_owned()), "{misshapen:?}");
        }
        other => panic!("{other}"),
    }
}
