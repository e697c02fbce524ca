//! From a manifest to heads: features, training, calibration, fusion, in the order in which they need each other.
//!
//! Everything slow is kept in the run's folder and found again: encoder states in `cache`, checkpoints in
//! `seed-N/checkpoints`, those of adapters in `seed-N/lora/checkpoints`, transcripts in `words.jsonl`. A run that was
//! killed is started again by the same command and ends with the same heads.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::batches::TrainingClip;
use super::calibrate::{HeardAndWritten, Outcome, TradeOff, Truth, calibrate, fit_fusion, fit_reader_weight};
use super::evaluation::EpochPoint;
use super::export::{REJECTION_CLASSES, TrainedHead, TrainedLora, rounded};
use super::feature_store::{FeatureKey, FeatureStore};
use super::features::{FeatureMaker, FeatureOptions, Sound, Wanted};
use super::fit::{FitEvent, FitOptions, RecordAnswer, TrainingSet, answers_of, checkpoint_folder, fit, in_memory};
use super::lora::FrozenLayers;
use super::lora_fit::{LoraInputs, LoraOptions, LoraStart, fit_lora, lora_answers};
use super::manifest::{Example, Manifest};
use super::model::{HeadShape, NamedTensor};
use super::noise::NoiseKind;
use super::phrases::Phrase;
use super::read_fit::{Confusions, DAMAGE, DAMAGE_OF_WORDS, ReadOptions, Sentence, fit_reader, reader_tensors, scraps};
use super::splits::{Cell, Splits};
use super::words::{Written, hex};
use crate::audio::SAMPLE_RATE_HZ;
use crate::error::Result;
use crate::intent::calibration::Calibration;
use crate::intent::label_id;
use crate::intent::reader::{Alphabet, Reader, spoken_letters};
use crate::weights::lora::LORA_PREFIX;

/// Kinds in a manifest that are no speech.
pub const NO_SPEECH_KINDS: [&str; 4] = ["noise", "music", "silence", "no_speech"];
/// Shortest and longest synthetic sound without speech.
const NOISE_SECONDS: [f64; 2] = [0.4, 6.0];
/// Clips that are mixed in as other people's talk.
const MAX_BABBLE_CLIPS: usize = 150;
/// A letter that is rarer in the training texts is not learned; clips with it are learned from without their letters.
const MIN_LETTER_COUNT: usize = 5;
/// Scraps of letters that a reader learns to turn down, beside its sentences.
const SHARE_OF_SCRAPS: f64 = 0.08;

/// What a run is made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainPlan {
    /// Stride, augmentation and its seed.
    pub features: FeatureOptions,
    /// Augmented copies of each clip, beside the clip itself.
    pub copies: usize,
    /// Synthetic sounds that are no speech.
    pub noise_clips: usize,
    /// Width after the projector.
    pub d_projector: usize,
    /// Convolutions over neighbouring positions.
    pub n_context: usize,
    /// Positions that each of them sees.
    pub context_kernel: usize,
    /// Width of the attention's hidden layer.
    pub d_attention: usize,
    /// Pools.
    pub n_pool: usize,
    /// Width of the layer before the classifier; 0 for none.
    pub d_hidden: usize,
    /// The loop.
    pub fit: FitOptions,
    /// The reader of the letters; `None`: the head writes no letters.
    pub reader: Option<ReadOptions>,
    /// Sentences of each wording that nobody spoke from which the head knows its words ([`crate::intent::lexicon`]), or the
    /// texts of the training clips where there are none such; 0: it writes letters as it hears them.
    #[serde(default)]
    pub sentences: usize,
    /// For the thresholds.
    pub trade_off: TradeOff,
    /// Adapters on the last encoder layers, trained together with the head after it was trained alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraOptions>,
}

impl TrainPlan {
    /// The head's widths, on `n_states` states of width `n_state`.
    #[must_use]
    pub fn shape(&self, n_states: usize, n_state: usize, n_labels: usize, n_letters: usize) -> HeadShape {
        HeadShape {
            n_layers: n_states,
            n_state,
            d_projector: self.d_projector,
            n_context: self.n_context,
            context_kernel: self.context_kernel,
            d_attention: self.d_attention,
            n_pool: self.n_pool,
            d_hidden: self.d_hidden,
            n_classes: n_labels + REJECTION_CLASSES.len(),
            n_letters,
        }
    }
}

