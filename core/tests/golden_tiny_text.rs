//! What the two tiny seeded models say, against transformers' `generate`: logit filters, greedy choice, one window.
//!
//! Token sequences are exact: the smallest lead of a chosen token over the second is 0.034, three hundred times the
//! tolerance of the logits. Probabilities and their means within 1e-3.
//!
//! transformers lets a text fill the context (32, the prompt included), OpenAI and we stop after half of it: so a
//! plain loop over [`SpeechModel`] says the whole sequence, and [`decode_window`] its first 16 tokens.
//!
//! Beams: transformers adds log-probabilities from before the filters and counts the closing token, OpenAI from after
//! them and does not. We follow OpenAI, so ours is held against a second writing of OpenAI's search, without a cache;
//! transformers' texts are printed beside it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Array, Loaded, Tensors, block_on, compare, compare_number, golden, json, log_sum_exp};
use okyeame_core::decoding::filters::{LogitFilters, TimestampRules};
use okyeame_core::decoding::window::{detect_language, language_probabilities};
use okyeame_core::decoding::{DecodeOptions, SpeechModel, beam, decode_window, greedy};
use okyeame_core::tokenizer::SpeechTask;
use okyeame_core::whisper::EncodedWindow;
use serde::Deserialize;

const NAMES: [&str; 2] = ["tiny-multilingual", "tiny-2"];
const ATOL_OF_PROBABILITIES: f32 = 1e-3;
/// Positions of the tiny models' texts.
const N_TEXT_CTX: usize = 32;

#[derive(Deserialize)]
struct Generated {
    cases: Vec<Case>,
}

/// One call of the reference; `tokens` end with the closing one where it was said.
#[derive(Deserialize)]
struct Case {
    item: usize,
    language: String,
    task: SpeechTask,
    timestamps: bool,
    n_beams: Option<usize>,
    prompt: Vec<u32>,
    tokens: Vec<u32>,
    text: String,
    avg_logprob: Option<f32>,
    compression_ratio: Option<f32>,
    min_margin: Option<f32>,
}

struct Tiny {
    loaded: Loaded,
    stages: Tensors,
    cases: Vec<Case>,
}

impl Tiny {
    fn open(name: &str) -> Self {
        Self {
            loaded: Loaded::open(&golden(name)).unwrap(),
            stages: Tensors::read(&golden(name).join("stages.safetensors")),
            cases: json::<Generated>(&format!("{name}/generate.json")).cases,
        }
    }

    fn window(&self, item: usize) -> EncodedWindow {
        block_on(self.loaded.model.encode(&self.stages.get("encoder.input").item(item).data)).unwrap()
    }

    fn eot(&self) -> u32 {
        self.loaded.tokenizer.special().eot
    }

    fn options(&self, case: &Case) -> DecodeOptions {
        self.loaded.exact(&case.language, case.task, case.timestamps)
    }

    fn filters(&self, timestamps: bool) -> LogitFilters {
        let max_initial_index = self.loaded.generation.max_initial_timestamp_index;
        assert_eq!(max_initial_index, Some(25));
        LogitFilters {
            suppress: self.loaded.suppress(),
            begin_suppress: self.loaded.begin_suppress(),
            timestamps: timestamps.then(|| TimestampRules::new(self.loaded.tokenizer.special(), max_initial_index)),
        }
    }

    /// The unfiltered logits after a whole text, read from its start.
    fn logits_after(&self, window: &EncodedWindow, text: &[u32]) -> Vec<f32> {
        let mut cache = self.loaded.model.start(window, 1);
        block_on(self.loaded.model.logits(&[text.to_vec()], &mut cache, &[text.len() - 1])).unwrap()
    }
}

