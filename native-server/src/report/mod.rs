//! What an evaluation found, for people: one page of HTML, a model card, and the curves of a training run.
//!
//! The page stands by itself: no script, no font, no picture from elsewhere; plots are SVG within it. Read `view` (which
//! figures are shown and how they are written), `plots` and `confusion_map` (pictures), `template.html`, and `card`
//! for the model card. Nothing is reckoned here that the [`Evaluation`] does not hold.

mod card;
mod confusion_map;
mod plots;
mod view;

use anyhow::{Context, Result};
use minijinja::{Environment, UndefinedBehavior};
use okyeame_core::training::evaluation::Evaluation;

pub(crate) use card::{CardMeta, model_card};
pub(crate) use plots::training_plots;

/// The report as one HTML page.
///
/// # Errors
/// When a plot cannot be drawn.
pub(crate) fn render_html(evaluation: &Evaluation) -> Result<String> {
    // the name's ending turns on the escaping of every value that is not marked as safe
    render("report.html", include_str!("template.html"), &view::page(evaluation)?)
}

/// A template filled; an unknown name in it is an error, so that the tests find it.
fn render(name: &str, template: &str, values: &impl serde::Serialize) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(true);
    environment.add_filter("yaml", |text: String| card::yaml(&text));
    environment.add_filter("code", |text: String| card::code(&text));
    environment.add_filter("md", |text: String| card::markdown(&text));
    environment.render_named_str(name, template, values).with_context(|| format!("{name} cannot be written"))
}

#[cfg(test)]
mod tests;
