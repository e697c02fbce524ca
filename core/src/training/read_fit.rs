//! Training of a head's reader ([`crate::intent::reader`]): from letters to intents.
//!
//! It learns from three kinds of letters: those that the head itself heard in the training clips, the true ones of these
//! clips, and sentences that nobody spoke. True letters are damaged before they are learned from, in each epoch anew, as
//! the head damages them: [`Confusions`] counts what it wrote for what was said. A reader that only met clean text would
//! be lost on what a head writes.
//!
//! AdamW with a cosine, as in [`super::fit`], without checkpoints: it takes a minute, and begins anew after a kill.

use std::collections::BTreeMap;

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, Param, ParamId};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

use super::batches::{dropped_out, smoothed};
use super::fit::cosine;
use super::model::{NamedTensor, cross_entropy, values};
use crate::error::{Error, Result};
use crate::intent::reader::{Reader, n_grams, spaced, transposed};

/// Letters of a sentence that are compared: the comparison takes their square.
const MAX_COMPARED: usize = 200;
/// Shares of the head's own error rate that a sentence is damaged with, one of them each time.
pub const DAMAGE: [f64; 4] = [0.0, 0.3, 0.6, 1.0];
/// The same for a head that writes words: it puts wrong words down, not wrong letters, and those that it heard show which.
pub const DAMAGE_OF_WORDS: [f64; 4] = [0.0, 0.0, 0.0, 0.3];
/// Letters of a scrap.
const MAX_SCRAP: usize = 12;

/// What a reader is made and trained with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadOptions {
    /// N-grams that it tells apart.
    pub n_buckets: usize,
    /// Width of its hidden layer.
    pub d_hidden: usize,
    /// Rounds over all sentences.
    pub epochs: usize,
    /// Sentences of one step.
    pub batch_size: usize,
    /// At its height.
    pub learning_rate: f64,
    /// AdamW's.
    pub weight_decay: f32,
    /// Share of the n-grams that are left out at random.
    pub p_mask: f32,
    /// Share of the hidden layer that is left out at random.
    pub dropout: f32,
    /// Probability that belongs to all other classes together.
    pub label_smoothing: f32,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            n_buckets: 8192,
            d_hidden: 96,
            epochs: 16,
            batch_size: 256,
            learning_rate: 3e-3,
            weight_decay: 1e-2,
            p_mask: 0.1,
            dropout: 0.3,
            label_smoothing: 0.05,
        }
    }
}

/// Letters to learn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// As they are written.
    pub letters: String,
    /// A label, or a rejection class behind them.
    pub class: usize,
    /// Whether they are what a head heard; others are damaged before they are learned from.
    pub is_heard: bool,
}

/// Scraps of up to [`MAX_SCRAP`] letters, as a head writes them for a door or a cough: none of them is a command. Without
/// them a reader would make a command of any letter.
#[must_use]
pub fn scraps(sentences: &[Sentence], n: usize, classes: &[usize], seed: u64) -> Vec<Sentence> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let letters: Vec<char> = sentences.iter().flat_map(|sentence| sentence.letters.chars()).collect();
    (0..n)
        .filter_map(|at| {
            let class = *classes.get(at % classes.len().max(1))?;
            let scrap: String =
                (0..rng.usize(0..=MAX_SCRAP)).filter_map(|_| letters.get(rng.usize(..letters.len().max(1)))).collect();
            Some(Sentence { letters: spaced(&scrap), class, is_heard: true })
        })
        .collect()
}

/// What a head writes for what is said, letter by letter.
#[derive(Debug, Clone, Default)]
pub struct Confusions {
    /// For each letter, what was written in its place (nothing, or a letter), with how often.
    instead: BTreeMap<char, Vec<(Option<char>, u32)>>,
    /// For each letter, what was written behind it that nobody said.
    behind: BTreeMap<char, Vec<(char, u32)>>,
}

