#!/usr/bin/env bash
# Lays the demo out as a server serves it:
#
#   scripts/lay_out_demo.sh OKYEAME BASE DIR
#
# OKYEAME is the program, BASE the folder of the base model. DIR/site gets the shop and, under okyeame/, the npm package;
# DIR/models/default the web bundle. What is there and new enough is left alone.
set -euo pipefail
okyeame=$(realpath "$1")
base=$(realpath "$2")
mkdir -p "$3"
dir=$(realpath "$3")
cd "$(dirname "$0")/.."

if [ ! -f js-sdk/dist/index.js ]; then
    echo 'The npm package is not built: make sdk.' >&2
    exit 1
fi
bundle=$dir/models/default
if [ ! -f "$bundle/manifest.json" ] || [ "$bundle/manifest.json" -ot "$okyeame" ] || [ "$bundle/manifest.json" -ot models/twi-shop/model.safetensors ]; then
    rm -rf "$bundle"
    mkdir -p "$dir/models"
    "$okyeame" export-web models/twi-shop --base "$base" --dtype int4 --out "$bundle" --clips 4
fi
rm -rf "$dir/site"
mkdir -p "$dir/site"
cp -r examples/storefront/*.{html,css,js,json,svg,webmanifest} examples/storefront/pictures "$dir/site/"
rm -f "$dir/site/package.json"
cp -r js-sdk/dist "$dir/site/okyeame"
# A phone loads a third: compressed once here, not at each request.
node -e '
const { readFileSync, readdirSync, writeFileSync } = require("node:fs");
const { brotliCompressSync, constants } = require("node:zlib");
const folder = process.argv[1];
for (const file of readdirSync(folder).filter((file) => /\.(js|wasm)$/.test(file))) {
  const bytes = readFileSync(`${folder}/${file}`);
  const params = { [constants.BROTLI_PARAM_QUALITY]: 9, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
  writeFileSync(`${folder}/${file}.br`, brotliCompressSync(bytes, { params }));
}' "$dir/site/okyeame"
