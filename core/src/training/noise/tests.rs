//! Each kind by what tells it from the others.

use proptest::prelude::*;
use realfft::RealFftPlanner;

use super::*;

const SECOND: usize = SAMPLE_RATE_HZ as usize;

fn made(kind: NoiseKind, seconds: usize, seed: u64) -> Vec<f32> {
    make(kind, seconds * SECOND, &mut fastrand::Rng::with_seed(seed))
}

/// The energy of each bin of 1 Hz, added up over whole seconds under a Hann window.
fn spectrum(samples: &[f32]) -> Vec<f64> {
    let fft = RealFftPlanner::<f32>::new().plan_fft_forward(SECOND);
    let mut bins = fft.make_output_vec();
    let mut sums = vec![0.0; bins.len()];
    for second in samples.chunks_exact(SECOND) {
        let window = (0..SECOND).map(|i| 0.5 - 0.5 * (TAU * i as f64 / SECOND as f64).cos() as f32);
        let mut input: Vec<f32> = second.iter().zip(window).map(|(s, w)| s * w).collect();
        fft.process(&mut input, &mut bins).expect("buffers of its own");
        for (sum, bin) in sums.iter_mut().zip(&bins) {
            *sum += f64::from(bin.norm_sqr());
        }
    }
    sums
}

fn energy(samples: &[f32], from_hz: usize, to_hz: usize) -> f64 {
    spectrum(samples)[from_hz..to_hz].iter().sum()
}

/// Levels of 50 ms frames in dB, sorted.
fn levels_db(samples: &[f32]) -> Vec<f64> {
    let mut levels: Vec<f64> = samples.chunks_exact(800).map(|frame| 10.0 * (power(frame) + 1e-12).log10()).collect();
    levels.sort_by(f64::total_cmp);
    levels
}

#[test]
fn levels_are_those_of_a_background() {
    for kind in NoiseKind::ALL {
        for seed in 0..8 {
            let samples = made(kind, 3, seed);
            let rms = power(&samples).sqrt();
            let allowed = match kind {
                NoiseKind::Silence => 0.0..=3e-4,
                NoiseKind::Clicks => 0.01..=0.101, // limited by its peaks
                _ => 0.049..=0.101,
            };
            assert!(allowed.contains(&rms), "{}, seed {seed}: RMS {rms}", kind.name());
            assert!(samples.len() == 3 * SECOND && peak(&samples) <= 1.0);
        }
    }
}

#[test]
fn silence_is_digital_or_next_to_it() {
    let zero = |seed| peak(&made(NoiseKind::Silence, 1, seed)) == 0.0;
    let n_zero = (0..40).filter(|seed| zero(*seed)).count();
    assert!((8..=32).contains(&n_zero), "{n_zero} of 40");
}

#[test]
fn slopes_are_0_3_and_6_db_an_octave() {
    for (kind, expected) in [(NoiseKind::White, 0.0), (NoiseKind::Pink, 3.0), (NoiseKind::Brown, 6.0)] {
        let samples = made(kind, 8, 1);
        // Mean energy of a bin, three octaves apart.
        let (low, high) = (energy(&samples, 200, 400) / 200.0, energy(&samples, 1600, 3200) / 1600.0);
        let slope = 10.0 * (low / high).log10() / 3.0;
        assert!((slope - expected).abs() < 0.4, "{}: {slope} dB an octave", kind.name());
    }
}

#[test]
fn hum_is_harmonics_of_50_hz() {
    for seed in 0..4 {
        let samples = made(NoiseKind::Hum, 2, seed);
        let bins = spectrum(&samples);
        let near: f64 = (1..=20).flat_map(|h| &bins[50 * h - 7..50 * h + 8]).sum();
        assert!(near / bins.iter().sum::<f64>() > 0.98, "seed {seed}");
    }
}

#[test]
fn a_fan_is_steady_and_a_street_is_not() {
    // The nine tenths in the middle.
    let spread = |samples: &[f32]| {
        let levels = levels_db(samples);
        levels[levels.len() * 19 / 20] - levels[levels.len() / 20]
    };
    let mean = |kind| (0..6).map(|seed| spread(&made(kind, 6, seed))).sum::<f64>() / 6.0;
    let (fan, street) = (mean(NoiseKind::Fan), mean(NoiseKind::Street));
    assert!(street > fan + 1.0, "street {street} dB, fan {fan} dB");
    for kind in [NoiseKind::Fan, NoiseKind::Street] {
        let samples = made(kind, 4, 3);
        assert!(energy(&samples, 0, 2500) > 4.0 * energy(&samples, 2500, 8000), "{} is bright", kind.name());
    }
}

