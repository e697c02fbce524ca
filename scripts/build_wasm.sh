#!/usr/bin/env bash
# Builds the browser engine: wasm/pkg with the modules, their JavaScript and their types. The npm package (js-sdk) puts a worker
# around them.
#
#   scripts/build_wasm.sh [cpu | webgpu]...       (default: both)
#
# `cpu` is okyeame.js with okyeame_bg.wasm; `webgpu` is okyeame_webgpu.js with its module, larger by the GPU's part. The
# worker takes one of them, so that a phone without WebGPU loads no byte of it.
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

flavours=("$@")
[ "${#flavours[@]}" -gt 0 ] || flavours=(cpu webgpu)
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

if [ ! -x "$tools/bin/wasm-bindgen" ] || [ "$("$tools/bin/wasm-bindgen" --version)" != "wasm-bindgen $bindgen_version" ]; then
    env -u RUSTC -u RUSTC_BOOTSTRAP CARGO_TARGET_DIR="$tools/build" CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        cargo install --quiet --locked --root "$tools" --version "$bindgen_version" wasm-bindgen-cli
    rm -rf "$tools/build"
fi
if command -v npm >/dev/null; then
    [ -x "$tools/node_modules/.bin/wasm-opt" ] ||
        npm install --silent --no-fund --no-audit --prefix "$tools" binaryen@132 >/dev/null
else
    echo 'npm is not here: the modules are not made smaller by wasm-opt.' >&2
fi

mkdir -p "$out"
mib() { awk '{ printf "%.2f MiB", $1 / 1048576 }'; }
# flavour NAME CARGO-ARGUMENTS…: builds a module, and has it made smaller while the next one is built
smaller=()
flavour() {
    local name=$1
    shift
    CARGO_TARGET_DIR=$wasm_dir cargo "${args[@]}" "$@"
    "$tools/bin/wasm-bindgen" --target web --out-dir "$out" --out-name "$name" \
        "$wasm_dir/wasm32-unknown-unknown/wasm/okyeame_wasm.wasm"
    make_smaller "$out/${name}_bg.wasm" &
    smaller+=("$!")
}
# make_smaller MODULE. npm's wasm-opt is itself wasm, and has one thread: two minutes for the first module, three and a half
# for the second.
make_smaller() {
    local module=$1
    if [ -x "$tools/node_modules/.bin/wasm-opt" ]; then
        "$tools/node_modules/.bin/wasm-opt" -O3 --enable-simd --enable-bulk-memory --enable-nontrapping-float-to-int \
            --enable-sign-ext --enable-mutable-globals --enable-reference-types --enable-multivalue \
            -o "$module.smaller" "$module"
        mv "$module.smaller" "$module"
    fi
    echo "$module: $(wc -c < "$module" | mib), compressed $(gzip -9 -c "$module" | wc -c | mib)"
}
for which in "${flavours[@]}"; do
    case $which in
        cpu) flavour okyeame ;;
        webgpu) flavour okyeame_webgpu --features webgpu ;;
        *) echo "There is no flavour '$which': cpu or webgpu." >&2; exit 1 ;;
    esac
done
for job in "${smaller[@]}"; do wait "$job"; done
