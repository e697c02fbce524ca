#![no_main]

#[path = "../targets/check.rs"]
mod check;
#[path = "../harness.rs"]
mod harness;
#[path = "../targets/label_files.rs"]
mod label_files;

libfuzzer_sys::fuzz_target!(init: harness::init(), |input: &[u8]| {
    harness::run(input, harness::Memory { base_mib: 8, per_byte: 512 }, label_files::run);
});
