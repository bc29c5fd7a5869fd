# The only front door, for people and for CI. Each target installs what it needs.
SHELL := /bin/bash
.DELETE_ON_ERROR:

# The host's own triple, named explicitly: then the flags below reach the binary alone and not the
# build scripts and procedural macros, which cannot be static.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
export CARGO_BUILD_TARGET ?= $(HOST)
# At a fixed address: see "Static binary" in ARCHITECTURE.md.
export RUSTFLAGS ?= -C target-feature=+crt-static -C relocation-model=static
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help build man quickstart test test-slow test-vm fuzz bench lint fix clean setup

help: ## What there is.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## Installs the Debian packages that the build and the tests need.
	@scripts/setup

build: setup ## The static release binary at target/release/wharf.
	cargo build --locked --release --package wharf
	@mkdir -p target/release
	@ln -sfn $(abspath $(TARGET_DIR)/$(CARGO_BUILD_TARGET)/release/wharf) target/release/wharf
	@scripts/check-static target/release/wharf

man: build ## The manual pages in target/man.
	target/release/wharf docs man --out target/man

quickstart: build ## Builds, ships and runs a real application, step by step.
	@scripts/quickstart

test: setup ## All tests that take minutes.
	cargo build --locked --workspace
	cargo test --locked --workspace --no-fail-fast

test-slow: setup ## Applications that take minutes to build: Node, Rust, Java, with their package managers.
	WHARF_SLOW=1 cargo test --locked --workspace --test docker -- applications

test-vm: ## The tests of what works with the kernel, in a virtual machine with Debian's kernel and cgroup v2 alone.
	@scripts/test-vm

fuzz: ## Each fuzz target for FUZZ_SECONDS; needs nightly Rust and cargo-fuzz, and says so.
	@scripts/fuzz

bench: build ## Wharf beside Debian's docker.io and podman, its runtime beside crun and runc, each in one run.
	@benches/runtime
	@benches/engines

lint: setup ## Never writes: format, clippy, licences and sources of the dependencies.
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@scripts/setup-deny
	cargo deny --log-level error check bans licenses sources

fix: ## Writes what `lint` asks for.
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty

clean: ## Forgets what was built.
	cargo clean
