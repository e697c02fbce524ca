//! `stream=true` of `POST /v1/audio/transcriptions`: the text in pieces, as Server-Sent Events.
//!
//! Follows OpenAI's API reference (audio, 2025) and what its clients read (openai-node 6.49, openai-python 3.54): events
//! `transcript.text.delta`, then one `transcript.text.done` with the whole text, and no `[DONE]`. A piece is what is certain:
//! the words of a window, once its decoding will not be tried again. An error before the first event is an ordinary answer;
//! later it is an event with an `error` object, which those clients raise.
//!
//! The request's time limit holds for the whole. A client that goes ends the work behind the window that is being decoded.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream;
use okyeame_core::audio::Waveform;
use okyeame_core::decoding::{Segment, Transcript};
use serde_json::json;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::engine::{AskedWords, Engine};
use crate::error::ApiError;
use crate::inference_worker::{Answered, LoadedModel};
use crate::queue::{Admission, Lane};
use crate::request_id;
use crate::routes::clip;
use crate::routes::openai::ErrorObject;
use crate::state::Server;

/// What a client is told.
enum Piece {
    /// What comes behind the text so far.
    Delta(String),
    /// The whole text.
    Done(String),
}

/// A transcript on its way.
struct Pieces {
    server: Arc<Server>,
    started: Instant,
    request_id: String,
    /// What the model says in the end. Dropping it takes the work out of the queue.
    answer: BoxFuture<'static, Result<Answered<Transcript>, ApiError>>,
    /// What it says before; dropping it ends the work. Their number is that of the windows, so there is no bound.
    texts: UnboundedReceiver<String>,
    /// Bytes of the text that were told.
    n_told: usize,
    /// The whole text, once all of it was told.
    done: Option<String>,
    is_over: bool,
}

/// Begins a transcript, and answers when the first piece of it is there.
///
/// # Errors
/// Whatever goes wrong before.
pub(super) async fn begin(
    server: &Arc<Server>,
    model: Arc<LoadedModel>,
    waveform: Waveform,
    asked: AskedWords,
    started: Instant,
) -> Result<Response, ApiError> {
    let (tell, texts) = mpsc::unbounded_channel();
    let duration_s = waveform.duration_s();
    let work = move |engine: &dyn Engine| {
        let (mut text, mut n_told) = (String::new(), 0_usize);
        let mut on_segments = |segments: &[Segment]| -> ControlFlow<()> {
            segments.iter().for_each(|segment| text.push_str(&segment.text));
            // Blanks at the end may be those of the whole, which has none.
            let new = text.trim().get(n_told..).unwrap_or_default().to_owned();
            n_told += new.len();
            if !new.is_empty() {
                // Whether somebody listens is asked below.
                let _ = tell.send(new);
            }
            if tell.is_closed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        engine.transcribe_in_pieces(&waveform, &asked, &mut on_segments)
    };
    let answer = {
        let server = Arc::clone(server);
        async move { server.worker.ask(&model, Lane::Words, duration_s, Admission::Refuse, work).await }.boxed()
    };
    let mut pieces = Pieces {
        server: Arc::clone(server),
        started,
        request_id: request_id::current(),
        answer,
        texts,
        n_told: 0,
        done: None,
        is_over: false,
    };
    let first = pieces.next().await?;
    let events = stream::unfold((pieces, Some(first)), |(mut pieces, first)| async move {
        if pieces.is_over {
            return None;
        }
        let piece = match first {
            Some(first) => Ok(first),
            None => pieces.next_in_time().await,
        };
        let event = pieces.event(piece);
        Some((Ok::<_, Infallible>(event), (pieces, None)))
    });
    // Comments in between, so that nobody on the way takes the silence of a long window for the end.
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

impl Pieces {
    async fn next_in_time(&mut self) -> Result<Piece, ApiError> {
        let (server, started) = (Arc::clone(&self.server), self.started);
        clip::in_time(&server, started, self.next()).await
    }

    /// Not to be asked again behind [`Piece::Done`] or an error.
    async fn next(&mut self) -> Result<Piece, ApiError> {
        if let Some(text) = self.done.take() {
            return Ok(Piece::Done(text));
        }
        let text = tokio::select! {
            biased;
            Some(text) = self.texts.recv() => {
                self.n_told += text.len();
                return Ok(Piece::Delta(text));
            }
            answer = &mut self.answer => answer?.answer.text.trim().to_owned(),
        };
        // What was said just before the end is in the whole.
        let rest = text.get(self.n_told..).unwrap_or_default().to_owned();
        if rest.is_empty() {
            return Ok(Piece::Done(text));
        }
        self.done = Some(text);
        Ok(Piece::Delta(rest))
    }

    /// A piece as it is sent, and the end in the books.
    fn event(&mut self, piece: Result<Piece, ApiError>) -> Event {
        let said = match piece {
            Ok(Piece::Delta(delta)) => json!({"type": "transcript.text.delta", "delta": delta}),
            Ok(Piece::Done(text)) => {
                self.is_over = true;
                self.server.stats.succeeded(self.started.elapsed(), false);
                json!({"type": "transcript.text.done", "text": text})
            }
            Err(error) => {
                self.is_over = true;
                self.server.stats.failed();
                self.server.metrics.error(error.code());
                request_id::within(self.request_id.clone(), || error.log());
                json!({"type": "error", "error": ErrorObject::of(&error), "request_id": self.request_id})
            }
        };
        Event::default().data(said.to_string())
    }
}
