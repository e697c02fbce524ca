#!/usr/bin/env bash
# Installs what the build, the demo, the tests or the bench need and do not find. Safe to run again; a machine that
# has everything is left alone, and nothing is asked of the network.
#
#   scripts/install_tools.sh [build | demo | test | bench | load | wgpu | train | wasm | browser | fuzz]     (default: test)
#
# Missing apt packages are installed where this runs as root on Debian or Ubuntu. Otherwise one sentence says what
# to install, and the exit code is 1 if the job cannot go on without it.
set -euo pipefail

# what must run or import = the apt package that brings it
BUILD=(cc=build-essential)
MODEL=(python3=python3 python:ensurepip=python3-venv)
DEMO_NICE_TO_HAVE=(espeak-ng=espeak-ng) # speaks the clip of the curl line that the demo prints
TEST=(espeak-ng=espeak-ng)              # speaks the commands that the tests recognise
TEST_NICE_TO_HAVE=(redis-server=redis-server) # a real one beside the one that the tests imitate
BENCH=(espeak-ng=espeak-ng)             # speaks the clips that are measured
LOAD=(espeak-ng=espeak-ng wrk=wrk)      # a server under load: make bench-load, make soak, make test-soak
TRAIN=(espeak-ng=espeak-ng flite=flite) # speak the training corpus
# where rustup has no standard library for browsers: a compiler that builds it, and its sources
WASM=(wasm:compiler=rustc-web wasm:sources=rust-web-src)
NPM=(node=nodejs npm=npm)                                # wasm-opt, and the drivers of the browser tests, come from npm
BROWSER=(browser:chromium=chromium)
FUZZ=(cc=build-essential c++=build-essential) # libFuzzer is C++
WGPU=(vulkan:driver=mesa-vulkan-drivers) # a graphics driver, which may compute on the CPU

rustup_wasm() {
    local std
    std=$(rustc --print sysroot)/lib/rustlib/wasm32-unknown-unknown
    [ -d "$std" ] || { command -v rustup >/dev/null && rustup target add wasm32-unknown-unknown >/dev/null 2>&1 && [ -d "$std" ]; }
}

is_there() {
    case "$1" in
        # a Vulkan driver announces itself with a file
        vulkan:*) compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || compgen -G '/etc/vulkan/icd.d/*.json' >/dev/null ;;
        # rustup's standard library is enough, if it is there or can be had
        wasm:*) rustup_wasm || { [ "$1" = wasm:compiler ] && [ -x /usr/bin/rustc ]; } ||
            { [ "$1" = wasm:sources ] && compgen -G '/usr/src/rustc-*/library' >/dev/null; } ;;
        browser:*) [ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
            command -v google-chrome >/dev/null ;;
        python:*) command -v python3 >/dev/null && python3 -c "import ${1#python:}, venv" 2>/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

# the packages of the given table that are not there, one a line
missing_of() {
    local entry
    for entry in "$@"; do
        is_there "${entry%%=*}" || echo "${entry#*=}"
    done
}

apt_install() {
    local apt=(apt-get -o DPkg::Lock::Timeout=300)
    export DEBIAN_FRONTEND=noninteractive
    echo "Installing: $*"
    # a list that is there may be enough; a new machine has none yet
    "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null 2>&1 && return
    "${apt[@]}" update >/dev/null && "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null
}

# obtain NEEDED|NICE TABLE…
obtain() {
    local need=$1 packages
    shift
    mapfile -t packages < <(missing_of "$@" | sort -u)
    [ "${#packages[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt_install "${packages[@]}"; then
        mapfile -t packages < <(missing_of "$@" | sort -u)
        [ "${#packages[@]}" -gt 0 ] || return 0
    fi
    if [ "$need" = NICE ]; then
        echo "Nice to have, and not here: ${packages[*]} (Debian or Ubuntu: sudo apt-get install ${packages[*]})." >&2
        return 0
    fi
    echo "Missing: ${packages[*]}. On Debian or Ubuntu: sudo apt-get install ${packages[*]}" >&2
    echo "Elsewhere, install what brings the same commands, then run this again." >&2
    return 1
}

need_cargo() {
    command -v cargo >/dev/null && return
    echo "Missing: cargo. Install Rust with rustup (its home page says how), open a new shell, and run this again." >&2
    return 1
}

need_cargo
case "${1:-test}" in
    build)
        obtain NEEDED "${BUILD[@]}"
        ;;
    demo)
        obtain NEEDED "${BUILD[@]}" "${MODEL[@]}" "${NPM[@]}"
        obtain NICE "${DEMO_NICE_TO_HAVE[@]}"
        ;;
    test)
        obtain NEEDED "${BUILD[@]}" "${MODEL[@]}" "${TEST[@]}"
        obtain NICE "${TEST_NICE_TO_HAVE[@]}"
        cargo nextest --version >/dev/null 2>&1 ||
            echo "cargo-nextest is not here: the tests run with cargo test. (cargo install cargo-nextest --locked makes them faster.)"
        ;;
    bench)
        obtain NEEDED "${BUILD[@]}" "${MODEL[@]}" "${BENCH[@]}"
        ;;
    load)
        obtain NEEDED "${BUILD[@]}" "${MODEL[@]}" "${LOAD[@]}"
        ;;
    train)
        obtain NEEDED "${BUILD[@]}" "${MODEL[@]}" "${TRAIN[@]}"
        ;;
    wasm)
        obtain NEEDED "${BUILD[@]}" "${WASM[@]}"
        obtain NICE "${NPM[@]}"
        ;;
    browser)
        obtain NEEDED "${NPM[@]}" "${BROWSER[@]}"
        ;;
    fuzz)
        obtain NEEDED "${FUZZ[@]}"
        ;;
    wgpu)
        obtain NEEDED "${BUILD[@]}" "${WGPU[@]}"
        ;;
    *)
        echo "usage: $0 [build | demo | test | bench | load | wgpu | train | wasm | browser | fuzz]" >&2
        exit 2
        ;;
esac
