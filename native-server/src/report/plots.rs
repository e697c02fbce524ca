//! The report's plots, drawn by `plotters` as SVG.
//!
//! Every line has its own marker and every bar its own name, so that nothing is told by colour alone. The few colours
//! are written as attributes, which the page's style sheet overrides for dark screens: [`COLOURS`] and
//! `template.html` name the same ones. Not for the confusion matrix, whose cells say what they are when pointed at:
//! see `confusion_map`.

use anyhow::Result;
use okyeame_core::training::evaluation::EpochPoint;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const INK: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(221, 221, 221);

/// Of the first line, the second, and so on.
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 95, 191),
    RGBColor(196, 87, 11),
    RGBColor(27, 127, 75),
    RGBColor(123, 63, 160),
    RGBColor(160, 40, 80),
    RGBColor(90, 100, 20),
];

const WIDTH: u32 = 640;
const LEGEND_ROW: u32 = 22;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A named share with the ends of its interval.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) ends: Option<(f64, f64)>,
}

/// One point of a line; its size tells how much stands behind it.
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) ends: Option<(f64, f64)>,
    pub(super) radius: u32,
}

impl Point {
    pub(super) fn new(x: f64, y: f64) -> Self {
        Self { x, y, ends: None, radius: 4 }
    }
}

/// A line of a chart; drawn without markers if its points have no radius.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

/// What an axis counts.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Unit {
    Percent,
    Whole,
    Number,
}

/// An axis; its ends are finite and differ.
pub(super) struct Axis {
    pub(super) title: &'static str,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) unit: Unit,
}

impl Axis {
    pub(super) fn new(title: &'static str, from: f64, to: f64, unit: Unit) -> Self {
        let to = if to.is_finite() && to > from { to } else { from + 1.0 };
        Self { title, from, to, unit }
    }

    fn text(&self, value: f64) -> String {
        match self.unit {
            Unit::Percent => format!("{:.0} %", value * 100.0),
            Unit::Whole if (value - value.round()).abs() > 1e-6 => String::new(),
            Unit::Whole => format!("{value:.0}"),
            Unit::Number if self.to >= 10.0 => format!("{value:.0}"),
            Unit::Number => format!("{value:.2}"),
        }
    }

    /// What is off the axis is drawn at its end, what is no number at its start.
    fn clamp(&self, value: f64) -> f64 {
        if value.is_finite() { value.clamp(self.from, self.to) } else { self.from }
    }
}

/// A chart of lines; `names` are written under the x axis in place of its numbers.
pub(super) fn line_chart(
    label: &str,
    (x, y): (&Axis, &Axis),
    names: &[(f64, String)],
    lines: &[Line],
    with_diagonal: bool,
) -> Result<String> {
    let svg =
        drawn((WIDTH, 380 + legend_height(lines)), |root| draw_lines(root, root, (x, y), names, lines, with_diagonal))?;
    Ok(inlined(&svg, label))
}

/// Horizontal bars with intervals, the first on top. The axis ends at 1, or at the longest bar if `zoomed`.
pub(super) fn bar_chart(label: &str, title: &'static str, bars: &[Bar], zoomed: bool) -> Result<String> {
    let longest =
        bars.iter().map(|bar| bar.ends.map_or(bar.value, |(_, high)| high.max(bar.value))).fold(0.02, f64::max);
    let to = if zoomed { (longest * 1.15).min(1.0) } else { 1.0 };
    let x = Axis::new(title, 0.0, to, Unit::Percent);
    let n = bars.len().max(1);
    let row: u32 = if bars.len() > 15 { 20 } else { 30 };
    let svg = drawn((WIDTH, 64 + row * n as u32), |root| {
        let mut chart = ChartBuilder::on(root)
            .margin_left(196)
            .margin_right(64)
            .margin_top(8)
            .x_label_area_size(48)
            .build_cartesian_2d(x.from..x.to, 0.0..n as f64)?;
        let x_text = |value: &f64| x.text(*value);
        chart
            .configure_mesh()
            .disable_y_mesh()
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .x_label_style(text_style(13, HPos::Center, VPos::Top))
            .axis_desc_style(text_style(14, HPos::Center, VPos::Top))
            .x_labels(6)
            .x_label_formatter(&x_text)
            .x_desc(x.title)
            .draw()?;
        for (i, bar) in bars.iter().enumerate() {
            let middle = (n - i) as f64 - 0.5;
            let at = |value: f64| chart.backend_coord(&(x.clamp(value), middle));
            let (zero, end) = (at(0.0), at(bar.value));
            let half = row as i32 / 4;
            let corners = [(zero.0, zero.1 - half), (end.0, end.1 + half)];
            root.draw(&Rectangle::new(corners, COLOURS[0].mix(0.45).filled()))?;
            if let Some((low, high)) = bar.ends {
                let (low, high) = (at(low), at(high));
                whisker(root, low, high, (0, half.min(5)))?;
                root.draw(&Circle::new(end, 3, INK.filled()))?;
            }
            root.draw_text(&short(&bar.name, 28), &text_style(13, HPos::Right, VPos::Center), (186, end.1))?;
            let value = percent(bar.value);
            root.draw_text(&value, &text_style(13, HPos::Right, VPos::Center), (WIDTH as i32 - 4, end.1))?;
        }
        Ok(())
    })?;
    Ok(inlined(&svg, label))
}

