#![no_main]

#[path = "../targets/audio_decode.rs"]
mod audio_decode;
#[path = "../targets/check.rs"]
mod check;
#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(init: harness::init(), |input: &[u8]| {
    harness::run(input, harness::Memory { base_mib: 64, per_byte: 64 }, audio_decode::run);
});
