//! A stream's conversation: one task, which listens, has utterances answered, and says what came of them.
//!
//! While an utterance is being answered the next one is listened to. Once that has ended, too, nothing more is read until it
//! has its turn: whoever sends faster than is answered is held up by their own socket. Whoever goes takes along what waits for
//! the model, as that hangs on this task.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::ws::{CloseCode, CloseFrame, Message, WebSocket, close_code};
use futures::future::BoxFuture;
use okyeame_core::audio::Waveform;
use okyeame_core::{Error as CoreError, Recognition, RecognizeOptions, Task};
use tokio::sync::OwnedSemaphorePermit;

use super::ear::{Ear, Heard, Spoken};
use super::messages::{Event, Format, Guess, Span, Told};
use super::{Asked, MAX_MESSAGE_BYTES, endpoint_options};
use crate::access::Caller;
use crate::config::duration;
use crate::error::ApiError;
use crate::queue::Admission;
use crate::request_id;
use crate::routes::clip;
use crate::routes::text::catalogue;
use crate::routes::upload::{UploadedFile, harmless};
use crate::state::Server;

/// How long a client may take to close after we did. Until then what it sends is read: else its system could throw away our
/// last words.
const LINGER: Duration = Duration::from_secs(2);

/// The client went, or takes nothing any more.
struct Gone;

/// How a stream ends from our side.
struct Ending {
    code: CloseCode,
    error: Option<ApiError>,
}

impl Ending {
    fn with(code: CloseCode, error: ApiError) -> Self {
        Self { code, error: Some(error) }
    }

    fn quiet(code: CloseCode) -> Self {
        Self { code, error: None }
    }
}

/// What is asked about an utterance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// From the sound alone, by a model that can.
    Intent,
    Words,
}

struct Answer {
    spoken: Spoken,
    stage: Stage,
    outcome: Result<Recognition, ApiError>,
}

type Guessed = Result<(Span, Recognition), ApiError>;

/// One stream.
pub(super) struct Session {
    server: Arc<Server>,
    caller: Option<Caller>,
    options: RecognizeOptions,
    format: Format,
    partials: bool,
    ear: Ear,
    /// An utterance that has ended, and has to wait for the answer to the one before it.
    waiting: Option<Spoken>,
    answering: Option<BoxFuture<'static, Answer>>,
    guessing: Option<BoxFuture<'static, Guessed>>,
    /// Whether the first message has come.
    has_begun: bool,
    /// The client wants no more than what it has asked for.
    is_stopped: bool,
    /// When the server stops: the utterance that is the last.
    last: Option<u64>,
    /// When a message came, or an answer went: from then on the client's silence counts.
    quiet_from: tokio::time::Instant,
}

impl Session {
    pub(super) fn new(server: Arc<Server>, caller: Option<Caller>, asked: Asked) -> Result<Self, ApiError> {
        let Asked { options, format, partials } = asked;
        Ok(Self {
            ear: Ear::new(format, endpoint_options(&server.config))?,
            server,
            caller,
            options,
            format,
            partials,
            waiting: None,
            answering: None,
            guessing: None,
            has_begun: false,
            is_stopped: false,
            last: None,
            quiet_from: tokio::time::Instant::now(),
        })
    }

    /// Holds the conversation to its end. The place among all streams is given back then.
    pub(super) async fn run(mut self, mut socket: WebSocket, place: OwnedSemaphorePermit) {
        if let Ok(Ending { code, error }) = self.converse(&mut socket).await {
            // What is not answered by now is not waited for.
            (self.answering, self.guessing) = (None, None);
            let last_words = error.map(|error| self.failed(None, &error));
            farewell(&mut socket, code, last_words).await;
        }
        tracing::info!(request_id = request_id::current(), utterances = self.ear.n_utterances(), "a stream ended");
        drop(place);
    }

