//! Replicas share answers in Redis, and whatever becomes of it, each request has its right answer.
//!
//! Most tests talk to an imitation, which fails in every way on demand; one talks to a real Redis or Valkey, if there is one on this
//! machine.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use okyeame_server::shared_cache::CacheUrl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::redis_imitation::{Manner, Redis};
use crate::support::{Shop, ask, silence, tone};

/// A replica whose shared answers are at this address. It is patient: a busy machine is no reason for a miss.
async fn replica(url: &str) -> Shop {
    let cache = CacheUrl::parse(url).unwrap().with_ask_limit(Duration::from_secs(5));
    Shop::with(|config| config.cache = Some(cache)).await
}

/// A replica with the limit that a server has.
async fn impatient_replica(url: &str) -> Shop {
    let cache = CacheUrl::parse(url).unwrap();
    Shop::with(|config| config.cache = Some(cache)).await
}

/// The value of a metric; 0 if it is not there yet.
async fn metric(shop: &Shop, name: &str) -> f64 {
    let text = shop.get("/metrics").await.text;
    let of_name = |line: &str| line.strip_prefix(name).and_then(|rest| rest.trim().parse().ok());
    text.lines().find_map(of_name).unwrap_or_default()
}

async fn failures(shop: &Shop, cause: &str) -> f64 {
    metric(shop, &format!(r#"okyeame_shared_cache_failures_total{{cause="{cause}"}}"#)).await
}

async fn hits(shop: &Shop, level: &str) -> f64 {
    metric(shop, &format!(r#"okyeame_cache_lookups_total{{result="{level}"}}"#)).await
}

/// Waits for what must become true, asking the shop something new each time: requests are what makes it connect.
async fn until(shop: &Shop, what: &str, is_true: impl AsyncFn() -> bool) {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let begin = Instant::now();
    while !is_true().await {
        assert!(begin.elapsed() < Duration::from_secs(20), "never: {what}");
        // Longer than a second, and each by one sample.
        let n_samples = f64::from(16_000 + ASKED.fetch_add(1, Ordering::Relaxed)) + 0.5;
        right_answer(shop, n_samples / 16_000.0).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_connected(shop: &Shop) {
    until(shop, "a connection", async || metric(shop, "okyeame_shared_cache_connected").await > 0.0).await;
}

/// Waits for an answer with these words among those that are kept.
async fn until_kept(redis: &Redis, words: &str) {
    let begin = Instant::now();
    while !redis.holds(words) {
        assert!(begin.elapsed() < Duration::from_secs(10), "'{words}' was never kept");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks with a clip of this length and checks the answer; the words of the test engine tell the length. Whether it was cached.
async fn right_answer(shop: &Shop, seconds: f64) -> bool {
    let answer = shop.send(ask(&tone(seconds), "")).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
    assert_eq!(answer.json["intent"], "add_to_cart", "{:?}", answer.json);
    let words = answer.json["transcription"].as_str().and_then(|words| words.strip_suffix(" s")).unwrap();
    assert!((words.parse::<f64>().unwrap() - seconds).abs() < 0.06, "{:?}", answer.json);
    assert_eq!(answer.json["filename"], "clip.wav");
    assert_eq!(answer.headers["x-request-id"].to_str().unwrap(), answer.json["request_id"]);
    answer.json["cached"] == true
}

#[tokio::test]
async fn what_one_replica_worked_out_the_others_know() {
    let redis = Redis::start(Manner::Works).await;
    let (first, second) = (replica(&redis.url()).await, replica(&redis.url()).await);
    until_connected(&first).await;
    until_connected(&second).await;
    let asked = second.control.started();
    assert!(!right_answer(&first, 0.3).await);
    until_kept(&redis, "0.3 s").await;
    assert!(right_answer(&second, 0.3).await);
    assert!(right_answer(&second, 0.3).await);
    assert_eq!(second.control.started(), asked, "the model was not asked");
    assert_eq!((hits(&second, "shared_hit").await, hits(&second, "local_hit").await), (1.0, 1.0));

    // A rejection too; and another parameter is another question.
    let reject = || ask(&silence(0.4), "top_k=2");
    assert_eq!(first.send(reject()).await.json["rejection"], "no_speech");
    until_kept(&redis, "0.4 s").await;
    let known = second.send(reject()).await.json;
    assert_eq!((&known["rejection"], &known["cached"]), (&"no_speech".into(), &true.into()), "{known}");
    assert_ne!(second.send(ask(&tone(0.3), "top_k=1")).await.json["cached"], true);
}

#[tokio::test]
async fn what_is_kept_names_no_file_and_no_request() {
    let redis = Redis::start(Manner::Works).await;
    let shop = replica(&redis.url()).await;
    until_connected(&shop).await;
    right_answer(&shop, 0.3).await;
    until_kept(&redis, "0.3 s").await;
    for (key, value) in redis.values.lock().unwrap().iter() {
        assert!(key.starts_with("okyeame:answer:") && key.len() == 15 + 64, "{key}");
        let value: serde_json::Value = serde_json::from_slice(value).unwrap();
        assert_eq!((&value["filename"], &value["request_id"]), (&"".into(), &"".into()), "{value}");
    }
    assert!(!format!("{:?}", shop.server).contains("pa55word"), "{:?}", shop.server);
}

#[tokio::test]
async fn a_redis_that_fails_in_any_way_costs_hits_and_no_answers() {
    for (manner, cause) in [
        (Manner::Mute, "connect"),
        (Manner::HangsUp, "connect"),
        (Manner::FallsSilent, "timeout"),
        (Manner::Garbage, "connect"),
        (Manner::DiesInTheMiddle, "connection"),
        (Manner::Refuses, "refused"),
        (Manner::Huge, "timeout"),
    ] {
        let redis = Redis::start(manner).await;
        let shop = impatient_replica(&redis.url()).await;
        // Also many at once, and the same clip again: that one is known here.
        let together = (1..=8).map(|i| right_answer(&shop, 0.1 * f64::from(i)));
        assert!(futures::future::join_all(together).await.iter().all(|cached| !cached), "{manner:?}");
        assert!(right_answer(&shop, 0.1).await, "{manner:?}");
        until(&shop, &format!("{manner:?}: {cause}"), async || failures(&shop, cause).await > 0.0).await;
        assert_eq!(hits(&shop, "shared_hit").await, 0.0, "{manner:?}");
    }
}

#[tokio::test]
async fn one_that_fails_and_heals_is_used_again() {
    for manner in [Manner::FallsSilent, Manner::DiesInTheMiddle, Manner::HangsUp] {
        let redis = Redis::start(Manner::Works).await;
        let shop = impatient_replica(&redis.url()).await;
        until_connected(&shop).await;
        *redis.manner.lock().unwrap() = manner;
        let is_down = async || metric(&shop, "okyeame_shared_cache_connected").await == 0.0;
        until(&shop, &format!("{manner:?}: noticed"), is_down).await;
        *redis.manner.lock().unwrap() = Manner::Works;
        until_connected(&shop).await;
        let kept = redis.values.lock().unwrap().len();
        let keeps_more = async || redis.values.lock().unwrap().len() > kept;
        until(&shop, &format!("{manner:?}: an answer kept"), keeps_more).await;
    }
}

#[tokio::test]
async fn after_a_failure_it_is_left_alone_for_a_while() {
    let redis = Redis::start(Manner::FallsSilent).await;
    let shop = impatient_replica(&redis.url()).await;
    until(&shop, "a question", async || failures(&shop, "timeout").await > 0.0).await;
    let begin = Instant::now();
    let count = || redis.asked.lock().unwrap().iter().filter(|name| *name == "GETRANGE" || *name == "SET").count();
    let before = count();
    for i in 0..20 {
        right_answer(&shop, 0.1 + 0.01 * f64::from(i)).await;
    }
    // One connection a second, and what was asked on each until it was found silent.
    let probes = 1 + usize::try_from(begin.elapsed().as_secs()).unwrap();
    let asked = count() - before;
    assert!(asked <= 4 * probes, "{asked} questions in {probes} s");
}

#[tokio::test]
async fn a_value_of_somebody_else_is_a_miss_and_is_replaced() {
    for foreign in [b"not JSON".to_vec(), b"{\"intent\": \"place_order\"}".to_vec(), vec![b'['; 100_000]] {
        let redis = Redis::start(Manner::Works).await;
        let shop = replica(&redis.url()).await;
        until_connected(&shop).await;
        right_answer(&shop, 0.3).await;
        until_kept(&redis, "0.3 s").await;
        for value in redis.values.lock().unwrap().values_mut() {
            value.clone_from(&foreign);
        }
        let other = replica(&redis.url()).await;
        until_connected(&other).await;
        let before = failures(&other, "damaged_value").await;
        assert!(!right_answer(&other, 0.3).await);
        assert_eq!(failures(&other, "damaged_value").await, before + 1.0);
        until_kept(&redis, "0.3 s").await;
        let third = replica(&redis.url()).await;
        until_connected(&third).await;
        assert!(right_answer(&third, 0.3).await);
    }
}

#[tokio::test]
async fn a_server_starts_before_its_redis() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let shop = replica(&format!("redis://:pa55word@{address}")).await;
    assert!(!right_answer(&shop, 0.3).await);
    until(&shop, "a refused connection", async || failures(&shop, "connect").await > 0.0).await;
    // Nobody takes a port meanwhile that the system gave just now.
    let Ok(listener) = TcpListener::bind(address).await else { return };
    let redis = Redis::serve(listener, Manner::Works);
    until_connected(&shop).await;
    right_answer(&shop, 0.5).await;
    until_kept(&redis, "0.5 s").await;
}

#[tokio::test]
async fn with_the_cache_off_nothing_is_asked() {
    let redis = Redis::start(Manner::Works).await;
    let cache = CacheUrl::parse(&redis.url()).unwrap();
    let shop = Shop::with(|config| {
        config.cache = Some(cache);
        config.cache_ttl_s = 0;
    })
    .await;
    assert!(!right_answer(&shop, 0.3).await && !right_answer(&shop, 0.3).await);
    assert!(redis.asked.lock().unwrap().is_empty());
}

/// A real server on a port of its own, which ends with the test.
struct RealRedis {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Drop for RealRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl RealRedis {
    const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];

    /// `None` if this machine has none.
    async fn start(port: u16) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let child = Self::PROGRAMS.iter().find_map(|program| {
            Command::new(program)
                .args([
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                    "--requirepass",
                    "pa55word",
                    "--port",
                ])
                .arg(port.to_string())
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .ok()
        })?;
        let redis = Self { child, folder, port };
        let begin = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            assert!(begin.elapsed() < Duration::from_secs(20), "{} never listened", redis.folder.path().display());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(redis)
    }

    fn url(&self) -> String {
        format!("redis://:pa55word@127.0.0.1:{}/1", self.port)
    }

    /// Asks by hand, so that the crate under test does not vouch for itself.
    async fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap();
        stream.write_all(format!("AUTH pa55word\r\nSELECT 1\r\n{command}\r\nQUIT\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let greeting = "+OK\r\n+OK\r\n";
        answer.strip_prefix(greeting).and_then(|rest| rest.strip_suffix("+OK\r\n")).unwrap().to_owned()
    }

    async fn keys(&self) -> Vec<String> {
        let answer = self.ask("KEYS *").await;
        answer.lines().filter(|line| line.starts_with("okyeame:answer:")).map(str::to_owned).collect()
    }

    async fn until_kept(&self, words: &str) {
        let wanted = format!(r#""transcription":"{words}""#);
        let begin = Instant::now();
        loop {
            for key in self.keys().await {
                if self.ask(&format!("GET {key}")).await.contains(&wanted) {
                    return;
                }
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "'{words}' was never kept");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_real_redis_shares_and_may_die() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let Some(redis) = RealRedis::start(port).await else {
        eprintln!("neither valkey-server nor redis-server is installed: only the imitation was tested");
        return;
    };
    let (first, second) = (replica(&redis.url()).await, replica(&redis.url()).await);
    until_connected(&first).await;
    until_connected(&second).await;
    assert!(!right_answer(&first, 0.3).await);
    redis.until_kept("0.3 s").await;
    assert!(right_answer(&second, 0.3).await);
    assert_eq!(hits(&second, "shared_hit").await, 1.0);
    for key in redis.keys().await {
        let ttl_s: u64 = redis.ask(&format!("TTL {key}")).await.trim().trim_start_matches(':').parse().unwrap();
        assert!((1..=first.config.cache_ttl_s).contains(&ttl_s), "{key} lives for {ttl_s} s");
    }

    let url = redis.url();
    drop(redis);
    let is_down = async || metric(&first, "okyeame_shared_cache_connected").await == 0.0;
    until(&first, "the loss", is_down).await;
    let redis = RealRedis::start(port).await.expect("it was there before");
    until_connected(&first).await;
    right_answer(&first, 0.7).await;
    redis.until_kept("0.7 s").await;
    let third = replica(&url).await;
    until_connected(&third).await;
    assert!(right_answer(&third, 0.7).await);
}
