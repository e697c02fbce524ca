//! The head while it is trained: the same computation as [`crate::intent::head`] with attentive pooling, on parameters
//! that can be differentiated.
//!
//! Deviation from the finished head: positions of shorter clips in a batch are padding, which is masked; states come
//! averaged and normalised already ([`super::features`], [`super::batches`]). That both give the same logits is tested.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData, activation};
use rten_simd::SimdUnaryOp as _;
use rten_vecmath::{Erf, Exp, Tanh};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::intent::head::{MAX_CONTEXTS, context_name};
use crate::intent::pooling::attentive_statistics;
use crate::weights::{Checkpoint, WeightSource};

/// Wider than any Whisper.
const MAX_WIDTH: usize = 16_384;
/// Added to the score of a position that is padding.
const PADDING_SCORE: f32 = -1e4;

/// The widths of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadShape {
    /// Encoder states that are summed, `n_layer + 1`.
    pub n_layers: usize,
    /// Width of the encoder.
    pub n_state: usize,
    /// Width after the projector.
    pub d_projector: usize,
    /// Convolutions over neighbouring positions.
    pub n_context: usize,
    /// Positions that each of them sees; odd.
    pub context_kernel: usize,
    /// Width of the attention's hidden layer.
    pub d_attention: usize,
    /// Pools, each over its own share of the channels; divides `d_projector`.
    pub n_pool: usize,
    /// Width of the layer before the classifier; 0 for none.
    pub d_hidden: usize,
    /// Labels and rejection classes.
    pub n_classes: usize,
    /// Letters that it writes down; 0 for a head that writes none.
    pub n_letters: usize,
}

/// A head's parameters. Weights are `[d_input, d_output]`, as a product wants them.
#[derive(Module, Debug)]
pub struct TrainableHead {
    layer_weights: Param<Tensor<1>>,
    projector: Affine,
    contexts: Vec<Affine>,
    attention: Affine,
    scores: Affine,
    hidden: Option<Affine>,
    classifier: Affine,
    letters: Option<Affine>,
}

#[derive(Module, Debug)]
struct Affine {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

/// Clips of one step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// For each encoder state `[batch * n_positions, n_state]`, normalised; what lies behind a clip's end does not matter
    pub states: Vec<Tensor<2>>,
    /// `[batch, n_positions, 1]`: 1 where the clip is, 0 behind its end
    pub mask: Tensor<3>,
    /// `[batch, n_classes]`, each row sums to 1
    pub targets: Tensor<2>,
    /// `[batch, 1, 2 * d_projector]` of 0 and 1 / (1 - p), or nothing
    pub dropout: Option<Tensor<3>>,
}

/// What a head makes of a batch.
#[derive(Debug, Clone)]
pub struct Heard {
    /// `[batch, n_classes]`
    pub logits: Tensor<2>,
    /// `[batch, n_positions, 1 + n_letters]`, before the softmax
    pub letters: Option<Tensor<3>>,
}

/// A tensor as it is written to a file: name, shape, values.
pub type NamedTensor = (String, Vec<usize>, Vec<f32>);

impl Affine {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, n, d] = x.dims();
        let y = x.reshape([batch * n, d]).matmul(self.weight.val());
        let [_, d_output] = y.dims();
        y.reshape([batch, n, d_output]) + self.bias.val().reshape([1, 1, d_output])
    }
}

/// Gives a parameter's values by its public name and shape.
type Take<'a> = &'a mut dyn FnMut(&str, &[usize]) -> Result<Vec<f32>>;

/// Takes named tensors for a head's parameters, numbering them for the optimiser in a fixed order.
struct Loader<'a> {
    device: &'a Device,
    next: u64,
    take: Take<'a>,
}

