//! From an opened model folder to a [`Recognizer`] on a device, and its description.

use super::Recognizer;
use super::audio_head::AudioHead;
use super::words::{Transcriber, WhisperTranscriber};
use crate::audio::{HOP_LENGTH, LogMelExtractor};
use crate::device::Compute;
use crate::error::{Error, Result};
use crate::intent::head::IntentHead;
use crate::intent::label_files::check_count;
use crate::intent::text_match::PhraseBook;
use crate::intent::{IntentInfo, built_in, label_id};
use crate::kernels::Target;
use crate::language::{TWI_DECODE_LANGUAGES, code_of, twi_codes};
use crate::model_info::{ModelInfo, Task};
use crate::recognition::Risk;
use crate::tokenizer::Tokenizer;
use crate::wav2vec2::{Wav2Vec2, Wav2Vec2OnDevice};
use crate::weights::folder::{Body, HeadFiles, ModelFolder, Wav2Vec2Files, WhisperFiles};
use crate::weights::{Checkpoint, WeightSource, n_elements};
use crate::whisper::model::{encoder_tensors, expected_tensors};
use crate::whisper::{AudioEncoder, GenerationConfig, Whisper, WhisperConfig, WhisperOnDevice};

/// Where to load to, and what to make of it.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The device.
    pub compute: Compute,
    /// Overrides what the folder is told to be: [`Task::Single`] leaves an intent head unused, [`Task::Multi`] insists on
    /// one.
    pub task: Option<Task>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { compute: Compute::cpu(), task: None }
    }
}

impl Recognizer {
    /// Puts an opened model folder onto a device.
    ///
    /// # Errors
    /// - [`Error::WeightMismatch`] with every tensor that is missing, unused or of the wrong shape;
    /// - [`Error::DamagedWeights`] for values that are not finite;
    /// - [`Error::InvalidConfig`] for a tokenizer or labels that do not fit, or a task that the folder cannot be.
    pub fn from_folder(mut folder: ModelFolder, options: LoadOptions) -> Result<Self> {
        let LoadOptions { compute, task } = options;
        let can_write = !matches!(&folder.body, Body::Whisper(files) if files.tokenizer_json.is_none());
        let head = folder.head.take();
        let head = choose_head(head, task, can_write, &mut folder.fallbacks)?;
        check_tensors(&folder.body, head.as_ref())?;
        let mut info = blank_info(&folder, &compute);
        let target = compute.target();
        let (transcriber, head) = match folder.body {
            Body::Whisper(files) => {
                describe_whisper(&mut info, &files);
                // A head may want to look at a clip again, more exactly.
                let exact = Target { refined: true, ..target };
                let head = head.map(|head| load_head(head, &files, exact, &mut info)).transpose()?;
                let shares = head.as_ref().is_some_and(|head| head.own_encoder.is_none());
                let target = if shares { exact } else { target };
                let transcriber = match files.tokenizer_json {
                    Some(_) => Some(Transcriber::Whisper(load_whisper(*files, target, &mut info)?)),
                    None => None,
                };
                (transcriber, head)
            }
            Body::Wav2Vec2(files) => (Some(load_wav2vec2(*files, target, &mut info)?), None),
        };
        let intents = match &head {
            Some(head) => intents_of(&head.labels),
            None => built_in().to_vec(),
        };
        info.transcription = transcriber.is_some();
        info.task = if head.is_some() { Task::Multi } else { Task::Single };
        info.model_type = match (&transcriber, &head) {
            (Some(Transcriber::Wav2Vec2 { .. }), _) => "wav2vec2",
            (Some(Transcriber::Whisper(_)), None) => "whisper",
            (Some(Transcriber::Whisper(_)), Some(_)) => "whisper_multitask",
            (None, _) => "whisper_classifier",
        }
        .to_owned();
        info.labels = intents.iter().map(|i| i.intent.clone()).collect();
        if head.is_none() {
            info.fallbacks.push("no intent head: the intent is matched from the words".to_owned());
        } else if head.as_ref().is_some_and(|head| head.calibration.is_none()) {
            info.fallbacks.push(
                "no calibration: the intent head's probabilities are as it gives them, accepted from 0.5 on".to_owned(),
            );
        }
        let mut recognizer =
            Self { compute, transcriber, head, second_look: None, phrases: PhraseBook::built_in(), intents, info };
        recognizer.second_look = recognizer
            .head
            .as_ref()
            .and_then(|head| recognizer.head_encoder(head).ok())
            .and_then(AudioEncoder::refined);
        Ok(recognizer)
    }
}

