//! The language that people name and the token that a decoder is given: Whisper has no token for Twi.

use crate::error::{Error, Result};

/// What is assumed when nothing is said: this is a Twi shop's recogniser.
pub const DEFAULT_LANGUAGE: &str = "tw";

/// Ask for the language to be detected among those that the model knows.
pub const AUTO: &str = "auto";

/// Names for Twi: ISO 639-1 `tw` and `ak` (Akan, the macro-language), ISO 639-3 `twi` and `aka`.
const TWI: [&str; 4] = ["tw", "twi", "ak", "aka"];

/// The tokens that stock Whisper hears Twi with, best first: Swahili's, and Yoruba's where the text in the first
/// one only repeats itself. Measured on synthetic speech: `tests/intent/README.md`.
pub const TWI_DECODE_LANGUAGES: [&str; 2] = ["sw", "yo"];

/// What transformers calls each language, such as `yoruba`, and its code.
const NAMES: &str = include_str!("../data/whisper_languages.tsv");

/// The code that a checkpoint's settings mean by a code, a name or a token (`yo`, `Yoruba`, `<|yo|>`).
#[must_use]
pub fn code_of(named: &str) -> String {
    let plain = named.trim().trim_start_matches("<|").trim_end_matches("|>").to_lowercase();
    let by_name = NAMES.lines().skip(1).filter_map(|line| line.split_once('\t')).find(|(name, _)| *name == plain);
    by_name.map_or(plain, |(_, code)| code.to_owned())
}

/// Names under which a vocabulary may have a token for Twi itself: no released Whisper has, a fine-tuned one may.
pub(crate) fn twi_codes() -> [&'static str; 4] {
    TWI
}

/// A language as it is reported, and how it is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpeechLanguage {
    /// Twi: reported as `tw`, decoded with the first of [`TWI_DECODE_LANGUAGES`] that gives a text.
    Twi,
    /// One of the model's own.
    Known(String),
    /// To be detected.
    Detect,
}

impl SpeechLanguage {
    /// Reads a code as a client sends it, in any case, with or without a region (`en-GH`).
    ///
    /// # Errors
    /// [`Error::UnsupportedLanguage`] if neither Twi nor one of `known`. An English-only model, whose
    /// `known` is empty, takes `en` and Twi's names.
    pub fn parse(code: Option<&str>, known: &[String]) -> Result<Self> {
        let code = code.map(str::trim).filter(|c| !c.is_empty()).unwrap_or(DEFAULT_LANGUAGE);
        let lower = code.to_ascii_lowercase();
        let plain = lower.split(['-', '_']).next().unwrap_or_default();
        if TWI.contains(&plain) {
            Ok(Self::Twi)
        } else if plain == AUTO {
            Ok(Self::Detect)
        } else if known.iter().any(|k| k == plain) || known.is_empty() && plain == "en" {
            Ok(Self::Known(plain.to_owned()))
        } else {
            Err(Error::UnsupportedLanguage { language: code.chars().filter(|c| !c.is_control()).take(32).collect() })
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn settings_name_languages_in_three_ways() {
        for named in ["yo", "Yoruba", "<|yo|>", " yoruba "] {
            assert_eq!(code_of(named), "yo");
        }
        assert_eq!(code_of("<|tw|>"), "tw");
        assert_eq!(code_of("klingon"), "klingon");
    }

    #[test]
    fn twi_has_many_names_and_is_the_default() {
        let known = ["en".to_owned(), "sw".to_owned()];
        for code in [None, Some(""), Some("tw"), Some("TWI"), Some("ak-GH"), Some(" aka ")] {
            assert_eq!(SpeechLanguage::parse(code, &known).unwrap(), SpeechLanguage::Twi);
        }
        assert_eq!(SpeechLanguage::parse(Some("en_GB"), &known).unwrap(), SpeechLanguage::Known("en".to_owned()));
        assert_eq!(SpeechLanguage::parse(Some("auto"), &known).unwrap(), SpeechLanguage::Detect);
        assert_eq!(SpeechLanguage::parse(Some("en"), &[]).unwrap(), SpeechLanguage::Known("en".to_owned()));
        for code in ["xx", "../../etc", "e\u{0}n", &"x".repeat(10_000)] {
            let error = SpeechLanguage::parse(Some(code), &known).unwrap_err();
            assert_eq!(error.code(), "unsupported_language");
            assert!(error.to_string().len() < 200);
        }
    }
}
