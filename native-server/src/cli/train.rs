//! `okyeame train`: a folder of recordings in, an intent head out.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::RangedU64ValueParser;
use okyeame_core::audio::{self, DecodeLimits};
use okyeame_core::device::Compute;
use okyeame_core::intent::built_in;
use okyeame_core::recognizer::{CommandEncoder, LoadOptions};
use okyeame_core::training::augment::AugmentOptions;
use okyeame_core::training::calibrate::TradeOff;
use okyeame_core::training::feature_store::FeatureStore;
use okyeame_core::training::features::{FeatureMaker, FeatureOptions, encoder_id};
use okyeame_core::training::fit::{FitEvent, FitOptions};
use okyeame_core::training::lora::FrozenLayers;
use okyeame_core::training::lora_fit::{LoraInputs, LoraOptions};
use okyeame_core::training::manifest::{Manifest, ManifestOptions, read_manifest};
use okyeame_core::training::phrases::{Phrases, read_phrases};
use okyeame_core::training::read_fit::ReadOptions;
use okyeame_core::training::run::{Prepared, SeedRun, TrainPlan, babble, is_validation, plan_clips, prepare};
use okyeame_core::training::splits::{Cell, SplitOptions, Splits, make_splits};
use okyeame_core::training::words::{WordsCache, Written, hex};
use okyeame_core::weights::folder::{Body, ModelFolder};
use okyeame_core::{Error as CoreError, RecognizeOptions, Recognizer, Task};
use serde_json::json;

use crate::cli::steps::Steps;
use crate::cli::{CliError, limit_threads, progress, thread_count};
use crate::engine::block_on_pool;
use crate::model_choice::{DEFAULT_REPO, ModelChoice};
use crate::report;

const EXAMPLES: &str = "\
The manifest is a CSV (or JSONL) with a line for each recording:

  path,text,intent,slots,speaker
  clips/0001.wav,Fa yei to cart no mu,add_to_cart,,ama
  clips/0002.ogg,Ɛte sɛn,none,,kofi

intent `none` is speech that is no command; the model learns to turn it down. More columns that help: wording
(recordings of the same sentence), kind, language, split.

Examples:
  okyeame train --data recordings/manifest.csv --out runs/first
  okyeame train --data manifest.csv --out runs/five --seeds 1,2,3,4,5
  okyeame train --data manifest.csv --out runs/adapted --lora 2
  okyeame eval runs/first/model --data manifest.csv --splits runs/first/splits.csv --out runs/first/report
  okyeame server --huggingface runs/first/model
  okyeame upload shop/twi runs/first

A run that was stopped goes on where it was when it is started again by the same command.";