impl Loader<'_> {
    fn param<const D: usize>(&mut self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        self.next += 1;
        let tensor = Tensor::from_data(TensorData::new(values, shape), self.device);
        let tensor = if self.device.is_autodiff() { tensor.require_grad() } else { tensor };
        Param::initialized(ParamId::from(self.next), tensor)
    }

    /// From `[d_output, d_input]` or `[d_output, d_input, kernel]`.
    fn affine(&mut self, name: &str, d_output: usize, d_input: usize, kernel: Option<usize>) -> Result<Affine> {
        let shape: Vec<usize> = [d_output, d_input].into_iter().chain(kernel).collect();
        let stored = (self.take)(&format!("{name}.weight"), &shape)?;
        let bias = (self.take)(&format!("{name}.bias"), &[d_output])?;
        let kernel = kernel.unwrap_or(1);
        let mut weight = vec![0.0; stored.len()];
        for (at, value) in stored.into_iter().enumerate() {
            let (o, i, k) = (at / (d_input * kernel), at / kernel % d_input, at % kernel);
            weight[(k * d_input + i) * d_output + o] = value;
        }
        Ok(Affine { weight: self.param(weight, [kernel * d_input, d_output]), bias: self.param(bias, [d_output]) })
    }
}

impl HeadShape {
    /// # Errors
    /// [`Error::InvalidParameter`] for widths that make no head.
    pub fn check(&self) -> Result<()> {
        let Self { n_layers, n_state, d_projector, d_attention, n_pool, n_classes, .. } = *self;
        let widths = [n_layers, n_state, d_projector, d_attention, n_pool, n_classes, self.d_hidden.max(1)];
        if widths.contains(&0) || widths.iter().any(|n| *n > MAX_WIDTH) || !d_projector.is_multiple_of(n_pool) {
            return Err(Error::InvalidParameter {
                name: "head",
                allowed: "every width is 1 to 16384, and the number of pools divides the projector's".to_owned(),
            });
        }
        if self.n_context > MAX_CONTEXTS || self.context_kernel.is_multiple_of(2) || self.context_kernel > 31 {
            let allowed = format!("at most {MAX_CONTEXTS} context convolutions, each over an odd number up to 31");
            return Err(Error::InvalidParameter { name: "head", allowed });
        }
        Ok(())
    }

    fn load(&self, device: &Device, take: Take<'_>) -> Result<TrainableHead> {
        self.check()?;
        let Self { n_layers, n_state, d_projector: d, d_attention, n_pool, d_hidden, n_classes, n_letters, .. } = *self;
        let layer_weights = take("layer_weights", &[n_layers])?;
        let mut loader = Loader { device, next: 0, take };
        Ok(TrainableHead {
            layer_weights: loader.param(layer_weights, [n_layers]),
            projector: loader.affine("projector", d, n_state, None)?,
            contexts: (0..self.n_context)
                .map(|at| loader.affine(&context_name(at), d, d, Some(self.context_kernel)))
                .collect::<Result<_>>()?,
            attention: loader.affine("attention", d_attention, d, None)?,
            scores: loader.affine("scores", n_pool, d_attention, None)?,
            hidden: match d_hidden {
                0 => None,
                _ => Some(loader.affine("hidden", d_hidden, 2 * d, None)?),
            },
            classifier: loader.affine("classifier", n_classes, if d_hidden == 0 { 2 * d } else { d_hidden }, None)?,
            letters: match n_letters {
                0 => None,
                n => Some(loader.affine("letters", n + 1, d, None)?),
            },
        })
    }

    /// A head to begin with: weights uniform in ±1/√d_input (PyTorch's `nn.Linear`), biases and layer weights 0. The
    /// same on every machine.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn init(&self, seed: u64, device: &Device) -> Result<TrainableHead> {
        let mut rng = fastrand::Rng::with_seed(seed);
        self.load(device, &mut |name, shape| {
            let n = shape.iter().product();
            let fan_in: usize = shape.iter().skip(1).product();
            let bound = if name.ends_with(".weight") { 1.0 / (fan_in as f32).sqrt() } else { 0.0 };
            Ok((0..n).map(|_| (2.0 * rng.f32() - 1.0) * bound).collect())
        })
    }

    /// A head as it was written.
    ///
    /// # Errors
    /// [`Error::WeightMismatch`], [`Error::DamagedWeights`].
    pub fn read(&self, weights: &dyn WeightSource, device: &Device) -> Result<TrainableHead> {
        let mut expected = Vec::new();
        self.load(device, &mut |name, shape| {
            expected.push((name.to_owned(), shape.to_vec()));
            Ok(vec![0.0; shape.iter().product()])
        })?;
        let checkpoint = Checkpoint::new(weights, &expected, |_| false)?;
        self.load(device, &mut |name, _| checkpoint.take(name))
    }
}

