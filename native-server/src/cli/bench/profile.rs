//! `okyeame bench --profile WORK:LANGUAGE:PATH`: where the time of a clip goes, by stage and by kernel, each beside the fastest
//! matrix product that this machine did a moment before with the same threads. Of several runs the one of median time is shown.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};
use okyeame_core::kernels::peak::{self, Peak};
use okyeame_core::kernels::profile::{self, OpTime, Profile};
use okyeame_core::{Error as CoreError, Recognizer};
use serde::Serialize;

use super::{Args, Timed, measure};
use crate::cli::{CliError, limit_threads};
use crate::config::available_threads;

/// Runs that are not kept: memory is taken, caches are filled.
const WARM_UPS: usize = 2;

/// A clip and what is done with it.
#[derive(Debug, Clone)]
pub(super) struct Request {
    work: String,
    language: String,
    path: PathBuf,
}

/// Reads `WORK:LANGUAGE:PATH`.
pub(super) fn request(text: &str) -> Result<Request, String> {
    let parts: Vec<&str> = text.splitn(3, ':').collect();
    match parts[..] {
        [work @ ("command" | "transcribe"), language, path] if !language.is_empty() && !path.is_empty() => {
            Ok(Request { work: work.to_owned(), language: language.to_owned(), path: PathBuf::from(path) })
        }
        _ => Err("it is not command:LANGUAGE:PATH or transcribe:LANGUAGE:PATH".to_owned()),
    }
}

/// All that one call measures.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    dtype: &'static str,
    threads: usize,
    runs: u16,
    peaks: Vec<Peak>,
    clips: Vec<ClipReport>,
}

/// Where one clip's time goes.
#[derive(Debug, Serialize)]
struct ClipReport {
    clip: String,
    work: String,
    total_ms: f64,
    tokens: usize,
    text: String,
    stages: Vec<StageRow>,
    ops: Vec<OpRow>,
    encoder_linear: Option<EncoderLinear>,
}

/// A stage's part of the whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct StageRow {
    stage: &'static str,
    ms: f64,
    /// Of the clip's time, `0..=1`.
    share: f64,
}

/// A kernel's part of the whole, or what a stage does between its kernels.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct OpRow {
    stage: &'static str,
    op: String,
    calls: usize,
    multiply_adds: u64,
    ms: f64,
    /// Of the clip's time, `0..=1`.
    share: f64,
    /// 10⁹ operations a second; a multiply-add is two.
    gops: Option<f64>,
    /// Of the fastest product in the same number type.
    of_peak: Option<f64>,
}

