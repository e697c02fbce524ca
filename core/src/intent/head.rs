//! An intent head: a classifier over the audio encoder's states, and what its answer is worth.
//!
//! Follows transformers 5.23 `modeling_whisper.py` `WhisperForAudioClassification` (weighted layer sum, projector, mean
//! over positions, classifier) and takes the other forms that repositories hold: a linear layer, or two with an
//! activation in between, on the mean of the last states. The tensors have house names, which the loader gives to each
//! repository's own:
//!
//! | tensor | shape | |
//! |---|---|---|
//! | `head.layer_weights` | `[n_layer + 1]` | optional: all hidden states are summed by its softmax; attentive pooling: the last ones, if there are fewer |
//! | `head.projector.weight`, `.bias` | `[d, n_state]`, `[d]` | optional: linear, before pooling |
//! | `head.context.weight`, `.bias` | `[d, d, k]`, `[d]` | attentive pooling only: convolution, gelu and residual; k odd. Then `head.context_2`, … |
//! | `head.attention.weight`, `.bias` | `[a, d]`, `[a]` | attentive pooling only: linear and tanh |
//! | `head.scores.weight`, `.bias` | `[n_pool, a]`, `[n_pool]` | attentive pooling only: a score per position and pool |
//! | `head.hidden.weight`, `.bias` | `[h, d]` or `[h, 2 d]`, `[h]` | optional: linear and activation, after pooling |
//! | `head.classifier.weight`, `.bias` | `[n_classes, h]`, `[n_classes]` | |
//! | `head.letters.weight`, `.bias` | `[1 + n_letters, d]`, `[1 + n_letters]` | attentive pooling only, optional: a letter for each position |
//! | `head.reader.weight`, `.bias` | `[r, n_buckets]`, `[r]` | with letters, optional: embeddings of their n-grams |
//! | `head.reader_classifier.weight` | `[n_classes, r]` | with the reader: added to the classifier's logits |
//!
//! Each bias is optional. Two ways to one vector ([`HeadPooling`]):
//! - **mean**, transformers' own. One deviation: the mean over positions is taken first. The layer sum and the projector
//!   are linear, so the answer is the same but for rounding, and they meet one row instead of 1500.
//! - **attentive statistics**, this project's ([`super::pooling`]): states averaged over a few positions, normalised,
//!   summed, projected, seen with their neighbours, then weighted mean and deviation. Such a head may also write down the
//!   letters that it hears and judge by what they say ([`super::reader`]); with `sentences.txt` beside its tensors it
//!   writes the words that are said there ([`super::lexicon`]).
//!
//! What the logits are worth is said by [`super::calibration`].

use burn::tensor::{Device, FloatDType, Tensor, activation};

use crate::error::{Error, Result};
use crate::intent::calibration::softmax;
use crate::intent::pooling::{attentive_statistics, average_positions, normalise_positions};
use crate::intent::reader::{Alphabet, Reader};
use crate::kernels::{self, Activation, Conv1d, Conv1dShape, Linear};
use crate::weights::{Checkpoint, WeightSource, n_elements};
use crate::whisper::config::invalid;

/// Most classes that a head may have.
pub const MAX_LABELS: usize = 100_000;
/// Wider than any Whisper; keeps a hostile head from asking for all memory.
const MAX_WIDTH: usize = 16_384;

const LAYER_WEIGHTS: &str = "head.layer_weights";
/// Most context convolutions, one after the other.
pub const MAX_CONTEXTS: usize = 4;
/// Most positions that a context convolution sees.
const MAX_CONTEXT_KERNEL: usize = 31;
/// Most n-grams that a reader tells apart.
const MAX_BUCKETS: usize = 1 << 20;
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

impl HeadActivation {
    /// As `config.json` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Gelu => "gelu",
            Self::Tanh => "tanh",
        }
    }
}

/// What a head stands on, and what its tensors do not tell.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    /// What `head.letters` names; empty where there is none.
    pub alphabet: Alphabet,
}

/// A classifier over the encoder's states.
#[derive(Debug, Clone)]
pub struct IntentHead {
    spec: HeadSpec,
    /// Of the last hidden states, their softmax
    layer_weights: Option<Vec<f32>>,
    projector: Option<Linear>,
    attention: Option<Attention>,
    hidden: Option<Linear>,
    classifier: Linear,
    reader: Option<Reader>,
    n_parameters: u64,
}

/// A head's answer to one clip.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeadAnswer {
    /// `[n_classes]`
    pub logits: Vec<f32>,
    /// The letters that it heard; `None` from a head that writes none.
    pub letters: Option<String>,
}

/// The name of the n-th context convolution, from 0.
pub(crate) fn context_name(at: usize) -> String {
    if at == 0 { "context".to_owned() } else { format!("context_{}", at + 1) }
}

