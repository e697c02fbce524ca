//! Answers that need not be worked out again: the same audio, the same model, the same parameters.
//!
//! The key is a hash of all three, so a change of any parameter misses. What belongs to one request (file
//! name, request id, times) is not kept. The cache is bounded in bytes, and an answer lives for a time.
//! Not for sharing between processes: a model's fingerprint is what it says of itself, see
//! [`crate::engine::Engine::fingerprint`].

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use okyeame_core::{Recognition, RecognizeOptions};

/// Bytes that an entry costs beside its answer: the key, and moka's own books (a rough figure).
const ENTRY_OVERHEAD_BYTES: u32 = 256;

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
        for part in [model_fingerprint.as_bytes(), &options, catalogue, audio] {
            // The length first: no two lists of parts give the same bytes.
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

#[derive(Clone)]
struct Entry {
    recognition: Arc<Recognition>,
    bytes: u32,
}

/// The answers of this process.
pub(crate) struct AnswerCache {
    /// `None`: turned off.
    entries: Option<Cache<CacheKey, Entry>>,
}

impl AnswerCache {
    /// A cache of at most `max_bytes`; 0 turns it off.
    pub(crate) fn new(max_bytes: u64, ttl_s: u64) -> Self {
        // moka refuses more than 1000 years.
        let ttl = Duration::from_secs(ttl_s.min(365 * 24 * 3600));
        let entries = (max_bytes > 0 && ttl_s > 0).then(|| {
            Cache::builder()
                .max_capacity(max_bytes)
                .weigher(|_: &CacheKey, entry: &Entry| entry.bytes)
                .time_to_live(ttl)
                .build()
        });
        Self { entries }
    }

    /// Whether answers are kept at all.
    pub(crate) fn is_enabled(&self) -> bool {
        self.entries.is_some()
    }

    /// Answers held, and their bytes. Both lag a little behind.
    pub(crate) fn size(&self) -> (u64, u64) {
        self.entries.as_ref().map_or((0, 0), |entries| (entries.entry_count(), entries.weighted_size()))
    }

    /// The answer, marked as cached; the caller fills what belongs to its own request.
    pub(crate) fn get(&self, key: &CacheKey) -> Option<Recognition> {
        let entry = self.entries.as_ref()?.get(key)?;
        let mut recognition = Recognition::clone(&entry.recognition);
        recognition.cached = true;
        Some(recognition)
    }

    /// Keeps an answer.
    pub(crate) fn insert(&self, key: CacheKey, recognition: Recognition) {
        let Some(entries) = &self.entries else { return };
        let json_len = serde_json::to_vec(&recognition).map_or(u32::MAX as usize, |json| json.len());
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
