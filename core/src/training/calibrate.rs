//! Fits `calibration.json`: temperature, thresholds, and how sound and words are weighed. From held-out clips only.
//!
//! - **Temperature**: the one with the least negative log-likelihood (Guo et al. 2017), by golden-section search over its
//!   logarithm.
//! - **Thresholds**: of all pairs on a grid, those that keep within the stated shares of false accepts; of these the one
//!   that accepts most commands rightly. If none keeps within them, the one with the fewest false accepts.
//! - **Fusion**: the three weights with the least negative log-likelihood, by Nelder and Mead's simplex search from several
//!   starts; then thresholds as above.

use serde::{Deserialize, Serialize};

use crate::intent::calibration::{Calibration, Fusion, Thresholds, best_first, softmax};

/// What the thresholds are chosen for: shares that must not be passed on held-out clips.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TradeOff {
    /// Of speech that is no command, accepted.
    pub max_false_accepts: f64,
    /// Of sound that is no speech, accepted.
    pub max_noise_accepts: f64,
    /// Of commands, accepted as another.
    pub max_wrong_accepts: f64,
    /// `ambiguous` if the second intent has more than this share of the first's confidence.
    pub ambiguous_above: f32,
}

impl Default for TradeOff {
    fn default() -> Self {
        Self { max_false_accepts: 0.04, max_noise_accepts: 0.004, max_wrong_accepts: 0.03, ambiguous_above: 0.5 }
    }
}

/// What a held-out clip is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Truth {
    /// A command, by its label.
    Command(usize),
    /// Speech that is none.
    OutOfScope,
    /// No speech.
    NoSpeech,
}

impl Truth {
    /// The class among labels and rejection classes.
    #[must_use]
    pub fn class(self, n_labels: usize) -> usize {
        match self {
            Self::Command(label) => label,
            Self::OutOfScope => n_labels,
            Self::NoSpeech => n_labels + 1,
        }
    }
}

/// Probabilities of one held-out clip: of each label; what they lack to 1 is "none of them".
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// What it is.
    pub truth: Truth,
    /// In label order.
    pub labels: Vec<f32>,
}

/// The temperature for `(logits, class)`.
#[must_use]
pub fn fit_temperature(clips: &[(Vec<f32>, usize)]) -> f32 {
    let loss = |log_temperature: f64| {
        let temperature = log_temperature.exp();
        clips.iter().map(|(logits, class)| negative_log_likelihood(logits, *class, temperature)).sum()
    };
    (golden_section(loss, -2.5, 2.5).exp()) as f32
}

/// How unlikely a class is by logits at a temperature.
pub(super) fn negative_log_likelihood(logits: &[f32], class: usize, temperature: f64) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|v| (f64::from(v - max) / temperature).exp()).sum();
    sum.ln() - f64::from(logits[class] - max) / temperature
}

/// The lowest point of a function with one valley between `low` and `high`.
fn golden_section(f: impl Fn(f64) -> f64, mut low: f64, mut high: f64) -> f64 {
    const SHARE: f64 = 0.618_033_988_749_895;
    while high - low > 1e-4 {
        let (a, b) = (high - SHARE * (high - low), low + SHARE * (high - low));
        if f(a) < f(b) { high = b } else { low = a }
    }
    (low + high) / 2.0
}

/// What thresholds do on held-out clips.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Commands accepted as themselves, of all commands.
    pub right: f64,
    /// Commands accepted as another.
    pub wrong: f64,
    /// Speech that is no command, accepted.
    pub false_accepts: f64,
    /// Sound that is no speech, accepted.
    pub noise_accepts: f64,
}

