#!/usr/bin/env bash
# cargo's RUSTC_WRAPPER for scripts/fuzz.sh: called with rustc and its arguments. Counts the branches of the crates that
# read a stranger's bytes, and of no other: libFuzzer looks at every counter after each input, and of the million
# branches of the models' arithmetic no target runs one.
#
# The flags are those of cargo-fuzz 0.13 (src/project.rs). Crates that are built for the build itself (no --target) have
# no libFuzzer to be linked with, and are left as they are.
set -euo pipefail

case " $* " in
    *' --target '*) ;;
    *) exec "$@" ;;
esac
flags=()
case "${CARGO_CRATE_NAME:-}" in
    okyeame_core | okyeame_server | symphonia* | opus_decoder | safetensors | zip | serde_json | multer | toml*)
        flags+=(
            -Ccodegen-units=1
            -Cpasses=sancov-module
            -Cllvm-args=-sanitizer-coverage-level=4
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
            -Cllvm-args=-sanitizer-coverage-pc-table
            -Cllvm-args=-sanitizer-coverage-trace-compares
            -Cllvm-args=-simplifycfg-branch-fold-threshold=0
        )
        ;;
esac
if [ "${FUZZ_SANITIZER:-none}" != none ]; then
    # Unstable, and here nowhere else: build scripts that ask which compiler this is are not to take it for a nightly.
    export RUSTC_BOOTSTRAP=1
    flags+=("-Zsanitizer=$FUZZ_SANITIZER")
fi
exec "$@" "${flags[@]}"
