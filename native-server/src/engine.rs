//! What the server needs of a model: the one door between HTTP and the core.
//!
//! The trait exists so that the routes can be tested without weights; [`Recognizer`] is the engine of
//! every real server. It is blocking: the inference worker calls it on threads of its own, two at a time.

use std::fmt;
use std::sync::Arc;

use okyeame_core::audio::Waveform;
use okyeame_core::decoding::{DecodeOptions, OnSegments, SpeechTask, TranscribeOptions, Transcript, go_on};
use okyeame_core::device::DeviceMemory;
use okyeame_core::{IntentInfo, ModelInfo, Recognition, RecognizeOptions, Recognizer, Result};

/// Holds options against what the model can do, without the model: it is called before queueing.
#[derive(Clone)]
pub struct CheckOptions(Arc<Check>);

type Check = dyn Fn(&RecognizeOptions) -> Result<()> + Send + Sync;

impl CheckOptions {
    /// Wraps a check.
    pub fn new(check: impl Fn(&RecognizeOptions) -> Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(check))
    }

    /// Runs it.
    ///
    /// # Errors
    /// What is out of range, in the core's words.
    pub fn check(&self, options: &RecognizeOptions) -> Result<()> {
        (self.0)(options)
    }
}

impl fmt::Debug for CheckOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckOptions")
    }
}

/// Looks at the memory of the device that computes, without the model.
#[derive(Clone)]
pub struct MemoryProbe(Arc<Probe>);

type Probe = dyn Fn() -> Option<DeviceMemory> + Send + Sync;

impl MemoryProbe {
    /// Wraps a look, which may take its time.
    pub fn new(look: impl Fn() -> Option<DeviceMemory> + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    /// Looks; `None` where the device does not tell. Blocks.
    #[must_use]
    pub fn look(&self) -> Option<DeviceMemory> {
        (self.0)()
    }
}

impl fmt::Debug for MemoryProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryProbe")
    }
}

/// What is wanted of a transcript.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AskedWords {
    /// As [`RecognizeOptions::language`]; absent, it is detected.
    pub language: Option<String>,
    /// Into English, instead of writing what is said.
    pub translate: bool,
    /// What came before, or how names are spelt: the words go on in its style.
    pub prompt: Option<String>,
    /// The one temperature; absent or 0, it rises from 0 until the text is likely enough.
    pub temperature: Option<f32>,
    /// Whether segments have their times.
    pub segment_times: bool,
    /// Whether each word has its times.
    pub word_times: bool,
}

/// A loaded model.
pub trait Engine: Send + Sync {
    /// Answers one clip. Fills all but what only the caller knows: `filename`, `request_id`, `run`'s
    /// place and bytes, and the times outside of the model.
    ///
    /// # Errors
    /// What the core says; the engine stays usable.
    fn recognize(&self, waveform: &Waveform, options: &RecognizeOptions) -> Result<Recognition>;

    /// Answers several clips, each as [`Self::recognize`] does, in one pass where the model can: an answer for each, in their
    /// order.
    fn recognize_all(&self, clips: &[(&Waveform, &RecognizeOptions)]) -> Vec<Result<Recognition>> {
        clips.iter().map(|(waveform, options)| self.recognize(waveform, options)).collect()
    }

    /// Answers what somebody wrote, as [`Self::recognize`] what they say.
    ///
    /// # Errors
    /// What the core says.
    fn recognize_text(&self, text: &str, options: &RecognizeOptions) -> Result<Recognition>;

    /// Writes down one recording of any length.
    ///
    /// # Errors
    /// What the core says, also for a model that writes no words.
    fn transcribe(&self, waveform: &Waveform, asked: &AskedWords) -> Result<Transcript>;

