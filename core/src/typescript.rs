//! The answers' types as the npm package has them, made from the Rust types: `js-sdk/src/recognition.ts`.
//!
//! `UPDATE_TYPES=1 cargo test -p okyeame-core typescript` writes the file; the test says when it is stale.

use std::path::Path;

use ts_rs::{Config, TS};

use crate::intent::labels::IntentInfo;
use crate::model_info::{ModelInfo, Task};
use crate::recognition::{
    IntentSource, Prediction, Recognition, Rejection, Risk, RunInfo, RunWhere, Slot, TimingsMs, WhisperInfo,
};

const HEAD: &str = "// What engines answer. Made from core/src/recognition.rs, model_info.rs and intent/labels.rs; do not edit:\n\
    // UPDATE_TYPES=1 cargo test -p okyeame-core typescript\n";

fn declaration<T: TS>() -> String {
    let config = Config::default().with_large_int("number");
    let docs = T::docs().unwrap_or_default();
    format!("\n{}export {}\n", docs, T::decl(&config))
}

#[test]
fn typescript_types_are_those_of_the_schema() {
    let types = [
        declaration::<Recognition>(),
        declaration::<Rejection>(),
        declaration::<IntentSource>(),
        declaration::<Risk>(),
        declaration::<Prediction>(),
        declaration::<Slot>(),
        declaration::<WhisperInfo>(),
        declaration::<TimingsMs>(),
        declaration::<RunWhere>(),
        declaration::<RunInfo>(),
        declaration::<ModelInfo>(),
        declaration::<Task>(),
        declaration::<IntentInfo>(),
    ];
    let wanted = HEAD.to_owned() + &types.concat();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../js-sdk/src/recognition.ts");
    if std::env::var_os("UPDATE_TYPES").is_some() {
        std::fs::write(&file, &wanted).expect("js-sdk/src can be written");
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        there, wanted,
        "js-sdk/src/recognition.ts is stale: UPDATE_TYPES=1 cargo test -p okyeame-core typescript"
    );
}
