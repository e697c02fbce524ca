//! The page's figures, written as they are read: an [`Evaluation`] turned into titles, texts and pictures.

use anyhow::Result;
use okyeame_core::training::evaluation::{Evaluation, NoiseResult, SplitResult};
use okyeame_core::training::metrics::{Interval, Percentiles};
use serde::Serialize;

use super::confusion_map::confusion_map;
use super::plots::{Axis, Bar, Line, Point, Unit, bar_chart, inline_training_plots, line_chart, percent};

/// What stands where nothing was measured.
const NOTHING: &str = "–";

/// A headline figure.
#[derive(Serialize)]
struct Card {
    title: String,
    value: String,
    interval: String,
    what: String,
}

/// A picture with its caption; `svg` is our own markup, whose texts are escaped.
#[derive(Serialize)]
struct Figure {
    title: String,
    caption: String,
    svg: String,
    scrolls: bool,
}

/// A table; the first column names the row.
#[derive(Serialize)]
struct Table {
    title: String,
    note: String,
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

/// All that `template.html` asks for.
#[derive(Serialize)]
pub(super) struct Page<'a> {
    evaluation: &'a Evaluation,
    headline: String,
    n_labels: usize,
    n_met: usize,
    cards: Vec<Card>,
    figures: Vec<Figure>,
    tables: Vec<Table>,
    facts: Vec<(&'static str, String)>,
}

pub(super) fn page(evaluation: &Evaluation) -> Result<Page<'_>> {
    Ok(Page {
        evaluation,
        headline: evaluation.splits.first().map_or_else(String::new, title_of),
        n_labels: evaluation.model.labels.len(),
        n_met: evaluation.targets.iter().filter(|target| target.met).count(),
        cards: cards(evaluation),
        figures: figures(evaluation)?,
        tables: tables(evaluation),
        facts: facts(evaluation),
    })
}

pub(super) fn title_of(split: &SplitResult) -> String {
    if split.title.is_empty() { split.name.clone() } else { split.title.clone() }
}

/// "96.2 % (94.8 to 97.3)".
pub(super) fn with_interval(interval: Option<Interval>) -> String {
    interval.map_or_else(|| NOTHING.to_owned(), |i| format!("{} ({})", percent(i.value), ends(i)))
}

fn ends(interval: Interval) -> String {
    format!("{:.1} to {:.1}", interval.low * 100.0, interval.high * 100.0)
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| NOTHING.to_owned(), percent)
}

fn milliseconds(times: Option<Percentiles>) -> [String; 4] {
    times.map_or_else(
        || std::array::from_fn(|_| NOTHING.to_owned()),
        |t| [t.mean, t.p50, t.p95, t.p99].map(|ms| format!("{ms:.1}")),
    )
}

/// The kind with the largest share of false accepts.
fn worst_kind(evaluation: &Evaluation) -> Option<(&str, Interval)> {
    let kinds = evaluation.out_of_scope.iter().filter_map(|kind| Some((kind.kind.as_str(), kind.false_accepts?)));
    kinds.max_by(|a, b| a.1.value.total_cmp(&b.1.value))
}

fn cards(evaluation: &Evaluation) -> Vec<Card> {
    let card = |title: &str, interval: Option<Interval>, what: &str| {
        interval.map(|interval| Card {
            title: title.to_owned(),
            value: percent(interval.value),
            interval: ends(interval),
            what: what.to_owned(),
        })
    };
    let mut cards = Vec::new();
    if let Some(split) = evaluation.splits.first() {
        cards.extend(card("Understood", split.accuracy, "of the commands: the first guess is right"));
        cards.extend(card("Acted on", split.accepted, "of the commands are sure enough to act on"));
        cards.extend(card("Acted on wrongly", split.wrong_accepts, "of the commands are taken for another one"));
    }
    if let Some((kind, interval)) = worst_kind(evaluation) {
        let what = format!("of the clips that are no command, of the kind that fares worst: {kind}");
        cards.extend(card("Acted on without a command", Some(interval), &what));
    }
    if let Some(total) = evaluation.timings.total {
        cards.push(Card {
            title: "Time".to_owned(),
            value: format!("{:.0} ms", total.p50),
            interval: format!("{:.0} ms for the slowest in twenty", total.p95),
            what: "from the sound to the answer, for half of the clips at most".to_owned(),
        });
    }
    cards
}

fn bar(name: String, interval: Interval) -> Bar {
    Bar { name, value: interval.value, ends: Some((interval.low, interval.high)) }
}

