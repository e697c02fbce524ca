//! The table of a manifest: bytes in, rows of text out.
//!
//! CSV after RFC 4180 by the crate `csv`, TSV, or JSON Lines. A row that cannot be read is a row with a sentence in its
//! place: the others are still looked at. Line numbers are counted here and not taken from `csv`, which names the line
//! before, or an empty one, where lines end in CR LF or are blank.
//!
//! Knows nothing of audio or intents.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::printable;

/// Every field that is read.
const COLUMNS: [&str; 9] = ["path", "text", "intent", "slots", "speaker", "wording", "kind", "language", "split"];
/// Those that a table cannot do without.
const REQUIRED: [&str; 2] = ["path", "intent"];
/// A command and its slots are far shorter; a longer field is something else that got into the table.
const MAX_FIELD_BYTES: usize = 64 << 10;
/// Columns that a message names.
const MAX_NAMED: usize = 20;

/// The value, or the end of a sentence that begins with the line or the file.
pub(super) type Read<T> = std::result::Result<T, String>;

/// A manifest as it stands in its file.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    pub(super) notes: Vec<String>,
}

/// One row, or what is wrong with it.
#[derive(Debug)]
pub(super) struct Row {
    /// From 1, of the file.
    pub(super) line: usize,
    pub(super) fields: Read<Fields>,
}

/// The fields of a row, trimmed; empty where the table has none.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) path: String,
    pub(super) text: String,
    pub(super) intent: String,
    /// As JSON has it; from a CSV, the cell's text.
    pub(super) slots: Value,
    pub(super) speaker: String,
    pub(super) wording: String,
    pub(super) kind: String,
    pub(super) language: String,
    pub(super) split: String,
}

impl Fields {
    /// Takes each text field from `text_of`.
    fn new(slots: Value, mut text_of: impl FnMut(&'static str) -> Read<String>) -> Read<Self> {
        let fields = Self {
            path: text_of("path")?,
            text: text_of("text")?,
            intent: text_of("intent")?,
            slots,
            speaker: text_of("speaker")?,
            wording: text_of("wording")?,
            kind: text_of("kind")?,
            language: text_of("language")?,
            split: text_of("split")?,
        };
        if fields.path.is_empty() { Err("the path is empty".to_owned()) } else { Ok(fields) }
    }
}

/// Reads a table, by the name's extension or, if that says nothing, by its first byte.
///
/// # Errors
/// What makes the whole file useless.
pub(super) fn read_table(path: &Path, bytes: &[u8]) -> Read<Table> {
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err("it is UTF-16; save it as UTF-8".to_owned());
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let first = bytes.trim_ascii_start().first();
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    let table = match (extension.as_deref(), first) {
        (_, None) => return Err("it is empty".to_owned()),
        (Some("csv"), _) => delimited(b',', bytes)?,
        (Some("tsv"), _) => delimited(b'\t', bytes)?,
        (Some("jsonl" | "json"), _) | (_, Some(b'{')) => json_lines(bytes)?,
        _ => delimited(b',', bytes)?,
    };
    if table.rows.is_empty() { Err("it has no rows".to_owned()) } else { Ok(table) }
}

fn delimited(delimiter: u8, bytes: &[u8]) -> Read<Table> {
    let broken = |e: csv::Error| format!("it cannot be read as a table: {e}");
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(bytes);
    let mut record = csv::ByteRecord::new();
    if !reader.read_byte_record(&mut record).map_err(broken)? {
        return Err("it is empty".to_owned());
    }
    let header: Vec<String> = record.iter().map(|name| String::from_utf8_lossy(name).trim().to_lowercase()).collect();
    check_header(&header, delimiter)?;
    let unused: BTreeSet<String> =
        header.iter().filter(|name| !name.is_empty() && !COLUMNS.contains(&name.as_str())).cloned().collect();

    let mut lines = Lines { bytes, at: 0, line: 1 };
    let mut rows = Vec::new();
    while reader.read_byte_record(&mut record).map_err(broken)? {
        // Spreadsheets leave rows of nothing but commas behind.
        if record.iter().all(|field| field.trim_ascii().is_empty()) {
            continue;
        }
        let start = record.position().map_or(0, |p| usize::try_from(p.byte()).unwrap_or(usize::MAX));
        rows.push(Row { line: lines.line_of(start), fields: fields_of_record(&record, &header) });
    }
    Ok(Table { rows, notes: unused_note(&unused) })
}

fn check_header(header: &[String], delimiter: u8) -> Read<()> {
    for name in COLUMNS {
        if header.iter().filter(|column| *column == name).count() > 1 {
            return Err(format!("it has the column '{name}' twice"));
        }
    }
    let missing: Vec<&str> = REQUIRED.into_iter().filter(|name| !header.iter().any(|column| column == name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by = if delimiter == b'\t' { "tabs" } else { "commas" };
    let found: Vec<String> = header.iter().take(MAX_NAMED).map(|name| printable(name)).collect();
    Err(format!(
        "its first line lacks the column {}: it has {}, and columns are parted by {by}",
        missing.join(" and "),
        found.join(", ")
    ))
}

fn fields_of_record(record: &csv::ByteRecord, header: &[String]) -> Read<Fields> {
    for field in record {
        check_field(field)?;
        // Else a quote that is never closed would swallow every row behind it, unseen.
        if field.iter().any(|b| matches!(b, b'\n' | b'\r')) {
            return Err("a field holds a line break: is a quote not closed?".to_owned());
        }
    }
    if record.len() != header.len() {
        return Err(format!("the row has {} fields, the first line has {}", record.len(), header.len()));
    }
    let text_of = |name: &'static str| {
        let field = header.iter().position(|column| column == name).and_then(|at| record.get(at)).unwrap_or_default();
        std::str::from_utf8(field).map(|text| text.trim().to_owned()).map_err(|_| not_utf8())
    };
    Fields::new(Value::String(text_of("slots")?), text_of)
}

fn json_lines(bytes: &[u8]) -> Read<Table> {
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err("it is one JSON list; write one object on each line (JSON Lines)".to_owned());
    }
    let mut rows = Vec::new();
    let mut unused = BTreeSet::new();
    let mut n_objects = 0;
    let mut has = [false; REQUIRED.len()];
    for (at, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let fields = object_of(line).and_then(|object| {
            n_objects += 1;
            for (has, name) in has.iter_mut().zip(REQUIRED) {
                *has |= object.contains_key(name);
            }
            for name in object.keys().filter(|name| !COLUMNS.contains(&name.as_str())) {
                // Enough to name; a hostile file may have a new one on each line.
                if unused.len() <= MAX_NAMED && !unused.contains(name) {
                    unused.insert(name.clone());
                }
            }
            fields_of_object(object)
        });
        rows.push(Row { line: at + 1, fields });
    }
    if let Some((_, name)) = has.iter().zip(REQUIRED).find(|(has, _)| n_objects > 0 && !**has) {
        return Err(format!("none of its lines has the field '{name}'"));
    }
    Ok(Table { rows, notes: unused_note(&unused) })
}

fn object_of(line: &[u8]) -> Read<Map<String, Value>> {
    if line.len() > COLUMNS.len() * MAX_FIELD_BYTES {
        return Err(format!(
            "the line is {} bytes long, at most {} are read",
            line.len(),
            COLUMNS.len() * MAX_FIELD_BYTES
        ));
    }
    let text = std::str::from_utf8(line).map_err(|_| not_utf8())?;
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the line is no JSON object".to_owned()),
        Err(e) => Err(format!("the line is not valid JSON (column {})", e.column())),
    }
}

