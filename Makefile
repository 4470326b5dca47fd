# The verbs of this project. CI calls only these.

CARGO ?= cargo
# Nextest where it is there, cargo's own runner where it isn't.
TEST := $(shell $(CARGO) nextest --version >/dev/null 2>&1 && echo "nextest run" || echo "test")

# How long `make chaos` and `make sim` go on, and which faults they draw.
DURATION ?= 10m
SEED ?= 1

.PHONY: help run demo up test chaos sim check fmt bench snapshots

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Start the platform, run a demo workflow to its end, and keep serving
	@$(CARGO) run --locked -p wonder -- dev

demo: ## The same, and exit 0 once the demo run completed
	@$(CARGO) run --locked -p wonder -- dev --exit --ephemeral

up: ## Start the distributed set on this machine: PostgreSQL, NATS, two gateways, …; Ctrl-C stops it
	@$(CARGO) build --quiet --locked --release -p wonder
	@scripts/up

test: ## Run every test, beside a PostgreSQL and a NATS server of its own (installed if missing)
	scripts/with-services $(CARGO) $(TEST) --locked --workspace

chaos: ## Break a distributed set at random, and check its journal; DURATION=10m SEED=1
	CHAOS_DURATION=$(DURATION) CHAOS_SEED=$(SEED) scripts/with-services \
		$(CARGO) test --locked --release -p wonder --test distributed -- --nocapture chaos

sim: ## Simulate coordinators under faults, with other seeds than the tests'; DURATION=10m SEED=1
	SIM_DURATION=$(DURATION) SIM_SEED=$(SEED) $(CARGO) test --locked --release -p commands --lib simulator

check: ## Format, lints, and the licences and sources of dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
		$(CARGO) deny --locked check bans licenses sources; \
	else echo "cargo-deny is not installed: licences and sources not checked"; fi

fmt: ## Format the code
	$(CARGO) fmt --all

bench: ## Measure throughput and latency in a release build, with the machine's floors beside them
	@$(CARGO) run --quiet --locked --release -p wonder -- bench

snapshots: ## Write the snapshots that tests compare with (the OpenAPI document, outputs of examples)
	UPDATE_SNAPSHOTS=1 scripts/with-services $(CARGO) $(TEST) --locked --workspace
