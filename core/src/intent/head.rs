//! An intent head: a classifier over the audio encoder's states, and what its answer is worth.
//!
//! Follows transformers 5.23 `modeling_whisper.py` `WhisperForAudioClassification` (weighted layer sum, projector, mean
//! over positions, classifier) and takes the other forms that repositories hold: a linear layer, or two with an
//! activation in between, on the mean of the last states. The tensors have house names, which the loader gives to each
//! repository's own:
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `head.layer_weights` | `[n_layer + 1]` | optional: all hidden states are summed by its softmax |
//! | `head.projector.weight`, `.bias` | `[d, n_state]`, `[d]` | optional: linear, before pooling |
//! | `head.context.weight`, `.bias` | `[d, d, 3]`, `[d]` | attentive pooling only: convolution, gelu and residual |
//! | `head.attention.weight`, `.bias` | `[a, d]`, `[a]` | attentive pooling only: linear and tanh |
//! | `head.scores.weight`, `.bias` | `[n_pool, a]`, `[n_pool]` | attentive pooling only: a score per position and pool |
//! | `head.hidden.weight`, `.bias` | `[h, d]` or `[h, 2 d]`, `[h]` | optional: linear and activation, after pooling |
//! | `head.classifier.weight`, `.bias` | `[n_classes, h]`, `[n_classes]` | |
//!
//! Each bias is optional. Two ways to one vector ([`HeadPooling`]):
//! - **mean**, transformers' own. One deviation: the mean over positions is taken first. The layer sum and the projector
//!   are linear, so the answer is the same but for rounding, and they meet one row instead of 1500.
//! - **attentive statistics**, this project's ([`super::pooling`]): states averaged over a few positions, normalised,
//!   summed, projected, seen with their neighbours, then weighted mean and deviation.
//!
//! What the logits are worth is said by [`super::calibration`]. Long for its tests, which reckon each part by hand.

use burn::tensor::{Device, FloatDType, Tensor, activation};

use crate::error::{Error, Result};
use crate::intent::calibration::softmax;
use crate::intent::pooling::{attentive_statistics, average_positions, normalise_positions};
use crate::kernels::{self, Activation, Conv1d, Conv1dShape, Linear};
use crate::weights::{Checkpoint, WeightSource};

/// Most classes that a head may have.
pub const MAX_LABELS: usize = 100_000;
/// Wider than any Whisper; keeps a hostile head from asking for all memory.
const MAX_WIDTH: usize = 16_384;

const LAYER_WEIGHTS: &str = "head.layer_weights";
/// Positions that the context convolution sees.
pub const CONTEXT_KERNEL: usize = 3;
/// Most positions that are averaged into one: 2 s.
pub const MAX_POSITION_STRIDE: usize = 100;

/// How the states of all positions become one vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HeadPooling {
    /// Their mean.
    #[default]
    Mean,
    /// Weighted mean and standard deviation.
    AttentiveStatistics {
        /// Positions that are averaged into one before, `1..=`[`MAX_POSITION_STRIDE`].
        position_stride: usize,
    },
}

/// What follows the hidden layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HeadActivation {
    /// `max(x, 0)`.
    #[default]
    Relu,
    /// The exact (erf) Gaussian error linear unit.
    Gelu,
    /// Hyperbolic tangent.
    Tanh,
}

/// What a head was trained to hear.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HeadWindow {
    /// The clip padded to a full window (30 s), as transformers' feature extractor does.
    #[default]
    Full,
    /// The speech only, with a short margin.
    Fitted,
}

impl HeadWindow {
    /// `full` or `fitted`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Fitted => "fitted",
        }
    }
}

/// What a head stands on, and what its tensors do not tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadSpec {
    /// Width of the encoder.
    pub n_state: usize,
    /// Encoder layers.
    pub n_layer: usize,
    /// What it was trained to hear.
    pub window: HeadWindow,
    /// What follows the hidden layer, if there is one.
    pub activation: HeadActivation,
    /// From positions to one vector.
    pub pooling: HeadPooling,
}

/// A classifier over the encoder's states.
#[derive(Debug, Clone)]
pub struct IntentHead {
    spec: HeadSpec,
    /// `[n_layer + 1]`, their softmax
    layer_weights: Option<Vec<f32>>,
    projector: Option<Linear>,
    attention: Option<Attention>,
    hidden: Option<Linear>,
    classifier: Linear,
    n_parameters: u64,
}

