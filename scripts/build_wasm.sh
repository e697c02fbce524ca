#!/usr/bin/env bash
# Builds the browser engine: wasm/pkg with the module, its JavaScript and its types.
#
#   scripts/build_wasm.sh
#
# rustup's wasm32-unknown-unknown where it is there or can be had; elsewhere Debian's rustc-web, which builds the standard
# library from the sources in rust-web-src and links with rustup's rust-lld. wasm-bindgen's program is built once into the
# target folder; wasm-opt comes from npm (binaryen), and without npm the module stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

target_dir=${CARGO_TARGET_DIR:-target}
wasm_dir=$target_dir/wasm
tools=$target_dir/wasm-tools
out=wasm/pkg
bindgen_version=$(sed -n 's/^wasm-bindgen = "=\(.*\)"$/\1/p' wasm/Cargo.toml)

args=(build --locked --profile wasm -p okyeame-wasm --target wasm32-unknown-unknown)
has_std() { [ -d "$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown" ]; }
if has_std || { command -v rustup >/dev/null && rustup target add wasm32-unknown-unknown >/dev/null 2>&1 && has_std; }; then
    echo 'Building with the standard library of this toolchain.'
elif [ -d /usr/src ] && compgen -G '/usr/src/rustc-*/library' >/dev/null && [ -x /usr/bin/rustc ]; then
    echo "Building the standard library from Debian's sources."
    linker=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/rust-lld
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    [ ! -x "$linker" ] || export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$linker
    args+=(-Zbuild-std=std,panic_abort)
else
    echo 'There is no standard library for wasm32-unknown-unknown here.' >&2
    echo 'Run `rustup target add wasm32-unknown-unknown`, or on Debian: sudo apt-get install rustc-web rust-web-src' >&2
    exit 1
fi
CARGO_TARGET_DIR=$wasm_dir cargo "${args[@]}"

if [ ! -x "$tools/bin/wasm-bindgen" ] || [ "$("$tools/bin/wasm-bindgen" --version)" != "wasm-bindgen $bindgen_version" ]; then
    env -u RUSTC -u RUSTC_BOOTSTRAP CARGO_TARGET_DIR="$tools/build" \
        cargo install --quiet --locked --root "$tools" --version "$bindgen_version" wasm-bindgen-cli
fi
rm -rf "$out"
"$tools/bin/wasm-bindgen" --target web --out-dir "$out" --out-name okyeame \
    "$wasm_dir/wasm32-unknown-unknown/wasm/okyeame_wasm.wasm"

if command -v npm >/dev/null; then
    npm install --silent --no-fund --no-audit --prefix "$tools" binaryen@132 >/dev/null
    "$tools/node_modules/.bin/wasm-opt" -O3 --enable-simd --enable-bulk-memory --enable-nontrapping-float-to-int \
        --enable-sign-ext --enable-mutable-globals --enable-reference-types --enable-multivalue \
        -o "$out/smaller.wasm" "$out/okyeame_bg.wasm"
    mv "$out/smaller.wasm" "$out/okyeame_bg.wasm"
else
    echo 'npm is not here: the module is not made smaller by wasm-opt.' >&2
fi
size() { wc -c < "$1" | awk '{ printf "%.2f MiB", $1 / 1048576 }'; }
gzip -9 -c "$out/okyeame_bg.wasm" > "$wasm_dir/okyeame.wasm.gz"
echo "$out/okyeame_bg.wasm: $(size "$out/okyeame_bg.wasm"), compressed $(size "$wasm_dir/okyeame.wasm.gz")"
