//! `okyeame server`: binds, loads the model behind the open port, and stops in good order.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::access::is_origin;
use crate::access::keys::{self, ApiKey};
use crate::access::tokens::TokenSecret;
use crate::cli::recognize::catalogue;
use crate::cli::{CliError, ComputeArgs, ModelArgs, load_engine, thread_count};
use crate::config::{ServerConfig, available_threads};
use crate::connections;
use crate::logging;
use crate::memory;
use crate::routes::app;
use crate::shared_cache::CacheUrl;
use crate::state::Server;
use crate::tls::Tls;
use crate::traces::CollectorUrl;

/// How long beyond the requests' own time limit a stopping server waits for slow connections.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// Serve a model over HTTP.
///
/// The port opens at once; until the model is loaded and has answered a warm-up clip, GET /live answers
/// 200 and everything else 503. SIGTERM and Ctrl-C stop it: no new work, accepted work is finished. SIGHUP loads the model
/// again, such as after its files were replaced, while the one before answers; POST /admin/models loads another.
/// Logs go to stderr and to logs/api_server.log.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The port; 0 lets the system choose one.
    #[arg(long, env = "PORT", default_value_t = ServerConfig::default().port)]
    port: u16,
    /// A TOML file with the settings; flags and the environment come first. --print-config shows what may stand in it.
    #[arg(long, value_name = "FILE", env = "OKYEAME_CONFIG")]
    config: Option<PathBuf>,
    /// Print all settings, as they would be used, as such a file; then end.
    #[arg(long)]
    print_config: bool,
    /// The address to listen on. Other machines reach it only if it is not loopback; then a key is asked for.
    #[arg(long, default_value_t = ServerConfig::default().host)]
    host: String,
    /// The shop's products, brands, categories, sizes and colours, with the names that customers call them by: JSON, or
    /// a table with the heading slot,value,name.
    ///
    /// It is for requests that bring none of their own in the form's field catalogue.
    #[arg(long, value_name = "FILE", env = "OKYEAME_CATALOGUE")]
    catalogue: Option<PathBuf>,
    /// A folder with web bundles, for browsers that compute by themselves: DIR/default holds what `okyeame export-web`
    /// made, and is served as /models/default/.
    #[arg(long, value_name = "DIR", value_parser = folder)]
    models: Option<PathBuf>,
    /// A folder with a shop's pages, served at / in the place of the built-in page.
    #[arg(long, value_name = "DIR", value_parser = folder)]
    site: Option<PathBuf>,
    /// A page's origin, such as https://shop.example, that may ask for answers from another address; may be repeated.
    /// '*' allows every page.
    #[arg(long = "allow-origin", value_name = "ORIGIN", value_delimiter = ',', value_parser = origin)]
    allowed_origins: Vec<HeaderValue>,
    /// The file of keys that open the API, made by 'okyeame key NAME --add FILE'. Without a key, access is off.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Listen for other machines without asking for a key.
    #[arg(long)]
    insecure: bool,
    /// A file with the secret that browsers' tokens (POST /v1/tokens) are signed with, at least 32 bytes, the same for all
    /// replicas. Without it, a new one at each start.
    #[arg(long, value_name = "FILE")]
    token_secret: Option<PathBuf>,
    /// How often a key, or a browser's token, may ask in a minute; beyond that, 429. 0 is no limit.
    #[arg(long, value_name = "N", default_value_t = ServerConfig::default().requests_per_minute)]
    requests_per_minute: u32,
    /// Answer with HTTPS: the certificate chain, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Threads of the model's arithmetic, for commands and again for what writes words, and the most that serve connections.
    /// Without it, one for each core.
    #[arg(long, value_name = "N", value_parser = thread_count, allow_negative_numbers = true)]
    threads: Option<usize>,
    /// The largest request body, bytes; a batch is one body.
    #[arg(long, value_name = "BYTES", default_value_t = ServerConfig::default().max_body_bytes)]
    max_body_bytes: usize,
    /// The longest clip, seconds, counted while decoding.
    #[arg(long, value_name = "SECONDS", default_value_t = ServerConfig::default().max_audio_s, value_parser = positive)]
    max_audio_s: f64,
    /// The most files of one batch.
    #[arg(long, value_name = "N", default_value_t = ServerConfig::default().max_batch_files)]
    max_batch_files: usize,
    /// How many clips may wait for the model; beyond that, 429.
    #[arg(long, value_name = "N", default_value_t = ServerConfig::default().queue_len)]
    queue_len: usize,
    /// How many commands (intents without words) are taken together, of those that wait when the model is free.
    #[arg(long, value_name = "N", default_value_t = ServerConfig::default().max_batch)]
    max_batch: usize,
    /// How long a command waits for others to share a pass with, milliseconds, while the model is free.
    #[arg(long, value_name = "MS", default_value_t = ServerConfig::default().batch_wait_ms, value_parser = not_negative)]
    batch_wait_ms: f64,
    /// How long a request may take, seconds; beyond that, 504.
    #[arg(long, value_name = "SECONDS", default_value_t = ServerConfig::default().request_timeout_s, value_parser = positive)]
    request_timeout_s: f64,
    /// How many connections may be open together; more wait until one ends.
    #[arg(long, value_name = "N", default_value_t = ServerConfig::default().max_connections)]
    max_connections: usize,
    /// How many streams (GET /v1/stream) may be open together; beyond that, 429. Each is a connection, too.
    #[arg(long, value_name = "N", default_value_t = ServerConfig::default().max_streams)]
    max_streams: usize,
    /// In how many seconds a request's header must be there. An idle connection is closed after as many.
    #[arg(long, value_name = "SECONDS", default_value_t = ServerConfig::default().header_timeout_s, value_parser = positive)]
    header_timeout_s: f64,
    /// How many seconds a client may send nothing of a body that it began (then 408) or into its stream, or take nothing of
    /// its answer.
    #[arg(long, value_name = "SECONDS", default_value_t = ServerConfig::default().io_timeout_s, value_parser = positive)]
    io_timeout_s: f64,
    /// Keep the clips of commands, and what was heard in them, in this folder: its manifest.jsonl is one that `okyeame
    /// train` reads, once somebody has listened. Speech is personal data: ask those who speak.
    #[arg(long, value_name = "DIR")]
    store_audio: Option<PathBuf>,
    /// The most that this folder may hold, megabytes.
    #[arg(long, value_name = "MB", default_value_t = ServerConfig::default().store_audio_bytes >> 20)]
    store_audio_mb: u64,
    /// Write the log as JSON, one object on each line.
    #[arg(long)]
    log_json: bool,
    /// Send a trace of each request to an OpenTelemetry collector: its address for OTLP over HTTP, such as http://localhost:4318.
    ///
    /// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, the whole address for traces alone, comes first. OTEL_SERVICE_NAME,
    /// OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and the like hold too.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true)]
    otlp_endpoint: Option<String>,
    /// A Redis or Valkey where replicas share their answers: redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// with
    /// TLS. It may fail at any time: then answers are worked out again.
    ///
    /// It holds what customers said. A password is better given as OKYEAME_CACHE, which no list of processes shows.
    #[arg(long, value_name = "URL", hide_env_values = true)]
    cache: Option<String>,
    /// The size of the cache of answers in this process, bytes; 0 turns it off.
    #[arg(long, value_name = "BYTES", default_value_t = ServerConfig::default().cache_bytes)]
    cache_bytes: u64,
    /// How long a cached answer lives, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = ServerConfig::default().cache_ttl_s)]
    cache_ttl_s: u64,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("a number of seconds, more than 0".to_owned()),
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("a number, 0 or more".to_owned()),
    }
}