    async fn converse(&mut self, socket: &mut WebSocket) -> Result<Ending, Gone> {
        let server = Arc::clone(&self.server);
        let limit_s = server.config.io_timeout_s;
        let mut draining = pin!(server.stops());
        say(socket, &self.ready()).await?;
        loop {
            while self.waiting.is_none()
                && let Some(heard) = self.ear.listen()
            {
                match heard {
                    Heard::Started { utterance, at_s } => {
                        say(socket, &Event::SpeechStarted { utterance, at_s }).await?;
                    }
                    Heard::Ended(spoken) => self.has_ended(spoken),
                }
            }
            if self.answering.is_none() {
                if let Some(spoken) = self.waiting.take() {
                    let span = spoken.span;
                    if let Err(error) = self.ask(spoken) {
                        say(socket, &self.failed(Some(span), &error)).await?;
                        if matches!(error, ApiError::TokenExpired) {
                            return Ok(Ending::quiet(close_code::POLICY));
                        }
                    }
                    continue;
                }
                if self.is_stopped {
                    return Ok(Ending::quiet(close_code::NORMAL));
                }
                if let Some(last) = self.last
                    && !(self.ear.is_speaking() && self.ear.n_utterances() <= last)
                {
                    return Ok(Ending::with(close_code::AWAY, ApiError::Draining));
                }
            }
            self.guess();
            tokio::select! {
                message = socket.recv(), if self.waiting.is_none() => match message {
                    Some(Ok(message)) => {
                        self.quiet_from = tokio::time::Instant::now();
                        if let Some(ending) = self.take(socket, message).await? {
                            return Ok(ending);
                        }
                    }
                    // Mostly a client that is gone; one that is not hears what it did.
                    Some(Err(_)) => {
                        let reason = "it is too large, or it breaks the rules of WebSockets".to_owned();
                        let error = ApiError::InvalidMessage { reason };
                        say(socket, &event_of(None, &error)).await?;
                        return Ok(Ending::quiet(close_code::PROTOCOL));
                    }
                    None => return Err(Gone),
                },
                answer = done(&mut self.answering) => {
                    self.answering = None;
                    self.tell(socket, answer).await?;
                    self.quiet_from = tokio::time::Instant::now();
                }
                guessed = done(&mut self.guessing) => {
                    self.guessing = None;
                    match guessed {
                        Ok((span, Recognition { intent, confidence, accepted, .. })) => {
                            let recognition = Guess { intent: &intent, confidence, accepted };
                            say(socket, &Event::Partial { span, recognition }).await?;
                        }
                        // Nobody asked for this one.
                        Err(error) => error.log(),
                    }
                }
                // Who waits for us is not idle.
                () = tokio::time::sleep_until(self.quiet_from + duration(limit_s)), if self.answering.is_none() => {
                    return Ok(Ending::with(close_code::POLICY, ApiError::StreamIdle { limit_s }));
                }
                () = draining.as_mut(), if self.last.is_none() => self.last = Some(self.ear.n_utterances()),
            }
        }
    }