/// What attentive pooling has of its own.
#[derive(Debug, Clone)]
struct Attention {
    position_stride: usize,
    context: Option<Conv1d>,
    hidden: Linear,
    scores: Linear,
}

impl IntentHead {
    /// The head's tensors with the shapes that must hold: which optional ones are there and how many classes there are
    /// is read from `weights`, everything else from `spec`.
    ///
    /// # Errors
    /// [`Error::WeightMismatch`] if there is no classifier, or one with no class or more than [`MAX_LABELS`].
    pub fn expected_tensors(spec: &HeadSpec, weights: &dyn WeightSource) -> Result<Vec<(String, Vec<usize>)>> {
        let shape_of = |name: &str| weights.shape(name);
        let mut tensors = Vec::new();
        if shape_of(LAYER_WEIGHTS).is_some() {
            tensors.push((LAYER_WEIGHTS.to_owned(), vec![spec.n_layer + 1]));
        }
        let is_attentive = spec.pooling != HeadPooling::Mean;
        // (layer, most rows, whether it must be there, its input's width times what pooling makes of it)
        let layers: &[(&str, usize, bool)] = match spec.pooling {
            HeadPooling::Mean => {
                &[("projector", MAX_WIDTH, false), ("hidden", MAX_WIDTH, false), ("classifier", MAX_LABELS, true)]
            }
            HeadPooling::AttentiveStatistics { .. } => &[
                ("projector", MAX_WIDTH, true),
                ("context", MAX_WIDTH, false),
                ("attention", MAX_WIDTH, true),
                ("scores", MAX_WIDTH, true),
                ("hidden", MAX_WIDTH, false),
                ("classifier", MAX_LABELS, true),
            ],
        };
        let mut d_input = spec.n_state;
        let mut d_pooled = 0;
        for (layer, max_rows, is_needed) in layers.iter().copied() {
            let (weight, bias) = (format!("head.{layer}.weight"), format!("head.{layer}.bias"));
            let bias_shape = shape_of(&bias);
            let weight_shape = match shape_of(&weight) {
                None if is_needed => return Err(mismatch(vec![weight], Vec::new())),
                found => found,
            };
            // A bias alone makes its weight an expected one, which is then reported as missing.
            let Some(shape) = weight_shape.as_ref().or(bias_shape.as_ref()) else { continue };
            let n_rows = shape.first().copied().unwrap_or(0);
            if n_rows == 0 || n_rows > max_rows {
                return Err(mismatch(
                    Vec::new(),
                    vec![format!("{weight}: expected 1 to {max_rows} rows, got {shape:?}")],
                ));
            }
            let is_context = is_attentive && layer == "context";
            let needed_rows = match layer {
                // The residual goes around it.
                "context" if is_attentive => Some(d_input),
                // Each pool has its own share of the channels.
                "scores" if d_pooled % n_rows != 0 => Some(d_pooled),
                _ => None,
            };
            let n_rows = needed_rows.unwrap_or(n_rows);
            let kernel = is_context.then_some(CONTEXT_KERNEL);
            tensors.push((weight, [n_rows, d_input].into_iter().chain(kernel).collect()));
            if bias_shape.is_some() {
                tensors.push((bias, vec![n_rows]));
            }
            d_input = n_rows;
            if is_attentive {
                match layer {
                    "projector" => d_pooled = n_rows,
                    "scores" => d_input = 2 * d_pooled,
                    _ => {}
                }
            }
        }
        Ok(tensors)
    }

