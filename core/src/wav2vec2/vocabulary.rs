//! Which text each class of a CTC head stands for.
//!
//! Follows `transformers` 5.23 `Wav2Vec2CTCTokenizer` (`vocab.json`, flat or nested by language as MMS has it;
//! `tokenizer_config.json`, `special_tokens_map.json`). Two deviations: `<s>`, `</s>` and `<unk>` give no text, where
//! the reference writes them out; and lower-casing takes the words as well as the text.
//!
//! Decoding only: text is never turned into tokens here. One file, though long: how each file is read and what it then
//! means are told together.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::config::MAX_VOCAB;
use crate::error::{Error, Result};
use crate::whisper::config::invalid;

const VOCAB_FILE: &str = "vocab.json";
/// MMS's file of 1162 languages has 4 MB.
const MAX_VOCAB_BYTES: usize = 64 << 20;
/// What transformers takes where no file says otherwise.
const DEFAULT_DELIMITER: &str = "|";
const DEFAULT_BLANK: &str = "<pad>";

/// A token is a letter or a few; longer ones would make a text of any size.
const MAX_TOKEN_BYTES: usize = 64;

/// A checkpoint's files, unparsed.
#[derive(Debug, Clone, Copy, Default)]
pub struct VocabularyFiles<'a> {
    /// `vocab.json`
    pub vocab: &'a [u8],
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`
    pub special_tokens_map: Option<&'a [u8]>,
    /// `added_tokens.json`
    pub added_tokens: Option<&'a [u8]>,
}

/// Classes of a CTC head and their text.
#[derive(Debug, Clone, PartialEq)]
pub struct CtcVocabulary {
    /// By class.
    tokens: Vec<String>,
    /// By class: gives no text.
    is_silent: Vec<bool>,
    blank: usize,
    delimiter: Option<usize>,
    /// What stands for the delimiter in the text.
    space: String,
    lower_case: bool,
    clean_up: bool,
    languages: Vec<String>,
    language: Option<String>,
}

/// The fields that decoding reads, of `tokenizer_config.json` or `special_tokens_map.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    pad_token: Option<Token>,
    unk_token: Option<Token>,
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    word_delimiter_token: Option<Token>,
    replace_word_delimiter_char: Option<String>,
    do_lower_case: Option<bool>,
    clean_up_tokenization_spaces: Option<bool>,
    target_lang: Option<String>,
    /// `number: token`
    added_tokens_decoder: Option<BTreeMap<String, Token>>,
}

/// Written as its text, or as an object that holds it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Object { content: String },
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Object { content: text } => text,
        }
    }
}

