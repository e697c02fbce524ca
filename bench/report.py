"""Turns a result of run.py into a Markdown report and a picture of where our time goes.

python bench/report.py bench/results/RESULT.json     # writes the two again from the numbers
"""

import json
import sys
from pathlib import Path

import bars
from bars import bare, ms, times

STAGES = {  # in the order of the way through; a colour each that colour-blind eyes tell apart (Okabe and Ito)
    "decode_audio_ms": ("decode audio", "#56B4E9"),
    "features_ms": ("trim, log-mel", "#009E73"),
    "encoder_ms": ("encoder", "#E69F00"),
    "decoder_ms": ("text decoder", "#D55E00"),
    "other": ("other", "#999999"),
}


def cell(measured):
    return f"{ms(measured['median_ms'])} ({ms(measured['min_ms'])}; {ms(measured['q3_ms'] - measured['q1_ms'])})"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def theirs(result):
    case = next(iter(result["cases"].values()))
    return [name for name in case["engines"] if name not in result["ours"]]


def case_table(result, ours, cases):
    """Medians, and how many times as long the others take."""
    others = theirs(result)
    rows = []
    for name in cases:
        engines = result["cases"][name]["engines"]
        ratios = [times(engines[other]["median_ms"] / engines[ours]["median_ms"]) for other in others]
        rows.append([name, cell(engines[ours]), *(cell(engines[other]) for other in others), *ratios])
    return table(["ms: median (min; IQR)", ours, *others, *(f"{other} ÷ {ours}" for other in others)], rows)


def bars_table(result):
    """First of all: what issue 8 asks for, and what came of it."""
    found = bars.rows(result)
    if not found:
        return []
    said = {True: "met", False: "**missed**", None: "–"}
    keys = ("work", "ours", "theirs", "ratio", "at_least")
    rows = [[*(line[key] for key in keys), said[line["met"]]] for line in found]
    head = ["work", f"ours {bars.OURS} (median)", f"{bars.THEIRS} (median)", "ratio", "at least", "met?"]
    parts = ["## Issue's bars\n", table(head, rows)]
    if not bars.is_base(result):
        parts.append(f"The issue sets its bars for {bars.BASE}; of {result['model']} it asks for the ratios.\n")
    errors = bars.word_errors(result)
    if rates := bars.word_error_rates(errors):
        more = rates[1] - rates[0]
        met = "met" if more <= bars.MOST_MORE_WORD_ERRORS else "**missed**"
        wanted = f" (at most {bars.MOST_MORE_WORD_ERRORS}: {met})" if bars.is_base(result) else ""
        others, words = (sum(case[key] for case in errors.values()) for key in ("errors", "words"))
        parts.append(
            f"Word error rate of all clips against what was spoken: {bars.EXACT} {rates[0]:.1f} %, {bars.OURS} {rates[1]:.1f} %, "
            f"{more:+.1f} points{wanted}; {others} of {words} words are others.\n"
        )
    return parts


def encoder_table(result, ours, cases):
    """The encoder's own time, without what is before it: what the bars are read from."""
    others = theirs(result)
    rows = []
    for name in cases:
        engines = result["cases"][name]["engines"]
        alone = {engine: engines[engine]["stages_ms"]["encoder_ms"] for engine in (ours, *others)}
        positions = [str(engines[engine].get("positions") or "–") for engine in (ours, others[0])]
        ratios = [times(alone[other] / alone[ours]) for other in others]
        rows.append([name, *(ms(value) for value in alone.values()), *ratios, " / ".join(positions)])
    return table(
        ["ms, medians", ours, *others, *(f"{other} ÷ {ours}" for other in others), "positions, ours / theirs"], rows
    )


def rate_table(result):
    """Tokens a second, of every pair."""
    others = theirs(result)
    rows = []
    for ours in result["ours"]:
        rates = [bars.tokens_per_s(result, ours, other) for other in others]
        if all(rates):
            ratios = [times(own / other) for own, other in rates]
            rows.append([ours, f"{rates[0][0]:.0f}", *(f"{other:.0f}" for _, other in rates), *ratios])
    head = ["tokens / s", "ours", *others, *(f"ours ÷ {other}" for other in others)]
    return table(head, rows) if rows else None


def word_error_table(result):
    errors = bars.word_errors(result)
    rows = [
        [name, str(case["words"]), str(case["errors"]), f"{100 * case['errors'] / case['words']:.1f} %"]
        for name, case in errors.items()
        if case["words"]
    ]
    head = ["case", f"words of {bars.EXACT}", f"others in {bars.OURS}", "share"]
    return table(head, rows) if rows else None


def words_table(result, cases):
    """Whether everybody says the same: times for other words would be no comparison."""
    names = [*result["ours"], *theirs(result)]
    rows = []
    for case in cases:
        engines = result["cases"][case]["engines"]
        reference = bare((engines.get("faster-whisper float32") or engines[names[0]])["text"])
        rows.append([case])
        for name in names:
            other = "" if bare(engines[name]["text"]) == reference else " (other words)"
            rows[-1].append(f"{engines[name]['tokens']}{other}")
    return table(["tokens", *names], rows)


