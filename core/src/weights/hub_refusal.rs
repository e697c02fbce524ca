//! What the hub's refusals mean: a stable code, a sentence a person can act on, and whether to ask again. No I/O.
//!
//! Follows `hf_raise_for_status` and `parse_ratelimit_headers` of huggingface_hub 1.x (`utils/_http.py`): the header
//! `X-Error-Code` tells a gated repository from a private one, and a missing repository from a missing revision or
//! file.
//!
//! Of the hub's own words only those are compared that are listed here, and none is shown: an answer may be forged.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::hub_client::Retry;

/// Where an account makes its tokens.
const TOKENS: &str = "https://huggingface.co/settings/tokens";

/// An answer that is neither a success nor a redirect, and who got it.
pub(super) struct Refusal<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    /// The host that answered, for people.
    pub(super) host: &'a str,
    /// Whether that is the hub itself and not a storage that it redirects to.
    pub(super) is_hub: bool,
    pub(super) has_token: bool,
    /// The repository's page.
    pub(super) page: &'a str,
    /// What was asked for: a revision or a file.
    pub(super) what: &'a str,
}

impl Refusal<'_> {
    /// The error's code and its sentence.
    pub(super) fn meaning(&self) -> (&'static str, String) {
        let Self { status, host, what, .. } = self;
        match status.as_u16() {
            401 | 403 | 404 if !self.is_hub => {
                ("hub_failed", format!("{host}, where the hub keeps the file, answered {status}; try again later"))
            }
            401 => ("hub_unauthorized", self.unauthorized()),
            403 => ("hub_forbidden", self.forbidden()),
            404 => ("hub_not_found", self.not_found()),
            407 => (
                "hub_failed",
                "the proxy wants a user and a password; give them in HTTPS_PROXY or HTTP_PROXY, as \
                 http://USER:PASSWORD@HOST:PORT"
                    .to_owned(),
            ),
            416 => ("hub_failed", format!("{host} does not have the rest of {what}")),
            429 => ("hub_busy", self.too_many()),
            503 => ("hub_busy", format!("{host} is overloaded or down; try again later")),
            _ => ("hub_failed", format!("{host} answered {status}; try again later")),
        }
    }

    /// When to send the request again.
    pub(super) fn retry(&self) -> Retry {
        match self.status.as_u16() {
            429 | 503 => self.pause().map_or(Retry::Later, Retry::After),
            416 => Retry::Afresh,
            408 | 500..=599 => Retry::Later,
            _ => Retry::Never,
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim()
    }

    fn is_gated(&self) -> bool {
        self.header("x-error-code") == "GatedRepo"
    }

    /// A gated repository, to an account that has not been let in, or to nobody in particular.
    fn gated(&self) -> String {
        let page = self.page;
        if self.has_token {
            format!(
                "it is gated, and the token's account has not been let in; accept its terms on {page} with that \
                 account (some authors then answer by hand), and try again"
            )
        } else {
            format!(
                "it is gated; accept its terms on {page}, and set HF_TOKEN to a token of the account that did, \
                 from {TOKENS}"
            )
        }
    }

    fn unauthorized(&self) -> String {
        if self.is_gated() {
            self.gated()
        } else if !self.has_token {
            format!(
                "the hub has no such repository in public; check the name or, if it is private or gated, set \
                 HF_TOKEN to a token from {TOKENS}"
            )
        } else if self.header("x-error-message") == "Invalid credentials in Authorization header" {
            format!(
                "the hub does not know this token: it is mistyped, expired or deleted; make a new one at {TOKENS}, \
                 or unset HF_TOKEN if the repository is public"
            )
        } else {
            format!(
                "the hub refuses the token, or has no such repository; check the name, and make a token that may \
                 read it at {TOKENS}"
            )
        }
    }

    fn forbidden(&self) -> String {
        if self.is_gated() {
            self.gated()
        } else if self.header("x-error-message") == "Access to this resource is disabled." {
            "the hub has disabled this repository; nobody can fetch it, take another one".to_owned()
        } else if self.has_token {
            format!(
                "the token may not read it; if it is a fine-grained one, give it this repository at {TOKENS}, else \
                 set HF_TOKEN to a token of an account that may"
            )
        } else {
            format!(
                "the hub does not give it to somebody without a token; set HF_TOKEN to a token from {TOKENS} of an \
                 account that may read it"
            )
        }
    }

    fn not_found(&self) -> String {
        let what = self.what;
        match self.header("x-error-code") {
            "RevisionNotFound" | "EntryNotFound" => format!("the repository does not have {what}"),
            "RepoNotFound" if self.has_token => {
                "the hub has no such repository for the account of this token; check the name and, if it is \
                 private, the account"
                    .to_owned()
            }
            "RepoNotFound" => "the hub has no such repository; check the name".to_owned(),
            _ => format!("the hub has no such repository, or it does not have {what}; check both names"),
        }
    }

    fn too_many(&self) -> String {
        let host = self.host;
        let pause = self.pause().map_or_else(|| "some minutes".to_owned(), |pause| format!("{} s", pause.as_secs()));
        let token = if self.has_token { "" } else { ", or set HF_TOKEN: an account may ask more often" };
        format!("{host} takes no more requests from here for now; try again in {pause}{token}")
    }

    /// The pause that the hub asks for: `Retry-After` in seconds (its other form, a date, is rare and counts as none,
    /// as in huggingface_hub), or else `RateLimit: "api";r=0;t=55`, in which nothing is left for 55 s.
    fn pause(&self) -> Option<Duration> {
        let seconds = self.header(RETRY_AFTER.as_str()).parse().ok().or_else(|| {
            let limit = self.header("ratelimit");
            let value = |name: &str| limit.split(';').find_map(|part| part.trim().strip_prefix(name)?.parse().ok());
            // One more, since both clocks round.
            if value("r=")? == 0_u64 { value("t=").map(|t: u64| t.saturating_add(1)) } else { None }
        })?;
        Some(Duration::from_secs(seconds))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FORGED: &str = "hf_verySecretToken";

    /// The meaning of an answer; whatever it is, it shows nothing of what a forged answer says.
    fn meaning(status: u16, headers: &[(&'static str, &str)], has_token: bool) -> (&'static str, String, Retry) {
        let mut map = HeaderMap::new();
        map.insert("x-request-id", FORGED.parse().unwrap());
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let refusal = Refusal {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &map,
            host: "huggingface.co",
            is_hub: true,
            has_token,
            page: "https://huggingface.co/shop/twi",
            what: "the revision 'main'",
        };
        let (code, reason) = refusal.meaning();
        assert!(!reason.contains(FORGED), "{reason}");
        (code, reason, refusal.retry())
    }

    #[test]
    fn each_kind_of_refusal_has_a_sentence_of_its_own() {
        const GATED: (&str, &str) = ("X-Error-Code", "GatedRepo");
        const UNKNOWN: (&str, &str) = ("X-Error-Message", "Invalid credentials in Authorization header");
        const DISABLED: (&str, &str) = ("X-Error-Message", "Access to this resource is disabled.");
        let mut sentences = std::collections::BTreeSet::new();
        for (status, header, has_token, code, says) in [
            (401, None, false, "hub_unauthorized", "set HF_TOKEN to a token from"),
            (401, None, true, "hub_unauthorized", "make a token that may read it"),
            (401, Some(UNKNOWN), true, "hub_unauthorized", "expired or deleted"),
            (401, Some(GATED), false, "hub_unauthorized", "accept its terms on https://huggingface.co/shop/twi"),
            (403, Some(GATED), true, "hub_forbidden", "on https://huggingface.co/shop/twi with that account"),
            (403, None, true, "hub_forbidden", "fine-grained"),
            (403, None, false, "hub_forbidden", "without a token"),
            (403, Some(DISABLED), true, "hub_forbidden", "disabled this repository"),
            (404, Some(("X-Error-Code", "RepoNotFound")), false, "hub_not_found", "check the name"),
            (404, Some(("X-Error-Code", "RepoNotFound")), true, "hub_not_found", "account of this token"),
            (404, Some(("X-Error-Code", "RevisionNotFound")), true, "hub_not_found", "have the revision 'main'"),
            (404, None, true, "hub_not_found", "check both names"),
            (407, None, true, "hub_failed", "the proxy wants"),
            (418, Some(("X-Error-Message", FORGED)), true, "hub_failed", "answered 418"),
        ] {
            let headers: Vec<_> = header.into_iter().collect();
            let (got, reason, retry) = meaning(status, &headers, has_token);
            assert_eq!((got, retry), (code, Retry::Never), "{reason}");
            assert!(reason.contains(says), "{reason}");
            assert!(sentences.insert(reason.clone()), "said twice: {reason}");
        }
    }

    #[test]
    fn the_hub_says_how_long_to_wait() {
        let after = |seconds| Retry::After(Duration::from_secs(seconds));
        for (headers, retry, says) in [
            (vec![("Retry-After", "7")], after(7), "in 7 s"),
            (vec![("RateLimit", "\"api\";r=0;t=55")], after(56), "in 56 s"),
            (vec![("RateLimit", "\"api\"; r=3; t=55")], Retry::Later, "in some minutes"),
            (vec![("Retry-After", "7"), ("RateLimit", "\"api\";r=0;t=55")], after(7), "in 7 s"),
            (vec![("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT")], Retry::Later, "in some minutes"),
            (vec![("Retry-After", "-1")], Retry::Later, "in some minutes"),
            (vec![], Retry::Later, "in some minutes"),
        ] {
            let (code, reason, got) = meaning(429, &headers, false);
            assert_eq!((code, got), ("hub_busy", retry), "{headers:?}");
            assert!(reason.contains(says) && reason.contains("set HF_TOKEN"), "{reason}");
        }
        assert!(!meaning(429, &[], true).1.contains("HF_TOKEN"));
        assert_eq!(meaning(503, &[("Retry-After", "2")], false).2, after(2));
        assert_eq!(meaning(500, &[], false).2, Retry::Later);
        assert_eq!(meaning(416, &[], false).2, Retry::Afresh);
    }
}