impl CtcVocabulary {
    /// Puts a vocabulary together from a checkpoint's files; `pad_token_id` is `config.json`'s. The sentences beside it
    /// say what was taken for granted because a file or a field is missing.
    ///
    /// A flat vocabulary is of one language, so `target_lang` only chooses within a nested one; without it, the
    /// language of `tokenizer_config.json` is taken.
    ///
    /// # Errors
    /// - [`Error::InvalidConfig`] for no blank, too many tokens, or a nested vocabulary of which no language is
    ///   chosen;
    /// - [`Error::UnsupportedLanguage`] if a nested vocabulary has no such language.
    pub fn new(
        files: &VocabularyFiles<'_>,
        pad_token_id: Option<usize>,
        target_lang: Option<&str>,
    ) -> Result<(Self, Vec<String>)> {
        let config = read(files.tokenizer_config, "tokenizer_config.json")?;
        let map = read(files.special_tokens_map, "special_tokens_map.json")?;
        let mut notes = Vec::new();
        let (languages, language, entries) = match parse(files.vocab)? {
            Parsed::Flat(entries) => (Vec::new(), None, entries),
            Parsed::Nested(mut languages) => {
                let names: Vec<String> = languages.keys().cloned().collect();
                let language = choose(target_lang, &config, &names, &mut notes)?;
                let entries = languages
                    .remove(&language)
                    .ok_or_else(|| Error::UnsupportedLanguage { language: language.chars().take(32).collect() })?;
                (names, Some(language), entries)
            }
        };
        let mut tokens = in_order(entries, &mut notes)?;
        add_tokens(&mut tokens, &config, files.added_tokens)?;
        let n_holes = tokens.iter().filter(|token| token.is_empty()).count();
        if n_holes > 0 {
            notes.push(format!("{VOCAB_FILE}: {n_holes} numbers have no token, and give no text"));
        }
        let find = |text: &str| tokens.iter().position(|token| token == text);
        let named = |token: &Option<Token>, other: &Option<Token>| {
            token.as_ref().or(other.as_ref()).map(|t| t.text().to_owned())
        };

        let wanted = named(&config.pad_token, &map.pad_token);
        let blank = find_blank(wanted.as_deref(), pad_token_id, &tokens, &mut notes)?;
        let delimiter_text = config.word_delimiter_token.as_ref().map_or(DEFAULT_DELIMITER, Token::text);
        let delimiter = find(delimiter_text).filter(|i| *i != blank);
        if delimiter.is_none() {
            notes.push(format!("the vocabulary has no '{delimiter_text}': no token separates words"));
        } else if config.word_delimiter_token.is_none() && files.tokenizer_config.is_none() {
            notes.push(format!("no tokenizer_config.json: '{delimiter_text}' separates words"));
        }
        // A number that no token has gives no text.
        let mut is_silent: Vec<bool> = tokens.iter().map(String::is_empty).collect();
        is_silent[blank] = true;
        for (token, other, default) in [
            (&config.unk_token, &map.unk_token, "<unk>"),
            (&config.bos_token, &map.bos_token, "<s>"),
            (&config.eos_token, &map.eos_token, "</s>"),
        ] {
            if let Some(i) = find(named(token, other).as_deref().unwrap_or(default)).filter(|i| Some(*i) != delimiter) {
                is_silent[i] = true;
            }
        }
        let space = config.replace_word_delimiter_char.unwrap_or_else(|| " ".to_owned());
        if space.len() > 8 {
            return Err(invalid(
                "tokenizer_config.json",
                "replace_word_delimiter_char is longer than a character".to_owned(),
            ));
        }
        let vocabulary = Self {
            is_silent,
            blank,
            delimiter,
            space,
            lower_case: config.do_lower_case.unwrap_or(false),
            clean_up: config.clean_up_tokenization_spaces.unwrap_or(false),
            languages,
            language,
            tokens,
        };
        Ok((vocabulary, notes))
    }

    /// The languages of a nested `vocab.json`, sorted; none for a flat one.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if it is no vocabulary.
    pub fn languages_in(vocab_json: &[u8]) -> Result<Vec<String>> {
        Ok(match parse(vocab_json)? {
            Parsed::Flat(_) => Vec::new(),
            Parsed::Nested(languages) => languages.into_keys().collect(),
        })
    }

    /// Tokens in the file. The head may have more classes, which give no text.
    #[must_use]
    pub fn n_vocab(&self) -> usize {
        self.tokens.len()
    }

    /// The class that stands for "nothing new".
    #[must_use]
    pub fn blank(&self) -> usize {
        self.blank
    }

    /// The languages that the file has, sorted; empty if it is flat.
    #[must_use]
    pub fn languages(&self) -> &[String] {
        &self.languages
    }

    /// Which of them this is.
    #[must_use]
    pub fn language(&self) -> Option<&str> {
        self.language.as_deref()
    }

    /// Whether a head of `n_classes` can be read with this vocabulary; a sentence if some letters have no class.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if the blank is none of its classes, or if one language's vocabulary meets another's
    /// head. In a flat file, tokens that the head has no class for are never told, and do no harm.
    pub fn check_fits(&self, n_classes: usize) -> Result<Option<String>> {
        let (blank, n) = (self.blank, self.tokens.len());
        if blank >= n_classes {
            return Err(bad(format!("its blank is token {blank} of {n}, but the model tells {n_classes} apart")));
        }
        match &self.language {
            Some(language) if n > n_classes => {
                let language = shown(language);
                Err(bad(format!("it has {n} tokens for {language}, but the model tells {n_classes} apart")))
            }
            _ => {
                // `<s>` and its like often stand behind the last class: nothing is lost with them.
                let unused = (n_classes..n).filter(|class| self.text_of(*class).is_some()).count();
                let note = || format!("{VOCAB_FILE}: {unused} tokens are not used, the model tells {n_classes} apart");
                Ok((unused > 0).then(note))
            }
        }
    }

