//! Model folders from strangers: cut short, with bytes turned over, with tensors that are missing, too many or of
//! another shape, with names that lead outside and numbers beyond reason. Each is an error with a stable code that
//! does not tell where the folder lies; none is a panic.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::Device;
use common::{Array, Loaded, Tensors, bytes_of, ctranslate2_folder, golden, hugging_face_folder};
use okyeame_core::weights::WeightSource;
use okyeame_core::weights::ctranslate2::Ctranslate2;
use okyeame_core::weights::folder::ModelFolder;
use okyeame_core::weights::safetensors::Safetensors;
use okyeame_core::whisper::model::expected_tensors;
use okyeame_core::whisper::{Whisper, WhisperConfig};
use okyeame_core::{Error, Result};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::json;

/// What may be wrong with weights whose bytes were changed at random.
const DAMAGE: [&str; 3] = ["damaged_weights", "weight_mismatch", "invalid_config"];

/// Fails if it was accepted, or refused for another reason than one of `codes`.
#[track_caller]
fn assert_refused<T>(what: &str, result: Result<T>, codes: &[&str]) {
    match result {
        Ok(_) => panic!("{what}: accepted"),
        Err(error) => {
            assert!(codes.contains(&error.code()), "{what}: {} instead of {codes:?}: {error}", error.code());
            let place = std::env::temp_dir();
            assert!(!error.to_string().contains(place.to_str().unwrap()), "{what}: it tells a path: {error}");
        }
    }
}

fn config() -> WhisperConfig {
    WhisperConfig::from_json(&bytes_of(&golden("tiny-2/config.json"))).unwrap()
}

/// A folder's weights on the device, without its tokenizer.
fn load_weights(folder: &Path) -> Result<Whisper> {
    let files = ModelFolder::open(folder)?.into_whisper()?;
    Whisper::load(files.config, &*files.weights, &Device::flex())
}

fn load_safetensors(bytes: Vec<u8>) -> Result<Whisper> {
    let source = Safetensors::from_bytes(bytes, "model.safetensors")?;
    Whisper::load(config(), &source, &Device::flex())
}

/// tiny-2's f32 tensors by name.
fn tiny_tensors() -> BTreeMap<String, Array> {
    Tensors::read(&golden("tiny-2/model.safetensors")).0.into_iter().collect()
}

fn to_safetensors(tensors: &BTreeMap<String, Array>) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        tensors.values().map(|array| array.data.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, array), bytes)| (name.as_str(), TensorView::new(Dtype::F32, array.shape.clone(), bytes).unwrap()))
        .collect();
    serialize(views, None).unwrap()
}

/// Where to cut: everywhere in the header's first part, then here and there, then everywhere near the end.
fn cuts(len: usize) -> Vec<usize> {
    (0..600).chain((600..len).step_by(len / 150)).chain(len - 80..len).collect()
}

#[test]
fn a_weight_file_cut_short() {
    for file in ["model.safetensors", "f16/model.safetensors"] {
        let whole = bytes_of(&golden("tiny-2").join(file));
        for cut in cuts(whole.len()) {
            let result = Safetensors::from_bytes(whole[..cut].to_vec(), "model.safetensors");
            assert_refused(&format!("{file} cut at {cut}"), result, &["damaged_weights"]);
        }
    }
    for kind in ["float32", "bfloat16", "int8", "int8_float16", "int16"] {
        let file = format!("ct2-{kind}/model.bin");
        let whole = bytes_of(&golden("tiny-2").join(&file));
        for cut in cuts(whole.len()) {
            let result = Ctranslate2::from_bytes(whole[..cut].to_vec(), "model.bin");
            assert_refused(&format!("{file} cut at {cut}"), result, &["damaged_weights"]);
        }
    }
}