def stages_of(engine):
    """(stage, ms) in order; what the stages do not cover is `other`."""
    stages = {stage: value for stage, value in engine["stages_ms"].items() if value > 0}
    known = [(stage, stages[stage]) for stage in STAGES if stage in stages]
    return [*known, ("other", max(engine["inside_ms"] - sum(stages.values()), 0.0))]


def profile_table(result, ours):
    rows = []
    for name, case in result["cases"].items():
        if case["their_work"].startswith("encode"):
            continue
        stages = dict(stages_of(case["engines"][ours]))
        rows.append([name, *(ms(stages[stage]) if stage in stages else "–" for stage in STAGES)])
    return table(["ms, medians", *(label for label, _ in STAGES.values())], rows)


def memory_table(result):
    held = dict(result["memory"])
    if server := result["server"]:
        name = f"okyeame server {server['ours']}" if "ours" in server else "okyeame server"
        held[f"{name}, after its first answer"] = server["idle"]
        held[f"{name}, after all its answers"] = server["after"]
    keys = ("peak_mb", "rss_mb", "anonymous_mb", "file_mb")
    rows = [[name, *(f"{memory.get(key, 0):.0f}" for key in keys)] for name, memory in held.items()]
    return table(["MB", "peak", "resident at rest", "of it private", "of it mapped files"], rows)


def cold_table(result):
    rows = []
    for name, cold in result["cold_start"].items():
        inside = f"{ms(cold['import_ms'])} + {ms(cold['load_ms'])}" if "import_ms" in cold else "–"
        without = cold["cached"]["median_ms"] - cold.get("import_ms", 0)
        rows.append([name, cell(cold["cached"]), cell(cold["from_disk"]), inside, ms(without)])
    return table(
        [
            "ms: median (min; IQR)",
            "model in the page cache",
            "model dropped from it",
            "Python imports + model load",
            "cached, without the imports",
        ],
        rows,
    )


def server_table(server):
    """Whole requests; a result from before there was a head in it has commands alone."""
    beside = server.get("beside")
    rows = []
    for name, request in server["requests"].items():
        answer = request["answer"]
        said = f"`{answer['intent']}`, {answer['intent_source']}" if answer.get("intent") else "words"
        if "commands" in answer:
            said = f"{answer['commands']} different ones"
        rows.append([name, cell(request), said])
        if beside and beside["request"] == name:
            rows[-1] += [cell(beside), times(beside["median_ms"] / request["median_ms"])]
        elif beside:
            rows[-1] += ["–", "–"]
    head = ["ms: median (min; IQR)", "POST", "answer"]
    return table(head + ([f"{beside['engine']}, transcript", "ratio"] if beside else []), rows)


def server_parts(result):
    server = result["server"]
    if not server:
        return [
            f"The default head does not stand on {result['model']} ({result['without_head']}), so only encoders and "
            "transcripts were measured.\n"
        ]
    parts = ["## What a client waits today\n"]
    if "head" in server:
        parts.append(
            f"Whole HTTP requests on loopback to `okyeame server`, {server['ours']}, with models/{server['head']} on "
            f"{result['model']}, cache off, one client on a kept connection; faster-whisper writes the words of the same "
            "clip in the same round.\n"
        )
    else:
        parts.append(
            "Whole HTTP requests on loopback, cache off. Where the model has no intent head, the intent is matched from "
            "the words: full windows, and Twi is decoded with another language's token.\n"
        )
    parts.append(server_table(server))
    parts.append(f"The server was healthy {ms(server['healthy_after_ms'])} ms after it was started.\n")
    return parts


