//! What is said in a stream beside the sound, as JSON in text frames.

use okyeame_core::Recognition;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How sound comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    /// 16 kHz, mono, 16 bits, little-endian, in frames of any size.
    Pcm16,
    /// One Opus packet in each frame.
    Opus,
}

/// What a client says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Told {
    /// What else is wanted than the query says; only as the first message.
    Start {
        language: Option<String>,
        top_k: Option<usize>,
        transcribe: Option<bool>,
        /// The shop's own names, as the form's field `catalogue` has them.
        catalogue: Option<Value>,
    },
    /// The utterance is over.
    End {},
    /// The stream is over, after the answer to what was said.
    Stop {},
}

/// What a client is told.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    /// Sound may come; once more after a `start`.
    Ready {
        format: Format,
        language: Option<&'a str>,
        top_k: usize,
        transcribe: bool,
        partials: bool,
        request_id: String,
    },
    /// Somebody speaks.
    SpeechStarted { utterance: u64, at_s: f64 },
    /// What it sounds like so far.
    Partial {
        #[serde(flatten)]
        span: Span,
        recognition: Guess<'a>,
    },
    /// The answer from the sound.
    Intent {
        #[serde(flatten)]
        span: Span,
        recognition: &'a Recognition,
    },
    /// The answer with its words.
    Final {
        #[serde(flatten)]
        span: Span,
        recognition: &'a Recognition,
    },
    /// What went wrong, with an utterance or with the stream.
    Error {
        #[serde(flatten)]
        span: Option<Span>,
        detail: String,
        code: &'static str,
        request_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_s: Option<u64>,
    },
}

/// An utterance, on the clock of the stream's sound.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Span {
    /// From 1 on.
    pub(super) utterance: u64,
    pub(super) start_s: f64,
    pub(super) end_s: f64,
}

/// What of a [`Recognition`] makes sense before the utterance is over.
#[derive(Debug, Serialize)]
pub(super) struct Guess<'a> {
    pub(super) intent: &'a str,
    pub(super) confidence: f32,
    pub(super) accepted: bool,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_is_refused() {
        let told = |json: &str| serde_json::from_str::<Told>(json);
        assert!(matches!(told(r#"{"type": "end"}"#).unwrap(), Told::End {}));
        assert!(matches!(told(r#"{"type": "stop"}"#).unwrap(), Told::Stop {}));
        let start = told(r#"{"type": "start", "top_k": 3, "catalogue": {"products": []}}"#).unwrap();
        assert!(matches!(start, Told::Start { top_k: Some(3), catalogue: Some(_), language: None, .. }), "{start:?}");
        for wrong in [
            "",
            "7",
            "[]",
            "{}",
            r#"{"type": "begin"}"#,
            r#"{"type": "end", "now": true}"#,
            r#"{"type": "start", "topk": 3}"#,
            r#"{"type": "start", "top_k": -1}"#,
        ] {
            assert!(told(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_error_names_its_utterance_if_it_has_one() {
        let error = |span| {
            let (detail, code, request_id) = ("d".to_owned(), "c", "r".to_owned());
            serde_json::to_value(Event::Error { span, detail, code, request_id, retry_after_s: None }).unwrap()
        };
        let whole = json!({"type": "error", "detail": "d", "code": "c", "request_id": "r"});
        assert_eq!(error(None), whole);
        let of_one = error(Some(Span { utterance: 2, start_s: 0.5, end_s: 1.5 }));
        assert_eq!(
            (&of_one["utterance"], &of_one["end_s"], &of_one["type"]),
            (&json!(2), &json!(1.5), &json!("error"))
        );
    }
}
