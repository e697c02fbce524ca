//! The fuzzer's inputs (`fuzz/corpus`) for the server's own doors, as `core/tests/fuzz_corpus.rs` has the core's.

#[path = "../../fuzz/targets/app.rs"]
mod app;
#[path = "../../fuzz/targets/check.rs"]
mod check;
#[path = "../../fuzz/targets/keys_file.rs"]
mod keys_file;
#[path = "../../fuzz/targets/replay.rs"]
mod replay;

use replay::replay;

#[test]
fn app_holds_its_corpus() {
    replay("app", app::run);
}

#[test]
fn keys_file_holds_its_corpus() {
    replay("keys_file", keys_file::run);
}