/// The encoder's linear layers together.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct EncoderLinear {
    gops: f64,
    /// Whether `of_peak` is of the peak in 8-bit integers: as soon as one of the layers is.
    int8: bool,
    of_peak: f64,
    /// Those in 8-bit integers alone.
    int8_of_peak: Option<f64>,
    /// Those in f32 alone, of the peak in f32.
    f32_of_peak: Option<f64>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    limit_threads(args.threads)?;
    let threads = args.threads.unwrap_or_else(available_threads);
    let recognizer = args.model.load()?;
    let compute = recognizer.compute();
    if compute.name != "cpu" {
        let allowed = "a profile is of the CPU; on a GPU, kernels only queue their work".to_owned();
        return Err(CoreError::InvalidParameter { name: "device", allowed }.into());
    }
    // Inside the pool, as the model's products are: from outside each would cross over to it and back.
    let peaks = rayon::scope(|_| peak::measure());
    let mut clips = Vec::with_capacity(args.profile.len());
    for request in &args.profile {
        let (timed, profile) = median_run(&recognizer, request, args.runs)?;
        let name = request.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        clips.push(clip_report(name, &request.work, timed, &profile, &peaks));
    }
    let report =
        Report { model: recognizer.info().name.clone(), dtype: compute.dtype, threads, runs: args.runs, peaks, clips };
    io::stdout().lock().write_all(tables(&report).as_bytes()).map_err(CliError::io("writing to stdout"))?;
    if let Some(path) = &args.json {
        let json = serde_json::to_vec_pretty(&report).expect("figures are plain data");
        std::fs::write(path, json).map_err(CliError::io(format!("writing {}", path.display())))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn median_run(recognizer: &Recognizer, request: &Request, n_runs: u16) -> Result<(Timed, Profile), CoreError> {
    let once = || measure(recognizer, &request.work, &request.language, &request.path);
    for _ in 0..WARM_UPS {
        once()?;
    }
    let mut runs = Vec::with_capacity(usize::from(n_runs));
    for _ in 0..n_runs {
        profile::start();
        let timed = once();
        let profile = profile::stop();
        runs.push((timed?, profile));
    }
    runs.sort_by(|(a, _), (b, _)| a.total_ms.total_cmp(&b.total_ms));
    let median = runs.len() / 2;
    Ok(runs.swap_remove(median))
}

fn clip_report(clip: String, work: &str, timed: Timed, profile: &Profile, peaks: &[Peak]) -> ClipReport {
    ClipReport {
        clip,
        work: work.to_owned(),
        stages: stage_rows(&timed, profile),
        ops: op_rows(timed.total_ms, profile, peaks),
        encoder_linear: encoder_linear(profile, peaks),
        total_ms: timed.total_ms,
        tokens: timed.tokens,
        text: timed.text,
    }
}

/// The stages in the order in which a clip passes them; those that took no time are left out.
fn stage_rows(timed: &Timed, profile: &Profile) -> Vec<StageRow> {
    let ms = |stage: &str| profile.stage_ms(stage);
    let mut rows = vec![
        ("audio decode", timed.decode_audio_ms),
        ("speech, log-mel", timed.features_ms),
        (profile::ENCODER, ms(profile::ENCODER)),
        (profile::CROSS_KEYS, ms(profile::CROSS_KEYS)),
        (profile::DECODER, ms(profile::DECODER)),
        (profile::VOCABULARY, ms(profile::VOCABULARY)),
        ("choice of tokens", timed.decoder_ms - ms(profile::DECODER) - ms(profile::VOCABULARY)),
    ];
    rows.retain(|(_, ms)| *ms > 0.0);
    let rest = timed.total_ms - rows.iter().map(|(_, ms)| ms).sum::<f64>();
    rows.push(("rest", rest.max(0.0)));
    rows.into_iter().map(|(stage, ms)| StageRow { stage, ms, share: share(ms, timed.total_ms) }).collect()
}

/// The kernels of each stage, the longest first, and what the stage does between them.
fn op_rows(total_ms: f64, profile: &Profile, peaks: &[Peak]) -> Vec<OpRow> {
    let mut rows = Vec::with_capacity(profile.ops.len() + profile.stages.len());
    for stage in [profile::ENCODER, profile::CROSS_KEYS, profile::DECODER, profile::VOCABULARY, profile::OTHER] {
        let mut ops: Vec<&OpTime> = profile.ops.iter().filter(|op| op.stage == stage).collect();
        ops.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        let in_ops: f64 = ops.iter().map(|op| op.ms).sum();
        for op in ops {
            let gops = (op.multiply_adds > 0).then(|| gops(op.multiply_adds, op.ms));
            rows.push(OpRow {
                stage,
                op: label(op),
                calls: op.calls,
                multiply_adds: op.multiply_adds,
                ms: op.ms,
                share: share(op.ms, total_ms),
                gops,
                of_peak: gops.map(|gops| share(gops, peak_gops(peaks, op.int8))),
            });
        }
        let between = profile.stage_ms(stage) - in_ops;
        if between > 0.0 {
            let calls: usize = profile.stages.iter().filter(|time| time.stage == stage).map(|time| time.calls).sum();
            rows.push(OpRow {
                stage,
                op: "between kernels".to_owned(),
                calls,
                multiply_adds: 0,
                ms: between,
                share: share(between, total_ms),
                gops: None,
                of_peak: None,
            });
        }
    }
    rows
}

/// `None` if the encoder has not run.
fn encoder_linear(profile: &Profile, peaks: &[Peak]) -> Option<EncoderLinear> {
    let layers: Vec<&OpTime> = profile
        .ops
        .iter()
        .filter(|op| op.stage == profile::ENCODER && [profile::LINEAR, profile::MLP].contains(&op.op))
        .collect();
    let gops_of = |int8: Option<bool>| {
        let (mut multiply_adds, mut ms) = (0, 0.0);
        for op in layers.iter().filter(|op| int8.is_none_or(|int8| op.int8 == int8)) {
            multiply_adds += op.multiply_adds;
            ms += op.ms;
        }
        (multiply_adds > 0).then(|| gops(multiply_adds, ms))
    };
    let gops = gops_of(None)?;
    let int8_of_peak = gops_of(Some(true)).map(|gops| share(gops, peak_gops(peaks, true)));
    let f32_of_peak = gops_of(Some(false)).map(|gops| share(gops, peak_gops(peaks, false)));
    let int8 = int8_of_peak.is_some();
    Some(EncoderLinear { gops, int8, of_peak: share(gops, peak_gops(peaks, int8)), int8_of_peak, f32_of_peak })
}

/// `linear int8 512→2048`, `layer norm`.
fn label(op: &OpTime) -> String {
    match op.shape {
        Some([d_input, d_output]) => format!("{} {} {d_input}→{d_output}", op.op, dtype(op.int8)),
        None => op.op.to_owned(),
    }
}

fn dtype(int8: bool) -> &'static str {
    if int8 { "int8" } else { "f32" }
}