/// Decides whether the head is used.
fn choose_head(
    head: Option<HeadFiles>,
    task: Option<Task>,
    can_write: bool,
    fallbacks: &mut Vec<String>,
) -> Result<Option<HeadFiles>> {
    let refused =
        |reason: &str| Error::InvalidConfig { file: "HUGGINGFACE_MODEL_TYPE".to_owned(), reason: reason.to_owned() };
    match (head, task) {
        (Some(HeadFiles { problem: Some(problem), .. }), task) if task != Some(Task::Single) => Err(problem),
        (None, Some(Task::Multi)) => {
            Err(refused("it says 'multi', but the weights hold no intent head; unset it, or say 'single'"))
        }
        (Some(_), Some(Task::Single)) if !can_write => {
            Err(refused("it says 'single', but the model has no text decoder to take the intent's words from"))
        }
        (Some(_), Some(Task::Single)) => {
            fallbacks.push("HUGGINGFACE_MODEL_TYPE is 'single': the intent head is not used".to_owned());
            Ok(None)
        }
        (Some(head), task) if head.labels.is_none() && can_write => {
            if task == Some(Task::Multi) {
                return Err(refused(
                    "it says 'multi', but nothing names the intent head's classes; add intent_labels.json",
                ));
            }
            fallbacks.push("the intent head is not used: its classes have no names".to_owned());
            Ok(None)
        }
        (head, _) => Ok(head),
    }
}

/// Holds the tensors of the whole folder against what its architecture needs, so that one error tells everything.
fn check_tensors(body: &Body, head: Option<&HeadFiles>) -> Result<()> {
    let (mut missing, mut unused, mut misshapen) = (Vec::new(), Vec::new(), Vec::new());
    let mut hold = |source: &dyn WeightSource, expected: &[(String, Vec<usize>)]| -> Result<()> {
        match Checkpoint::new(source, expected, |_| false) {
            Err(Error::WeightMismatch { missing: m, unused: u, misshapen: s }) => {
                missing.extend(m);
                unused.extend(u);
                misshapen.extend(s);
                Ok(())
            }
            other => other.map(|_| ()),
        }
    };
    if let Body::Whisper(files) = body {
        hold(&*files.weights, &tensors_of(files))?;
        if let Some(head) = head {
            hold(&*head.weights, &IntentHead::expected_tensors(&head.spec, &*head.weights)?)?;
            if let Some(encoder) = &head.own_encoder {
                hold(&**encoder, &encoder_tensors(&files.config))?;
            }
        }
    }
    if missing.is_empty() && unused.is_empty() && misshapen.is_empty() {
        Ok(())
    } else {
        Err(Error::WeightMismatch { missing, unused, misshapen })
    }
}

fn tensors_of(files: &WhisperFiles) -> Vec<(String, Vec<usize>)> {
    if files.tokenizer_json.is_some() { expected_tensors(&files.config) } else { encoder_tensors(&files.config) }
}

fn n_parameters(tensors: &[(String, Vec<usize>)]) -> u64 {
    tensors.iter().map(|(_, shape)| n_elements(shape)).sum()
}

fn load_encoder(weights: &dyn WeightSource, config: &WhisperConfig, target: Target<'_>) -> Result<AudioEncoder> {
    let checkpoint = Checkpoint::new(weights, &encoder_tensors(config), |_| false)?;
    AudioEncoder::load(config, &checkpoint, target)
}

fn load_head(head: HeadFiles, files: &WhisperFiles, target: Target<'_>, info: &mut ModelInfo) -> Result<AudioHead> {
    let config = &files.config;
    let expected = IntentHead::expected_tensors(&head.spec, &*head.weights)?;
    let checkpoint = Checkpoint::new(&*head.weights, &expected, |_| false)?;
    let window = head.spec.window;
    let loaded = IntentHead::load(head.spec, &checkpoint, &*head.weights, target.device)?;
    info.parameters += loaded.n_parameters();
    let n_labels = loaded.n_classes().saturating_sub(head.rejection_classes.len());
    let labels = match head.labels {
        Some(labels) => {
            check_count(&labels, n_labels)?;
            labels.names
        }
        None => {
            info.fallbacks.push("no labels: the intents are called LABEL_0, LABEL_1, …".to_owned());
            (0..n_labels).map(|i| format!("LABEL_{i}")).collect()
        }
    };
    // Without a decoder nobody else has loaded the encoder.
    let own_encoder = match (&head.own_encoder, &files.tokenizer_json) {
        (Some(weights), _) => {
            info.parameters += n_parameters(&encoder_tensors(config));
            Some(load_encoder(&**weights, config, target)?)
        }
        (None, None) => Some(load_encoder(&*files.weights, config, target)?),
        (None, Some(_)) => None,
    };
    info.head_window = Some(window.name().to_owned());
    Ok(AudioHead {
        head: loaded,
        own_encoder,
        extractor: LogMelExtractor::new(config.num_mel_bins),
        window_samples: config.n_frames() * HOP_LENGTH,
        labels,
        rejection_classes: head.rejection_classes,
        calibration: head.calibration,
    })
}

