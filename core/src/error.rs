//! Everything that can go wrong in this crate, as one enum with fields and a stable code each.
//!
//! The message is a sentence a person can act on; it never holds a path outside what the caller
//! named, a token or a stack trace. A front end maps [`Error::code`] to its own vocabulary once
//! (the server: to an HTTP status).

/// A stranger's text, fit to be printed: no control characters, and not long.
pub(crate) fn printable(text: &str) -> String {
    first_of(text, 100)
}

/// A sentence about a stranger's file. A parser's may quote the file, however long, as it stands there: so whatever is
/// said of a file goes through here.
fn sentence(text: &str) -> String {
    first_of(text, 600)
}

fn first_of(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Names of a list that are shown: more than any Whisper has.
const MAX_SHOWN_NAMES: usize = 2000;

/// Names of tensors, some of which are a file's.
fn names(all: &[String]) -> String {
    let shown: Vec<String> = all.iter().take(MAX_SHOWN_NAMES).map(|name| sentence(name)).collect();
    format!("{shown:?}{}", more(all.len(), shown.len()))
}

/// What is said of a list that was cut short.
fn more(n: usize, n_shown: usize) -> String {
    if n > n_shown { format!("; and {} more", n - n_shown) } else { String::new() }
}

/// The result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Match on the variant, or on [`Error::code`] where a string has to travel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No bytes, or no samples after decoding.
    #[error("the audio is empty: it holds no samples")]
    EmptyAudio,
    /// The container or the codec is none of those that are read.
    #[error("this is not audio of a known format ({}); send WAV, FLAC, MP3, Ogg, WebM or M4A", sentence(reason))]
    UnsupportedAudio {
        /// What the reader saw.
        reason: String,
    },
    /// A known format, but its content contradicts itself or ends before the first sample.
    #[error("the audio file is damaged: {}", sentence(reason))]
    MalformedAudio {
        /// What the decoder said.
        reason: String,
    },
    /// More audio than the caller allows; found while decoding, not after.
    #[error("the audio is longer than the limit of {limit_s} s")]
    AudioTooLong {
        /// The limit in seconds.
        limit_s: f64,
    },
    /// Samples that are not numbers.
    #[error("the audio holds {count} samples that are not finite numbers")]
    InvalidSamples {
        /// How many.
        count: usize,
    },
    /// A parameter out of its range.
    #[error("{name} is out of range: {allowed}")]
    InvalidParameter {
        /// The parameter's public name.
        name: &'static str,
        /// What would have been allowed.
        allowed: String,
    },
    /// A language that neither the model nor the decode table knows.
    #[error(
        "the language '{language}' is not known to this model; leave it out, or send one of its codes such as 'tw', 'en' or 'sw'"
    )]
    UnsupportedLanguage {
        /// As it was asked for, cut to a printable length.
        language: String,
    },
    /// No such model folder or file.
    #[error("the model is not complete: {what} was not found")]
    ModelNotFound {
        /// What was looked for.
        what: String,
    },
    /// A `config.json`, `tokenizer.json` or label file that cannot be used.
    #[error("{file} cannot be used: {}", sentence(reason))]
    InvalidConfig {
        /// The file's name.
        file: String,
        /// Why.
        reason: String,
    },
    /// A manifest of recordings with lines that cannot be used. Names them all, the first ones in full.
    #[error("{file} has {n_problems} problem{}: {}{}", if *n_problems == 1 { "" } else { "s" }, problems.join("; "), more(*n_problems, problems.len()))]
    BadManifest {
        /// The file's name.
        file: String,
        /// `line 12: clips/a.wav: no such file`, the first of them.
        problems: Vec<String>,
        /// How many there are.
        n_problems: usize,
    },
    /// A model of a kind that is not read here.
    #[error("this model cannot be used ({architecture}): {reason}")]
    UnsupportedModel {
        /// As its `config.json` names it.
        architecture: String,
        /// What it is, and what would do.
        reason: String,
    },
    /// A file of a model folder that is a link to somewhere else.
    #[error("{file} is a link out of the model folder and was not followed; put the file itself there")]
    UnsafePath {
        /// The file's name.
        file: String,
    },
    /// A weight file that is cut short, oversized or contradicts itself.
    #[error("the weight file {file} is damaged: {}", sentence(reason))]
    DamagedWeights {
        /// The file's name.
        file: String,
        /// Where and what.
        reason: String,
    },
    /// A PyTorch file whose pickle names a function or class that weights do not need. Nothing of it was run.
    #[error(
        "the weight file {file} asks to run '{global}', which no weights need; nothing of it was run. Get the model as safetensors"
    )]
    UnsafePickle {
        /// The file's name.
        file: String,
        /// What it named, printable and cut short.
        global: String,
    },
    /// A PyTorch file that says it holds more than the model can have; found before that much memory is set aside.
    #[error("the weight file {file} is too large: {}", sentence(reason))]
    WeightsTooLarge {
        /// The file's name.
        file: String,
        /// What there is too much of.
        reason: String,
    },
    /// The tensors in the files are not those of the architecture. Lists every one at once.
    #[error("the weights do not fit the architecture: {} missing {}, {} unused {}, {} of the wrong shape {}", missing.len(), names(missing), unused.len(), names(unused), misshapen.len(), names(misshapen))]
    WeightMismatch {
        /// Names that the architecture needs and the files lack.
        missing: Vec<String>,
        /// Names that the files hold and nobody reads.
        unused: Vec<String>,
        /// `name: expected [..], got [..]`.
        misshapen: Vec<String>,
    },
    /// A tensor of the wrong shape met at run time.
    #[error("{tensor} has the shape {got:?}, expected {expected:?}")]
    ShapeMismatch {
        /// The tensor's name.
        tensor: &'static str,
        /// What the caller needs; 0 stands for any length.
        expected: Vec<usize>,
        /// What came.
        got: Vec<usize>,
    },
    /// The model answered with numbers that are not finite: a broken device or broken weights.
    #[error("the model's {stage} produced values that are not finite numbers")]
    NotFinite {
        /// Where it was noticed.
        stage: &'static str,
    },
    /// The hub said no, or could not be reached.
    #[error("{repo}: {reason}")]
    Hub {
        /// A stable sub-code: `hub_unauthorized`, `hub_forbidden`, `hub_not_found`, `hub_busy`,
        /// `hub_unreachable`, `hub_failed`.
        code: &'static str,
        /// The repository asked for.
        repo: String,
        /// What to do about it.
        reason: String,
    },
    /// A web bundle of a version that this program does not know.
    #[error("the web bundle is of version {version}, this program reads up to {supported}; use a newer okyeame")]
    UnsupportedBundle {
        /// The bundle's.
        version: u32,
        /// The newest that is known.
        supported: u32,
    },
    /// What was downloaded is not what its source says it is.
    #[error("{file} does not match its checksum (expected {expected}, got {got}); it was deleted, try again")]
    ChecksumMismatch {
        /// The file's name.
        file: String,
        /// Hex digest that the source states.
        expected: String,
        /// Hex digest of what came.
        got: String,
    },
    /// The file system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The model does not fit.
    #[error(
        "the model needs about {needed_mb} MB of memory to load and {available_mb} MB are free; close other programs, or take a smaller model"
    )]
    OutOfMemory {
        /// At the highest point of loading.
        needed_mb: u64,
        /// That may still be taken.
        available_mb: u64,
    },
    /// A device that was asked for is not there.
    #[error("the device '{device}' cannot be used: {reason}")]
    DeviceUnavailable {
        /// Its name on the command line.
        device: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// The device could not read a tensor back.
    #[error("the device failed in {stage}")]
    Device {
        /// Where.
        stage: &'static str,
    },
}

