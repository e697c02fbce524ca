#![no_main]

#[path = "../harness.rs"]
mod harness;
#[path = "../targets/keys_file.rs"]
mod keys_file;

libfuzzer_sys::fuzz_target!(init: harness::init(), |input: &[u8]| {
    harness::run(input, harness::Memory { base_mib: 8, per_byte: 512 }, keys_file::run);
});