fn folder(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() { Ok(path) } else { Err("there is no such folder".to_owned()) }
}

fn origin(text: &str) -> Result<HeaderValue, String> {
    match HeaderValue::from_str(text) {
        Ok(value) if is_origin(text) || text == "*" => Ok(value),
        _ => Err("an origin such as https://shop.example, without a path, or '*'".to_owned()),
    }
}

/// The keys of the file and of the environment.
fn keys(file: Option<&Path>) -> Result<Vec<ApiKey>, CliError> {
    let mut keys = file.map(keys::read).transpose()?.unwrap_or_default();
    if let Ok(secret) = std::env::var("OKYEAME_API_KEY") {
        keys.push(ApiKey::from_environment(&secret)?);
    }
    keys::check_names(&keys)?;
    Ok(keys)
}

fn token_secret(file: &Path) -> Result<TokenSecret, CliError> {
    let bytes = std::fs::read(file).map_err(CliError::io(format!("reading {}", file.display())))?;
    TokenSecret::new(&bytes).ok_or_else(|| CliError::ShortSecret { path: file.display().to_string() })
}

pub(crate) fn run(args: Args) -> Result<ExitCode, CliError> {
    memory::keep_for_a_moment();
    #[cfg(target_os = "linux")]
    memory::no_huge_pages();
    let _log = logging::init(Path::new("logs"), args.log_json);
    // Not for rayon's own pool, which a server never starts: `inference_worker` has the pools.
    let threads = args.threads.unwrap_or_else(available_threads);
    let config = ServerConfig {
        host: args.host,
        port: args.port,
        model: args.model.choice()?,
        catalogue: args.catalogue.as_deref().map(catalogue).transpose()?,
        models_dir: args.models,
        site_dir: args.site,
        allowed_origins: args.allowed_origins,
        keys: keys(args.keys.as_deref())?,
        token_secret: args.token_secret.as_deref().map(token_secret).transpose()?,
        requests_per_minute: args.requests_per_minute,
        tls: args
            .tls_cert
            .as_deref()
            .zip(args.tls_key.as_deref())
            .map(|(cert, key)| Tls::load(cert, key))
            .transpose()?,
        max_body_bytes: args.max_body_bytes,
        max_audio_s: args.max_audio_s,
        max_batch_files: args.max_batch_files.max(1),
        queue_len: args.queue_len,
        max_batch: args.max_batch,
        batch_wait_ms: args.batch_wait_ms,
        request_timeout_s: args.request_timeout_s,
        max_connections: args.max_connections,
        max_streams: args.max_streams,
        header_timeout_s: args.header_timeout_s,
        io_timeout_s: args.io_timeout_s,
        store_audio: args.store_audio,
        store_audio_bytes: args.store_audio_mb.saturating_mul(1 << 20),
        collector: CollectorUrl::choose(args.otlp_endpoint.as_deref())?,
        cache: args.cache.as_deref().map(CacheUrl::parse).transpose()?,
        cache_bytes: args.cache_bytes,
        cache_ttl_s: args.cache_ttl_s,
        threads,
        ..ServerConfig::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.min(available_threads()))
        .enable_all()
        .build()
        .map_err(CliError::io("starting the runtime"))?;
    let result = runtime.block_on(serve(config, args.model.compute.clone(), args.insecure));
    // A clip that was given up may still be in a decoder: do not wait for it.
    runtime.shutdown_background();
    result
}

