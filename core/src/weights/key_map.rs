//! Names of the same tensors in different formats. The house's names are Hugging Face's
//! (`model.encoder.layers.0.self_attn.q_proj.weight`).

use std::collections::{BTreeMap, BTreeSet};

/// Where a tensor lies inside a CTranslate2 file: part `index` of `n_parts` equal row blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ct2Part {
    /// CTranslate2's name of the variable.
    pub variable: String,
    /// Which block of rows.
    pub index: usize,
    /// Of how many: 3 in a fused q, k, v, 2 in a fused k, v.
    pub n_parts: usize,
}

/// CTranslate2's names of one layer's tensors: `(variable, Hugging Face names of its row blocks)`.
/// An empty name is a block that Hugging Face does not have: the key projection has no bias, and the
/// fused bias holds zeros in its place.
const LAYER: [(&str, &[&str]); 20] = [
    ("self_attention/layer_norm/gamma", &["self_attn_layer_norm.weight"]),
    ("self_attention/layer_norm/beta", &["self_attn_layer_norm.bias"]),
    (
        "self_attention/linear_0/weight",
        &["self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"],
    ),
    ("self_attention/linear_0/bias", &["self_attn.q_proj.bias", "", "self_attn.v_proj.bias"]),
    ("self_attention/linear_1/weight", &["self_attn.out_proj.weight"]),
    ("self_attention/linear_1/bias", &["self_attn.out_proj.bias"]),
    ("attention/layer_norm/gamma", &["encoder_attn_layer_norm.weight"]),
    ("attention/layer_norm/beta", &["encoder_attn_layer_norm.bias"]),
    ("attention/linear_0/weight", &["encoder_attn.q_proj.weight"]),
    ("attention/linear_0/bias", &["encoder_attn.q_proj.bias"]),
    ("attention/linear_1/weight", &["encoder_attn.k_proj.weight", "encoder_attn.v_proj.weight"]),
    ("attention/linear_1/bias", &["", "encoder_attn.v_proj.bias"]),
    ("attention/linear_2/weight", &["encoder_attn.out_proj.weight"]),
    ("attention/linear_2/bias", &["encoder_attn.out_proj.bias"]),
    ("ffn/layer_norm/gamma", &["final_layer_norm.weight"]),
    ("ffn/layer_norm/beta", &["final_layer_norm.bias"]),
    ("ffn/linear_0/weight", &["fc1.weight"]),
    ("ffn/linear_0/bias", &["fc1.bias"]),
    ("ffn/linear_1/weight", &["fc2.weight"]),
    ("ffn/linear_1/bias", &["fc2.bias"]),
];

const OUTSIDE_LAYERS: [(&str, &str); 11] = [
    ("encoder/conv1/weight", "model.encoder.conv1.weight"),
    ("encoder/conv1/bias", "model.encoder.conv1.bias"),
    ("encoder/conv2/weight", "model.encoder.conv2.weight"),
    ("encoder/conv2/bias", "model.encoder.conv2.bias"),
    ("encoder/position_encodings/encodings", "model.encoder.embed_positions.weight"),
    ("encoder/layer_norm/gamma", "model.encoder.layer_norm.weight"),
    ("encoder/layer_norm/beta", "model.encoder.layer_norm.bias"),
    ("decoder/embeddings/weight", "model.decoder.embed_tokens.weight"),
    ("decoder/position_encodings/encodings", "model.decoder.embed_positions.weight"),
    ("decoder/layer_norm/gamma", "model.decoder.layer_norm.weight"),
    ("decoder/layer_norm/beta", "model.decoder.layer_norm.bias"),
];

/// What a stack (`encoder/…`, `decoder/…`) holds besides tensors: numbers and flags of the format itself, as
/// `ctranslate2/specs/transformer_spec.py` and `whisper_spec.py` write them for a Whisper, now or in older versions.
const SETTINGS: [&str; 12] = [
    "activation",
    "alibi",
    "alibi_use_positive_positions",
    "alignment_heads",
    "alignment_layer",
    "multi_query_attention",
    "num_heads",
    "pre_norm",
    "scale_alibi",
    "scale_embeddings",
    "start_from_zero_embedding",
    "with_relative_position",
];