    fn ready(&self) -> Event<'_> {
        Event::Ready {
            format: self.format,
            language: self.options.language.as_deref(),
            top_k: self.options.top_k,
            transcribe: self.options.transcribe,
            partials: self.partials,
            request_id: request_id::current(),
        }
    }

    /// Takes a message; `Some` if the stream ends with it.
    async fn take(&mut self, socket: &mut WebSocket, message: Message) -> Result<Option<Ending>, Gone> {
        let is_first = match message {
            Message::Binary(_) | Message::Text(_) => !std::mem::replace(&mut self.has_begun, true),
            _ => false,
        };
        let too_large =
            || Some(Ending::with(close_code::SIZE, ApiError::MessageTooLarge { limit_bytes: MAX_MESSAGE_BYTES }));
        match message {
            Message::Binary(bytes) if bytes.len() > MAX_MESSAGE_BYTES => return Ok(too_large()),
            Message::Text(text) if text.len() > MAX_MESSAGE_BYTES && !is_first => return Ok(too_large()),
            _ if self.is_stopped => {}
            Message::Binary(bytes) => {
                if let Err(error) = self.ear.take(&bytes) {
                    say(socket, &self.failed(None, &error.into())).await?;
                }
            }
            Message::Text(text) => match serde_json::from_str::<Told>(&text) {
                Ok(Told::Start { language, top_k, transcribe, catalogue: names }) if is_first => {
                    let defaults = self.options.clone();
                    let options = RecognizeOptions {
                        language: language.or(defaults.language),
                        top_k: top_k.unwrap_or(defaults.top_k),
                        transcribe: transcribe.unwrap_or(defaults.transcribe),
                        ..defaults
                    };
                    match self.begin(options, names).await {
                        Ok(()) => say(socket, &self.ready()).await?,
                        // Not with other options than were asked for.
                        Err(error) => return Ok(Some(Ending::with(close_code::POLICY, error))),
                    }
                }
                Ok(Told::Start { .. }) => {
                    let reason = "a start comes first, or not at all".to_owned();
                    say(socket, &self.failed(None, &ApiError::InvalidMessage { reason })).await?;
                }
                Ok(Told::End {}) => match self.ear.end() {
                    Some(spoken) => self.has_ended(spoken),
                    None => say(socket, &self.failed(None, &CoreError::EmptyAudio.into())).await?,
                },
                Ok(Told::Stop {}) => {
                    self.is_stopped = true;
                    if self.ear.is_speaking()
                        && let Some(spoken) = self.ear.end()
                    {
                        self.has_ended(spoken);
                    }
                }
                Err(error) => {
                    let reason = harmless(&error.to_string());
                    say(socket, &self.failed(None, &ApiError::InvalidMessage { reason })).await?;
                }
            },
            // Pings are answered below us.
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) => return Ok(Some(Ending::quiet(close_code::NORMAL))),
        }
        Ok(None)
    }

    /// Other options than the query's.
    async fn begin(&mut self, options: RecognizeOptions, names: Option<serde_json::Value>) -> Result<(), ApiError> {
        self.server.worker.model()?.options_check.check(&options)?;
        let catalogue = catalogue(names).await?.or_else(|| options.catalogue.clone());
        self.options = RecognizeOptions { catalogue, ..options };
        Ok(())
    }

    fn has_ended(&mut self, spoken: Spoken) {
        self.guessing = None;
        self.waiting = Some(spoken);
    }

    /// Has an utterance answered, first by what the model hears.
    fn ask(&mut self, spoken: Spoken) -> Result<(), ApiError> {
        if let Some(caller) = &self.caller {
            self.server.access.asks_again(caller)?;
        }
        let stage = if self.model_hears() { Stage::Intent } else { Stage::Words };
        self.answer(spoken, stage);
        Ok(())
    }

    fn answer(&mut self, spoken: Spoken, stage: Stage) {
        let is_asked_again = stage == Stage::Intent && self.options.transcribe;
        let options = RecognizeOptions { transcribe: stage == Stage::Words, ..self.options.clone() };
        let server = Arc::clone(&self.server);
        self.answering = Some(Box::pin(async move {
            let file = UploadedFile { filename: String::new(), bytes: spoken.wav.clone() };
            let (admission, started) = (Admission::Refuse, Instant::now());
            let answered = if is_asked_again {
                clip::recognize_for_now(&server, file, &options, admission, started).await
            } else {
                clip::recognize(&server, file, &options, admission, started).await
            };
            let outcome = answered.map(|mut recognition| {
                recognition.run.bytes_sent = spoken.bytes_sent;
                recognition
            });
            Answer { spoken, stage, outcome }
        }));
    }

    /// Says what came of an utterance, and asks for its words if they are wanted.
    async fn tell(&mut self, socket: &mut WebSocket, answer: Answer) -> Result<(), Gone> {
        let Answer { spoken, stage, outcome } = answer;
        let span = spoken.span;
        match outcome {
            Ok(recognition) if stage == Stage::Intent => {
                if self.options.transcribe {
                    self.answer(spoken, Stage::Words);
                }
                say(socket, &Event::Intent { span, recognition: &recognition }).await
            }
            Ok(recognition) => say(socket, &Event::Final { span, recognition: &recognition }).await,
            Err(error) => say(socket, &self.failed(Some(span), &error)).await,
        }
    }

    /// Has the model guess at what was said so far, if it has nothing else to do.
    fn guess(&mut self) {
        let is_free = self.answering.is_none() && self.guessing.is_none() && self.server.worker.queue_len().0 == 0;
        // Words would take as long as the answer does.
        if !self.partials || !is_free || !self.model_hears() {
            return;
        }
        let Some((span, so_far)) = self.ear.so_far() else { return };
        let options = RecognizeOptions { transcribe: false, ..self.options.clone() };
        self.guessing = Some(Box::pin(guess(Arc::clone(&self.server), span, so_far, options)));
    }

    /// Whether the model has an intent from the sound.
    fn model_hears(&self) -> bool {
        self.server.worker.model().is_ok_and(|model| model.info.task == Task::Multi)
    }

    /// Counts and logs an error.
    fn failed(&self, span: Option<Span>, error: &ApiError) -> Event<'static> {
        error.log();
        self.server.metrics.error(error.code());
        event_of(span, error)
    }
}

async fn guess(server: Arc<Server>, span: Span, so_far: Waveform, options: RecognizeOptions) -> Guessed {
    let model = server.worker.model()?;
    model.options_check.check(&options)?;
    let answered = server.worker.recognize(&model, so_far, options, Admission::Refuse).await?;
    Ok((span, answered.answer))
}

fn event_of(span: Option<Span>, error: &ApiError) -> Event<'static> {
    Event::Error {
        span,
        detail: error.detail(),
        code: error.code(),
        request_id: request_id::current(),
        retry_after_s: error.retry_after_s(),
    }
}

/// What came of a piece of work; never, without one. It stays where it is if nobody waits on.
async fn done<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

async fn say(socket: &mut WebSocket, event: &Event<'_>) -> Result<(), Gone> {
    let json = serde_json::to_string(event).expect("events are plain data with string keys");
    socket.send(Message::Text(json.into())).await.map_err(|_| Gone)
}

/// Ends a stream in good order, as far as the client takes part in it.
async fn farewell(socket: &mut WebSocket, code: CloseCode, last_words: Option<Event<'static>>) {
    let reason = match &last_words {
        Some(Event::Error { code, .. }) => *code,
        _ => "",
    };
    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    if let Some(event) = &last_words {
        // One that is gone by now is not told.
        let _ = say(socket, event).await;
    }
    let _ = socket.send(close).await;
    let until_closed = async { while let Some(Ok(_)) = socket.recv().await {} };
    let _ = tokio::time::timeout(LINGER, until_closed).await;
}