impl Confusions {
    /// Counts the cheapest alignment (Levenshtein) of each pair of said and written letters.
    #[must_use]
    pub fn count<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut instead: BTreeMap<char, BTreeMap<Option<char>, u32>> = BTreeMap::new();
        let mut behind: BTreeMap<char, BTreeMap<char, u32>> = BTreeMap::new();
        for (said, written) in pairs {
            let mut last = None;
            for step in align(said, written) {
                match step {
                    (Some(said), written) => {
                        *instead.entry(said).or_default().entry(written).or_default() += 1;
                        last = Some(said);
                    }
                    (None, Some(written)) => {
                        if let Some(last) = last {
                            *behind.entry(last).or_default().entry(written).or_default() += 1;
                        }
                    }
                    (None, None) => {}
                }
            }
        }
        Self {
            instead: instead.into_iter().map(|(said, counts)| (said, counts.into_iter().collect())).collect(),
            behind: behind.into_iter().map(|(said, counts)| (said, counts.into_iter().collect())).collect(),
        }
    }

    /// A sentence as a head may write it that errs `share` times as often as the one that was counted.
    #[must_use]
    pub fn damage(&self, letters: &str, share: f64, rng: &mut fastrand::Rng) -> String {
        let mut damaged = String::with_capacity(letters.len());
        for letter in letters.chars() {
            let counts = self.instead.get(&letter).map_or(&[][..], Vec::as_slice);
            let n: u32 = counts.iter().map(|(_, n)| n).sum();
            match drawn(counts, rng).filter(|_| rng.f64() < share) {
                Some(written) => damaged.extend(written),
                None => damaged.push(letter),
            }
            let more = self.behind.get(&letter).map_or(&[][..], Vec::as_slice);
            let n_more: u32 = more.iter().map(|(_, n)| n).sum();
            if n > 0 && rng.f64() < share * f64::from(n_more) / f64::from(n) {
                damaged.extend(drawn(more, rng));
            }
        }
        spaced(&damaged)
    }
}

/// One of them, each as often as it was counted.
fn drawn<T: Copy>(counts: &[(T, u32)], rng: &mut fastrand::Rng) -> Option<T> {
    let n: u32 = counts.iter().map(|(_, n)| n).sum();
    let mut at = if n == 0 { return None } else { rng.u32(..n) };
    for (value, count) in counts {
        match at.checked_sub(*count) {
            Some(rest) => at = rest,
            None => return Some(*value),
        }
    }
    None
}

/// The cheapest way from `said` to `written`: pairs, letters left out and letters put in.
fn align(said: &str, written: &str) -> Vec<(Option<char>, Option<char>)> {
    let said: Vec<char> = said.chars().take(MAX_COMPARED).collect();
    let written: Vec<char> = written.chars().take(MAX_COMPARED).collect();
    let width = written.len() + 1;
    let mut cost = vec![0u32; (said.len() + 1) * width];
    for i in 0..=said.len() {
        for j in 0..=written.len() {
            cost[i * width + j] = match (i, j) {
                (0, n) | (n, 0) => n as u32,
                _ => {
                    let change = u32::from(said[i - 1] != written[j - 1]);
                    let pair = cost[(i - 1) * width + j - 1] + change;
                    pair.min(cost[(i - 1) * width + j] + 1).min(cost[i * width + j - 1] + 1)
                }
            };
        }
    }
    let (mut i, mut j) = (said.len(), written.len());
    let mut steps = Vec::new();
    while i > 0 || j > 0 {
        let here = cost[i * width + j];
        if i > 0 && j > 0 && here == cost[(i - 1) * width + j - 1] + u32::from(said[i - 1] != written[j - 1]) {
            (i, j) = (i - 1, j - 1);
            steps.push((Some(said[i]), Some(written[j])));
        } else if i > 0 && here == cost[(i - 1) * width + j] + 1 {
            i -= 1;
            steps.push((Some(said[i]), None));
        } else {
            j -= 1;
            steps.push((None, Some(written[j])));
        }
    }
    steps.reverse();
    steps
}

#[derive(Module, Debug)]
struct TrainableReader {
    /// `[n_buckets, d_hidden]`
    embedding: Param<Tensor<2>>,
    /// `[d_hidden]`
    bias: Param<Tensor<1>>,
    /// `[d_hidden, n_classes]`
    classifier: Param<Tensor<2>>,
}

impl TrainableReader {
    fn init(options: &ReadOptions, n_classes: usize, rng: &mut fastrand::Rng, device: &Device) -> Self {
        let mut next = 0;
        let mut uniform = |shape: [usize; 2], bound: f32| {
            next += 1;
            let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| (2.0 * rng.f32() - 1.0) * bound).collect();
            let tensor = Tensor::<2>::from_data(TensorData::new(values, shape), device).require_grad();
            Param::initialized(ParamId::from(next), tensor)
        };
        let d = options.d_hidden;
        Self {
            // N-grams weigh little each: a sentence of 100 brings the hidden layer to about ±0.5.
            embedding: uniform([options.n_buckets, d], 0.5),
            classifier: uniform([d, n_classes], 1.0 / (d as f32).sqrt()),
            bias: Param::initialized(ParamId::from(9), Tensor::<1>::zeros([d], device).require_grad()),
        }
    }

    /// `[batch, n_buckets]` to `[batch, n_classes]`.
    fn forward(&self, grams: Tensor<2>, dropout: Tensor<2>) -> Tensor<2> {
        let d = self.bias.val().dims()[0];
        let hidden = activation::relu(grams.matmul(self.embedding.val()) + self.bias.val().reshape([1, d]));
        (hidden * dropout).matmul(self.classifier.val())
    }
}

