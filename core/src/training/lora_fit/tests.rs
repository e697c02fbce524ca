#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use half::f16;
use tempfile::TempDir;

use super::super::batches::TrainingClip;
use super::super::export::{TrainedHead, TrainedLora, rounded};
use super::super::fit::answers_of;
use super::super::lora::tests::{config, distance, encoder, mel, trained, weights};
use super::super::model::values;
use super::*;
use crate::intent::calibration::{Calibration, Thresholds};
use crate::intent::pooling::average_positions;
use crate::recognizer::{LoadOptions, Recognizer};
use crate::weights::folder::{Base, ModelFolder, OpenOptions};

/// Two positions become one.
const STRIDE: usize = 2;
/// The last two layers of the fixture's three are adapted.
const SHAPE: HeadShape = HeadShape {
    n_layers: 4,
    n_state: 16,
    d_projector: 8,
    n_context: 1,
    context_kernel: 3,
    d_attention: 4,
    n_pool: 2,
    d_hidden: 0,
    n_classes: 3,
    n_letters: 0,
};

fn options() -> LoraOptions {
    let fit = FitOptions { epochs: 4, batch_size: 16, learning_rate: 0.02, dropout: 0.1, ..FitOptions::default() };
    LoraOptions { layers: 2, rank: 2, alpha: 4.0, rate_share: 0.5, fit }
}

struct Fixture {
    _folder: TempDir,
    store: FeatureStore,
    inputs: LoraInputs,
    train: Vec<TrainingClip>,
    validation: Vec<TrainingClip>,
    head: Vec<NamedTensor>,
    letters: HashMap<FeatureKey, Vec<usize>>,
}

impl Fixture {
    /// Three classes of clips, each a direction under noise where the first adapted layer begins; the states above are
    /// what the frozen layers make of it. Every tenth clip holds no speech.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FeatureStore::open(folder.path(), SHAPE.n_layers, SHAPE.n_state).unwrap();
        let mut full = FeatureStore::open(&folder.path().join("lora"), 1, SHAPE.n_state).unwrap();
        let frozen = FrozenLayers::load(&config(), &*weights(), 2).unwrap();
        let spec = options().on(SHAPE.n_state, SHAPE.n_layers - 1).unwrap();
        let unchanged = LoraLayers::init(&spec, 16, 1, &Device::flex()).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let mut of = HashMap::new();
        let mut clips = |name: &str, n: usize| -> Vec<TrainingClip> {
            let mut clip = |at: usize| {
                let class = at % 3;
                let key = FeatureKey::new(&[name.as_bytes(), &at.to_le_bytes()]);
                let key_in_full = FeatureKey::new(&[b"full rate", name.as_bytes(), &at.to_le_bytes()]);
                of.insert(key, key_in_full);
                let clip = TrainingClip { keys: vec![key], class };
                if at % 10 == 9 {
                    store.add(key, &[]).unwrap();
                    full.add(key_in_full, &[]).unwrap();
                    return clip;
                }
                let n_ctx = rng.usize(5..12);
                let value = |i: usize| if i % 4 == class { 1.0 } else { 0.0 };
                let input: Vec<f16> =
                    (0..n_ctx * 16).map(|i| f16::from_f32(value(i) + 2.0 * rng.f32() - 1.0)).collect();
                full.add(key_in_full, &input).unwrap();
                let numbers: Vec<f32> = input.iter().map(|v| v.to_f32()).collect();
                let x = Tensor::<3>::from_data(TensorData::new(numbers, [1, n_ctx, 16]), &Device::flex());
                let below = x.clone() * 0.5;
                let above = unchanged.forward(&frozen, spec.scale(), x.clone(), None);
                let record = [vec![below, x], above]
                    .concat()
                    .into_iter()
                    .flat_map(|state| values(average_positions(state, STRIDE)).unwrap().into_iter().map(f16::from_f32));
                store.add(key, &record.collect::<Vec<_>>()).unwrap();
                clip
            };
            (0..n).map(&mut clip).collect()
        };
        let (train, validation) = (clips("train", 90), clips("validation", 45));
        store.flush().unwrap();
        full.flush().unwrap();
        let head = SHAPE.init(3, &Device::flex()).unwrap().tensors().unwrap();
        let inputs = LoraInputs::new(full, of, frozen).unwrap();
        Self { _folder: folder, store, inputs, train, validation, head, letters: HashMap::new() }
    }

    fn start(&self) -> LoraStart<'_> {
        LoraStart { tensors: &self.head, shape: &SHAPE, n_encoder_layers: SHAPE.n_layers - 1, position_stride: STRIDE }
    }

    fn set(&self) -> TrainingSet<'_> {
        let (train, validation) = (self.train.clone(), self.validation.clone());
        TrainingSet { store: &self.store, train, validation, letters: &self.letters }
    }

    fn fit(
        &self,
        options: &LoraOptions,
        seed: u64,
        checkpoints: Option<&Path>,
        on_event: &mut dyn FnMut(FitEvent),
    ) -> Result<Fitted> {
        fit_lora(&self.start(), options, seed, &self.set(), &self.inputs, checkpoints, on_event)
    }

    fn items(&self) -> Vec<(FeatureKey, usize)> {
        self.validation.iter().map(|clip| (clip.keys[0], clip.class)).collect()
    }
}