fn largest(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

#[test]
fn greedy_sequences_are_the_references() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        let model = &tiny.loaded.model;
        for case in tiny.cases.iter().filter(|case| case.n_beams.is_none()) {
            assert!(case.min_margin.unwrap() > 0.03, "the sequence is no near tie");
            let special = tiny.loaded.tokenizer.special();
            let language = tiny.loaded.tokenizer.language_token(&case.language).unwrap();
            assert_eq!(special.sot_sequence(language, case.task, case.timestamps), case.prompt);

            let (window, filters) = (tiny.window(case.item), tiny.filters(case.timestamps));
            let mut cache = model.start(&window, 1);
            let last = case.prompt.len() - 1;
            let mut logits = block_on(model.logits(std::slice::from_ref(&case.prompt), &mut cache, &[last])).unwrap();
            let (mut tokens, mut sum_logprob) = (Vec::new(), 0.0);
            loop {
                filters.apply(&mut logits, &tokens);
                let token = largest(&logits);
                sum_logprob += logits[token] - log_sum_exp(&logits);
                tokens.push(token as u32);
                if token as u32 == tiny.eot() || case.prompt.len() + tokens.len() == N_TEXT_CTX {
                    break;
                }
                logits = block_on(model.logits(&[vec![token as u32]], &mut cache, &[0])).unwrap();
            }
            let about = format!("{name}, item {}, timestamps {}", case.item, case.timestamps);
            assert_eq!(tokens, case.tokens, "{about}");
            let mean = sum_logprob / tokens.len() as f32;
            compare_number(&format!("{about}: avg_logprob"), mean, case.avg_logprob.unwrap(), ATOL_OF_PROBABILITIES);
        }
    }
}

#[test]
fn one_window_says_the_same() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        let half = N_TEXT_CTX / 2;
        for case in tiny.cases.iter().filter(|case| case.n_beams.is_none()) {
            let window = tiny.window(case.item);
            let result =
                block_on(decode_window(&tiny.loaded.model, &tiny.loaded.tokenizer, &window, &tiny.options(case)))
                    .unwrap();
            let about = format!("{name}, item {}, timestamps {}", case.item, case.timestamps);
            let said: Vec<u32> = case.tokens.iter().copied().filter(|t| *t != tiny.eot()).collect();
            assert_eq!(result.tokens, said[..said.len().min(half)], "{about}");
            assert_eq!(result.language.as_deref(), Some(case.language.as_str()));
            assert_eq!(result.temperature.to_bits(), 0.0_f32.to_bits());
            if said.len() >= half || case.tokens.last() != Some(&tiny.eot()) {
                continue;
            }
            assert_eq!(result.text, case.text.trim(), "{about}");
            let expected = case.avg_logprob.unwrap();
            compare_number(&format!("{about}: avg_logprob"), result.avg_logprob, expected, ATOL_OF_PROBABILITIES);
            // zlib and its Rust twin may differ by a byte or two.
            let (ratio, expected) = (result.compression_ratio, case.compression_ratio.unwrap_or(0.0));
            assert!((ratio - expected).abs() <= 0.1 * expected, "{about}: compression ratio {ratio}, not {expected}");

            // A bound on the tokens cuts the same text; none of it is the empty text.
            for max_tokens in 0..said.len() {
                let options = DecodeOptions { max_tokens: Some(max_tokens), ..tiny.options(case) };
                let cut =
                    block_on(decode_window(&tiny.loaded.model, &tiny.loaded.tokenizer, &window, &options)).unwrap();
                assert_eq!(cut.tokens, said[..max_tokens], "{about}, cut");
            }
        }
    }
}