    /// Takes the head's tensors out of a checked checkpoint over `weights`.
    ///
    /// # Errors
    /// As [`IntentHead::expected_tensors`]; [`Error::WeightMismatch`] also for a wrong shape, and
    /// [`Error::DamagedWeights`] if values are not finite.
    pub fn load(
        spec: HeadSpec,
        checkpoint: &Checkpoint<'_>,
        weights: &dyn WeightSource,
        device: &Device,
    ) -> Result<Self> {
        let expected = Self::expected_tensors(&spec, weights)?;
        // The other names are the encoder's and the decoder's; the strict check of the whole model has seen them.
        Checkpoint::new(weights, &expected, |_| true)?;
        let n_rows_of = |name: &str| expected.iter().find(|(n, _)| n == name).map(|(_, shape)| shape[0]);
        let linear = |layer: &str| -> Result<Option<Linear>> {
            let (weight, bias) = (format!("head.{layer}.weight"), format!("head.{layer}.bias"));
            let Some(n_rows) = n_rows_of(&weight) else { return Ok(None) };
            let bias = n_rows_of(&bias).map(|_| checkpoint.take(&bias)).transpose()?;
            Ok(Some(Linear::new(&checkpoint.take(&weight)?, bias, n_rows, device)))
        };
        let layer_weights = n_rows_of(LAYER_WEIGHTS).map(|_| checkpoint.take(LAYER_WEIGHTS)).transpose()?;
        let attention = match spec.pooling {
            HeadPooling::Mean => None,
            HeadPooling::AttentiveStatistics { position_stride } => {
                let context = match n_rows_of("head.context.weight") {
                    None => None,
                    Some(d) => {
                        let shape = Conv1dShape {
                            d_input: d,
                            d_output: d,
                            kernel_size: CONTEXT_KERNEL,
                            stride: 1,
                            padding: CONTEXT_KERNEL / 2,
                            groups: 1,
                        };
                        let bias = n_rows_of("head.context.bias").map(|_| checkpoint.take("head.context.bias"));
                        Some(Conv1d::new(&checkpoint.take("head.context.weight")?, bias.transpose()?, shape, device))
                    }
                };
                let there = "expected_tensors names it or fails";
                Some(Attention {
                    position_stride,
                    context,
                    hidden: linear("attention")?.expect(there),
                    scores: linear("scores")?.expect(there),
                })
            }
        };
        Ok(Self {
            spec,
            attention,
            layer_weights: layer_weights.as_deref().map(softmax),
            projector: linear("projector")?,
            hidden: linear("hidden")?,
            classifier: linear("classifier")?.expect("expected_tensors names the classifier or fails"),
            n_parameters: expected.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum(),
        })
    }

    /// Classes: labels, and the rejection classes behind them.
    #[must_use]
    pub fn n_classes(&self) -> usize {
        self.classifier.d_output()
    }

    /// Whether [`IntentHead::classify`] wants every hidden state ([`crate::whisper::AudioEncoder::forward_all`])
    /// instead of the encoder's output alone.
    #[must_use]
    pub fn needs_all_states(&self) -> bool {
        self.layer_weights.is_some()
    }

    /// What it was trained to hear.
    #[must_use]
    pub fn window(&self) -> HeadWindow {
        self.spec.window
    }

    /// Number of parameters.
    #[must_use]
    pub fn n_parameters(&self) -> u64 {
        self.n_parameters
    }

    /// The logits of each item of the batch.
    ///
    /// # Shapes
    /// - states: one `[batch, n_ctx, n_state]`, or `n_layer + 1` of them if [`IntentHead::needs_all_states`]
    /// - result: `batch` rows of `n_classes`
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for other states, [`Error::NotFinite`] if a logit is not a number, [`Error::Device`].
    pub async fn classify(&self, states: Vec<Tensor<3>>) -> Result<Vec<Vec<f32>>> {
        let shares = self.layer_weights.as_deref().unwrap_or(&[1.0]);
        if states.len() != shares.len() {
            let (expected, got) = (vec![shares.len()], vec![states.len()]);
            return Err(Error::ShapeMismatch { tensor: "the list of encoder states", expected, got });
        }
        let [batch, n_ctx, _] = states[0].dims();
        let expected = [batch.max(1), n_ctx.max(1), self.spec.n_state];
        if let Some(got) = states.iter().map(|s| s.dims()).find(|got| *got != expected) {
            return Err(Error::ShapeMismatch {
                tensor: "encoder states",
                expected: expected.to_vec(),
                got: got.to_vec(),
            });
        }
        let mut x = match &self.attention {
            None => self.mean(states, shares),
            Some(attention) => self.attend(attention, states, shares),
        }; // [batch, 1, d]
        if let Some(hidden) = &self.hidden {
            // [batch, 1, h]
            x = match self.spec.activation {
                HeadActivation::Gelu => hidden.forward(x, Activation::Gelu),
                HeadActivation::Relu => hidden.forward(x, Activation::Relu),
                HeadActivation::Tanh => activation::tanh(hidden.forward(x, Activation::None)),
            };
        }
        let logits = self.classifier.forward(x, Activation::None); // [batch, 1, n_labels]
        let values = kernels::read(logits, "intent head").await?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(Error::NotFinite { stage: "intent head" });
        }
        Ok(values.chunks(self.n_classes()).map(<[f32]>::to_vec).collect())
    }
}

