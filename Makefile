# The only list of commands. Each target brings what it needs (scripts/bootstrap.sh asks nothing and is safe to repeat).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.SILENT:

BIN := .venv/bin
# Test processes; each has a PostgreSQL cluster and a server of its own.
WORKERS ?= 3
# What to test: make test TESTS=packages/core/tests/unit
TESTS ?=
# What to measure: make bench BENCHES=vms
BENCHES ?= vms daemon mirrors handoff gateway auth request
DEV_DATA := $(CURDIR)/.ff-dev/data
# The name of this checkout's own server on the Docker Engine, and of no other's.
DEV_DEPLOYMENT := dev-$(shell pwd -P | sha256sum | cut -c1-10)

.PHONY: help demo test soak lint bench up clean lock docs

help: ## say what there is
	awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## watch a real Claude CLI work in a container, from nothing to nothing
	scripts/bootstrap.sh env docker image
	$(BIN)/python scripts/demo.py

test: ## run all tests, with real PostgreSQL, git, Docker and Claude CLI
	scripts/bootstrap.sh env docker image tests
	echo "test: pytest in $(WORKERS) processes"
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

soak: ## 1,000 workspaces come and go while things are killed; somebody dies at every place; the API for 8 minutes; over an hour
	scripts/bootstrap.sh env docker image tests
	$(BIN)/python tests/soak/soak.py --rounds 1000 --faults
	FF_SOAK_S=480 $(BIN)/pytest -q tests/recovery/test_crash_points.py tests/recovery/test_handoff_deaths.py tests/recovery/test_real_handoffs.py tests/recovery/test_real_places.py tests/recovery/test_real_docker.py packages/cloud/tests/api

lint: ## style, types, import contracts, and the checks in scripts/
	scripts/bootstrap.sh env
	echo "lint: ruff" && $(BIN)/ruff check --quiet && $(BIN)/ruff format --check --quiet
	echo "lint: mypy" && $(BIN)/mypy --no-error-summary && $(BIN)/mypy --no-error-summary scripts/*.py bench/*.py bench/peers/*.py
	echo "lint: import contracts" && $(BIN)/lint-imports >.ff-dev/lint-imports.log || { cat .ff-dev/lint-imports.log; false; }
	echo "lint: tree" && $(BIN)/python scripts/check_tree.py
	echo "lint: ok"

bench: ## measure what bench/budgets.py promises, against others; results in bench/results/, about 20 minutes
	scripts/bootstrap.sh env docker image
	missed=(); for part in $(BENCHES); do $(BIN)/python -m bench.$$part || missed+=($$part); done; \
	[ $${#missed[@]} = 0 ] || { echo "bench: promises not kept, or not measured: $${missed[*]}" >&2; exit 1; }

up: ## run a server in the foreground, its data in .ff-dev/data
	scripts/bootstrap.sh env docker image
	FF_DATA_DIR=$(DEV_DATA) FF_DEPLOYMENT=$(DEV_DEPLOYMENT) $(BIN)/ff-cloud serve

clean: ## remove the containers, volumes and data of `make up`, and caches; .venv and images stay
	if docker version >/dev/null 2>&1 && [ -x $(BIN)/python ]; then $(BIN)/python scripts/clear_deployment.py $(DEV_DEPLOYMENT); \
	else echo "clean: no Docker Engine answers, or there is no .venv; VMs of .ff-dev/data, if any, stay" >&2; fi
	rm -rf .ff-dev .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache bench/results
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	echo "clean: done"

lock: ## remake the hashed locks from the pyproject files
	scripts/lock.sh

docs: ## remake the pages of docs/reference that are made from the code
	scripts/bootstrap.sh env
	for page in settings_docs error_docs; do $(BIN)/python scripts/$$page.py; done