/// Chooses thresholds, and says what they do.
#[must_use]
pub fn fit_thresholds(clips: &[Scored], trade_off: &TradeOff) -> (Thresholds, Outcome) {
    // What a pair of thresholds looks at, once a clip.
    let seen: Vec<(f32, f32, Option<bool>, Truth)> = clips
        .iter()
        .map(|clip| {
            let (class, confidence) = best_first(&clip.labels).first().copied().unwrap_or_default();
            let right = match clip.truth {
                Truth::Command(label) => Some(label == class),
                _ => None,
            };
            (clip.labels.iter().sum(), confidence, right, clip.truth)
        })
        .collect();
    let total = |is: &dyn Fn(Truth) -> bool| -> f64 { seen.iter().filter(|clip| is(clip.3)).count().max(1) as f64 };
    let n_commands = total(&|truth| matches!(truth, Truth::Command(_)));
    let (n_talk, n_noise) = (total(&|t| t == Truth::OutOfScope), total(&|t| t == Truth::NoSpeech));
    let outcome = |thresholds: &Thresholds| {
        let mut outcome = Outcome::default();
        for (in_scope, confidence, right, truth) in &seen {
            if *in_scope < thresholds.in_scope_below || *confidence < thresholds.confidence_below {
                continue;
            }
            match (right, truth) {
                (Some(true), _) => outcome.right += 1.0 / n_commands,
                (Some(false), _) => outcome.wrong += 1.0 / n_commands,
                (None, Truth::NoSpeech) => outcome.noise_accepts += 1.0 / n_noise,
                (None, _) => outcome.false_accepts += 1.0 / n_talk,
            }
        }
        outcome
    };
    let grid = || (2..=98).step_by(2).map(|percent| percent as f32 / 100.0);
    let excess = |outcome: &Outcome| {
        (outcome.false_accepts - trade_off.max_false_accepts).max(0.0)
            + (outcome.noise_accepts - trade_off.max_noise_accepts).max(0.0)
            + (outcome.wrong - trade_off.max_wrong_accepts).max(0.0)
    };
    let mut best: Option<(Thresholds, Outcome)> = None;
    for in_scope_below in grid() {
        for confidence_below in grid() {
            let thresholds =
                Thresholds { in_scope_below, confidence_below, ambiguous_above: trade_off.ambiguous_above };
            let outcome = outcome(&thresholds);
            let better = best.as_ref().is_none_or(|(_, least)| {
                let (a, b) = (excess(&outcome), excess(least));
                a < b - 1e-12 || (a <= b + 1e-12 && outcome.right - outcome.wrong > least.right - least.wrong + 1e-12)
            });
            if better {
                best = Some((thresholds, outcome));
            }
        }
    }
    best.expect("the grid is not empty")
}

/// One clip that was heard and written down.
#[derive(Debug, Clone, PartialEq)]
pub struct HeardAndWritten {
    /// What it is.
    pub truth: Truth,
    /// The sound's probabilities, in label order.
    pub audio: Vec<f32>,
    /// The words', in label order.
    pub text: Vec<f32>,
}

/// Fits the weights of sound and words; the thresholds are chosen after.
#[must_use]
pub fn fit_fusion(clips: &[HeardAndWritten], trade_off: &TradeOff) -> (Fusion, Outcome) {
    let blank = Thresholds { in_scope_below: 0.0, confidence_below: 0.0, ambiguous_above: trade_off.ambiguous_above };
    // Weights by their roots: what is squared is not negative.
    let fusion = |p: &[f64; 3]| Fusion {
        audio: (p[0] * p[0]) as f32,
        text: (p[1] * p[1]) as f32,
        none: p[2] as f32,
        thresholds: blank,
    };
    let loss = |p: &[f64; 3]| -> f64 {
        let fusion = fusion(p);
        let likelihood = clips.iter().map(|clip| {
            let (labels, none) = fusion.fuse(&clip.audio, &clip.text);
            let p = match clip.truth {
                Truth::Command(label) => labels[label],
                _ => none,
            };
            f64::from(p.max(1e-9)).ln()
        });
        -likelihood.sum::<f64>()
    };
    let best = [[1.0, 0.5, 0.0], [1.0, 0.05, 0.0], [0.7, 0.7, 0.0]]
        .map(|start| simplex_search(&loss, start))
        .into_iter()
        .min_by(|a, b| loss(a).total_cmp(&loss(b)))
        .expect("there are starts");
    let mut fusion = fusion(&best);
    let scored: Vec<Scored> =
        clips.iter().map(|clip| Scored { truth: clip.truth, labels: fusion.fuse(&clip.audio, &clip.text).0 }).collect();
    let (thresholds, outcome) = fit_thresholds(&scored, trade_off);
    fusion.thresholds = thresholds;
    (fusion, outcome)
}

