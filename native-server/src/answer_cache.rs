//! Answers that need not be worked out again: the same audio, the same model, the same parameters.
//!
//! The key is a hash of all three, so a change of any parameter misses. What belongs to one request (file
//! name, request id, times) is not kept. The cache is bounded in bytes, and an answer lives for a time.
//! Behind the answers of this process may stand those that replicas share ([`crate::shared_cache`]). Then the model's fingerprint
//! must name what the model is made of and what computes it, see [`crate::engine::Engine::fingerprint`].

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use okyeame_core::{Recognition, RecognizeOptions};

use crate::shared_cache::SharedCache;

/// Bytes that an entry costs beside its answer: the key, and moka's own books (a rough figure).
const ENTRY_OVERHEAD_BYTES: u32 = 256;
/// Before the key, for whoever else uses the same Redis.
const SHARED_PREFIX: &str = "okyeame:answer:";

/// A hash of audio, model and parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey([u8; 32]);

impl CacheKey {
    /// Hashes everything that an answer depends on.
    pub(crate) fn new(model_fingerprint: &str, parameters: &RecognizeOptions, audio: &[u8]) -> Self {
        // Every parameter, those that are added later too.
        let options = serde_json::to_vec(parameters).expect("options are plain data with string keys");
        // The options hold a digest of the catalogue, which is none against somebody who wants two of the same.
        let catalogue = parameters.catalogue.as_ref().map_or(&[][..], |catalogue| catalogue.content());
        let mut hasher = blake3::Hasher::new();
        // Another version may answer in another form.
        let version = env!("CARGO_PKG_VERSION").as_bytes();
        for part in [version, model_fingerprint.as_bytes(), &options, catalogue, audio] {
            // The length first: no two lists of parts give the same bytes.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The key among all that stands in a shared cache.
    fn shared(&self) -> String {
        format!("{SHARED_PREFIX}{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// Where an answer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// In this process.
    Local,
    /// Among those that replicas share.
    Shared,
}

#[derive(Clone)]
struct Entry {
    recognition: Arc<Recognition>,
    bytes: u32,
}

/// The answers of this process, and perhaps those of others behind them.
pub(crate) struct AnswerCache {
    /// `None`: turned off.
    entries: Option<Cache<CacheKey, Entry>>,
    shared: Option<Arc<SharedCache>>,
}

impl AnswerCache {
    /// A cache of at most `max_bytes`; 0 turns it off.
    pub(crate) fn new(max_bytes: u64, ttl_s: u64) -> Self {
        let entries = (max_bytes > 0 && ttl_s > 0).then(|| {
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(|_: &CacheKey, entry: &Entry| entry.bytes)
                .time_to_live(Self::ttl(ttl_s))
                .build()
        });
        Self { entries, shared: None }
    }

    /// With the answers of other replicas behind those of this process.
    pub(crate) fn sharing(self, shared: Option<Arc<SharedCache>>) -> Self {
        Self { shared, ..self }
    }

    /// moka refuses more than 1000 years.
    pub(crate) fn ttl(ttl_s: u64) -> Duration {
        Duration::from_secs(ttl_s.min(365 * 24 * 3600))
    }

    /// Whether answers are kept at all.
    pub(crate) fn is_enabled(&self) -> bool {
        self.entries.is_some() || self.shared.is_some()
    }

    /// Answers held, and their bytes. Both lag a little behind.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.entries.as_ref().map_or((0, 0), |entries| (entries.entry_count(), entries.weighted_size()))
    }

    /// The answer, marked as cached, and where it was; the caller fills what belongs to its own request. What others found is
    /// kept here too, and lives here as long as an answer of our own.
    pub(crate) async fn get(&self, key: &CacheKey) -> Option<(Recognition, Level)> {
        let found = self.entries.as_ref().and_then(|entries| entries.get(key));
        if let Some(entry) = found {
            return Some((Recognition { cached: true, ..Recognition::clone(&entry.recognition) }, Level::Local));
        }
        let recognition = self.shared.as_ref()?.get(&key.shared()).await?;
        if let Ok(json) = serde_json::to_vec(&recognition) {
            self.insert_here(*key, recognition.clone(), json.len());
        }
        Some((Recognition { cached: true, ..recognition }, Level::Shared))
    }

    /// Keeps an answer, here and for the others; waits for nobody.
    pub(crate) fn insert(&self, key: CacheKey, recognition: Recognition) {
        let Ok(json) = serde_json::to_vec(&recognition) else { return };
        self.insert_here(key, recognition, json.len());
        if let Some(shared) = &self.shared {
            shared.insert(key.shared(), json);
        }
    }

    fn insert_here(&self, key: CacheKey, recognition: Recognition, json_len: usize) {
        let Some(entries) = &self.entries else { return };
        let bytes = u32::try_from(json_len).unwrap_or(u32::MAX).saturating_add(ENTRY_OVERHEAD_BYTES);
        entries.insert(key, Entry { recognition: Arc::new(recognition), bytes });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use okyeame_core::intent::catalogue::Catalogue;

    use super::*;

    #[test]
    fn the_key_depends_on_every_part() {
        let options = RecognizeOptions::default();
        let key = CacheKey::new("model", &options, b"audio");
        assert_eq!(key, CacheKey::new("model", &options, b"audio"));
        assert_ne!(key, CacheKey::new("mode", &options, b"laudio"));
        assert_ne!(key, CacheKey::new("other", &options, b"audio"));
        assert_ne!(key, CacheKey::new("model", &options, b"audip"));
        for changed in [
            RecognizeOptions { top_k: options.top_k + 1, ..options.clone() },
            RecognizeOptions { language: Some("tw".to_owned()), ..options.clone() },
            RecognizeOptions { transcribe: !options.transcribe, ..options.clone() },
            RecognizeOptions { beam_size: options.beam_size + 1, ..options.clone() },
            RecognizeOptions { catalogue: Some(shop("rice")), ..options.clone() },
        ] {
            assert_ne!(key, CacheKey::new("model", &changed, b"audio"));
        }
        let with = |name| RecognizeOptions { catalogue: Some(shop(name)), ..options.clone() };
        let of_rice = CacheKey::new("model", &with("rice"), b"audio");
        assert_eq!(of_rice, CacheKey::new("model", &with("Rice"), b"audio"), "what is matched is the same");
        assert_ne!(of_rice, CacheKey::new("model", &with("sugar"), b"audio"));
    }

    #[test]
    fn a_key_among_others_has_a_name_of_its_own() {
        let key = CacheKey::new("model", &RecognizeOptions::default(), b"audio");
        let hex = key.shared().strip_prefix("okyeame:answer:").map(str::to_owned).unwrap();
        assert!(hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hex}");
    }

    fn shop(name: &str) -> Arc<Catalogue> {
        let text = format!(r#"{{"products": [{{"value": "x", "names": ["{name}"]}}]}}"#);
        Arc::new(Catalogue::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_cache_of_no_bytes_is_off() {
        assert!(!AnswerCache::new(0, 3600).is_enabled());
        assert!(!AnswerCache::new(1, 0).is_enabled());
        assert!(AnswerCache::new(1 << 20, 3600).is_enabled());
    }
}
