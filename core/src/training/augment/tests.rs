//! Of the whole chain; each effect's own tests stand beside it.

use proptest::prelude::*;

use super::*;

const SECOND: usize = SAMPLE_RATE_HZ as usize;
/// 30 s and both silences.
const LONGEST: usize = MAX_SAMPLES + 10 * SECOND;

fn everything() -> AugmentOptions {
    AugmentOptions {
        p_speed: 1.0,
        p_pitch: 1.0,
        p_formant: 1.0,
        p_reverb: 1.0,
        p_noise: 1.0,
        p_filter: 1.0,
        p_clipping: 1.0,
        p_quantise: 1.0,
        p_telephone: 1.0,
        p_codec: 1.0,
        p_dropout: 1.0,
        ..AugmentOptions::default()
    }
}

/// Harmonics of 150 Hz that come and go three times a second.
fn voice(n: usize) -> Vec<f32> {
    let at = |i: usize| {
        let t = std::f32::consts::TAU * (i % SECOND) as f32 / SECOND as f32;
        let tone: f32 = (1..=12).map(|h| (150.0 * h as f32 * t).sin() / h as f32).sum();
        0.3 * tone * (1.5 * t).sin().abs()
    };
    (0..n).map(at).collect()
}

fn run(samples: &[f32], options: &AugmentOptions, seed: u64) -> (Vec<f32>, Applied) {
    augment(samples, options, &[], &mut fastrand::Rng::with_seed(seed))
}

#[test]
fn no_augmentation_is_the_clip() {
    let clip = voice(SECOND);
    AugmentOptions::none().check().expect("a clip as it is");
    assert_eq!(run(&clip, &AugmentOptions::none(), 1), (clip.clone(), Applied::default()));
}

#[test]
fn a_seed_says_everything() {
    let clip = voice(SECOND);
    for seed in 0..10 {
        let first = run(&clip, &AugmentOptions::default(), seed);
        assert_eq!(first, run(&clip, &AugmentOptions::default(), seed));
        assert_ne!(first.0, run(&clip, &AugmentOptions::default(), seed + 1).0);
    }
}

#[test]
fn everything_at_once_is_still_a_clip() {
    let clip = voice(3 * SECOND);
    for seed in 0..20 {
        let (copy, applied) = run(&clip, &everything(), seed);
        let speed = applied.speed.or(applied.tempo).expect("p_speed is 1");
        let silence: f32 = applied.silence_s.expect("drawn").iter().sum();
        let expected = clip.len() as f32 / speed + silence * SECOND as f32;
        assert!((copy.len() as f32 / expected - 1.0).abs() < 0.02, "{} samples, not {expected}", copy.len());
        assert!(copy.iter().all(|s| s.abs() <= 1.0));
        assert!(peak(&copy) > 1e-3, "nothing is left: {applied:?}");
        assert!(applied.telephone && applied.noise.is_some() && applied.clip_level.is_some(), "{applied:?}");
    }
}

#[test]
fn shares_are_shares_of_copies() {
    let clip = voice(SECOND / 10);
    let copies: Vec<Applied> = (0..1000).map(|seed| run(&clip, &AugmentOptions::default(), seed).1).collect();
    let share = |has: fn(&Applied) -> bool| copies.iter().filter(|a| has(a)).count() as f32 / copies.len() as f32;
    let near = |got: f32, expected: f32| assert!((got - expected).abs() < 0.05, "{got}, not {expected}");
    near(share(|a| a.noise.is_some()), 0.8);
    near(share(|a| a.reverb_rt60_s.is_some()), 0.3);
    near(share(|a| a.speed.is_some()), 0.25);
    near(share(|a| a.tempo.is_some()), 0.25);
    near(share(|a| a.pitch_semitones.is_some()), 0.4);
    near(share(|a| a.telephone), 0.25);
    near(share(|a| a.clip_level.is_some()), 0.08);
    near(share(|a| a.codec_cutoff_hz.is_some()), 0.2);
    assert!(copies.iter().filter_map(|a| a.snr_db).all(|db| (0.0..=25.0).contains(&db)));
}

#[test]
fn recordings_are_heard_where_there_are_any() {
    let clip = voice(SECOND);
    let recordings: Vec<Vec<f32>> =
        (0..3).map(|i| (0..SECOND / 2).map(|at| 0.2 * (at as f32 * (0.1 + 0.2 * i as f32)).sin()).collect()).collect();
    let noises: Vec<&[f32]> = recordings.iter().map(Vec::as_slice).collect();
    let options = AugmentOptions { p_noise: 1.0, p_synthetic: 0.0, snr_db: [10.0; 2], ..AugmentOptions::none() };
    let mut names: Vec<String> = (0..40)
        .map(|seed| {
            let (copy, applied) = augment(&clip, &options, &noises, &mut fastrand::Rng::with_seed(seed));
            assert_ne!(copy, clip);
            applied.noise.expect("p_noise is 1")
        })
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names, ["babble", "recording 0", "recording 1", "recording 2"]);
    // A recording in which there is nothing is replaced by noise that is heard.
    let (_, applied) = augment(&clip, &options, &[&[0.0; 500], &[]], &mut fastrand::Rng::with_seed(1));
    assert!(!applied.noise.expect("p_noise is 1").starts_with("recording"));
}

