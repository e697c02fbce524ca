"""Speaks phrases (speak.py), has whisper-base write them down (whisper_words.py), and appends to a TSV.

    python make_transcripts.py MODEL_FOLDER OUT.tsv LANGUAGES JOB...

LANGUAGES is a comma list of Whisper's language tokens. A JOB is VOICE:SET, where SET is
  every:K:I    the phrases whose row number leaves I when divided by K,
  per:N:SEED   N phrases of each intent, drawn with SEED,
  out          all of out_of_scope.tsv: English by `en`, French by `fr`, Swahili by `sw`, the rest by VOICE.
Rows already in OUT are kept and not made again.
"""

import csv
import random
import sys
from pathlib import Path

from speak import VOICES, say, table
from whisper_words import Whisper

COLUMNS = ["phrase", "intent", "voice", "language", "transcript", "avg_logprob", "no_speech_prob"]
BATCH = 8


def chosen(kind: str) -> list[tuple[str, str, str | None]]:
    """(text, intent, language of its own) of a job's set."""
    name, *numbers = kind.split(":")
    if name == "out":
        return [(row["text"], "out_of_scope", row["language"]) for row in table("out_of_scope.tsv")]
    rows = [(row["phrase"], row["intent"], None) for row in table("phrases.tsv")]
    if name == "every":
        k, i = map(int, numbers)
        picked = [row for at, row in enumerate(rows) if at % k == i]
    else:
        n, seed = map(int, numbers)
        draw, picked = random.Random(seed), []
        for intent in sorted({row[1] for row in rows}):
            of_it = [row for row in rows if row[1] == intent]
            picked += draw.sample(of_it, min(n, len(of_it)))
    random.Random(1).shuffle(picked)  # so that a run cut short still covers every intent
    return picked


def main() -> None:
    folder, out, languages, jobs = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split(","), sys.argv[4:]
    done = set()
    if out.exists():
        with open(out, encoding="utf-8", newline="") as file:
            done = {(r["phrase"], r["intent"], r["voice"]) for r in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    whisper = Whisper(folder)
    with open(out, "a", encoding="utf-8", newline="") as file:
        if not done:
            file.write("\t".join(COLUMNS) + "\n")
        for job in jobs:
            voice, kind = job.split(":", 1)
            todo = []
            for text, intent, own in chosen(kind):
                by = own if own in VOICES else voice
                if (text, intent, by) not in done:
                    todo.append((text, intent, by))
            for start in range(0, len(todo), BATCH):
                batch = todo[start : start + BATCH]
                words = whisper.words([say(text, by) for text, _, by in batch], languages)
                for language in languages:
                    for (text, intent, by), (heard, logprob, silence) in zip(batch, words[language]):
                        file.write("\t".join([text, intent, by, language, heard, f"{logprob:.3f}", f"{silence:.4f}"]) + "\n")
                file.flush()


if __name__ == "__main__":
    main()
