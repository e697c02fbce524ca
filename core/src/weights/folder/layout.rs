//! Which model a checkpoint holds, told from the names of its tensors: what a file says of itself in `config.json` may be
//! missing, wrong or somebody's own; the tensors are what there is to compute with.
//!
//! Names are brought to the house's scheme: `model.encoder.…` and `model.decoder.…` for a Whisper (Hugging Face's own),
//! `head.…` for an intent head ([`crate::intent::head`]). A repository may have them under any prefix:
//!
//! | in the file | is |
//! |---|---|
//! | `model.encoder.…`, `model.decoder.…` | a Whisper, as Hugging Face saves it |
//! | `encoder.…`, `projector.…`, `classifier.…`, `layer_weights` | `WhisperForAudioClassification` |
//! | `whisper.model.encoder.…`, `intent_classifier.0.…` | a Whisper inside somebody's module, a head of two layers |
//! | `transcription_model.model.…`, `classification_model.…` | `WhisperForMultiTask`, with or without an encoder of its own for the head |
//! | `classifier.…` and no encoder | a head alone, for the base that `config.json` names |
//! | `lora.…` beside such a head | adapters on that base's encoder ([`crate::weights::lora`]) |
//! | `wav2vec2.…`, `lm_head.…` | `Wav2Vec2ForCTC` |
//!
//! A name that fits nowhere keeps its own, so that strict loading reports it as unused.

use crate::intent::head::{MAX_CONTEXTS, context_name};
use std::collections::{BTreeMap, BTreeSet};

use crate::weights::lora::LORA_PREFIX;

/// What modules call a linear classifier, or a sequence of layers that ends in one.
const CLASSIFIERS: [&str; 6] = [
    "classifier",
    "intent_classifier",
    "intent_head",
    "classification_head",
    "intent_classification_head",
    "intent_output",
];

/// From the names shown to those in the file.
pub(crate) type Names = BTreeMap<String, String>;

/// What the tensors are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A Whisper: an encoder, perhaps a decoder, perhaps a head.
    Whisper {
        /// Encoder and decoder, and whatever fits nowhere.
        body: Names,
        /// Whether there is a text decoder.
        has_decoder: bool,
        /// A second copy of the token embedding, by its name in the file.
        projection: Option<String>,
        /// The head's tensors.
        head: Option<HeadNames>,
    },
    /// A head without an encoder.
    HeadAlone {
        /// Its tensors.
        head: HeadNames,
        /// Whatever fits nowhere.
        rest: Names,
    },
    /// A wav2vec 2.0 encoder; `has_ctc` if it has a CTC layer.
    Wav2Vec2 {
        /// Whether there is `lm_head.weight`.
        has_ctc: bool,
    },
    /// None of these.
    Unknown,
}

/// An intent head's tensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeadNames {
    /// `head.…`
    pub(crate) names: Names,
    /// `model.encoder.…` of an encoder that only the head reads.
    pub(crate) own_encoder: Option<Names>,
    /// `lora.…`: adapters that make the base's encoder the head's own.
    pub(crate) lora: Names,
}

/// Tells the layout from every tensor's name.
pub(crate) fn layout_of(names: &[String]) -> Layout {
    if names.iter().any(|n| n.starts_with("wav2vec2.")) {
        return Layout::Wav2Vec2 { has_ctc: names.iter().any(|n| n == "lm_head.weight") };
    }
    let roots = |tail| -> BTreeSet<&str> { names.iter().filter_map(|n| n.strip_suffix::<&str>(tail)).collect() };
    let decoders = roots("decoder.embed_tokens.weight");
    let mut encoders: Vec<&str> = roots("encoder.conv1.weight").into_iter().collect();
    // The body is what can write; where nothing can, the shortest name.
    encoders.sort_by_cached_key(|root| (!decoders.contains(root), root.len()));
    let mut rest: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let Some(root) = encoders.first().copied() else {
        let (names, rest) = head_names(rest);
        let (lora, rest) = rest.into_iter().partition(|(name, _)| name.starts_with(LORA_PREFIX));
        return match names {
            Some(names) => Layout::HeadAlone { head: HeadNames { names, own_encoder: None, lora }, rest },
            None => Layout::Unknown,
        };
    };
    let mut body = Names::new();
    for part in ["encoder.", "decoder."] {
        body.extend(take_prefixed(&mut rest, &format!("{root}{part}"), &format!("model.{part}")));
    }
    let has_decoder = body.contains_key("model.decoder.embed_tokens.weight");
    // The output projection is the token embedding; some files hold it a second time, beside the body or above it.
    let projection =
        rest.iter().copied().find(|n| n.strip_suffix("proj_out.weight").is_some_and(|above| root.starts_with(above)));
    projection.map(|name| rest.remove(name));
    let own_encoder =
        encoders.get(1).map(|root| take_prefixed(&mut rest, &format!("{root}encoder."), "model.encoder."));
    let (head, rest) = head_names(rest);
    for (shown, name) in rest {
        // One of the body's own names under another root: it must not take the place of the body's.
        let shown = if body.contains_key(&shown) { format!("{shown} (beside {root})") } else { shown };
        body.insert(shown, name);
    }
    let head = match (head, own_encoder) {
        (Some(names), own_encoder) => Some(HeadNames { names, own_encoder, lora: Names::new() }),
        (None, Some(encoder)) => {
            // An encoder that nothing reads is reported under its own names.
            body.extend(encoder.into_values().map(|name| (name.clone(), name)));
            None
        }
        (None, None) => None,
    };
    Layout::Whisper { body, has_decoder, projection: projection.map(str::to_owned), head }
}

