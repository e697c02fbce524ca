//! The loss of letters that are not aligned with the sound.
//!
//! Connectionist temporal classification, Graves, Fernández, Gomez and Schmidhuber, ICML 2006: the forward and backward
//! variables of section 4.1, in logarithms. The gradient by the scores before the softmax is `softmax - gamma` (their
//! equation 16), where `gamma` says how likely each position is each letter given the text. [`ctc_loss`] therefore
//! computes `gamma` beside Burn's graph and hands autodiff the cross-entropy against it, which has that very gradient:
//! no step of the recursion is kept for the way back, and clips go in parallel.
//!
//! The loss is divided by the number of letters, so that a long sentence weighs as much as a short one.

use burn::tensor::{Device, Tensor, TensorData, activation};
use rayon::prelude::*;

use super::model::values;
use crate::error::Result;

/// What a clip says: the classes of its letters, none of them 0; and how many positions it has.
#[derive(Debug, Clone, Copy)]
pub struct Spelled<'a> {
    /// `None`: it is not known what is said; the clip has no loss.
    pub letters: Option<&'a [usize]>,
    /// Positions behind it are padding.
    pub n_positions: usize,
}

/// The loss of a batch, its mean over the clips that have one, for each letter; and what to differentiate in its place.
///
/// A clip whose letters are more than its positions can hold has no loss. With no clip at all that has one, both are 0.
///
/// # Shapes
/// - scores: `[batch, n_positions, 1 + n_letters]`, before the softmax
/// - result: the loss, and `[1]` with the loss's gradient
///
/// # Errors
/// [`crate::Error::Device`].
pub fn ctc_loss(scores: Tensor<3>, clips: &[Spelled<'_>], device: &Device) -> Result<(f32, Tensor<1>)> {
    let [batch, n_positions, n_classes] = scores.dims();
    let log_p = activation::log_softmax(scores, 2);
    let known = values(log_p.clone())?;
    let mut gamma = vec![0.0f32; known.len()];
    let width = n_positions * n_classes;
    let losses: Vec<Option<f32>> = gamma
        .par_chunks_mut(width)
        .zip(known.par_chunks(width))
        .zip(clips)
        .map(|((gamma, log_p), clip)| {
            let letters = clip.letters?;
            let n = clip.n_positions.min(n_positions) * n_classes;
            let loss = posteriors(&log_p[..n], n_classes, letters, &mut gamma[..n])?;
            let share = 1.0 / letters.len().max(1) as f32;
            gamma.iter_mut().for_each(|v| *v *= share);
            Some(loss * share)
        })
        .collect();
    let n_clips = losses.iter().flatten().count().max(1) as f32;
    let gamma = Tensor::from_data(TensorData::new(gamma, [batch, n_positions, n_classes]), device);
    let surrogate = (log_p * gamma).sum().neg() / n_clips;
    Ok((losses.iter().flatten().sum::<f32>() / n_clips, surrogate))
}

/// Fills `gamma` and gives `-ln p(letters)`; `None`, and zeros, if no path spells the letters.
///
/// # Shapes
/// - log_p, gamma: `[n_positions, n_classes]`
fn posteriors(log_p: &[f32], n_classes: usize, letters: &[usize], gamma: &mut [f32]) -> Option<f32> {
    let n_positions = log_p.len() / n_classes;
    // Letters with "none" before, between and behind them.
    let path: Vec<usize> = std::iter::once(0).chain(letters.iter().flat_map(|letter| [*letter, 0])).collect();
    let n = path.len();
    if n_positions == 0 {
        return None;
    }
    let at = |t: usize, s: usize| f64::from(log_p[t * n_classes + path[s]]);
    // Whether a letter may follow the one before without "none" in between.
    let skips = |s: usize| s >= 2 && path[s] != 0 && path[s] != path[s - 2];
    let mut alpha = vec![f64::NEG_INFINITY; n_positions * n];
    alpha.iter_mut().take(n.min(2)).enumerate().for_each(|(s, alpha)| *alpha = at(0, s));
    for t in 1..n_positions {
        let (before, now) = alpha[(t - 1) * n..(t + 1) * n].split_at_mut(n);
        for s in 0..n {
            let mut sum = before[s];
            if s >= 1 {
                sum = ln_add(sum, before[s - 1]);
            }
            if skips(s) {
                sum = ln_add(sum, before[s - 2]);
            }
            now[s] = sum + at(t, s);
        }
    }
    let last = &alpha[(n_positions - 1) * n..];
    let total = if n > 1 { ln_add(last[n - 1], last[n - 2]) } else { last[0] };
    if !total.is_finite() {
        return None;
    }
    // What is still to come behind position t, its own emission left out.
    let mut beta = vec![f64::NEG_INFINITY; n];
    beta[n - 1] = 0.0;
    if n > 1 {
        beta[n - 2] = 0.0;
    }
    for t in (0..n_positions).rev() {
        let row = &mut gamma[t * n_classes..(t + 1) * n_classes];
        for s in 0..n {
            let log_share = alpha[t * n + s] + beta[s] - total;
            // What an f32 cannot tell from 0.
            if log_share > -104.0 {
                row[path[s]] += log_share.exp() as f32;
            }
        }
        if t > 0 {
            let next: Vec<f64> = (0..n).map(|s| beta[s] + at(t, s)).collect();
            for s in 0..n {
                let mut sum = next[s];
                if s + 1 < n {
                    sum = ln_add(sum, next[s + 1]);
                }
                if s + 2 < n && skips(s + 2) {
                    sum = ln_add(sum, next[s + 2]);
                }
                beta[s] = sum;
            }
        }
    }
    Some(-total as f32)
}

/// `ln(e^a + e^b)`.
fn ln_add(a: f64, b: f64) -> f64 {
    // Behind this, `1 + e^-x` is 1: most pairs are further apart than that.
    const FAR: f64 = 37.0;
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    // Two infinities are no number apart, which is not less.
    if high - low < FAR { high + (low - high).exp().ln_1p() } else { high }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Scores that any program can make: `sin` of the index.
    fn scores(n: usize) -> Vec<f32> {
        (0..n).map(|at| (2.0 * (at as f64 * 1.7 + 0.3).sin()) as f32).collect()
    }

    fn loss_and_gradient(scores: Vec<f32>, shape: [usize; 3], clips: &[Spelled<'_>]) -> (f32, Vec<f32>) {
        let device = Device::flex().autodiff();
        let tensor = Tensor::<3>::from_data(TensorData::new(scores, shape), &device).require_grad();
        let (loss, surrogate) = ctc_loss(tensor.clone(), clips, &device).unwrap();
        let gradients = surrogate.backward();
        (loss, values(tensor.grad(&gradients).unwrap()).unwrap())
    }

    fn spelled(letters: &[usize], n_positions: usize) -> Spelled<'_> {
        Spelled { letters: Some(letters), n_positions }
    }

    /// `torch.nn.functional.ctc_loss` (torch 2.15) of the same scores, log-softmaxed, blank 0, `reduction='none'`,
    /// divided by the number of letters; and the gradient of the mean of both.
    #[test]
    fn loss_and_gradient_are_pytorchs() {
        let (loss, gradient) =
            loss_and_gradient(scores(2 * 6 * 4), [2, 6, 4], &[spelled(&[1, 2, 2], 6), spelled(&[3, 1], 4)]);
        let expected_loss = 2.322_351;
        assert!((loss - expected_loss).abs() < 1e-5, "{loss}");
        let expected = [
            0.021_064, -0.032_003, 0.006_773, 0.004_166, 0.032_775, 0.009_187, -0.051_916, 0.009_954, 0.011_295,
            0.015_118, -0.049_572, 0.023_159, 0.001_279, 0.006_894, -0.060_815, 0.052_641, -0.084_746, 0.003_065,
            -0.014_914, 0.096_595, 0.012_879, 0.002_277, -0.135_416, 0.120_260, -0.007_687, 0.004_687, 0.080_276,
            -0.077_275, -0.005_908, -0.003_446, 0.167_576, -0.158_223, -0.016_804, -0.104_090, 0.203_382, -0.082_489,
            -0.003_963, -0.179_902, 0.174_549, 0.009_317, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
        ];
        for (at, (g, e)) in gradient.iter().zip(expected).enumerate() {
            assert!((g - e).abs() < 1e-5, "{at}: {g} is not {e}");
        }
    }

    #[test]
    fn the_surrogates_gradient_is_the_losss() {
        let (shape, letters) = ([1, 5, 3], [2, 1]);
        let (_, gradient) = loss_and_gradient(scores(15), shape, &[spelled(&letters, 5)]);
        for (at, gradient) in gradient.iter().enumerate() {
            let moved = |by: f32| {
                let mut scores = scores(15);
                scores[at] += by;
                loss_and_gradient(scores, shape, &[spelled(&letters, 5)]).0
            };
            let slope = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((slope - gradient).abs() < 2e-3, "{at}: {gradient} against {slope}");
        }
    }

    #[test]
    fn what_cannot_be_spelled_has_no_loss() {
        let nobody = Spelled { letters: None, n_positions: 3 };
        for clip in [nobody, spelled(&[1, 1], 2), spelled(&[1, 2, 1, 2], 3), spelled(&[1], 0)] {
            let (loss, gradient) = loss_and_gradient(scores(9), [1, 3, 3], &[clip]);
            assert_eq!(loss, 0.0, "{clip:?}");
            assert!(gradient.iter().all(|g| *g == 0.0), "{clip:?}");
        }
        // Beside one that can, it does not count.
        let (alone, _) = loss_and_gradient(scores(9), [1, 3, 3], &[spelled(&[1], 3)]);
        let twice = [scores(9), scores(9)].concat();
        let (beside, gradient) = loss_and_gradient(twice, [2, 3, 3], &[spelled(&[1], 3), spelled(&[1, 1], 2)]);
        assert!((alone - beside).abs() < 1e-6);
        assert!(gradient[9..].iter().all(|g| *g == 0.0));
    }

    /// A clip in which nobody says a word: every position is "none".
    #[test]
    fn an_empty_text_is_all_none() {
        let scores = scores(6);
        let device = Device::flex();
        let log_p =
            activation::log_softmax(Tensor::<3>::from_data(TensorData::new(scores.clone(), [1, 2, 3]), &device), 2);
        let log_p = values(log_p).unwrap();
        let (loss, _) = loss_and_gradient(scores, [1, 2, 3], &[spelled(&[], 2)]);
        assert!((loss + log_p[0] + log_p[3]).abs() < 1e-5);
    }
}