/// What the reader's logits are multiplied by before they are added to the sound's: the weight with which the sum, at its
/// best temperature, is likeliest on held-out clips.
#[must_use]
pub fn fit_reader_weight(sound: &[Vec<f32>], read: &[Vec<f32>], classes: &[usize]) -> f32 {
    let loss = |p: &[f64; 2]| -> f64 {
        let [scale, weight] = p.map(|root| (root * root) as f32);
        let clips = sound.iter().zip(read).zip(classes);
        clips
            .map(|((sound, read), class)| {
                let logits: Vec<f32> = sound.iter().zip(read).map(|(s, r)| scale * s + weight * r).collect();
                negative_log_likelihood(&logits, *class, 1.0)
            })
            .sum()
    };
    let [scale, weight] = simplex_search(&loss, [0.8, 0.8]).map(|root| root * root);
    // A sound that says nothing at all is still the one that decides where there are no letters.
    (weight / scale.max(0.05)) as f32
}

/// Nelder and Mead, "A simplex method for function minimization", 1965, with their coefficients 1, 2, ½, ½.
fn simplex_search<const N: usize>(f: &dyn Fn(&[f64; N]) -> f64, start: [f64; N]) -> [f64; N] {
    let mut corners: Vec<([f64; N], f64)> = vec![(start, f(&start))];
    for axis in 0..N {
        let mut corner = start;
        corner[axis] += 0.3;
        corners.push((corner, f(&corner)));
    }
    for _ in 0..150 {
        corners.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (worst, best) = (corners[N], corners[0]);
        if (worst.1 - best.1).abs() <= 1e-7 * best.1.abs().max(1e-9) {
            break;
        }
        let mut centre = [0.0; N];
        corners[..N].iter().for_each(|(corner, _)| (0..N).for_each(|i| centre[i] += corner[i] / N as f64));
        let towards = |share: f64| {
            let mut point = [0.0; N];
            (0..N).for_each(|i| point[i] = centre[i] + share * (worst.0[i] - centre[i]));
            (point, f(&point))
        };
        let reflected = towards(-1.0);
        let next = if reflected.1 < best.1 {
            let further = towards(-2.0);
            if further.1 < reflected.1 { further } else { reflected }
        } else if reflected.1 < corners[N - 1].1 {
            reflected
        } else {
            towards(if reflected.1 < worst.1 { -0.5 } else { 0.5 })
        };
        if next.1 < worst.1 {
            corners[N] = next;
        } else {
            for (corner, value) in &mut corners[1..] {
                (0..N).for_each(|i| corner[i] = (corner[i] + best.0[i]) / 2.0);
                *value = f(corner);
            }
        }
    }
    corners.sort_by(|a, b| a.1.total_cmp(&b.1));
    corners[0].0
}

/// The whole calibration of a head from `(logits over labels and rejection classes, truth)`.
#[must_use]
pub fn calibrate(clips: &[(Vec<f32>, Truth)], n_labels: usize, trade_off: &TradeOff) -> (Calibration, Outcome) {
    let of_classes: Vec<(Vec<f32>, usize)> =
        clips.iter().map(|(logits, truth)| (logits.clone(), truth.class(n_labels))).collect();
    let temperature = fit_temperature(&of_classes);
    let scored: Vec<Scored> = clips
        .iter()
        .map(|(logits, truth)| {
            let mut labels = softmax(&logits.iter().map(|v| v / temperature).collect::<Vec<_>>());
            labels.truncate(n_labels);
            Scored { truth: *truth, labels }
        })
        .collect();
    let (thresholds, outcome) = fit_thresholds(&scored, trade_off);
    let mut calibration = Calibration::new(temperature, thresholds);
    calibration.trade_off = said(trade_off, &outcome);
    calibration.fitted_on = serde_json::json!({ "clips": clips.len(), "outcome": outcome });
    (calibration, outcome)
}

