"""Whisper-base's greedy words for a clip, in several languages from one run of the encoder."""

import json
from pathlib import Path

import ctranslate2
import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor
from tokenizers import Tokenizer


class Whisper:
    def __init__(self, folder: str, threads: int = 1):
        self.model = ctranslate2.models.Whisper(folder, device="cpu", compute_type="int8", intra_threads=threads)
        self.tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        self.features = FeatureExtractor()
        self.suppress = json.loads((Path(folder) / "config.json").read_text()).get("suppress_ids", [-1])
        self.id = self.tokenizer.token_to_id

    def words(self, clips: list[np.ndarray], languages: list[str], max_tokens: int = 48):
        """For each language, for each clip: (text, avg_logprob, no_speech_prob)."""
        mels = []
        for clip in clips:
            mel = self.features(np.concatenate([np.zeros(1600, np.float32), clip]))
            mel = np.pad(mel, ((0, 0), (0, max(0, 3000 - mel.shape[-1]))))[:, :3000]
            mels.append(mel)
        encoded = self.model.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(np.stack(mels), dtype=np.float32)))
        out = {}
        for language in languages:
            prompt = [self.id("<|startoftranscript|>"), self.id(f"<|{language}|>"), self.id("<|transcribe|>"), self.id("<|notimestamps|>")]
            results = self.model.generate(
                encoded, [prompt] * len(clips), beam_size=1, max_length=max_tokens + len(prompt), return_scores=True,
                return_no_speech_prob=True, suppress_blank=True, suppress_tokens=self.suppress,
            )
            out[language] = []
            for r in results:
                ids = [t for t in r.sequences_ids[0] if t < self.id("<|endoftext|>")]
                text = " ".join(self.tokenizer.decode(ids).split())
                out[language].append((text, r.scores[0], r.no_speech_prob))
        return out