#[test]
fn what_is_loud_is_scaled_and_what_is_long_is_cut() {
    let loud: Vec<f32> = voice(SECOND).iter().map(|s| s * 50.0).collect();
    let (copy, _) = run(&loud, &AugmentOptions::none(), 1);
    let factor = peak(&loud);
    assert!((peak(&copy) - 1.0).abs() < 1e-6);
    assert!(copy.iter().zip(&loud).all(|(a, b)| (a - b / factor).abs() < 1e-6), "not scaled");
    let options = AugmentOptions { p_speed: 1.0, speed: [0.5; 2], ..AugmentOptions::none() };
    let long = vec![0.1; 40 * SECOND];
    for seed in 0..4 {
        assert_eq!(run(&long, &options, seed).0.len(), MAX_SAMPLES);
    }
}

#[test]
fn empty_and_tiny_clips_survive() {
    assert_eq!(run(&[], &everything(), 1), (Vec::new(), Applied::default()));
    for seed in 0..30 {
        for clip in [&[0.5][..], &[0.0], &[f32::NAN], &[f32::INFINITY, -1.0], &[f32::MAX; 5]] {
            let (copy, _) = run(clip, &everything(), seed);
            assert!(copy.iter().all(|s| s.abs() <= 1.0), "{clip:?}");
        }
    }
}

#[test]
fn options_are_checked_by_name() {
    AugmentOptions::default().check().expect("the default");
    let none = AugmentOptions::none;
    for (name, wrong) in [
        ("p_noise", AugmentOptions { p_noise: 1.5, ..none() }),
        ("p_codec", AugmentOptions { p_codec: f32::NAN, ..none() }),
        ("snr_db", AugmentOptions { snr_db: [30.0, 0.0], ..none() }),
        ("speed", AugmentOptions { speed: [0.0, 1.0], ..none() }),
        ("silence_s", AugmentOptions { silence_s: [0.0, f32::INFINITY], ..none() }),
        ("formant", AugmentOptions { formant: [f32::NAN, 1.0], ..none() }),
        ("quantise_bits", AugmentOptions { quantise_bits: [8, 40], ..none() }),
    ] {
        let message = wrong.check().expect_err(name);
        assert!(message.starts_with(name), "{message}");
    }
}

#[test]
fn options_are_read_from_json_with_defaults_and_no_misspelling() {
    let options: AugmentOptions = serde_json::from_str(r#"{"p_noise": 0.1, "snr_db": [5, 10]}"#).expect("valid");
    assert_eq!(options, AugmentOptions { p_noise: 0.1, snr_db: [5.0, 10.0], ..AugmentOptions::default() });
    assert!(serde_json::from_str::<AugmentOptions>(r#"{"p_nose": 0.1}"#).is_err());
}

/// Any float, also those that are no numbers.
fn any_pair() -> impl Strategy<Value = [f32; 2]> {
    [prop_oneof![any::<f32>(), -40.0_f32..40.0], prop_oneof![any::<f32>(), -40.0_f32..40.0]]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn no_input_and_no_options_make_it_panic(
        samples in prop::collection::vec(prop_oneof![4 => -1.0_f32..1.0, 1 => any::<f32>()], 0..5000),
        noise in prop::collection::vec(any::<f32>(), 0..300),
        pairs in prop::collection::vec(any_pair(), 7),
        shares in prop::collection::vec(prop_oneof![Just(1.0_f32), -0.5_f32..1.5, Just(f32::NAN)], 12),
        quantise_bits in any::<[u32; 2]>(),
        filter_db in any::<f32>(),
        seed in any::<u64>(),
    ) {
        let options = AugmentOptions {
            p_speed: shares[0],
            speed: pairs[0],
            p_pitch: shares[1],
            pitch_semitones: pairs[1],
            p_formant: shares[2],
            formant: pairs[2],
            // Always something short, so that the cases are quick.
            silence_s: [0.0, 0.1],
            p_reverb: shares[3],
            reverb_rt60_s: pairs[3],
            p_noise: shares[4],
            snr_db: pairs[4],
            p_synthetic: shares[5],
            p_filter: shares[6],
            filter_db,
            gain_db: pairs[5],
            p_clipping: shares[7],
            clip_level: pairs[6],
            p_quantise: shares[8],
            quantise_bits,
            p_telephone: shares[9],
            p_codec: shares[10],
            p_dropout: shares[11],
        };
        let noises: [&[f32]; 3] = [&noise, &samples, &[0.1, -0.1]];
        let (copy, _) = augment(&samples, &options, &noises, &mut fastrand::Rng::with_seed(seed));
        prop_assert!(copy.iter().all(|s| s.abs() <= 1.0));
        prop_assert!(copy.len() <= LONGEST);
        prop_assert_eq!(copy.is_empty(), samples.is_empty());
    }
}