/// Trains a reader. What nobody heard is damaged by the confusions, at one of the shares of `damage`. `progress` is told
/// how many of how many steps are done, and a step's loss.
///
/// # Errors
/// [`Error::InvalidParameter`] without a sentence, or with options that make no reader; [`Error::NotFinite`].
pub fn fit_reader(
    sentences: &[Sentence],
    (confusions, damage): (&Confusions, &[f64]),
    n_classes: usize,
    options: &ReadOptions,
    seed: u64,
    progress: &mut dyn FnMut(usize, usize, f32),
) -> Result<Reader> {
    let ReadOptions { n_buckets, d_hidden, epochs, batch_size, .. } = *options;
    if sentences.is_empty() || [n_buckets, d_hidden, epochs, batch_size, n_classes].contains(&0) {
        let allowed = "give sentences to learn from, and a width, epochs and a batch of 1 at least".to_owned();
        return Err(Error::InvalidParameter { name: "reader", allowed });
    }
    let device = Device::flex().autodiff();
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5EAD);
    let mut model = TrainableReader::init(options, n_classes, &mut rng, &device);
    let mut optimiser = AdamWConfig::new().with_weight_decay(options.weight_decay).with_epsilon(1e-8).init();
    let n_steps = epochs * sentences.len().div_ceil(batch_size);
    let mut step = 0;
    for _ in 0..epochs {
        let mut order: Vec<usize> = (0..sentences.len()).collect();
        rng.shuffle(&mut order);
        for chunk in order.chunks(batch_size) {
            let mut grams = vec![0.0f32; chunk.len() * n_buckets];
            let classes = chunk.iter().map(|at| sentences[*at].class);
            let targets = smoothed(classes, n_classes, options.label_smoothing);
            for (at, sentence) in chunk.iter().map(|at| &sentences[*at]).enumerate() {
                let damaged = match sentence.is_heard {
                    true => sentence.letters.clone(),
                    false => {
                        let share = rng.choice(damage).copied().unwrap_or(0.0);
                        confusions.damage(&sentence.letters, share, &mut rng)
                    }
                };
                for (bucket, weight) in n_grams(&damaged, n_buckets) {
                    if rng.f32() >= options.p_mask {
                        grams[at * n_buckets + bucket] = weight;
                    }
                }
            }
            let dropout = dropped_out(chunk.len() * d_hidden, options.dropout, &mut rng);
            let tensor = |values: Vec<f32>, width: usize| {
                Tensor::<2>::from_data(TensorData::new(values, [chunk.len(), width]), &device)
            };
            let logits = model.forward(tensor(grams, n_buckets), tensor(dropout, d_hidden));
            let loss = cross_entropy(logits, tensor(targets, n_classes));
            let value = values(loss.clone())?[0];
            if !value.is_finite() {
                return Err(Error::NotFinite { stage: "the reader's loss" });
            }
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            let done = (step as f64 + 0.5) / n_steps as f64;
            let rate = options.learning_rate * cosine(done);
            model = optimiser.step(ModuleLearningRate::from(rate), model, gradients);
            step += 1;
            progress(step, n_steps, value);
        }
    }
    Ok(Reader {
        embedding: values(model.embedding.val())?,
        bias: values(model.bias.val())?,
        classifier: transposed(&values(model.classifier.val())?, d_hidden),
    })
}

/// A reader's tensors as a head's file has them.
#[must_use]
pub fn reader_tensors(reader: &Reader) -> Vec<NamedTensor> {
    let d = reader.bias.len();
    let (n_buckets, n_classes) = (reader.embedding.len() / d.max(1), reader.classifier.len() / d.max(1));
    let weight = transposed(&reader.embedding, n_buckets);
    vec![
        ("reader.weight".to_owned(), vec![d, n_buckets], weight),
        ("reader.bias".to_owned(), vec![d], reader.bias.clone()),
        ("reader_classifier.weight".to_owned(), vec![n_classes, d], reader.classifier.clone()),
    ]
}

