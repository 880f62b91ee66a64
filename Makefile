# One command for each thing one does here; `make` alone lists them. What is longer than a line
# or two is a script under .ci/.

PROCESSOR := $(subst aarch64,arm64,$(shell uname -m))
NAME      := extensions/pyroscope-lambda-extension
BINARY    := dist/$(PROCESSOR)/$(NAME)
CARGO_HOME ?= $(HOME)/.cargo
export PATH := $(CARGO_HOME)/bin:$(PATH)

.PHONY: help setup build release layer demo test e2e lint ci clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

setup: ## install what is missing (as root, from Debian, rustup and PyPI)
	@.ci/setup host layer arm64 e2e

build: ## the static binary for this machine's processor, in dist/
	@.ci/setup host layer
	@.ci/build $(PROCESSOR)

release: ## the static binaries for both processors
	@.ci/setup host layer
	@.ci/build x86_64
	@.ci/build arm64

layer: release ## both as zips to publish as a Lambda layer
	@.ci/layer x86_64
	@.ci/layer arm64

clean: ## remove all that was built
	rm -rf dist target
