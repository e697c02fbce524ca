//! Web bundles: what is packed is unpacked to the same model, in any delivery dtype; what is missing, cut, altered, newer or
//! lying is an error with a code, before anything of it is used.
#![cfg(feature = "web-bundle")]
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::{block_on, clip, golden};
use okyeame_core::device::{Compute, DeviceChoice, DtypeChoice};
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::weights::folder::{Base, ModelFolder, OpenOptions};
use okyeame_core::weights::web_bundle::{
    Check, Delivery, Encoding, Licence, MAX_PART_BYTES, Manifest, PackOptions, Packed, StageName, WebBundle, pack,
};
use okyeame_core::{RecognizeOptions, Recognizer};
use proptest::prelude::*;
use serde_json::{Value, json};

fn folder() -> ModelFolder {
    let base = || Base { name: "okyeame-tests/tiny-multilingual".to_owned(), folder: golden("tiny-multilingual") };
    ModelFolder::open_with(&golden("heads/head-only"), &OpenOptions::default(), &mut |_| Ok(base())).unwrap()
}

fn packed(dtype: Delivery) -> Packed {
    let licences = vec![Licence { of: "okyeame-tests/tiny-multilingual".to_owned(), licence: "MIT".to_owned() }];
    pack(&folder(), &PackOptions { dtype, trim_vocabulary: true, texts: Vec::new(), licences }).unwrap()
}

fn json_of(manifest: &Manifest) -> Vec<u8> {
    serde_json::to_vec(manifest).unwrap()
}

fn arrived(packed: &Packed) -> WebBundle {
    let mut bundle = WebBundle::new(&json_of(&packed.manifest)).unwrap();
    // The order does not matter.
    for (file, bytes) in packed.parts.iter().rev() {
        bundle.add_part(file, bytes).unwrap();
    }
    bundle
}

fn recognizer(folder: ModelFolder) -> Recognizer {
    Recognizer::from_folder(folder, LoadOptions::default()).unwrap()
}

#[test]
fn a_bundle_answers_as_the_model_did() {
    let before = recognizer(folder());
    let sound = clip("tw_cart");
    let logits = block_on(before.intent_logits(&sound)).unwrap().unwrap();
    let answer = block_on(before.recognize(&sound, &RecognizeOptions::default())).unwrap();
    for (dtype, tolerance) in [(Delivery::F16, 0.002), (Delivery::Int8, 0.06), (Delivery::Int4, 0.6)] {
        let packed = packed(dtype);
        let bundle = arrived(&packed);
        assert!(bundle.is_complete(StageName::Intent) && bundle.is_complete(StageName::Words));
        let after = recognizer(bundle.folder(true).unwrap());
        assert_eq!(after.info().labels, before.info().labels);
        assert_eq!(after.info().head_window, before.info().head_window);
        let heard = block_on(after.intent_logits(&sound)).unwrap().unwrap();
        let worst = heard.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < tolerance, "{}: {worst}", dtype.name());
        if dtype == Delivery::F16 {
            let again = block_on(after.recognize(&sound, &RecognizeOptions::default())).unwrap();
            assert_eq!(again.transcription, answer.transcription);
            assert_eq!(again.top_predictions[0].intent, answer.top_predictions[0].intent);
        }
        let probe = block_on(after.probe()).unwrap();
        assert!((probe.iter().sum::<f32>() - 1.0).abs() < 1e-4);
    }
}

#[test]
fn the_intent_stage_is_enough_for_the_intent() {
    let packed = packed(Delivery::Int8);
    let mut bundle = WebBundle::new(&json_of(&packed.manifest)).unwrap();
    for part in &packed.manifest.stage(StageName::Intent).unwrap().parts {
        let (file, bytes) = packed.parts.iter().find(|(file, _)| *file == part.file).unwrap();
        bundle.add_part(file, bytes).unwrap();
    }
    assert!(!bundle.is_complete(StageName::Words));
    let model = recognizer(bundle.folder(false).unwrap());
    assert!(!model.info().transcription);
    let answer = block_on(model.recognize(&clip("tw_cart"), &RecognizeOptions::default())).unwrap();
    assert_eq!((answer.transcription, answer.top_predictions.len()), (None, 5));
    // The words need the second stage, and say which part is missing.
    let mut bundle = WebBundle::new(&json_of(&packed.manifest)).unwrap();
    for (file, bytes) in packed.parts.iter().filter(|(file, _)| file.starts_with("intent")) {
        bundle.add_part(file, bytes).unwrap();
    }
    let error = bundle.folder(true).unwrap_err();
    assert!(error.code() == "model_not_found" && error.to_string().contains("words-00-"), "{error}");
}

