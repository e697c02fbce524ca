//! The words of some clips: how well they are written, what they mean alone, and what they add to the sound.

use super::{EvaluateEvent, Evaluator, Item, by_sound, judged, ready};
use crate::audio::Waveform;
use crate::error::Result;
use crate::intent::text_match::Heard;
use crate::recognition::IntentSource;
use crate::recognizer::{RecognizeOptions, Verdict};
use crate::training::evaluation::WordsResult;
use crate::training::manifest::Example;
use crate::training::metrics::{SlotCounts, accuracy, character_error_rate, slot_counts, word_error_rate};
use crate::training::words::{WordsCache, Written, hex};

impl Evaluator<'_> {
    /// Words, what they mean, and both together, on some of the clips.
    pub(super) fn words(
        &self,
        items: &[Item<'_>],
        cache: &mut WordsCache,
        on_event: &mut dyn FnMut(EvaluateEvent),
    ) -> Result<Option<WordsResult>> {
        let recognizer = &self.recognizers[0];
        if recognizer.audio_head().is_none() || !recognizer.info().transcription {
            return Ok(None);
        }
        let mut clips: Vec<(&Item<'_>, &Example)> =
            items.iter().filter(|i| i.noise.is_none()).filter_map(|i| Some((i, i.example?))).collect();
        clips.sort_by_key(|(_, example)| example.content);
        clips.truncate(self.options.word_clips);
        if clips.is_empty() {
            return Ok(None);
        }
        let (mut texts, mut slots) = (Vec::new(), Vec::new());
        let (mut of_sound, mut of_words, mut of_both) = (Vec::new(), Vec::new(), Vec::new());
        let of = clips.len();
        for (done, (item, example)) in clips.into_iter().enumerate() {
            on_event(EvaluateEvent::Words { done, of });
            let key = hex(&example.content);
            let samples = item.sound.samples()?;
            if cache.get(&key).is_none() {
                let answer =
                    ready(recognizer.recognize(&Waveform::new(samples.clone())?, &RecognizeOptions::default()))?;
                cache.add(Written {
                    content: key.clone(),
                    language: answer.whisper_info.decode_language.unwrap_or_else(|| "sw".to_owned()),
                    text: answer.transcription.filter(|text| !text.trim().is_empty()),
                })?;
            }
            let Some(written) = cache.get(&key) else { continue };
            let states = recognizer.own_states(&samples).unwrap_or_else(|| self.encoder.forward(&samples))?;
            let sound = by_sound(recognizer, states)?;
            of_sound.push(judged(item.truth, item.group, &sound));
            let words = written.rank().map_or_else(|| Verdict::no_speech(IntentSource::Transcript), Verdict::from);
            of_words.push(judged(item.truth, item.group, &words));
            let both = match written.text.as_deref() {
                Some(text) => recognizer.with_words(sound, &[Heard { language: &written.language, text }], None),
                None => sound,
            };
            of_both.push(judged(item.truth, item.group, &both));
            if example.label.is_some() {
                slots.push(slot_counts(&example.slots, &both.slots));
                if !example.text.is_empty() {
                    texts.push((example.text.clone(), written.text.clone().unwrap_or_default()));
                }
            }
        }
        let pairs = || texts.iter().map(|(reference, heard)| (reference.as_str(), heard.as_str()));
        let slots: SlotCounts = slots.into_iter().sum();
        Ok(Some(WordsResult {
            n: of_both.len(),
            wer: word_error_rate(pairs()),
            cer: character_error_rate(pairs()),
            slot_f1: slots.f1(),
            slot_precision: slots.precision(),
            slot_recall: slots.recall(),
            accuracy_audio: accuracy(&of_sound),
            accuracy_words: accuracy(&of_words),
            accuracy_fused: accuracy(&of_both),
        }))
    }
}
