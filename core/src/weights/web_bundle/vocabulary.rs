//! A vocabulary cut down to the scripts that a shop's customers write.
//!
//! Whisper's 51 865 tokens are of a hundred languages, and each is a row of the largest matrix of the decoder. Kept are
//! tokens of Latin letters (Twi's ɛ and ɔ among them), digits, punctuation and symbols, every single byte, every special
//! token, and whatever a kept token is merged from. So a text that was written by kept tokens before is written by the
//! same tokens again, and any other text can still be written, byte by byte.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::error::Result;
use crate::whisper::config::invalid;

const FILE: &str = "tokenizer.json";

/// What is written beside a trimmed vocabulary.
pub(crate) const RULE: &str = "tokens of Latin letters, digits, punctuation and symbols, all bytes, all special tokens, and what they are merged from";

/// A tokenizer whose tokens were numbered anew.
#[derive(Debug, Clone)]
pub(crate) struct Trimmed {
    /// `tokenizer.json`.
    pub(crate) json: Vec<u8>,
    /// For each token that is left, the number that it had.
    pub(crate) kept: Vec<u32>,
}

impl Trimmed {
    /// From old numbers to new ones; what was left out has none.
    pub(crate) fn renumbered(&self) -> HashMap<u32, u32> {
        self.kept.iter().enumerate().map(|(new, old)| (*old, new as u32)).collect()
    }
}

/// Trims a `tokenizer.json` of a model with `n_vocab` tokens.
///
/// # Errors
/// [`crate::Error::InvalidConfig`] if it is not a byte-level BPE whose special tokens stand behind its words.
pub(crate) fn trim(json: &[u8], n_vocab: usize) -> Result<Trimmed> {
    let bad = |reason: &str| invalid(FILE, reason.to_owned());
    let mut tokenizer: Value = serde_json::from_slice(json).map_err(|e| invalid(FILE, e.to_string()))?;
    let model = tokenizer.get("model").ok_or_else(|| bad("it has no model"))?;
    let vocab: BTreeMap<String, u32> = model
        .get("vocab")
        .and_then(|vocab| serde_json::from_value(vocab.clone()).ok())
        .ok_or_else(|| bad("it has no vocabulary of texts and numbers"))?;
    let merges: Vec<(String, String)> = model
        .get("merges")
        .and_then(Value::as_array)
        .and_then(|merges| merges.iter().map(merge).collect())
        .ok_or_else(|| bad("it has no list of merges"))?;
    let added: BTreeMap<u32, String> = tokenizer
        .get("added_tokens")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|token| {
            Some((u32::try_from(token.get("id")?.as_u64()?).ok()?, token.get("content")?.as_str()?.to_owned()))
        })
        .collect();
    let bytes = byte_of_char();
    let mut keep: BTreeSet<&str> = vocab
        .iter()
        .filter(|(text, id)| added.contains_key(id) || is_kept(text, &bytes))
        .map(|(text, _)| text.as_str())
        .collect();
    // Later merges are made of earlier ones.
    for (left, right) in merges.iter().rev() {
        if keep.contains(format!("{left}{right}").as_str()) {
            keep.extend([left.as_str(), right.as_str()]);
        }
    }
    let mut kept: BTreeSet<u32> = keep.iter().filter_map(|text| vocab.get(*text)).copied().collect();
    kept.extend(added.keys().copied());
    // Timestamps follow the last special token, whether the file lists them or not.
    let first_behind = vocab.values().chain(added.keys()).max().map_or(0, |last| last + 1);
    kept.extend(first_behind..n_vocab as u32);
    kept.retain(|id| (*id as usize) < n_vocab);
    let kept: Vec<u32> = kept.into_iter().collect();
    let trimmed = Trimmed { json: Vec::new(), kept };
    let numbers = trimmed.renumbered();
    let new_vocab: BTreeMap<&str, u32> =
        keep.iter().filter_map(|text| Some((*text, *numbers.get(vocab.get(*text)?)?))).collect();
    let new_merges: Vec<Value> = merges
        .iter()
        .filter(|(left, right)| [format!("{left}{right}").as_str(), left, right].iter().all(|part| keep.contains(part)))
        .map(|(left, right)| Value::from(vec![left.as_str(), right.as_str()]))
        .collect();
    let (new_vocab, new_merges) = (serde_json::to_value(new_vocab), Value::from(new_merges));
    tokenizer["model"]["vocab"] = new_vocab.map_err(|e| invalid(FILE, e.to_string()))?;
    tokenizer["model"]["merges"] = new_merges;
    if let Some(tokens) = tokenizer.get_mut("added_tokens").and_then(Value::as_array_mut) {
        tokens.retain(|token| id_of(token).is_some_and(|id| numbers.contains_key(&id)));
        for token in tokens {
            if let Some(new) = id_of(token).and_then(|id| numbers.get(&id)) {
                token["id"] = Value::from(*new);
            }
        }
    }
    // It names tokens by their old numbers, and is for training only.
    tokenizer["post_processor"] = Value::Null;
    Ok(Trimmed { json: tokenizer.to_string().into_bytes(), ..trimmed })
}

fn id_of(token: &Value) -> Option<u32> {
    u32::try_from(token.get("id")?.as_u64()?).ok()
}