#[test]
fn matrices_travel_in_few_bits_and_positions_not_at_all() {
    let of = |dtype| {
        let manifest = packed(dtype).manifest;
        let intent = manifest.stage(StageName::Intent).unwrap().clone();
        let encoding = |name: &str| intent.tensors.iter().find(|t| t.name == name).unwrap().encoding;
        (encoding("model.encoder.layers.0.fc1.weight"), encoding("model.encoder.layers.0.fc1.bias"), intent.bytes)
    };
    let (f16, int8, int4) = (of(Delivery::F16), of(Delivery::Int8), of(Delivery::Int4));
    assert_eq!((f16.0, int8.0, int4.0), (Encoding::F16, Encoding::Int8, Encoding::Int4));
    assert_eq!(int4.1, Encoding::F16);
    assert!(f16.2 > int8.2 && int8.2 > int4.2, "{} {} {}", f16.2, int8.2, int4.2);
}

#[test]
fn a_folder_with_a_bundle_in_it_is_a_model_folder() {
    let packed = packed(Delivery::Int8);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("manifest.json"), json_of(&packed.manifest)).unwrap();
    for (file, bytes) in &packed.parts {
        fs::write(folder.path().join(file), bytes).unwrap();
    }
    let opened = ModelFolder::open(folder.path()).unwrap();
    assert_eq!((opened.weight_format, opened.name.as_str()), ("web_bundle", "head-only"));
    let model = recognizer(opened);
    assert!(model.info().transcription);
    fs::remove_file(folder.path().join(&packed.parts[0].0)).unwrap();
    assert_eq!(ModelFolder::open(folder.path()).unwrap_err().code(), "model_not_found");
}

#[test]
fn damaged_parts_are_refused_and_leave_no_trace() {
    let packed = packed(Delivery::Int8);
    let mut bundle = WebBundle::new(&json_of(&packed.manifest)).unwrap();
    let (file, good) = &packed.parts[0];
    let mut altered = good.clone();
    altered[good.len() / 2] ^= 1;
    let cases: [(&str, &[u8], &str); 6] = [
        (file, &altered, "checksum_mismatch"),
        (file, &good[..good.len() - 1], "damaged_weights"),
        (file, &[], "damaged_weights"),
        (file, &[&good[..], &[0]].concat(), "damaged_weights"),
        ("intent-99.bin", good, "model_not_found"),
        ("../manifest.json", good, "model_not_found"),
    ];
    for (name, bytes, code) in cases {
        assert_eq!(bundle.add_part(name, bytes).unwrap_err().code(), code);
        assert!(!bundle.is_complete(StageName::Intent));
    }
    assert_eq!(bundle.folder(false).unwrap_err().code(), "model_not_found");
}

#[test]
fn manifests_that_lie_are_refused() {
    let good: Value = serde_json::from_slice(&json_of(&packed(Delivery::Int8).manifest)).unwrap();
    let with = |path: &str, value: Value| {
        let mut json = good.clone();
        *json.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = value;
        serde_json::to_vec(&json).unwrap()
    };
    assert_eq!(Manifest::parse(&with("/version", json!(2))).unwrap_err().code(), "unsupported_bundle");
    let part = "/stages/0/parts/0";
    let lies = [
        ("/format", json!("zip")),
        ("/stages", json!([])),
        ("/stages/1", good["stages"][0].clone()),
        ("/stages/0/bytes", json!(1)),
        ("/stages/0/bytes", json!(u64::MAX)),
        (&format!("{part}/bytes"), json!(0)),
        (&format!("{part}/bytes"), json!(MAX_PART_BYTES + 1)),
        (&format!("{part}/bytes"), json!(u64::MAX)),
        (&format!("{part}/sha256"), json!("abc")),
        (&format!("{part}/file"), json!("../x")),
        (&format!("{part}/file"), json!("")),
        (&format!("{part}/file"), json!(".hidden")),
        ("/stages/0/files/0/offset", json!(u64::MAX)),
        ("/stages/0/tensors/0/offset", json!(u64::MAX)),
        ("/stages/0/tensors/0/bytes", json!(7)),
        ("/stages/0/tensors/0/shape", json!([4_000_000_000_u64, 4_000_000_000_u64])),
        ("/stages/0/tensors/0/encoding", json!("int3")),
        ("/stages/0/tensors/1/name", good["stages"][0]["tensors"][0]["name"].clone()),
    ];
    for (path, value) in lies {
        let error = Manifest::parse(&with(path, value.clone())).unwrap_err();
        assert_eq!(error.code(), "invalid_config", "{path} = {value}: {error}");
    }
    for json in ["", "null", "[]", "{}", r#"{"format":"okyeame-web-bundle"}"#] {
        assert_eq!(Manifest::parse(json.as_bytes()).unwrap_err().code(), "invalid_config");
    }
}

