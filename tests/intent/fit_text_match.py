"""Fits core/data/text_match.json: what letters are heard as, and how sure a match is.

    python fit_text_match.py TRANSCRIPTS.tsv [sw] [OUT.json]

With OUT.json, also writes transcripts_unseen_voice.tsv and folded.tsv beside this script, for the Rust tests.

1. Folds phrases and transcripts as core/src/intent/normalize.rs does (the same rules, kept in step by the test
   `the_fold_is_the_scripts` in core/tests/intent_text_match.rs).
2. Aligns each training transcript with its phrase, counts which symbol came out as which, and takes -log of the
   smoothed frequencies as costs (a noisy channel, fitted by hard EM, context-free: Ristad & Yianilos 1998).
3. Fits the softmax temperature and the in-scope logistic on commands of the fitting voices and on half of the
   out-of-scope talk; prints accuracy and false accepts on the rest.

Fitting voices are those of FIT_VOICES; no other voice is seen before the last print.
"""

import csv
import json
import re
import sys
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np
from speak import DATA, table

FIT_VOICES = ("sw-plain", "sw-phonetic", "id-phonetic")
SYMBOLS = "abcdefghijklmnopqrstuvwxyzCSJ"
N = len(SYMBOLS)
AT = {c: i for i, c in enumerate(SYMBOLS)}
MAX_FOLDED, CENTI = 120, 100
LOOK_ALIKES = {"ε": "ɛ", "ԑ": "ɛ", "є": "ɛ", "ↄ": "ɔ", "ͻ": "ɔ", "ᴐ": "ɔ", "’": "'", "‘": "'", "ʼ": "'", "ʹ": "'", "´": "'", "＇": "'"}
PLAIN = {"ɛ": "e", "ɔ": "o", "ə": "e", "æ": "e", "œ": "e", "ø": "o", "ŋ": "n", "ɲ": "n", "ı": "i", "ɪ": "i", "ʊ": "u", "ß": "s",
         "đ": "d", "ð": "d", "ł": "l", "ɡ": "g", "þ": "t", "ʃ": "sh"}
GROUPS = [("tch", "C"), ("tsh", "C"), ("sch", "S"), ("ch", "C"), ("ky", "C"), ("sh", "S"), ("hy", "S"), ("gy", "J"), ("dj", "J"),
          ("ph", "f"), ("th", "t"), ("ck", "k"), ("qu", "kw"), ("q", "k"), ("x", "ks"), ("j", "J")]


def plain_words(text: str) -> list[str]:
    text = "".join(LOOK_ALIKES.get(c, c) for c in unicodedata.normalize("NFC", text[:300]).lower())
    text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    text = "".join(PLAIN.get(LOOK_ALIKES.get(c, c), LOOK_ALIKES.get(c, c)) for c in text).replace("'", "")
    return re.findall(r"[a-z]+", text)


def fold(text: str) -> str:
    out = []
    for word in plain_words(text):
        i = 0
        while i < len(word):
            for group, symbol in GROUPS:
                if word.startswith(group, i):
                    out.append(symbol)
                    i += len(group)
                    break
            else:
                soft = word[i + 1 : i + 2] in ("e", "i", "y")
                out.append(("s" if soft else "k") if word[i] == "c" else word[i])
                i += 1
    once = re.sub(r"(.{1,8}?)\1{2,}", r"\1", "".join(out))
    return re.sub(r"(.)\1+", r"\1", once)[:MAX_FOLDED]


def code(folded: str) -> np.ndarray:
    return np.array([AT[c] for c in folded], dtype=np.int64)


# ---- the phrase book: as written, and with English words as they sound -------------------------------------
PHRASES = table("phrases.tsv")
LABELS = sorted({r["intent"] for r in PHRASES})
SOUNDS = {r["word"]: r["sounds"] for r in table("english_sounds.tsv")}
LABEL_OF = np.array([LABELS.index(r["intent"]) for r in PHRASES])
ROW = {(r["phrase"], r["intent"]): i for i, r in enumerate(PHRASES)}


def spoken(phrase: str) -> str:
    return " ".join(SOUNDS.get(re.sub(r"[,.?!]", "", w).lower(), w) for w in phrase.split())


ENTRIES = [(i, f) for i, r in enumerate(PHRASES) for f in dict.fromkeys([fold(r["phrase"]), fold(spoken(r["phrase"]))])]
ENTRY_OF = np.array([i for i, _ in ENTRIES])
LENGTH = np.array([len(f) for _, f in ENTRIES])
PADDED = np.zeros((len(ENTRIES), LENGTH.max()), dtype=np.int64)
for at, (_, folded) in enumerate(ENTRIES):
    PADDED[at, : len(folded)] = code(folded)


