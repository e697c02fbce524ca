//! What `Wav2Vec2CTCTokenizer` makes of such files, and what nobody can.

#![allow(clippy::unwrap_used)]

use super::*;

const FLAT: &[u8] = br#"{"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "A": 5, "B": 6}"#;
const NESTED: &[u8] = br#"{"eng": {"<pad>": 0, "|": 1, "a": 2}, "twi": {"<pad>": 0, "|": 1, "a": 2, "\u0254": 3}}"#;

fn vocabulary_of(
    vocab: &[u8],
    tokenizer_config: Option<&[u8]>,
    special_tokens_map: Option<&[u8]>,
    pad_token_id: Option<usize>,
    target_lang: Option<&str>,
) -> Result<(CtcVocabulary, Vec<String>)> {
    let files = VocabularyFiles { vocab, tokenizer_config, special_tokens_map, added_tokens: None };
    CtcVocabulary::new(&files, pad_token_id, target_lang)
}

/// `[PAD]` and its like stand behind the letters, in files of their own.
#[test]
fn tokens_that_were_added_later_are_found() {
    let vocab = br#"{"a": 0, "b": 1, "|": 2}"#;
    let config = &br#"{"pad_token": "[PAD]"}"#[..];
    let decoder = &br#"{"pad_token": "[PAD]", "added_tokens_decoder": {"4": {"content": "[PAD]"}}}"#[..];
    let added = &br#"{"[PAD]": 4, "<s>": 3, "a": 0}"#[..];
    for (tokenizer_config, added_tokens) in [(config, Some(added)), (decoder, None)] {
        let files =
            VocabularyFiles { vocab, tokenizer_config: Some(tokenizer_config), added_tokens, ..Default::default() };
        let (vocabulary, _) = CtcVocabulary::new(&files, Some(0), None).unwrap();
        assert_eq!((vocabulary.blank(), vocabulary.n_vocab()), (4, 5));
        assert_eq!(texts(&vocabulary)[..5], [Some("a"), Some("b"), Some(" "), None, None]);
    }
    for added in [r#"{"x": 1000000}"#, r#"{"x": -1}"#, "[]"] {
        let files = VocabularyFiles { vocab, added_tokens: Some(added.as_bytes()), ..Default::default() };
        assert_eq!(CtcVocabulary::new(&files, Some(0), None).unwrap_err().code(), "invalid_config", "{added}");
    }
}

