#![no_main]

#[path = "../targets/catalogue.rs"]
mod catalogue;
#[path = "../targets/check.rs"]
mod check;
#[path = "../harness.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(init: harness::init(), |input: &[u8]| {
    harness::run(input, harness::Memory { base_mib: 16, per_byte: 512 }, catalogue::run);
});
