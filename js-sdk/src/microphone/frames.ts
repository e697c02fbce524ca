/** 20 ms at 16 kHz: what a microphone hands over at a time, and what voice is looked for in. */
export const FRAME_SAMPLES = 320;
export const FRAME_MS = 20;