/// What a bar chart shows, for those who cannot see it.
fn in_words(title: &str, bars: &[Bar]) -> String {
    let bars: Vec<String> = bars.iter().map(|bar| format!("{} {}", bar.name, percent(bar.value))).collect();
    format!("{title}: {}", bars.join("; "))
}

fn figures(evaluation: &Evaluation) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut add = |title: &str, caption: &str, svg: String, scrolls: bool| {
        figures.push(Figure { title: title.to_owned(), caption: caption.to_owned(), svg, scrolls });
    };

    let splits: Vec<Bar> =
        evaluation.splits.iter().filter_map(|split| Some(bar(title_of(split), split.accuracy?))).collect();
    if !splits.is_empty() {
        let title = "Accuracy by part of the data";
        let svg = bar_chart(&in_words(title, &splits), "first guess is right", &splits, false)?;
        add(
            title,
            "How often the first guess is right, whatever was accepted; the lines are 95 % intervals.",
            svg,
            false,
        );
    }
    let kinds: Vec<Bar> =
        evaluation.out_of_scope.iter().filter_map(|kind| Some(bar(kind.kind.clone(), kind.false_accepts?))).collect();
    if !kinds.is_empty() {
        let title = "Acted on without a command, by kind";
        let svg = bar_chart(&in_words(title, &kinds), "accepted as a command", &kinds, true)?;
        add(title, "Clips that are no command and were accepted as one. Mind the axis: it ends early.", svg, false);
    }
    if !evaluation.reliability.is_empty() {
        let svg = reliability(evaluation)?;
        let caption = "Of the answers with a confidence of 80 %, 80 % should be right: on the thin diagonal. \
                       Larger points stand for more clips. Clips that are no command count as wrong.";
        add("Can the confidence be trusted?", caption, svg, false);
    }
    if !evaluation.risk_coverage.is_empty() {
        let svg = risk(evaluation)?;
        let caption = "Answering only the surest clips (left) makes fewer mistakes than answering all (right).";
        add("What answering less often buys", caption, svg, false);
    }
    for (title, caption, value) in [
        ("Accuracy in noise", "How often the first guess is right.", accuracy_of as OfNoise),
        ("Acted on in noise", "How many of the commands are sure enough to act on.", accepted_of as OfNoise),
    ] {
        if let Some(svg) = in_noise(&evaluation.noise, title, value)? {
            add(title, &format!("{caption} Speech grows fainter against the noise from left to right."), svg, false);
        }
    }
    if let Some(svg) = confusion_map(&evaluation.confusion) {
        let caption = "A row is what was said, a column what it was accepted as. On the diagonal all is well; numbers \
                       are mistakes; the last column was rejected. Only labels with mistakes are named; point at a \
                       square for the rest.";
        add("What is taken for what", caption, svg, true);
    }
    if let Some(epochs) = evaluation.training.as_deref().filter(|epochs| !epochs.is_empty()) {
        let label = format!("Loss and accuracy over {} epochs of training", epochs.len());
        let svg = inline_training_plots(epochs, &label)?;
        add("How training went", "Loss above, accuracy below, on training and validation clips.", svg, false);
    }
    let mut intents: Vec<Bar> = evaluation
        .intents
        .iter()
        .filter_map(|intent| Some(Bar { name: intent.intent.clone(), value: intent.recall?, ends: None }))
        .collect();
    if !intents.is_empty() {
        // a stable sort: equal ones stay in the order of the labels
        intents.sort_by(|a, b| a.value.total_cmp(&b.value));
        let title = "Each intent, the hardest first";
        let svg = bar_chart(&in_words(title, &intents), "accepted as what it is", &intents, false)?;
        add(title, "Share of an intent's clips that were accepted as it.", svg, false);
    }
    Ok(figures)
}

/// A figure of one row.
type OfNoise = fn(&NoiseResult) -> Option<Interval>;

fn accuracy_of(noise: &NoiseResult) -> Option<Interval> {
    noise.accuracy
}

fn accepted_of(noise: &NoiseResult) -> Option<Interval> {
    noise.accepted
}

