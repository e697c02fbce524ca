//! What is in the files of a model folder: other models, hostile ones, files that other tools wrote, and what stands in for
//! those that are not there. Which model a folder is told to be is `model_folders.rs`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use common::{bytes_of, copy_of, golden, hugging_face_folder, json, refused, set, write};
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::weights::folder::ModelFolder;
use okyeame_core::{Recognizer, Result, Task};
use serde_json::{Value, json};

fn load(folder: &Path) -> Result<Recognizer> {
    Recognizer::from_folder(ModelFolder::open(folder)?, LoadOptions::default())
}

/// What a stranger's files make the loader do is bounded, and a tokenizer of another model is found out.
#[test]
fn numbers_that_no_model_has() {
    let with_token = |token: &str, id: u64| {
        let folder = copy_of("tiny-2");
        let mut tokenizer: Value = json("tiny-2/tokenizer.json");
        for t in tokenizer["added_tokens"].as_array_mut().unwrap() {
            if t["content"] == token {
                t["content"] = json!("<|gone|>");
            }
        }
        tokenizer["model"]["vocab"][token] = json!(id);
        write(&folder, "tokenizer.json", &tokenizer);
        folder
    };
    for token in ["<|startoftranscript|>", "<|translate|>", "<|notimestamps|>", "<|endoftext|>"] {
        for id in [121, 5000, u64::from(u32::MAX)] {
            refused(load(with_token(token, id).path()), "invalid_config");
        }
    }
    // 200,000 times the list of non-speech tokens
    let folder = copy_of("tiny-2");
    let mut generation: Value = json("tiny-2/generation_config.json");
    generation["suppress_tokens"] = json!(vec![-1; 200_000]);
    generation["alignment_heads"] = json!(vec![[0, 1]; 200_000]);
    write(&folder, "generation_config.json", &generation);
    load(folder.path()).unwrap();
    // every dimension possible, their product not
    let folder = copy_of("tiny-2");
    set(&folder, "max_source_positions", json!(65_536));
    set(&folder, "encoder_ffn_dim", json!(65_536));
    assert!(refused(load(folder.path()), "invalid_config").contains("max_source_positions × encoder_ffn_dim"));
}

#[test]
fn other_models_are_called_by_name() {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let folder = tempfile::tempdir().unwrap();
    let save = |names: &[&str]| {
        let data = [0_u8; 16];
        let views = names.iter().map(|n| (*n, TensorView::new(Dtype::F32, vec![2, 2], &data).unwrap()));
        std::fs::write(folder.path().join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    };
    write(&folder, "config.json", &json!({"architectures": ["BertForSequenceClassification"], "model_type": "bert"}));
    save(&["bert.embeddings.word_embeddings.weight", "classifier.weight"]);
    assert!(refused(ModelFolder::open(folder.path()), "unsupported_model").contains("BertForSequenceClassification"));
    write(&folder, "config.json", &json!({"architectures": ["Wav2Vec2ForPreTraining"], "model_type": "wav2vec2"}));
    save(&["wav2vec2.encoder.layer_norm.weight", "quantizer.codevectors"]);
    assert!(refused(ModelFolder::open(folder.path()), "unsupported_model").contains("CTC"));
    // an encoder and nothing that reads it
    let encoder = copy_of("heads/classification");
    let bytes = bytes_of(&encoder.path().join("model.safetensors"));
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let views = file.tensors().into_iter().filter(|(name, _)| name.starts_with("encoder."));
    std::fs::write(encoder.path().join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    assert!(refused(load(encoder.path()), "unsupported_model").contains("neither a decoder"));
}

/// The same kinds of repository as `.bin`, whose size no configuration tells.
#[test]
fn other_models_in_pytorchs_format_are_called_by_name_too() {
    let folder = copy_of("heads/multitask");
    write(&folder, "config.json", &json!({"architectures": ["HubertForCTC"], "model_type": "hubert"}));
    let sentence = refused(ModelFolder::open(folder.path()), "invalid_config");
    assert!(sentence.contains("d_model"), "{sentence}");
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    let sentence = refused(ModelFolder::open(folder.path()), "model_not_found");
    assert!(sentence.contains("config.json"), "{sentence}");

    let peft = tempfile::tempdir().unwrap();
    write(&peft, "adapter_config.json", &json!({"base_model_name_or_path": "openai/whisper-small"}));
    let sentence = refused(ModelFolder::open(peft.path()), "unsupported_model");
    assert!(sentence.contains("merge_and_unload"), "{sentence}");
}

/// What other tools write into `config.json` and transformers would leave out.
#[test]
fn nulls_and_nested_configurations_are_read() {
    let folder = copy_of("heads/multitask");
    set(&folder, "architectures", json!([null]));
    set(&folder, "suppress_tokens", json!([]));
    let path = folder.path().join("config.json");
    let mut inner: Value = serde_json::from_slice(&bytes_of(&path)).unwrap();
    for key in ["architectures", "activation_function", "begin_suppress_tokens"] {
        inner.as_object_mut().unwrap().insert(key.to_owned(), Value::Null);
    }
    let outer = json!({"architectures": ["WhisperForMultiTask"], "custom_model": true, "whisper_config": inner});
    write(&folder, "config.json", &outer);
    let info = load(folder.path()).unwrap().info().clone();
    assert_eq!((info.task, info.architecture.as_str()), (Task::Multi, "WhisperForMultiTask"));
    assert!(info.fallbacks.iter().any(|f| f.contains("whisper_config")), "{:?}", info.fallbacks);
}

#[test]
fn an_untied_projection_is_refused() {
    let folder = copy_of("heads/multitask");
    set(&folder, "tie_word_embeddings", json!(false));
    assert!(load(folder.path()).is_ok(), "it says so, but holds the same numbers twice");
    let tensors = bytes_of(&golden("tiny-2/model.safetensors"));
    let file = safetensors::SafeTensors::deserialize(&tensors).unwrap();
    let mut views: Vec<(String, safetensors::tensor::TensorView<'_>)> = file.tensors();
    let zeros = vec![0_u8; views.iter().find(|(n, _)| n.contains("embed_tokens")).unwrap().1.data().len()];
    let shape = file.tensor("model.decoder.embed_tokens.weight").unwrap().shape().to_vec();
    let other = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &zeros).unwrap();
    views.push(("proj_out.weight".to_owned(), other));
    let folder = copy_of("tiny-2");
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    assert!(load(folder.path()).is_ok(), "tied unless it says otherwise");
    set(&folder, "tie_word_embeddings", json!(false));
    assert!(refused(load(folder.path()), "unsupported_model").contains("tie_word_embeddings"));
}

#[cfg(unix)]
#[test]
fn links_lead_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        let folder = hugging_face_folder(&[("model.safetensors", "model.safetensors")]);
        let target = outside.path().join(file);
        std::fs::rename(folder.path().join(file), &target).unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join(file)).unwrap();
        refused(ModelFolder::open(folder.path()), "unsafe_path");
    }
    // a link inside the folder, and the hub cache's own from a snapshot to its blobs, are followed
    let cache = tempfile::tempdir().unwrap();
    let repo = cache.path().join("models--shop--tiny-2");
    let snapshot = repo.join("snapshots").join("0".repeat(40));
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repo.join("blobs")).unwrap();
    for (i, file) in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"].iter().enumerate()
    {
        std::fs::copy(golden("tiny-2").join(file), repo.join("blobs").join(i.to_string())).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{i}"), snapshot.join(file)).unwrap();
    }
    assert_eq!(ModelFolder::open(&snapshot).unwrap().name, "shop/tiny-2");
    std::fs::remove_file(snapshot.join("config.json")).unwrap();
    std::os::unix::fs::symlink("../../../secret.json", snapshot.join("config.json")).unwrap();
    std::fs::copy(golden("tiny-2/config.json"), cache.path().join("secret.json")).unwrap();
    refused(ModelFolder::open(&snapshot), "unsafe_path");
}