    /// What a class adds to the text; `None` for blank, special tokens and classes without a token.
    pub(crate) fn text_of(&self, class: usize) -> Option<&str> {
        if Some(class) == self.delimiter {
            return Some(&self.space);
        }
        if *self.is_silent.get(class)? { None } else { Some(&self.tokens[class]) }
    }

    /// What stands between words.
    pub(crate) fn space(&self) -> &str {
        &self.space
    }

    /// The last step of a text: trimmed, lower-cased and cleaned up as the files want it.
    pub(crate) fn finish_text(&self, text: &str) -> String {
        let text = self.finish_word(text.trim());
        if !self.clean_up {
            return text;
        }
        // In the reference's order.
        [
            (" .", "."),
            (" ?", "?"),
            (" !", "!"),
            (" ,", ","),
            (" ' ", "'"),
            (" n't", "n't"),
            (" 'm", "'m"),
            (" 's", "'s"),
            (" 've", "'ve"),
            (" 're", "'re"),
        ]
        .iter()
        .fold(text, |text, (from, to)| text.replace(from, to))
    }

    /// A word, lower-cased if the files want it.
    pub(crate) fn finish_word(&self, word: &str) -> String {
        if self.lower_case { word.to_lowercase() } else { word.to_owned() }
    }
}

/// `token: number`.
type Entries = Vec<(String, u64)>;

enum Parsed {
    Flat(Entries),
    Nested(BTreeMap<String, Entries>),
}

fn parse(vocab_json: &[u8]) -> Result<Parsed> {
    if vocab_json.len() > MAX_VOCAB_BYTES {
        return Err(bad(format!("it has {} bytes, expected at most {MAX_VOCAB_BYTES}", vocab_json.len())));
    }
    let Ordered(value) =
        serde_json::from_slice(vocab_json).map_err(|e| bad(format!("it is no map of tokens to numbers: {e}")))?;
    if !value.is_empty() && value.iter().all(|(_, item)| matches!(item, Item::Map(_))) {
        let languages = value.into_iter().filter_map(|(language, item)| match item {
            Item::Map(Ordered(tokens)) => Some(entries(tokens).map(|entries| (language, entries))),
            Item::Other(_) => None,
        });
        return Ok(Parsed::Nested(languages.collect::<Result<_>>()?));
    }
    Ok(Parsed::Flat(entries(value)?))
}

