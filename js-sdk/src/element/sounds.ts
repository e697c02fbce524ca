// Short sounds for those who do not look: made of sine waves when they are played, so that nothing is downloaded.

/** Hz, one after the other. */
const NOTES = {
  listening: [660, 880],
  done: [880, 1175],
  ask: [660, 660],
  rejected: [330],
} as const;
const NOTE_S = 0.09;
const LOUDNESS = 0.06;

let context: AudioContext | undefined;

export function play(name: keyof typeof NOTES): void {
  try {
    context ??= new AudioContext();
    // Without a touch before, a browser keeps silent: the looks say the same.
    if (context.state !== "running") void context.resume().catch(() => {});
    NOTES[name].forEach((hz, at) => {
      const begin = context!.currentTime + at * NOTE_S;
      const oscillator = new OscillatorNode(context!, { frequency: hz });
      const gain = new GainNode(context!, { gain: 0 });
      gain.gain.setValueAtTime(0, begin);
      gain.gain.linearRampToValueAtTime(LOUDNESS, begin + 0.01);
      gain.gain.linearRampToValueAtTime(0, begin + NOTE_S);
      oscillator.connect(gain).connect(context!.destination);
      oscillator.start(begin);
      oscillator.stop(begin + NOTE_S);
    });
  } catch {
    // a browser without sound
  }
}