impl TrainableHead {
    /// What it hears in a batch.
    #[must_use]
    pub fn forward(&self, batch: &Batch) -> Heard {
        let [n_clips, n_positions, _] = batch.mask.dims();
        let shares = activation::softmax(self.layer_weights.val(), 0);
        let weighted = batch.states.iter().enumerate().map(|(layer, state)| {
            let share = shares.clone().slice([layer..layer + 1]).reshape([1, 1]);
            state.clone() * share // [batch * n_positions, n_state]
        });
        let x = weighted.reduce(|sum, x| sum + x).expect("there is one state at least");
        let [_, n_state] = x.dims();
        let x = x.reshape([n_clips, n_positions, n_state]);
        // The convolution sees zeros behind a clip's end, as it does in a clip alone.
        let x = gelu(self.projector.forward(x)) * batch.mask.clone(); // [batch, n_positions, d]
        let x = self.contexts.iter().fold(x, |x, context| {
            let [d_rows, _] = context.weight.val().dims();
            let seen = neighbours(x.clone(), d_rows / x.dims()[2]);
            x + gelu(context.forward(seen)) * batch.mask.clone()
        });
        let letters = self.letters.as_ref().map(|letters| letters.forward(x.clone()));
        let scores = self.scores.forward(tanh(self.attention.forward(x.clone()))); // [batch, n_positions, n_pool]
        let padding = (batch.mask.clone().neg() + 1.0) * PADDING_SCORE;
        let mut x = attentive_statistics(x, scores, Some(padding)); // [batch, 1, 2 d]
        if let Some(dropout) = &batch.dropout {
            x = x * dropout.clone();
        }
        if let Some(hidden) = &self.hidden {
            x = activation::relu(hidden.forward(x));
        }
        let logits = self.classifier.forward(x); // [batch, 1, n_classes]
        let [_, _, n_classes] = logits.dims();
        Heard { logits: logits.reshape([n_clips, n_classes]), letters }
    }

    /// The share of each encoder state, by softmax of the layer weights.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn layer_shares(&self) -> Result<Vec<f32>> {
        values(activation::softmax(self.layer_weights.val(), 0))
    }

    /// All parameters under their public names, as [`HeadShape::read`] takes them.
    ///
    /// # Errors
    /// [`Error::Device`] if they cannot be read back.
    pub fn tensors(&self) -> Result<Vec<NamedTensor>> {
        let layer_weights = values(self.layer_weights.val())?;
        let mut tensors = vec![("layer_weights".to_owned(), vec![layer_weights.len()], layer_weights)];
        let [_, d] = self.projector.weight.val().dims();
        let contexts = self.contexts.iter().enumerate().map(|(at, context)| {
            let [d_rows, _] = context.weight.val().dims();
            (context_name(at), Some(context), Some(d_rows / d))
        });
        let layers = [("projector".to_owned(), Some(&self.projector), None)].into_iter().chain(contexts).chain([
            ("attention".to_owned(), Some(&self.attention), None),
            ("scores".to_owned(), Some(&self.scores), None),
            ("hidden".to_owned(), self.hidden.as_ref(), None),
            ("classifier".to_owned(), Some(&self.classifier), None),
            ("letters".to_owned(), self.letters.as_ref(), None),
        ]);
        for (name, layer, kernel) in layers {
            let Some(layer) = layer else { continue };
            let [d_rows, d_output] = layer.weight.val().dims();
            let n_kernel = kernel.unwrap_or(1);
            let d_input = d_rows / n_kernel;
            let weight = values(layer.weight.val())?;
            let stored = (0..weight.len())
                .map(|at| {
                    let (o, i, k) = (at / (d_input * n_kernel), at / n_kernel % d_input, at % n_kernel);
                    weight[(k * d_input + i) * d_output + o]
                })
                .collect();
            let shape = [d_output, d_input].into_iter().chain(kernel).collect();
            tensors.push((format!("{name}.weight"), shape, stored));
            tensors.push((format!("{name}.bias"), vec![d_output], values(layer.bias.val())?));
        }
        Ok(tensors)
    }
}