/// What a head hears in records.
type Answers<'a> = dyn Fn(&[(FeatureKey, usize)]) -> Result<Vec<RecordAnswer>> + 'a;

/// A clip with what is to be learned from it.
#[derive(Debug, Clone)]
pub struct PlannedClip {
    /// What is heard.
    pub sound: Sound,
    /// What it is.
    pub truth: Truth,
    /// Its part of the data.
    pub cell: Cell,
    /// What is said, as [`spoken_letters`] gives it; `None`: not known.
    pub letters: Option<String>,
}

/// The clips of a manifest, and the synthetic sounds beside them.
#[must_use]
pub fn plan_clips(manifest: &Manifest, splits: &Splits, n_noise: usize, seed: u64) -> Vec<PlannedClip> {
    let mut clips: Vec<PlannedClip> = manifest
        .examples
        .iter()
        .zip(&splits.cells)
        .map(|(example, cell)| PlannedClip {
            sound: Sound::File { path: example.path.clone(), content: example.content },
            truth: truth_of(example),
            cell: *cell,
            letters: spoken_letters(&example.text).filter(|letters| !letters.is_empty()),
        })
        .collect();
    let mut rng = fastrand::Rng::with_seed(seed);
    let seconds = NOISE_SECONDS[1] - NOISE_SECONDS[0];
    clips.extend((0..n_noise).map(|at| PlannedClip {
        sound: Sound::Noise {
            kind: NoiseKind::ALL[at % NoiseKind::ALL.len()],
            n_samples: ((NOISE_SECONDS[0] + seconds * rng.f64()) * f64::from(SAMPLE_RATE_HZ)) as usize,
            seed: rng.u64(..),
        },
        truth: Truth::NoSpeech,
        cell: if rng.f64() < 0.2 { Cell::Validation } else { Cell::Train },
        letters: None,
    }));
    clips
}

/// What a line of a manifest is.
#[must_use]
pub fn truth_of(example: &Example) -> Truth {
    match example.label {
        Some(label) => Truth::Command(label),
        None if NO_SPEECH_KINDS.contains(&example.kind.as_str()) => Truth::NoSpeech,
        None => Truth::OutOfScope,
    }
}

/// Whether a part of the data decides when to stop, and calibrates.
#[must_use]
pub fn is_validation(cell: Cell) -> bool {
    matches!(cell, Cell::Validation | Cell::ValidationVoice | Cell::ValidationWording | Cell::ValidationBoth)
}

/// Clips of training speakers, to be mixed in as other people's talk: those whose hash comes first.
///
/// # Errors
/// What is wrong with a clip.
pub fn babble(clips: &[PlannedClip]) -> Result<Vec<Vec<f32>>> {
    let mut talk: Vec<(&[u8; 32], &Sound)> = clips
        .iter()
        .filter(|clip| clip.cell == Cell::Train)
        .filter_map(|clip| match &clip.sound {
            Sound::File { content, .. } => Some((content, &clip.sound)),
            Sound::Noise { .. } => None,
        })
        .collect();
    talk.sort_by_key(|(content, _)| **content);
    talk.into_iter().take(MAX_BABBLE_CLIPS).map(|(_, sound)| sound.samples()).collect()
}

/// A validation clip as it is, without its copies.
#[derive(Debug)]
struct HeldOut {
    key: FeatureKey,
    truth: Truth,
    /// The file's hash.
    content: Option<[u8; 32]>,
}

/// Everything that is learned from, computed.
#[derive(Debug)]
pub struct Prepared {
    /// Where the states are.
    pub store: FeatureStore,
    train: Vec<TrainingClip>,
    validation: Vec<TrainingClip>,
    held_out: Vec<HeldOut>,
    n_labels: usize,
    n_encoder_layers: usize,
    alphabet: Alphabet,
    /// The classes of the letters that are said in a record.
    letters: HashMap<FeatureKey, Vec<usize>>,
    /// What is said in the records of training clips.
    said: HashMap<FeatureKey, String>,
    /// Sentences that nobody spoke.
    pub phrases: Vec<Phrase>,
}

