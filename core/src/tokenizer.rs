//! Text to tokens and back, and the numbers of Whisper's special tokens.
//!
//! The byte-pair encoding is the `tokenizers` crate's, read from a checkpoint's `tokenizer.json`. The
//! special tokens are looked up by their text, so that English-only, multilingual and large-v3
//! vocabularies (whose numbers differ) need no table here. Follows `openai/whisper` `tokenizer.py`.

use tokenizers::Tokenizer as HfTokenizer;

use crate::error::{Error, Result};
use crate::language::twi_codes;
use crate::whisper::config::invalid;

/// Seconds between two timestamp tokens.
pub const TIMESTAMP_STEP_S: f64 = 0.02;

/// What the decoder is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeechTask {
    /// The words in the language that was spoken.
    #[default]
    Transcribe,
    /// The words in English.
    Translate,
}

/// Numbers of the special tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `<|startoftranscript|>`
    pub sot: u32,
    /// `<|endoftext|>`
    pub eot: u32,
    /// `<|startofprev|>`
    pub sot_prev: Option<u32>,
    /// `<|nospeech|>`, `<|nocaptions|>` in older files
    pub no_speech: Option<u32>,
    /// `<|notimestamps|>`
    pub no_timestamps: u32,
    /// `<|0.00|>`; every token from here on is a timestamp.
    pub timestamp_begin: u32,
    /// `<|transcribe|>`; only in multilingual vocabularies.
    pub transcribe: Option<u32>,
    /// `<|translate|>`
    pub translate: Option<u32>,
    /// `(code, token)` of every language, in the vocabulary's order; empty in English-only ones.
    pub languages: Vec<(String, u32)>,
}

impl SpecialTokens {
    /// The token of a language code.
    #[must_use]
    pub fn language(&self, code: &str) -> Option<u32> {
        self.languages.iter().find(|(c, _)| c == code).map(|(_, token)| *token)
    }

    /// The tokens before the first word: start, language and task where the vocabulary has them, and
    /// whether timestamps are wanted.
    #[must_use]
    pub fn sot_sequence(&self, language: Option<u32>, task: SpeechTask, timestamps: bool) -> Vec<u32> {
        let mut tokens = vec![self.sot];
        if let Some(language) = language {
            tokens.push(language);
            tokens.extend(match task {
                SpeechTask::Transcribe => self.transcribe,
                SpeechTask::Translate => self.translate,
            });
        }
        if !timestamps {
            tokens.push(self.no_timestamps);
        }
        tokens
    }
}

/// A checkpoint's tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: HfTokenizer,
    special: SpecialTokens,
}

