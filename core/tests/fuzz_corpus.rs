//! Every input that the fuzzer keeps (`fuzz/corpus`), through the targets' own bodies: what once broke stays mended, also
//! where there is no libFuzzer. The bodies are files of `fuzz/targets`, included here and by the fuzz binaries: so the
//! workspace needs no crate for them, and nothing of libFuzzer. `native-server/tests/fuzz_corpus.rs` holds the server's.
#![cfg(feature = "web-bundle")]

#[path = "../../fuzz/targets/audio_decode.rs"]
mod audio_decode;
#[path = "../../fuzz/targets/catalogue.rs"]
mod catalogue;
#[path = "../../fuzz/targets/check.rs"]
mod check;
#[path = "../../fuzz/targets/ctranslate2.rs"]
mod ctranslate2;
#[path = "../../fuzz/targets/label_files.rs"]
mod label_files;
#[path = "../../fuzz/targets/model_config.rs"]
mod model_config;
#[path = "../../fuzz/targets/opus_packets.rs"]
mod opus_packets;
#[path = "../../fuzz/targets/pytorch.rs"]
mod pytorch;
#[path = "../../fuzz/targets/replay.rs"]
mod replay;
#[path = "../../fuzz/targets/safetensors.rs"]
mod safetensors_file;
#[path = "../../fuzz/targets/web_bundle_manifest.rs"]
mod web_bundle_manifest;

use replay::replay;

#[test]
fn audio_decode_holds_its_corpus() {
    replay("audio_decode", audio_decode::run);
}

#[test]
fn opus_packets_hold_their_corpus() {
    replay("opus_packets", opus_packets::run);
}

#[test]
fn ctranslate2_holds_its_corpus() {
    replay("ctranslate2", ctranslate2::run);
}

#[test]
fn safetensors_hold_their_corpus() {
    replay("safetensors", safetensors_file::run);
}

#[test]
fn pytorch_holds_its_corpus() {
    replay("pytorch", pytorch::run);
}

#[test]
fn label_files_hold_their_corpus() {
    replay("label_files", label_files::run);
}

#[test]
fn model_config_holds_its_corpus() {
    replay("model_config", model_config::run);
}

#[test]
fn web_bundle_manifest_holds_its_corpus() {
    replay("web_bundle_manifest", web_bundle_manifest::run);
}

#[test]
fn catalogue_holds_its_corpus() {
    replay("catalogue", catalogue::run);
}
