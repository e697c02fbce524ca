//! On a real socket, with requests written by hand: an answer, a client that goes away, an oversized body, clients that keep
//! the server waiting, and a graceful stop.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::StatusCode;
use okyeame_server::config::ServerConfig;
use okyeame_server::serve as serve_connections;
use okyeame_server::tls::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{Form, Shop, WAIT, ask, tone};

pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) serving: JoinHandle<()>,
}

pub(crate) async fn serve(shop: &Shop) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let (app, config) = (shop.app.clone(), shop.config.clone());
    let serving = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        serve_connections(listener, app, &config, stopped).await;
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

/// A shop with little patience.
async fn impatient(change: impl FnOnce(&mut ServerConfig)) -> Shop {
    Shop::with(|config| {
        config.header_timeout_s = 0.3;
        config.io_timeout_s = 0.3;
        change(config);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_header_and_an_idle_connection_are_cut_off() {
    let shop = impatient(|_| {}).await;
    let served = serve(&shop).await;
    for begun in ["", "POST /test-intent HTTP/1.1\r\nHost: sh", "GET /live HTTP/1.1\r\nHost: shop\r\n\r\n"] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let text = answer(stream).await; // comes back when the server closes
        assert_eq!(text.contains("HTTP/1.1 200"), begun.starts_with("GET"), "{begun}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stops_is_a_408_on_every_route_that_reads_one() {
    let shop = impatient(|_| {}).await;
    let served = serve(&shop).await;
    let multipart = format!("{}\r\n\r\n--okyeame-test", Form::content_type());
    for (path, begun) in [
        ("/test-intent", multipart.as_str()),
        ("/batch-intent", &multipart),
        ("/v1/audio/transcriptions", &multipart),
        ("/text-intent", "application/json\r\n\r\n{\"text\": \"Fa"),
    ] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: 9999\r\nContent-Type: {begun}");
        stream.write_all(head.as_bytes()).await.unwrap();
        let text = answer(stream).await;
        assert!(text.starts_with("HTTP/1.1 408") && text.contains("\"body_timeout\""), "{path}: {text}");
    }
    shop.still_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_drops_ends_with_the_request_s_time() {
    let shop = impatient(|config| {
        config.io_timeout_s = 10.0;
        config.request_timeout_s = 0.6;
    })
    .await;
    let served = serve(&shop).await;
    for (path, kind) in [("/test-intent", Form::content_type()), ("/text-intent", "application/json".to_owned())] {
        let (mut read, mut write) = TcpStream::connect(served.address).await.unwrap().into_split();
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: 99999\r\nContent-Type: {kind}\r\n\r\n");
        write.write_all(head.as_bytes()).await.unwrap();
        let dripping = tokio::spawn(async move {
            while write.write_all(b"-").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut start = [0; 12];
        tokio::time::timeout(Duration::from_secs(20), read.read_exact(&mut start)).await.unwrap().unwrap();
        assert_eq!(&start, b"HTTP/1.1 504", "{path}");
        dripping.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_of_its_answer_loses_its_place() {
    let site = tempfile::tempdir().unwrap();
    let large = std::fs::File::create(site.path().join("large.js")).unwrap();
    large.set_len(64 << 20).unwrap(); // more than the buffers of two sockets hold
    let shop = impatient(|config| {
        config.max_connections = 1;
        config.site_dir = Some(site.path().to_owned());
    })
    .await;
    let served = serve(&shop).await;
    let mut taker_of_nothing = TcpStream::connect(served.address).await.unwrap();
    taker_of_nothing.write_all(b"GET /large.js HTTP/1.1\r\nHost: shop\r\n\r\n").await.unwrap();
    let text = answer(post(served.address, "/test-intent", clip()).await).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    drop(taker_of_nothing);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_slow_clients_keep_nobody_out() {
    let shop = impatient(|config| config.max_connections = 64).await;
    let served = serve(&shop).await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"POST /test-intent HTTP/1.1\r\nX-").await.unwrap();
        slow.push(stream);
    }
    for _ in 0..5 {
        let text = answer(post(served.address, "/test-intent", clip()).await).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_closes_idle_connections_and_frees_the_port() {
    let shop = Shop::open().await; // idle connections would be kept for 10 s
    let served = serve(&shop).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /live HTTP/1.1\r\nHost: shop\r\n\r\n").await.unwrap();
    let mut start = [0; 12];
    idle.read_exact(&mut start).await.unwrap();
    served.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(5), served.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn https_is_spoken_with_a_certificate_and_idle_handshakes_end() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let shop = Shop::with(|config| {
        config.tls = Some(Tls::load(&cert, &key).unwrap());
        config.header_timeout_s = 0.5;
        config.max_connections = 2;
    })
    .await;
    let served = serve(&shop).await;
    // One sends nothing, one speaks plain HTTP: neither keeps its place.
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let plain = post(served.address, "/test-intent?top_k=1", clip()).await;
    let _ = tokio::time::timeout(Duration::from_secs(10), silent.read(&mut [0; 8])).await.unwrap();
    drop(plain);

    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([root]).build().unwrap();
    let url = format!("https://localhost:{}/test-intent?top_k=1", served.address.port());
    let form = client.post(url).header("content-type", Form::content_type()).body(clip().bytes());
    let answer: serde_json::Value = serde_json::from_str(&form.send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(answer["intent"], "add_to_cart", "{answer}");
    drop(client);
    served.stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(10), served.serving).await.unwrap().unwrap();
}
