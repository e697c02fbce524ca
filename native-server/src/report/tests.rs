//! The page and the card of made-up evaluations: hostile texts, empty lists, numbers that are none.

#![allow(clippy::unwrap_used)]

use okyeame_core::training::evaluation::{
    CellCount, ConfusionTable, DataFacts, EpochPoint, Evaluation, IntentResult, ModelFacts, NamedConfusion,
    NoiseResult, OutOfScopeResult, SeedResult, SpeakerResult, SplitResult, Target, TimingsResult, WordsResult,
};
use okyeame_core::training::metrics::{Interval, Percentiles, ReliabilityBin, RiskPoint};

use super::{CardMeta, model_card, render_html};

/// Ends an attribute, an element, a table's cell, a code span, a line and a front matter.
const HOSTILE: &str = "x\"'><script>alert(1)</script>|`\n---\n# {{ 7 * 7 }} {% for %} \u{0} &amp;";

/// Every list filled, every text hostile.
fn hostile() -> Evaluation {
    let text = || HOSTILE.to_owned();
    let interval = Some(Interval { value: 0.91, low: 0.84, high: 0.95 });
    let times = Some(Percentiles { mean: 30.0, p50: 29.0, p95: 44.0, p99: 61.0 });
    let noise = |snr_db| NoiseResult { snr_db, kind: text(), n: 9, accuracy: interval, accepted: interval };
    Evaluation {
        model: ModelFacts {
            name: text(),
            base: text(),
            labels: vec![text(), "add_to_cart".to_owned()],
            parameters: 25_000,
            head_bytes: 100_000,
        },
        data: DataFacts {
            manifest: text(),
            counts: vec![CellCount { cell: text(), kind: text(), n: 7 }],
            test_speakers: 4,
            synthetic: true,
            note: text(),
        },
        seeds: vec![SeedResult { seed: 3, accuracy: Some(0.5), ..SeedResult::default() }],
        splits: vec![SplitResult {
            name: text(),
            title: text(),
            n: 40,
            accuracy: interval,
            macro_f1: interval,
            ..SplitResult::default()
        }],
        out_of_scope: vec![OutOfScopeResult { kind: text(), n: 5, false_accepts: interval }],
        noise: vec![noise(None), noise(Some(10.0)), noise(Some(-5.0))],
        confusion: ConfusionTable { labels: vec![text()], rows: vec![vec![3, 1], vec![2, 0]] },
        top_confusions: vec![NamedConfusion { truth: String::new(), accepted_as: text(), count: 2 }],
        reliability: vec![ReliabilityBin { confidence: 0.7, accuracy: 0.6, count: 10 }],
        risk_coverage: vec![RiskPoint { coverage: 0.5, risk: 0.1, threshold: 0.8 }],
        risk_coverage_area: Some(0.05),
        intents: vec![IntentResult { intent: text(), n: 4, recall: Some(0.75), ..IntentResult::default() }],
        speakers: vec![SpeakerResult { speaker: text(), n: 4, accuracy: Some(1.0), accepted: None }],
        words: Some(WordsResult { n: 4, wer: Some(1.25), ..WordsResult::default() }),
        timings: TimingsResult { n: 40, encoder: times, head: times, total: times },
        thresholds: [(text(), 0.6)].into(),
        temperature: 1.3,
        targets: vec![
            Target { name: text(), bar: text(), got: text(), met: true },
            Target { name: "noise".to_owned(), bar: text(), got: text(), met: false },
        ],
        command: text(),
        machine: text(),
        date: text(),
        okyeame: text(),
        notes: vec![text()],
        training: Some(vec![EpochPoint { epoch: 1, train_loss: 2.0, train_accuracy: 0.4, ..EpochPoint::default() }]),
    }
}

fn hostile_meta() -> CardMeta {
    let text = || HOSTILE.to_owned();
    CardMeta {
        title: text(),
        model: text(),
        base_model: text(),
        license: text(),
        languages: vec!["tw".to_owned(), text()],
        tags: vec![text()],
        data: text(),
        training: text(),
        limits: vec![text()],
    }
}

#[test]
fn hostile_texts_stay_texts() {
    let page = render_html(&hostile()).unwrap();
    assert!(!page.contains("<script"), "a stranger's element is on the page");
    assert!(page.contains("&lt;script&gt;"));
    assert!(page.contains("{{ 7 * 7 }}"), "texts are not templates");
    // no attribute is ended by a quote within a text: every aria-label is closed by the quote that opened it
    for label in page.split("aria-label=\"").skip(1) {
        let (inside, after) = label.split_once('"').unwrap();
        assert!(!inside.contains('<') && after.starts_with(['>', ' ']), "{inside}");
    }
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let page = render_html(&hostile()).unwrap();
    for resource in ["http", "src=", "href=", "url(", "@import", "<link", "<iframe"] {
        assert!(!page.contains(resource), "{resource}");
    }
}

