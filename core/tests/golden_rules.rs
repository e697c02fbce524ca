//! The rules around a model, without one: the timestamp filter, segments from timestamps, words from attention.
//!
//! - The filter leaves exactly the tokens that transformers' `WhisperTimeStampLogitsProcessor` leaves.
//! - Segments and the way to the next window are those of transformers' long form on a clip of 43 s.
//! - Our median filter and time warping are private. Here both are written a second time, plainly and in f64; this
//!   second writing is held against transformers' vectors, and then [`align_words`] against it, through a model that
//!   only has attention. The weights were chosen so that OpenAI's way (softmax over the sound alone, without the
//!   closing token's row) and transformers' (softmax over the whole window) give the same frames: they must be met
//!   exactly. `golden_base.rs` holds both against real attention.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Array, Tensors, block_on, bytes_of, compare, golden, json};
use okyeame_core::Result;
use okyeame_core::decoding::SpeechModel;
use okyeame_core::decoding::filters::{LogitFilters, TimestampRules};
use okyeame_core::decoding::timestamps::split_segments;
use okyeame_core::decoding::word_timing::align_words;
use okyeame_core::tokenizer::{SpeechTask, TIMESTAMP_STEP_S, Tokenizer};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Rules {
    timestamps: Timestamps,
    dtw: std::collections::BTreeMap<String, Path>,
}