/// `cached.prompt_logits` begins with the logits after the start token alone.
#[test]
fn language_and_silence_are_read_after_the_start_token() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        let special = tiny.loaded.tokenizer.special();
        for item in 0..2 {
            let logits = tiny.stages.get("cached.prompt_logits").item(item).rows(0, 1).data;
            let window = tiny.window(item);
            let (model, tokenizer) = (&tiny.loaded.model, &tiny.loaded.tokenizer);

            let of_languages: Vec<f32> = special.languages.iter().map(|(_, t)| logits[*t as usize]).collect();
            let total = log_sum_exp(&of_languages);
            let expected: Vec<f32> = of_languages.iter().map(|l| (l - total).exp()).collect();
            let got = block_on(language_probabilities(model, tokenizer, &window)).unwrap();
            let codes: Vec<&str> = got.iter().map(|(code, _, _)| code.as_str()).collect();
            let known = if name == "tiny-2" { vec!["en", "sw", "fr", "yo"] } else { vec!["en", "sw", "fr"] };
            assert_eq!(codes, known);
            let shape = [expected.len()];
            let got = Array::new(&shape, got.iter().map(|(_, _, p)| *p).collect());
            let best = largest(&expected);
            compare(&format!("{name}[{item}] languages"), &got, &Array::new(&shape, expected), ATOL_OF_PROBABILITIES);

            let detected = block_on(detect_language(model, tokenizer, &window)).unwrap();
            assert_eq!(detected, special.languages[best]);
            let mut options = tiny.loaded.exact("en", SpeechTask::Transcribe, false);
            options.language = None;
            let result = block_on(decode_window(model, tokenizer, &window, &options)).unwrap();
            assert_eq!(result.language.as_deref(), Some(special.languages[best].0.as_str()));

            let no_speech = special.no_speech.unwrap() as usize;
            let expected = (logits[no_speech] - log_sum_exp(&logits)).exp();
            let about = format!("{name}[{item}] no_speech_prob");
            compare_number(&about, result.no_speech_prob, expected, ATOL_OF_PROBABILITIES);
        }
    }
}

/// A prompt stands before the start token; the probabilities of silence and language do not move behind it.
#[test]
fn a_prompt_is_read_before_the_start() {
    let tiny = Tiny::open("tiny-multilingual");
    let special = tiny.loaded.tokenizer.special();
    let window = tiny.window(0);
    let (model, tokenizer) = (&tiny.loaded.model, &tiny.loaded.tokenizer);
    let prompt: Vec<u32> = (0..40).map(|i| i % 30).collect();
    let mut options = tiny.loaded.exact("en", SpeechTask::Transcribe, true);
    options.prompt.clone_from(&prompt);
    let result = block_on(decode_window(model, tokenizer, &window, &options)).unwrap();

    // OpenAI: <|startofprev|>, the last n_text_ctx / 2 - 1 tokens of the prompt, then as ever.
    let mut text = vec![special.sot_prev.unwrap()];
    text.extend(&prompt[prompt.len() - (N_TEXT_CTX / 2 - 1)..]);
    let sot_at = text.len();
    text.extend(special.sot_sequence(tokenizer.language_token("en").unwrap(), SpeechTask::Transcribe, true));
    let n_start = text.len();
    let at_sot = tiny.logits_after(&window, &text[..=sot_at]);
    let expected = (at_sot[special.no_speech.unwrap() as usize] - log_sum_exp(&at_sot)).exp();
    compare_number("no_speech_prob behind a prompt", result.no_speech_prob, expected, ATOL_OF_PROBABILITIES);
    let filters = tiny.filters(true);
    while text.len() < N_TEXT_CTX {
        let mut logits = tiny.logits_after(&window, &text);
        filters.apply(&mut logits, &text[n_start..]);
        let token = largest(&logits) as u32;
        if token == tiny.eot() {
            break;
        }
        text.push(token);
    }
    assert_eq!(result.tokens, text[n_start..]);
}

/// OpenAI's `BeamSearchDecoder` and `MaximumLikelihoodRanker`, patience 1: every text read again at each step.
fn search_without_a_cache(
    tiny: &Tiny,
    window: &EncodedWindow,
    prompt: &[u32],
    filters: &LogitFilters,
    beam_size: usize,
) -> Vec<u32> {
    let mut beams = vec![(Vec::<u32>::new(), 0.0_f32)];
    let mut finished: Vec<(Vec<u32>, f32)> = Vec::new();
    for _ in 0..N_TEXT_CTX / 2 {
        let mut candidates: Vec<(Vec<u32>, f32)> = Vec::new();
        for (tokens, sum) in &beams {
            let text: Vec<u32> = prompt.iter().chain(tokens).copied().collect();
            let mut logits = tiny.logits_after(window, &text);
            filters.apply(&mut logits, tokens);
            let total = log_sum_exp(&logits);
            let mut order: Vec<usize> = (0..logits.len()).filter(|t| logits[*t].is_finite()).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
            for token in order.into_iter().take(beam_size + 1) {
                let mut longer = tokens.clone();
                longer.push(token as u32);
                candidates.push((longer, sum + logits[token] - total));
            }
        }
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut next = Vec::new();
        for (mut tokens, sum) in candidates {
            if tokens.last() == Some(&tiny.eot()) {
                tokens.pop();
                if finished.len() < beam_size {
                    finished.push((tokens, sum));
                }
            } else {
                next.push((tokens, sum));
                if next.len() == beam_size {
                    break;
                }
            }
        }
        beams = next;
        if finished.len() >= beam_size {
            break;
        }
    }
    let missing = beam_size.saturating_sub(finished.len());
    finished.extend(beams.into_iter().take(missing));
    let score = |text: &(Vec<u32>, f32)| text.1 / text.0.len().max(1) as f32;
    finished.into_iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap().0
}

