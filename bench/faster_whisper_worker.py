"""faster-whisper as a child of the bench: one process per compute type, kept for the whole run.

It reads lines `WORK<TAB>LANGUAGE<TAB>PATH` on stdin and writes one JSON line for each, as `okyeame bench --serve`
does; the first line that it writes says that the model is loaded. WORK is

    transcribe   the words, greedy, in one 30 s window: what faster-whisper needs for a command's intent too
    transcribe5  the same with five beams, or as many as are named: patience 1, texts ranked by their log-probability a
                 token, as ours are (its length_penalty of 1)
    encode       decode, log-mel and the encoder alone, on a full 30 s window
    encode_clip  the same on a window as long as the clip (+ 0.1 s): what faster-whisper would need if it had an
                 intent head. It has none; this is the like-for-like row.

Options are plain: temperature 0, no timestamps, no voice detection, no prompt from earlier text, no threshold that
repeats or drops a segment. The stages are timed from outside by wrapping its methods. So `decoder_ms` is the time of
its `generate` on an encoding made before, in the very answer that was measured.

    python bench/faster_whisper_worker.py MODEL COMPUTE_TYPE THREADS
"""

import json
import sys
import time

started = time.perf_counter()
from faster_whisper import WhisperModel  # noqa: E402
from faster_whisper.audio import decode_audio, pad_or_trim  # noqa: E402

imported = time.perf_counter()

FITTED_PADDING = 1600  # samples: 0.1 s
GREEDY = dict(
    beam_size=1,
    best_of=1,
    temperature=0.0,
    without_timestamps=True,
    condition_on_previous_text=False,
    vad_filter=False,
    compression_ratio_threshold=None,
    log_prob_threshold=None,
    no_speech_threshold=None,
)


def answer(**fields):
    sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
    sys.stdout.flush()


class Timed:
    """Stands for `inner`, a function or a callable object, and adds the time of each call to `stages[stage]`."""

    def __init__(self, inner, stages, stage):
        self.inner, self.stages, self.stage = inner, stages, stage

    def __call__(self, *args, **kwargs):
        begin = time.perf_counter()
        result = self.inner(*args, **kwargs)
        self.stages[self.stage] = self.stages.get(self.stage, 0.0) + (time.perf_counter() - begin) * 1e3
        return result

    def __getattr__(self, name):
        return getattr(self.inner, name)


class Engine:
    def __init__(self, model, compute_type, threads):
        self.model = WhisperModel(
            model, device="cpu", compute_type=compute_type, cpu_threads=threads, num_workers=1, local_files_only=True
        )
        self.stages = {}
        self.decode_audio = Timed(decode_audio, self.stages, "decode_audio_ms")
        self.model.feature_extractor = Timed(self.model.feature_extractor, self.stages, "features_ms")
        self.model.encode = Timed(self.model.encode, self.stages, "encoder_ms")
        self.model.generate_with_fallback = Timed(self.model.generate_with_fallback, self.stages, "decoder_ms")

    def run(self, work, language, path):
        self.stages.clear()
        begin = time.perf_counter()
        audio = self.decode_audio(path)
        tokens, text, positions = 0, "", 0
        if work.startswith("transcribe"):
            beams = int(work.removeprefix("transcribe") or 1)
            options = GREEDY if beams == 1 else dict(GREEDY, beam_size=beams, patience=1, length_penalty=1)
            segments, _ = self.model.transcribe(audio, language=language, **options)
            segments = list(segments)
            tokens = sum(len(segment.tokens) for segment in segments)
            text = "".join(segment.text for segment in segments).strip()
        elif work in ("encode", "encode_clip"):
            features = self.model.feature_extractor(audio, padding=FITTED_PADDING)
            states = self.model.encode(pad_or_trim(features) if work == "encode" else features)
            positions = states.shape[1]
        else:
            raise ValueError(f"unknown work {work!r}")
        total_ms = (time.perf_counter() - begin) * 1e3
        return dict(total_ms=total_ms, **self.stages, positions=positions, tokens=tokens, text=text)


def main():
    model, compute_type, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    begin = time.perf_counter()
    engine = Engine(model, compute_type, threads)
    answer(ready=True, import_ms=(imported - started) * 1e3, load_ms=(time.perf_counter() - begin) * 1e3)
    for line in sys.stdin:
        work, language, path = line.rstrip("\n").split("\t")
        try:
            answer(work=work, **engine.run(work, language, path))
        except Exception as error:  # the parent decides; this process stays
            answer(work=work, error=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