/// The reference loads them as well.
#[test]
fn holes_and_doubled_numbers_are_told() {
    let (vocabulary, notes) =
        vocabulary_of(br#"{"<pad>": 0, "a": 2, "b": 2, "|": 5}"#, None, None, None, None).unwrap();
    assert_eq!((vocabulary.n_vocab(), vocabulary.text_of(1), vocabulary.text_of(4)), (6, None, None));
    assert!(notes.iter().any(|n| n.contains("3 numbers have no token")), "{notes:?}");
    assert!(notes.iter().any(|n| n.contains("the same number 2")), "{notes:?}");
    // transformers 5.23 decodes class 1 as 'a' here, and as 'z' the other way round: the later in the file.
    for (json, text) in
        [(r#"{"|": 0, "z": 1, "a": 1, "<pad>": 2}"#, "a"), (r#"{"|": 0, "a": 1, "z": 1, "<pad>": 2}"#, "z")]
    {
        let (vocabulary, _) = vocabulary_of(json.as_bytes(), None, None, None, None).unwrap();
        assert_eq!(vocabulary.text_of(1), Some(text), "{json}");
    }
}

/// transformers 5.23 has the pad of such a folder at 5, where `added_tokens.json` says 4.
#[test]
fn the_tokenizer_config_goes_before_added_tokens() {
    let config = br#"{"pad_token": "[PAD]", "unk_token": "[UNK]",
        "added_tokens_decoder": {"4": {"content": "[UNK]"}, "5": {"content": "[PAD]"}}}"#;
    let files = VocabularyFiles {
        vocab: br#"{"|": 0, "a": 1, "b": 2, "c": 3}"#,
        tokenizer_config: Some(config),
        added_tokens: Some(br#"{"[PAD]": 4, "[UNK]": 5, "<s>": 6, "</s>": 7}"#),
        ..Default::default()
    };
    let (vocabulary, notes) = CtcVocabulary::new(&files, Some(0), None).unwrap();
    assert_eq!((vocabulary.blank(), vocabulary.text_of(4)), (5, None));
    assert!(!notes.iter().any(|n| n.contains("numbers have no token")), "{notes:?}");
}

#[test]
fn letters_without_a_class_are_told() {
    let (vocabulary, _) = vocabulary_of(FLAT, None, None, None, None).unwrap();
    assert_eq!(vocabulary.check_fits(7).unwrap(), None);
    assert!(vocabulary.check_fits(6).unwrap().unwrap().contains("1 tokens are not used"));
}

fn texts(vocabulary: &CtcVocabulary) -> Vec<Option<&str>> {
    (0..=vocabulary.n_vocab()).map(|i| vocabulary.text_of(i)).collect()
}

#[test]
fn without_other_files_the_defaults_are_told() {
    let (vocabulary, notes) = vocabulary_of(FLAT, None, None, Some(0), None).unwrap();
    assert_eq!(texts(&vocabulary), [None, None, None, None, Some(" "), Some("A"), Some("B"), None]);
    assert_eq!((vocabulary.n_vocab(), vocabulary.blank()), (7, 0));
    assert!(vocabulary.languages().is_empty());
    let notes = notes.join("; ");
    assert!(notes.contains("'<pad>' is blank") && notes.contains("'|' separates words"), "{notes}");
    assert_eq!(vocabulary.finish_text(" A  B "), "A  B");
}

#[test]
fn the_files_decide() {
    let vocab = br##"{"#": 0, "[UNK]": 1, "x": 2, "[PAD]": 3}"##;
    let config = br##"{"pad_token": {"__type": "AddedToken", "content": "[PAD]"}, "unk_token": "[UNK]",
        "bos_token": null, "word_delimiter_token": "#", "replace_word_delimiter_char": "_",
        "do_lower_case": true}"##;
    let (vocabulary, notes) = vocabulary_of(vocab, Some(config), None, Some(0), None).unwrap();
    assert_eq!(texts(&vocabulary), [Some("_"), None, Some("x"), None, None]);
    assert_eq!((vocabulary.blank(), vocabulary.finish_word("X")), (3, "x".to_owned()));
    assert!(notes.is_empty(), "{notes:?}");
    // tokenizer_config.json silent: special_tokens_map.json speaks, and then config.json.
    let map = br#"{"pad_token": "[PAD]"}"#;
    assert_eq!(vocabulary_of(vocab, Some(b"{}"), Some(map), Some(1), None).unwrap().0.blank(), 3);
    let (vocabulary, notes) = vocabulary_of(vocab, Some(b"{}"), None, Some(1), None).unwrap();
    assert_eq!(vocabulary.blank(), 1);
    assert!(notes.iter().any(|n| n.contains("pad_token_id")), "{notes:?}");
}

#[test]
fn clean_up_is_the_references() {
    let config = br#"{"clean_up_tokenization_spaces": true}"#;
    let (vocabulary, _) = vocabulary_of(FLAT, Some(config), None, None, None).unwrap();
    // transformers 5.23: PreTrainedTokenizerBase.clean_up_tokenization
    assert_eq!(vocabulary.finish_text("do n't go , it 's here . ' a ' b"), "don't go, it's here.'a'b");
}

#[test]
fn a_language_is_chosen_within_a_nested_file() {
    assert_eq!(CtcVocabulary::languages_in(NESTED).unwrap(), ["eng", "twi"]);
    assert!(CtcVocabulary::languages_in(FLAT).unwrap().is_empty());
    let (twi, _) = vocabulary_of(NESTED, None, None, Some(0), Some("twi")).unwrap();
    assert_eq!(texts(&twi), [None, Some(" "), Some("a"), Some("ɔ"), None]);
    assert_eq!((twi.language(), twi.languages().len()), (Some("twi"), 2));
    let config = Some(&br#"{"target_lang": "eng"}"#[..]);
    let (eng, notes) = vocabulary_of(NESTED, config, None, Some(0), None).unwrap();
    assert_eq!(eng.n_vocab(), 3);
    assert!(notes.iter().any(|n| n.contains("'eng'")), "{notes:?}");
    let error = vocabulary_of(NESTED, config, None, Some(0), Some("ewe")).unwrap_err();
    assert!(matches!(&error, Error::UnsupportedLanguage { language } if language == "ewe"), "{error}");
    let error = vocabulary_of(NESTED, None, None, Some(0), None).unwrap_err();
    assert!(error.to_string().contains("2 languages"), "{error}");
}

#[test]
fn what_cannot_be_a_vocabulary_is_named() {
    for (json, reason) in [
        (r#"{"<pad>": 0, "a": 200000}"#, "200001 tokens"),
        (r#"{"<pad>": 0, "a": -1}"#, "'a' is '-1'"),
        (r#"{"<pad>": 0, "a": "1"}"#, "number of 'a'"),
        (r#"{"<pad>": 0, "a": {"b": 1}}"#, "number of 'a'"),
        (r#"{"a": 0, "b": 1}"#, "no blank"),
        ("{}", "0 tokens"),
        ("[1]", "no map"),
        ("{", "no map"),
    ] {
        let error = vocabulary_of(json.as_bytes(), None, None, None, Some("y")).unwrap_err();
        assert_eq!(error.code(), "invalid_config", "{json}");
        assert!(error.to_string().contains(reason), "{json}: {error}");
    }
    let (vocabulary, _) = vocabulary_of(FLAT, None, None, None, None).unwrap();
    assert!(vocabulary.check_fits(7).is_ok() && vocabulary.check_fits(9).is_ok());
    assert!(vocabulary.check_fits(1).is_ok(), "what is never told does no harm");
    assert!(vocabulary.check_fits(0).unwrap_err().to_string().contains("token 0 of 7"));
    let long = format!("{{\"<pad>\": 0, \"{}\": 1}}", "x".repeat(65));
    assert!(vocabulary_of(long.as_bytes(), None, None, None, None).unwrap_err().to_string().contains("64 bytes"));
    assert_eq!(vocabulary_of(FLAT, Some(b"no"), None, None, None).unwrap_err().code(), "invalid_config");
}