fn reliability(evaluation: &Evaluation) -> Result<String> {
    let most = evaluation.reliability.iter().map(|bin| bin.count).max().unwrap_or(1).max(1);
    let points = evaluation.reliability.iter().map(|bin| {
        let radius = 3.0 + 8.0 * (bin.count as f64 / most as f64).sqrt();
        Point { radius: radius as u32, ..Point::new(bin.confidence, bin.accuracy) }
    });
    let words: Vec<String> = evaluation
        .reliability
        .iter()
        .map(|bin| format!("confidence {}, right {}", percent(bin.confidence), percent(bin.accuracy)))
        .collect();
    line_chart(
        &format!("Confidence against accuracy: {}", words.join("; ")),
        (&Axis::new("confidence", 0.0, 1.0, Unit::Percent), &Axis::new("right", 0.0, 1.0, Unit::Percent)),
        &[],
        &[Line { name: "measured".to_owned(), points: points.collect() }],
        true,
    )
}

fn risk(evaluation: &Evaluation) -> Result<String> {
    let points = || evaluation.risk_coverage.iter();
    let highest = points().map(|point| point.risk).fold(0.02, f64::max);
    let line = points().map(|point| Point { radius: 0, ..Point::new(point.coverage, point.risk) }).collect();
    let last = evaluation.risk_coverage.last().map_or(0.0, |point| point.risk);
    line_chart(
        &format!("Mistakes against the share of clips answered; {} where all are answered", percent(last)),
        (
            &Axis::new("clips answered", 0.0, 1.0, Unit::Percent),
            &Axis::new("wrong among them", 0.0, (highest * 1.1).min(1.0), Unit::Percent),
        ),
        &[],
        &[Line { name: "wrong first guesses".to_owned(), points: line }],
        false,
    )
}