/// Makes a `tokenizer.json` of the files that older checkpoints have in its place.
///
/// The byte-level BPE is that of `vocab.json` and `merges.txt`, as in GPT-2; the special tokens are those of
/// `added_tokens.json`.
///
/// # Errors
/// [`Error::InvalidConfig`], naming the file.
pub fn json_from_parts(vocab: &[u8], merges: &[u8], added_tokens: Option<&[u8]>) -> Result<Vec<u8>> {
    use std::collections::BTreeMap;
    let read = |json: &[u8], file: &str| -> Result<BTreeMap<String, u32>> {
        serde_json::from_slice(json).map_err(|e| invalid(file, e.to_string()))
    };
    let vocab = read(vocab, "vocab.json")?;
    let merges = std::str::from_utf8(merges).map_err(|_| invalid("merges.txt", "it is not UTF-8".to_owned()))?;
    let merges: Vec<&str> =
        merges.lines().filter(|line| !line.starts_with("#version") && !line.trim().is_empty()).collect();
    let mut added: Vec<(u32, String)> = match added_tokens {
        Some(json) => read(json, "added_tokens.json")?.into_iter().map(|(token, id)| (id, token)).collect(),
        None => Vec::new(),
    };
    // Whisper's own vocabulary ends with its first special token.
    added.extend(vocab.get("<|endoftext|>").map(|id| (*id, "<|endoftext|>".to_owned())));
    added.sort_unstable();
    added.dedup();
    // The tokenizer counts on where the vocabulary ends, whatever number a token is given.
    let behind: Vec<u32> = added.iter().map(|(id, _)| *id).filter(|id| *id as usize >= vocab.len()).collect();
    if let Some((expected, _)) = (vocab.len() as u32..).zip(&behind).find(|(expected, id)| expected != *id) {
        return Err(invalid("added_tokens.json", format!("it has no token with the number {expected}")));
    }
    let added: Vec<serde_json::Value> = added
        .into_iter()
        .map(|(id, content)| {
            serde_json::json!({
                "id": id, "content": content, "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    });
    Ok(json.to_string().into_bytes())
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if it is no tokenizer, or none of a Whisper.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let bad = |reason: String| invalid("tokenizer.json", reason);
        let inner = HfTokenizer::from_bytes(json).map_err(|e| bad(e.to_string()))?;
        let find = |text: &str| inner.token_to_id(text);
        let need = |text: &str| find(text).ok_or_else(|| bad(format!("it has no token {text}")));
        // Tokens are numbered one by one; more of them is somebody else's number.
        let n_tokens = inner.get_vocab_size(true) as u32;
        let need = |text: &str| match need(text)? {
            id if id < n_tokens.saturating_mul(2) => Ok(id),
            id => Err(bad(format!("the token {text} has the number {id}, beyond its {n_tokens} tokens"))),
        };
        let sot = need("<|startoftranscript|>")?;
        let no_timestamps = need("<|notimestamps|>")?;
        let translate = find("<|translate|>").map(|_| need("<|translate|>")).transpose()?;
        let mut languages: Vec<(String, u32)> = match translate {
            // Language tokens stand between the start and the tasks.
            Some(translate) => (sot + 1..translate)
                .filter_map(|token| {
                    let text = inner.id_to_token(token)?;
                    let code = text.strip_prefix("<|")?.strip_suffix("|>")?;
                    let plain = code.len() <= 20 && code.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
                    plain.then_some(())?;
                    Some((code.to_owned(), token))
                })
                .collect(),
            None => Vec::new(),
        };
        // A token that was added for Twi stands behind all others.
        if translate.is_some() {
            let added = twi_codes().into_iter().filter_map(|code| Some((code, find(&format!("<|{code}|>"))?)));
            for (code, token) in added {
                if !languages.iter().any(|(_, t)| *t == token) {
                    languages.push((code.to_owned(), token));
                }
            }
        }
        let special = SpecialTokens {
            sot,
            eot: need("<|endoftext|>")?,
            sot_prev: find("<|startofprev|>"),
            no_speech: find("<|nospeech|>").or_else(|| find("<|nocaptions|>")),
            no_timestamps,
            // Some files list the timestamps, some leave them out; they always follow this token.
            timestamp_begin: no_timestamps + 1,
            transcribe: find("<|transcribe|>"),
            translate,
            languages,
        };
        Ok(Self { inner, special })
    }

    /// The tokenizer of an English-only checkpoint: its vocabulary lists languages and tasks, but the model
    /// never learnt them, and its prompt has neither.
    #[must_use]
    pub fn english_only(mut self) -> Self {
        self.special.languages.clear();
        self.special.transcribe = None;
        self.special.translate = None;
        self
    }

    /// Whether the model of `n_vocab` tokens can be this tokenizer's.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if a special token is none of them.
    pub fn check_fits(&self, n_vocab: usize) -> Result<()> {
        let s = &self.special;
        let languages = s.languages.iter().map(|(_, token)| *token);
        let others = [s.sot_prev, s.no_speech, s.transcribe, s.translate].into_iter().flatten();
        let largest = languages.chain(others).chain([s.sot, s.eot, s.no_timestamps]).max().unwrap_or(0);
        if (largest as usize) < n_vocab {
            return Ok(());
        }
        let reason =
            format!("it has the special token {largest}, but the model has {n_vocab} tokens: it is another model's");
        Err(invalid("tokenizer.json", reason))
    }

    /// The special tokens.
    #[must_use]
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The text of tokens; special tokens and timestamps are left out.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the tokenizer cannot decode its own tokens.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let words: Vec<u32> = tokens.iter().copied().filter(|t| *t < self.special.eot).collect();
        self.inner.decode(&words, true).map_err(|e| invalid("tokenizer.json", e.to_string()))
    }

    /// The tokens of a text, without special ones.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the tokenizer refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode(text, false).map_err(|e| invalid("tokenizer.json", e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens that stand for no speech (brackets, notes, speaker marks): what `-1` in a list of
    /// suppressed tokens means.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn non_speech_tokens(&self) -> Result<Vec<u32>> {
        const SYMBOLS: &str = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 << >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
        const MUSIC: [&str; 7] = ["♩", "♪", "♫", "♬", "♭", "♮", "♯"];
        let mut tokens = Vec::new();
        // A hyphen and an apostrophe are speech inside a word, but not at its start.
        for text in [" -", " '"] {
            tokens.extend(self.encode(text)?.first());
        }
        for symbol in SYMBOLS.split(' ').chain(MUSIC) {
            for text in [symbol.to_owned(), format!(" {symbol}")] {
                let encoded = self.encode(&text)?;
                if encoded.len() == 1 || MUSIC.contains(&symbol) {
                    tokens.extend(encoded.first());
                }
            }
        }
        tokens.sort_unstable();
        tokens.dedup();
        Ok(tokens)
    }

    /// Groups tokens into words: `(word, tokens)`. A word starts where a space does, or stands alone as
    /// punctuation; characters of several tokens stay together.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn split_words(&self, tokens: &[u32]) -> Result<Vec<(String, Vec<u32>)>> {
        let mut words: Vec<(String, Vec<u32>)> = Vec::new();
        for (text, tokens) in self.split_characters(tokens)? {
            let starts = text.starts_with(' ')
                || words.is_empty()
                || text.trim().chars().all(|c| c.is_ascii_punctuation()) && !text.trim().is_empty();
            match words.last_mut() {
                Some((word, of_word)) if !starts => {
                    word.push_str(&text);
                    of_word.extend(tokens);
                }
                _ => words.push((text, tokens)),
            }
        }
        Ok(words)
    }

    /// Groups tokens until each group is whole characters.
    fn split_characters(&self, tokens: &[u32]) -> Result<Vec<(String, Vec<u32>)>> {
        let mut groups = Vec::new();
        let mut group = Vec::new();
        for token in tokens.iter().copied().filter(|t| *t < self.special.eot) {
            group.push(token);
            let text = self.decode(&group)?;
            if !text.contains('\u{FFFD}') {
                groups.push((text, std::mem::take(&mut group)));
            }
        }
        if !group.is_empty() {
            groups.push((self.decode(&group)?, group));
        }
        Ok(groups)
    }

    /// The language token to decode with.
    ///
    /// # Errors
    /// [`Error::UnsupportedLanguage`] if a multilingual vocabulary has no such language.
    pub fn language_token(&self, code: &str) -> Result<Option<u32>> {
        if self.special.languages.is_empty() {
            return Ok(None);
        }
        match self.special.language(code) {
            Some(token) => Ok(Some(token)),
            None => Err(Error::UnsupportedLanguage { language: code.chars().take(32).collect() }),
        }
    }
}
