//! Opus packets in an Ogg file whose pages are right: what libFuzzer cannot do by itself, since each page has a
//! checksum.
//!
//! The first byte of the input chooses mono or stereo; then packets, each behind its length in two bytes (little-endian,
//! modulo [`MAX_PACKET`]).

use okyeame_core::audio::{DecodeLimits, decode};

use crate::check;

/// RFC 6716 allows 1275 bytes a frame; a packet of several may be longer.
const MAX_PACKET: usize = 4096;
/// More would only be slower.
const MAX_PACKETS: usize = 64;
/// RFC 6716: no packet is longer.
const PACKET_S: f64 = 0.120;
const LIMIT_S: f64 = 10.0;

/// Says whether it was read.
pub(crate) fn run(input: &[u8]) -> bool {
    let Some((layout, input)) = input.split_first() else { return false };
    let packets = packets(input);
    match decode(&ogg(1 + layout % 2, &packets), &DecodeLimits { max_duration_s: LIMIT_S }) {
        Ok(sound) => {
            assert!(sound.samples().iter().all(|sample| sample.is_finite()));
            let (n, most_s) = (packets.len(), packets.len() as f64 * PACKET_S + 0.01);
            assert!(sound.duration_s() <= most_s, "{n} packets gave {} s", sound.duration_s());
            true
        }
        Err(error) => check::refused(&error, &["empty_audio", "malformed_audio"]),
    }
}

fn packets(mut input: &[u8]) -> Vec<&[u8]> {
    let mut packets = Vec::new();
    while let [low, high, rest @ ..] = input {
        if packets.len() == MAX_PACKETS {
            break;
        }
        let len = usize::from(u16::from_le_bytes([*low, *high])) % MAX_PACKET;
        let (packet, after) = rest.split_at(len.min(rest.len()));
        packets.push(packet);
        input = after;
    }
    packets
}

/// An Ogg file of these packets, one a page: RFC 3533 and RFC 7845.
fn ogg(channels: u8, packets: &[&[u8]]) -> Vec<u8> {
    const BEGIN: u8 = 2;
    const END: u8 = 4;
    let mut head = b"OpusHead\x01".to_vec();
    head.push(channels);
    head.extend(312_u16.to_le_bytes()); // pre-skip
    head.extend(48_000_u32.to_le_bytes());
    head.extend([0, 0, 0]); // gain, mapping family
    let mut file = Vec::new();
    page(&mut file, BEGIN, 0, 0, &head);
    page(&mut file, 0, 0, 1, b"OpusTags\0\0\0\0\0\0\0\0");
    for (at, packet) in packets.iter().enumerate() {
        let end = if at + 1 == packets.len() { END } else { 0 };
        // 120 ms each: no page claims to end before its packet does.
        page(&mut file, end, (at as u64 + 1) * 5760, at as u32 + 2, packet);
    }
    file
}

fn page(file: &mut Vec<u8>, flags: u8, position: u64, number: u32, packet: &[u8]) {
    let start = file.len();
    file.extend(b"OggS\0");
    file.push(flags);
    file.extend(position.to_le_bytes());
    file.extend(1_u32.to_le_bytes()); // serial number
    file.extend(number.to_le_bytes());
    file.extend([0; 4]); // checksum
    file.push((packet.len() / 255 + 1) as u8); // at most 17
    file.extend(vec![255; packet.len() / 255]);
    file.push((packet.len() % 255) as u8);
    file.extend(packet);
    let checksum = checksum(&file[start..]);
    file[start + 22..start + 26].copy_from_slice(&checksum.to_le_bytes());
}

/// CRC-32 as Ogg has it: polynomial 0x04c11db7, from 0, no bit turned round.
fn checksum(page: &[u8]) -> u32 {
    let shifted = |sum: u32| (sum << 1) ^ if sum >> 31 == 1 { 0x04c1_1db7 } else { 0 };
    page.iter().fold(0_u32, |sum, byte| (0..8).fold(sum ^ (u32::from(*byte) << 24), |sum, _| shifted(sum)))
}