#[derive(Deserialize)]
struct Timestamps {
    eot: u32,
    no_timestamps: u32,
    max_initial_timestamp_index: usize,
    n_prompt: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    about: String,
    tokens: Vec<u32>,
    allowed: Vec<usize>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Path {
    text_indices: Vec<usize>,
    time_indices: Vec<usize>,
}

fn rules() -> (Rules, Tensors) {
    (json("rules/rules.json"), Tensors::read(&golden("rules/rules.safetensors")))
}

fn filters(rules: &Timestamps, max_initial_index: Option<usize>) -> LogitFilters {
    let timestamps = TimestampRules {
        timestamp_begin: rules.no_timestamps + 1,
        no_timestamps: rules.no_timestamps,
        eot: rules.eot,
        max_initial_index,
    };
    LogitFilters { suppress: Vec::new(), begin_suppress: Vec::new(), timestamps: Some(timestamps) }
}

fn finite(logits: &[f32]) -> Vec<usize> {
    (0..logits.len()).filter(|i| logits[*i].is_finite()).collect()
}

#[test]
fn the_timestamp_filter_leaves_what_the_reference_leaves() {
    let (rules, tensors) = rules();
    let rules = &rules.timestamps;
    let all = tensors.get("timestamps.logits");
    assert_eq!(rules.cases.len(), all.shape[0]);
    for (row, case) in rules.cases.iter().enumerate() {
        let before = all.item(row).data;
        let mut logits = before.clone();
        filters(rules, Some(rules.max_initial_timestamp_index)).apply(&mut logits, &case.tokens[rules.n_prompt..]);
        let allowed = finite(&logits);
        assert_eq!(allowed, case.allowed, "{}", case.about);
        assert!(allowed.iter().all(|i| logits[*i].to_bits() == before[*i].to_bits()), "{}: changed", case.about);
    }
}

/// `max_initial_timestamp_index` comes from a checkpoint's JSON: any number may stand there.
#[test]
fn a_first_timestamp_beyond_the_vocabulary_is_no_bound() {
    let (rules, _) = rules();
    let rules = &rules.timestamps;
    for index in [None, Some(50), Some(1000), Some(usize::MAX - 70), Some(usize::MAX)] {
        let mut logits = vec![0.0; 120];
        filters(rules, index).apply(&mut logits, &[]);
        assert_eq!(finite(&logits), (69..120).collect::<Vec<usize>>(), "{index:?}");
    }
    let mut logits = vec![0.0; 120];
    filters(rules, Some(0)).apply(&mut logits, &[]);
    assert_eq!(finite(&logits), [69]);
}

proptest! {
    /// Whatever was said before: no panic, no value changed, and time never goes back.
    #[test]
    fn no_history_breaks_the_rules(
        sampled in prop::collection::vec(prop_oneof![0_u32..58, 69_u32..130, 0_u32..130], 0..12),
        logits in prop::collection::vec(-20.0_f32..20.0, 120),
        n_vocab in 60_usize..=120,
    ) {
        let (rules, _) = rules();
        let before = &logits[..n_vocab];
        let mut logits = before.to_vec();
        filters(&rules.timestamps, Some(25)).apply(&mut logits, &sampled);
        let last = sampled.iter().rev().find(|t| **t >= 69).map_or(69, |t| *t as usize);
        for (i, (after, before)) in logits.iter().zip(before).enumerate() {
            prop_assert!(*after == f32::NEG_INFINITY || after.to_bits() == before.to_bits());
            if i == 68 || (69..last).contains(&i) {
                prop_assert!(*after == f32::NEG_INFINITY, "token {i} after {sampled:?}");
            }
        }
    }
}

#[derive(Deserialize)]
struct Base {
    clips: std::collections::BTreeMap<String, ClipFacts>,
    long_form: Vec<LongForm>,
}

#[derive(Deserialize)]
struct ClipFacts {
    samples: usize,
}

#[derive(Deserialize)]
struct LongForm {
    clip: String,
    seek_frames: Vec<usize>,
    window_sequences: Vec<Vec<u32>>,
    segments: Vec<SegmentFacts>,
}

#[derive(Deserialize)]
struct SegmentFacts {
    start_s: f64,
    end_s: f64,
    tokens: Vec<u32>,
}

#[test]
fn segments_and_the_next_window_are_the_references() {
    // whisper-base's tokens.
    const SOT: u32 = 50_258;
    const EOT: u32 = 50_257;
    const TIMESTAMP_BEGIN: u32 = 50_364;
    let base: Base = json("base/tokens.json");
    for record in &base.long_form {
        let total_frames = base.clips[&record.clip].samples / 160;
        let mut expected = record.segments.iter();
        for (window, sequence) in record.window_sequences.iter().enumerate() {
            let start = sequence.iter().rposition(|t| *t == SOT).unwrap() + 3; // sot, language, task
            let tokens = sequence[start..].strip_suffix(&[EOT]).unwrap();
            let seek = record.seek_frames[window];
            let frames = (total_frames - seek).min(3000);
            let (segments, advance_s) = split_segments(tokens, TIMESTAMP_BEGIN, frames as f64 / 100.0);
            for segment in segments {
                let facts = expected.next().unwrap();
                let offset_s = seek as f64 / 100.0;
                assert!((offset_s + segment.start_s - facts.start_s).abs() < 1e-4, "start {}", facts.start_s);
                assert!((offset_s + segment.end_s - facts.end_s).abs() < 1e-4, "end {}", facts.end_s);
                let words = |tokens: &[u32]| tokens.iter().copied().filter(|t| *t < EOT).collect::<Vec<u32>>();
                assert_eq!(words(&segment.tokens), words(&facts.tokens));
            }
            let next = record.seek_frames.get(window + 1).copied().unwrap_or(total_frames);
            assert_eq!(seek + (advance_s * 100.0).round() as usize, next, "the window after {seek}");
        }
        assert!(expected.next().is_none(), "a segment is missing");
    }
}

/// The median of 7, the ends mirrored; rows no longer than 3 are left alone.
fn median(row: &[f64]) -> Vec<f64> {
    let n = row.len() as isize;
    if n <= 3 {
        return row.to_vec();
    }
    let mirrored = |i: isize| {
        if i < 0 {
            -i
        } else if i >= n {
            2 * (n - 1) - i
        } else {
            i
        }
    };
    (0..n)
        .map(|t| {
            let mut around: Vec<f64> = (t - 3..=t + 3).map(|i| row[mirrored(i) as usize]).collect();
            around.sort_by(f64::total_cmp);
            around[3]
        })
        .collect()
}

/// The cheapest path through `cost`, rows of one token each: as `_dynamic_time_warping` turns where costs are equal.
fn warp(cost: &[Vec<f64>]) -> Path {
    let (n, m) = (cost.len(), cost[0].len());
    let mut total = vec![vec![f64::INFINITY; m + 1]; n + 1];
    let mut turns = vec![vec![2; m + 1]; n + 1];
    total[0][0] = 0.0;
    for j in 1..=m {
        for i in 1..=n {
            let (both, down, right) = (total[i - 1][j - 1], total[i - 1][j], total[i][j - 1]);
            let (best, turn) = if both < down && both < right {
                (both, 0)
            } else if down < both && down < right {
                (down, 1)
            } else {
                (right, 2)
            };
            total[i][j] = cost[i - 1][j - 1] + best;
            turns[i][j] = turn;
        }
    }
    let mut path = Path { text_indices: Vec::new(), time_indices: Vec::new() };
    let (mut i, mut j) = (n, m);
    while i > 0 && j > 0 {
        path.text_indices.insert(0, i - 1);
        path.time_indices.insert(0, j - 1);
        let turn = turns[i][j];
        i -= usize::from(turn != 2);
        j -= usize::from(turn != 1);
    }
    path
}

fn matrix(array: &Array) -> Vec<Vec<f64>> {
    let n = *array.shape.last().unwrap();
    array.data.chunks(n).map(|row| row.iter().map(|v| f64::from(*v)).collect()).collect()
}

#[test]
fn the_second_writing_is_the_references() {
    let (rules, tensors) = rules();
    for (input, output) in [("median.input", "median.output"), ("median.short", "median.short_output")] {
        let filtered: Vec<f32> =
            matrix(tensors.get(input)).iter().flat_map(|row| median(row)).map(|v| v as f32).collect();
        let got = Array::new(&tensors.get(input).shape, filtered);
        compare(output, &got, tensors.get(output), 0.0);
    }
    assert_eq!(rules.dtw.len(), 2);
    for (name, path) in &rules.dtw {
        assert_eq!(&warp(&matrix(tensors.get(&format!("dtw.{name}")))), path, "{name}");
    }
}

/// A model that has nothing but attention.
struct Attention {
    tokens: Vec<u32>,
    heads: Vec<Vec<f32>>,
}

impl SpeechModel for Attention {
    type Window = ();
    type Cache = ();

