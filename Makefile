# One entry for people and CI. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_VENV := .cache/demo-venv
DEMO_STAMP := $(DEMO_VENV)/.installed
PIP_FLAGS := --quiet --disable-pip-version-check
NEW_VENV = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' && $(PYTHON) -m venv --clear
NO_VENV = echo "A Python 3.11 or newer with venv is needed: make PYTHON=python3.11 ..., or apt-get install python3-venv" >&2
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help setup check test demo bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with everything the other targets need

$(STAMP): requirements/dev.txt pyproject.toml
	@$(NEW_VENV) $(VENV) || { $(NO_VENV); exit 2; }
	@echo "Installing the locked dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation -e .
	@touch $@

check: $(STAMP) ## lint, formatting and strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(STAMP) ## every test that can run here; names what it skipped and why
	$(BIN)/python -m pytest

demo: $(DEMO_STAMP) ## a real OOM kill, its heap profile in a local S3, and what it says
	@$(DEMO_VENV)/bin/python -m demo

$(DEMO_STAMP): requirements/demo.txt
	@$(NEW_VENV) $(DEMO_VENV) || { $(NO_VENV); exit 2; }
	@echo "Installing what the demo needs into $(DEMO_VENV) ..."
	@$(DEMO_VENV)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements/demo.txt
	@touch $@

bench: $(STAMP) ## footprint, start-up and latency of the sidecar, as a table
	@$(BIN)/python -m benchmarks

lock: ## refresh the locked requirements (needs uv)
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	$(LOCK) pyproject.toml --group demo -o requirements/demo.txt
	$(LOCK) --group build -o requirements/build.txt
	$(LOCK) pyproject.toml --group dev -o requirements/dev.txt

clean: ## remove what the other targets made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
