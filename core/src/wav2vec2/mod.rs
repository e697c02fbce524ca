//! wav2vec 2.0 with a CTC head: sound to characters, a frame at a time. XLS-R fine-tunes and MMS are of this form.
//!
//! Follows `transformers` 5.23 `models/wav2vec2` (`Wav2Vec2ForCTC`), with its tensor names, and Baevski et al. 2020. The
//! convolutional feature encoder (group or layer norm), the transformer (post-norm or pre-norm) and MMS's attention
//! adapters are all here; what is only for training (masking, quantiser) is not, nor is the convolutional adapter
//! (`add_adapter`) of speech translation.
//!
//! A clip always runs alone. For models that were trained with an attention mask (layer norm), that gives what a padded
//! batch with its mask gives. For those that were not (group norm), the norm of the first layer looks at the whole
//! padded length, so a padded batch would change the answer; nothing here makes one.
//!
//! Knows no files and no search: [`crate::weights`] brings tensors, [`crate::decoding::ctc`] turns log-probabilities
//! into words. Read in this order: [`config`], [`feature_encoder`], [`encoder`], [`model`], [`vocabulary`], [`speech`].

pub mod config;
pub mod encoder;
pub mod feature_encoder;
pub mod model;
pub mod speech;
pub mod vocabulary;

pub use config::Wav2Vec2Config;
pub use model::{Wav2Vec2, expected_tensors};
pub use speech::{CtcTranscript, Wav2Vec2OnDevice, features_from_json};
pub use vocabulary::{CtcVocabulary, VocabularyFiles};
