# Two commands: `make demo` and `make test`. Both set up what they need and skip what is done.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# The pinned set was measured on 3.11; newer ones are taken where it is not at hand.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
ALL_CORES := -n auto --dist loadfile
TREE := prompts trainer service workers examples benchmarks lowrank scripts tests

.PHONY: help setup setup-dev demo up test test-fast check format bench clean

help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 12

python-found:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found: install it, or say make PYTHON=/path/to/python" >&2; exit 1; }

setup: python-found ## Both environments, without the development tools
	@$(PYTHON) scripts/bootstrap.py main vllm

setup-dev: python-found
	@$(PYTHON) scripts/bootstrap.py main dev vllm

demo: setup ## The whole chain, small and for real: teacher, dataset, student, stages, report
	@$(BIN)/python -m examples.demo.run

up: setup ## The embedded stack: Redis, API, workers; Ctrl-C stops it
	@$(BIN)/retort up

# What starts no servers runs on all cores, a thread each; what does has the machine for itself.
test: setup-dev ## Everything this machine can run
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(ALL_CORES) -m "not servers"; calm=$$?; \
	$(BIN)/python -m pytest -m servers && exit $$calm

test-fast: python-found ## No servers, nothing long: about 2.5 minutes on two cores
	@$(PYTHON) scripts/bootstrap.py main dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(ALL_CORES) -m "not servers and not slow"

check: python-found ## Format, lint, strict types, import contracts
	@$(PYTHON) scripts/bootstrap.py main dev
	$(BIN)/ruff format --check $(TREE)
	$(BIN)/ruff check $(TREE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: ## Let ruff format and mend what it can
	$(BIN)/ruff format $(TREE)
	$(BIN)/ruff check --fix $(TREE)

bench: setup-dev ## Side-by-side measurements: make bench NAME=kd_loss
	@$(BIN)/python -m benchmarks $(NAME)

clean: ## Remove environments, caches and the demo's data
	rm -rf .venv .venv-vllm .venv*.log .setup.lock .demo .mypy_cache .ruff_cache .pytest_cache
