// The package's door.
export { AutoEngine, type AutoOptions } from "./auto_engine.js";
export type { Battery, Capabilities, Network } from "./capabilities.js";
export type { Catalogue, CatalogueValue, Progress, ProgressOptions, RecognizeOptions, Sound, SpeechEngine, TextOptions } from "./engine.js";
export { type ErrorCode, OkyeameError } from "./errors.js";
export { LocalEngine, type LocalOptions } from "./local_engine.js";
export { Listening, type ListeningEvents, type ListeningState, type ListenOptions } from "./microphone/listening.js";
export { Okyeame, type OkyeameOptions } from "./okyeame.js";
export { type Choice, choose, chooseSecond, type Consent, downloadsUnasked, type Limits, type Policy, type Reason, type Situation } from "./policy.js";
export type * from "./recognition.js";
export type { Upload } from "./sound.js";
export { RemoteEngine, type RemoteOptions } from "./remote_engine.js";