impl IntentHead {
    /// `[batch, n_ctx, n_state]` each to the projected `[batch, 1, d]`.
    fn mean(&self, states: Vec<Tensor<3>>, shares: &[f32]) -> Tensor<3> {
        // A sum over 1500 positions in half precision would lose what the head was trained on.
        let dtype = FloatDType::from(states[0].dtype());
        let x = states
            .into_iter()
            .zip(shares)
            .map(|(state, share)| state.cast(FloatDType::F32).mean_dim(1).mul_scalar(*share)) // [batch, 1, n_state]
            .reduce(|sum, x| sum + x)
            .expect("there is one share at least")
            .cast(dtype);
        match &self.projector {
            Some(projector) => projector.forward(x, Activation::None),
            None => x,
        }
    }

    /// `[batch, n_ctx, n_state]` each to weighted mean and deviation, `[batch, 1, 2 d]`.
    fn attend(&self, attention: &Attention, states: Vec<Tensor<3>>, shares: &[f32]) -> Tensor<3> {
        let dtype = FloatDType::from(states[0].dtype());
        let x = states
            .into_iter()
            .zip(shares)
            .map(|(state, share)| {
                let state = average_positions(state.cast(FloatDType::F32), attention.position_stride);
                normalise_positions(state).mul_scalar(*share)
            })
            .reduce(|sum, x| sum + x)
            .expect("there is one share at least")
            .cast(dtype); // [batch, n_positions, n_state]
        let projector = self.projector.as_ref().expect("expected_tensors names it for attentive pooling");
        let mut x = projector.forward(x, Activation::Gelu); // [batch, n_positions, d]
        if let Some(context) = &attention.context {
            x = x.clone() + context.forward(x, Activation::Gelu);
        }
        let hidden = activation::tanh(attention.hidden.forward(x.clone(), Activation::None));
        let scores = attention.scores.forward(hidden, Activation::None); // [batch, n_positions, n_pool]
        let single = |x: Tensor<3>| x.cast(FloatDType::F32);
        attentive_statistics(single(x), single(scores), None).cast(dtype)
    }
}

