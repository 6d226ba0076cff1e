# Everything a clean clone needs is make, git and Rust; servers are installed
# by the targets that use them (scripts/install-servers.sh).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:

# rustup's folder is often missing from a non-login shell's PATH.
ifeq ($(shell command -v cargo 2>/dev/null),)
export PATH := $(HOME)/.cargo/bin:$(PATH)
endif

# Also the folder for downloaded servers and prepared data folders.
export LOCKSTEP_CACHE ?= $(CURDIR)/.cache

.PHONY: help demo test check bench soak servers lint fuzz deny

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

servers: ## install MariaDB, MySQL 9.7, HAProxy and sysbench where missing
	@scripts/install-servers.sh
	if [ -x scripts/install-drivers.sh ]; then scripts/install-drivers.sh; fi

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

check: lint ## formatting, lints, layout rules, unit tests: no server needed
	cargo test --lib
	cargo test --test it tidy::

deny: ## licences, advisories and duplicate crates (installs cargo-deny)
	command -v cargo-deny > /dev/null || cargo install --locked cargo-deny
	cargo deny --workspace check

fuzz: ## the fuzzers, 20 s each (fuzz/README.md)
	fuzz/run 20

test: ## everything that decides whether a change is good
	export LOCKSTEP_REQUIRE_SERVERS=1
	# Downloads while the compiler works.
	said=$$(mktemp); trap 'rm -f "$$said"' EXIT
	$(MAKE) --no-print-directory servers > "$$said" 2>&1 &
	installed=$$!
	$(MAKE) --no-print-directory lint
	wait $$installed || { cat "$$said"; exit 1; }
	cat "$$said"
	LOCKSTEP_FUZZ_JOBS=3 $(MAKE) --no-print-directory fuzz
	# At once, so that both cores have something to do to the end.
	cargo test --no-run --lib --bins --test it
	cargo test --lib --bins
	# One more than the cores: most tests wait for servers much of the time.
	scripts/run-tests.sh --skip faults:: --skip surroundings:: --test-threads=$$(($$(nproc) + 1))
	# These bound how long a statement may wait, so nothing else runs beside.
	scripts/run-tests.sh faults:: surroundings:: --test-threads=1

demo: ## move a shop between two databases while it is used
	@scripts/install-servers.sh
	cargo build --release --bin lockstep --example demo
	exec cargo run --quiet --release --example demo

bench: ## the proxy against direct connections and HAProxy, copies against mydumper
	@scripts/install-servers.sh
	@scripts/install-bench.sh
	cargo build --release --bin lockstep --example bench
	ulimit -S -n "$$(ulimit -H -n)" # 500 idle sessions, up to three sockets each
	exec cargo run --quiet --release --example bench

soak: servers ## the long runs: minutes per test
	LOCKSTEP_SOAK=1 LOCKSTEP_REQUIRE_SERVERS=1 cargo test --release --test it soak_ -- --nocapture --test-threads=1
	fuzz/run 1200