/// Train an intent head on recordings: the base model stays as it is, a small classifier learns on top of it.
///
/// The speakers and wordings that test the head are set aside before anything else and written to splits.csv; the
/// encoder's states are computed once and kept in the cache folder. No GPU is needed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The manifest: a CSV, TSV or JSONL file.
    #[arg(long, value_name = "MANIFEST")]
    data: PathBuf,
    /// The run's folder: splits.csv, checkpoints, curves, and the head in model/.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// The Whisper that the head stands on: a folder or a repository.
    #[arg(long, value_name = "REPO_OR_FOLDER", default_value = DEFAULT_REPO)]
    base: String,
    /// What the head calls its base, for those who fetch it: a repository. Without it, the one named by --base.
    #[arg(long, value_name = "REPO")]
    base_name: Option<String>,
    /// A file with one label on each line, in class order. Without it, the 49 shop intents.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Leave bad lines of the manifest out, and say which, instead of stopping.
    #[arg(long)]
    skip_bad: bool,
    /// Splits that were made before (splits.csv of another run), instead of new ones.
    #[arg(long, value_name = "FILE")]
    splits: Option<PathBuf>,
    /// Of the draw of speakers and wordings for the tests.
    #[arg(long, value_name = "N", default_value_t = 1)]
    split_seed: u64,
    /// Speakers that only test, by pattern: --test-speakers 'flite-*,ama'.
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',')]
    test_speakers: Vec<String>,
    /// One training for each seed; the best on held-out clips becomes model/.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "1")]
    seeds: Vec<u64>,
    /// Where the encoder's states are kept. Without it, cache/ in the run's folder; runs may share one.
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Augmented copies of each clip.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(..=100))]
    copies: usize,
    /// Options of the augmentation, a JSON file; see the run's plan.json for the names.
    #[arg(long, value_name = "FILE")]
    augment: Option<PathBuf>,
    /// Synthetic sounds that are no speech, to learn silence and noise from.
    #[arg(long, value_name = "N", default_value_t = 1200, value_parser = RangedU64ValueParser::<usize>::new().range(..=1_000_000))]
    noise_clips: usize,
    /// Held-out clips that the base writes down, to weigh sound and words. 0 leaves that out.
    #[arg(long, value_name = "N", default_value_t = 400)]
    fusion_clips: usize,
    /// Most epochs.
    #[arg(long, value_name = "N", default_value_t = 40)]
    epochs: usize,
    /// Stop after so many epochs without a better one.
    #[arg(long, value_name = "N", default_value_t = 8)]
    patience: usize,
    /// Clips of one step.
    #[arg(long, value_name = "N", default_value_t = 128)]
    batch_size: usize,
    /// The learning rate at its height.
    #[arg(long, value_name = "RATE", default_value_t = 2e-3)]
    learning_rate: f64,
    /// AdamW's weight decay.
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    weight_decay: f32,
    /// Share of the pooled channels that are left out at random.
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    dropout: f32,
    /// Probability that belongs to all other classes together.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    label_smoothing: f32,
    /// Probability that a span of a clip is left out.
    #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
    mask: f32,
    /// Encoder positions (20 ms) that are averaged into one.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = RangedU64ValueParser::<usize>::new().range(1..=50))]
    position_stride: usize,
    /// Hidden states of the encoder that the head sums, the last ones.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100))]
    states: usize,
    /// Width after the projector.
    #[arg(long, value_name = "N", default_value_t = 160)]
    width: usize,
    /// Pools of the attentive pooling; divides the width.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pools: usize,
    /// Convolutions over neighbouring positions, one after the other.
    #[arg(long, value_name = "N", default_value_t = 2)]
    contexts: usize,
    /// Positions that each of them sees; odd.
    #[arg(long, value_name = "N", default_value_t = 5)]
    context_kernel: usize,
    /// Let the head hear only whole clips, not letters. Letters are learned where the manifest gives texts.
    #[arg(long)]
    no_letters: bool,
    /// Sentences that nobody spoke: a CSV or TSV of text, intent and wording. The reader of the letters learns from them
    /// too; those of wordings that are set aside are left out.
    #[arg(long, value_name = "FILE", conflicts_with = "no_letters")]
    phrases: Option<PathBuf>,
    /// Sentences of each wording in --phrases from which the head knows the words that it writes down; without --phrases,
    /// all texts of the training clips. They go into the model's folder (sentences.txt): whoever gets the model can read
    /// them. 0 lets it write letters as it hears them.
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "no_letters")]
    sentences: usize,
    /// What a letter's loss counts beside a clip's.
    #[arg(long, value_name = "WEIGHT", default_value_t = 1.0)]
    letters_weight: f32,
    /// Width of a layer before the classifier; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 0)]
    hidden: usize,
    /// Encoder layers, the last ones, that learn as well: by low-rank adapters on their query and value projections,
    /// after the head has learnt alone. 0 leaves the encoder as it is.
    ///
    /// What it costs: each clip is encoded once more, for a second cache (lora/ in the cache folder, 50 kB a second of
    /// sound and copy with a base Whisper); an epoch runs these layers forth and back, which takes many times as long
    /// as the head alone, and up to about 1 GB of memory a layer. The head then hears through an encoder of its own: where
    /// words are wanted too, a clip is encoded twice, and the encoder is in memory twice. If no epoch is better on
    /// held-out clips, the head stays as it was.
    #[arg(long, value_name = "LAYERS", default_value_t = 0)]
    lora: usize,
    /// Rank of the adapters: how many directions each may change.
    #[arg(long, value_name = "RANK", default_value_t = 8)]
    lora_rank: usize,
    /// Most epochs with adapters.
    #[arg(long, value_name = "N", default_value_t = 6)]
    lora_epochs: usize,
    /// Threads of the arithmetic. Without it, one for each core.
    #[arg(long, value_name = "N", value_parser = thread_count, allow_negative_numbers = true)]
    threads: Option<usize>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    limit_threads(args.threads)?;
    let steps = Steps::new();
    let labels = read_labels(args.labels.as_deref())?;
    let plan = args.plan()?;
    plan.fit.check()?;

    let manifest = read_data(&args.data, &labels, args.skip_bad, 2, &steps)?;
    fs::create_dir_all(&args.out).map_err(CliError::io("the run's folder"))?;
    let splits = args.splits(&manifest, &labels, &steps)?;
    write_json(&args.out.join("plan.json"), &plan)?;
    let phrases = match &args.phrases {
        None => Phrases::default(),
        Some(file) => {
            let found = read_phrases(file, &labels, &manifest, &splits)?;
            let (n, n_set_aside) = (found.phrases.len(), found.n_set_aside);
            steps.say(&format!(
                "{n} sentences to read, {n_set_aside} left out because they are set aside for the tests"
            ));
            found
        }
    };

    let (folder, found_name) = open_base(&args.base)?;
    let base_name = args.base_name.clone().unwrap_or(found_name);
    if !base_name.contains('/') {
        steps.say(&format!(
            "note: the head calls its base '{base_name}', which is no repository: name one by --base-name"
        ));
    }
    let Body::Whisper(files) = &folder.body else {
        return Err(CoreError::InvalidParameter {
            name: "base",
            allowed: "name a Whisper; an intent head stands on its encoder".to_owned(),
        }
        .into());
    };
    let encoder = CommandEncoder::from_folder(&folder, &Compute::cpu())?;
    plan.shape(plan.features.n_states, encoder.n_state, labels.len(), 0).check()?;
    if let Some(lora) = &plan.lora {
        // Before hours of work, not behind them.
        lora.on(encoder.n_state, encoder.n_layer)?;
    }
    let clips = plan_clips(&manifest, &splits, plan.noise_clips, plan.features.seed);
    let maker = FeatureMaker::new(&encoder, encoder_id(files)?, &plan.features, babble(&clips)?);
    let cache = args.cache.clone().unwrap_or_else(|| args.out.join("cache"));
    let store = FeatureStore::open(&cache, maker.n_states(), encoder.n_state)?;
    let bar = steps.bar("encoder states");
    let mut prepared = prepare(&clips, &plan, labels.len(), &maker, store, &mut |done, of| bar.set(done, of))?;
    prepared.phrases = phrases.phrases;
    bar.done();
    let adapters = match &plan.lora {
        None => None,
        Some(lora) => {
            let frozen = FrozenLayers::load(&files.config, &*files.weights, lora.layers)?;
            let maker = maker.at_full_rate(encoder.n_layer - lora.layers);
            let store = FeatureStore::open(&cache.join("lora"), 1, encoder.n_state)?;
            let bar = steps.bar("states for the adapters");
            let inputs = prepare(&clips, &plan, labels.len(), &maker, store, &mut |done, of| bar.set(done, of))?;
            bar.done();
            Some(prepared.lora_inputs(inputs, frozen)?)
        }
    };
    drop(folder);
    let (n_train, n_validation) = prepared.n_clips();
    steps.say(&format!("{n_train} clips to learn from, {n_validation} held out"));

    let mut runs = Vec::new();
    for seed in &args.seeds {
        let folder = args.out.join(format!("seed-{seed}"));
        let run = train_seed(&prepared, adapters.as_ref(), &plan, *seed, &labels, &base_name, &folder, &steps)?;
        runs.push((*seed, folder, run));
    }
    if args.fusion_clips > 0 {
        fuse(args, &prepared, &plan, &manifest, &mut runs, &steps)?;
    }
    for (_, folder, run) in &runs {
        run.head.write(&folder.join("model"))?;
    }
    let best = runs.iter().min_by(|a, b| held_out_loss(&a.2).total_cmp(&held_out_loss(&b.2)));
    let Some((seed, folder, run)) = best else { return Ok(ExitCode::FAILURE) };
    run.head.write(&args.out.join("model"))?;
    // Where `okyeame eval RUN/model` looks for the curves.
    fs::copy(folder.join("training.json"), args.out.join("training.json"))
        .map_err(CliError::io("writing training.json"))?;
    steps.say(&format!(
        "The head of seed {seed} is in {}. What it can do: okyeame eval {} --data {} --splits {}{}{}",
        args.out.join("model").display(),
        args.out.join("model").display(),
        args.data.display(),
        args.out.join("splits.csv").display(),
        if args.skip_bad { " --skip-bad" } else { "" },
        if args.base == DEFAULT_REPO { String::new() } else { format!(" --base {}", args.base) },
    ));
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn plan(&self) -> Result<TrainPlan, CliError> {
        let augment: AugmentOptions = match &self.augment {
            None => AugmentOptions::default(),
            Some(file) => {
                let wrong = |reason: String| CoreError::InvalidConfig { file: "augment".to_owned(), reason };
                let bytes = fs::read(file).map_err(CliError::io(format!("reading {}", file.display())))?;
                let options: AugmentOptions = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
                options.check().map_err(wrong)?;
                options
            }
        };
        let fit = FitOptions {
            seed: 0,
            epochs: self.epochs,
            patience: self.patience,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            dropout: self.dropout,
            label_smoothing: self.label_smoothing,
            p_mask: self.mask,
            letters_weight: self.letters_weight,
            ..FitOptions::default()
        };
        let lora = (self.lora > 0).then(|| LoraOptions::after(&fit, self.lora, self.lora_rank, self.lora_epochs));
        Ok(TrainPlan {
            features: FeatureOptions { position_stride: self.position_stride, n_states: self.states, augment, seed: 1 },
            copies: self.copies,
            noise_clips: self.noise_clips,
            d_projector: self.width,
            n_context: self.contexts,
            context_kernel: self.context_kernel,
            d_attention: self.width / 2,
            n_pool: self.pools,
            d_hidden: self.hidden,
            fit,
            reader: (!self.no_letters).then(ReadOptions::default),
            sentences: self.sentences,
            trade_off: TradeOff::default(),
            lora,
        })
    }

    fn splits(&self, manifest: &Manifest, labels: &[String], steps: &Steps) -> Result<Splits, CliError> {
        let splits = match &self.splits {
            Some(file) => Splits::read(file, manifest)?,
            None => {
                let options = SplitOptions {
                    seed: self.split_seed,
                    held_out_speakers: self.test_speakers.clone(),
                    ..SplitOptions::default()
                };
                make_splits(manifest, labels, &options)?
            }
        };
        splits.write(manifest, &self.out.join("splits.csv"))?;
        splits.notes.iter().for_each(|note| steps.say(&format!("note: {note}")));
        let n = |is: fn(Cell) -> bool| splits.cells.iter().filter(|cell| is(**cell)).count();
        steps.say(&format!(
            "splits.csv: {} clips train, {} decide when to stop, {} test",
            n(|cell| cell == Cell::Train),
            n(is_validation),
            n(|cell| cell != Cell::Train && cell != Cell::Unused && !is_validation(cell)),
        ));
        Ok(splits)
    }
}