/// Loss and accuracy over the epochs: a picture of its own for a run's folder (`curves.svg`).
///
/// # Errors
/// When a chart cannot be drawn.
pub(crate) fn training_plots(epochs: &[EpochPoint]) -> Result<String> {
    learning_curves(epochs, true)
}

/// [`training_plots`] within the page, which has its own background.
pub(super) fn inline_training_plots(epochs: &[EpochPoint], label: &str) -> Result<String> {
    Ok(inlined(&learning_curves(epochs, false)?, label))
}

fn learning_curves(epochs: &[EpochPoint], with_background: bool) -> Result<String> {
    let line = |name: &str, value: &dyn Fn(&EpochPoint) -> Option<f64>| {
        let points = epochs.iter().filter_map(|epoch| {
            let y = value(epoch).filter(|y| y.is_finite())?;
            Some(Point { radius: 2, ..Point::new(epoch.epoch as f64, y) })
        });
        Line { name: name.to_owned(), points: points.collect() }
    };
    let losses = [line("training", &|e| Some(e.train_loss)), line("validation", &|e| e.validation_loss)];
    let accuracies = [line("training", &|e| Some(e.train_accuracy)), line("validation", &|e| e.validation_accuracy)];
    let first = epochs.first().map_or(0.0, |epoch| epoch.epoch as f64);
    let last = epochs.last().map_or(1.0, |epoch| epoch.epoch as f64);
    let highest = losses.iter().flat_map(|line| &line.points).map(|point| point.y).fold(0.0, f64::max);
    let x = Axis::new("epoch", first, last, Unit::Whole);
    let loss = Axis::new("loss", 0.0, highest * 1.05, Unit::Number);
    let accuracy = Axis::new("right", 0.0, 1.0, Unit::Percent);
    drawn((WIDTH, 600), |root| {
        if with_background {
            root.fill(&WHITE)?;
        }
        let halves = root.split_evenly((2, 1));
        draw_lines(root, &halves[0], (&x, &loss), &[], &losses, false)?;
        draw_lines(root, &halves[1], (&x, &accuracy), &[], &accuracies, false)
    })
}

/// Axes, legend and lines in `area`, which is a part of `root`.
fn draw_lines(
    root: &Area<'_>,
    area: &Area<'_>,
    (x, y): (&Axis, &Axis),
    names: &[(f64, String)],
    lines: &[Line],
    with_diagonal: bool,
) -> Result<()> {
    let mut chart = ChartBuilder::on(area)
        .margin_top(8 + legend_height(lines))
        .margin_right(24)
        .margin_left(8)
        .margin_bottom(4)
        .x_label_area_size(48)
        .y_label_area_size(68)
        .build_cartesian_2d(x.from..x.to, y.from..y.to)?;
    let x_text = |value: &f64| if names.is_empty() { x.text(*value) } else { String::new() };
    let y_text = |value: &f64| y.text(*value);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .x_label_style(text_style(13, HPos::Center, VPos::Top))
        .y_label_style(text_style(13, HPos::Right, VPos::Center))
        .axis_desc_style(text_style(14, HPos::Center, VPos::Top))
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&x_text)
        .y_label_formatter(&y_text)
        .x_desc(x.title)
        .y_desc(y.title)
        .draw()?;
    let pixel = |x_value: f64, y_value: f64| chart.backend_coord(&(x.clamp(x_value), y.clamp(y_value)));
    for (at, name) in names {
        let (at_x, at_y) = pixel(*at, y.from);
        root.draw_text(&short(name, 12), &text_style(13, HPos::Center, VPos::Top), (at_x, at_y + 10))?;
    }
    if with_diagonal {
        let ends = vec![pixel(x.from, y.from), pixel(x.to, y.to)];
        root.draw(&PathElement::new(ends, INK.stroke_width(1)))?;
    }
    let (left, top) = area.get_base_pixel();
    for (i, line) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path: Vec<(i32, i32)> = line.points.iter().map(|point| pixel(point.x, point.y)).collect();
        root.draw(&PathElement::new(path, colour.stroke_width(2)))?;
        for point in line.points.iter().filter(|point| point.radius > 0) {
            if let Some((low, high)) = point.ends {
                whisker(root, pixel(point.x, low), pixel(point.x, high), (4, 0))?;
            }
            marker(root, i, pixel(point.x, point.y), point.radius as i32, colour)?;
        }
        let row = top + 4 + LEGEND_ROW as i32 * (i as i32 / 2) + LEGEND_ROW as i32 / 2;
        let column = left + 80 + 280 * (i as i32 % 2);
        root.draw(&PathElement::new(vec![(column - 12, row), (column + 12, row)], colour.stroke_width(2)))?;
        marker(root, i, (column, row), 4, colour)?;
        root.draw_text(&short(&line.name, 30), &text_style(13, HPos::Left, VPos::Center), (column + 20, row))?;
    }
    Ok(())
}