    /// As [`Self::transcribe`]; tells the segments of each window once they are certain, and ends where it is told to.
    ///
    /// # Errors
    /// As [`Self::transcribe`].
    fn transcribe_in_pieces(
        &self,
        waveform: &Waveform,
        asked: &AskedWords,
        on_segments: &mut OnSegments<'_>,
    ) -> Result<Transcript> {
        let transcript = self.transcribe(waveform, asked)?;
        // It ends here either way.
        let _ = on_segments(&transcript.segments);
        Ok(transcript)
    }

    /// What the model is.
    fn info(&self) -> &ModelInfo;

    /// The intents that it tells apart, in label order.
    fn intents(&self) -> &[IntentInfo];

    /// The check of options that fits this model.
    fn options_check(&self) -> CheckOptions;

    /// The look at its device's memory; `None` if it computes in the memory of the process.
    fn memory_probe(&self) -> Option<MemoryProbe> {
        None
    }

    /// Names this model's answers in the cache. Two models that may answer differently must differ here: what the model says
    /// of itself is enough for the first of a process, and one that takes its place gets a mark of its own beside it. Where
    /// processes share answers it is not: see `model_content`.
    fn fingerprint(&self) -> String {
        let info = serde_json::to_vec(self.info()).unwrap_or_default();
        blake3::hash(&info).to_hex().to_string()
    }
}

impl Engine for Recognizer {
    fn recognize(&self, waveform: &Waveform, options: &RecognizeOptions) -> Result<Recognition> {
        // By path: `self.recognize(…)` would find this very method.
        block_on_pool(Recognizer::recognize(self, waveform, options))
    }

    fn recognize_all(&self, clips: &[(&Waveform, &RecognizeOptions)]) -> Vec<Result<Recognition>> {
        block_on_pool(Recognizer::recognize_all(self, clips))
    }

    fn recognize_text(&self, text: &str, options: &RecognizeOptions) -> Result<Recognition> {
        Recognizer::recognize_text(self, text, options)
    }

    fn transcribe(&self, waveform: &Waveform, asked: &AskedWords) -> Result<Transcript> {
        Engine::transcribe_in_pieces(self, waveform, asked, &mut go_on)
    }

    fn transcribe_in_pieces(
        &self,
        waveform: &Waveform,
        asked: &AskedWords,
        on_segments: &mut OnSegments<'_>,
    ) -> Result<Transcript> {
        let prompt = asked.prompt.as_deref().map(|text| self.prompt_tokens(text)).transpose()?.unwrap_or_default();
        let defaults = DecodeOptions::default();
        let options = TranscribeOptions {
            decode: DecodeOptions {
                task: if asked.translate { SpeechTask::Translate } else { SpeechTask::Transcribe },
                timestamps: asked.segment_times || asked.word_times,
                temperatures: match asked.temperature {
                    Some(temperature) if temperature > 0.0 => vec![temperature],
                    _ => defaults.temperatures.clone(),
                },
                prompt,
                ..defaults
            },
            word_timestamps: asked.word_times,
            ..TranscribeOptions::default()
        };
        let language = asked.language.as_deref().or(Some("auto"));
        block_on_pool(Recognizer::transcribe_in_pieces(self, waveform, language, &options, on_segments))
    }

    fn info(&self) -> &ModelInfo {
        Recognizer::info(self)
    }

    fn intents(&self) -> &[IntentInfo] {
        Recognizer::intents(self)
    }

    fn options_check(&self) -> CheckOptions {
        let check = Recognizer::options_check(self);
        CheckOptions::new(move |options| check.check(options))
    }

    fn memory_probe(&self) -> Option<MemoryProbe> {
        let compute = self.compute().clone();
        (compute.name != "cpu").then(|| MemoryProbe::new(move || compute.memory()))
    }
}

/// Waits for a model's answer on one of the threads that compute it. From any other thread each of the
/// hundreds of small parallel steps of a decoded token would cross into the pool and back: measured, a
/// token then takes twice as long.
pub(crate) fn block_on_pool<F: Future + Send>(future: F) -> F::Output
where
    F::Output: Send,
{
    rayon::scope(|_| futures::executor::block_on(future))
}
