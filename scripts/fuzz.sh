#!/usr/bin/env bash
# Fuzzes the doors that take a stranger's bytes (fuzz/README.md): each target for so many seconds, from the committed
# corpus, two at a time. The tree stays as it is: what is found lies under the target folder. Works with the stable
# compiler and without cargo-fuzz.
#
#   scripts/fuzz.sh [SECONDS_PER_TARGET] [TARGET…]     (default: 5, all of them)
#
# FUZZ_SANITIZER=address looks for bad memory accesses in the dependencies as well; it has everything built anew.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-5}
case "$seconds" in
    '' | *[!0-9]*)
        echo "usage: $0 [SECONDS_PER_TARGET] [TARGET…]" >&2
        exit 2
        ;;
esac
targets=("${@:2}")
if [ "${#targets[@]}" = 0 ]; then
    for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
for target in "${targets[@]}"; do
    [ -f "fuzz/fuzz_targets/$target.rs" ] || { echo "there is no fuzz target '$target'" >&2; exit 2; }
done

export FUZZ_SANITIZER=${FUZZ_SANITIZER:-none}
built=${CARGO_TARGET_DIR:-target}/fuzz
case "$built" in /*) ;; *) built=$PWD/$built ;; esac
[ "$FUZZ_SANITIZER" = none ] || built+=-$FUZZ_SANITIZER
host=$(rustc -vV | sed -n 's/^host: //p')

# --- build ---

if ! cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null; then
    echo 'If fuzz/Cargo.lock is behind Cargo.lock:  cp Cargo.lock fuzz/ && cargo fetch --manifest-path fuzz/Cargo.toml' >&2
    exit 1
fi
bins=()
for target in "${targets[@]}"; do bins+=(--bin "$target"); done
RUSTC_WRAPPER=$PWD/scripts/rustc_with_coverage.sh CARGO_TARGET_DIR=$built \
    cargo build --locked --manifest-path fuzz/Cargo.toml --target "$host" "${bins[@]}"

# --- run ---

limit=-max_total_time=$seconds
[ "$seconds" != 0 ] || limit=-runs=0 # the corpus alone
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fuzz TARGET: leaves its log and its exit code in the work folder
fuzz() {
    local target=$1 found=$built/artifacts/$1 options=() status=0
    mkdir -p "$found" "$work/$target"
    [ ! -f "fuzz/dict/$target.dict" ] || options+=("-dict=fuzz/dict/$target.dict")
    # The first folder is where libFuzzer keeps what is new; the committed one is only read. Leaks are not looked for:
    # the server's threads live as long as the process.
    "$built/$host/debug/$target" "$work/$target" "fuzz/corpus/$target" "${options[@]}" \
        "$limit" -timeout=20 -rss_limit_mb=2048 -detect_leaks=0 -artifact_prefix="$found/" \
        >"$work/$target.log" 2>&1 || status=$?
    echo "$status" >"$work/$target.status"
}

for target in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n || true; done
    fuzz "$target" &
done
wait

failed=0
for target in "${targets[@]}"; do
    if [ "$(cat "$work/$target.status")" = 0 ]; then
        printf '%-20s %s\n' "$target" "$(grep -a '^Done ' "$work/$target.log" | tail -n 1)"
        continue
    fi
    failed=1
    printf '\n%s FAILED:\n' "$target"
    tail -n 80 "$work/$target.log"
    input=$(grep -a -o "$built/artifacts/$target/[a-z-]*[0-9a-f]\{40\}" "$work/$target.log" | tail -n 1 || true)
    if [ -n "$input" ]; then
        printf '\nThe input is  %s\nAgain, with it alone:  %s %s\n' "$input" "$built/$host/debug/$target" "$input"
        printf 'Keep it, and make test holds it:  cp %s fuzz/corpus/%s/regress-WHAT\n' "$input" "$target"
    fi
done
exit "$failed"