#[test]
fn beams_are_openais() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        for case in &tiny.cases {
            let window = tiny.window(case.item);
            let filters = tiny.filters(case.timestamps);
            for beam_size in [2, 4] {
                let options = DecodeOptions { beam_size, ..tiny.options(case) };
                let result =
                    block_on(decode_window(&tiny.loaded.model, &tiny.loaded.tokenizer, &window, &options)).unwrap();
                let expected = search_without_a_cache(&tiny, &window, &case.prompt, &filters, beam_size);
                assert_eq!(result.tokens, expected, "{name}, item {}, {beam_size} beams", case.item);
                assert!(result.avg_logprob.is_finite() && result.avg_logprob <= 0.0);
                if case.n_beams == Some(beam_size) {
                    eprintln!("{name}, item {}: transformers {:?}", case.item, case.tokens);
                    eprintln!("{name}, item {}: OpenAI's way {:?}", case.item, result.tokens);
                }
            }
        }
    }
}

#[test]
fn one_beam_is_greedy() {
    for name in NAMES {
        let tiny = Tiny::open(name);
        let model = &tiny.loaded.model;
        for case in &tiny.cases {
            let (window, filters) = (tiny.window(case.item), tiny.filters(case.timestamps));
            let start = || {
                let mut cache = model.start(&window, 1);
                let last = case.prompt.len() - 1;
                let first = block_on(model.logits(std::slice::from_ref(&case.prompt), &mut cache, &[last])).unwrap();
                (cache, first)
            };
            let (mut cache, first) = start();
            let searched = block_on(beam::search(model, &mut cache, first, &filters, tiny.eot(), 16, 1)).unwrap();
            let (mut cache, first) = start();
            let mut rng = fastrand::Rng::with_seed(1);
            let sampled =
                block_on(greedy::sample(model, &mut cache, first, &filters, tiny.eot(), 16, 0.0, &mut rng)).unwrap();
            assert_eq!(searched.tokens, sampled.tokens, "{name}, item {}", case.item);
        }
    }
}

/// Above temperature 0 a seed decides, and a forbidden token is never drawn.
#[test]
fn draws_are_repeatable_and_keep_to_the_rules() {
    let tiny = Tiny::open("tiny-multilingual");
    let (model, tokenizer) = (&tiny.loaded.model, &tiny.loaded.tokenizer);
    let window = tiny.window(1);
    let mut options = tiny.loaded.exact("sw", SpeechTask::Transcribe, true);
    options.temperatures = vec![1.0];
    let filters = tiny.filters(true);
    let language = tokenizer.language_token("sw").unwrap();
    let prompt = tokenizer.special().sot_sequence(language, SpeechTask::Transcribe, true);
    let mut texts = std::collections::BTreeSet::new();
    for seed in 0..24 {
        options.seed = seed;
        let result = block_on(decode_window(model, tokenizer, &window, &options)).unwrap();
        assert_eq!(result, block_on(decode_window(model, tokenizer, &window, &options)).unwrap());
        assert!(result.avg_logprob.is_finite(), "a token of probability 0 was drawn");
        for n in 0..result.tokens.len() {
            let mut logits = tiny.logits_after(&window, &[&prompt[..], &result.tokens[..n]].concat());
            filters.apply(&mut logits, &result.tokens[..n]);
            assert!(logits[result.tokens[n] as usize].is_finite(), "{:?} at {n}", result.tokens);
        }
        texts.insert(result.tokens);
    }
    assert!(texts.len() > 1, "24 seeds, one text");
}
