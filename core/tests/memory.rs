//! Loading takes at most 1.3 times the memory of the loaded model. Counted by the allocator: weight files are mapped, and
//! their pages can be taken back by the system at any time.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use common::golden;
use okyeame_core::Recognizer;
use okyeame_core::intent::text_match::PhraseBook;
use okyeame_core::wav2vec2::{self, Wav2Vec2Config};
use okyeame_core::weights::safetensors::Safetensors;
use okyeame_core::whisper::WhisperConfig;
use okyeame_core::whisper::model::expected_tensors;
use peak_alloc::PeakAlloc;
use safetensors::tensor::{Dtype, TensorView, serialize};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MB: f64 = 1e6;
const MAX_FACTOR: f64 = 1.3;

/// The highest point of loading, and what stays, in bytes.
fn load(folder: &Path) -> (f64, f64) {
    // What is built once for every model is not this model's.
    let _ = PhraseBook::built_in();
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let recognizer = Recognizer::load(folder).unwrap();
    let (peak, loaded) = (ALLOCATOR.peak_usage() - before, ALLOCATOR.current_usage() - before);
    assert!(recognizer.info().parameters * 4 <= loaded as u64, "the weights are in there");
    (peak as f64, loaded as f64)
}

fn assert_bounded(name: &str, (peak, loaded): (f64, f64)) {
    eprintln!("{name}: {:.0} MB at the highest, {:.0} MB loaded: {:.2} times", peak / MB, loaded / MB, peak / loaded);
    assert!(peak <= MAX_FACTOR * loaded, "{name}: {:.2} times", peak / loaded);
}

/// A Whisper of 25 million parameters whose values do not matter, as safetensors in half precision.
fn write_model(folder: &Path) {
    let mut config: serde_json::Value = common::json("tiny-multilingual/config.json");
    for (key, value) in [
        ("d_model", 320),
        ("encoder_layers", 6),
        ("decoder_layers", 6),
        ("encoder_ffn_dim", 1280),
        ("decoder_ffn_dim", 1280),
        ("vocab_size", 20_000),
    ] {
        config[key] = value.into();
    }
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::copy(golden("tiny-multilingual/tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    write_weights(folder, &expected_tensors(&WhisperConfig::from_value(&config).unwrap()));
}

/// A wav2vec 2.0 of 13 million parameters.
fn write_wav2vec2(folder: &Path) {
    for file in ["vocab.json", "tokenizer_config.json", "preprocessor_config.json"] {
        std::fs::copy(golden("wav2vec2-base").join(file), folder.join(file)).unwrap();
    }
    let mut config: serde_json::Value = common::json("wav2vec2-base/config.json");
    for (key, value) in [("hidden_size", 384), ("intermediate_size", 1536), ("num_hidden_layers", 6)] {
        config[key] = value.into();
    }
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let nothing =
        Safetensors::from_bytes(serialize(Vec::<(&str, TensorView<'_>)>::new(), None).unwrap(), "none").unwrap();
    let config = Wav2Vec2Config::from_json(config.to_string().as_bytes()).unwrap();
    write_weights(folder, &wav2vec2::expected_tensors(&config, &nothing));
}

/// Ones in half precision.
fn write_weights(folder: &Path, tensors: &[(String, Vec<usize>)]) {
    let ones = [0x00, 0x3C].repeat(tensors.iter().map(|(_, s)| s.iter().product::<usize>()).max().unwrap());
    let views = tensors.iter().map(|(name, shape)| {
        let n_bytes = 2 * shape.iter().product::<usize>();
        (name.as_str(), TensorView::new(Dtype::F16, shape.clone(), &ones[..n_bytes]).unwrap())
    });
    std::fs::write(folder.join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
}

/// One test, since the allocator counts the whole process.
#[test]
fn loading_peaks_at_most_1_3_times_the_model() {
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path());
    assert_bounded("safetensors f16", load(folder.path()));
    let folder = tempfile::tempdir().unwrap();
    write_wav2vec2(folder.path());
    assert_bounded("wav2vec2", load(folder.path()));
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/whisper-base");
    if base.join("config.json").is_file() {
        assert_bounded("whisper-base", load(&base));
    } else {
        eprintln!("models/whisper-base is not here (make model): only the small one was measured");
    }
}
