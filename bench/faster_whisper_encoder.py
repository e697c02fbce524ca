"""faster-whisper's encoder alone, as often as is asked: a child of `make_profile.py`, which reads what oneDNN or MKL say of each
product between this program's lines, if they are told to speak.

    python bench/faster_whisper_encoder.py MODEL COMPUTE_TYPE THREADS RUNS FRAMES [FRAMES ...]

writes `begin FRAMES` and `end FRAMES MILLISECONDS` around each run. What is in a window does not matter for the time: it is noise.
"""

import sys
import time

import numpy as np
from faster_whisper import WhisperModel

WARM_UPS = 2


def main():
    model, compute_type, threads, runs, *windows = sys.argv[1:]
    model = WhisperModel(
        model, device="cpu", compute_type=compute_type, cpu_threads=int(threads), num_workers=1, local_files_only=True
    )
    n_mels = model.feature_extractor.mel_filters.shape[0]
    for frames in map(int, windows):
        mel = np.random.default_rng(1).uniform(-1, 1, (n_mels, frames)).astype(np.float32)
        for run in range(-WARM_UPS, int(runs)):
            if run >= 0:
                print("begin", frames, flush=True)
            begin = time.perf_counter()
            model.encode(mel)
            elapsed = (time.perf_counter() - begin) * 1e3
            print(*(("end", frames, elapsed) if run >= 0 else ("warm",)), flush=True)


if __name__ == "__main__":
    main()
