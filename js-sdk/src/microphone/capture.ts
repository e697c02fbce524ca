// The microphone: frames of 20 ms at 16 kHz, until it is released. Every way in which it can fail has a code.

import { OkyeameError } from "../errors.js";

export interface Capture {
  /** Gives the microphone back: the browser's sign for it goes out. */
  release(): void;
}

export interface CaptureEvents {
  onFrame(frame: Float32Array<ArrayBuffer>): void;
  /** The microphone is gone: unplugged, or taken by the system. It is released by then. */
  onLost(error: OkyeameError): void;
}

const CODES: Record<string, [string, string]> = {
  NotAllowedError: ["microphone_denied", "the microphone was not allowed: allow it in the browser's settings for this page"],
  SecurityError: ["microphone_denied", "this page may not use the microphone: it needs https, and a permissions policy that lets it"],
  NotFoundError: ["microphone_missing", "there is no microphone"],
  OverconstrainedError: ["microphone_missing", "there is no such microphone"],
  NotReadableError: ["microphone_busy", "the microphone cannot be opened: another program may be using it"],
  AbortError: ["microphone_busy", "the microphone could not be opened"],
};

/** Opens the microphone, with the browser's echo cancellation and noise suppression. */
export async function openMicrophone(events: CaptureEvents, deviceId?: string): Promise<Capture> {
  if (!globalThis.navigator?.mediaDevices?.getUserMedia || typeof AudioWorkletNode === "undefined") {
    throw new OkyeameError("microphone_unsupported", "this browser gives no microphone to this page; it needs https (or localhost)");
  }
  const audio = {
    channelCount: 1,
    echoCancellation: true,
    noiseSuppression: true,
    autoGainControl: true,
    ...(deviceId && { deviceId: { exact: deviceId } }),
  };
  let stream: MediaStream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio });
  } catch (cause) {
    const [code, message] = CODES[(cause as Error).name] ?? ["microphone_unsupported", `the microphone cannot be opened: ${(cause as Error).message}`];
    throw new OkyeameError(code, message, { cause });
  }
  const context = new AudioContext({ latencyHint: "interactive" });
  let released = false;
  const release = () => {
    if (released) return;
    released = true;
    stream.getTracks().forEach((track) => track.stop());
    context.close().catch(() => {});
  };
  try {
    await context.audioWorklet.addModule(new URL("./capture_worklet.js", import.meta.url));
    // A context that was not started by a touch sleeps.
    if (context.state === "suspended") await context.resume();
    const node = new AudioWorkletNode(context, "okyeame-capture", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => {
      if (!released) events.onFrame(data);
    };
    context.createMediaStreamSource(stream).connect(node);
  } catch (cause) {
    release();
    throw new OkyeameError("microphone_unsupported", `sound cannot be taken from the microphone: ${(cause as Error).message}`, { cause });
  }
  for (const track of stream.getTracks()) {
    track.addEventListener("ended", () => {
      if (released) return;
      release();
      events.onLost(new OkyeameError("microphone_lost", "the microphone was unplugged, or taken by another program"));
    });
  }
  return { release };
}
