"""Turns a result of run.py into a Markdown report and a picture of where our time goes.

python bench/report.py bench/results/RESULT.json     # writes the two again from the numbers
"""

import json
import sys
from pathlib import Path

STAGES = {  # in the order of the way through; a colour each that colour-blind eyes tell apart (Okabe and Ito)
    "decode_audio_ms": ("decode audio", "#56B4E9"),
    "features_ms": ("trim, log-mel", "#009E73"),
    "encoder_ms": ("encoder", "#E69F00"),
    "decoder_ms": ("text decoder", "#D55E00"),
    "other": ("other", "#999999"),
}


def ms(value):
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def times(ratio):
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.1f}×"


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


def bare(text):
    """Letters and digits alone: a comma more or less is not another word."""
    return "".join(character for character in text.casefold() if character.isalnum())


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
        if case["their_work"] == "encode":
            continue
        stages = dict(stages_of(case["engines"][ours]))
        rows.append([name, *(ms(stages[stage]) if stage in stages else "–" for stage in STAGES)])
    return table(["ms, medians", *(label for label, _ in STAGES.values())], rows)


def memory_table(result):
    rows = [
        [name, *(f"{memory.get(key, 0):.0f}" for key in ("peak_mb", "rss_mb", "anonymous_mb", "file_mb"))]
        for name, memory in [*result["memory"].items(), ("okyeame server, idle", result["server"]["idle"])]
    ]
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


def server_table(result):
    rows = []
    for name, request in result["server"]["requests"].items():
        answer = request["answer"]
        rows.append([name, cell(request), f"`{answer['intent']}`", str(answer["intent_source"])])
    return table(["POST /test-intent, language=tw", "ms: median (min; IQR)", "intent", "from"], rows)


def markdown(result, picture):
    machine, versions = result["machine"], result["versions"]
    load = " ".join(f"{value:.2f}" for value in result["load_average_at_start"])
    cases = result["cases"]
    words = [name for name, case in cases.items() if case["our_work"] == case["their_work"] == "transcribe"]
    commands = [
        name for name, case in cases.items() if case["our_work"] == "command" and case["their_work"] == "transcribe"
    ]
    encoders = [name for name, case in cases.items() if case["their_work"] == "encode"]
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
            parts.append(
                "Like for like, the same fitted window through faster-whisper's encoder, and nothing after it:\n"
            )
            parts.append(case_table(result, ours, encoders))
        if words:
            parts.append(f"## Transcripts, greedy, full 30 s windows: {ours}\n")
            parts.append(case_table(result, ours, words))
    if words:
        parts.append(words_table(result, words))
    parts.append("## What a client waits today\n")
    parts.append(
        "Whole HTTP requests on loopback, cache off. Where the model has no intent head, the intent is matched from "
        "the words: full windows, and Twi is decoded with another language's token.\n"
    )
    parts.append(server_table(result))
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
    parts.append(f"The server was healthy {ms(result['server']['healthy_after_ms'])} ms after it was started.\n")
    for ours in result["ours"]:
        parts.append(f"## Where our time goes: {ours}\n")
        parts.append(profile_table(result, ours))
    if picture:
        parts.append(f"![Where our time goes, by stage]({picture})\n")
    return "\n".join(parts)


def draw(result, path):
    """A stacked bar for each case, commands and transcripts on axes of their own. False without matplotlib."""
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
    cases = {name: case["engines"][ours] for name, case in result["cases"].items() if case["their_work"] != "encode"}
    commands = [name for name in cases if result["cases"][name]["our_work"] == "command"]
    panels = [panel for panel in (commands, [name for name in cases if name not in commands]) if panel]
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