/// Beside an empty axis the others were once bounded by nothing.
#[test]
fn an_empty_tensor_and_a_table_beyond_reason_are_refused() {
    let manifest = packed(Delivery::Int4).manifest;
    let good: Value = serde_json::from_slice(&json_of(&manifest)).unwrap();
    let of_no_bytes = [
        (Encoding::Int8, vec![1 << 62, 0]),
        (Encoding::Int8, vec![0]),
        (Encoding::F16, vec![3, 0]),
        (Encoding::Int4, vec![0, 1 << 63, 4]),
        (Encoding::Int4, vec![1 << 62, 32, 0]),
        (Encoding::Sinusoids, vec![0, 8]),
        (Encoding::Sinusoids, vec![1 << 20, 1 << 12]),
    ];
    for (encoding, shape) in of_no_bytes {
        assert_eq!(encoding.bytes(&shape), None, "{encoding:?} {shape:?}");
        let mut lying = good.clone();
        let entry = json!({ "name": "a", "shape": shape, "encoding": encoding, "offset": 0, "bytes": 0 });
        lying["stages"][0]["tensors"].as_array_mut().unwrap().push(entry);
        let error = Manifest::parse(&serde_json::to_vec(&lying).unwrap()).unwrap_err();
        assert!(error.code() == "invalid_config" && error.to_string().contains("does not fit its place"), "{error}");
    }
    assert_eq!(Encoding::Sinusoids.bytes(&[1500, 1280]), Some(0));
    assert_eq!(Encoding::Int8.bytes(&[3, 5]), Some(15 + 12));
}

#[test]
fn a_manifest_is_quoted_harmlessly() {
    let mut json: Value = serde_json::from_slice(&json_of(&packed(Delivery::Int8).manifest)).unwrap();
    json["dtype"] = format!("\u{1b}[2J\n{}", "x".repeat(100_000)).into();
    let said = Manifest::parse(&serde_json::to_vec(&json).unwrap()).unwrap_err().to_string();
    assert!(said.len() < 1000 && !said.contains(char::is_control), "{said:?}");
}

#[test]
fn what_is_no_shop_model_is_not_packed() {
    let options = PackOptions { dtype: Delivery::Int8, trim_vocabulary: true, texts: Vec::new(), licences: Vec::new() };
    let no_head = ModelFolder::open(&golden("tiny-multilingual")).unwrap();
    assert_eq!(pack(&no_head, &options).unwrap_err().code(), "unsupported_model");
    let wav2vec2 = ModelFolder::open(&golden("wav2vec2-base")).unwrap();
    assert_eq!(pack(&wav2vec2, &options).unwrap_err().code(), "unsupported_model");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is done to a manifest, it is refused or the model inside is: nothing panics.
    #[test]
    fn no_manifest_makes_it_panic(at in 0.0f64..1.0, byte in any::<u8>(), cut in 0.0f64..1.5) {
        let packed = packed(Delivery::Int4);
        let mut json = json_of(&packed.manifest);
        let n = json.len();
        json[(at * n as f64) as usize] = byte;
        json.truncate((cut * n as f64) as usize);
        if let Ok(mut bundle) = WebBundle::new(&json) {
            for (file, bytes) in &packed.parts {
                let _ = bundle.add_part(file, bytes);
            }
            if let Ok(folder) = bundle.folder(true) {
                let _ = Recognizer::from_folder(folder, LoadOptions::default());
            }
        }
    }
}

#[test]
fn an_engine_that_computes_something_else_is_found_out() {
    let check = Check { probabilities: vec![0.7, 0.3], tolerance: 0.02 };
    assert!(check.hold(&[0.71, 0.29]).is_ok());
    for answer in
        [&[][..], &[0.7], &[0.7, 0.3, 0.0], &[0.75, 0.25], &[f32::NAN, 0.3], &[f32::INFINITY, 0.3], &[0.0, 0.0]]
    {
        assert_eq!(check.hold(answer).unwrap_err().code(), "device_failed", "{answer:?}");
    }
}

/// An engine that multiplies in 8-bit integers passes the check that the bundle has, which was made in f32: it is asked with all
/// its digits.
#[test]
fn integers_pass_the_check_of_every_delivery() {
    for dtype in Delivery::ALL {
        let bundle = arrived(&packed(dtype));
        let open = |dtype| {
            let compute = Compute::choose(DeviceChoice::Cpu, dtype, None).unwrap();
            let folder = bundle.folder(true).unwrap();
            Recognizer::from_folder(folder, LoadOptions { compute, task: None }).unwrap()
        };
        let (float, int8) = (open(DtypeChoice::F32), open(DtypeChoice::Int8));
        assert_eq!(int8.info().dtype, "int8");
        let check = Check { probabilities: block_on(float.probe()).unwrap(), tolerance: 0.02 };
        let answer = block_on(int8.probe()).unwrap();
        check.hold(&answer).unwrap();
        assert_ne!(answer, check.probabilities, "{}: nothing was rounded", dtype.name());
        let heard = |model: &Recognizer| {
            let answer = block_on(model.recognize(&clip("tw_cart"), &RecognizeOptions::default())).unwrap();
            answer.top_predictions[0].intent.clone()
        };
        assert_eq!(heard(&int8), heard(&float), "{}", dtype.name());
    }
}