fn fields_of_object(mut object: Map<String, Value>) -> Read<Fields> {
    if let Some(name) = REQUIRED.into_iter().find(|name| !object.contains_key(*name)) {
        return Err(format!("the field '{name}' is missing"));
    }
    let slots = object.remove("slots").unwrap_or_default();
    Fields::new(slots, |name| match object.remove(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => check_field(text.as_bytes()).map(|()| text.trim().to_owned()),
        // Numbered speakers and wordings.
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err(format!("the field '{name}' is not text")),
    })
}

fn check_field(field: &[u8]) -> Read<()> {
    if field.len() > MAX_FIELD_BYTES {
        return Err(format!("a field is {} bytes long, at most {MAX_FIELD_BYTES} are read", field.len()));
    }
    if field.contains(&0) {
        return Err("a field holds a NUL character".to_owned());
    }
    std::str::from_utf8(field).map(|_| ()).map_err(|_| not_utf8())
}

fn not_utf8() -> String {
    "the line is not UTF-8; save the table as UTF-8".to_owned()
}

fn unused_note(unused: &BTreeSet<String>) -> Vec<String> {
    let names: Vec<String> = unused.iter().take(MAX_NAMED).map(|name| printable(name)).collect();
    let more = if unused.len() > MAX_NAMED { " and more" } else { "" };
    if names.is_empty() { Vec::new() } else { vec![format!("columns that are not read: {}{more}", names.join(", "))] }
}

/// Counts lines up to offsets that only grow.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of the row that `csv` begins at `start`: it may count line ends before the row as part of it.
    fn line_of(&mut self, start: usize) -> usize {
        let rest = self.bytes.get(start..).unwrap_or_default();
        let start = self.bytes.len() - rest.len() + rest.iter().take_while(|b| matches!(b, b'\n' | b'\r')).count();
        let passed = self.bytes.get(self.at..start).unwrap_or_default();
        // LF, CR LF, and CR alone; `start` is never between CR and LF
        let ends = |(at, b): (usize, &u8)| match b {
            b'\n' => true,
            b'\r' => passed.get(at + 1) != Some(&b'\n'),
            _ => false,
        };
        self.line += passed.iter().enumerate().filter(|(at, b)| ends((*at, *b))).count();
        self.at = self.at.max(start);
        self.line
    }
}
