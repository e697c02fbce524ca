"""Writes core/data/english_sounds.tsv: the English words of the phrases and slot values as espeak-ng's British voice says them."""

import re

from speak import DATA, english_sounds, is_english, table

BY_HAND = {"faq": "efekyu", "faqs": "efekyus"}
TWI_AFTER_ALL = {"kyalewote", "charlewote", "penk", "kaad", "fon"}
NO_PREFIX = {"alert", "alerts", "address"}

texts = [r["phrase"] for r in table("phrases.tsv")] + [r["spelling"] for r in table("slot_values.tsv")]
words = {w.lower(): english_sounds(w) for t in texts for w in re.findall(r"[^\s,.?!]+", t) if is_english(w)}
sounds = {}
for word, sound in words.items():
    # Twi puts its pronouns before English verbs and nouns: mecheckout, m'order.
    for prefix in ("m'", "me", "ma", "mɛ", "a"):
        rest = word.removeprefix(prefix)
        if rest != word and rest in words and len(rest) > 3 and word not in NO_PREFIX:
            sound = prefix.replace("'", "").replace("ɛ", "e") + words[rest]
            break
    if word not in TWI_AFTER_ALL:
        sounds[word] = BY_HAND.get(word, sound)
lines = [f"{word}\t{sounds[word]}\n" for word in sorted(sounds)]
(DATA / "english_sounds.tsv").write_text("word\tsounds\n" + "".join(lines), encoding="utf-8")