#[test]
fn a_file_of_a_folder_cut_short() {
    let shards = [
        ("model.safetensors.index.json", "sharded/model.safetensors.index.json"),
        ("model-00001-of-00002.safetensors", "sharded/model-00001-of-00002.safetensors"),
        ("model-00002-of-00002.safetensors", "sharded/model-00002-of-00002.safetensors"),
    ];
    let folders = [
        (hugging_face_folder(&[("model.safetensors", "model.safetensors")]), "model.safetensors", "damaged_weights"),
        (hugging_face_folder(&[("model.safetensors", "model.safetensors")]), "config.json", "invalid_config"),
        (
            hugging_face_folder(&[("model.safetensors", "model.safetensors")]),
            "generation_config.json",
            "invalid_config",
        ),
        (hugging_face_folder(&[("model.safetensors", "model.safetensors")]), "tokenizer.json", "invalid_config"),
        (hugging_face_folder(&shards), shards[0].0, "invalid_config"),
        (hugging_face_folder(&shards), shards[1].0, "damaged_weights"),
        (hugging_face_folder(&shards), shards[2].0, "damaged_weights"),
        (ctranslate2_folder("ct2-int8/model.bin"), "model.bin", "damaged_weights"),
        (ctranslate2_folder("ct2-int8/model.bin"), "config.json", "invalid_config"),
        (ctranslate2_folder("ct2-int8/model.bin"), "tokenizer.json", "invalid_config"),
    ];
    for (folder, file, code) in folders {
        Loaded::open(folder.path()).unwrap_or_else(|e| panic!("whole: {e}"));
        let path = folder.path().join(file);
        // A cut behind the last brace would leave whole JSON.
        let whole = bytes_of(&path).trim_ascii_end().to_vec();
        for cut in (0..whole.len()).step_by(whole.len() / 24) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_refused(&format!("{file} cut at {cut}"), Loaded::open(folder.path()), &[code]);
        }
    }
}

#[test]
fn bytes_turned_over_in_a_safetensors_header() {
    let mut bytes = bytes_of(&golden("tiny-2/model.safetensors"));
    let n_header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let (mut n_refused, mut n_tried) = (0, 0);
    for at in (0..16).chain((16..n_header).step_by(7)) {
        for mask in [0x01, 0x10, 0xFF] {
            bytes[at] ^= mask;
            n_tried += 1;
            // A letter of the metadata may change and nothing is wrong; whatever is accepted is whole.
            if let Err(error) = load_safetensors(bytes.clone()) {
                assert!(DAMAGE.contains(&error.code()), "byte {at}: {error}");
                n_refused += 1;
            }
            bytes[at] ^= mask;
        }
    }
    assert!(n_refused * 10 > n_tried * 9, "{n_refused} of {n_tried} refused");
    load_safetensors(bytes).unwrap();
}

#[test]
fn bytes_turned_over_in_a_ctranslate2_file() {
    let folder = ctranslate2_folder("ct2-int8/model.bin");
    let path = folder.path().join("model.bin");
    let mut bytes = bytes_of(&path);
    let n = bytes.len();
    let mut n_refused = 0;
    for at in (0..400).chain((400..n - 120).step_by(61)).chain(n - 120..n) {
        let mask = if at % 2 == 0 { 0x01 } else { 0xFF };
        bytes[at] ^= mask;
        std::fs::write(&path, &bytes).unwrap();
        // Most bytes of this format are values: a model of other values is still a model.
        if let Err(error) = load_weights(folder.path()) {
            assert!(DAMAGE.contains(&error.code()), "byte {at}: {error}");
            n_refused += 1;
        }
        bytes[at] ^= mask;
    }
    assert!(n_refused > 50, "only {n_refused} refused");
    std::fs::write(&path, &bytes).unwrap();
    load_weights(folder.path()).unwrap();
}