/// Computes the states that are not there yet. `progress` is told how many of how many are done.
///
/// # Errors
/// What is wrong with a clip; [`crate::Error::Io`] of the store.
pub fn prepare(
    clips: &[PlannedClip],
    plan: &TrainPlan,
    n_labels: usize,
    maker: &FeatureMaker<'_>,
    mut store: FeatureStore,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Prepared> {
    let copies = |clip: &PlannedClip| match clip.cell {
        Cell::Train => 0..=plan.copies,
        // Augmentation is harsher than most customers' surroundings: what it does to a clip would make the head seem less
        // sure than it may be.
        _ => 0..=0,
    };
    let used: Vec<&PlannedClip> =
        clips.iter().filter(|clip| clip.cell == Cell::Train || is_validation(clip.cell)).collect();
    let wanted: Vec<Wanted<'_>> =
        used.iter().flat_map(|clip| copies(clip).map(|copy| Wanted { sound: &clip.sound, copy })).collect();
    let n_wanted = wanted.len();
    maker.add(&mut store, &wanted, &mut |n| progress(n, n_wanted))?;
    let alphabet = match &plan.reader {
        Some(_) => alphabet_of(&used),
        None => Alphabet::default(),
    };
    let (mut letters, mut said) = (HashMap::new(), HashMap::new());
    let (mut train, mut validation, mut held_out) = (Vec::new(), Vec::new(), Vec::new());
    for clip in used {
        let keys: Vec<FeatureKey> = copies(clip).map(|copy| maker.key(&Wanted { sound: &clip.sound, copy })).collect();
        let class = clip.truth.class(n_labels);
        if let Some((text, classes)) = clip.letters.as_ref().and_then(|text| Some((text, alphabet.classes(text)?))) {
            letters.extend(keys.iter().map(|key| (*key, classes.clone())));
            if clip.cell == Cell::Train {
                said.extend(keys.iter().map(|key| (*key, text.clone())));
            }
        }
        if clip.cell == Cell::Train {
            train.push(TrainingClip { keys, class });
            continue;
        }
        let content = match &clip.sound {
            Sound::File { content, .. } => Some(*content),
            Sound::Noise { .. } => None,
        };
        held_out.push(HeldOut { key: keys[0], truth: clip.truth, content });
        validation.push(TrainingClip { keys, class });
    }
    let n_encoder_layers = maker.encoder.n_layer;
    Ok(Prepared {
        store,
        train,
        validation,
        held_out,
        n_labels,
        n_encoder_layers,
        alphabet,
        letters,
        said,
        phrases: Vec::new(),
    })
}

/// The letters of the training clips that are said often enough to be learned.
fn alphabet_of(clips: &[&PlannedClip]) -> Alphabet {
    let texts: Vec<&str> =
        clips.iter().filter(|clip| clip.cell == Cell::Train).filter_map(|clip| clip.letters.as_deref()).collect();
    let mut counts: HashMap<char, usize> = HashMap::new();
    texts.iter().flat_map(|text| text.chars()).for_each(|letter| *counts.entry(letter).or_default() += 1);
    let common: String = counts.into_iter().filter(|(_, n)| *n >= MIN_LETTER_COUNT).map(|(letter, _)| letter).collect();
    Alphabet::of(std::iter::once(common.as_str()))
}

/// A head that was trained, and how.
#[derive(Debug, Clone)]
pub struct SeedRun {
    /// The head, calibrated.
    pub head: TrainedHead,
    /// Every epoch.
    pub history: Vec<EpochPoint>,
    /// The best one, from 1.
    pub best_epoch: usize,
    /// What the thresholds do on held-out clips.
    pub outcome: Outcome,
    /// The share of each encoder state, the embedded input first.
    pub layer_shares: Vec<f32>,
    /// The logits of the held-out clips, as [`Prepared`] has them.
    held_out_logits: Vec<Vec<f32>>,
}

impl Prepared {
    /// Clips to learn from, and held-out ones.
    #[must_use]
    pub fn n_clips(&self) -> (usize, usize) {
        (self.train.len(), self.validation.len())
    }

    fn shape(&self, plan: &TrainPlan) -> HeadShape {
        plan.shape(self.store.n_layers(), self.store.n_state(), self.n_labels, self.alphabet.len())
    }

    /// Trains one head and calibrates it.
    ///
    /// # Errors
    /// As [`fit`].
    pub fn train(
        &self,
        plan: &TrainPlan,
        seed: u64,
        labels: &[String],
        base: &str,
        folder: &Path,
        on_event: &mut dyn FnMut(FitEvent),
    ) -> Result<SeedRun> {
        let shape = self.shape(plan);
        let set = self.training_set();
        let options = FitOptions { seed, ..plan.fit.clone() };
        // What is wrong with sentences is said before hours of work, not behind them.
        let (alphabet, sentences) = self.spelling(plan)?;
        let fitted = fit(&shape, &options, &set, Some(&checkpoint_folder(folder)), on_event)?;
        let tensors = rounded(fitted.tensors);
        let model = shape.read(&in_memory(&tensors)?, &burn::tensor::Device::flex())?;
        let answers = |items: &[(FeatureKey, usize)]| {
            answers_of(&model, &shape, &alphabet, plan.fit.batch_size, &self.store, items)
        };
        let (logits, reader) = self.read(plan, seed, &answers, !sentences.is_empty(), on_event)?;
        let (calibration, outcome) = self.calibrated(&logits, plan);
        let layer_shares = crate::intent::calibration::softmax(&tensors[0].2);
        let head = TrainedHead {
            tensors,
            reader,
            alphabet,
            sentences,
            shape,
            n_encoder_layers: self.n_encoder_layers,
            position_stride: plan.features.position_stride,
            labels: labels.to_vec(),
            base: base.to_owned(),
            calibration,
            lora: None,
        };
        Ok(SeedRun {
            head,
            history: fitted.history,
            best_epoch: fitted.best_epoch,
            outcome,
            layer_shares,
            held_out_logits: logits,
        })
    }

    /// What adapters are trained on: `inputs` are the same clips as here, prepared at full rate
    /// ([`FeatureMaker::at_full_rate`]), and `frozen` the layers that they enter.
    ///
    /// # Errors
    /// [`crate::Error::ShapeMismatch`] if they are of another encoder.
    pub fn lora_inputs(&self, inputs: Self, frozen: FrozenLayers) -> Result<LoraInputs> {
        let clips = |prepared: &Self| -> Vec<FeatureKey> {
            prepared.train.iter().chain(&prepared.validation).flat_map(|clip| clip.keys.iter().copied()).collect()
        };
        let of = clips(self).into_iter().zip(clips(&inputs)).collect();
        LoraInputs::new(inputs.store, of, frozen)
    }

    /// Trains the head of `run` on together with adapters, and calibrates it anew. If no epoch is better on held-out
    /// clips than the head alone, that stays as it is; the epochs are in the history all the same.
    ///
    /// # Errors
    /// As [`fit_lora`].
    pub fn adapt(
        &self,
        plan: &TrainPlan,
        seed: u64,
        inputs: &LoraInputs,
        mut run: SeedRun,
        folder: &Path,
        on_event: &mut dyn FnMut(FitEvent),
    ) -> Result<SeedRun> {
        let Some(options) = &plan.lora else { return Ok(run) };
        let n_before = run.history.len();
        let later = |point: EpochPoint| EpochPoint { epoch: point.epoch + n_before, ..point };
        let set = self.training_set();
        let start = LoraStart {
            tensors: &run.head.tensors,
            shape: &run.head.shape,
            n_encoder_layers: run.head.n_encoder_layers,
            position_stride: run.head.position_stride,
        };
        let checkpoints = checkpoint_folder(&folder.join("lora"));
        let fitted = fit_lora(&start, options, seed, &set, inputs, Some(&checkpoints), &mut |event| {
            on_event(match event {
                FitEvent::Reading { .. } => event,
                FitEvent::Resumed { epoch } => FitEvent::Resumed { epoch: epoch + n_before },
                FitEvent::Step { epoch, step, n_steps, loss } => {
                    FitEvent::Step { epoch: epoch + n_before, step, n_steps, loss }
                }
                FitEvent::Epoch(point) => FitEvent::Epoch(later(point)),
            });
        })?;
        let loss = |history: &[EpochPoint]| {
            history.iter().filter_map(|point| point.validation_loss).fold(f64::INFINITY, f64::min)
        };
        let is_better = loss(&fitted.history) < loss(&run.history);
        if is_better {
            let spec = options.on(run.head.shape.n_state, run.head.n_encoder_layers)?;
            let tensors = rounded(fitted.tensors);
            let answers = |items: &[(FeatureKey, usize)]| {
                lora_answers(&start, options, &self.store, inputs, &tensors, &run.head.alphabet, items)
            };
            let makes_words = !run.head.sentences.is_empty();
            let (logits, reader) = self.read(plan, seed, &answers, makes_words, on_event)?;
            let (adapters, tensors): (Vec<NamedTensor>, _) =
                tensors.into_iter().partition(|(name, _, _)| name.starts_with(LORA_PREFIX));
            (run.head.calibration, run.outcome) = self.calibrated(&logits, plan);
            run.layer_shares = crate::intent::calibration::softmax(&tensors[0].2);
            run.head.tensors = tensors;
            run.head.reader = reader;
            run.head.lora = Some(TrainedLora { spec, tensors: adapters });
            run.held_out_logits = logits;
            run.best_epoch = n_before + fitted.best_epoch;
        }
        run.history.extend(fitted.history.into_iter().map(later));
        Ok(run)
    }

    /// The letters that a head writes, put together to words where there are sentences, and these sentences.
    fn spelling(&self, plan: &TrainPlan) -> Result<(Alphabet, String)> {
        let sentences: BTreeSet<&str> = match self.phrases.is_empty() {
            true => self.said.values().map(String::as_str).collect(),
            false => self.phrases.iter().filter(|p| p.nth_of_wording < plan.sentences).map(|p| &*p.letters).collect(),
        };
        let alphabet = self.alphabet.clone();
        // Texts of one word each have no space.
        if plan.sentences == 0 || sentences.is_empty() || alphabet.classes(" ").is_none() {
            return Ok((alphabet, String::new()));
        }
        let sentences = sentences.into_iter().fold(String::new(), |all, sentence| all + sentence + "\n");
        Ok((alphabet.with_sentences(sentences.as_bytes())?, sentences))
    }

    fn calibrated(&self, logits: &[Vec<f32>], plan: &TrainPlan) -> (Calibration, Outcome) {
        let scored: Vec<(Vec<f32>, Truth)> =
            logits.iter().zip(&self.held_out).map(|(row, clip)| (row.clone(), clip.truth)).collect();
        calibrate(&scored, self.n_labels, &plan.trade_off)
    }

    fn held_out_items(&self) -> Vec<(FeatureKey, usize)> {
        self.held_out.iter().map(|clip| (clip.key, clip.truth.class(self.n_labels))).collect()
    }

    fn training_set(&self) -> TrainingSet<'_> {
        TrainingSet {
            store: &self.store,
            train: self.train.clone(),
            validation: self.validation.clone(),
            letters: &self.letters,
        }
    }

    /// Lets a head write down the training clips, trains a reader on that, and weighs it against the sound. Gives the
    /// logits of the held-out clips, and the reader, already weighed.
    fn read(
        &self,
        plan: &TrainPlan,
        seed: u64,
        answers: &Answers<'_>,
        makes_words: bool,
        on_event: &mut dyn FnMut(FitEvent),
    ) -> Result<(Vec<Vec<f32>>, Vec<NamedTensor>)> {
        let held_out_items = self.held_out_items();
        let (mut logits, letters): (Vec<Vec<f32>>, Vec<String>) =
            answers(&held_out_items)?.into_iter().map(|answer| (answer.logits, answer.letters)).unzip();
        let Some(options) = plan.reader.as_ref().filter(|_| !self.alphabet.is_empty()) else {
            return Ok((logits, Vec::new()));
        };
        let items: Vec<(FeatureKey, usize)> =
            self.train.iter().flat_map(|clip| clip.keys.iter().map(|key| (*key, clip.class))).collect();
        let heard = answers(&items)?;
        let said = |key: &FeatureKey| self.said.get(key).map(String::as_str);
        let pairs =
            items.iter().zip(&heard).filter_map(|((key, _), answer)| Some((said(key)?, answer.letters.as_str())));
        let confusions = Confusions::count(pairs);
        let mut sentences: Vec<Sentence> = items
            .iter()
            .zip(&heard)
            .map(|((_, class), answer)| Sentence { letters: answer.letters.clone(), class: *class, is_heard: true })
            .collect();
        let first_keys = self.train.iter().filter_map(|clip| Some((said(clip.keys.first()?)?, clip.class)));
        let out_of_scope = Truth::OutOfScope.class(self.n_labels);
        let texts = self.phrases.iter().map(|phrase| (phrase.letters.as_str(), phrase.label.unwrap_or(out_of_scope)));
        sentences.extend(first_keys.chain(texts).map(|(letters, class)| Sentence {
            letters: letters.to_owned(),
            class,
            is_heard: false,
        }));
        let no_command = [out_of_scope, Truth::NoSpeech.class(self.n_labels)];
        let n_scraps = (sentences.len() as f64 * SHARE_OF_SCRAPS) as usize;
        sentences.extend(scraps(&sentences, n_scraps, &no_command, seed));
        let n_classes = self.n_labels + REJECTION_CLASSES.len();
        let mut progress = |step, n_steps, loss| on_event(FitEvent::Reading { step, n_steps, loss });
        let damage = if makes_words { &DAMAGE_OF_WORDS } else { &DAMAGE };
        let mut reader = fit_reader(&sentences, (&confusions, damage), n_classes, options, seed, &mut progress)?;
        let read: Vec<Vec<f32>> = letters.iter().map(|letters| reader.logits(letters)).collect();
        let classes: Vec<usize> = held_out_items.iter().map(|(_, class)| *class).collect();
        let weight = fit_reader_weight(&logits, &read, &classes);
        reader.classifier.iter_mut().for_each(|w| *w *= weight);
        // Weighed on what is written.
        let tensors = rounded(reader_tensors(&reader));
        let reader = Reader::from_tensors(&tensors);
        for (row, letters) in logits.iter_mut().zip(&letters) {
            row.iter_mut().zip(reader.logits(letters)).for_each(|(logit, more)| *logit += more);
        }
        Ok((logits, tensors))
    }

    /// Hashes of the held-out clips whose words are wanted for the fusion: `at_most`, half of them commands if there
    /// are as many, spread evenly over what there is.
    #[must_use]
    pub fn clips_to_transcribe(&self, at_most: usize) -> Vec<[u8; 32]> {
        let of = |wanted: fn(Truth) -> bool, n: usize| -> Vec<[u8; 32]> {
            let mut all: Vec<[u8; 32]> =
                self.held_out.iter().filter(|clip| wanted(clip.truth)).filter_map(|clip| clip.content).collect();
            all.sort_unstable();
            all.truncate(n);
            all
        };
        let talk = of(|truth| truth == Truth::OutOfScope, at_most / 3);
        let mut clips = of(|truth| matches!(truth, Truth::Command(_)), at_most - talk.len());
        clips.extend(talk);
        clips
    }

    /// Fits how sound and words are weighed, from transcripts by the clip's hash. `None` if there are none, or if the
    /// labels are not those that the words are matched against.
    ///
    /// # Errors
    /// [`crate::Error::Device`].
    pub fn fuse(
        &self,
        plan: &TrainPlan,
        run: &SeedRun,
        words: &HashMap<String, Written>,
    ) -> Result<Option<(Calibration, Outcome)>> {
        let head = &run.head;
        let Some(classes) = head.labels.iter().map(|label| label_id(label)).collect::<Option<Vec<usize>>>() else {
            return Ok(None);
        };
        let mut clips = Vec::new();
        for (row, clip) in run.held_out_logits.iter().zip(&self.held_out) {
            let Some(ranking) = clip.content.and_then(|content| words.get(&hex(&content))).and_then(Written::rank)
            else {
                continue;
            };
            let mut of_class = HashMap::new();
            of_class.extend(ranking.predictions);
            let text = classes.iter().map(|class| of_class.get(class).copied().unwrap_or(0.0)).collect();
            let mut audio = head.calibration.probabilities(row);
            audio.truncate(self.n_labels);
            clips.push(HeardAndWritten { truth: clip.truth, audio, text });
        }
        if clips.is_empty() {
            return Ok(None);
        }
        let (fusion, outcome) = fit_fusion(&clips, &plan.trade_off);
        let mut calibration = head.calibration.clone();
        calibration.fusion = Some(fusion);
        if let Some(fitted_on) = calibration.fitted_on.as_object_mut() {
            fitted_on.insert("transcribed_clips".to_owned(), clips.len().into());
        }
        Ok(Some((calibration, outcome)))
    }
}
