# Everything that is done with this project, by one word each. `make` lists them.

CARGO    ?= cargo
FLIGHTS  ?= loadtest/demo/flights-2013-01.csv.gz
REGIONS  ?= ewr,jfk,lga
RTT_MS   ?= 30
HANDLER  ?= sql
SECONDS  ?= 60
# Of `make chaos`: one run a seed, each so long.
CHAOS_SEEDS   ?= 1,2,3,4,5,6
CHAOS_SECONDS ?= 60
# An installed PostgreSQL 15, where there is one: the guarantees are tested on it too.
PG15_BIN ?= $(patsubst %/postgres,%,$(firstword $(wildcard /usr/lib/postgresql/15/bin/postgres /usr/pgsql-15/bin/postgres)))

.DEFAULT_GOAL := help
.PHONY: help demo release test test-15 check api figures tools counts fuzz model chaos chaos-guards bench clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort | while IFS="$$(printf '\t')" read -r target what; do printf '  make %-10s %s\n' "$$target" "$$what"; done

demo: tools ## replay a month of real departures: FLIGHTS=file.csv[.gz] REGIONS=ewr,jfk,lga RTT_MS=30 HANDLER=sql|rust
	$(CARGO) build --release --workspace --bins
	target/release/loadtest demo --flights $(FLIGHTS) --regions $(REGIONS) --rtt-ms $(RTT_MS) --handler $(HANDLER)

release: ## build the program into target/dist: stripped, and its symbols beside it
	$(CARGO) build --release -p farwrite --features program
	mkdir -p target/dist
	objcopy --only-keep-debug target/release/farwrite target/dist/farwrite.debug
	objcopy --strip-all --add-gnu-debuglink=target/dist/farwrite.debug target/release/farwrite target/dist/farwrite
	@ls -l target/dist

test: tools ## all tests, against real servers
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace
	@if [ -n "$(PG15_BIN)" ]; then $(MAKE) --no-print-directory test-15; else echo 'no PostgreSQL 15 is installed: the guarantees were tested on the fetched version only'; fi

test-15: tools ## the guarantees on an installed PostgreSQL 15 (PG15_BIN=folder)
	$(CARGO) build --workspace --bins
	FARWRITE_PG_BIN='$(PG15_BIN)' $(CARGO) test -p farwrite-loadtest --test guarantees

check: ## formatter, clippy, rustdoc, the tree's rules, the public API, the documents and licences
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps --document-private-items
	$(CARGO) run --quiet -p xtask -- check
	$(CARGO) run --quiet -p xtask -- api
	$(CARGO) test --quiet --workspace --test documents
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check licenses bans; else echo 'cargo-deny is not installed: licences were not checked'; fi

api: ## write down the public API of the libraries, after a change that is meant: docs/api
	$(CARGO) run --quiet -p xtask -- api --bless

figures: ## count lines, files, functions and public items
	$(CARGO) run --quiet -p xtask -- figures

tools: ## fetch nats-server and PostgreSQL into .tools
	python3 devstack/fetch-tools.py

counts: ## count the instructions of a command's steps, and compare them with before (callgrind)
	loadtest/counts.sh

fuzz: ## fuzz what comes off the wire for SECONDS=60
	schemas/fuzz/run.sh $(SECONDS)

model: ## walk through every state of the protocol's small worlds, and find each old defect in them
	$(CARGO) run --release -p farwrite-model

chaos: tools ## everything fails that can, and a checker judges: CHAOS_SEEDS=1,2,… CHAOS_SECONDS=60
	$(CARGO) build --workspace --bins
	target/debug/loadtest chaos --seed $(CHAOS_SEEDS) --seconds $(CHAOS_SECONDS) --json target/farwrite/chaos.json

chaos-guards: tools ## leave out one guard after another, and see that chaos finds it
	$(CARGO) build --workspace --bins --features farwrite-loadtest/sabotage --target-dir target/sabotage
	loadtest/guards.sh target/sabotage/debug/loadtest

bench: tools ## measure every scenario beside its baselines: the table, and a page with pictures
	$(CARGO) build --release --workspace --bins
	target/release/loadtest bench --json target/farwrite/bench.json --html target/farwrite/bench.html

clean: ## remove what was built and fetched
	$(CARGO) clean
	rm -rf .tools
