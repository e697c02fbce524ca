//! Evaluates heads on the clips that were set aside: fills an [`Evaluation`].
//!
//! Every clip goes the way of the product: find the speech, fitted window, encoder, head, calibration. Heads that stand
//! on one base share the encoder's work; one with adapters on it has its own. With words, also the transcript, the text
//! match, the fusion and the slots.
//!
//! The first head is the one that figures speak of; the others are the same training with other seeds, and widen its
//! intervals. Intervals are drawn over speakers.

mod words;

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use burn::tensor::Tensor;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::augment::mix_at_snr;
use super::calibrate::Truth;
use super::evaluation::{
    CellCount, ConfusionTable, DataFacts, Evaluation, IntentResult, NamedConfusion, NoiseResult, OutOfScopeResult,
    SeedResult, SpeakerResult, SplitResult, TimingsResult,
};
use super::features::Sound;
use super::manifest::{Example, Manifest};
use super::metrics::{
    Binning, Interval, Judged, RESAMPLES, accepted_share, accuracy, calibration, confusion, expected_calibration_error,
    false_accept_share, macro_f1, mean_over_seeds, per_label, percentiles, risk_coverage, top_confusions,
    wrong_accept_share,
};
use super::noise::{self, NoiseKind};
use super::run::truth_of;
use super::splits::{Cell, Splits};
use super::targets::targets;
use super::words::WordsCache;
use crate::audio::{SAMPLE_RATE_HZ, Waveform};
use crate::error::{Error, Result};
use crate::recognition::{IntentSource, Rejection};
use crate::recognizer::{CommandEncoder, RecognizeOptions, Recognizer, Verdict};

/// Bins of the calibration error, as most papers have it.
const BINS: usize = 15;
/// Clips that are computed between two reports of progress.
const CHUNK: usize = 64;

/// What is looked at besides the clips that were set aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluateOptions {
    /// Synthetic sounds of each kind that are no speech.
    pub sounds_per_kind: usize,
    /// Commands that are heard again under noise.
    pub noisy_clips: usize,
    /// Signal above noise.
    pub snr_db: Vec<f32>,
    /// Clips that are written down as well.
    pub word_clips: usize,
    /// Clips that are timed, one after the other.
    pub timed_clips: usize,
    /// Of the noise and the resamples.
    pub seed: u64,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self {
            sounds_per_kind: 60,
            noisy_clips: 400,
            snr_db: vec![20.0, 10.0, 5.0, 0.0],
            word_clips: 300,
            timed_clips: 100,
            seed: 1234,
        }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluateEvent {
    /// Clips heard.
    Clips {
        /// So many.
        done: usize,
        /// Of so many.
        of: usize,
    },
    /// Clips written down.
    Words {
        /// So many.
        done: usize,
        /// Of so many.
        of: usize,
    },
}

/// Kinds of noise that commands are heard under.
const NOISES: [NoiseKind; 4] = [NoiseKind::Pink, NoiseKind::Street, NoiseKind::Fan, NoiseKind::Music];

/// One thing to hear.
struct Item<'a> {
    sound: Sound,
    truth: Truth,
    group: u32,
    /// Noise over it.
    noise: Option<(NoiseKind, f32, u64)>,
    example: Option<&'a Example>,
    cell: Cell,
}

/// Heads on one base, and what they are tested on.
#[derive(Debug)]
pub struct Evaluator<'a> {
    /// The base's encoder.
    pub encoder: &'a CommandEncoder,
    /// One for each head; the first is the one that is spoken of.
    pub recognizers: &'a [Recognizer],
    /// The clips.
    pub manifest: &'a Manifest,
    /// What they are for.
    pub splits: &'a Splits,
    /// The rest.
    pub options: &'a EvaluateOptions,
}

