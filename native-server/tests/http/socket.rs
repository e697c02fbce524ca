//! On a real socket, with requests written by hand: an answer, a client that goes away, an oversized body,
//! and a graceful stop.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{Form, Shop, WAIT, ask, tone};

struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

async fn serve(shop: &Shop) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let app = shop.app.clone();
    let serving = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        axum::serve(listener, app).with_graceful_shutdown(stopped).await.unwrap();
    });
    Served { address, stop, serving }
}

/// Writes a POST of a form.
async fn post(address: SocketAddr, path: &str, form: Form) -> TcpStream {
    let body = form.bytes();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        Form::content_type(),
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    stream
}

/// Reads to the end, with a limit.
async fn answer(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8(bytes).unwrap()
}

fn clip() -> Form {
    Form::new().file("file", "clip.wav", &tone(0.3))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    let text = answer(post(served.address, "/test-intent?top_k=1", clip()).await).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("\"add_to_cart\""), "{text}");
    assert!(text.contains("x-request-id: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_frees_its_place() {
    let shop = Shop::with(|config| config.queue_len = 1).await;
    let served = serve(&shop).await;
    let path = format!("/test-intent?language={WAIT}");
    let running = post(served.address, &path, clip()).await;
    shop.until_started(1).await;
    let gone = post(served.address, &path, clip()).await;
    shop.until_queued(1).await;
    drop(gone);
    shop.until_queued(0).await;
    let next = shop.start(ask(&tone(0.5), ""));
    shop.until_queued(1).await;
    shop.control.open();
    assert!(answer(running).await.starts_with("HTTP/1.1 200"));
    assert_eq!(next.await.unwrap().status, StatusCode::OK);
    assert_eq!(shop.control.started(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_of_too_much_gets_to_read_why() {
    let shop = Shop::with(|config| config.max_body_bytes = 100_000).await;
    let served = serve(&shop).await;
    let form = Form::new().file("file", "big.wav", &tone(10.0)); // 320 kB
    let text = answer(post(served.address, "/test-intent", form).await).await;
    assert!(text.starts_with("HTTP/1.1 413") && text.contains("body_too_large"), "{text}");
    shop.still_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_answers_what_was_accepted() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    let accepted = post(served.address, &format!("/test-intent?language={WAIT}"), clip()).await;
    shop.until_started(1).await;
    shop.server.begin_drain();
    served.stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!served.serving.is_finished(), "it stopped before the accepted request was answered");
    shop.control.open();
    assert!(answer(accepted).await.starts_with("HTTP/1.1 200"));
    tokio::time::timeout(Duration::from_secs(10), served.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}