/// `"left right"` in older files, `["left", "right"]` in newer ones.
fn merge(value: &Value) -> Option<(String, String)> {
    match value {
        Value::String(text) => text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
        Value::Array(parts) => match &parts[..] {
            [Value::String(left), Value::String(right)] => Some((left.clone(), right.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a token, in byte-level BPE's spelling, is one that the shop's languages need.
fn is_kept(text: &str, bytes: &HashMap<char, u8>) -> bool {
    let raw: Option<Vec<u8>> = text.chars().map(|c| bytes.get(&c).copied()).collect();
    match raw {
        Some(raw) if raw.len() == 1 => true,
        Some(raw) => std::str::from_utf8(&raw).is_ok_and(|text| text.chars().all(is_latin)),
        None => false,
    }
}

fn is_latin(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{36f}'       // Latin, its extensions, IPA, combining marks
        | '\u{1e00}'..='\u{1eff}' // Latin with dots and hooks
        | '\u{2000}'..='\u{20cf}' // punctuation, currencies (₵)
        | '\u{2100}'..='\u{218f}' // №, ™, fractions
        | '\u{2190}'..='\u{22ff}' | '\u{2500}'..='\u{26ff}' // arrows, mathematics, shapes, notes
        | '\u{fffd}')
}

/// GPT-2's spelling of bytes by characters that can be seen.
fn byte_of_char() -> HashMap<char, u8> {
    let plain = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 256;
    (0..=255u8)
        .map(|b| {
            if plain(b) {
                return (char::from(b), b);
            }
            next += 1;
            (char::from_u32(next - 1).unwrap_or('\0'), b)
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tokenizer::{Tokenizer, json_from_parts};

    /// All bytes, a few merges of Latin and of Greek (whose letters are two bytes each), and the special tokens.
    fn tokenizer_json() -> (Vec<u8>, usize) {
        let spelled: HashMap<u8, char> = byte_of_char().into_iter().map(|(c, b)| (b, c)).collect();
        let spell = |text: &str| -> String { text.bytes().map(|b| spelled[&b]).collect() };
        let mut vocab: BTreeMap<String, u32> = (0..=255u8).map(|b| (spelled[&b].to_string(), u32::from(b))).collect();
        let mut add = |left: String, right: String, merges: &mut String| {
            vocab.insert(format!("{left}{right}"), vocab.len() as u32);
            merges.push_str(&format!("{left} {right}\n"));
        };
        let mut merges = String::from("#version: 0.2\n");
        add(spell("a"), spell("b"), &mut merges);
        let alpha = spell("α");
        let (first, second) = alpha.split_at(alpha.char_indices().nth(1).unwrap().0);
        add(first.to_owned(), second.to_owned(), &mut merges);
        add(spell("ab"), spell("c"), &mut merges);
        let e = spell("ɛ");
        let (first, second) = e.split_at(e.char_indices().nth(1).unwrap().0);
        add(first.to_owned(), second.to_owned(), &mut merges);
        let special = [
            "<|endoftext|>",
            "<|startoftranscript|>",
            "<|en|>",
            "<|sw|>",
            "<|translate|>",
            "<|transcribe|>",
            "<|notimestamps|>",
        ];
        let n = vocab.len() as u32;
        let added: BTreeMap<&str, u32> = special.into_iter().zip(n..).collect();
        let n_vocab = vocab.len() + special.len() + 5;
        let json = json_from_parts(
            &serde_json::to_vec(&vocab).unwrap(),
            merges.as_bytes(),
            Some(&serde_json::to_vec(&added).unwrap()),
        );
        (json.unwrap(), n_vocab)
    }

    #[test]
    fn what_is_kept_is_written_as_before_and_the_rest_by_bytes() {
        let (json, n_vocab) = tokenizer_json();
        let before = Tokenizer::from_json(&json).unwrap();
        let trimmed = trim(&json, n_vocab).unwrap();
        let after = Tokenizer::from_json(&trimmed.json).unwrap();
        // One token is gone: the Greek letter.
        assert_eq!(trimmed.kept.len(), n_vocab - 1);
        after.check_fits(trimmed.kept.len()).unwrap();
        for text in ["abc", "ab ab c", "ɛ, abɛc!"] {
            let tokens = after.encode(text).unwrap();
            let old: Vec<u32> = tokens.iter().map(|t| trimmed.kept[*t as usize]).collect();
            assert_eq!(old, before.encode(text).unwrap(), "{text}");
            assert_eq!(after.decode(&tokens).unwrap(), text);
        }
        assert_eq!(before.encode("α").unwrap().len(), 1);
        assert_eq!(after.encode("α").unwrap().len(), 2);
        assert_eq!(after.decode(&after.encode("α").unwrap()).unwrap(), "α");
        // Special tokens and the timestamps behind them keep their order.
        let (a, b) = (before.special(), after.special());
        assert_eq!(trimmed.kept[b.sot as usize], a.sot);
        assert_eq!(trimmed.kept[b.timestamp_begin as usize], a.timestamp_begin);
        assert_eq!(b.languages.len(), 2);
    }

    #[test]
    fn what_is_no_tokenizer_is_refused() {
        for json in
            ["", "[]", "{}", r#"{"model":{"vocab":[],"merges":[]}}"#, r#"{"model":{"vocab":{"a":0},"merges":[1]}}"#]
        {
            assert_eq!(trim(json.as_bytes(), 10).unwrap_err().code(), "invalid_config", "{json}");
        }
    }
}
