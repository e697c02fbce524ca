#![no_main]

#[path = "../targets/check.rs"]
mod check;
#[path = "../harness.rs"]
mod harness;
#[path = "../targets/pytorch.rs"]
mod pytorch;

libfuzzer_sys::fuzz_target!(init: harness::init(), |input: &[u8]| {
    harness::run(input, harness::Memory { base_mib: 8, per_byte: 512 }, pytorch::run);
});
