# One command for each thing one does here; `make` alone lists them.
# What is longer than a line or two is a script under .ci/.

NAME   := extensions/pyroscope-lambda-extension
HERE   := $(subst aarch64,arm64,$(shell uname -m))
BINARY := $(CURDIR)/dist/$(HERE)/$(NAME)
BENCH  := $(abspath $(or $(CARGO_TARGET_DIR),target))/bench
PAGE   := $(abspath $(or $(CARGO_TARGET_DIR),target))/demo.html
CARGO_HOME ?= $(HOME)/.cargo
export PATH := $(CARGO_HOME)/bin:$(PATH)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build release layer dist reproduce demo test e2e e2e-pyroscope examples publish fuzz mutants lint size bench init
.PHONY: ci clean verify smoke mutants-changed

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: ## install what is missing, from Debian (as root), rustup, crates.io and PyPI
	@.ci/setup host lint layer notice fuzz mutants arm64 size

build: ## build the static binary for this machine's processor: dist/
	@.ci/setup host layer
	@.ci/build $(HERE)

release: ## build the static binaries for both processors
	@.ci/setup host layer
	@.ci/build x86_64
	@.ci/build arm64

layer: release ## pack both as the zips to publish as a Lambda layer
	@.ci/setup notice
	@.ci/notice
	@.ci/layer x86_64
	@.ci/layer arm64

dist: ## put together a release: layers, checksums, list of parts, licences, notes; checked
	@.ci/setup host layer notice sbom
	@$(MAKE) --no-print-directory layer verify
	@.ci/dist
	@.ci/verify-dist

reproduce: ## build the last commit twice, from nothing and elsewhere, and compare the bytes
	@.ci/setup host notice
	@.ci/reproduce

demo: build ## watch the extension live through a sandbox's life, all on this machine; leaves a page to look at
	@cargo run --quiet --locked --example demo -- $(BINARY) --page $(PAGE) $(if $(PICTURES),--pictures $(PICTURES))

test: ## run the tests; two for each processor at a time, since they wait more than they work
	@.ci/setup host
	RUST_TEST_THREADS=$$((2 * $$(nproc))) cargo test --locked

e2e: build ## run the layer in AWS's emulator, with real functions and their real SDKs
	@.ci/setup notice
	@.ci/notice
	@.ci/layer $(HERE)
	tests/e2e/run dist/pyroscope-lambda-extension-$(HERE).zip $(FAR_END) $(patsubst %,--fleet %,$(FLEET))

e2e-pyroscope: ## the same with a real Pyroscope server, built first with Go, and fleets of sandboxes; some alone: FLEET="rust java-90s"
	@$(MAKE) --no-print-directory e2e FAR_END=--server FLEET="$(FLEET)"

examples: layer ## check examples/ with each one's own tool, and make publish against a stand-in for AWS
	.ci/examples/check

publish: ## say how both zips would be published as layers: REGIONS="eu-west-1 us-east-1"; PUBLISH=1 does it
	@.ci/publish $(if $(PUBLISH),--publish) $(if $(PUBLIC),--public) $(if $(LAYER),--layer $(LAYER)) $(REGIONS)

fuzz: ## fuzz each target for 20 s; longer: make fuzz FUZZ_SECONDS=600, one: FUZZ_TARGETS=relay
	@.ci/setup host fuzz
	@.ci/fuzz $(FUZZ_TARGETS)

mutants: ## change the code in one place after the other: does a test notice? all of src/ (hours), or MUTANTS_OF="src/log/*"
	@.ci/setup host mutants
	@.ci/mutants --all $(MUTANTS_OF)

lint: ## check format, lints, the project's rules, prose and workflows
	@.ci/setup host lint
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo fmt --check --manifest-path tests/e2e/rust/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --lib --bins -- -D warnings -D clippy::too_many_lines
	CUSTOM_LIBFUZZER_PATH=/none cargo clippy --locked --manifest-path tests/fuzz/Cargo.toml \
		--target-dir $${CARGO_TARGET_DIR:-target} -- -D warnings
	@.ci/rules
	@.ci/docs
	@.ci/prose
	@.ci/workflows
	@size-report/figures.py --check
	@.ci/deny

size: layer ## measure bytes, memory and work against their budget; RECORD=1 keeps the figures
	@.ci/setup size
	@.ci/build x86_64 measured
	@size-report/measure $(if $(RECORD),--record)

init: build ## how much longer an init takes in AWS's emulator, after make e2e; RECORD=1 keeps it
	@tests/e2e/sandbox size-report/bench/init $(if $(RECORD),--record) $(or $(ROUNDS),30) $(BINARY) $$(size-report/bench/released $(BENCH)/go)
	@$(if $(RECORD),size-report/figures.py)

bench: build ## time it beside the least a relay can do and the Go extension; RECORD=1 keeps the ratios
	@.ci/build $(HERE) floor
	@cargo bench --quiet --locked --bench latency -- $(if $(CI),--quick) $(if $(RECORD),--record) $(BENCH) \
		$(CURDIR)/dist/measured/floor-$(HERE) $(BINARY) $$(size-report/bench/released $(BENCH)/go)
	@$(if $(RECORD),size-report/figures.py)

ci: export FUZZ_SECONDS ?= 10
ci: ## all of it, as continuous integration does, within half an hour
	@.ci/steps setup lint test mutants-changed fuzz layer verify size smoke demo e2e examples bench

clean: ## remove all that was built
	rm -rf dist target

# What ci does besides.

verify:
	@.ci/verify
	@.ci/changelog >/dev/null

# The same for the lines that differ from MUTANTS_BASE, within five minutes.
mutants-changed:
	@.ci/setup host mutants
	@.ci/mutants --changed

# The tests' black-box life of an extension on the binaries that are shipped, and their TLS, whose C is not that of the tests.
smoke:
	@.ci/setup host arm64
	EXTENSION_BINARY=$(CURDIR)/dist/x86_64/$(NAME) $(if $(filter arm64,$(HERE)),EXTENSION_RUNNER=qemu-x86_64) \
		cargo test --locked --test smoke --test tls --test trust
	EXTENSION_BINARY=$(CURDIR)/dist/arm64/$(NAME) $(if $(filter x86_64,$(HERE)),EXTENSION_RUNNER=qemu-aarch64) \
		cargo test --locked --test smoke --test tls --test trust