fn peak_gops(peaks: &[Peak], int8: bool) -> f64 {
    peaks.iter().filter(|peak| peak.int8 == int8).map(|peak| peak.gops).fold(0.0, f64::max)
}

fn gops(multiply_adds: u64, ms: f64) -> f64 {
    if ms > 0.0 { 2.0 * multiply_adds as f64 / ms / 1e6 } else { 0.0 }
}

/// A part of a whole; 0 of nothing.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The report for a terminal, which is Markdown too.
fn tables(report: &Report) -> String {
    let Report { model, dtype: computes_in, threads, runs, peaks, clips } = report;
    let mut text = format!("## {model}, {computes_in}, {threads} threads, the median of {runs} runs\n\n");
    let rows = peaks.iter().map(|peak| {
        let [m, k, n] = peak.shape;
        vec![format!("{m}×{k}×{n}"), dtype(peak.int8).to_owned(), millis(peak.ms), format!("{:.0}", peak.gops)]
    });
    text += &table(&["GEMM peak", "type", "ms", "GOP/s"], 2, rows);
    for clip in clips {
        let _ = write!(text, "\n### {}: {}, {} ms", clip.work, clip.clip, millis(clip.total_ms));
        text += &if clip.tokens > 0 { format!(", {} tokens\n\n", clip.tokens) } else { "\n\n".to_owned() };
        let stages = clip.stages.iter().map(|row| vec![row.stage.to_owned(), millis(row.ms), percent(row.share, 1)]);
        text += &table(&["stage", "ms", "share"], 1, stages);
        text.push('\n');
        let ops = clip.ops.iter().map(|row| {
            vec![
                row.stage.to_owned(),
                row.op.clone(),
                row.calls.to_string(),
                millis(row.ms),
                percent(row.share, 1),
                row.gops.map_or_else(String::new, |gops| format!("{gops:.0}")),
                row.of_peak.map_or_else(String::new, |share| percent(share, 0)),
            ]
        });
        text += &table(&["stage", "kernel", "calls", "ms", "share", "GOP/s", "of peak"], 2, ops);
        if let Some(linear) = &clip.encoder_linear {
            text.push('\n');
            text += &sentence(linear);
        }
    }
    text
}

/// The figure that the next gap is read from.
fn sentence(linear: &EncoderLinear) -> String {
    let peak = dtype(linear.int8);
    let share = percent(linear.of_peak, 0);
    let mut text = format!("The encoder's linear layers: {share} of the {peak} GEMM peak ({:.0} GOP/s)", linear.gops);
    if let (Some(int8), Some(float)) = (linear.int8_of_peak, linear.f32_of_peak) {
        let (int8, float) = (percent(int8, 0), percent(float, 0));
        let _ = write!(text, "; those in 8-bit integers alone {int8}, those in f32 {float} of the f32 peak");
    }
    text + ".\n"
}

/// A Markdown table, aligned; columns from `numbers_from` on are aligned to the right.
fn table(header: &[&str], numbers_from: usize, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header.to_vec());
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(numbers_from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{table}\n")
}

fn millis(ms: f64) -> String {
    format!("{ms:.2}")
}

fn percent(share: f64, decimals: usize) -> String {
    format!("{:.decimals$} %", 100.0 * share)
}

#[cfg(test)]
mod tests;