#[test]
fn clicks_are_short_and_far_between() {
    for seed in 0..6 {
        let samples = made(NoiseKind::Clicks, 4, seed);
        let crest_db = 10.0 * (f64::from(peak(&samples)).powi(2) / power(&samples)).log10();
        assert!(crest_db > 14.0, "seed {seed}: a crest of {crest_db} dB; white noise has 11");
        let levels = levels_db(&samples);
        assert!(levels[levels.len() - 1] - levels[levels.len() / 5] > 15.0, "seed {seed}: no pauses");
    }
}

#[test]
fn music_is_tones_that_change() {
    for seed in 0..4 {
        let samples = made(NoiseKind::Music, 4, seed);
        // Half of the energy in few bins: tones. In noise it would take a third of them.
        let mut bins = spectrum(&samples[..SECOND])[40..4000].to_vec();
        bins.sort_by(|a, b| b.total_cmp(a));
        let total: f64 = bins.iter().sum();
        let loudest: f64 = bins[..120].iter().sum();
        assert!(loudest > 0.5 * total, "seed {seed}: {} of the energy", loudest / total);
        // A chord that stayed would be the same half second again.
        let (first, later) = (&samples[..SECOND / 2], &samples[SECOND / 2..]);
        let alike = |b: &[f32]| {
            let product: f64 = first.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            product / (SECOND / 2) as f64 / (power(first) * power(b)).sqrt()
        };
        let n_other = later.chunks_exact(SECOND / 2).filter(|half| alike(half) < 0.9).count();
        assert!(n_other >= 2, "seed {seed}: {n_other} halves differ");
    }
}

#[test]
fn names_and_json_agree() {
    for kind in NoiseKind::ALL {
        assert_eq!(serde_json::to_string(&kind).expect("a name"), format!("\"{}\"", kind.name()));
    }
}

#[test]
fn babble_holds_every_talker_and_has_no_gaps() {
    // Talkers of one tone each.
    let clips: Vec<Vec<f32>> = [300.0_f64, 700.0, 1100.0]
        .iter()
        .map(|hz| (0..SECOND / 2).map(|i| (TAU * hz * i as f64 / SECOND as f64).sin() as f32 * 0.01).collect())
        .collect();
    let clips: Vec<&[f32]> = clips.iter().map(Vec::as_slice).collect();
    let samples = babble(&clips, 6 * SECOND, 5, &mut fastrand::Rng::with_seed(2));
    assert_eq!(samples.len(), 6 * SECOND);
    for hz in [300, 700, 1100] {
        let share = energy(&samples, hz - 10, hz + 11) / energy(&samples, 0, 8000);
        assert!(share > 0.05, "{hz} Hz: {share}");
    }
    let rms = power(&samples).sqrt();
    assert!((0.049..=0.101).contains(&rms), "{rms}");
    let mut rng = fastrand::Rng::with_seed(3);
    assert_eq!(babble(&[], 5, 3, &mut rng), [0.0; 5]);
    assert_eq!(babble(&[&[], &[0.0; 9], &[f32::NAN]], 5, 3, &mut rng), [0.0; 5]);
    assert!(babble(&clips, 0, 3, &mut rng).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_length_of_any_kind_is_finite_and_the_same_again(
        kind in prop::sample::select(NoiseKind::ALL.to_vec()),
        n in prop_oneof![0_usize..4, 0_usize..20_000],
        seed in any::<u64>(),
    ) {
        let samples = make(kind, n, &mut fastrand::Rng::with_seed(seed));
        prop_assert_eq!(samples.len(), n);
        prop_assert!(samples.iter().all(|s| s.abs() <= 1.0));
        prop_assert_eq!(&samples, &make(kind, n, &mut fastrand::Rng::with_seed(seed)));
        if n > 1000 && kind != NoiseKind::Silence {
            prop_assert_ne!(samples, make(kind, n, &mut fastrand::Rng::with_seed(seed.wrapping_add(1))));
        }
    }
}
