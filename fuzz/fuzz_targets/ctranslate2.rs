#![no_main]

#[path = "../targets/check.rs"]
mod check;
#[path = "../targets/ctranslate2.rs"]
mod ctranslate2;
#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(init: harness::init(), |input: &[u8]| {
    harness::run(input, harness::Memory { base_mib: 8, per_byte: 64 }, ctranslate2::run);
});