/// What attentive pooling has of its own.
#[derive(Debug, Clone)]
struct Attention {
    position_stride: usize,
    contexts: Vec<Conv1d>,
    hidden: Linear,
    scores: Linear,
    letters: Option<Linear>,
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
        let is_attentive = spec.pooling != HeadPooling::Mean;
        if let Some(shape) = shape_of(LAYER_WEIGHTS) {
            let n_states = match shape.as_slice() {
                [n] if is_attentive && (1..=spec.n_layer).contains(n) => *n,
                _ => spec.n_layer + 1,
            };
            tensors.push((LAYER_WEIGHTS.to_owned(), vec![n_states]));
        }
        // (layer, most rows, whether it must be there), each on what the one before gives
        let layers: Vec<(String, usize, bool)> = match spec.pooling {
            HeadPooling::Mean => vec![
                ("projector".to_owned(), MAX_WIDTH, false),
                ("hidden".to_owned(), MAX_WIDTH, false),
                ("classifier".to_owned(), MAX_LABELS, true),
            ],
            HeadPooling::AttentiveStatistics { .. } => [("projector".to_owned(), MAX_WIDTH, true)]
                .into_iter()
                .chain((0..MAX_CONTEXTS).map(|at| (context_name(at), MAX_WIDTH, false)))
                .chain([
                    ("attention".to_owned(), MAX_WIDTH, true),
                    ("scores".to_owned(), MAX_WIDTH, true),
                    ("hidden".to_owned(), MAX_WIDTH, false),
                    ("classifier".to_owned(), MAX_LABELS, true),
                ])
                .collect(),
        };
        let mut d_input = spec.n_state;
        let mut d_pooled = 0;
        for (layer, max_rows, is_needed) in layers {
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
            let is_context = layer.starts_with("context");
            let needed_rows = match layer.as_str() {
                // The residual goes around it.
                _ if is_context => Some(d_input),
                // Each pool has its own share of the channels.
                "scores" if d_pooled % n_rows != 0 => Some(d_pooled),
                _ => None,
            };
            let n_rows = needed_rows.unwrap_or(n_rows);
            let kernel = is_context.then(|| match shape.get(2) {
                Some(k) if k % 2 == 1 && *k <= MAX_CONTEXT_KERNEL => *k,
                _ => 3,
            });
            tensors.push((weight, [n_rows, d_input].into_iter().chain(kernel).collect()));
            if bias_shape.is_some() {
                tensors.push((bias, vec![n_rows]));
            }
            d_input = n_rows;
            if is_attentive {
                match layer.as_str() {
                    "projector" => d_pooled = n_rows,
                    "scores" => d_input = 2 * d_pooled,
                    "classifier" => tensors.extend(letter_tensors(spec, weights, d_pooled, n_rows)?),
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
                let mut contexts = Vec::new();
                for name in (0..MAX_CONTEXTS).map(context_name) {
                    let (weight, bias) = (format!("head.{name}.weight"), format!("head.{name}.bias"));
                    let Some((_, shape)) = expected.iter().find(|(n, _)| *n == weight) else { continue };
                    let shape = Conv1dShape {
                        d_input: shape[1],
                        d_output: shape[0],
                        kernel_size: shape[2],
                        stride: 1,
                        padding: shape[2] / 2,
                        groups: 1,
                    };
                    let bias = n_rows_of(&bias).map(|_| checkpoint.take(&bias)).transpose()?;
                    contexts.push(Conv1d::new(&checkpoint.take(&weight)?, bias, shape, device));
                }
                let there = "expected_tensors names it or fails";
                Some(Attention {
                    position_stride,
                    contexts,
                    hidden: linear("attention")?.expect(there),
                    scores: linear("scores")?.expect(there),
                    letters: linear("letters")?,
                })
            }
        };
        let reader = match n_rows_of("head.reader.weight") {
            None => None,
            Some(_) => Some(Reader::new(
                &checkpoint.take("head.reader.weight")?,
                checkpoint.take("head.reader.bias")?,
                checkpoint.take("head.reader_classifier.weight")?,
            )),
        };
        Ok(Self {
            spec,
            attention,
            reader,
            layer_weights: layer_weights.as_deref().map(softmax),
            projector: linear("projector")?,
            hidden: linear("hidden")?,
            classifier: linear("classifier")?.expect("expected_tensors names the classifier or fails"),
            n_parameters: expected.iter().map(|(_, shape)| n_elements(shape)).sum(),
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

    /// The answer to each item of the batch.
    ///
    /// # Shapes
    /// - states: one `[batch, n_ctx, n_state]`, or `n_layer + 1` of them if [`IntentHead::needs_all_states`]
    /// - result: `batch` answers
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for other states, [`Error::NotFinite`] if a logit is not a number, [`Error::Device`].
    pub async fn classify(&self, mut states: Vec<Tensor<3>>) -> Result<Vec<HeadAnswer>> {
        let shares = self.layer_weights.as_deref().unwrap_or(&[1.0]);
        let n_states = if self.needs_all_states() { self.spec.n_layer + 1 } else { 1 };
        if states.len() != n_states {
            let (expected, got) = (vec![n_states], vec![states.len()]);
            return Err(Error::ShapeMismatch { tensor: "the list of encoder states", expected, got });
        }
        states.drain(..n_states - shares.len());
        let [batch, n_ctx, _] = states[0].dims();
        let expected = [batch.max(1), n_ctx.max(1), self.spec.n_state];
        if let Some(got) = states.iter().map(|s| s.dims()).find(|got| *got != expected) {
            return Err(Error::ShapeMismatch {
                tensor: "encoder states",
                expected: expected.to_vec(),
                got: got.to_vec(),
            });
        }
        let (mut x, letters) = match &self.attention {
            None => (self.mean(states, shares), None),
            Some(attention) => self.attend(attention, states, shares),
        }; // [batch, 1, d], [batch, n_positions, 1 + n_letters]
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
        let mut answers: Vec<HeadAnswer> =
            values.chunks(self.n_classes()).map(|row| HeadAnswer { logits: row.to_vec(), letters: None }).collect();
        if let Some(letters) = letters {
            let scores = kernels::read(letters, "letters").await?;
            for (answer, scores) in answers.iter_mut().zip(scores.chunks(scores.len() / batch)) {
                let letters = self.spec.alphabet.spell(scores);
                if let Some(reader) = &self.reader {
                    answer.logits.iter_mut().zip(reader.logits(&letters)).for_each(|(logit, more)| *logit += more);
                }
                answer.letters = Some(letters);
            }
        }
        if answers.iter().any(|answer| answer.logits.iter().any(|v| !v.is_finite())) {
            return Err(Error::NotFinite { stage: "intent head" });
        }
        Ok(answers)
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

    /// `[batch, n_ctx, n_state]` each to weighted mean and deviation, `[batch, 1, 2 d]`, and to the letters' scores,
    /// `[batch, n_positions, 1 + n_letters]`.
    fn attend(&self, attention: &Attention, states: Vec<Tensor<3>>, shares: &[f32]) -> (Tensor<3>, Option<Tensor<3>>) {
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
        for context in &attention.contexts {
            x = x.clone() + context.forward(x, Activation::Gelu);
        }
        let letters = attention.letters.as_ref().map(|letters| letters.forward(x.clone(), Activation::None));
        let hidden = activation::tanh(attention.hidden.forward(x.clone(), Activation::None));
        let scores = attention.scores.forward(hidden, Activation::None); // [batch, n_positions, n_pool]
        let single = |x: Tensor<3>| x.cast(FloatDType::F32);
        (attentive_statistics(single(x), single(scores), None).cast(dtype), letters)
    }
}

/// The tensors that write letters and read them, where they are there.
fn letter_tensors(
    spec: &HeadSpec,
    weights: &dyn WeightSource,
    d: usize,
    n_classes: usize,
) -> Result<Vec<(String, Vec<usize>)>> {
    if spec.alphabet.is_empty() {
        // A head's letters without their names would be thrown away unseen.
        return match weights.shape("head.letters.weight") {
            Some(_) => Err(invalid("config.json", "the head names letters, but \"letters\" is missing".to_owned())),
            None => Ok(Vec::new()),
        };
    }
    let n_letters = spec.alphabet.len() + 1;
    let mut tensors =
        vec![("head.letters.weight".to_owned(), vec![n_letters, d]), ("head.letters.bias".to_owned(), vec![n_letters])];
    if let Some(shape) = weights.shape("head.reader.weight") {
        let (d_reader, n_buckets) = match shape.as_slice() {
            [d, n] if (1..=MAX_WIDTH).contains(d) && (1..=MAX_BUCKETS).contains(n) => (*d, *n),
            _ => {
                let expected =
                    format!("head.reader.weight: expected [1 to {MAX_WIDTH}, 1 to {MAX_BUCKETS}], got {shape:?}");
                return Err(mismatch(Vec::new(), vec![expected]));
            }
        };
        tensors.push(("head.reader.weight".to_owned(), vec![d_reader, n_buckets]));
        tensors.push(("head.reader.bias".to_owned(), vec![d_reader]));
        tensors.push(("head.reader_classifier.weight".to_owned(), vec![n_classes, d_reader]));
    }
    Ok(tensors)
}

fn mismatch(missing: Vec<String>, misshapen: Vec<String>) -> Error {
    Error::WeightMismatch { missing, unused: Vec::new(), misshapen }
}

#[cfg(test)]
mod tests;