/// Reads a manifest and says what was left out.
pub(crate) fn read_data(
    path: &Path,
    labels: &[String],
    skip_bad: bool,
    min_per_intent: usize,
    steps: &Steps,
) -> Result<Manifest, CliError> {
    let bar = steps.bar("reading clips");
    let options = ManifestOptions { skip_bad, min_per_intent, labels: labels.to_vec(), ..ManifestOptions::default() };
    let manifest = read_manifest(path, &options, &|done, of| bar.set(done, of))?;
    bar.done();
    manifest.notes.iter().for_each(|note| steps.say(&format!("note: {note}")));
    manifest.left_out.iter().for_each(|problem| steps.say(&format!("left out: {problem}")));
    Ok(manifest)
}

fn read_labels(file: Option<&Path>) -> Result<Vec<String>, CliError> {
    let Some(file) = file else { return Ok(built_in().iter().map(|intent| intent.intent.clone()).collect()) };
    let text = fs::read_to_string(file).map_err(CliError::io(format!("reading {}", file.display())))?;
    let labels: Vec<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect();
    let mut sorted = labels.clone();
    sorted.sort();
    sorted.dedup();
    if labels.is_empty() || sorted.len() != labels.len() {
        return Err(CoreError::InvalidConfig {
            file: "labels".to_owned(),
            reason: "it needs one label on each line, each once".to_owned(),
        }
        .into());
    }
    Ok(labels)
}