    fn n_text_ctx(&self) -> usize {
        448
    }

    async fn encode(&self, _mel: &[f32]) -> Result<()> {
        Ok(())
    }

    fn start(&self, _window: &(), _batch: usize) {}

    async fn logits(&self, _tokens: &[Vec<u32>], _cache: &mut (), _at: &[usize]) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }

    fn reorder(&self, _cache: &mut (), _source: &[usize]) {}

    async fn alignment(&self, _window: &(), tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        assert_eq!(tokens, self.tokens, "the start sequence, the text and the closing token");
        Ok(self.heads.clone())
    }
}

/// Attention that climbs from token to token through the noise of `seed`, most of it within the `n_ctx` frames of
/// sound; each row sums to 1 over `n_full`.
fn noisy_staircase(seed: u64, n_rows: usize, n_ctx: usize, n_full: usize) -> Vec<f32> {
    const ENDS: [usize; 11] = [0, 5, 9, 17, 20, 26, 31, 40, 44, 52, 60];
    const FIRST: usize = 3;
    let mut state = seed;
    let mut weights = Vec::new();
    for i in 0..n_rows {
        let mut row = Vec::new();
        for t in 0..n_full {
            let peak = match i {
                _ if i < FIRST => t < 3,
                _ if i == n_rows - 1 => (n_ctx - 5..n_ctx).contains(&t),
                _ => (ENDS[i - FIRST]..ENDS[i - FIRST + 1]).contains(&t),
            };
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = (state >> 40) as f32 / (1_u64 << 24) as f32;
            let height = if peak { 1.0 } else { 0.3 };
            let sound = if t < n_ctx { 1.0 } else { 0.02 };
            row.push(height * (noise * noise + 0.01) * sound);
        }
        let sum: f32 = row.iter().sum();
        weights.extend(row.iter().map(|w| w / sum));
    }
    weights
}