fn load_whisper(files: WhisperFiles, target: Target<'_>, info: &mut ModelInfo) -> Result<WhisperTranscriber> {
    let WhisperFiles { config, generation, tokenizer_json, weights } = files;
    let mut tokenizer = Tokenizer::from_json(&tokenizer_json.unwrap_or_default())?;
    if !generation.is_multilingual.unwrap_or_else(|| config.is_multilingual()) {
        tokenizer = tokenizer.english_only();
    }
    let n_vocab = config.vocab_size;
    tokenizer.check_fits(n_vocab)?;
    let whisper = Whisper::load(config, &*weights, target)?;
    let languages = &tokenizer.special().languages;
    info.multilingual = !languages.is_empty();
    info.languages = languages.iter().map(|(code, _)| code.clone()).collect();
    let twi_languages = twi_languages(&generation, &tokenizer, &mut info.fallbacks);
    let alignment_heads = alignment_heads(&generation, &whisper.config, &mut info.fallbacks);
    let timestamps_end = tokenizer.special().timestamp_begin as usize + whisper.config.max_source_positions + 1;
    if n_vocab < timestamps_end {
        info.fallbacks.push(format!(
            "tokenizer.json has timestamps up to {timestamps_end}, but the model {n_vocab} tokens: it may be another model's"
        ));
    } else if n_vocab > timestamps_end + 8 {
        // A few are padding, or a token for Twi.
        let n = n_vocab - timestamps_end;
        info.fallbacks.push(format!("{n} tokens stand behind the timestamps: their text is left out of the words"));
    }
    let GenerationConfig { suppress_tokens, begin_suppress_tokens, .. } = &generation;
    Ok(WhisperTranscriber {
        extractor: LogMelExtractor::new(whisper.config.num_mel_bins),
        suppress: token_list(suppress_tokens.as_deref(), &tokenizer, n_vocab)?,
        begin_suppress: token_list(begin_suppress_tokens.as_deref(), &tokenizer, n_vocab)?,
        // 1.0 s, as the reference has it where the checkpoint says nothing.
        max_initial_timestamp_index: generation.max_initial_timestamp_index.or(Some(50)),
        model: WhisperOnDevice { whisper, device: target.device.clone(), alignment_heads },
        tokenizer,
        twi_languages,
    })
}

/// What Twi is decoded with: a token of its own, else the language that a fine-tuned checkpoint names, else what stock
/// Whisper hears it best with.
fn twi_languages(generation: &GenerationConfig, tokenizer: &Tokenizer, fallbacks: &mut Vec<String>) -> Vec<String> {
    let special = tokenizer.special();
    let known = |code: &str| special.language(code).is_some();
    let own = twi_codes().into_iter().find(|code| known(code)).map(str::to_owned);
    let forced = || {
        let token = generation.forced_decoder_ids.as_ref()?.iter().find(|(position, _)| *position == 1)?.1?;
        special.languages.iter().find(|(_, t)| *t == token).map(|(code, _)| code.clone())
    };
    let named = generation.language.as_deref().map(code_of).filter(|code| known(code)).or_else(forced);
    if let (None, Some(code)) = (&own, &named) {
        fallbacks.push(format!("Twi is decoded as '{code}', which generation_config.json names"));
    }
    let mut languages: Vec<String> = own.or(named).into_iter().collect();
    languages.extend(TWI_DECODE_LANGUAGES.iter().filter(|code| known(code)).map(|code| (*code).to_owned()));
    let mut seen = std::collections::BTreeSet::new();
    languages.retain(|code| seen.insert(code.clone()));
    languages
}

