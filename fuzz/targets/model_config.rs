//! `config.json` and `generation_config.json` of a repository of the hub.

use okyeame_core::wav2vec2::Wav2Vec2Config;
use okyeame_core::whisper::{GenerationConfig, WhisperConfig};

use crate::check;

/// Half a minute at 16 kHz: what a model computes at once.
const WINDOW_SAMPLES: usize = 480_000;

/// Says whether any of them was read.
pub(crate) fn run(input: &[u8]) -> bool {
    let whisper = match WhisperConfig::from_json(input) {
        Ok(config) => {
            let file = serde_json::to_vec(&config).expect("numbers and texts");
            assert_eq!(WhisperConfig::from_json(&file).expect("written as it was read"), config);
            assert!(config.d_model.is_multiple_of(config.encoder_attention_heads) && config.n_frames() > 0);
            true
        }
        Err(error) => check::refused(&error, &["invalid_config"]),
    };
    let wav2vec2 = match Wav2Vec2Config::from_json(input) {
        Ok(config) => {
            assert_eq!(config.n_frames(config.min_samples() - 1), 0);
            assert!(config.n_frames(config.min_samples()) >= 1);
            assert!(config.n_frames(WINDOW_SAMPLES) <= WINDOW_SAMPLES / config.frame_samples() + 1);
            assert!(config.frame_s() > 0.0 && config.frame_s() <= 1.0);
            true
        }
        Err(error) => check::refused(&error, &["invalid_config"]),
    };
    if let Ok(config) = serde_json::from_slice::<GenerationConfig>(input) {
        let file = serde_json::to_vec(&config).expect("numbers and texts");
        assert_eq!(serde_json::from_slice::<GenerationConfig>(&file).expect("written as it was read"), config);
    }
    whisper || wav2vec2
}