def markdown(result, picture):
    machine, versions = result["machine"], result["versions"]
    load = " ".join(f"{value:.2f}" for value in result["load_average_at_start"])
    cases = result["cases"]
    words = [name for name, case in cases.items() if case["our_work"].startswith("transcribe")]
    commands = [
        name for name, case in cases.items() if case["our_work"] == "command" and case["their_work"] == "transcribe"
    ]
    encoders = [name for name, case in cases.items() if case["their_work"].startswith("encode")]
    parts = [f"# {result['date']}: okyeame beside faster-whisper\n"]
    parts.append(
        f"`{result['command']}` on {machine['cpu']}, {machine['cores']} cores ({machine['architecture']}: "
        f"{' '.join(machine['flags'])}), {machine['memory_gb']:.0f} GB, Linux {machine['kernel']}; load average at "
        f"the start {load}, {result['stolen_percent']:g} % of the CPU taken by other guests of the host.\n"
    )
    parts.append(
        f"Model {result['model']}, {result['threads']} threads each, {result['rounds']} interleaved rounds after a "
        f"warm-up. okyeame {versions['okyeame']} at commit {versions['commit']}, rustc {versions['rustc']}; "
        f"faster-whisper {versions['faster-whisper']}, CTranslate2 {versions['ctranslate2']}, Python "
        f"{versions['python']}. A ratio over 1 means that ours is faster.\n"
    )
    if result["load_average_at_start"][0] > 0.3:
        parts.append("**The machine was not quiet when this began: read the minima, and measure again.**\n")
    if result.get("model_note"):
        parts.append(f"**{result['model_note']}**\n")
    parts += bars_table(result)
    for ours in result["ours"]:
        if commands:
            parts.append(f"## The way of a command, without transcript machinery: {ours}\n")
            parts.append(
                "Ours decodes the sound, trims it, makes the log-mel and runs the encoder on a window as long as the "
                "clip: all that an intent head needs. faster-whisper has only the transcript to get a command's "
                "meaning from.\n"
            )
            parts.append(case_table(result, ours, commands))
        if encoders:
            if not commands:
                parts.append(f"## The encoder by itself: {ours}\n")
            parts.append(
                "Like for like, the same window through faster-whisper's encoder, and nothing after it; with what comes "
                "before it (decode, log-mel), and by itself:\n"
            )
            parts.append(case_table(result, ours, encoders))
            parts.append(encoder_table(result, ours, encoders))
        if words:
            parts.append(f"## Transcripts, full 30 s windows, greedy but for what names its beams: {ours}\n")
            parts.append(case_table(result, ours, words))
    if words:
        parts.append(words_table(result, words))
        if errors := word_error_table(result):
            parts.append(errors)
    if rates := rate_table(result):
        together = ", ".join(bars.rate_cases(result))
        parts.append(f"Tokens per second while decoding, on an encoding that is there ({together}; greedy):\n")
        parts.append(rates)
    parts += server_parts(result)
    if result["cold_start"]:
        parts.append("## Cold start: a new process, until its first answer\n")
        parts.append(
            "The 3 s clip: `okyeame recognize --language tw` beside one transcript by faster-whisper. Dropped: the "
            "kernel was asked to forget the model's files; on a virtual machine the host may still remember them.\n"
        )
        parts.append(cold_table(result))
    parts.append("## Memory\n")
    parts.append(
        "Each child did all of the above; mapped files are weights and code that the system can drop and read again.\n"
    )
    parts.append(memory_table(result))
    for ours in result["ours"] if commands or words else []:
        parts.append(f"## Where our time goes: {ours}\n")
        parts.append(profile_table(result, ours))
    if picture:
        parts.append(f"![Where our time goes, by stage]({picture})\n")
    return "\n".join(parts)


def draw(result, path):
    """A stacked bar for each case, commands and transcripts on axes of their own. False without matplotlib, or where there
    are encoders alone."""
    try:
        import matplotlib

        matplotlib.use("svg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    # text stays text, and the same numbers make the same bytes
    plt.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "okyeame", "font.family": "sans-serif", "font.size": 10}
    )
    ours = result["ours"][0]
    cases = {name: case["engines"][ours] for name, case in result["cases"].items() if not case["their_work"].startswith("encode")}
    commands = [name for name in cases if result["cases"][name]["our_work"] == "command"]
    panels = [panel for panel in (commands, [name for name in cases if name not in commands]) if panel]
    if not panels:
        return False
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(8, 1.1 + 0.55 * len(cases) + 0.5 * len(panels)),
        height_ratios=[len(panel) + 0.6 for panel in panels],
        squeeze=False,
        layout="constrained",
    )
    used = []
    for axis, panel in zip(axes[:, 0], panels):
        for row, name in enumerate(panel):
            left = 0.0
            for stage, value in stages_of(cases[name]):
                label, colour = STAGES[stage]
                axis.barh(row, value, left=left, height=0.62, color=colour, edgecolor="white", linewidth=0.5)
                left += value
                if value > 0 and stage not in used:
                    used.append(stage)
            axis.text(left, row, f" {ms(left)} ms", va="center")
        axis.set_yticks(range(len(panel)), panel)
        axis.invert_yaxis()
        longest = max(sum(value for _, value in stages_of(cases[name])) for name in panel)
        axis.set_xlim(0, longest * 1.15)  # room for the figure behind the bar
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0)
    axes[-1, 0].set_xlabel("milliseconds, medians")
    handles = [plt.Rectangle((0, 0), 1, 1, color=STAGES[stage][1]) for stage in STAGES if stage in used]
    labels = [STAGES[stage][0] for stage in STAGES if stage in used]
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    # matplotlib leaves spaces at line ends, which git complains about
    path.write_text(
        "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines()) + "\n", encoding="utf-8"
    )
    return True


def write(result, stem):
    """Writes STEM.svg and STEM.md beside STEM.json, and gives the Markdown."""
    picture = stem.with_name(stem.name + ".svg")
    text = markdown(result, picture.name if draw(result, picture) else None)
    stem.with_name(stem.name + ".md").write_text(text, encoding="utf-8")
    return text


if __name__ == "__main__":
    source = Path(sys.argv[1])
    write(json.loads(source.read_text(encoding="utf-8")), source.with_suffix(""))