# ---- the channel -------------------------------------------------------------------------------------------
def hand_costs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where learning starts: half price inside a group of like sounds, vowels 0.7, weak consonants half."""
    sub = np.ones((N, N))
    for group in "pbfv tdTC kgqx szSC JdgzC mn rl wuo yiJ ie ea ao ou hS".split():
        for a in group:
            for b in group:
                if a in AT and b in AT:
                    sub[AT[a], AT[b]] = 0.5
    for a in "aeiou":
        for b in "aeiou":
            sub[AT[a], AT[b]] = min(sub[AT[a], AT[b]], 0.7)
    np.fill_diagonal(sub, 0)
    gap = np.ones(N)
    for c in "hwy":
        gap[AT[c]] = 0.5
    return sub, gap.copy(), gap


def align(p: np.ndarray, t: np.ndarray, costs, counts=None) -> float:
    sub, ins, dele = costs
    m = np.zeros((len(p) + 1, len(t) + 1))
    m[1:, 0], m[0, 1:] = np.cumsum(dele[p]), np.cumsum(ins[t])
    rows = m.tolist()
    s = sub[np.ix_(p, t)].tolist() if len(p) and len(t) else []
    d, i_ = dele[p].tolist(), ins[t].tolist()
    for i in range(1, len(p) + 1):
        above, row, si, di = rows[i - 1], rows[i], s[i - 1] if s else [], d[i - 1]
        for j in range(1, len(t) + 1):
            row[j] = min(above[j - 1] + si[j - 1], above[j] + di, row[j - 1] + i_[j - 1])
    if counts is not None:
        i, j = len(p), len(t)
        while i or j:
            if i and j and abs(rows[i][j] - rows[i - 1][j - 1] - s[i - 1][j - 1]) < 1e-9:
                counts[0][p[i - 1], t[j - 1]] += 1
                i, j = i - 1, j - 1
            elif i and abs(rows[i][j] - rows[i - 1][j] - d[i - 1]) < 1e-9:
                counts[2][p[i - 1]] += 1
                i -= 1
            else:
                counts[1][t[j - 1]] += 1
                j -= 1
    return rows[-1][-1]


def learn(pairs, rounds=4, weight=6.0, worst=0.55):
    """Costs in nats. Pairs that hand costs find further apart than `worst` (a decoder that lost its place) are left out."""
    start = hand_costs()
    kept = [(p, t) for p, t in pairs if align(p, t, start) / max(len(p), len(t), 1) <= worst]
    prior = 0.3 * np.exp(-2.5 * start[0])
    np.fill_diagonal(prior, 3)
    norm, costs = prior.sum(1) + 0.25, start
    for _ in range(rounds):
        counts = (np.zeros((N, N)), np.zeros(N), np.zeros(N))
        for p, t in kept:
            align(p, t, costs, counts)
        total = counts[0].sum(1) + counts[2]
        sub = (counts[0] + weight * prior / norm[:, None]) / (total + weight)[:, None]
        dele = (counts[2] + weight * 0.25 / norm) / (total + weight)
        ins = (counts[1] + 0.5) / (total.sum() + len(kept) + 0.5 * N)
        costs = (-np.log(sub), -np.log(ins), -np.log(dele))
    return costs, len(kept)


def all_costs(t: np.ndarray, costs) -> np.ndarray:
    """Cost of each phrase being heard as t: the same recursion for all entries at once; the cheaper of a phrase's two readings."""
    sub, ins, dele = costs
    row = np.concatenate([[0.0], np.cumsum(ins[t])])
    rows = np.repeat(row[None, :], len(ENTRIES), 0)
    out = np.zeros(len(ENTRIES))
    gaps = np.concatenate([[0.0], np.cumsum(ins[t])])
    for i in range(PADDED.shape[1]):
        p = PADDED[:, i]
        step = np.minimum(rows[:, :-1] + sub[p][:, t], rows[:, 1:] + dele[p][:, None])
        new = np.concatenate([rows[:, :1] + dele[p][:, None], step], 1)
        # row[j] = min over k <= j of new[k] + insertions k..j, in one pass.
        rows = np.minimum.accumulate(new - gaps, axis=1) + gaps
        done = LENGTH == i + 1
        out[done] = rows[done, -1]
    best = np.full(len(PHRASES), np.inf)
    np.minimum.at(best, ENTRY_OF, out)
    return best


