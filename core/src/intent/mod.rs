//! From words to an intent: what a single-task Whisper, which only transcribes, needs to serve a shop.
//!
//! Read in this order:
//! - [`labels`]: the 49 intents.
//! - [`normalize`]: one spelling for Twi, and the folding that is matched.
//! - [`channel`]: what each folded letter is heard as, and how sure a match is; the numbers come from
//!   `core/data/text_match.json`, fitted by `tests/intent/fit_text_match.py`.
//! - [`text_match`]: the known phrases, ranked against what was heard.
//! - [`slots`]: the values in the words; [`catalogue`]: the shop's own names for them.
//! - [`head`]: intents from the sound itself, by a classifier on the encoder's states ([`pooling`]) and on the letters
//!   that it hears in them ([`reader`]), which [`word_search`] makes words of where a head brings a [`lexicon`]; its classes are named by [`label_files`], and [`calibration`] says what its numbers are worth.
//!
//! Knows no audio and no models; tensors in [`head`] and [`pooling`] alone.

pub mod calibration;
pub mod catalogue;
pub mod channel;
pub mod head;
pub mod label_files;
pub mod labels;
pub mod lexicon;
pub mod normalize;
pub mod pooling;
pub mod reader;
pub mod slots;
pub mod text_match;
pub mod word_search;

pub use labels::{IntentInfo, built_in, label_id};