fn mismatch(missing: Vec<String>, misshapen: Vec<String>) -> Error {
    Error::WeightMismatch { missing, unused: Vec::new(), misshapen }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use burn::tensor::TensorData;

    use super::*;
    use crate::weights::safetensors::Safetensors;
    use crate::weights::to_safetensors;

    const SPEC: HeadSpec = HeadSpec {
        n_state: 2,
        n_layer: 1,
        window: HeadWindow::Full,
        activation: HeadActivation::Relu,
        pooling: HeadPooling::Mean,
    };

    type Named = (&'static str, Vec<usize>, Vec<f32>);
    type State<'a> = (&'a [f32], [usize; 3]);

    fn source(tensors: &[Named]) -> Safetensors {
        Safetensors::from_bytes(to_safetensors(tensors), "model.safetensors").unwrap()
    }

    fn load(spec: HeadSpec, tensors: &[Named]) -> Result<IntentHead> {
        let weights = source(tensors);
        let checkpoint = Checkpoint::new(&weights, &IntentHead::expected_tensors(&spec, &weights)?, |_| false)?;
        IntentHead::load(spec, &checkpoint, &weights, &Device::flex())
    }

    /// On the CPU nothing has to be waited for.
    fn classify(head: &IntentHead, states: &[State<'_>]) -> Result<Vec<Vec<f32>>> {
        let states: Vec<Tensor<3>> = states
            .iter()
            .map(|(values, shape)| Tensor::from_data(TensorData::new(values.to_vec(), *shape), &Device::flex()))
            .collect();
        match std::pin::pin!(head.classify(states)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer,
            Poll::Pending => panic!("the CPU does not wait"),
        }
    }

    fn classifier() -> Named {
        ("head.classifier.weight", vec![3, 2], vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    }

    #[test]
    fn a_linear_head_on_the_mean() {
        let head = load(SPEC, &[classifier(), ("head.classifier.bias", vec![3], vec![0.0, 0.5, -1.0])]).unwrap();
        assert_eq!((head.n_classes(), head.n_parameters(), head.needs_all_states()), (3, 9, false));
        assert_eq!(head.window(), HeadWindow::Full);
        // means (2, 3) and (-1, 0)
        let states: &[f32] = &[1.0, 2.0, 3.0, 4.0, 0.0, -4.0, -2.0, 4.0];
        let answer = classify(&head, &[(states, [2, 2, 2])]).unwrap();
        assert_eq!(answer, [[2.0, 3.5, 4.0], [-1.0, 0.5, -2.0]]);
    }

    #[test]
    fn every_optional_part() {
        let layer_weights = ("head.layer_weights", vec![2], vec![0.0, 3.0f32.ln()]); // shares 1/4 and 3/4
        let projector = ("head.projector.weight", vec![2, 2], vec![0.0, 1.0, 1.0, 0.0]);
        let hidden = ("head.hidden.weight", vec![2, 2], vec![1.0, 0.0, 0.0, -1.0]);
        let hidden_bias = ("head.hidden.bias", vec![2], vec![0.0, 1.0]);
        let tensors = [layer_weights, projector, hidden, hidden_bias, classifier()];
        // (4, 8) / 4 + (4, 0) * 3 / 4 = (4, 2); swapped (2, 4); hidden (2, -3)
        let states: [State<'_>; 2] = [(&[4.0, 8.0], [1, 1, 2]), (&[4.0, 0.0], [1, 1, 2])];
        // gelu(2) = 2 * 0.977_249_9, gelu(-3) = -3 * 0.001_349_9
        let answers = [
            (HeadActivation::Relu, [2.0, 0.0]),
            (HeadActivation::Tanh, [2.0f32.tanh(), (-3.0f32).tanh()]),
            (HeadActivation::Gelu, [1.954_499_7, -0.004_049_7]),
        ];
        for (activation, [a, b]) in answers {
            let head = load(HeadSpec { activation, ..SPEC }, &tensors).unwrap();
            assert!(head.needs_all_states());
            assert_eq!(head.n_parameters(), 2 + 4 + 6 + 6);
            let answer = classify(&head, &states).unwrap();
            for (got, expected) in answer[0].iter().zip([a, b, a + b]) {
                assert!((got - expected).abs() < 1e-5, "{activation:?}: {got} against {expected}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let zeros = |name: &'static str, shape: &[usize]| (name, shape.to_vec(), vec![0.0; shape.iter().product()]);
        let cases: [(&[Named], &str); 9] = [
            (&[], "missing [\"head.classifier.weight\"]"),
            (&[zeros("head.classifier.bias", &[3])], "missing [\"head.classifier.weight\"]"),
            (&[zeros("head.classifier.weight", &[3, 4])], "head.classifier.weight: expected [3, 2], got [3, 4]"),
            (&[zeros("head.classifier.weight", &[0, 2])], "expected 1 to 100000 rows, got [0, 2]"),
            (&[zeros("head.classifier.weight", &[100_001, 2])], "expected 1 to 100000 rows, got [100001, 2]"),
            (&[zeros("head.classifier.weight", &[])], "expected 1 to 100000 rows, got []"),
            (&[classifier(), zeros("head.classifier.bias", &[2])], "head.classifier.bias: expected [3], got [2]"),
            (&[classifier(), zeros("head.projector.bias", &[2])], "missing [\"head.projector.weight\"]"),
            (&[classifier(), zeros("head.layer_weights", &[3])], "head.layer_weights: expected [2], got [3]"),
        ];
        for (tensors, reason) in cases {
            let error = load(SPEC, tensors).unwrap_err();
            assert_eq!(error.code(), "weight_mismatch");
            assert!(error.to_string().contains(reason), "{error}");
        }
        // The projector's rows are the classifier's columns.
        let error = load(SPEC, &[classifier(), zeros("head.projector.weight", &[5, 2])]).unwrap_err();
        assert!(error.to_string().contains("head.classifier.weight: expected [3, 5], got [3, 2]"), "{error}");
    }

    #[test]
    fn states_that_do_not_fit_are_refused() {
        let head = load(SPEC, &[classifier()]).unwrap();
        let two: &[f32] = &[1.0, 2.0];
        let cases: [(&[State<'_>], &str); 5] = [
            (&[], "shape_mismatch"),
            (&[(two, [1, 1, 2]), (two, [1, 1, 2])], "shape_mismatch"),
            (&[(two, [1, 2, 1])], "shape_mismatch"),
            (&[(&[f32::NAN, 1.0], [1, 1, 2])], "not_finite"),
            (&[(&[f32::MAX, f32::MAX], [1, 1, 2])], "not_finite"),
        ];
        for (states, code) in cases {
            assert_eq!(classify(&head, states).unwrap_err().code(), code, "{states:?}");
        }
    }
}