/// Finds and opens the base; gives the name that a head calls it by.
pub(crate) fn open_base(base: &str) -> Result<(ModelFolder, String), CliError> {
    let progress = progress::Progress::new();
    let choice = ModelChoice::new(None, None).with_base(Some(base));
    let found = choice.locate_base(None, &mut |event| progress.show(event))?;
    Ok((ModelFolder::open(&found.folder)?, found.name))
}

#[allow(clippy::too_many_arguments, reason = "what a run has, once")]
fn train_seed(
    prepared: &Prepared,
    adapters: Option<&LoraInputs>,
    plan: &TrainPlan,
    seed: u64,
    labels: &[String],
    base: &str,
    folder: &Path,
    steps: &Steps,
) -> Result<SeedRun, CliError> {
    fs::create_dir_all(folder).map_err(CliError::io("the run's folder"))?;
    let bar = steps.bar(&format!("seed {seed}"));
    let mut on_event = |event: FitEvent| match event {
        FitEvent::Resumed { epoch } => bar.say(&format!("seed {seed}: going on behind epoch {epoch}")),
        FitEvent::Step { step, n_steps, .. } => bar.set(step, n_steps),
        FitEvent::Reading { step, n_steps, loss } => {
            bar.set(step, n_steps);
            if step == n_steps {
                bar.say(&format!("seed {seed}: the reader of the letters is trained, loss {loss:.3}"));
            }
        }
        FitEvent::Epoch(point) => bar.say(&format!(
            "seed {seed} epoch {:>3}: loss {:.3} accuracy {:.1} %, held out {:.3} {:.1} %",
            point.epoch,
            point.train_loss,
            100.0 * point.train_accuracy,
            point.validation_loss.unwrap_or(f64::NAN),
            100.0 * point.validation_accuracy.unwrap_or(f64::NAN),
        )),
    };
    let mut run = prepared.train(plan, seed, labels, base, folder, &mut on_event)?;
    if let Some(adapters) = adapters {
        bar.say(&format!("seed {seed}: with adapters on the encoder"));
        run = prepared.adapt(plan, seed, adapters, run, folder, &mut on_event)?;
        if run.head.lora.is_none() {
            bar.say(&format!(
                "seed {seed}: no epoch with adapters was better on held-out clips; the head goes without"
            ));
        }
    }
    bar.done();
    write_json(
        &folder.join("training.json"),
        &json!({
            "seed": seed, "best_epoch": run.best_epoch, "epochs": run.history,
            "layer_shares": run.layer_shares, "held_out": run.outcome,
        }),
    )?;
    fs::write(folder.join("curves.svg"), report::training_plots(&run.history)?)
        .map_err(CliError::io("writing curves.svg"))?;
    steps.say(&format!("seed {seed}: {}", run.head.calibration.trade_off));
    Ok(run)
}