impl Error {
    /// A stable snake_case name for this error, part of the public contract.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::EmptyAudio => "empty_audio",
            Self::UnsupportedAudio { .. } => "unsupported_audio",
            Self::MalformedAudio { .. } => "malformed_audio",
            Self::AudioTooLong { .. } => "audio_too_long",
            Self::InvalidSamples { .. } => "invalid_samples",
            Self::InvalidParameter { .. } => "invalid_parameter",
            Self::UnsupportedLanguage { .. } => "unsupported_language",
            Self::ModelNotFound { .. } => "model_not_found",
            Self::InvalidConfig { .. } => "invalid_config",
            Self::BadManifest { .. } => "bad_manifest",
            Self::UnsupportedModel { .. } => "unsupported_model",
            Self::UnsafePath { .. } => "unsafe_path",
            Self::DamagedWeights { .. } => "damaged_weights",
            Self::UnsafePickle { .. } => "unsafe_pickle",
            Self::WeightsTooLarge { .. } => "weights_too_large",
            Self::WeightMismatch { .. } => "weight_mismatch",
            Self::ShapeMismatch { .. } => "shape_mismatch",
            Self::NotFinite { .. } => "not_finite",
            Self::Hub { code, .. } => code,
            Self::UnsupportedBundle { .. } => "unsupported_bundle",
            Self::ChecksumMismatch { .. } => "checksum_mismatch",
            Self::Io { .. } => "io",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::DeviceUnavailable { .. } => "device_unavailable",
            Self::Device { .. } => "device_failed",
        }
    }
}