/// OpenAI's `find_alignment`: the frame where each token begins, and where the last one ends.
fn token_frames(heads: &[Vec<f32>], n_rows: usize, first: usize, n_ctx: usize) -> Vec<usize> {
    let n_full = heads[0].len() / n_rows;
    let mut mean = vec![vec![0.0; n_ctx]; n_rows];
    for head in heads {
        let mut rows: Vec<Vec<f64>> =
            head.chunks(n_full).map(|row| row[..n_ctx].iter().map(|w| f64::from(*w)).collect()).collect();
        for row in &mut rows {
            let sum: f64 = row.iter().sum();
            row.iter_mut().for_each(|w| *w /= sum);
        }
        for t in 0..n_ctx {
            let of_tokens = rows.iter().map(|row| row[t]).sum::<f64>() / n_rows as f64;
            let variance = rows.iter().map(|row| (row[t] - of_tokens).powi(2)).sum::<f64>() / n_rows as f64;
            rows.iter_mut().for_each(|row| row[t] = (row[t] - of_tokens) / variance.sqrt());
        }
        for (row, mean) in rows.iter().zip(&mut mean) {
            median(row).iter().zip(mean).for_each(|(w, mean)| *mean -= w / heads.len() as f64);
        }
    }
    let path = warp(&mean[first..n_rows - 1]);
    (0..n_rows - 1 - first)
        .map(|token| path.time_indices[path.text_indices.iter().position(|i| *i == token).unwrap()])
        .collect()
}

#[test]
fn words_begin_where_attention_does() {
    const OFFSET_S: f64 = 1.5;
    let (n_ctx, n_full) = (60, 70);
    let tokenizer = Tokenizer::from_json(&bytes_of(&golden("tiny-multilingual/tokenizer.json"))).unwrap();
    let special = tokenizer.special();
    // " the", " k" + "ɔ", " no" + "in", " t" + "ɛ" in two bytes, "."
    let text = [48, 52, 50, 57, 49, 45, 42, 43, 36];
    let spans = [(" the", 0, 1), (" kɔ", 1, 3), (" noin", 3, 5), (" tɛ", 5, 8), (".", 8, 9)];
    let mut tokens = special.sot_sequence(special.language("en"), SpeechTask::Transcribe, false);
    let n_start = tokens.len();
    tokens.extend(text);
    let closed: Vec<u32> = tokens.iter().copied().chain([special.eot]).collect();
    for seed in 1..=12 {
        let heads: Vec<Vec<f32>> =
            (0..3).map(|head| noisy_staircase(100 * seed + head, closed.len(), n_ctx, n_full)).collect();
        let frames = token_frames(&heads, closed.len(), n_start - 1, n_ctx);
        let model = Attention { tokens: closed.clone(), heads };
        let words = block_on(align_words(&model, &tokenizer, &(), &tokens, n_start, n_ctx, OFFSET_S)).unwrap();
        assert_eq!(words.len(), spans.len());
        for (word, (text, from, to)) in words.iter().zip(spans) {
            assert_eq!(word.text, text);
            let expected = [from, to].map(|token| OFFSET_S + frames[token] as f64 * TIMESTAMP_STEP_S);
            let got = [word.start_s, word.end_s];
            let near = got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-6);
            assert!(near, "seed {seed}, {text:?}: {got:?} against {expected:?} of {frames:?}");
        }
    }
    // A model without such heads, or a window without sound, has no word times.
    for (heads, n_ctx) in [(Vec::new(), n_ctx), (vec![noisy_staircase(1, closed.len(), n_ctx, n_full)], 0)] {
        let model = Attention { tokens: closed.clone(), heads };
        let words = block_on(align_words(&model, &tokenizer, &(), &tokens, n_start, n_ctx, OFFSET_S)).unwrap();
        assert!(words.is_empty());
    }
}