/// The cross-attention heads that word times are read from: those that the checkpoint names, else, as
/// `openai/whisper` does, every head of the upper half of the layers.
fn alignment_heads(
    generation: &GenerationConfig,
    config: &WhisperConfig,
    fallbacks: &mut Vec<String>,
) -> Vec<[usize; 2]> {
    let (n_layer, n_head) = (config.decoder_layers, config.decoder_attention_heads);
    let mut heads = generation.alignment_heads.clone().unwrap_or_default();
    heads.retain(|[layer, head]| *layer < n_layer && *head < n_head);
    heads.sort_unstable();
    heads.dedup();
    if heads.is_empty() {
        fallbacks.push("no alignment heads: word times from every head of the decoder's upper half".to_owned());
        heads = (n_layer / 2..n_layer).flat_map(|layer| (0..n_head).map(move |head| [layer, head])).collect();
    }
    heads
}

fn load_wav2vec2(files: Wav2Vec2Files, target: Target<'_>, info: &mut ModelInfo) -> Result<Transcriber> {
    let Wav2Vec2Files { config, vocabulary, do_normalize, adapter, weights } = files;
    info.model_size = match config.hidden_size {
        768 => "base",
        1024 => "large",
        1280 | 1920 => "xlarge",
        _ => "custom",
    }
    .to_owned();
    info.n_audio_state = config.hidden_size;
    info.n_audio_head = config.num_attention_heads;
    info.n_audio_layer = config.num_hidden_layers;
    info.n_vocab = Some(config.vocab_size);
    info.languages = adapter.iter().cloned().collect();
    let model = Wav2Vec2::load(config, &*weights, target)?;
    info.parameters = model.n_parameters();
    let model = Wav2Vec2OnDevice::new(model, vocabulary, do_normalize)?;
    Ok(Transcriber::Wav2Vec2 { model, language: adapter })
}

/// A list of tokens, each once, as far as the model has them; `-1` stands for the tokenizer's list of non-speech
/// tokens.
fn token_list(tokens: Option<&[i64]>, tokenizer: &Tokenizer, n_vocab: usize) -> Result<Vec<u32>> {
    let tokens = tokens.unwrap_or_default();
    let mut list: Vec<u32> = tokens.iter().filter_map(|token| u32::try_from(*token).ok()).collect();
    if tokens.contains(&-1) {
        list.extend(tokenizer.non_speech_tokens()?);
    }
    list.retain(|token| (*token as usize) < n_vocab);
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

/// A model's own labels as intents. What this crate does not know, it cannot call harmless: a shop asks first.
fn intents_of(labels: &[String]) -> Vec<IntentInfo> {
    let intent = |(id, label): (usize, &String)| match label_id(label) {
        Some(known) => IntentInfo { id, ..built_in()[known].clone() },
        None => IntentInfo { id, intent: label.clone(), means: None, risk: Risk::Confirm, slots: Vec::new() },
    };
    labels.iter().enumerate().map(intent).collect()
}

fn describe_whisper(info: &mut ModelInfo, files: &WhisperFiles) {
    let config = &files.config;
    let can_write = files.tokenizer_json.is_some();
    let of_decoder = |n: usize| can_write.then_some(n);
    info.model_size = config.model_size().to_owned();
    info.parameters = n_parameters(&tensors_of(files));
    info.n_mels = Some(config.num_mel_bins);
    info.n_audio_ctx = Some(config.max_source_positions);
    info.n_audio_state = config.d_model;
    info.n_audio_head = config.encoder_attention_heads;
    info.n_audio_layer = config.encoder_layers;
    info.n_text_ctx = of_decoder(config.max_target_positions);
    info.n_text_layer = of_decoder(config.decoder_layers);
    info.n_vocab = of_decoder(config.vocab_size);
}

/// What is known before the model is.
fn blank_info(folder: &ModelFolder, compute: &Compute) -> ModelInfo {
    ModelInfo {
        name: folder.name.clone(),
        architecture: folder.architecture.clone(),
        model_type: String::new(),
        task: Task::Single,
        transcription: false,
        base: folder.base.clone(),
        model_size: "custom".to_owned(),
        parameters: 0,
        weight_format: folder.weight_format.to_owned(),
        stored_dtype: folder.stored_dtype().to_owned(),
        dtype: compute.dtype.to_owned(),
        device: compute.name.to_owned(),
        device_reason: compute.reason.clone(),
        n_mels: None,
        n_audio_ctx: None,
        n_audio_state: 0,
        n_audio_head: 0,
        n_audio_layer: 0,
        n_text_ctx: None,
        n_text_layer: None,
        n_vocab: None,
        multilingual: false,
        languages: Vec::new(),
        head_window: None,
        labels: Vec::new(),
        fallbacks: folder.fallbacks.clone(),
    }
}