/// The largest number among the tensors of this ending.
fn largest(tensors: &[NamedTensor], ending: &str) -> f32 {
    let named = tensors.iter().filter(|(name, ..)| name.ends_with(ending));
    named.flat_map(|(_, _, numbers)| numbers).fold(0.0, |max, v| v.abs().max(max))
}

/// Cached states are half precision, what passes through the layers again is not.
#[test]
fn new_adapters_answer_as_the_head_alone() {
    let fixture = Fixture::new();
    let (options, items) = (options(), fixture.items());
    let head = SHAPE.read(&in_memory(&fixture.head).unwrap(), &Device::flex()).unwrap();
    let abc = Alphabet::default();
    let alone = answers_of(&head, &SHAPE, &abc, 7, &fixture.store, &items).unwrap();
    let start = fixture.start();
    let adapted = Adapted::new(&start, &options, &fixture.store, &fixture.inputs).unwrap();
    for device in [Device::flex(), Device::flex().autodiff()] {
        let model = adapted.begin(1, &device).unwrap();
        for batch_size in [1, 7] {
            let together = answers(&adapted, &model, &abc, batch_size, &items).unwrap();
            for (at, (a, b)) in together.iter().zip(&alone).enumerate() {
                let (a, b) = (&a.logits, &b.logits);
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.02), "clip {at}: {a:?} {b:?}");
                assert_eq!(at % 10 == 9, a.iter().all(|v| *v == 0.0), "only where nobody speaks: clip {at}");
            }
        }
    }
}

#[test]
fn head_and_adapters_learn_and_a_seed_is_a_seed() {
    let fixture = Fixture::new();
    let run = |seed| fixture.fit(&options(), seed, None, &mut |_| {}).unwrap();
    let first = run(1);
    let best = first.history[first.best_epoch - 1].validation_loss.unwrap();
    // An untrained head knows nothing: ln 3.
    assert!(best < 0.8 * 3f64.ln(), "{:?}", first.history);
    assert_eq!(first.tensors.len(), fixture.head.len() + 8);
    assert!(largest(&first.tensors, ".b") > 1e-3);
    let again = run(1);
    assert_eq!((&first.tensors, &first.history), (&again.tensors, &again.history));
    assert_ne!(first.tensors, run(2).tensors);
    // The logits of what came out are those that the history was measured by.
    let (start, items, abc) = (fixture.start(), fixture.items(), Alphabet::default());
    let heard = lora_answers(&start, &options(), &fixture.store, &fixture.inputs, &first.tensors, &abc, &items);
    let heard: Vec<(Vec<f32>, usize)> =
        heard.unwrap().into_iter().zip(items).map(|(answer, (_, class))| (answer.logits, class)).collect();
    let losses = heard.iter().enumerate().filter(|(at, _)| at % 10 != 9).map(|(_, (row, class))| {
        let sum: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
        sum.ln() - f64::from(row[*class])
    });
    let losses: Vec<f64> = losses.collect();
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    assert!((mean - best).abs() < 1e-3, "{mean} {best}");
}