impl Evaluator<'_> {
    /// Hears everything and sums it up. `model`, `command`, `machine`, `date`, `okyeame`, `training` and `notes` are
    /// the caller's to fill in.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] for a model without a head; what is wrong with a clip.
    pub fn run(&self, words: &mut WordsCache, on_event: &mut dyn FnMut(EvaluateEvent)) -> Result<Evaluation> {
        let mut labels: Option<&[String]> = None;
        for recognizer in self.recognizers {
            let head = recognizer.audio_head().ok_or_else(|| Error::UnsupportedModel {
                architecture: recognizer.info().architecture.clone(),
                reason: "it has no intent head to evaluate".to_owned(),
            })?;
            if labels.is_some_and(|labels| labels != head.labels()) {
                return Err(Error::InvalidParameter {
                    name: "models",
                    allowed: "give heads with the same labels in the same order".to_owned(),
                });
            }
            labels = Some(head.labels());
        }
        let Some(labels) = labels else {
            return Err(Error::InvalidParameter { name: "models", allowed: "give one head at least".to_owned() });
        };
        let labels = labels.to_vec();
        let items = self.items();
        let judged = self.judge(&items, on_event)?;
        let mut evaluation = self.summed_up(&labels, &items, &judged);
        evaluation.timings = self.timed(&items)?;
        evaluation.words = self.words(&items, words, on_event)?;
        evaluation.targets = targets(&evaluation);
        Ok(evaluation)
    }

    fn items(&self) -> Vec<Item<'_>> {
        let mut speakers: BTreeMap<&str, u32> = BTreeMap::new();
        for example in &self.manifest.examples {
            let next = speakers.len() as u32;
            speakers.entry(&example.speaker).or_insert(next);
        }
        let plain: Vec<Item<'_>> = self
            .manifest
            .examples
            .iter()
            .zip(&self.splits.cells)
            .filter(|(_, cell)| is_test(**cell))
            .map(|(example, cell)| Item {
                sound: Sound::File { path: example.path.clone(), content: example.content },
                truth: truth_of(example),
                group: speakers[example.speaker.as_str()],
                noise: None,
                example: Some(example),
                cell: *cell,
            })
            .collect();
        let mut rng = fastrand::Rng::with_seed(self.options.seed);
        let mut more = Vec::new();
        let mut commands: Vec<&Item<'_>> = plain
            .iter()
            .filter(|item| item.cell == Cell::TestVoice && matches!(item.truth, Truth::Command(_)))
            .collect();
        rng.shuffle(&mut commands);
        commands.truncate(self.options.noisy_clips);
        for snr_db in &self.options.snr_db {
            for (at, item) in commands.iter().enumerate() {
                more.push(Item {
                    sound: item.sound.clone(),
                    truth: item.truth,
                    group: item.group,
                    noise: Some((NOISES[at % NOISES.len()], *snr_db, rng.u64(..))),
                    example: item.example,
                    cell: item.cell,
                });
            }
        }
        // As they are, to be compared with.
        more.extend(commands.iter().map(|item| Item {
            sound: item.sound.clone(),
            truth: item.truth,
            group: item.group,
            noise: Some((NoiseKind::Silence, f32::INFINITY, 0)),
            example: item.example,
            cell: item.cell,
        }));
        for kind in NoiseKind::ALL {
            for at in 0..self.options.sounds_per_kind {
                let seconds = 0.5 + 7.5 * rng.f64();
                more.push(Item {
                    sound: Sound::Noise {
                        kind,
                        n_samples: (seconds * f64::from(SAMPLE_RATE_HZ)) as usize,
                        seed: rng.u64(..),
                    },
                    truth: Truth::NoSpeech,
                    group: u32::MAX - at as u32,
                    noise: None,
                    example: None,
                    cell: Cell::TestBoth,
                });
            }
        }
        plain.into_iter().chain(more).collect()
    }

    /// What each head makes of each item.
    fn judge(&self, items: &[Item<'_>], on_event: &mut dyn FnMut(EvaluateEvent)) -> Result<Vec<Vec<Judged>>> {
        let mut judged: Vec<Vec<Judged>> = self.recognizers.iter().map(|_| Vec::with_capacity(items.len())).collect();
        for chunk in items.chunks(CHUNK) {
            let heard: Vec<Vec<Judged>> = chunk.par_iter().map(|item| self.judge_one(item)).collect::<Result<_>>()?;
            for of_heads in heard {
                judged.iter_mut().zip(of_heads).for_each(|(all, one)| all.push(one));
            }
            on_event(EvaluateEvent::Clips { done: judged[0].len(), of: items.len() });
        }
        Ok(judged)
    }

    fn judge_one(&self, item: &Item<'_>) -> Result<Vec<Judged>> {
        let mut samples = item.sound.samples()?;
        if let Some((kind, snr_db, seed)) = item.noise.filter(|(_, snr_db, _)| snr_db.is_finite()) {
            let noise = noise::make(kind, samples.len(), &mut fastrand::Rng::with_seed(seed));
            samples = mix_at_snr(&samples, &noise, snr_db);
        }
        let mut shared = None;
        let mut heard = Vec::with_capacity(self.recognizers.len());
        for recognizer in self.recognizers {
            let states = match recognizer.own_states(&samples) {
                Some(states) => states?,
                None => {
                    if shared.is_none() {
                        shared = Some(self.encoder.forward(&samples)?);
                    }
                    shared.clone().flatten()
                }
            };
            let verdict = by_sound(recognizer, states)?;
            heard.push(judged(item.truth, item.group, &verdict));
        }
        Ok(heard)
    }

    fn summed_up(&self, labels: &[String], items: &[Item<'_>], judged: &[Vec<Judged>]) -> Evaluation {
        let seed = self.options.seed;
        let n_labels = labels.len();
        // The clips of one part, by head.
        let of = |is: &dyn Fn(&Item<'_>) -> bool| -> Vec<Vec<Judged>> {
            judged
                .iter()
                .map(|all| all.iter().zip(items).filter(|(_, item)| is(item)).map(|(one, _)| one.clone()).collect())
                .collect()
        };
        let interval = |parts: &[Vec<Judged>], statistic: &dyn Fn(&[&Judged]) -> Option<f64>| -> Option<Interval> {
            let runs: Vec<&[Judged]> = parts.iter().map(Vec::as_slice).collect();
            mean_over_seeds(&runs, |one| one.group, |sample| statistic(sample), RESAMPLES, seed)
        };
        let is_plain = |item: &Item<'_>| item.noise.is_none() && item.example.is_some();
        let is_command = |item: &Item<'_>| matches!(item.truth, Truth::Command(_));
        let split = |name: &str, title: &str, cells: &[Cell]| -> SplitResult {
            let commands = of(&|item| is_plain(item) && is_command(item) && cells.contains(&item.cell));
            let all = of(&|item| is_plain(item) && cells.contains(&item.cell));
            SplitResult {
                name: name.to_owned(),
                title: title.to_owned(),
                n: commands.first().map_or(0, Vec::len),
                accuracy: interval(&commands, &|sample| accuracy(sample.iter().copied())),
                macro_f1: interval(&commands, &|sample| macro_f1(sample.iter().copied(), n_labels)),
                accepted: interval(&commands, &|sample| accepted_share(sample.iter().copied())),
                wrong_accepts: interval(&commands, &|sample| wrong_accept_share(sample.iter().copied())),
                ece: interval(&all, &|sample| {
                    expected_calibration_error(sample.iter().copied(), BINS, Binning::EqualWidth)
                }),
            }
        };
        let parts = [
            ("test_voice", "Unseen voices", &[Cell::TestVoice][..]),
            ("test_wording", "Unseen wordings", &[Cell::TestWording]),
            ("test_both", "Unseen voices and wordings", &[Cell::TestBoth]),
            ("test_seen", "Seen voices and wordings, other clips", &[Cell::TestSeen]),
            ("test_all", "All test clips", &[Cell::TestSeen, Cell::TestVoice, Cell::TestWording, Cell::TestBoth]),
        ];
        let splits = parts.iter().map(|(name, title, cells)| split(name, title, cells)).filter(|s| s.n > 0).collect();

        let everything = of(&|item| item.noise.is_none());
        let first = &everything[0];
        let no_command: Vec<&Judged> = first.iter().filter(|one| one.truth.is_none()).collect();
        let by_confidence = calibration(of(&is_plain)[0].iter(), BINS, Binning::EqualWidth);
        let risk = risk_coverage(first.iter());
        let rows = confusion(first.iter(), n_labels);
        let name = |class: usize| labels.get(class).cloned().unwrap_or_default();
        let headline = of(&|item| is_plain(item) && is_command(item) && item.cell == Cell::TestVoice);
        Evaluation {
            data: self.facts(),
            seeds: headline
                .iter()
                .zip(&everything)
                .enumerate()
                .map(|(at, (commands, all))| SeedResult {
                    seed: at as u64 + 1,
                    accuracy: accuracy(commands),
                    macro_f1: macro_f1(commands, n_labels),
                    accepted: accepted_share(commands),
                    wrong_accepts: wrong_accept_share(commands),
                    false_accepts: false_accept_share(all),
                })
                .collect(),
            splits,
            out_of_scope: self.out_of_scope(items, &of, &interval),
            noise: self.in_noise(items, &of, &interval),
            top_confusions: top_confusions(&rows, 12)
                .into_iter()
                .map(|pair| NamedConfusion {
                    truth: name(pair.truth),
                    accepted_as: name(pair.accepted_as),
                    count: pair.count,
                })
                .collect(),
            confusion: ConfusionTable { labels: labels.to_vec(), rows },
            reliability: by_confidence.map(|c| c.bins).unwrap_or_default(),
            risk_coverage_area: risk.as_ref().map(|r| r.area),
            risk_coverage: risk.map(|r| r.points).unwrap_or_default(),
            intents: per_label(first.iter(), n_labels)
                .iter()
                .enumerate()
                .map(|(class, stats)| IntentResult {
                    intent: name(class),
                    n: stats.n,
                    recall: stats.recall(),
                    precision: stats.precision(),
                    f1: stats.f1(),
                    accepted: stats.accepted_share(),
                })
                .collect(),
            speakers: self.by_speaker(items, &judged[0]),
            thresholds: self.thresholds(),
            temperature: self.calibration().map_or(1.0, |c| f64::from(c.temperature)),
            notes: (no_command.is_empty())
                .then(|| "no clip that is no command was set aside: false accepts were not measured".to_owned())
                .into_iter()
                .collect(),
            ..Evaluation::default()
        }
    }

    fn calibration(&self) -> Option<&crate::intent::calibration::Calibration> {
        self.recognizers[0].audio_head()?.calibration()
    }

    fn thresholds(&self) -> BTreeMap<String, f64> {
        let mut named = BTreeMap::new();
        let mut add = |prefix: &str, t: &crate::intent::calibration::Thresholds| {
            named.insert(format!("{prefix}in_scope_below"), f64::from(t.in_scope_below));
            named.insert(format!("{prefix}confidence_below"), f64::from(t.confidence_below));
            named.insert(format!("{prefix}ambiguous_above"), f64::from(t.ambiguous_above));
        };
        if let Some(calibration) = self.calibration() {
            add("", &calibration.thresholds);
            if let Some(fusion) = &calibration.fusion {
                add("with_words_", &fusion.thresholds);
            }
        }
        named
    }

    fn facts(&self) -> DataFacts {
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (example, cell) in self.manifest.examples.iter().zip(&self.splits.cells) {
            let cell = serde_json::to_value(cell).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            *counts.entry((cell, example.kind.clone())).or_default() += 1;
        }
        let speakers: std::collections::BTreeSet<&str> = self
            .manifest
            .examples
            .iter()
            .zip(&self.splits.cells)
            .filter(|(_, cell)| matches!(cell, Cell::TestVoice | Cell::TestBoth))
            .map(|(example, _)| example.speaker.as_str())
            .collect();
        DataFacts {
            counts: counts.into_iter().map(|((cell, kind), n)| CellCount { cell, kind, n }).collect(),
            test_speakers: speakers.len(),
            ..DataFacts::default()
        }
    }

    fn out_of_scope(&self, items: &[Item<'_>], of: &Parts<'_>, interval: &Intervals<'_>) -> Vec<OutOfScopeResult> {
        let result = |kind: &str, parts: Vec<Vec<Judged>>| OutOfScopeResult {
            kind: kind.to_owned(),
            n: parts.first().map_or(0, Vec::len),
            false_accepts: interval(&parts, &|sample| false_accept_share(sample.iter().copied())),
        };
        // Sentences that training never heard, by whomever.
        let is_new = |item: &Item<'_>| matches!(item.cell, Cell::TestWording | Cell::TestBoth);
        let is_talk = |item: &Item<'_>| item.truth == Truth::OutOfScope && is_new(item);
        let mut results = vec![result("speech that is no command, all kinds", of(&is_talk))];
        let kinds: std::collections::BTreeSet<&str> = items
            .iter()
            .filter(|item| item.truth != Truth::Command(0))
            .filter_map(|item| item.example.filter(|e| e.label.is_none()).map(|e| e.kind.as_str()))
            .collect();
        for kind in kinds {
            let of_kind = |item: &Item<'_>| is_talk(item) && item.example.is_some_and(|example| example.kind == kind);
            results.push(result(kind, of(&of_kind)));
        }
        let is_sound = |item: &Item<'_>| item.truth == Truth::NoSpeech;
        results.push(result("silence, noise and music, all kinds", of(&is_sound)));
        for kind in NoiseKind::ALL {
            let of_kind = |item: &Item<'_>| matches!(&item.sound, Sound::Noise { kind: k, .. } if *k == kind);
            results.push(result(kind.name(), of(&of_kind)));
        }
        results.retain(|result| result.n > 0);
        results
    }

    fn in_noise(&self, items: &[Item<'_>], of: &Parts<'_>, interval: &Intervals<'_>) -> Vec<NoiseResult> {
        let conditions = std::iter::once(f32::INFINITY).chain(self.options.snr_db.iter().copied());
        let mut results = Vec::new();
        for snr_db in conditions {
            let kinds = if snr_db.is_finite() { NOISES.map(Some).to_vec() } else { Vec::new() };
            for kind in std::iter::once(None).chain(kinds) {
                let is = |item: &Item<'_>| {
                    item.noise.is_some_and(|(k, snr, _)| snr == snr_db && kind.is_none_or(|kind| kind == k))
                };
                if !items.iter().any(is) {
                    continue;
                }
                let parts = of(&is);
                results.push(NoiseResult {
                    snr_db: snr_db.is_finite().then_some(snr_db),
                    kind: kind.map_or("all", NoiseKind::name).to_owned(),
                    n: parts.first().map_or(0, Vec::len),
                    accuracy: interval(&parts, &|sample| accuracy(sample.iter().copied())),
                    accepted: interval(&parts, &|sample| accepted_share(sample.iter().copied())),
                });
            }
        }
        results
    }

    fn by_speaker(&self, items: &[Item<'_>], judged: &[Judged]) -> Vec<SpeakerResult> {
        let mut by: BTreeMap<&str, Vec<&Judged>> = BTreeMap::new();
        for (one, item) in judged.iter().zip(items) {
            if let (Some(example), None, true) =
                (item.example, item.noise, matches!(item.cell, Cell::TestVoice | Cell::TestBoth))
            {
                by.entry(&example.speaker).or_default().push(one);
            }
        }
        by.into_iter()
            .map(|(speaker, clips)| SpeakerResult {
                speaker: speaker.to_owned(),
                n: clips.len(),
                accuracy: accuracy(clips.iter().copied()),
                accepted: accepted_share(clips.iter().copied()),
            })
            .collect()
    }

    /// One clip after the other, as a server answers them.
    fn timed(&self, items: &[Item<'_>]) -> Result<TimingsResult> {
        let options = RecognizeOptions { transcribe: false, ..RecognizeOptions::default() };
        let (mut encoder, mut head, mut total) = (Vec::new(), Vec::new(), Vec::new());
        let files = items.iter().filter(|item| item.noise.is_none() && item.example.is_some());
        for item in files.take(self.options.timed_clips) {
            let waveform = Waveform::new(item.sound.samples()?)?;
            let started = std::time::Instant::now();
            let answer = ready(self.recognizers[0].recognize(&waveform, &options))?;
            total.push(started.elapsed().as_secs_f64() * 1e3);
            encoder.push(answer.timings_ms.encoder);
            head.push(answer.timings_ms.intent);
        }
        Ok(TimingsResult {
            n: total.len(),
            encoder: percentiles(&mut encoder),
            head: percentiles(&mut head),
            total: percentiles(&mut total),
        })
    }
}

type Parts<'a> = dyn Fn(&dyn Fn(&Item<'_>) -> bool) -> Vec<Vec<Judged>> + 'a;
type Intervals<'a> = dyn Fn(&[Vec<Judged>], &dyn Fn(&[&Judged]) -> Option<f64>) -> Option<Interval> + 'a;

/// Whether a part of the data was kept for tests.
#[must_use]
pub fn is_test(cell: Cell) -> bool {
    matches!(cell, Cell::TestSeen | Cell::TestVoice | Cell::TestWording | Cell::TestBoth)
}

/// What the head of a model makes of all states of its encoder; without any, nobody speaks.
fn by_sound(recognizer: &Recognizer, states: Option<Vec<Tensor<3>>>) -> Result<Verdict> {
    let (Some(mut states), Some(head)) = (states, recognizer.audio_head()) else {
        return Ok(Verdict::no_speech(IntentSource::AudioHead));
    };
    if !head.head().needs_all_states() {
        states.drain(..states.len() - 1);
    }
    ready(head.judge(states))
}

fn judged(truth: Truth, group: u32, verdict: &Verdict) -> Judged {
    Judged {
        truth: match truth {
            Truth::Command(label) => Some(label),
            Truth::OutOfScope | Truth::NoSpeech => None,
        },
        none: (1.0 - verdict.predictions.iter().map(|p| p.1).sum::<f32>()).clamp(0.0, 1.0),
        predictions: verdict.predictions.iter().take(5).copied().collect(),
        accepted: verdict.rejection.is_none() && !verdict.predictions.is_empty(),
        rejection: verdict.rejection.or(if verdict.predictions.is_empty() { Some(Rejection::NoSpeech) } else { None }),
        group,
    }
}

/// What a future has to say at once: on the CPU nothing is waited for.
fn ready<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => Err(Error::Device { stage: "evaluation, which runs on the CPU alone" }),
    }
}