async fn serve(config: ServerConfig, compute: ComputeArgs, insecure: bool) -> Result<ExitCode, CliError> {
    let listener = bind(&config).await?;
    let address = listener.local_addr().map_err(CliError::io("reading the address"))?;
    let (scheme, has_keys) = (if config.tls.is_some() { "https" } else { "http" }, !config.keys.is_empty());
    let is_public = !address.ip().is_loopback();
    if is_public && !has_keys && !insecure {
        return Err(CliError::OpenToAll { address: address.to_string() });
    }
    tracing::info!(model = config.model.label(), "listening on {scheme}://{address}/, loading the model");
    if is_public && !has_keys {
        tracing::warn!("no key is asked for (--insecure): whoever reaches this address may use it");
    } else if is_public && config.tls.is_none() {
        tracing::warn!(
            "keys and speech travel in the clear: put a proxy that speaks HTTPS in front, or give --tls-cert and --tls-key"
        );
    }
    let drain_limit = config.request_timeout() + DRAIN_GRACE;
    let shares = config.cache.is_some();
    let server = Server::with_loader(config, move |choice| load_engine(choice, &compute, shares))
        .map_err(CliError::io("starting the server"))?;
    load_again_at_hangup(Arc::clone(&server));

    let stopping = Arc::new(Notify::new());
    let stop = {
        let (server, stopping) = (Arc::clone(&server), Arc::clone(&stopping));
        async move {
            tokio::select! {
                () = asked_to_stop() => tracing::info!("stopping: accepted work is finished first"),
                () = failed(&server) => {}
            }
            server.begin_drain();
            stopping.notify_one();
        }
    };
    tokio::spawn(announce(Arc::clone(&server), format!("{scheme}://{address}")));

    let serving = connections::serve(listener, app(Arc::clone(&server)), &server.config, stop);
    let out_of_patience = async {
        stopping.notified().await;
        tokio::select! {
            () = tokio::time::sleep(drain_limit) => {}
            () = asked_to_stop() => {}
        }
    };
    tokio::select! {
        () = serving => {}
        () = out_of_patience => tracing::warn!("stopping now: some connections were still open"),
    }
    server.finish();
    if let Err(why) = loaded_so_far(&server) {
        return Err(CliError::Model(why));
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn bind(config: &ServerConfig) -> Result<TcpListener, CliError> {
    let what = || format!("listening on {}:{}", config.host, config.port);
    // An IPv6 address may come in brackets.
    let host = config.host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) => TcpListener::bind((address, config.port)).await,
        Err(_) => {
            // `localhost` names two addresses; the first that can be bound is taken.
            let addresses: Vec<_> = (host, config.port).to_socket_addrs().map_err(CliError::io(what()))?.collect();
            TcpListener::bind(&addresses[..]).await
        }
    }
    .map_err(CliError::io(what()))
}

/// Says when the model is there, and what to try.
async fn announce(server: Arc<Server>, address: String) {
    if server.loaded().await.is_ok() {
        let key = if server.config.keys.is_empty() { "" } else { "-H 'Authorization: Bearer KEY' " };
        tracing::info!("ready: curl {key}-F file=@command.wav '{address}/test-intent'");
    }
}

/// Loads the model again whenever SIGHUP comes; several while one is being loaded are one.
#[cfg(unix)]
fn load_again_at_hangup(server: Arc<Server>) {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(error) => {
            tracing::warn!(cause = %error, "SIGHUP will not load the model again");
            return;
        }
    };
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            tracing::info!("SIGHUP: loading the model again");
            if let Err(error) = server.load(server.chosen()).await {
                tracing::warn!(code = error.code(), "SIGHUP: the model was not loaded again: {}", error.detail());
            }
        }
    });
}

#[cfg(not(unix))]
fn load_again_at_hangup(_: Arc<Server>) {}

/// Comes back only if the model could not be loaded.
async fn failed(server: &Server) {
    if server.loaded().await.is_ok() {
        std::future::pending().await
    }
}

/// Why the model could not be loaded, if that is so.
fn loaded_so_far(server: &Server) -> Result<(), String> {
    use futures::FutureExt;
    // `None`: still loading, which is no failure.
    server.loaded().now_or_never().unwrap_or(Ok(()))
}

/// Comes back at SIGTERM or Ctrl-C.
async fn asked_to_stop() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