/// Each position among its neighbours, `kernel / 2` on each side, zeros where there is none: `[batch, n_positions, d]` to
/// `[batch, n_positions, kernel * d]`.
fn neighbours(x: Tensor<3>, kernel: usize) -> Tensor<3> {
    let [batch, n_positions, d] = x.dims();
    let edge = Tensor::<3>::zeros([batch, kernel / 2, d], &x.device());
    let padded = Tensor::cat(vec![edge.clone(), x, edge], 1);
    Tensor::cat((0..kernel).map(|at| padded.clone().slice([0..batch, at..at + n_positions, 0..d])).collect(), 2)
}

/// The exact gelu, `x Φ(x)`, for autodiff ([`touched_by`]).
fn gelu(x: Tensor<3>) -> Tensor<3> {
    touched_by(x, |at| {
        let mut erf: Vec<f32> = at.iter().map(|x| x * FRAC_1_SQRT_2).collect();
        Erf::default().map_mut(&mut erf);
        let mut density: Vec<f32> = at.iter().map(|x| -0.5 * x * x).collect();
        Exp::default().map_mut(&mut density);
        density.iter_mut().for_each(|density| *density *= 0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2); // φ(x)
        let slope =
            at.iter().zip(&erf).zip(&density).map(|((x, erf), density)| 0.5 + 0.5 * erf + x * density).collect();
        let offset = at.iter().zip(&density).map(|(x, density)| -x * x * density).collect();
        (slope, offset)
    })
}

/// The hyperbolic tangent for autodiff ([`touched_by`]).
fn tanh(x: Tensor<3>) -> Tensor<3> {
    touched_by(x, |at| {
        let mut tanh = at.to_vec();
        Tanh::default().map_mut(&mut tanh);
        let slope: Vec<f32> = tanh.iter().map(|tanh| 1.0 - tanh * tanh).collect();
        let offset = at.iter().zip(&tanh).zip(&slope).map(|((x, tanh), slope)| tanh - x * slope).collect();
        (slope, offset)
    })
}

/// A function of single numbers for autodiff, as the line that touches it at `x`: its value and its slope there are the
/// function's own. `line` gives the slopes, and where the lines meet 0. Burn's own functions go one number at a time,
/// forward and backward: gelu's `erf` alone was a sixth of a training step.
fn touched_by(x: Tensor<3>, line: impl FnOnce(&[f32]) -> (Vec<f32>, Vec<f32>)) -> Tensor<3> {
    let (shape, device) = (x.dims(), x.device());
    let at = values(x.clone()).expect("training runs on the CPU, which answers at once");
    let (slope, offset) = line(&at);
    let constant = |values: Vec<f32>| Tensor::from_data(TensorData::new(values, shape), &device);
    x * constant(slope) + constant(offset)
}

/// Cross-entropy against soft targets, mean over the batch: `[1]`.
#[must_use]
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    (activation::log_softmax(logits, 1) * targets).sum_dim(1).mean().neg()
}

