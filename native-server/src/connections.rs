//! Connections: how many at once, how long each may keep the server waiting, and how they end.
//!
//! axum's own `serve` waits for ever for a client that sends half a header, or takes nothing of its answer; a few hundred
//! of those keep everybody else out. Here each of the three waits has an end: the header (which is also how long an idle
//! connection is kept), the next piece of a body ([`RequestBodyTimeoutLayer`], laid in [`crate::app`]), and the next piece
//! of the answer. What a body may take in all is the request's own time limit.
//!
//! A connection that became a stream ([`crate::routes::stream`]) leaves hyper, but not these bounds: its socket keeps its place,
//! its write timeout, and the server from ending. When it ends is told by the stream's own limits, and by
//! [`Server::begin_drain`](crate::Server::begin_drain).

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_io_timeout::TimeoutStream;
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::config::{ServerConfig, duration};

/// How long to wait when the system has no more file descriptors: until then some connection has ended.
const NO_DESCRIPTORS_WAIT: Duration = Duration::from_millis(200);

/// The bounds of a connection.
#[derive(Debug, Clone, Copy)]
struct Limits {
    header_timeout: Duration,
    write_timeout: Duration,
}

/// Answers connections until `stop` comes back; then takes no new ones, and comes back itself once each has its answer, and
/// each stream its end.
///
/// At most [`ServerConfig::max_connections`] are open; who comes then waits in the system's backlog.
pub async fn serve(listener: TcpListener, app: Router, config: &ServerConfig, stop: impl Future<Output = ()>) {
    let limits =
        Limits { header_timeout: duration(config.header_timeout_s), write_timeout: duration(config.io_timeout_s) };
    let places = Arc::new(Semaphore::new(config.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let tls = config.tls.clone();
    let stopping = watch::Sender::new(());
    let accepting = async {
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let tcp = bounded(accept(&listener).await, limits);
            let stream = Socket { stream: tcp, _place: place, _open: stopping.subscribe() };
            let (app, tls, stopped) = (app.clone(), tls.clone(), stopping.subscribe());
            tokio::spawn(async move {
                // A client that goes, or is cut off, is no event.
                match tls {
                    None => connection(stream, app, limits, stopped).await,
                    Some(tls) => {
                        if let Ok(Ok(stream)) = tokio::time::timeout(limits.header_timeout, tls.accept(stream)).await {
                            connection(stream, app, limits, stopped).await;
                        }
                    }
                }
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop => {}
    }
    drop(listener);
    stopping.send_replace(());
    // Each connection listens for that as long as it lives.
    stopping.closed().await;
}

/// A client's socket, with what it holds until it is closed, by HTTP or by a stream.
struct Socket {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    /// Of all connections.
    _place: OwnedSemaphorePermit,
    /// As long as it lives, the server does.
    _open: watch::Receiver<()>,
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A stream that ends when its client takes nothing for too long.
fn bounded(stream: TcpStream, limits: Limits) -> Pin<Box<TimeoutStream<TcpStream>>> {
    // Answers are small: send them at once. A socket that cannot be told so is slower, no more.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    Box::pin(stream)
}

/// Answers a connection's requests until it ends, becomes a stream, or has its last answer once the server stops.
async fn connection<S>(stream: S, app: Router, limits: Limits, mut stopped: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
        .with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stopped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(connection.await);
}

/// The next connection, whatever becomes of those before it.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_one_client(&error) => {}
            Err(error) => {
                tracing::warn!(cause = %error, "a connection could not be taken: see the limit of open files (ulimit -n)");
                tokio::time::sleep(NO_DESCRIPTORS_WAIT).await;
            }
        }
    }
}

fn is_of_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Cuts off whoever sends nothing of a body for that long.
pub(crate) fn body_timeout(config: &ServerConfig) -> RequestBodyTimeoutLayer {
    RequestBodyTimeoutLayer::new(duration(config.io_timeout_s))
}
