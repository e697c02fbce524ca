//! Connections: how many at once, how long each may keep the server waiting, and how they end.
//!
//! axum's own `serve` waits for ever for a client that sends half a header, or takes nothing of its answer; a few hundred
//! of those keep everybody else out. Here each of the three waits has an end: the header (which is also how long an idle
//! connection is kept), the next piece of a body ([`RequestBodyTimeoutLayer`], laid in [`crate::app`]), and the next piece
//! of the answer. What a body may take in all is the request's own time limit.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
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

/// Answers connections until `stop` comes back; then takes no new ones, and comes back itself once each has its answer.
///
/// At most [`ServerConfig::max_connections`] are open; who comes then waits in the system's backlog.
pub async fn serve(listener: TcpListener, app: Router, config: &ServerConfig, stop: impl Future<Output = ()>) {
    let limits =
        Limits { header_timeout: duration(config.header_timeout_s), write_timeout: duration(config.io_timeout_s) };
    let places = Arc::new(Semaphore::new(config.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let tls = config.tls.clone();
    let connections = GracefulShutdown::new();
    let accepting = async {
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let stream = bounded(accept(&listener).await, limits);
            let watcher = connections.watcher();
            let (app, tls) = (app.clone(), tls.clone());
            tokio::spawn(async move {
                // A client that goes, or is cut off, is no event.
                match tls {
                    None => drop(watcher.watch(connection(stream, app, limits)).await),
                    Some(tls) => {
                        if let Ok(Ok(stream)) = tokio::time::timeout(limits.header_timeout, tls.accept(stream)).await {
                            drop(watcher.watch(connection(stream, app, limits)).await);
                        }
                    }
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop => {}
    }
    drop(listener);
    connections.shutdown().await;
}

/// A stream that ends when its client takes nothing for too long.
fn bounded(stream: TcpStream, limits: Limits) -> Pin<Box<TimeoutStream<TcpStream>>> {
    // Answers are small: send them at once. A socket that cannot be told so is slower, no more.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_timeout));
    Box::pin(stream)
}

fn connection<S>(stream: S, app: Router, limits: Limits) -> http1::Connection<TokioIo<S>, TowerToHyperService<Router>>
where
    S: AsyncRead + AsyncWrite + Unpin,
    TokioIo<S>: Read + Write,
{
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
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
