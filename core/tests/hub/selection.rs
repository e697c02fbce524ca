//! Which files of a repository are fetched, and which never are.

use okyeame_core::weights::hub::{self, PullEvent, PullRequest};

use crate::repository::{NOBODY, Repo, WEIGHTS, cached, names, pull, read, refused, request, resolve};

/// An MMS model's repository in small: two adapters in both formats, one in the old one alone, and many more.
fn mms() -> Repo {
    let mut repo = Repo::new(&[
        ("config.json", br#"{"model_type": "wav2vec2"}"#),
        (WEIGHTS, b"tensors"),
        ("pytorch_model.bin", b"pickle"),
        ("preprocessor_config.json", b"{}"),
        ("special_tokens_map.json", b"{}"),
        ("tokenizer_config.json", b"{}"),
        ("vocab.json", b"{}"),
        ("adapter.aka.safetensors", b"akan"),
        ("adapter.aka.bin", b"akan pickle"),
        ("adapter.azj-script_latin.safetensors", b"azeri"),
        ("adapter.azj-script_latin.bin", b"azeri pickle"),
        ("adapter.fra.bin", b"french pickle"),
    ]);
    repo.0.extend(('a'..='z').map(|c| (format!("adapter.zz{c}.safetensors"), vec![0; 100])));
    repo
}

const MMS: [&str; 6] = [
    "config.json",
    WEIGHTS,
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "vocab.json",
];

fn with_adapter(request: PullRequest, language: &str) -> PullRequest {
    PullRequest { adapter: Some(language.to_owned()), ..request }
}

#[test]
fn one_weight_format_is_fetched() {
    let repo = Repo::new(&[
        ("config.json", b"{}"),
        ("pytorch_model.bin", b"pickle"),
        (WEIGHTS, b"tensors"),
        ("model.bin", b"ct2"),
        ("flax_model.msgpack", b"flax"),
        ("vocab.json", b"{}"),
        ("merges.txt", b""),
        ("intent_labels.json", b"{}"),
        ("calibration.json", b"{}"),
        ("onnx/model.safetensors", b"onnx"),
    ]);
    let server = repo.serve();
    let folder = tempfile::tempdir().unwrap();
    pull(&request(&server, folder.path())).unwrap();
    let expected = ["calibration.json", "config.json", "intent_labels.json", "merges.txt", WEIGHTS, "vocab.json"];
    assert_eq!(names(folder.path()), expected);
    assert_eq!(read(folder.path(), WEIGHTS), b"tensors");
}

#[test]
fn a_wav2vec2_model_comes_with_its_vocabulary_and_no_adapter() {
    let server = mms().serve();
    let folder = tempfile::tempdir().unwrap();
    pull(&request(&server, folder.path())).unwrap();
    assert_eq!(names(folder.path()), MMS);
    assert_eq!(server.fetches(), MMS.len());
}

#[test]
fn one_adapter_is_fetched_in_one_format() {
    for (language, file, content) in [
        ("aka", "adapter.aka.safetensors", "akan"),
        ("azj-script_latin", "adapter.azj-script_latin.safetensors", "azeri"),
        ("fra", "adapter.fra.bin", "french pickle"),
    ] {
        let server = mms().serve();
        let folder = tempfile::tempdir().unwrap();
        pull(&with_adapter(request(&server, folder.path()), language)).unwrap();
        assert_eq!(names(folder.path()), [&[file][..], &MMS].concat());
        assert_eq!(read(folder.path(), file), content.as_bytes());
        assert_eq!(server.seen_at(&resolve(file)).len(), 1);
        assert_eq!(server.fetches(), MMS.len() + 1);
    }
}

#[test]
fn a_cached_model_is_completed_with_the_adapter_that_it_lacks() {
    let server = mms().serve();
    let cache = tempfile::tempdir().unwrap();
    let plain = cached(&server, cache.path());
    let folder = pull(&plain).unwrap();
    let akan = with_adapter(plain.clone(), "aka");
    // Not complete, so not taken for complete.
    let error = refused(&PullRequest { offline: Some(true), ..akan.clone() });
    assert_eq!(error.code(), "hub_unreachable");
    assert!(error.to_string().contains("but not its adapter 'aka'"), "{error}");
    let unreachable = PullRequest { endpoint: Some(NOBODY.to_owned()), ..akan.clone() };
    assert_eq!(refused(&unreachable).code(), "hub_unreachable");

    let fetches = server.fetches();
    assert_eq!(pull(&akan).unwrap(), folder);
    assert_eq!(server.fetches(), fetches + 1, "the adapter alone is new");
    assert_eq!(read(&folder, "adapter.aka.safetensors"), b"akan");
    assert_eq!(pull(&PullRequest { offline: Some(true), ..akan }).unwrap(), folder);
    assert_eq!(pull(&unreachable).unwrap(), folder);
    assert_eq!(pull(&PullRequest { offline: Some(true), ..plain }).unwrap(), folder);
}

#[test]
fn an_adapter_that_is_not_there_is_answered_with_a_dozen_that_are() {
    let server = mms().serve();
    let folder = tempfile::tempdir().unwrap();
    let error = refused(&with_adapter(request(&server, folder.path()), "zzz-script_greek"));
    assert_eq!(error.code(), "model_not_found");
    let said = error.to_string();
    assert!(said.contains("the adapter 'zzz-script_greek' (the repository has: "), "{said}");
    assert_eq!(said.matches(", ").count(), 12, "12 names and an ellipsis: {said}");
    let none = Repo::model().serve();
    let error = refused(&with_adapter(request(&none, folder.path()), "aka"));
    assert!(error.to_string().contains("the adapter 'aka' (the repository has none)"), "{error}");
    assert_eq!((server.fetches(), none.fetches()), (0, 0));
    assert!(names(folder.path()).is_empty());
}

#[test]
fn an_adapter_of_another_model_is_not_mixed_in() {
    let server = mms().serve();
    let folder = tempfile::tempdir().unwrap();
    pull(&with_adapter(request(&server, folder.path()), "aka")).unwrap();
    // A second language of the same model may lie beside the first.
    pull(&with_adapter(request(&server, folder.path()), "fra")).unwrap();
    pull(&request(&server, folder.path())).unwrap();
    assert_eq!(names(folder.path()).len(), MMS.len() + 2);

    let mut other = mms();
    other.0.retain(|(name, _)| !name.starts_with("adapter.aka"));
    let error = refused(&request(&other.serve(), folder.path()));
    assert_eq!(error.code(), "invalid_parameter");
    assert!(error.to_string().contains("adapter.aka.safetensors"), "{error}");
}

#[test]
fn shards_are_those_that_the_index_names() {
    const INDEX: &str = "model.safetensors.index.json";
    let index =
        br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let mut repo = Repo::new(&[
        ("config.json", b"{}"),
        (INDEX, index),
        ("model-00001-of-00002.safetensors", b"one"),
        ("model-00002-of-00002.safetensors", b"two"),
        ("model-00001-of-00003.safetensors", b"left over"),
    ]);
    let server = repo.clone().serve();
    let folder = tempfile::tempdir().unwrap();
    let mut events = Vec::new();
    hub::pull(&request(&server, folder.path()), &mut |event| events.push(event)).unwrap();
    let bytes = (2 + index.len() + 3 + 3) as u64;
    assert_eq!(events[0], PullEvent::Start { files: 4, bytes_total: Some(bytes) });
    assert_eq!(server.seen_at(&resolve(INDEX)).len(), 1);
    assert_eq!(names(folder.path()).len(), 4);
    assert_eq!(read(folder.path(), "model-00002-of-00002.safetensors"), b"two");

    repo.0.remove(3);
    let server = repo.serve();
    let error = refused(&request(&server, tempfile::tempdir().unwrap().path()));
    assert_eq!(error.code(), "model_not_found");
    assert!(error.to_string().contains("model-00002-of-00002.safetensors"), "{error}");
}

#[test]
fn a_repository_without_weights_is_no_model() {
    let server = Repo::new(&[("README.md", b"# Data"), ("config.json", b"{}")]).serve();
    let folder = tempfile::tempdir().unwrap();
    let error = refused(&request(&server, folder.path()));
    assert_eq!(error.code(), "model_not_found");
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    assert_eq!(server.fetches(), 0);
}

#[test]
fn two_models_are_not_mixed_in_one_folder() {
    let server = Repo::model().serve();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("intent_labels.json"), "another model's").unwrap();
    std::fs::write(folder.path().join("NOTES.txt"), "mine").unwrap();
    let error = refused(&request(&server, folder.path()));
    assert_eq!(error.code(), "invalid_parameter");
    assert!(error.to_string().contains("intent_labels.json"), "{error}");
    assert_eq!(server.fetches(), 0);
    std::fs::remove_file(folder.path().join("intent_labels.json")).unwrap();
    pull(&request(&server, folder.path())).unwrap();
    assert_eq!(read(folder.path(), "NOTES.txt"), b"mine");
}