/// A tensor's values. Training runs on devices that answer at once.
pub(super) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    tensor.into_data().try_into_vec::<f32>().map_err(|_| Error::Device { stage: "training" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::intent::head::{HeadActivation, HeadAnswer, HeadPooling, HeadSpec, HeadWindow, IntentHead};
    use crate::intent::pooling::normalise_positions;
    use crate::intent::reader::Alphabet;
    use crate::weights::renamed::Renamed;
    use crate::weights::safetensors::Safetensors;
    use crate::weights::to_safetensors;

    const SHAPE: HeadShape = HeadShape {
        n_layers: 3,
        n_state: 8,
        d_projector: 6,
        n_context: 2,
        context_kernel: 5,
        d_attention: 5,
        n_pool: 2,
        d_hidden: 7,
        n_classes: 4,
        n_letters: 3,
    };
    const LETTERS: &str = "abc";

    fn written(head: &TrainableHead) -> Safetensors {
        let tensors = head.tensors().unwrap();
        let named: Vec<(&str, Vec<usize>, Vec<f32>)> =
            tensors.iter().map(|(name, shape, values)| (name.as_str(), shape.clone(), values.clone())).collect();
        Safetensors::from_bytes(to_safetensors(&named), "model.safetensors").unwrap()
    }

    fn states(n_positions: usize, seed: u64) -> Vec<Tensor<3>> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut one = || {
            let values: Vec<f32> = (0..n_positions * 8).map(|_| 3.0 * rng.f32() - 1.0).collect();
            Tensor::<3>::from_data(TensorData::new(values, [1, n_positions, 8]), &Device::flex())
        };
        (0..3).map(|_| one()).collect()
    }

    /// Clips of 5 and 3 positions in one batch, the second padded with rubbish.
    fn batch(clips: &[Vec<Tensor<3>>], device: &Device) -> Batch {
        let n_positions = clips.iter().map(|c| c[0].dims()[1]).max().unwrap();
        let mut states = vec![vec![7.0f32; clips.len() * n_positions * 8]; 3];
        let mut mask = vec![0.0f32; clips.len() * n_positions];
        for (at, clip) in clips.iter().enumerate() {
            for (layer, state) in clip.iter().enumerate() {
                let start = at * n_positions * 8;
                let row = values(normalise_positions(state.clone())).unwrap();
                states[layer][start..start + row.len()].copy_from_slice(&row);
                mask[at * n_positions..][..row.len() / 8].fill(1.0);
            }
        }
        Batch {
            states: states
                .into_iter()
                .map(|values| Tensor::from_data(TensorData::new(values, [clips.len() * n_positions, 8]), device))
                .collect(),
            mask: Tensor::from_data(TensorData::new(mask, [clips.len(), n_positions, 1]), device),
            targets: Tensor::zeros([clips.len(), 4], device),
            dropout: None,
        }
    }

    /// The head that is served, on one clip.
    fn served(head: &TrainableHead, states: Vec<Tensor<3>>) -> HeadAnswer {
        let spec = HeadSpec {
            n_state: 8,
            n_layer: 2,
            window: HeadWindow::Fitted,
            activation: HeadActivation::Relu,
            pooling: HeadPooling::AttentiveStatistics { position_stride: 1 },
            alphabet: Alphabet::of([LETTERS].into_iter()),
        };
        let source = written(head);
        let names = source.names().into_iter().map(|name| (format!("head.{name}"), name)).collect();
        let source = Renamed::new(std::sync::Arc::new(source), names);
        let expected = IntentHead::expected_tensors(&spec, &source).unwrap();
        let checkpoint = Checkpoint::new(&source, &expected, |_| false).unwrap();
        let head = IntentHead::load(spec, &checkpoint, &source, &Device::flex()).unwrap();
        match std::pin::pin!(head.classify(states)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer.unwrap().remove(0),
            Poll::Pending => panic!("the CPU does not wait"),
        }
    }

    #[test]
    fn a_trained_head_answers_as_it_did_in_training() {
        for d_hidden in [0, 7] {
            let head = HeadShape { d_hidden, ..SHAPE }.init(1, &Device::flex()).unwrap();
            let clips = [states(5, 1), states(3, 2), states(1, 3)];
            let together = head.forward(&batch(&clips, &Device::flex()));
            let (logits, letters) = (values(together.logits).unwrap(), values(together.letters.unwrap()).unwrap());
            for ((clip, logits), letters) in clips.into_iter().zip(logits.chunks(4)).zip(letters.chunks(5 * 4)) {
                let n_positions = clip[0].dims()[1];
                let answer = served(&head, clip);
                let written = Alphabet::of([LETTERS].into_iter()).collapse(&letters[..n_positions * 4]);
                assert_eq!(answer.letters, Some(written));
                let alone = answer.logits;
                for (a, b) in alone.iter().zip(logits) {
                    assert!((a - b).abs() < 1e-5, "{alone:?} {logits:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let device = Device::flex();
        let head = SHAPE.init(3, &device).unwrap();
        let again = SHAPE.read(&written(&head), &device).unwrap();
        assert_eq!(head.tensors().unwrap(), again.tensors().unwrap());
        assert_ne!(head.tensors().unwrap(), SHAPE.init(4, &device).unwrap().tensors().unwrap());
        let narrower = HeadShape { d_attention: 4, ..SHAPE };
        assert_eq!(narrower.read(&written(&head), &device).unwrap_err().code(), "weight_mismatch");
        assert_eq!(HeadShape { n_pool: 4, ..SHAPE }.init(1, &device).unwrap_err().code(), "invalid_parameter");
    }

    #[test]
    fn functions_and_their_slopes_are_burns() {
        type Function = fn(Tensor<3>) -> Tensor<3>;
        let device = Device::flex().autodiff();
        let at: Vec<f32> = (-60..=60).map(|at| at as f32 * 0.1).chain([-1e4, -40.0, 40.0, 1e4]).collect();
        let answer = |function: Function| {
            let x = Tensor::<3>::from_data(TensorData::new(at.clone(), [1, at.len(), 1]), &device).require_grad();
            let y = function(x.clone());
            let gradients = y.clone().sum().backward();
            (values(y).unwrap(), values(x.grad(&gradients).unwrap()).unwrap())
        };
        let pairs: [(Function, Function); 2] = [(gelu, activation::gelu), (tanh, Tensor::tanh)];
        for (ours, theirs) in pairs.map(|(ours, theirs)| (answer(ours), answer(theirs))) {
            for (ours, theirs) in ours.0.iter().zip(&theirs.0).chain(ours.1.iter().zip(&theirs.1)) {
                assert!((ours - theirs).abs() < 2e-6, "{ours} is not {theirs}");
            }
        }
    }

    /// Central differences on the loss against the derivative that autodiff gives.
    #[test]
    fn gradients_are_those_of_the_loss() {
        let device = Device::flex().autodiff();
        let targets =
            Tensor::<2>::from_data(TensorData::new(vec![0.1f32, 0.7, 0.1, 0.1, 1.0, 0.0, 0.0, 0.0], [2, 4]), &device);
        let batch = Batch { targets, ..batch(&[states(4, 5), states(2, 6)], &device) };
        let head = SHAPE.init(5, &device).unwrap();
        let loss = |head: &TrainableHead| {
            values(cross_entropy(head.forward(&batch).logits, batch.targets.clone())).unwrap()[0]
        };
        let gradients = cross_entropy(head.forward(&batch).logits, batch.targets.clone()).backward();
        let gradient = values(head.layer_weights.val().grad(&gradients).unwrap()).unwrap();
        for (at, gradient) in gradient.iter().enumerate() {
            let moved = |by: f32| {
                let mut moved = head.clone();
                let mut weights = values(head.layer_weights.val()).unwrap();
                weights[at] += by;
                moved.layer_weights =
                    Param::initialized(ParamId::from(1), Tensor::from_data(TensorData::new(weights, [3]), &device));
                f64::from(loss(&moved))
            };
            let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((expected - f64::from(*gradient)).abs() < 1e-4, "{at}: {gradient}, expected {expected}");
        }
    }
}