impl Reader {
    /// From [`reader_tensors`].
    ///
    /// # Panics
    /// If they are others.
    #[must_use]
    pub fn from_tensors(tensors: &[NamedTensor]) -> Self {
        let [(_, _, weight), (_, _, bias), (_, _, classifier)] = tensors else {
            panic!("a reader has three tensors");
        };
        Self::new(weight, bias.clone(), classifier.clone())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn options() -> ReadOptions {
        ReadOptions { n_buckets: 256, d_hidden: 16, epochs: 150, batch_size: 8, dropout: 0.1, ..ReadOptions::default() }
    }

    fn sentences() -> Vec<Sentence> {
        let texts = [
            ("fa yei to cart no mu", 0),
            ("to cart no mu", 0),
            ("de yi ka ho", 0),
            ("add this to cart", 0),
            ("yi yei firi cart no mu", 1),
            ("remove yei", 1),
            ("yi firi mu", 1),
            ("take it out", 1),
            ("ɛte sɛn", 2),
            ("me ho yɛ", 2),
            ("ɔyɛ me nua", 2),
            ("yɛbɛhyia ɔkyena", 2),
        ];
        let sentence =
            |(letters, class): (&str, usize)| Sentence { letters: letters.to_owned(), class, is_heard: false };
        texts.into_iter().map(sentence).collect()
    }

    fn best(logits: &[f32]) -> usize {
        (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
    }

    #[test]
    fn it_reads_what_it_learned_and_what_is_like_it() {
        let confusions = Confusions::count([("cart no", "cat no")].into_iter());
        let mut steps = Vec::new();
        let reader = fit_reader(&sentences(), (&confusions, &DAMAGE), 3, &options(), 1, &mut |step, of, loss| {
            steps.push((step, of, loss));
        })
        .unwrap();
        for sentence in sentences() {
            assert_eq!(best(&reader.logits(&sentence.letters)), sentence.class, "{}", sentence.letters);
        }
        assert_eq!(best(&reader.logits("to me cat no mu")), 0);
        assert_eq!(best(&reader.logits("remov yei firi mu")), 1);
        assert_eq!(steps.len(), 150 * 2);
        assert_eq!((steps[299].0, steps[299].1), (300, 300));
        assert!(steps[299].2 < steps[0].2 / 2.0);
        let again = fit_reader(&sentences(), (&confusions, &DAMAGE), 3, &options(), 1, &mut |_, _, _| {}).unwrap();
        assert_eq!(reader, again);
        assert_eq!(Reader::from_tensors(&reader_tensors(&reader)), reader);
        let [weight, bias, classifier] = reader_tensors(&reader).try_into().unwrap();
        assert_eq!((weight.1, bias.1, classifier.1), (vec![16, 256], vec![16], vec![3, 16]));
        assert_eq!(weight.2[256 + 3], reader.embedding[3 * 16 + 1]);
    }

    #[test]
    fn scraps_are_short_and_of_the_given_classes() {
        let scraps = scraps(&sentences(), 50, &[3, 4], 1);
        assert_eq!(scraps.len(), 50);
        assert!(scraps.iter().all(|s| s.is_heard && s.letters.chars().count() <= MAX_SCRAP));
        assert_eq!(scraps.iter().filter(|s| s.class == 3).count(), 25);
        assert!(super::scraps(&[], 2, &[3], 1).iter().all(|s| s.letters.is_empty()));
        assert!(super::scraps(&sentences(), 2, &[], 1).is_empty());
    }

    #[test]
    fn what_cannot_be_trained_is_refused() {
        let none = Confusions::default();
        for (sentences, options) in [
            (Vec::new(), options()),
            (sentences(), ReadOptions { n_buckets: 0, ..options() }),
            (sentences(), ReadOptions { batch_size: 0, ..options() }),
        ] {
            let error = fit_reader(&sentences, (&none, &DAMAGE), 3, &options, 1, &mut |_, _, _| {}).unwrap_err();
            assert_eq!(error.code(), "invalid_parameter");
        }
    }

    #[test]
    fn damage_is_what_was_counted() {
        assert_eq!(
            align("kyew", "kew"),
            [(Some('k'), Some('k')), (Some('y'), None), (Some('e'), Some('e')), (Some('w'), Some('w'))]
        );
        assert_eq!(align("a", "ab"), [(Some('a'), Some('a')), (None, Some('b'))]);
        assert!(align("", "").is_empty());
        // "y" is never heard, "k" is doubled half of the time.
        let confusions = Confusions::count([("ky", "kk"), ("ky", "k")].into_iter());
        let mut rng = fastrand::Rng::with_seed(2);
        let damaged: Vec<String> = (0..200).map(|_| confusions.damage("ky", 1.0, &mut rng)).collect();
        let n_double = damaged.iter().filter(|text| *text == "kk").count();
        assert!(damaged.iter().all(|text| text == "kk" || text == "k"), "{damaged:?}");
        assert!((60..140).contains(&n_double), "{n_double}");
        assert_eq!(confusions.damage("ky", 0.0, &mut rng), "ky");
        assert_eq!(confusions.damage("öß ", 1.0, &mut rng), "öß");
    }
}