/// Hugging Face's names for a CTranslate2 Whisper's variables. Settings of the format (`decoder/num_heads`) and the
/// scales of quantised weights (`…/weight_scale`) have none and are left out; a variable that is nothing known keeps
/// its own name, so that strict loading reports it.
pub fn ct2_names<'a>(variables: impl Iterator<Item = &'a str>) -> BTreeMap<String, Ct2Part> {
    let variables: BTreeSet<&str> = variables.collect();
    let mut names = BTreeMap::new();
    for variable in &variables {
        let part = |index, n_parts| Ct2Part { variable: (*variable).to_owned(), index, n_parts };
        let known = hugging_face_names(variable);
        let is_scale = variable.strip_suffix("_scale").is_some_and(|weight| variables.contains(weight));
        if known.is_empty() && !is_scale && !is_setting(variable) {
            names.insert((*variable).to_owned(), part(0, 1));
        }
        for (index, name, n_parts) in known {
            names.insert(name, part(index, n_parts));
        }
    }
    names
}

/// Whether a variable is one of the tensors that Hugging Face has too.
pub(super) fn is_ct2_weight(variable: &str) -> bool {
    !hugging_face_names(variable).is_empty()
}

fn is_setting(variable: &str) -> bool {
    matches!(variable.split_once('/'), Some(("encoder" | "decoder", setting)) if SETTINGS.contains(&setting))
}

fn hugging_face_names(variable: &str) -> Vec<(usize, String, usize)> {
    if let Some((_, name)) = OUTSIDE_LAYERS.iter().find(|(v, _)| *v == variable) {
        return vec![(0, (*name).to_owned(), 1)];
    }
    let Some((stack, rest)) = variable.split_once("/layer_") else { return Vec::new() };
    let Some((layer, rest)) = rest.split_once('/') else { return Vec::new() };
    let known = LAYER.iter().find(|(v, _)| *v == rest);
    let Some((_, blocks)) = known else { return Vec::new() };
    blocks
        .iter()
        .enumerate()
        .filter(|(_, name)| !name.is_empty())
        .map(|(i, name)| (i, format!("model.{stack}.layers.{layer}.{name}"), blocks.len()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_keeps_its_name() {
        let variables = [
            "decoder/alignment_heads",
            "decoder/project_in/weight",
            "encoder/conv1/weight",
            "encoder/conv1/weight_scale",
            "encoder/conv3/weight_scale",
            "encoder/layer_0/num_heads",
            "spec/pre_norm",
        ];
        let names = ct2_names(variables.into_iter());
        let keys: Vec<&str> = names.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "decoder/project_in/weight",
                "encoder/conv3/weight_scale",
                "encoder/layer_0/num_heads",
                "model.encoder.conv1.weight",
                "spec/pre_norm",
            ]
        );
        assert_eq!(names[variables[1]], Ct2Part { variable: variables[1].to_owned(), index: 0, n_parts: 1 });
        assert!(is_ct2_weight(variables[2]) && !is_ct2_weight(variables[3]));
    }

    #[test]
    fn fused_tensors_split_and_scalars_are_left_out() {
        let names = ct2_names(
            [
                "encoder/layer_11/self_attention/linear_0/bias",
                "decoder/layer_0/attention/linear_1/weight",
                "decoder/num_heads",
                "decoder/layer_norm/gamma",
            ]
            .into_iter(),
        );
        let keys: Vec<&str> = names.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "model.decoder.layer_norm.weight",
                "model.decoder.layers.0.encoder_attn.k_proj.weight",
                "model.decoder.layers.0.encoder_attn.v_proj.weight",
                "model.encoder.layers.11.self_attn.q_proj.bias",
                "model.encoder.layers.11.self_attn.v_proj.bias",
            ]
        );
        assert_eq!(names["model.encoder.layers.11.self_attn.v_proj.bias"].index, 2);
    }
}