#[test]
fn tensors_missing_too_many_and_misshapen_are_named_at_once() {
    let mut tensors = tiny_tensors();
    assert_eq!(tensors.len(), expected_tensors(&config()).len());
    load_safetensors(to_safetensors(&tensors)).unwrap();
    // The output projection is the token embedding; files may hold it a second time.
    let twin = tensors["model.decoder.embed_tokens.weight"].clone();
    tensors.insert("proj_out.weight".to_owned(), twin);
    load_safetensors(to_safetensors(&tensors)).unwrap();

    tensors.remove("model.encoder.conv1.bias").unwrap();
    tensors.remove("model.decoder.layers.0.fc2.weight").unwrap();
    tensors.insert("model.decoder.layers.1.fc1.bias".to_owned(), Array::new(&[24], vec![0.0; 24]));
    tensors.insert("model.decoder.layer_norm.bias".to_owned(), Array::new(&[8], vec![0.0; 8]));
    let conv = tensors["model.encoder.conv1.weight"].transposed();
    tensors.insert("model.encoder.conv1.weight".to_owned(), conv);
    let flat = Array::new(&[256], vec![0.0; 256]);
    tensors.insert("model.encoder.layers.0.self_attn.q_proj.weight".to_owned(), flat);
    match load_safetensors(to_safetensors(&tensors)) {
        Err(Error::WeightMismatch { mut missing, unused, mut misshapen }) => {
            missing.sort();
            misshapen.sort();
            assert_eq!(missing, ["model.decoder.layers.0.fc2.weight", "model.encoder.conv1.bias"]);
            assert_eq!(unused, ["model.decoder.layers.1.fc1.bias"]);
            let expected = [
                "model.decoder.layer_norm.bias: expected [16], got [8]",
                "model.encoder.conv1.weight: expected [16, 128, 3], got [16, 3, 128]",
                "model.encoder.layers.0.self_attn.q_proj.weight: expected [16, 16], got [256]",
            ];
            assert_eq!(misshapen, expected);
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
    match load_safetensors(to_safetensors(&BTreeMap::new())) {
        Err(Error::WeightMismatch { missing, .. }) => assert_eq!(missing.len(), expected_tensors(&config()).len()),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn values_that_are_no_numbers_and_types_that_are_not_read() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for name in ["model.encoder.embed_positions.weight", "model.decoder.embed_tokens.weight"] {
            let mut tensors = tiny_tensors();
            *tensors.get_mut(name).unwrap().data.last_mut().unwrap() = value;
            let result = load_safetensors(to_safetensors(&tensors));
            assert_refused(&format!("{value} in {name}"), result, &["damaged_weights"]);
        }
    }
    // Numbers that are no floats are named where floats are expected; doubles are read.
    let zeros = [0_u8; 128];
    let types =
        [(Dtype::I64, "int64"), (Dtype::U8, "uint8"), (Dtype::BOOL, "bool"), (Dtype::I32, "int32"), (Dtype::F64, "")];
    for (dtype, type_name) in types {
        let view = TensorView::new(dtype, vec![16], &zeros[..16 * dtype.bitsize() / 8]).unwrap();
        let bytes = serialize([("model.encoder.conv1.bias", view)], None).unwrap();
        match load_safetensors(bytes) {
            Err(Error::WeightMismatch { missing, unused, misshapen }) => {
                assert_eq!((missing.len(), unused.len()), (expected_tensors(&config()).len() - 1, 0));
                let named = format!("model.encoder.conv1.bias: {type_name} where floats are expected");
                assert_eq!(misshapen, if type_name.is_empty() { vec![] } else { vec![named] }, "{dtype:?}");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("accepted"),
        }
    }
}

fn find(bytes: &[u8], text: &str) -> usize {
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes());
    at.unwrap_or_else(|| panic!("no {text:?} in the file"))
}

/// Where the rank of a variable stands: right behind its name and the closing NUL.
fn rank_of(bytes: &[u8], variable: &str) -> usize {
    let name = format!("{variable}\0");
    find(bytes, &name) + name.len()
}

/// Where the data of a variable begins: behind its rank, dimensions, type and length.
fn data_of(bytes: &[u8], variable: &str) -> usize {
    let rank = rank_of(bytes, variable);
    rank + 1 + 4 * usize::from(bytes[rank]) + 1 + 4
}

/// Given the bytes of a file, where to write and what.
type Edit = fn(&[u8]) -> (usize, Vec<u8>);

#[test]
fn a_ctranslate2_file_that_lies() {
    // Version, name of the spec with its length and NUL, revision; then the number of variables.
    const COUNT_AT: usize = 4 + 2 + "WhisperSpec\0".len() + 4;
    const CONV: &str = "encoder/conv1/weight";
    const QKV: &str = "encoder/layer_0/self_attention/linear_0/weight";
    let edits: [(&str, Edit, &str); 18] = [
        ("version 0", |_| (0, vec![0; 4]), "damaged_weights"),
        ("version 7", |_| (0, vec![7, 0, 0, 0]), "damaged_weights"),
        ("another spec", |_| (6, b"TransfoSpec".to_vec()), "damaged_weights"),
        ("a spec's name without end", |_| (4, vec![0xFF; 2]), "damaged_weights"),
        ("too many variables", |_| (COUNT_AT, vec![0xFF; 4]), "damaged_weights"),
        ("no variables", |_| (COUNT_AT, vec![0; 4]), "damaged_weights"),
        ("rank 255", |b| (rank_of(b, CONV), vec![255]), "damaged_weights"),
        ("a dimension of 4 billion", |b| (rank_of(b, CONV) + 1, vec![0xFF; 4]), "damaged_weights"),
        ("type 9", |b| (data_of(b, CONV) - 5, vec![9]), "damaged_weights"),
        ("a length of 4 billion", |b| (data_of(b, CONV) - 4, vec![0xFF; 4]), "damaged_weights"),
        ("q, k, v of 16 rows", |b| (rank_of(b, QKV) + 1, vec![16, 0, 0, 0, 48, 0, 0, 0]), "damaged_weights"),
        ("3 heads", |b| (data_of(b, "encoder/num_heads"), vec![3, 0]), "invalid_config"),
        ("-1 heads", |b| (data_of(b, "encoder/num_heads"), vec![0xFF; 2]), "invalid_config"),
        ("0 heads", |b| (data_of(b, "decoder/num_heads"), vec![0; 2]), "invalid_config"),
        (
            "no convolution",
            |b| (find(b, "encoder/conv1/weight\0"), b"encoder/conv1/weighx".to_vec()),
            "weight_mismatch",
        ),
        ("a setting that nobody knows", |b| (find(b, "decoder/alibi\0"), b"decoder/alibj".to_vec()), "weight_mismatch"),
        (
            "no norm",
            |b| (find(b, "decoder/layer_norm/gamma\0"), b"decoder/layer_norm/gammx".to_vec()),
            "weight_mismatch",
        ),
        ("a bias of NaN", |b| (data_of(b, "encoder/conv1/bias"), f32::NAN.to_le_bytes().to_vec()), "damaged_weights"),
    ];
    let folder = ctranslate2_folder("ct2-int8/model.bin");
    let path = folder.path().join("model.bin");
    let whole = bytes_of(&path);
    for (what, edit, code) in edits {
        let (at, with) = edit(&whole);
        let mut bytes = whole.clone();
        bytes[at..at + with.len()].copy_from_slice(&with);
        assert_ne!(bytes, whole, "{what}");
        std::fs::write(&path, &bytes).unwrap();
        assert_refused(what, load_weights(folder.path()), &[code]);
    }
    // A scale divides: without one that can, the weight is not there.
    for scale in [0.0_f32, f32::NAN, f32::INFINITY] {
        let mut bytes = whole.clone();
        let at = data_of(&bytes, "decoder/embeddings/weight_scale");
        bytes[at..at + 4].copy_from_slice(&scale.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert_refused(&format!("scale {scale}"), load_weights(folder.path()), &["weight_mismatch", "damaged_weights"]);
    }
}

/// Name, dimensions, type and data.
type Variable<'a> = (&'a str, &'a [u32], u8, &'a [u8]);

/// A Whisper of version 6 with these variables.
fn ctranslate2_file(variables: &[Variable<'_>]) -> Vec<u8> {
    let text = |text: &str| [&u16::try_from(text.len() + 1).unwrap().to_le_bytes()[..], text.as_bytes(), &[0]].concat();
    let n_variables = u32::try_from(variables.len()).unwrap();
    let mut file = [&6_u32.to_le_bytes()[..], &text("WhisperSpec"), &3_u32.to_le_bytes()].concat();
    file.extend(n_variables.to_le_bytes());
    for (name, dimensions, dtype, data) in variables {
        file.extend(text(name));
        file.push(u8::try_from(dimensions.len()).unwrap());
        file.extend(dimensions.iter().flat_map(|d| d.to_le_bytes()));
        file.push(*dtype);
        file.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        file.extend_from_slice(data);
    }
    file.extend(0_u32.to_le_bytes()); // aliases
    file
}

/// A hundred bytes once asked for a scale of each of four billion rows.
#[test]
fn rows_without_columns_are_no_variable() {
    const NAME: &str = "encoder/conv1/weight";
    const MAX: u32 = u32::MAX;
    let one = 2.0_f32.to_le_bytes();
    let scale: Variable<'_> = ("encoder/conv1/weight_scale", &[], 0, &one);
    let whole = ctranslate2_file(&[(NAME, &[2, 3], 1, &[2; 6]), scale]);
    let source = Ctranslate2::from_bytes(whole, "model.bin").unwrap();
    assert_eq!(source.get("model.encoder.conv1.weight").unwrap().to_f32(), [1.0; 6]);
    for dimensions in [&[MAX, 0][..], &[0], &[0, MAX, MAX, MAX], &[MAX, MAX, MAX, 0]] {
        for dtype in [0, 1, 2] {
            let file = ctranslate2_file(&[(NAME, dimensions, dtype, &[]), scale]);
            let result = Ctranslate2::from_bytes(file, "model.bin");
            assert_refused(&format!("{dimensions:?} of type {dtype}"), result, &["damaged_weights"]);
        }
    }
}

#[test]
fn what_a_file_is_quoted_with_is_short_and_printable() {
    let name = format!("encoder/layer_\u{1b}[2J\n{}/self_attention/linear_0/weight", "x".repeat(50_000));
    let file = ctranslate2_file(&[(&name, &[1], 0, &[0; 4])]);
    let damaged = Ctranslate2::from_bytes(file, "model.bin").unwrap_err();
    let reason = "\u{7}".repeat(2000);
    let lists = vec![reason.clone(); 5000];
    for (error, max_len) in [
        (damaged, 300),
        (Error::DamagedWeights { file: "model.bin".to_owned(), reason: reason.clone() }, 1000),
        (Error::InvalidConfig { file: "config.json".to_owned(), reason: reason.clone() }, 1000),
        (Error::MalformedAudio { reason }, 1000),
        (Error::WeightMismatch { missing: Vec::new(), unused: lists, misshapen: Vec::new() }, 2_000_000),
    ] {
        let said = error.to_string();
        assert!(said.len() < max_len && !said.contains(char::is_control), "{}: {} bytes", error.code(), said.len());
    }
}

#[test]
fn an_index_of_shards_that_leads_elsewhere() {
    // The weights lie right outside the folder, so that only the check of the name stands before them.
    let outside = tempfile::tempdir().unwrap();
    let weights = bytes_of(&golden("tiny-2/model.safetensors"));
    std::fs::write(outside.path().join("outside.safetensors"), weights).unwrap();
    let folder = outside.path().join("model");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    std::fs::copy(outside.path().join("outside.safetensors"), folder.join("sub/inner.safetensors")).unwrap();
    for file in ["config.json", "generation_config.json", "tokenizer.json"] {
        std::fs::write(folder.join(file), bytes_of(&golden("tiny-2").join(file))).unwrap();
    }
    let absolute = outside.path().join("outside.safetensors").to_str().unwrap().to_owned();
    let index = folder.join("model.safetensors.index.json");
    let first = "model.encoder.conv1.bias";
    for (file, code) in [
        ("../outside.safetensors", "invalid_config"),
        ("sub/../../outside.safetensors", "invalid_config"),
        (absolute.as_str(), "invalid_config"),
        ("sub/inner.safetensors", "invalid_config"),
        ("./outside.safetensors", "invalid_config"),
        ("..", "invalid_config"),
        (".", "invalid_config"),
        ("", "invalid_config"),
        ("sub", "model_not_found"),
        ("not-there.safetensors", "model_not_found"),
        ("config.json", "damaged_weights"),
        ("zero\0.safetensors", "model_not_found"),
    ] {
        std::fs::write(&index, json!({ "weight_map": { first: file } }).to_string()).unwrap();
        assert_refused(&format!("shard {file:?}"), load_weights(&folder), &[code]);
    }
    for (text, code) in [
        ("", "invalid_config"),
        ("[]", "invalid_config"),
        ("{}", "invalid_config"),
        (r#"{"weight_map": {"a": 1}}"#, "invalid_config"),
        (r#"{"weight_map": {}}"#, "invalid_config"),
    ] {
        std::fs::write(&index, text).unwrap();
        assert_refused(&format!("index {text:?}"), load_weights(&folder), &[code]);
    }
}

#[test]
fn a_shard_that_the_index_leaves_out() {
    let folder = hugging_face_folder(&[
        ("model-00001-of-00002.safetensors", "sharded/model-00001-of-00002.safetensors"),
        ("model-00002-of-00002.safetensors", "sharded/model-00002-of-00002.safetensors"),
    ]);
    let index = json!({ "weight_map": { "a": "model-00001-of-00002.safetensors" } });
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_refused("one of two shards", load_weights(folder.path()), &["weight_mismatch"]);
}