/// The i-th line's marker: what tells it from the others in black and white.
fn marker(root: &Area<'_>, i: usize, (x, y): (i32, i32), radius: i32, colour: RGBColor) -> Result<()> {
    match i % 4 {
        0 => root.draw(&Circle::new((x, y), radius, colour.filled()))?,
        1 => root.draw(&TriangleMarker::new((x, y), radius + 1, colour.filled()))?,
        2 => root.draw(&Rectangle::new([(x - radius, y - radius), (x + radius, y + radius)], colour.filled()))?,
        _ => root.draw(&Cross::new((x, y), radius, colour.stroke_width(2)))?,
    }
    Ok(())
}

/// An interval's line and the short strokes at its ends.
fn whisker(root: &Area<'_>, low: (i32, i32), high: (i32, i32), (cap_x, cap_y): (i32, i32)) -> Result<()> {
    root.draw(&PathElement::new(vec![low, high], INK.stroke_width(1)))?;
    for (x, y) in [low, high] {
        root.draw(&PathElement::new(vec![(x - cap_x, y - cap_y), (x + cap_x, y + cap_y)], INK.stroke_width(1)))?;
    }
    Ok(())
}

fn legend_height(lines: &[Line]) -> u32 {
    LEGEND_ROW * (lines.len() as u32).div_ceil(2)
}

fn text_style(size: i32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    TextStyle::from(("sans-serif", size).into_font()).color(&INK).pos(Pos::new(horizontal, vertical))
}

fn drawn(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&root)?;
        root.present()?;
    }
    Ok(svg)
}

/// The picture as a part of the page: named for screen readers, as wide as its column.
fn inlined(svg: &str, label: &str) -> String {
    let (head, rest) = svg.split_once('>').expect("plotters writes the svg element first");
    let view_box = head.split("viewBox=\"").nth(1).and_then(|tail| tail.split('"').next()).unwrap_or_default();
    format!("<svg class=\"plot\" viewBox=\"{view_box}\" role=\"img\" aria-label=\"{}\">{rest}", escaped(label))
}

/// A share in words.
pub(super) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", share * 100.0) } else { "–".to_owned() }
}

/// A stranger's text as a label: one line, not long.
pub(super) fn short(text: &str, at_most: usize) -> String {
    let clean = |c: char| if c.is_control() { '?' } else { c };
    if text.chars().count() <= at_most {
        return text.chars().map(clean).collect();
    }
    text.chars().take(at_most.saturating_sub(1)).map(clean).chain(['…']).collect()
}

/// A text within an element or an attribute.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn epoch(epoch: usize, loss: f64) -> EpochPoint {
        EpochPoint { epoch, train_loss: loss, train_accuracy: 0.5, validation_loss: None, validation_accuracy: None }
    }

    #[test]
    fn learning_curves_are_a_whole_picture() {
        let svg = training_plots(&[epoch(1, 3.0), epoch(2, 2.0)]).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
        assert!(svg.contains("xmlns=") && svg.contains("training") && svg.contains("epoch"));
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn no_epochs_one_epoch_and_no_numbers_are_drawn_without_panic() {
        for epochs in [vec![], vec![epoch(1, 0.0)], vec![epoch(1, f64::NAN), epoch(2, f64::INFINITY)]] {
            assert!(!training_plots(&epochs).unwrap().contains("NaN"));
        }
    }

    #[test]
    fn bars_stay_within_their_axis_and_names_are_escaped() {
        let bars = [
            Bar { name: "<b>\"x\"".into(), value: 7.0, ends: Some((f64::NAN, f64::INFINITY)) },
            Bar { name: "a".repeat(90), value: -1.0, ends: None },
        ];
        for zoomed in [false, true] {
            let svg = bar_chart("x\"><script>", "share", &bars, zoomed).unwrap();
            assert!(svg.contains("&lt;b&gt;") && !svg.contains("<b>") && !svg.contains("<script"));
            assert!(svg.contains(&format!("{}…", "a".repeat(27))) && !svg.contains(&"a".repeat(28)));
            assert!(!svg.contains("width=\"-"));
        }
        assert!(bar_chart("", "share", &[], true).unwrap().contains("</svg>"));
    }
}
