"""The bars of issue 8 ("Faster than faster-whisper on a plain CPU"), read out of a result of run.py: what our int8 takes,
what faster-whisper int8 takes, and whether the ratio of the medians is what was asked for. And the words: how far int8
says something else than f32.

A row whose measurements a result does not have is left out; so an older result has fewer rows, or none.
"""

OURS, EXACT, THEIRS = "int8", "f32", "faster-whisper int8"
BASE = "whisper-base"  # the bars are for it; of another model the ratios are stated
SPOKEN_FOR_RATE = ("english-11s", "english-30s")  # greedy; a 3 s clip has too few tokens to say anything
MOST_MORE_WORD_ERRORS = 0.2  # points
MOST_RESIDENT_MB = 250
LEAST_SHARE = 0.6


def ms(value):
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def times(ratio):
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.1f}×"


def row(work, ours, theirs, ratio, wanted, is_met):
    """Plain words, but for `met`: None where the model has no bar."""
    return {"work": work, "ours": ours, "theirs": theirs, "ratio": ratio, "at_least": wanted, "met": is_met}


def faster(work, our_ms, their_ms, at_least):
    ratio = their_ms / our_ms
    return row(work, f"{ms(our_ms)} ms", f"{ms(their_ms)} ms", times(ratio), f"{at_least:g}×", ratio >= at_least)


def engines(result, case):
    """(ours, theirs) of a case, or None."""
    both = result["cases"].get(case, {}).get("engines", {})
    return (both[OURS], both[THEIRS]) if OURS in both and THEIRS in both else None


def rate_cases(result):
    """The transcripts that the tokens per second are read from."""
    return {
        name: case["engines"]
        for name, case in result["cases"].items()
        if case["clip"] in SPOKEN_FOR_RATE and case["our_work"] == case["their_work"] == "transcribe"
    }


def tokens_per_s(result, ours=OURS, theirs=THEIRS):
    """(ours, theirs), of decoders on an encoding that is there. None if a part of it was not measured.

    Theirs is the time of faster-whisper's `generate_with_fallback`, which makes the keys and values of the encoding
    itself, at its first step. Ours makes them as it encodes, so that a decoder finds them: they are timed apart
    (`cross_ms`, of the full window) and added to the decoder's time.
    """
    cross = result["cases"].get("encoder alone 30 s", {}).get("engines", {}).get(ours, {})
    cross_ms = cross.get("stages_ms", {}).get("cross_ms", 0.0)
    cases = list(rate_cases(result).values())
    if not cross_ms or not cases or any(name not in case for case in cases for name in (ours, theirs)):
        return None
    rates = []
    for name, apart_ms in ((ours, cross_ms), (theirs, 0.0)):
        decoding_ms = sum(case[name]["stages_ms"]["decoder_ms"] + apart_ms for case in cases)
        rates.append(1e3 * sum(case[name]["tokens"] for case in cases) / decoding_ms)
    return tuple(rates)


def share_of_peak(result):
    """Of the GEMM peak, in the linear layers of the encoder; None if the profile did not say."""
    share = (result.get("profile") or {}).get("encoder_linear_share_of_peak")
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        return None
    return share / 100 if share > 1.5 else share  # as a share, or in percent


def rows(result):
    if OURS not in result["ours"]:
        return []
    found = []
    for work, case in (
        ("encoder on a full 30 s window", "encoder alone 30 s"),
        ("encoder on a fitted 3 s window", "encoder alone 3 s"),
    ):
        if both := engines(result, case):
            found.append(faster(work, *(engine["stages_ms"]["encoder_ms"] for engine in both), 1.5))
    for work, case, at_least in (
        ("11 s clip to words, greedy", "transcript 11 s", 2),
        ("11 s clip to words, beam 5", "transcript 11 s, beam 5", 1.5),
    ):
        if both := engines(result, case):
            found.append(faster(work, *(engine["median_ms"] for engine in both), at_least))
    if rates := tokens_per_s(result):
        ratio = rates[0] / rates[1]
        shown = [f"{rate:.0f} / s" for rate in rates]
        found.append(row("tokens per second while decoding", *shown, times(ratio), "3×", ratio >= 3))
    server = result.get("server") or {}
    if (beside := server.get("beside")) and server["ours"] == OURS:
        command = server["requests"][beside["request"]]
        found.append(faster(f"{beside['request']}, through HTTP", command["median_ms"], beside["median_ms"], 25))
    if "profile" in result:
        share = share_of_peak(result)
        found.append(
            row(
                "share of the measured int8 GEMM peak in the encoder's linear layers",
                "not measured" if share is None else f"{100 * share:.0f} %",
                "–",
                "–",
                f"{100 * LEAST_SHARE:.0f} %",
                None if share is None else share >= LEAST_SHARE,
            )
        )
    if server.get("ours") == OURS:
        found.append(memory_row(result, server))
    if not is_base(result):
        found = [{**line, "at_least": "–", "met": None} for line in found]
    return found


def memory_row(result, server):
    def shown(memory):
        return f"{memory['rss_mb']:.0f} MB ({memory['anonymous_mb']:.0f} private, {memory['file_mb']:.0f} mapped files)"

    held, theirs = server["after"], result["memory"].get(THEIRS)
    return row(
        "resident memory, int8 with head, serving",
        shown(held),
        shown(theirs) if theirs else "–",
        times(theirs["rss_mb"] / held["rss_mb"]) if theirs else "–",
        f"under {MOST_RESIDENT_MB} MB",
        held["rss_mb"] < MOST_RESIDENT_MB,
    )


def is_base(result):
    return result["model"].startswith(BASE)


def bare(text):
    """Letters and digits alone: a comma more or less is not another word."""
    return "".join(character for character in text.casefold() if character.isalnum())


def bare_words(text):
    return [word for word in map(bare, text.split()) if word]


def edit_distance(one, other):
    """Words to put in, take out or exchange."""
    before = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        now = [i]
        for j, right in enumerate(other, 1):
            now.append(min(before[j] + 1, now[j - 1] + 1, before[j - 1] + (left != right)))
        before = now
    return before[-1]


def word_errors(result):
    """case → words of our f32, and how many of them are others in our int8; how many were spoken, and how many each gets
    wrong, where that is known. Empty if the two were not both measured, or the weights were made up."""
    found = {}
    if result.get("model_note"):
        return found
    for name, case in result["cases"].items():
        both = [case["engines"].get(variant) for variant in (EXACT, OURS)]
        if case["our_work"].startswith("transcribe") and all(both):
            exact, quantised = (bare_words(engine["text"]) for engine in both)
            found[name] = {"words": len(exact), "errors": edit_distance(exact, quantised)}
            if spoken := bare_words(result["clips"][case["clip"]].get("words") or ""):
                wrong = {EXACT: edit_distance(spoken, exact), OURS: edit_distance(spoken, quantised)}
                found[name] |= {"spoken": len(spoken), "wrong": wrong}
    return found


def word_error_rates(errors):
    """In percent, of f32 and of int8, against what was spoken in all clips of which that is known; None without one."""
    known = [case for case in errors.values() if "spoken" in case]
    spoken = sum(case["spoken"] for case in known)
    return tuple(100 * sum(case["wrong"][name] for case in known) / spoken for name in (EXACT, OURS)) if spoken else None
