// What engines answer. Made from core/src/recognition.rs, model_info.rs and intent/labels.rs; do not edit:
// UPDATE_TYPES=1 cargo test -p okyeame-core typescript

/**
 * The answer to one clip.
 */
export type Recognition = { 
/**
 * As the client named it; empty when it did not.
 */
filename: string, 
/**
 * The label, or `unknown` when the clip was not accepted.
 */
intent: string, 
/**
 * Calibrated probability of the best candidate.
 */
confidence: number, 
/**
 * Whether a client may act on `intent`.
 */
accepted: boolean, 
/**
 * Why not, when not.
 */
rejection: Rejection | null, 
/**
 * The words; `null` when they were not asked for and not needed.
 */
transcription: string | null, 
/**
 * From the first byte in to this answer out.
 */
processing_time_ms: number, 
/**
 * The best candidates, best first, accepted or not.
 */
top_predictions: Array<Prediction>, 
/**
 * The values that the command carries.
 */
slots: Array<Slot>, 
/**
 * How hard the action is to undo; `none` when nothing was accepted.
 */
risk: Risk, 
/**
 * What the intent was found from.
 */
intent_source: IntentSource, 
/**
 * The kind of engine, such as `whisper` or `whisper_multitask`.
 */
model_type: string, 
/**
 * What the words stage knows.
 */
whisper_info: WhisperInfo, 
/**
 * Where the time went.
 */
timings_ms: TimingsMs, 
/**
 * Where the answer was made.
 */
run: RunInfo, 
/**
 * For the logs and for support.
 */
request_id: string, 
/**
 * Present and true when the answer comes from the cache.
 */
cached?: boolean, };

/**
 * Why a clip was not accepted as a command.
 */
export type Rejection = "no_speech" | "out_of_scope" | "ambiguous" | "low_confidence";

/**
 * What the intent was found from.
 */
export type IntentSource = "audio_head" | "transcript" | "fused";

/**
 * How hard an action is to undo.
 */
export type Risk = "none" | "undo" | "confirm";

/**
 * One candidate intent.
 */
export type Prediction = { 
/**
 * The label.
 */
intent: string, 
/**
 * Calibrated probability over all labels and "none of them", in `0.0..=1.0`.
 */
confidence: number, 
/**
 * Rank, 0 is the best.
 */
index: number, 
/**
 * The class in the model's label list.
 */
label_id: number, };

/**
 * A value that a command carries.
 */
export type Slot = { 
/**
 * The slot's name, such as `quantity`.
 */
slot: string, 
/**
 * A number for `quantity` and `delta`, a canonical name otherwise.
 */
value: number | string, 
/**
 * The words that it was read from.
 */
text: string, };

/**
 * What the words stage knows.
 */
export type WhisperInfo = { 
/**
 * `tiny`, `base`, …, or `custom`.
 */
model_size: string, 
/**
 * The language as reported to people (`tw`).
 */
language: string, 
/**
 * The language token that the decoder was given (Whisper has none for Twi).
 */
decode_language: string | null, 
/**
 * `exp(avg_logprob)` of the words, in `0.0..=1.0`; absent when nothing was decoded.
 */
transcription_confidence: number | null, };

/**
 * Where the time went, milliseconds.
 */
export type TimingsMs = { 
/**
 * Bytes to 16 kHz samples.
 */
decode_audio: number, 
/**
 * Trim and log-mel.
 */
features: number, 
/**
 * Audio encoder, all windows.
 */
encoder: number, 
/**
 * Intent head or text match.
 */
intent: number, 
/**
 * Text decoder, all windows.
 */
transcript: number, 
/**
 * Waiting for the model.
 */
queue: number, };

/**
 * Where an answer was made.
 */
export type RunWhere = "local" | "remote";

/**
 * The receipt: where the answer was made, why there, and what was sent.
 */
export type RunInfo = { 
/**
 * Where.
 */
where: RunWhere, 
/**
 * The device's short name (`cpu`, `cuda:0`, `webgpu`).
 */
device: string, 
/**
 * Why there, a stable snake_case word.
 */
reason: string, 
/**
 * Bytes of audio that left the customer's device.
 */
bytes_sent: number, };

/**
 * A model's description. Names follow OpenAI's Whisper. What a kind of model does not have is left out.
 */
export type ModelInfo = { 
/**
 * Repository id or folder name; never an absolute path.
 */
name: string, 
/**
 * As `config.json` names it.
 */
architecture: string, 
/**
 * The kind of engine, as in `Recognition.model_type`: `whisper`, `whisper_multitask`, `whisper_classifier` or
 * `wav2vec2`.
 */
model_type: string, 
/**
 * Single or multi.
 */
task: Task, 
/**
 * Whether it writes words.
 */
transcription: boolean, 
/**
 * The repository of the base, for an intent head that comes alone.
 */
base?: string, 
/**
 * `tiny`, `base`, …, or `custom`.
 */
model_size: string, 
/**
 * Number of parameters.
 */
parameters: number, 
/**
 * `safetensors`, `pytorch` or `ctranslate2`.
 */
weight_format: string, 
/**
 * The number type of most of the stored weights.
 */
stored_dtype: string, 
/**
 * The number type that the device computes in.
 */
dtype: string, 
/**
 * The device's short name.
 */
device: string, 
/**
 * Why this device.
 */
device_reason: string, 
/**
 * Mel channels.
 */
n_mels?: number, 
/**
 * Encoder positions of a full window.
 */
n_audio_ctx?: number, 
/**
 * Encoder width.
 */
n_audio_state: number, 
/**
 * Encoder heads.
 */
n_audio_head: number, 
/**
 * Encoder layers.
 */
n_audio_layer: number, 
/**
 * Decoder positions.
 */
n_text_ctx?: number, 
/**
 * Decoder layers.
 */
n_text_layer?: number, 
/**
 * Tokens, or CTC classes.
 */
n_vocab?: number, 
/**
 * Whether the model knows languages other than English.
 */
multilingual: boolean, 
/**
 * The language codes that the decoder has tokens for, or the one of the adapter in use.
 */
languages: Array<string>, 
/**
 * `full` or `fitted`: the window that the intent head reads.
 */
head_window?: string, 
/**
 * The intent labels in class order.
 */
labels: Array<string>, 
/**
 * What the repository lacks or contradicts, and what stands in for it.
 */
fallbacks: Array<string>, };

/**
 * Words only, or words and an intent head.
 */
export type Task = "single" | "multi";

/**
 * One intent that a shop can act on.
 */
export type IntentInfo = { 
/**
 * The class, its place in the list.
 */
id: number, 
/**
 * The label, such as `add_to_cart`.
 */
intent: string, 
/**
 * What it means, in a few English words.
 */
means: string | null, 
/**
 * How hard the action is to undo.
 */
risk: Risk, 
/**
 * The values that it can carry.
 */
slots: Array<string>, };