/// One line for each kind of noise, from clean speech to the strongest noise.
fn in_noise(noise: &[NoiseResult], title: &str, value: OfNoise) -> Result<Option<String>> {
    let measured: Vec<(&NoiseResult, Interval)> = noise.iter().filter_map(|row| Some((row, value(row)?))).collect();
    if measured.is_empty() {
        return Ok(None);
    }
    // no noise at all is the highest ratio
    let ratio = |row: &NoiseResult| row.snr_db.unwrap_or(f32::INFINITY);
    let mut ratios: Vec<f32> = measured.iter().map(|(row, _)| ratio(row)).collect();
    ratios.sort_by(|a, b| b.total_cmp(a));
    ratios.dedup();
    let place = |row: &NoiseResult| ratios.iter().position(|other| *other == ratio(row)).unwrap_or(0) as f64;
    let names: Vec<(f64, String)> = (0_u32..)
        .zip(&ratios)
        .map(|(at, db)| (f64::from(at), if db.is_finite() { format!("{db} dB") } else { "clean".to_owned() }))
        .collect();

    let mut kinds: Vec<&str> = measured.iter().map(|(row, _)| row.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let lines = kinds.iter().map(|kind| {
        let mut points: Vec<Point> = measured
            .iter()
            .filter(|(row, _)| row.kind == *kind)
            .map(|(row, i)| Point { ends: Some((i.low, i.high)), ..Point::new(place(row), i.value) })
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        Line { name: (*kind).to_owned(), points }
    });
    let words: Vec<String> =
        measured.iter().map(|(row, i)| format!("{} {} {}", row.kind, snr(row.snr_db), percent(i.value))).collect();
    let x = Axis::new("speech above noise", -0.5, ratios.len() as f64 - 0.5, Unit::Number);
    let y = Axis::new("of the commands", 0.0, 1.0, Unit::Percent);
    let lines: Vec<Line> = lines.collect();
    line_chart(&format!("{title}: {}", words.join("; ")), (&x, &y), &names, &lines, false).map(Some)
}

fn snr(db: Option<f32>) -> String {
    db.map_or_else(|| "clean".to_owned(), |db| format!("{db} dB"))
}

fn tables(evaluation: &Evaluation) -> Vec<Table> {
    let mut tables = Vec::new();
    let mut add = |title: &str, note: &str, head: &[&'static str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            tables.push(Table { title: title.to_owned(), note: note.to_owned(), head: head.to_vec(), rows });
        }
    };
    let e = evaluation;
    let splits = e.splits.iter().map(|s| {
        let figures = [s.accuracy, s.macro_f1, s.accepted, s.wrong_accepts, s.ece].map(with_interval);
        [title_of(s), s.n.to_string()].into_iter().chain(figures).collect()
    });
    let head = ["Part", "Clips", "Accuracy", "Macro F1", "Accepted", "Accepted wrongly", "Calibration error"];
    let note = "Accuracy: the first guess is right, whatever was accepted. Macro F1: by what was accepted, a rejection \
                is a miss. In brackets 95 % intervals, drawn by speaker.";
    add("Parts of the data", note, &head, splits.collect());

    let kinds = e.out_of_scope.iter().map(|k| vec![k.kind.clone(), k.n.to_string(), with_interval(k.false_accepts)]);
    add("No command", "", &["Kind", "Clips", "Accepted as a command"], kinds.collect());

    let noise = e.noise.iter().map(|n| {
        vec![n.kind.clone(), snr(n.snr_db), n.n.to_string(), with_interval(n.accuracy), with_interval(n.accepted)]
    });
    add("Noise", "", &["Noise", "Speech above noise", "Clips", "Accuracy", "Accepted"], noise.collect());

    let confusions = e.top_confusions.iter().map(|c| {
        let truth = if c.truth.is_empty() { "no command".to_owned() } else { c.truth.clone() };
        vec![truth, c.accepted_as.clone(), c.count.to_string()]
    });
    add("Most frequent mistakes that were acted on", "", &["Said", "Accepted as", "Times"], confusions.collect());

    if let Some(w) = &e.words {
        let row = |name: &str, value: Option<f64>| vec![name.to_owned(), share(value)];
        let rows = vec![
            row("Word error rate", w.wer),
            row("Character error rate", w.cer),
            row("Slots: F1", w.slot_f1),
            row("Slots: precision", w.slot_precision),
            row("Slots: recall", w.slot_recall),
            row("Intent by the sound alone", w.accuracy_audio),
            row("Intent by the words alone", w.accuracy_words),
            row("Intent by both", w.accuracy_fused),
        ];
        add("The words", &format!("Over {} clips.", w.n), &["Measure", "Figure"], rows);
    }
    let seeds = e.seeds.iter().map(|s| {
        let figures = [s.accuracy, s.macro_f1, s.accepted, s.wrong_accepts, s.false_accepts].map(share);
        std::iter::once(s.seed.to_string()).chain(figures).collect()
    });
    let head = ["Seed", "Accuracy", "Macro F1", "Accepted", "Accepted wrongly", "No command accepted"];
    add("The same training with other seeds", "", &head, seeds.collect());

    let timings = [("Encoder", e.timings.encoder), ("Head", e.timings.head), ("Total", e.timings.total)];
    let rows = timings
        .into_iter()
        .filter(|(_, times)| times.is_some())
        .map(|(name, times)| std::iter::once(name.to_owned()).chain(milliseconds(times)).collect());
    let note = format!("Milliseconds a clip, over {} clips.", e.timings.n);
    add("Time", &note, &["Step", "Mean", "Median", "95th percentile", "99th percentile"], rows.collect());

    let intents = e.intents.iter().map(|i| {
        let figures = [i.recall, i.precision, i.f1, i.accepted].map(share);
        [i.intent.clone(), i.n.to_string()].into_iter().chain(figures).collect()
    });
    add("Intents", "", &["Intent", "Clips", "Recall", "Precision", "F1", "Accepted"], intents.collect());

    let speakers =
        e.speakers.iter().map(|s| vec![s.speaker.clone(), s.n.to_string(), share(s.accuracy), share(s.accepted)]);
    add("Speakers", "", &["Speaker", "Clips", "Accuracy", "Accepted"], speakers.collect());

    let counts = e.data.counts.iter().map(|c| vec![c.cell.clone(), c.kind.clone(), c.n.to_string()]);
    add("Clips", "", &["Part", "Kind", "Clips"], counts.collect());
    tables
}

fn facts(evaluation: &Evaluation) -> Vec<(&'static str, String)> {
    let model = &evaluation.model;
    let thresholds: Vec<String> =
        evaluation.thresholds.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
    let area = evaluation.risk_coverage_area.map_or_else(String::new, |area| format!("{area:.4}"));
    let facts = [
        ("Model", model.name.clone()),
        ("Base", model.base.clone()),
        ("Head", format!("{} parameters, {:.1} kB", model.parameters, model.head_bytes as f64 / 1000.0)),
        ("Data", evaluation.data.manifest.clone()),
        ("Speakers in the test sets", evaluation.data.test_speakers.to_string()),
        ("Temperature", format!("{:.3}", evaluation.temperature)),
        ("Thresholds", thresholds.join(", ")),
        ("Area under risk and coverage", area),
        ("Machine", evaluation.machine.clone()),
        ("Date", evaluation.date.clone()),
        ("Okyeame", evaluation.okyeame.clone()),
        ("Command", evaluation.command.clone()),
    ];
    facts.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}
