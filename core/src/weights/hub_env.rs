//! Where the hub is, who asks and where its cache lies, as the environment says it.
//!
//! The variables, and their order, are those of hf-hub 1.0 (`constants.rs`, `client.rs`) and of
//! huggingface_hub, so that whoever is set up for one is set up for this.

use std::path::PathBuf;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Reads variables; a test puts its own table in place of the process's environment.
pub(super) struct Environment<F: Fn(&str) -> Option<String>>(F);

/// The process's own.
pub(super) fn environment() -> Environment<impl Fn(&str) -> Option<String>> {
    Environment(|name: &str| std::env::var(name).ok())
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    /// A variable that says something.
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// `HF_ENDPOINT`, else the hub.
    pub(super) fn endpoint(&self) -> String {
        self.get("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned())
    }

    /// A switch, as huggingface_hub reads it: anything else is off.
    fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| matches!(v.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
    }

    /// A path; `~/` is the user's home, which no shell has put there if the variable comes from a file.
    fn path(&self, name: &str) -> Option<PathBuf> {
        let path = self.get(name)?;
        match path.strip_prefix("~/") {
            Some(rest) => Some(self.user()?.join(rest)),
            None => Some(PathBuf::from(path)),
        }
    }

    fn user(&self) -> Option<PathBuf> {
        self.get("HOME").or_else(|| self.get("USERPROFILE")).map(PathBuf::from)
    }

    /// `HF_HUB_OFFLINE`.
    pub(super) fn offline(&self) -> bool {
        self.is_on("HF_HUB_OFFLINE")
    }

    /// `HF_TOKEN`, or its older name, else what `hf auth login` stored; nothing under
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN`.
    pub(super) fn token(&self) -> Option<String> {
        if self.is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            return None;
        }
        self.get("HF_TOKEN").or_else(|| self.get("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
            let stored = match self.path("HF_TOKEN_PATH") {
                Some(path) => path,
                None => self.home()?.join("token"),
            };
            let token = std::fs::read_to_string(stored).ok()?;
            Some(token.trim().to_owned()).filter(|token| !token.is_empty())
        })
    }

    /// `HF_HUB_CACHE`, else the folder `hub` of [`Self::home`].
    pub(super) fn cache(&self) -> Option<PathBuf> {
        self.path("HF_HUB_CACHE")
            .or_else(|| self.path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(self.home()?.join("hub")))
    }

    /// `HF_HOME`, else `huggingface` among the user's caches.
    fn home(&self) -> Option<PathBuf> {
        self.path("HF_HOME")
            .or_else(|| Some(self.path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(self.user()?.join(".cache").join("huggingface")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Environment<impl Fn(&str) -> Option<String>> {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Environment(move |name: &str| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()))
    }

    #[test]
    fn the_cache_follows_the_variables_in_order() {
        let cache = |pairs: &[(&str, &str)]| with(pairs).cache();
        assert_eq!(cache(&[("HOME", "/h")]), Some("/h/.cache/huggingface/hub".into()));
        assert_eq!(cache(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), Some("/x/huggingface/hub".into()));
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "/f")]), Some("/f/hub".into()));
        assert_eq!(cache(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/f")]), Some("/c".into()));
        assert_eq!(cache(&[("HOME", "/h"), ("HF_HOME", "~/f")]), Some("/h/f/hub".into()));
        assert_eq!(cache(&[("HF_HOME", "")]), None);
    }

    #[test]
    fn the_token_is_the_variable_or_the_stored_one() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().to_str().unwrap();
        assert_eq!(with(&[("HF_HOME", folder)]).token(), None);
        std::fs::write(home.path().join("token"), "hf_stored\n").unwrap();
        assert_eq!(with(&[("HF_HOME", folder)]).token().as_deref(), Some("hf_stored"));
        assert_eq!(with(&[("HF_HOME", folder), ("HF_TOKEN", "hf_env")]).token().as_deref(), Some("hf_env"));
        assert_eq!(with(&[("HUGGING_FACE_HUB_TOKEN", "hf_old")]).token().as_deref(), Some("hf_old"));
        assert_eq!(with(&[("HF_TOKEN", "hf_env"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token(), None);
        let allowed = with(&[("HF_TOKEN", "hf_env"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")]);
        assert_eq!(allowed.token().as_deref(), Some("hf_env"));
    }

    #[test]
    fn endpoint_and_offline() {
        assert_eq!(with(&[]).endpoint(), "https://huggingface.co");
        assert_eq!(with(&[("HF_ENDPOINT", "https://mirror")]).endpoint(), "https://mirror");
        assert!(with(&[("HF_HUB_OFFLINE", "1")]).offline() && with(&[("HF_HUB_OFFLINE", "true")]).offline());
        assert!(!with(&[("HF_HUB_OFFLINE", "0")]).offline() && !with(&[]).offline());
    }
}