/// A JSON object in the order of its file, which decides between two tokens of one number. (`serde_json` sorts.)
struct Ordered(Vec<(String, Item)>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Map(Ordered),
    Other(Value),
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Ordered;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Ordered, A::Error> {
                let mut entries: Vec<(String, Item)> = Vec::new();
                // As Python: a key that comes twice keeps its place and takes the later value.
                let mut places: HashMap<String, usize> = HashMap::new();
                while let Some((key, item)) = map.next_entry::<String, Item>()? {
                    match places.get(&key).copied() {
                        Some(place) => entries[place].1 = item,
                        None => {
                            places.insert(key.clone(), entries.len());
                            entries.push((key, item));
                        }
                    }
                }
                Ok(Ordered(entries))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

fn entries(tokens: Vec<(String, Item)>) -> Result<Entries> {
    let entry = |(token, item): (String, Item)| match item {
        Item::Map(_) => Err(bad(format!("the number of {} is a map", shown(&token)))),
        Item::Other(number) => match number.as_u64() {
            Some(number) => Ok((token, number)),
            None => Err(bad(format!("the number of {} is {}", shown(&token), shown(&number.to_string())))),
        },
    };
    tokens.into_iter().map(entry).collect()
}

/// Tokens by number. As in the reference, a number may be left out, and of two tokens with one number one is used.
fn in_order(entries: Entries, notes: &mut Vec<String>) -> Result<Vec<String>> {
    let n = entries.iter().map(|(_, number)| number.saturating_add(1)).max().unwrap_or(0);
    if n == 0 || n > MAX_VOCAB as u64 {
        return Err(bad(format!("it has {n} tokens, expected 1 to {MAX_VOCAB}")));
    }
    let mut tokens = vec![String::new(); n as usize];
    let mut twice = None;
    for (token, number) in entries {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(bad(format!("the token {} is longer than {MAX_TOKEN_BYTES} bytes", shown(&token))));
        }
        let slot = &mut tokens[number as usize]; // below `n`
        if !slot.is_empty() {
            twice = Some(format!(
                "{VOCAB_FILE}: {} and {} have the same number {number}: the later counts",
                shown(slot),
                shown(&token)
            ));
        }
        *slot = token;
    }
    notes.extend(twice);
    Ok(tokens)
}

/// Puts the tokens behind those of `vocab.json` that other files add, as older fine-tunes have `[PAD]`. A number that is
/// taken stays as it is, and `tokenizer_config.json` goes before the older `added_tokens.json`, as in the reference.
fn add_tokens(tokens: &mut Vec<String>, config: &TokenizerConfig, added_tokens: Option<&[u8]>) -> Result<()> {
    const FILE: &str = "added_tokens.json";
    let listed: BTreeMap<String, u64> = match added_tokens {
        Some(json) => serde_json::from_slice(json).map_err(|e| invalid(FILE, e.to_string()))?,
        None => BTreeMap::new(),
    };
    let decoded = config
        .added_tokens_decoder
        .iter()
        .flatten()
        .filter_map(|(id, token)| Some((token.text(), id.parse::<u64>().ok()?)));
    // A set: looking through all tokens for each of them would be quadratic in a stranger's file.
    let mut known: HashSet<String> = tokens.iter().cloned().collect();
    for (token, id) in decoded.chain(listed.iter().map(|(token, id)| (token.as_str(), *id))) {
        if id >= MAX_VOCAB as u64 || token.len() > MAX_TOKEN_BYTES {
            return Err(invalid(FILE, format!("it cannot have the token {} with the number {id}", shown(token))));
        }
        let id = id as usize; // below MAX_VOCAB
        if tokens.len() <= id {
            tokens.resize(id + 1, String::new());
        }
        if tokens[id].is_empty() && known.insert(token.to_owned()) {
            token.clone_into(&mut tokens[id]);
        }
    }
    Ok(())
}

/// The language of a nested vocabulary.
fn choose(
    target_lang: Option<&str>,
    config: &TokenizerConfig,
    names: &[String],
    notes: &mut Vec<String>,
) -> Result<String> {
    if let Some(language) = target_lang {
        return Ok(language.to_owned());
    }
    match &config.target_lang {
        Some(config_language) => {
            let language = shown(config_language);
            notes.push(format!(
                "no language was named: {language}, as tokenizer_config.json has it; --adapter names another"
            ));
            Ok(config_language.clone())
        }
        None => {
            let first = names.iter().take(5).map(|name| shown(name)).collect::<Vec<_>>().join(", ");
            Err(bad(format!("it holds {} languages ({first} …) and none was named", names.len())))
        }
    }
}

/// The blank token: the tokenizer's padding token, else `config.json`'s.
fn find_blank(
    wanted: Option<&str>,
    pad_token_id: Option<usize>,
    tokens: &[String],
    notes: &mut Vec<String>,
) -> Result<usize> {
    let find = |text: &str| tokens.iter().position(|token| token == text);
    if let Some(i) = wanted.and_then(find) {
        return Ok(i);
    }
    let why = match wanted {
        Some(wanted) => format!("the vocabulary has no padding token {}", shown(wanted)),
        None => "no file names the padding token".to_owned(),
    };
    if wanted.is_none()
        && let Some(i) = find(DEFAULT_BLANK)
    {
        notes.push(format!("{why}: '{DEFAULT_BLANK}' is blank"));
        return Ok(i);
    }
    match pad_token_id.filter(|i| *i < tokens.len()) {
        Some(i) => {
            notes.push(format!("{why}: {}, config.json's pad_token_id, is blank", shown(&tokens[i])));
            Ok(i)
        }
        None => Err(bad(format!("it has no blank: {why}, and config.json's pad_token_id is none of its tokens"))),
    }
}

fn read(json: Option<&[u8]>, file: &str) -> Result<TokenizerConfig> {
    match json {
        None => Ok(TokenizerConfig::default()),
        Some(json) => serde_json::from_slice(json).map_err(|e| invalid(file, e.to_string())),
    }
}

/// For messages: quoted, and cut to a printable length.
fn shown(text: &str) -> String {
    format!("'{}'", text.chars().take(32).collect::<String>().escape_debug())
}

fn bad(reason: String) -> Error {
    invalid(VOCAB_FILE, reason)
}

#[cfg(test)]
mod tests;