/// Takes the names of one module out of `rest`.
fn take_prefixed(rest: &mut BTreeSet<&str>, prefix: &str, shown: &str) -> Names {
    let taken: Vec<&str> = rest.iter().copied().filter(|name| name.starts_with(prefix)).collect();
    taken
        .into_iter()
        .map(|name| {
            rest.remove(name);
            (format!("{shown}{}", &name[prefix.len()..]), name.to_owned())
        })
        .collect()
}

/// The head among what is left of a checkpoint, and what then still fits nowhere. Two heads, or layers in between
/// that are not linear, are no head that is known: all their names stay.
fn head_names(rest: BTreeSet<&str>) -> (Option<Names>, Names) {
    let own_names = |names: BTreeSet<&str>| names.into_iter().map(|n| (n.to_owned(), n.to_owned())).collect();
    // (path of the classifier, number in a sequence) -> its tensors' last names
    let mut layers: BTreeMap<(&str, Option<u32>), Vec<&str>> = BTreeMap::new();
    for name in &rest {
        if let Some((path, leaf)) = name.rsplit_once('.').filter(|(_, leaf)| matches!(*leaf, "weight" | "bias")) {
            let (path, number) = match path.rsplit_once('.').and_then(|(p, n)| Some((p, n.parse::<u32>().ok()?))) {
                Some((path, number)) => (path, Some(number)),
                None => (path, None),
            };
            if CLASSIFIERS.contains(&last_part(path)) {
                layers.entry((path, number)).or_default().push(leaf);
            }
        }
    }
    let paths: BTreeSet<&str> = layers.keys().map(|(path, _)| *path).collect();
    let roles: &[&str] = match layers.len() {
        1 => &["classifier"],
        2 => &["hidden", "classifier"],
        _ => return (None, own_names(rest)),
    };
    let [path] = paths.into_iter().collect::<Vec<_>>()[..] else { return (None, own_names(rest)) };
    let mut head = Names::new();
    for ((_, number), role) in layers.keys().zip(roles) {
        for leaf in &layers[&(path, *number)] {
            let number = number.map_or_else(String::new, |n| format!(".{n}"));
            head.insert(format!("head.{role}.{leaf}"), format!("{path}{number}.{leaf}"));
        }
    }
    // Beside the classifier, or beside the module that it is the last part of.
    let beside = path.strip_suffix(last_part(path)).unwrap_or_default();
    let mut take = |leaf: &str| {
        let name = format!("{beside}{leaf}");
        if rest.contains(name.as_str()) {
            head.insert(format!("head.{leaf}"), name);
        }
    };
    take("layer_weights");
    let contexts = (0..MAX_CONTEXTS).map(context_name);
    let layers = ["projector", "attention", "scores", "hidden", "letters", "reader", "reader_classifier"];
    for layer in layers.into_iter().map(str::to_owned).chain(contexts) {
        take(&format!("{layer}.weight"));
        take(&format!("{layer}.bias"));
    }
    let used: BTreeSet<&String> = head.values().collect();
    let rest = rest.into_iter().filter(|name| !used.contains(&(*name).to_owned())).collect();
    (Some(head), own_names(rest))
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn layout(names: &[&str]) -> Layout {
        layout_of(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
    }

    fn whisper(names: &[&str]) -> (Names, bool, Option<HeadNames>) {
        match layout(names) {
            Layout::Whisper { body, has_decoder, head, .. } => (body, has_decoder, head),
            other => panic!("{other:?}"),
        }
    }

    const BODY: [&str; 3] =
        ["model.encoder.conv1.weight", "model.encoder.conv1.bias", "model.decoder.embed_tokens.weight"];

    #[test]
    fn hugging_faces_own_names_stay() {
        let (body, has_decoder, head) = whisper(&[&BODY[..], &["proj_out.weight"]].concat());
        assert!(has_decoder && head.is_none());
        assert!(body.iter().all(|(shown, name)| shown == name));
        assert_eq!(body.len(), BODY.len());
    }

    #[test]
    fn a_classifier_without_a_decoder() {
        let (body, has_decoder, head) = whisper(&[
            "encoder.conv1.weight",
            "projector.weight",
            "projector.bias",
            "classifier.weight",
            "classifier.bias",
            "layer_weights",
        ]);
        assert!(!has_decoder);
        assert_eq!(body["model.encoder.conv1.weight"], "encoder.conv1.weight");
        let names = head.unwrap().names;
        assert_eq!(names.len(), 5);
        assert_eq!(names["head.classifier.bias"], "classifier.bias");
        assert_eq!(names["head.layer_weights"], "layer_weights");
    }

    #[test]
    fn a_sequence_in_somebodys_module() {
        let (body, has_decoder, head) = whisper(&[
            "whisper.model.encoder.conv1.weight",
            "whisper.model.decoder.embed_tokens.weight",
            "whisper.proj_out.weight",
            "intent_classifier.0.weight",
            "intent_classifier.0.bias",
            "intent_classifier.3.weight",
            "intent_classifier.3.bias",
        ]);
        assert!(has_decoder);
        assert_eq!(body.len(), 2, "{body:?}");
        let names = head.unwrap().names;
        assert_eq!(names["head.hidden.weight"], "intent_classifier.0.weight");
        assert_eq!(names["head.classifier.bias"], "intent_classifier.3.bias");
    }

    #[test]
    fn two_encoders_belong_to_the_two_tasks() {
        let names = [
            "transcription_model.model.encoder.conv1.weight",
            "transcription_model.model.decoder.embed_tokens.weight",
            "transcription_model.proj_out.weight",
            "classification_model.encoder.conv1.weight",
            "classification_model.classifier.weight",
            "classification_model.classifier.bias",
        ];
        let (body, has_decoder, head) = whisper(&names);
        assert!(has_decoder);
        assert_eq!(body["model.encoder.conv1.weight"], names[0]);
        let head = head.unwrap();
        assert_eq!(head.own_encoder.unwrap()["model.encoder.conv1.weight"], names[3]);
        assert_eq!(head.names["head.classifier.weight"], names[4]);
    }

    #[test]
    fn what_fits_nowhere_keeps_its_name() {
        let (body, _, head) = whisper(&[&BODY[..], &["adapter.weight", "classifier.running_mean"]].concat());
        assert!(head.is_none());
        assert!(body.contains_key("adapter.weight") && body.contains_key("classifier.running_mean"));
        // two heads are none: which of them would it be?
        let (body, _, head) = whisper(&[&BODY[..], &["a.classifier.weight", "b.intent_head.weight"]].concat());
        assert!(head.is_none() && body.contains_key("a.classifier.weight"), "{body:?}");
        // an encoder that nothing reads
        let (body, _, _) = whisper(&[&BODY[..], &["other.encoder.conv1.weight"]].concat());
        assert!(body.contains_key("other.encoder.conv1.weight"));
    }

    #[test]
    fn a_stray_tensor_does_not_take_the_bodys_place() {
        let (body, ..) = whisper(&[
            "x.encoder.conv1.weight",
            "x.decoder.embed_tokens.weight",
            "x.encoder.layer_norm.weight",
            "model.encoder.layer_norm.weight",
        ]);
        assert_eq!(body["model.encoder.layer_norm.weight"], "x.encoder.layer_norm.weight");
        assert_eq!(body["model.encoder.layer_norm.weight (beside x.)"], "model.encoder.layer_norm.weight");
    }

    #[test]
    fn a_hundred_thousand_roots_take_no_time() {
        let names: Vec<String> = (0..100_000)
            .flat_map(|i| [format!("{i}.encoder.conv1.weight"), format!("{i}.decoder.embed_tokens.weight")])
            .collect();
        let started = std::time::Instant::now();
        assert!(matches!(layout_of(&names), Layout::Whisper { .. }));
        assert!(started.elapsed().as_secs() < 20, "linear, not quadratic: {:?}", started.elapsed());
    }

    #[test]
    fn a_head_alone_and_others() {
        let Layout::HeadAlone { head, rest } = layout(&["classifier.weight", "classifier.bias", "layer_weights", "x"])
        else {
            panic!("no head")
        };
        assert_eq!((head.names.len(), rest.len()), (3, 1));
        let adapters = ["lora.layers.4.q_proj.a", "lora.layers.4.q_proj.b"];
        let Layout::HeadAlone { head, rest } =
            layout(&[&["classifier.weight", "classifier.bias"][..], &adapters].concat())
        else {
            panic!("no head")
        };
        assert_eq!((head.names.len(), rest.len()), (2, 0));
        assert!(head.lora.keys().eq(adapters));
        // On a whole Whisper they belong to nothing, and are reported.
        let (body, ..) = whisper(&[&BODY[..], &["classifier.weight", adapters[0]]].concat());
        assert!(body.contains_key(adapters[0]));
        assert_eq!(layout(&["wav2vec2.a", "lm_head.weight"]), Layout::Wav2Vec2 { has_ctc: true });
        assert_eq!(layout(&["wav2vec2.a"]), Layout::Wav2Vec2 { has_ctc: false });
        assert_eq!(layout(&["bert.embeddings.word_embeddings.weight"]), Layout::Unknown);
        assert_eq!(layout(&[]), Layout::Unknown);
    }
}
