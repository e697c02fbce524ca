//! The model card: the `README.md` of a head's repository, with the front matter that the Hugging Face hub reads.
//!
//! Strangers' texts go through [`yaml`], [`code`] or [`markdown`], so that a label cannot end the front matter or open
//! an element. Figures are those of the [`Evaluation`], never typed by hand.

use anyhow::Result;
use okyeame_core::Risk;
use okyeame_core::intent::built_in;
use okyeame_core::training::evaluation::Evaluation;
use serde::Serialize;

use super::render;
use super::view::{title_of, with_interval};

/// What an evaluation does not know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct CardMeta {
    /// The card's title.
    pub(crate) title: String,
    /// Where the model will stand: `owner/name` or a folder, as `okyeame` takes it.
    pub(crate) model: String,
    /// The base model's repository, such as `openai/whisper-base`.
    pub(crate) base_model: String,
    /// Identifier of the licence, such as `mit`.
    pub(crate) license: String,
    /// Codes of the languages, such as `tw` and `en`.
    pub(crate) languages: Vec<String>,
    /// Tags beside the usual ones.
    pub(crate) tags: Vec<String>,
    /// Where the clips are from and what may be done with them.
    pub(crate) data: String,
    /// How it was trained, a few sentences.
    pub(crate) training: String,
    /// What it is not good for; the card adds what the evaluation itself shows.
    pub(crate) limits: Vec<String>,
}

#[derive(Serialize)]
struct Intent<'a> {
    intent: &'a str,
    means: &'a str,
    slots: String,
    risk: &'static str,
}

#[derive(Serialize)]
struct Metric {
    kind: &'static str,
    name: &'static str,
    value: String,
}

#[derive(Serialize)]
struct Split {
    name: String,
    title: String,
    n: usize,
    cells: Vec<String>,
    metrics: Vec<Metric>,
}

#[derive(Serialize)]
struct Card<'a> {
    meta: &'a CardMeta,
    evaluation: &'a Evaluation,
    intents: Vec<Intent<'a>>,
    splits: Vec<Split>,
    out_of_scope: Vec<(&'a str, usize, String)>,
    counts: Vec<(&'a str, &'a str, usize)>,
}

/// The card of the model that was evaluated.
///
/// # Errors
/// When the template does not fit, which a test rules out.
pub(crate) fn model_card(evaluation: &Evaluation, meta: &CardMeta) -> Result<String> {
    let card = Card {
        meta,
        evaluation,
        intents: evaluation.model.labels.iter().map(|label| intent(label)).collect(),
        splits: splits(evaluation),
        out_of_scope: evaluation
            .out_of_scope
            .iter()
            .map(|kind| (kind.kind.as_str(), kind.n, with_interval(kind.false_accepts)))
            .collect(),
        counts: evaluation.data.counts.iter().map(|c| (c.cell.as_str(), c.kind.as_str(), c.n)).collect(),
    };
    render("card.md.jinja", include_str!("card.md.jinja"), &card)
}

fn intent(label: &str) -> Intent<'_> {
    let known = built_in().iter().find(|known| known.intent == label);
    Intent {
        intent: label,
        means: known.and_then(|known| known.means.as_deref()).unwrap_or_default(),
        slots: known.map(|known| known.slots.join(", ")).unwrap_or_default(),
        // a shop's own label is asked about before it is acted on
        risk: match known.map_or(Risk::Confirm, |known| known.risk) {
            Risk::None => "none",
            Risk::Undo => "undo",
            Risk::Confirm => "confirm",
        },
    }
}

fn splits(evaluation: &Evaluation) -> Vec<Split> {
    let metric = |kind, name, value: Option<f64>| {
        value.filter(|value| value.is_finite()).map(|value| Metric { kind, name, value: format!("{value:.4}") })
    };
    evaluation
        .splits
        .iter()
        .map(|split| Split {
            name: split.name.clone(),
            title: title_of(split),
            n: split.n,
            cells: [split.accuracy, split.macro_f1, split.accepted, split.wrong_accepts, split.ece]
                .map(with_interval)
                .to_vec(),
            metrics: [
                metric("accuracy", "Accuracy", split.accuracy.map(|i| i.value)),
                metric("f1", "Macro F1", split.macro_f1.map(|i| i.value)),
            ]
            .into_iter()
            .flatten()
            .collect(),
        })
        .collect()
}

/// A double-quoted YAML scalar: JSON's strings are such, without the characters that YAML does not allow in any.
pub(super) fn yaml(text: &str) -> String {
    serde_json::Value::from(on_one_line(text)).to_string()
}

/// A code span within a line or a table's cell.
pub(super) fn code(text: &str) -> String {
    format!("`{}`", on_one_line(text).replace('`', "'").replace('|', "\\|"))
}

/// Plain text within Markdown: nothing in it is markup.
pub(super) fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in on_one_line(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '!' | '~' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// Line ends, other control characters and what YAML takes for line ends become spaces.
fn on_one_line(text: &str) -> String {
    let is_break = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
    text.chars().map(|c| if is_break(c) { ' ' } else { c }).collect()
}
