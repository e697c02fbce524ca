//! The confusion matrix as a picture: one small square for each pair that occurred.
//!
//! Written by hand as SVG, since each square carries a `<title>` that says what it is when pointed at, and `plotters`
//! writes none. Only labels that were taken for another one are named along the edges; the squares name the rest.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use okyeame_core::training::evaluation::ConfusionTable;

use super::plots::{escaped, short};

const CELL: usize = 15;
const LEFT: usize = 170;
const TOP: usize = 150;

/// The picture, or `None` where nothing was counted.
pub(super) fn confusion_map(table: &ConfusionTable) -> Option<String> {
    let n = table.labels.len();
    let mut cells = Vec::new();
    for (row, counts) in table.rows.iter().take(n + 1).enumerate() {
        let total: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        for (column, count) in counts.iter().take(n + 1).enumerate().filter(|(_, count)| **count > 0) {
            cells.push((row, column, *count, total));
        }
    }
    if cells.is_empty() {
        return None;
    }
    let confused = |(row, column, ..): &&(usize, usize, u32, u64)| row != column && *column != n;
    let mut rows: BTreeSet<usize> = cells.iter().filter(confused).map(|cell| cell.0).collect();
    let mut columns: BTreeSet<usize> = cells.iter().filter(confused).map(|cell| cell.1).collect();
    rows.insert(n);
    columns.insert(n);

    let side = CELL * (n + 1);
    let (width, height) = (LEFT + side + 10, TOP + side + 10);
    let mut svg = format!(
        "<svg class=\"map\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"Confusion matrix of {n} intents; the most frequent confusions are in the table below\">\n\
         <rect class=\"frame\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{side}\" height=\"{side}\"/>\n\
         <path class=\"grid\" d=\"M{LEFT} {y}h{side}M{x} {TOP}v{side}\"/>\n",
        x = LEFT + CELL * n,
        y = TOP + CELL * n,
    );
    for row in rows {
        let name = escaped(&short(name(table, row, "no command"), 22));
        let y = TOP + CELL * row + CELL * 3 / 4;
        put(&mut svg, format_args!("<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{name}</text>\n", LEFT - 6));
    }
    for column in columns {
        let name = escaped(&short(name(table, column, "rejected"), 20));
        let (x, y) = (LEFT + CELL * column + CELL * 3 / 4, TOP - 6);
        put(&mut svg, format_args!("<text transform=\"translate({x} {y}) rotate(-90)\">{name}</text>\n"));
    }
    for (row, column, count, total) in cells {
        let (x, y) = (LEFT + CELL * column, TOP + CELL * row);
        let (class, what) = match (row, column) {
            (row, column) if row == n && column == n => ("right", "rejected, rightly".to_owned()),
            (_, column) if column == n => ("rejected", "rejected".to_owned()),
            (row, column) if row == column => ("right", "accepted as such".to_owned()),
            _ => ("wrong", format!("accepted as {}", name(table, column, "rejected"))),
        };
        let strength = 0.2 + 0.8 * f64::from(count) / total as f64;
        let title = escaped(&format!("{}: {what}, {count} of {total}", name(table, row, "no command")));
        put(
            &mut svg,
            format_args!(
                "<g class=\"{class}\"><title>{title}</title><rect x=\"{x}\" y=\"{y}\" width=\"{CELL}\" \
                 height=\"{CELL}\" fill-opacity=\"{strength:.2}\"/>"
            ),
        );
        // a mistake is told from what is right by its number as well as by its colour
        if class == "wrong" {
            let (x, y) = (x + CELL / 2, y + CELL * 3 / 4);
            put(&mut svg, format_args!("<text class=\"count\" x=\"{x}\" y=\"{y}\">{}</text>", count.min(999)));
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>");
    Some(svg)
}

fn put(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("a string takes everything");
}

fn name<'a>(table: &'a ConfusionTable, index: usize, beyond: &'a str) -> &'a str {
    table.labels.get(index).map_or(beyond, String::as_str)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn squares_say_what_they_are_and_only_confused_labels_are_named() {
        let labels = vec!["add".to_owned(), "<i>".to_owned(), "quiet".to_owned()];
        let rows = vec![vec![3, 1, 0, 0], vec![0, 2, 0, 2], vec![0, 0, 5, 0], vec![0, 0, 0, 7]];
        let svg = confusion_map(&ConfusionTable { labels, rows }).unwrap();
        assert!(svg.contains("<title>add: accepted as &lt;i&gt;, 1 of 4</title>"));
        assert!(svg.contains("<title>no command: rejected, rightly, 7 of 7</title>"));
        assert!(svg.contains("text-anchor=\"end\">add</text>") && !svg.contains(">quiet</text>"));
        assert!(!svg.contains("<i>") && !svg.contains("http"));
        assert_eq!(svg.matches("<rect x=").count(), 6);
    }

    #[test]
    fn a_table_of_another_shape_is_no_reason_to_panic() {
        assert_eq!(confusion_map(&ConfusionTable::default()), None);
        let odd = ConfusionTable { labels: vec!["a".into()], rows: vec![vec![1; 9], vec![], vec![u32::MAX; 3]] };
        assert_eq!(confusion_map(&odd).unwrap().matches("<title>").count(), 2);
    }
}