fn said(trade_off: &TradeOff, outcome: &Outcome) -> String {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    format!(
        "as many commands as possible, with at most {} of other talk, {} of noise and {} of commands as another \
         accepted on held-out clips; it came out at {}, {} and {}, with {} of commands accepted rightly",
        percent(trade_off.max_false_accepts),
        percent(trade_off.max_noise_accepts),
        percent(trade_off.max_wrong_accepts),
        percent(outcome.false_accepts),
        percent(outcome.noise_accepts),
        percent(outcome.wrong),
        percent(outcome.right),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Clips drawn from the probabilities that they are given: logits that are `sharpness` times too sure.
    fn drawn(sharpness: f32, n: usize) -> Vec<(Vec<f32>, usize)> {
        let mut rng = fastrand::Rng::with_seed(7);
        (0..n)
            .map(|_| {
                let logits: Vec<f32> = (0..4).map(|_| 4.0 * rng.f32()).collect();
                let mut left = rng.f32();
                let class = softmax(&logits).iter().position(|p| {
                    left -= p;
                    left < 0.0
                });
                (logits.iter().map(|v| v * sharpness).collect(), class.unwrap_or(3))
            })
            .collect()
    }

    #[test]
    fn the_temperature_undoes_what_was_too_sure() {
        for sharpness in [0.5, 1.0, 3.0] {
            let temperature = fit_temperature(&drawn(sharpness, 4000));
            assert!((temperature / sharpness - 1.0).abs() < 0.1, "{temperature} for {sharpness}");
        }
    }

    fn scored(truth: Truth, labels: [f32; 2]) -> Scored {
        Scored { truth, labels: labels.to_vec() }
    }

    #[test]
    fn thresholds_keep_within_the_trade_off_and_accept_what_they_can() {
        let mut clips: Vec<Scored> =
            (0..100).map(|i| scored(Truth::Command(0), [0.5 + i as f32 / 200.0, 0.0])).collect();
        clips.extend((0..100).map(|i| scored(Truth::OutOfScope, [i as f32 / 150.0, 0.0])));
        clips.extend((0..100).map(|i| scored(Truth::NoSpeech, [i as f32 / 500.0, 0.0])));
        let strict = TradeOff { max_false_accepts: 0.0, ..TradeOff::default() };
        let (thresholds, outcome) = fit_thresholds(&clips, &strict);
        assert_eq!((outcome.false_accepts, outcome.noise_accepts), (0.0, 0.0));
        assert!((0.66..=0.68).contains(&thresholds.confidence_below.max(thresholds.in_scope_below)), "{thresholds:?}");
        assert!((outcome.right - 0.66).abs() < 0.03, "{outcome:?}");
        let loose = TradeOff { max_false_accepts: 1.0, ..TradeOff::default() };
        assert!(fit_thresholds(&clips, &loose).1.right > 0.99);
    }

    #[test]
    fn a_fusion_listens_to_the_side_that_knows() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut clips = Vec::new();
        for _ in 0..400 {
            let label = rng.usize(..3);
            let mut sure = [0.05f32; 3];
            sure[label] = 0.8;
            let mut guess = [0.1f32; 3];
            guess[rng.usize(..3)] = 0.6;
            clips.push(HeardAndWritten { truth: Truth::Command(label), audio: sure.to_vec(), text: guess.to_vec() });
        }
        let (fusion, outcome) = fit_fusion(&clips, &TradeOff::default());
        assert!(fusion.audio > 5.0 * fusion.text, "{fusion:?}");
        assert!(outcome.right > 0.95, "{outcome:?}");
        let swapped: Vec<HeardAndWritten> =
            clips.into_iter().map(|c| HeardAndWritten { audio: c.text, text: c.audio, ..c }).collect();
        let (fusion, _) = fit_fusion(&swapped, &TradeOff::default());
        assert!(fusion.text > 5.0 * fusion.audio, "{fusion:?}");
    }

    #[test]
    fn the_simplex_finds_the_valley() {
        let rosenbrock = |p: &[f64; 2]| (1.0 - p[0]).powi(2) + 20.0 * (p[1] - p[0] * p[0]).powi(2);
        let [x, y] = simplex_search(&rosenbrock, [-0.5, 0.5]);
        assert!((x - 1.0).abs() < 0.02 && (y - 1.0).abs() < 0.04, "{x} {y}");
    }
}
