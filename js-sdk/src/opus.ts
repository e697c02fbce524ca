// Samples as Ogg Opus, by the browser's own encoder: what is sent to a server is less than a tenth of what WAV would be.
//
// The container is written here (RFC 3533, RFC 7845: one stream, a page for a second of sound): 60 lines, where a muxer from
// a package would be larger than hundreds of commands. Loaded when the first samples are sent.

const RATE_HZ = 16_000;
/** Speech at 16 kHz is transparent to the recogniser from about here: tests/browser/opus.test.js. */
const BITRATE = 24_000;
/** Ogg counts Opus in samples of 48 kHz, whatever was encoded. */
const GRANULES_PER_SECOND = 48_000;
const DEFAULT_PRE_SKIP = 312;
/** A page holds 255 segments of 255 bytes; 50 packets of 20 ms are far below that. */
const PACKETS_PER_PAGE = 50;

interface Packet {
  bytes: Uint8Array;
  granules: number;
}

/** One channel at 16 kHz as a file; nothing where the browser cannot encode it. */
export async function opusFile(samples: Float32Array<ArrayBuffer>): Promise<Blob | undefined> {
  const config: AudioEncoderConfig = { codec: "opus", sampleRate: RATE_HZ, numberOfChannels: 1, bitrate: BITRATE };
  try {
    if (!(await AudioEncoder.isConfigSupported(config)).supported) return undefined;
    const { packets, preSkip } = await encode(samples, config);
    if (!packets.length) return undefined;
    return new Blob([ogg(packets, preSkip, samples.length)], { type: "audio/ogg; codecs=opus" });
  } catch {
    return undefined; // the encoder that was promised is not there, or stopped: WAV is always possible
  }
}

async function encode(samples: Float32Array<ArrayBuffer>, config: AudioEncoderConfig): Promise<{ packets: Packet[]; preSkip: number }> {
  const packets: Packet[] = [];
  let preSkip = DEFAULT_PRE_SKIP;
  let failure: unknown;
  const encoder = new AudioEncoder({
    output(chunk, metadata) {
      const description = metadata?.decoderConfig?.description;
      if (description) {
        const head = ArrayBuffer.isView(description) ? new DataView(description.buffer, description.byteOffset, description.byteLength) : new DataView(description);
        if (head.byteLength >= 12) preSkip = head.getUint16(10, true);
      }
      const bytes = new Uint8Array(chunk.byteLength);
      chunk.copyTo(bytes);
      packets.push({ bytes, granules: Math.round(((chunk.duration ?? 20_000) * GRANULES_PER_SECOND) / 1e6) });
    },
    error: (error) => (failure = error),
  });
  try {
    encoder.configure(config);
    const sound = new AudioData({ format: "f32-planar", sampleRate: RATE_HZ, numberOfFrames: samples.length, numberOfChannels: 1, timestamp: 0, data: samples });
    encoder.encode(sound);
    sound.close();
    await encoder.flush();
  } finally {
    if (encoder.state !== "closed") encoder.close();
  }
  if (failure) throw failure;
  return { packets, preSkip };
}

/** The packets as a file that plays `n` samples of 16 kHz. */
export function ogg(packets: Packet[], preSkip: number, n: number): Uint8Array<ArrayBuffer> {
  const serial = 0x6f6b7965; // one stream: any number will do
  const pages: Uint8Array<ArrayBuffer>[] = [page([head(preSkip)], { flags: 2, granule: 0, serial, sequence: 0 }), page([tags()], { flags: 0, granule: 0, serial, sequence: 1 })];
  const end = preSkip + Math.ceil((n * GRANULES_PER_SECOND) / RATE_HZ);
  let granule = 0;
  for (let at = 0; at < packets.length; at += PACKETS_PER_PAGE) {
    const group = packets.slice(at, at + PACKETS_PER_PAGE);
    granule += group.reduce((sum, { granules }) => sum + granules, 0);
    const last = at + PACKETS_PER_PAGE >= packets.length;
    // The last page says where the sound ends: what the last packet holds beyond that is the encoder's own.
    const position = last ? Math.min(granule, end) : granule;
    pages.push(page(group.map(({ bytes }) => bytes), { flags: last ? 4 : 0, granule: position, serial, sequence: pages.length }));
  }
  const file = new Uint8Array(pages.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const each of pages) {
    file.set(each, at);
    at += each.length;
  }
  return file;
}

const ascii = (text: string) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

/** RFC 7845, 5.1. */
function head(preSkip: number): Uint8Array {
  const bytes = new Uint8Array(19);
  const view = new DataView(bytes.buffer);
  bytes.set(ascii("OpusHead"));
  bytes.set([1, 1], 8); // version, channels
  view.setUint16(10, preSkip, true);
  view.setUint32(12, RATE_HZ, true); // of the input, for those who ask
  return bytes;
}

/** RFC 7845, 5.2: who made it, and no comments. */
function tags(): Uint8Array {
  const bytes = new Uint8Array(8 + 4 + 7 + 4);
  bytes.set(ascii("OpusTags"));
  new DataView(bytes.buffer).setUint32(8, 7, true);
  bytes.set(ascii("okyeame"), 12);
  return bytes;
}

/** RFC 3533, 6: packets that end in this page. */
function page(packets: Uint8Array[], { flags, granule, serial, sequence }: { flags: number; granule: number; serial: number; sequence: number }): Uint8Array<ArrayBuffer> {
  const lacing = packets.flatMap(({ length }) => [...Array<number>(Math.floor(length / 255)).fill(255), length % 255]);
  if (lacing.length > 255) throw new RangeError("a page takes 255 segments");
  const body = packets.reduce((sum, { length }) => sum + length, 0);
  const bytes = new Uint8Array(27 + lacing.length + body);
  const view = new DataView(bytes.buffer);
  bytes.set(ascii("OggS"));
  view.setUint8(5, flags);
  view.setBigUint64(6, BigInt(granule), true);
  view.setUint32(14, serial, true);
  view.setUint32(18, sequence, true);
  view.setUint8(26, lacing.length);
  bytes.set(lacing, 27);
  let at = 27 + lacing.length;
  for (const packet of packets) {
    bytes.set(packet, at);
    at += packet.length;
  }
  view.setUint32(22, crc(bytes), true);
  return bytes;
}

/** Ogg's checksum: polynomial 0x04c11db7, nothing reflected, from 0, over a page whose own checksum is 0. */
function crc(bytes: Uint8Array): number {
  let sum = 0;
  for (const byte of bytes) {
    sum ^= byte << 24;
    for (let bit = 0; bit < 8; bit++) sum = sum & 0x80000000 ? (sum << 1) ^ 0x04c11db7 : sum << 1;
  }
  return sum >>> 0;
}