#[test]
fn every_element_that_opens_closes() {
    for evaluation in [hostile(), Evaluation::default()] {
        let page = render_html(&evaluation).unwrap();
        for element in ["svg", "section", "figure", "table", "ul", "li", "div", "g", "text", "title", "tr", "dl", "h2"]
        {
            let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
    }
}

#[test]
fn an_empty_evaluation_is_a_short_page() {
    let page = render_html(&Evaluation::default()).unwrap();
    assert!(page.contains("How this was made") && !page.contains("<svg") && !page.contains("<table"));
    assert!(!page.contains("synthetic speech"));
}

#[test]
fn numbers_that_are_none_are_no_panic() {
    let odd = Some(Interval { value: f64::NAN, low: f64::INFINITY, high: f64::NEG_INFINITY });
    let mut evaluation = hostile();
    evaluation.splits[0].accuracy = odd;
    evaluation.out_of_scope[0].false_accepts = odd;
    evaluation.noise[1].accuracy = odd;
    evaluation.noise[1].snr_db = Some(f32::NAN);
    evaluation.reliability[0].confidence = f64::NAN;
    evaluation.risk_coverage[0].risk = f64::INFINITY;
    evaluation.confusion.rows = vec![vec![u32::MAX; 7], vec![]];
    render_html(&evaluation).unwrap();
    model_card(&evaluation, &hostile_meta()).unwrap();
}

#[test]
fn figures_targets_and_the_honest_box_are_on_the_page() {
    let page = render_html(&hostile()).unwrap();
    assert!(page.contains("91.0 %") && page.contains("84.0 to 95.0"));
    assert!(page.contains("Targets: 1 of 2 met") && page.contains("✓ met") && page.contains("✗ missed"));
    assert!(page.contains("Made on synthetic speech."));
    assert_eq!(
        page.matches("class=\"plot\"").count(),
        8,
        "splits, kinds, reliability, risk, 2 of noise, curves, intents"
    );
    assert_eq!(page.matches("class=\"map\"").count(), 1);
}

#[test]
fn the_colours_of_the_plots_are_those_of_the_style_sheet() {
    let style = include_str!("template.html");
    let page = render_html(&hostile()).unwrap();
    let (_, drawn) = page.split_once("</style>").unwrap();
    for part in drawn.split("=\"#").skip(1) {
        let colour = &part[..6];
        assert!(style.contains(&format!("=\"#{colour}\"]")), "#{colour} would not change on a dark screen");
    }
}

#[test]
fn the_front_matter_is_well_formed_whatever_the_texts() {
    let card = model_card(&hostile(), &hostile_meta()).unwrap();
    let rest = card.strip_prefix("---\n").unwrap();
    let (front, body) = rest.split_once("\n---\n").unwrap();
    assert!(body.trim_start().starts_with("# x"), "the front matter ended early");
    for line in front.lines() {
        assert!(!line.contains('\t') && !line.is_empty() && line.len() % 2 == line.trim_start().len() % 2, "{line}");
        let (_, value) = line.split_once(": ").or_else(|| line.split_once("- ")).unwrap_or(("", ""));
        if value.starts_with('"') {
            serde_json::from_str::<String>(value).unwrap();
        } else {
            assert!(!value.contains(['"', '\'', '{', '<', '|', '`']), "{line}");
        }
    }
    for key in ["language:", "license: ", "base_model: ", "pipeline_tag: audio-classification", "model-index:"] {
        assert_eq!(front.lines().filter(|line| line.starts_with(key)).count(), 1, "{key}");
    }
    assert!(front.contains("            value: 0.9100"));
}

#[test]
fn the_card_says_what_was_found_and_what_was_missed() {
    let card = model_card(&hostile(), &hostile_meta()).unwrap();
    assert!(card.contains("91.0 % (84.0 to 95.0)"));
    assert!(card.contains("| `add_to_cart` | put this product in the cart | product, quantity | undo |"));
    assert!(card.contains("- Target missed: noise"));
    assert!(card.contains("Made on synthetic speech.") && card.contains("hold 4 speakers"));
    let (_, body) = card.split_once("\n---\n").unwrap();
    for line in body.lines() {
        // what stands between backticks is code, and shown as it is
        let outside: String = line.replace("\\`", "").split('`').step_by(2).collect();
        assert!(!outside.contains("<script"), "{line}");
    }
    let empty = model_card(&Evaluation::default(), &CardMeta::default()).unwrap();
    assert!(!empty.contains("model-index") && empty.contains("## Limits"));
}
