#![allow(clippy::unwrap_used, reason = "tests")]

use okyeame_core::kernels::profile::StageTime;

use super::*;

fn op(stage: &'static str, name: &'static str, shape: Option<[usize; 2]>, int8: bool, mega: u64, ms: f64) -> OpTime {
    OpTime { stage, op: name, shape, int8, calls: 6, multiply_adds: mega * 1_000_000, ms }
}

/// A transcript of 100 ms.
fn measured() -> (Timed, Profile) {
    let stage = |stage: &'static str, ms: f64| StageTime { stage, calls: 2, ms };
    let profile = Profile {
        stages: vec![
            stage(profile::ENCODER, 40.0),
            stage(profile::CROSS_KEYS, 5.0),
            stage(profile::DECODER, 20.0),
            stage(profile::VOCABULARY, 10.0),
        ],
        ops: vec![
            op(profile::ENCODER, "layer norm", None, false, 0, 2.0),
            op(profile::ENCODER, profile::LINEAR, Some([512, 2048]), true, 5000, 20.0),
            op(profile::ENCODER, profile::LINEAR, Some([512, 512]), false, 1000, 10.0),
            op(profile::VOCABULARY, profile::LINEAR, Some([512, 51_865]), true, 500, 9.5),
        ],
    };
    let timed = Timed {
        total_ms: 100.0,
        decode_audio_ms: 4.0,
        features_ms: 6.0,
        encoder_ms: 46.0,
        decoder_ms: 33.0,
        tokens: 9,
        ..Timed::default()
    };
    (timed, profile)
}

/// 1000 GOP/s in integers, 250 in f32; the slower shapes do not count.
fn peaks() -> Vec<Peak> {
    let peak = |int8: bool, gops: f64| Peak { shape: [150, 512, 2048], int8, ms: 1.0, gops };
    vec![peak(false, 250.0), peak(true, 900.0), peak(false, 200.0), peak(true, 1000.0)]
}

fn near(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-9, "{got}, not {expected}");
}

#[test]
fn the_stages_are_the_whole() {
    let (timed, profile) = measured();
    let rows = stage_rows(&timed, &profile);
    let got: Vec<_> = rows.iter().map(|row| (row.stage, row.ms)).collect();
    let expected = [
        ("audio decode", 4.0),
        ("speech, log-mel", 6.0),
        ("encoder", 40.0),
        ("cross keys", 5.0),
        ("decoder", 20.0),
        ("vocabulary", 10.0),
        ("choice of tokens", 3.0),
        ("rest", 12.0),
    ];
    assert_eq!(got, expected);
    near(rows.iter().map(|row| row.share).sum(), 1.0);
}

#[test]
fn a_command_has_no_rows_of_the_decoder() {
    let (_, mut profile) = measured();
    profile.stages.truncate(1);
    let timed = Timed { total_ms: 50.0, features_ms: 1.0, encoder_ms: 41.0, ..Timed::default() };
    let rows = stage_rows(&timed, &profile);
    let stages: Vec<_> = rows.iter().map(|row| row.stage).collect();
    assert_eq!(stages, ["speech, log-mel", "encoder", "rest"]);
    near(rows[2].share, 0.18);
}

#[test]
fn kernels_are_no_more_than_their_stage_and_held_against_the_peak_of_their_type() {
    let (timed, profile) = measured();
    let rows = op_rows(timed.total_ms, &profile, &peaks());
    let names: Vec<_> = rows.iter().map(|row| (row.stage, row.op.as_str(), row.calls)).collect();
    let expected = [
        ("encoder", "linear int8 512→2048", 6),
        ("encoder", "linear f32 512→512", 6),
        ("encoder", "layer norm", 6),
        ("encoder", "between kernels", 2),
        ("cross keys", "between kernels", 2),
        ("decoder", "between kernels", 2),
        ("vocabulary", "linear int8 512→51865", 6),
        ("vocabulary", "between kernels", 2),
    ];
    assert_eq!(names, expected);
    // 5000 million multiply-adds in 20 ms are 500 GOP/s, half of the peak; 1000 million in 10 ms 200.
    near(rows[0].gops.unwrap(), 500.0);
    near(rows[0].of_peak.unwrap(), 0.5);
    near(rows[1].gops.unwrap(), 200.0);
    near(rows[1].of_peak.unwrap(), 0.8);
    assert_eq!((rows[2].gops, rows[2].of_peak), (None, None));
    near(rows[3].ms, 8.0);
    let sum: f64 = rows.iter().map(|row| row.share).sum();
    near(sum, 0.75); // the four stages of the model
    assert!(sum <= 1.0);
}

#[test]
fn the_encoders_linear_layers_are_summed_up() {
    let (_, mut profile) = measured();
    let linear = encoder_linear(&profile, &peaks()).unwrap();
    near(linear.gops, 400.0); // 6000 million in 30 ms
    assert!(linear.int8);
    near(linear.of_peak, 0.4);
    near(linear.int8_of_peak.unwrap(), 0.5);
    near(linear.f32_of_peak.unwrap(), 0.8);
    assert!(sentence(&linear).contains("40 % of the int8 GEMM peak (400 GOP/s); those in 8-bit integers alone 50 %"));

    profile.ops.retain(|op| !op.int8);
    let linear = encoder_linear(&profile, &peaks()).unwrap();
    assert!(!linear.int8);
    near(linear.of_peak, 0.8);
    assert_eq!(sentence(&linear), "The encoder's linear layers: 80 % of the f32 GEMM peak (200 GOP/s).\n");

    assert_eq!(encoder_linear(&Profile::default(), &peaks()), None);
}

#[test]
fn nothing_is_divided_by_zero() {
    let (_, profile) = measured();
    let rows = op_rows(0.0, &profile, &[]);
    assert!(rows.iter().all(|row| row.share == 0.0 && row.of_peak.is_none_or(|share| share == 0.0)));
    assert_eq!(gops(5, 0.0), 0.0);
    let rows = stage_rows(&Timed::default(), &Profile::default());
    assert_eq!(rows, [StageRow { stage: "rest", ms: 0.0, share: 0.0 }]);
}

#[test]
fn tables_are_markdown() {
    let (timed, profile) = measured();
    let clip = clip_report("english-11s".to_owned(), "transcribe", timed, &profile, &peaks());
    let report =
        Report { model: "base".to_owned(), dtype: "int8", threads: 2, runs: 9, peaks: peaks(), clips: vec![clip] };
    let text = tables(&report);
    assert!(text.starts_with("## base, int8, 2 threads, the median of 9 runs\n\n| GEMM peak"), "{text}");
    assert!(text.contains("\n### transcribe: english-11s, 100.00 ms, 9 tokens\n\n| stage"), "{text}");
    let row = text.lines().find(|line| line.contains("linear int8 512→2048")).unwrap();
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    assert_eq!(cells, ["encoder", "linear int8 512→2048", "6", "20.00", "20.0 %", "500", "50 %"]);
    assert!(serde_json::to_string(&report).unwrap().contains(r#""op":"linear int8 512→2048""#));
}

#[test]
fn a_request_names_its_work() {
    let got = request("command:sw:a:b.wav").unwrap();
    assert_eq!((got.work.as_str(), got.language.as_str(), got.path), ("command", "sw", PathBuf::from("a:b.wav")));
    for bad in ["", "command", "command:sw", "command::a.wav", "command:sw:", "encode:sw:a.wav"] {
        assert!(request(bad).is_err(), "{bad}");
    }
}