#[test]
fn the_adapters_have_a_learning_rate_of_their_own() {
    let fixture = Fixture::new();
    let moved = |rate_share| {
        let options = LoraOptions { rate_share, ..options() };
        let options = LoraOptions { fit: FitOptions { epochs: 1, ..options.fit.clone() }, ..options };
        let tensors = fixture.fit(&options, 1, None, &mut |_| {}).unwrap().tensors;
        let (adapters, head): (Vec<NamedTensor>, _) =
            tensors.into_iter().partition(|(n, ..)| n.starts_with(LORA_PREFIX));
        assert_ne!(head, fixture.head, "the head learns on");
        largest(&adapters, ".b")
    };
    let (slow, fast) = (moved(1e-5), moved(0.5));
    assert!(slow > 0.0 && slow < 1e-5 && fast > 1e-3, "{slow} {fast}");
}

#[test]
fn a_killed_run_ends_as_one_that_was_left_alone_and_another_head_begins_anew() {
    let mut fixture = Fixture::new();
    let whole = fixture.fit(&options(), 1, None, &mut |_| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let killed = catch_unwind(AssertUnwindSafe(|| {
        fixture.fit(&options(), 1, Some(folder.path()), &mut |event| {
            assert!(!matches!(event, FitEvent::Step { epoch: 3, step: 2, .. }), "killed");
        })
    }));
    assert!(killed.is_err());
    let mut resumed = None;
    let mut note = |event| {
        if let FitEvent::Resumed { epoch } = event {
            resumed = Some(epoch);
        }
    };
    let gone_on = fixture.fit(&options(), 1, Some(folder.path()), &mut note).unwrap();
    assert_eq!(resumed, Some(2));
    assert_eq!((gone_on.tensors, gone_on.history), (whole.tensors, whole.history));
    fixture.head[0].2[0] += 1.0;
    fixture
        .fit(&options(), 1, Some(folder.path()), &mut |event| {
            assert!(!matches!(event, FitEvent::Resumed { .. }), "another head");
        })
        .unwrap();
}

#[test]
fn long_clips_go_in_smaller_steps() {
    let fixture = Fixture::new();
    let (start, options) = (fixture.start(), options());
    let adapted = Adapted::new(&start, &options, &fixture.store, &fixture.inputs).unwrap();
    for n_positions in [0, 1, 39, MAX_POSITIONS, 10 * MAX_POSITIONS] {
        let n_ctx = n_positions.clamp(1, MAX_POSITIONS) * STRIDE;
        let scores = adapted.at_once(n_positions) * n_ctx * n_ctx * 2;
        assert!(scores <= MAX_SCORES && scores > MAX_SCORES / 2, "{n_positions}: {scores}");
    }
}

#[test]
fn what_cannot_be_adapted_is_refused() {
    let fixture = Fixture::new();
    let refused = |options: LoraOptions| fixture.fit(&options, 1, None, &mut |_| {}).unwrap_err().to_string();
    for (options, said) in [
        (LoraOptions { layers: 0, ..options() }, "0 to 3"),
        (LoraOptions { layers: 4, ..options() }, "0 to 3"),
        (LoraOptions { rank: 17, ..options() }, "1 to 16"),
        (LoraOptions { alpha: f32::NAN, ..options() }, "alpha"),
        (LoraOptions { rate_share: 0.0, ..options() }, "rate_share"),
        (LoraOptions { fit: FitOptions { epochs: 0, ..options().fit }, ..options() }, "epochs"),
        // The layers that were loaded are two.
        (LoraOptions { layers: 1, ..options() }, "under the adapters"),
    ] {
        let sentence = refused(options);
        assert!(sentence.contains(said), "{sentence}");
    }
    // The same clips at another rate are other records.
    let start = LoraStart { position_stride: 3, ..fixture.start() };
    let error = fit_lora(&start, &options(), 1, &fixture.set(), &fixture.inputs, None, &mut |_| {}).unwrap_err();
    assert_eq!(error.code(), "shape_mismatch");
}

/// From the folder that training writes to the encoder that is served.
#[test]
fn a_head_with_adapters_is_read_again() {
    let spec = options().on(SHAPE.n_state, SHAPE.n_layers - 1).unwrap();
    let adapters = rounded(trained(&spec));
    let head = TrainedHead {
        tensors: rounded(SHAPE.init(3, &Device::flex()).unwrap().tensors().unwrap()),
        reader: Vec::new(),
        alphabet: Alphabet::default(),
        sentences: String::new(),
        shape: SHAPE,
        n_encoder_layers: SHAPE.n_layers - 1,
        position_stride: STRIDE,
        labels: vec!["add_to_cart".to_owned()],
        base: "okyeame-tests/tiny-2".to_owned(),
        calibration: Calibration::new(
            1.0,
            Thresholds { in_scope_below: 0.5, confidence_below: 0.5, ambiguous_above: 0.5 },
        ),
        lora: Some(TrainedLora { spec: spec.clone(), tensors: adapters.clone() }),
    };
    let folder = tempfile::tempdir().unwrap();
    head.write(folder.path()).unwrap();
    let open = || {
        ModelFolder::open_with(folder.path(), &OpenOptions::default(), &mut |_| {
            let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny-2");
            Ok(Base { name: "okyeame-tests/tiny-2".to_owned(), folder: tiny })
        })
    };
    let opened = open().unwrap();
    let own = opened.head.as_ref().and_then(|head| head.own_encoder.clone()).unwrap();
    let states = encoder(&*own).forward_all(mel()).unwrap();
    let layers = LoraLayers::read(&spec, 16, &in_memory(&adapters).unwrap(), &Device::flex()).unwrap();
    let frozen = FrozenLayers::load(&config(), &*weights(), 2).unwrap();
    let expected = layers.forward(&frozen, spec.scale(), states[1].clone(), None);
    for (at, expected) in expected.iter().enumerate() {
        assert!(distance(&states[2 + at], expected) < 1e-4, "state {at}");
    }
    // The words are written by the base's own encoder.
    let base = encoder(&*weights()).forward_all(mel()).unwrap();
    assert!(distance(&states[3], &base[3]) > 1e-2);
    assert!(Recognizer::from_folder(opened, LoadOptions::default()).unwrap().audio_head().is_some());

    let path = folder.path().join("config.json");
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(written["lora"], serde_json::json!({"rank": 2, "alpha": 4.0, "layers": [1, 2]}));
    for (lora, code) in [
        (serde_json::Value::Null, "invalid_config"),
        (serde_json::json!({"rank": 3, "alpha": 4.0, "layers": [1, 2]}), "weight_mismatch"),
        (serde_json::json!({"rank": 2, "alpha": 4.0, "layers": [1]}), "weight_mismatch"),
        (serde_json::json!({"rank": 2, "alpha": 4.0, "layers": [1, 3]}), "invalid_config"),
        (serde_json::json!({"rank": 1e9, "alpha": 4.0, "layers": [1, 2]}), "invalid_config"),
        (serde_json::json!("yes"), "invalid_config"),
    ] {
        let mut config = written.clone();
        config["lora"] = lora;
        std::fs::write(&path, config.to_string()).unwrap();
        match open() {
            Err(error) => assert_eq!(error.code(), code, "{config}"),
            Ok(_) => panic!("{config}"),
        }
    }
}
