// Records `mediarecorder.webm`: what a browser's own MediaRecorder makes of speech.wav.
//
// Such a file is unlike ffmpeg's WebM: its Segment and Clusters have the unknown size, it states
// no duration and has no cues. It is committed, because no other program writes it; run this only
// to change it.
//
//     npm install playwright-core        (anywhere; then NODE_PATH, or run it from there)
//     node record_mediarecorder.mjs /usr/bin/chromium
//
// The sound goes through WebAudio into a MediaStream, so no microphone and no permission is needed.
import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.cwd(), 'package.json'));
const { chromium } = require('playwright-core');

const here = new URL('.', import.meta.url);
const speech = (await readFile(new URL('speech.wav', here))).toString('base64');

const browser = await chromium.launch({
  executablePath: process.argv[2] ?? '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--autoplay-policy=no-user-gesture-required',
  ],
});

try {
  const page = await browser.newPage();
  const webm = await page.evaluate(async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const context = new AudioContext({ sampleRate: 48000 });
    await context.resume();
    const source = context.createBufferSource();
    source.buffer = await context.decodeAudioData(bytes.buffer);
    const destination = context.createMediaStreamDestination();
    destination.channelCount = 1;
    source.connect(destination);

    const recorder = new MediaRecorder(destination.stream, {
      mimeType: 'audio/webm;codecs=opus',
      audioBitsPerSecond: 32000,
    });
    const blobs = [];
    recorder.ondataavailable = (event) => blobs.push(event.data);
    const stopped = new Promise((resolve) => (recorder.onstop = resolve));
    // A time slice, as a page that uploads while it records would use.
    recorder.start(500);
    source.start();
    await new Promise((resolve) => (source.onended = resolve));
    // Past the end, or the encoder's last packets are lost.
    await new Promise((resolve) => setTimeout(resolve, 150));
    recorder.stop();
    await stopped;

    const recorded = new Uint8Array(await new Blob(blobs).arrayBuffer());
    let binary = '';
    for (const byte of recorded) binary += String.fromCharCode(byte);
    return btoa(binary);
  }, speech);
  const bytes = Buffer.from(webm, 'base64');
  await writeFile(new URL('mediarecorder.webm', here), bytes);
  console.log(`mediarecorder.webm: ${bytes.length} bytes`);
} finally {
  await browser.close();
}
