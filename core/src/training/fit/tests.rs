#![allow(clippy::unwrap_used)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use half::f16;

use super::*;
use crate::training::checkpoint::{BEST, CURRENT, HEAD, OPTIMISER, STATE};

const SHAPE: HeadShape = HeadShape {
    n_layers: 2,
    n_state: 8,
    d_projector: 8,
    n_context: 1,
    context_kernel: 3,
    d_attention: 4,
    n_pool: 2,
    d_hidden: 0,
    n_classes: 3,
    n_letters: 3,
};

fn options() -> FitOptions {
    FitOptions { epochs: 5, batch_size: 16, learning_rate: 0.02, dropout: 0.1, ..FitOptions::default() }
}

/// Three classes of clips of 3 to 7 positions: each class is a direction, under noise. Every tenth holds no speech.
fn clips(store: &mut FeatureStore, name: &str, n: usize) -> Vec<TrainingClip> {
    let mut rng = fastrand::Rng::with_seed(n as u64);
    let clips = (0..n)
        .map(|at| {
            let class = at % 3;
            let keys = (0..2u8).map(|copy| FeatureKey::new(&[name.as_bytes(), &at.to_le_bytes(), &[copy]])).collect();
            let clip = TrainingClip { keys, class };
            for key in &clip.keys {
                let n_positions = if at % 10 == 9 { 0 } else { rng.usize(3..8) };
                let value = |i: usize| if i % 8 == class || i % 8 == class + 4 { 2.0 } else { 0.0 };
                let states: Vec<f16> =
                    (0..2 * n_positions * 8).map(|i| f16::from_f32(value(i) + 2.0 * rng.f32())).collect();
                store.add(*key, &states).unwrap();
            }
            clip
        })
        .collect();
    store.flush().unwrap();
    clips
}

fn with_set<R>(use_it: impl FnOnce(&TrainingSet<'_>) -> R) -> R {
    let folder = tempfile::tempdir().unwrap();
    let mut store = FeatureStore::open(folder.path(), 2, 8).unwrap();
    let (train, validation) = (clips(&mut store, "train", 120), clips(&mut store, "validation", 60));
    // Who speaks says the letter of the class.
    let clips = train.iter().chain(&validation);
    let letters = clips.flat_map(|c| c.keys.iter().map(|key| (*key, vec![c.class + 1]))).collect();
    use_it(&TrainingSet { store: &store, train, validation, letters: &letters })
}

#[test]
fn it_learns_and_a_seed_is_a_seed() {
    with_set(|set| {
        let run = |seed| fit(&SHAPE, &FitOptions { seed, ..options() }, set, None, &mut |_| {}).unwrap();
        let first = run(1);
        let best = &first.history[first.best_epoch - 1];
        assert!(best.validation_accuracy.unwrap() > 0.95, "{:?}", first.history);
        assert!(first.history.iter().all(|p| p.validation_loss >= best.validation_loss));
        let again = run(1);
        assert_eq!((&first.tensors, &first.history), (&again.tensors, &again.history));
        assert_ne!(first.tensors, run(2).tensors);
        // It writes down what is said.
        let source = in_memory(&first.tensors).unwrap();
        let head = SHAPE.read(&source, &Device::flex()).unwrap();
        let items: Vec<(FeatureKey, usize)> = set.validation.iter().map(|c| (c.keys[0], c.class)).collect();
        let alphabet = Alphabet::new("abc").unwrap();
        let answers = answers_of(&head, &SHAPE, &alphabet, 7, set.store, &items).unwrap();
        let n_right = answers.iter().zip(&items).filter(|(a, i)| a.letters == ["a", "b", "c"][i.1]).count();
        let n_silent = answers.iter().filter(|answer| answer.logits.iter().all(|v| *v == 0.0)).count();
        // By chance: 18.
        assert!(n_right > 30 && n_silent == 6, "{n_right} of 60, {n_silent} silent");
    });
}

#[test]
fn a_killed_run_ends_as_one_that_was_left_alone() {
    with_set(|set| {
        let whole = fit(&SHAPE, &options(), set, None, &mut |_| {}).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let killed = catch_unwind(AssertUnwindSafe(|| {
            fit(&SHAPE, &options(), set, Some(folder.path()), &mut |event| {
                // In the middle of an epoch: that one is lost.
                assert!(!matches!(event, FitEvent::Step { epoch: 3, step: 2, .. }), "killed");
            })
        }));
        assert!(killed.is_err());
        let mut resumed = None;
        let gone_on = fit(&SHAPE, &options(), set, Some(folder.path()), &mut |event| {
            if let FitEvent::Resumed { epoch } = event {
                resumed = Some(epoch);
            }
        });
        let gone_on = gone_on.unwrap();
        assert_eq!(resumed, Some(2));
        assert_eq!((gone_on.tensors, gone_on.history), (whole.tensors, whole.history));
    });
}

#[test]
fn a_damaged_checkpoint_is_named_and_another_plan_begins_anew() {
    with_set(|set| {
        let folder = tempfile::tempdir().unwrap();
        let options = FitOptions { epochs: 1, ..options() };
        fit(&SHAPE, &options, set, Some(folder.path()), &mut |_| {}).unwrap();
        let other = FitOptions { seed: 7, ..options.clone() };
        fit(&SHAPE, &other, set, Some(folder.path()), &mut |event| {
            assert!(!matches!(event, FitEvent::Resumed { .. }), "other options");
        })
        .unwrap();
        for file in [STATE, HEAD, BEST, OPTIMISER] {
            let path = folder.path().join(CURRENT).join(file);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            let error = fit(&SHAPE, &other, set, Some(folder.path()), &mut |_| {}).unwrap_err();
            assert!(["invalid_config", "damaged_weights"].contains(&error.code()), "{file}: {error}");
            fs::write(&path, bytes).unwrap();
        }
    });
}

#[test]
fn what_cannot_be_trained_is_refused() {
    with_set(|set| {
        let refused = |options: FitOptions, set: &TrainingSet<'_>| {
            fit(&SHAPE, &options, set, None, &mut |_| {}).unwrap_err().to_string()
        };
        for (options, name) in [
            (FitOptions { epochs: 0, ..options() }, "epochs"),
            (FitOptions { batch_size: 0, ..options() }, "batch_size"),
            (FitOptions { learning_rate: f64::NAN, ..options() }, "learning_rate"),
            (FitOptions { dropout: 1.0, ..options() }, "dropout"),
            (FitOptions { label_smoothing: -0.1, ..options() }, "label_smoothing"),
        ] {
            assert!(refused(options, set).starts_with(name), "{name}");
        }
        let silent: Vec<TrainingClip> = set.train.iter().skip(9).step_by(10).cloned().collect();
        let silent = TrainingSet { train: silent, validation: set.validation.clone(), ..*set };
        assert!(refused(options(), &silent).contains("nobody speaks"));
        let diverging = FitOptions { learning_rate: 1.0, weight_decay: 1.0, ..options() };
        // Either it still gets through, or the loss is named: never a panic.
        if let Err(error) = fit(&SHAPE, &diverging, set, None, &mut |_| {}) {
            assert_eq!(error.code(), "not_finite");
        }
    });
}