/// Has the base write held-out clips down, and fits how sound and words are weighed.
fn fuse(
    args: &Args,
    prepared: &Prepared,
    plan: &TrainPlan,
    manifest: &Manifest,
    runs: &mut [(u64, PathBuf, SeedRun)],
    steps: &Steps,
) -> Result<(), CliError> {
    let wanted = prepared.clips_to_transcribe(args.fusion_clips);
    let of_content: HashMap<[u8; 32], &Path> =
        manifest.examples.iter().map(|example| (example.content, example.path.as_path())).collect();
    let mut cache = WordsCache::open(&args.out.join("words.jsonl"))?;
    let (folder, _) = open_base(&args.base)?;
    let mut words = HashMap::new();
    let mut writer: Option<Recognizer> = None;
    let mut folder = Some(folder);
    let bar = steps.bar("words of held-out clips");
    for (done, content) in wanted.iter().enumerate() {
        bar.set(done, wanted.len());
        let key = hex(content);
        if cache.get(&key).is_none() {
            if let Some(folder) = folder.take() {
                let options = LoadOptions { compute: Compute::cpu(), task: Some(Task::Single) };
                writer = Some(Recognizer::from_folder(folder, options)?);
            }
            let (Some(writer), Some(path)) = (&writer, of_content.get(content)) else { continue };
            cache.add(written(writer, path, &key)?)?;
        }
        if let Some(written) = cache.get(&key) {
            words.insert(key, written.clone());
        }
    }
    bar.done();
    for (seed, _, run) in runs {
        if let Some((calibration, outcome)) = prepared.fuse(plan, run, &words)? {
            steps.say(&format!(
                "seed {seed}: with the words, {:.1} % of held-out commands accepted rightly, {:.1} % as another",
                100.0 * outcome.right,
                100.0 * outcome.wrong,
            ));
            run.head.calibration = calibration;
        }
    }
    Ok(())
}

/// The words of one file.
pub(crate) fn written(writer: &Recognizer, path: &Path, content: &str) -> Result<Written, CliError> {
    let bytes = fs::read(path).map_err(CliError::io("reading a clip"))?;
    let waveform = audio::decode(&bytes, &DecodeLimits::default())?;
    let answer = block_on_pool(writer.recognize(&waveform, &RecognizeOptions::default()))?;
    Ok(Written {
        content: content.to_owned(),
        language: answer.whisper_info.decode_language.unwrap_or_else(|| "sw".to_owned()),
        text: answer.transcription.filter(|text| !text.trim().is_empty()),
    })
}

fn held_out_loss(run: &SeedRun) -> f64 {
    let losses = run.history.iter().filter_map(|point| point.validation_loss);
    losses.fold(f64::INFINITY, f64::min)
}

pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(value).expect("plain data is JSON");
    text.push('\n');
    fs::write(path, text).map_err(CliError::io(format!("writing {}", path.display())))
}
