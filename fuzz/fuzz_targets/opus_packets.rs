#![no_main]

#[path = "../targets/check.rs"]
mod check;
#[path = "../harness.rs"]
mod harness;
#[path = "../targets/opus_packets.rs"]
mod opus_packets;

libfuzzer_sys::fuzz_target!(init: harness::init(), |input: &[u8]| {
    harness::run(input, harness::Memory { base_mib: 64, per_byte: 64 }, opus_packets::run);
});