# ---- how sure ----------------------------------------------------------------------------------------------
def features(per: np.ndarray, length: float) -> np.ndarray:
    """Of the best costs per intent (mean over languages) and the mean folded length."""
    best = per.min()
    return np.array([1.0, best / max(length, 1.0), min(length, 40.0) / 10.0])


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def logistic(x: np.ndarray, y: np.ndarray, ridge=0.05, rounds=50) -> np.ndarray:
    """Newton's method, the two classes weighed alike."""
    w = np.zeros(x.shape[1])
    share = np.where(y == 1, 0.5 / max(y.sum(), 1), 0.5 / max((1 - y).sum(), 1)) * len(y)
    for _ in range(rounds):
        p = 1 / (1 + np.exp(-x @ w))
        grad = x.T @ (share * (p - y)) + ridge * w
        hess = (x * (share * p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(w))
        w -= np.linalg.solve(hess, grad)
    return w


def main() -> None:
    languages = (sys.argv[2] if len(sys.argv) > 2 else "sw").split(",")
    clips = defaultdict(dict)
    with open(sys.argv[1], encoding="utf-8", newline="") as file:
        for r in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            clips[(r["phrase"], r["intent"], r["voice"])][r["language"]] = r["transcript"]
    clips = {k: v for k, v in clips.items() if all(x in v for x in languages)}
    fit = sorted(k for k in clips if k[2] in FIT_VOICES and k[1] != "out_of_scope")
    test = sorted(k for k in clips if k[2] not in FIT_VOICES and k[1] != "out_of_scope")
    out = sorted(k for k in clips if k[1] == "out_of_scope")

    def pairs(keys):
        found = []
        for k in keys:
            ways = [code(f) for i, f in ENTRIES if i == ROW[k[:2]]]
            for text in clips[k].values():
                t = code(fold(text))
                found.append((min(ways, key=lambda w: align(w, t, hand_costs())), t))
        return found

    def measured(k, costs, without_its_wording=False):
        n, total = 0.0, np.zeros(len(PHRASES))
        for language in languages:
            t = code(fold(clips[k][language]))
            total += all_costs(t, costs)
            n += len(t)
        if without_its_wording:
            total[ROW[k[:2]]] = np.inf
        per = np.full(len(LABELS), np.inf)
        np.minimum.at(per, LABEL_OF, total / len(languages))
        return per, n / len(languages)

    # Calibration must not see costs learnt from its own voice: leave one voice out.
    # And half the customers will say it in words of their own: each clip is also judged without its wording.
    held, strange, voices = {}, {}, sorted({k[2] for k in fit})
    for voice in voices:
        rest = [k for k in fit if k[2] != voice] if len(voices) > 1 else fit
        costs, _ = learn(pairs(rest))
        for k in fit:
            if k[2] == voice:
                held[k] = measured(k, costs)
                strange[k] = measured(k, costs, without_its_wording=True)
    costs, kept = learn(pairs(fit))
    costs = tuple(np.round(c * CENTI) / CENTI for c in costs)
    outs = {k: measured(k, costs) for k in out}

    def is_right(k, per):
        return LABELS[int(per.argmin())] == k[1]

    def nll(temperature):
        both = [*held.items(), *((k, m) for k, m in strange.items() if is_right(k, m[0]))]
        return -sum(np.log(softmax(-per / temperature)[LABELS.index(k[1])] + 1e-12) for k, (per, _) in both)

    temperature = min((t / 4 for t in range(2, 80)), key=nll)
    fit_out, test_out = out[::2], out[1::2]
    right = [k for k in held if LABELS[int(held[k][0].argmin())] == k[1]]
    no = [strange[k] for k in strange if not is_right(k, strange[k][0])] + [held[k] for k in held if k not in right]
    x = np.array([features(*held[k]) for k in right] + [features(*outs[k]) for k in fit_out] + [features(*m) for m in no])
    y = np.array([1.0] * len(right) + [0.0] * (len(fit_out) + len(no)))
    w = logistic(x, y)

    def judged(per, length):
        scope = 1 / (1 + np.exp(-features(per, length) @ w))
        return scope, scope * softmax(-per / temperature)

    fit_scores = sorted(judged(*held[k])[0] for k in right)
    scope_at = float(fit_scores[int(0.05 * len(fit_scores))])
    print(f"fit {len(fit)} clips of {voices}, {kept} pairs kept; T {temperature}; in scope {w.round(3).tolist()}; 95 % of the right ones are above {scope_at:.3f}")
    best = np.array([max(judged(*held[k])[1]) for k in held])
    hit = np.array([LABELS[int(held[k][0].argmin())] == k[1] for k in held])
    talk = np.array([judged(*outs[k])[1].max() for k in fit_out])
    # The trade-off, on what was fitted: at most 2 % of commands taken for another one, 15 % of those in unknown
    # words, and 2 % of other talk taken for a command; then as many commands as possible.
    own = [judged(*m)[1].max() for k, m in strange.items() if not is_right(k, m[0])]
    accept_at = next(
        t / 20 for t in range(2, 20)
        if np.mean((best >= t / 20) & ~hit) <= 0.02 and np.mean(talk >= t / 20) <= 0.02 and np.sum(np.array(own) >= t / 20) <= 0.15 * len(strange)
    )
    print(f"fit, voice left out: {hit.mean():.3f} right; accept at {accept_at}: {np.mean((best >= accept_at) & hit):.3f} accepted and right")

    groups = defaultdict(list)
    for k in test:
        groups[k[2]].append((k, *judged(*measured(k, costs))))
    for threshold in (scope_at, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        line = []
        for voice, rows in sorted(groups.items()):
            right_ = [LABELS[int(c.argmax())] == k[1] for k, s, c in rows]
            taken = [s >= threshold for _, s, _ in rows]
            line.append(f"{voice} {np.mean(right_):.3f} right, {np.mean([a for a, r in zip(taken, right_) if r]):.3f} of those in scope ({len(rows)})")
        false = np.mean([judged(*outs[k])[0] >= threshold for k in test_out]) if test_out else float("nan")
        print(f"scope >= {threshold:.3f}: {'; '.join(line)}; false accepts {false:.3f} of {len(test_out)}")
    for confidence in sorted({accept_at, 0.2, 0.3, 0.4, 0.5, 0.6}):
        line = []
        for voice, rows in sorted(groups.items()):
            taken = [(k, c) for k, s, c in rows if c.max() >= confidence]
            ok = sum(LABELS[int(c.argmax())] == k[1] for k, c in taken)
            line.append(f"{voice} accepted and right {ok / len(rows):.3f}, accepted and wrong {(len(taken) - ok) / len(rows):.3f}")
        false = np.mean([judged(*outs[k])[1].max() >= confidence for k in test_out]) if test_out else float("nan")
        print(f"confidence >= {confidence}: {'; '.join(line)}; false accepts {false:.3f}")
    unknown = [(k, judged(*measured(k, costs, without_its_wording=True))[1]) for k in test]
    ok = np.array([LABELS[int(c.argmax())] == k[1] for k, c in unknown])
    for at in sorted({accept_at, 0.2, 0.3, 0.4, 0.5, 0.6}):
        taken = np.array([c.max() >= at for _, c in unknown])
        print(f"wording left out, confidence >= {at}: {ok.mean():.3f} right, {(ok & taken).mean():.3f} accepted and right, {(~ok & taken).mean():.3f} accepted and wrong")
    every = [(c.max(), LABELS[int(c.argmax())] == k[1]) for rows in groups.values() for k, s, c in rows]
    for low, high in ((0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.01)):
        bin_ = [r for c, r in every if low <= c < high]
        if bin_:
            print(f"confidence {low:.1f}-{high:.1f}: {np.mean(bin_):.2f} right of {len(bin_)}")
    if len(sys.argv) > 3:
        whole = lambda a: [int(v) for v in np.round(a * CENTI)]  # noqa: E731
        parts = {
            "about": "Written by tests/intent/fit_text_match.py. Costs are centinats: -100 ln of how often a symbol (row) is heard as another (column), comes from nowhere, or is not heard. in_scope: a logistic over [1, best cost per symbol in nats, min(length, 40) / 10].",
            "symbols": SYMBOLS, "languages": languages,
            "insertion": whole(costs[1]), "deletion": whole(costs[2]),
            "temperature": temperature, "in_scope": [round(float(v), 4) for v in w],
            "reject": {"in_scope_below": accept_at, "confidence_below": accept_at, "ambiguous_above": 0.5},
        }
        text = json.dumps(parts, ensure_ascii=False, indent=1)
        text = re.sub(r"\[\s+([^\]]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
        rows = ",\n  ".join(json.dumps(whole(r)) for r in costs[0])
        text = text[:-2] + f',\n "substitution": [\n  {rows}\n ]\n}}\n'
        json.loads(text)
        Path(sys.argv[3]).write_text(text, encoding="utf-8")
        here = Path(__file__).resolve().parent
        lines = ["phrase\tintent\tvoice\tlanguage\ttranscript"]
        lines += ["\t".join([*k, x, clips[k][x]]) for k in test + test_out for x in ("sw", "yo", "mi") if x in clips[k]]
        (here / "transcripts_unseen_voice.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        texts = [r["phrase"] for r in PHRASES[::25]] + [clips[k][x] for k in (test + test_out)[::10] for x in languages]
        (here / "folded.tsv").write_text("text\tfolded\n" + "".join(f"{t}\t{fold(t)}\n" for t in dict.fromkeys(texts)), encoding="utf-8")


if __name__ == "__main__":
    main()