#[test]
fn a_pointer_of_large_file_storage_is_not_the_weights() {
    let folder = hugging_face_folder(&[("model.safetensors", "model.safetensors")]);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 290403936\n";
    std::fs::write(folder.path().join("model.safetensors"), pointer).unwrap();
    let sentence = refused(ModelFolder::open(folder.path()), "damaged_weights");
    assert!(sentence.contains("git lfs pull"), "{sentence}");
}

/// Older checkpoints have the tokenizer in parts.
#[test]
fn a_tokenizer_of_parts_is_the_whole_one() {
    for name in ["tiny-multilingual", "tiny-2"] {
        let whole: Value = json(&format!("{name}/tokenizer.json"));
        let parts = copy_of(name);
        std::fs::remove_file(parts.path().join("tokenizer.json")).unwrap();
        refused(ModelFolder::open(parts.path()), "model_not_found");
        write(&parts, "vocab.json", &whole["model"]["vocab"]);
        let merge = |m: &Value| match m {
            Value::String(line) => line.clone(),
            pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        };
        let merges: Vec<String> = whole["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
        std::fs::write(parts.path().join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
        let added: serde_json::Map<String, Value> = whole["added_tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| (t["content"].as_str().unwrap().to_owned(), t["id"].clone()))
            .collect();
        write(&parts, "added_tokens.json", &Value::Object(added));

        let (from_parts, from_whole) = (load(parts.path()).unwrap(), load(&golden(name)).unwrap());
        assert!(from_parts.info().fallbacks.iter().any(|f| f.contains("no tokenizer.json")));
        let tokenizer = |folder: &Path| {
            let json = ModelFolder::open(folder).unwrap().into_whisper().unwrap().tokenizer_json.unwrap();
            okyeame_core::tokenizer::Tokenizer::from_json(&json).unwrap()
        };
        let (a, b) = (tokenizer(parts.path()), tokenizer(&golden(name)));
        assert_eq!(a.special(), b.special());
        for text in ["", "ɛ", "kɔ cart", " no mu ɔɔ", "a"] {
            assert_eq!(a.encode(text).unwrap(), b.encode(text).unwrap(), "{text:?}");
        }
        let all: Vec<u32> = (0..b.special().eot).collect();
        assert_eq!(a.decode(&all).unwrap(), b.decode(&all).unwrap());
        assert_eq!(from_parts.info().languages, from_whole.info().languages);

        for (file, text) in [("vocab.json", "[]"), ("vocab.json", "{\"a\": -1}"), ("added_tokens.json", "7")] {
            let spoilt = tempfile::tempdir().unwrap();
            for f in std::fs::read_dir(parts.path()).unwrap() {
                let f = f.unwrap();
                std::fs::copy(f.path(), spoilt.path().join(f.file_name())).unwrap();
            }
            std::fs::write(spoilt.path().join(file), text).unwrap();
            refused(load(spoilt.path()), "invalid_config");
        }
    }
}
