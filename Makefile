# One entry for people and CI. `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_VENV := .cache/demo-venv
DEMO_STAMP := $(DEMO_VENV)/.installed
PIP_FLAGS := --quiet --disable-pip-version-check
VM_RUN ?= vm-run
# All tests run on v2 but these: they ask nothing of the kernel, measure it, need a network, which isn't there, or show in
# slow pods what tests/e2e shows on v2 without them.
NOT_ON_V2 := tests/benchmarks tests/commands tests/core tests/inject tests/k8s tests/stores \
	tests/goheap/test_buckets.py tests/goheap/test_damage.py tests/goheap/test_symbols.py \
	tests/localpod/test_go_memory_leak.py tests/localpod/test_s3.py tests/localpod/test_toolchain.py \
	tests/pod/test_apps.py tests/pod/test_base_images.py tests/pod/test_component.py tests/pod/test_image.py \
	tests/pod/test_endings.py tests/pod/test_kube.py tests/pod/test_tls.py \
	tests/webhook tests/test_architecture.py tests/test_command_line.py tests/pprof tests/test_readme.py
# A kernel each for three parts: a kernel that is one process seldom uses a whole core.
ON_V2 = $(VM_RUN) -t 1700 -m 3G -- $(BIN)/python -m pytest -p no:cacheprovider --durations=10
NEW_VENV = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' && $(PYTHON) -m venv --clear
NO_VENV = echo "A Python 3.11 or newer with venv is needed: make PYTHON=python3.11 ..., or apt-get install python3-venv" >&2
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help setup check test test-v2 v2-e2e v2-others v2-pods vm-run programs demo bench race lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

test: $(STAMP) ## every test that can run here, or those of TESTS=path; names what it skipped and why
	$(BIN)/python -m pytest $(TESTS)

test-v2: $(STAMP) programs ## the tests again on a small kernel with cgroup v2, where vm-run is (VM_RUN=path)
	@$(MAKE) --no-print-directory -j3 --keep-going --output-sync=target v2-e2e v2-others v2-pods

v2-e2e: vm-run
	$(ON_V2) tests/e2e

v2-others: vm-run
	$(ON_V2) tests --ignore=tests/e2e --ignore=tests/pod $(NOT_ON_V2:%=--ignore=%)

v2-pods: vm-run
	$(ON_V2) tests/pod $(NOT_ON_V2:%=--ignore=%)

vm-run:
	@command -v $(VM_RUN) >/dev/null || { echo "vm-run isn't on PATH: make test-v2 VM_RUN=path" >&2; exit 2; }

programs: $(STAMP)
	@$(BIN)/python -m tests.programs

demo: $(DEMO_STAMP) ## a real OOM kill, its heap profile in a local S3, and what it says
	@$(DEMO_VENV)/bin/python -m demo

$(DEMO_STAMP): requirements/demo.txt
	@$(NEW_VENV) $(DEMO_VENV) || { $(NO_VENV); exit 2; }
	@echo "Installing what the demo needs into $(DEMO_VENV) ..."
	@$(DEMO_VENV)/bin/python -m pip install $(PIP_FLAGS) --require-hashes -r requirements/demo.txt
	@touch $@

bench: $(STAMP) ## footprint, start-up and latency of the sidecar, as a table
	@$(BIN)/python -m benchmarks

race: $(STAMP) ## the race against the OOM killer: which tool saves how much of the heap, about 25 minutes
	@$(BIN)/python -m benchmarks.race

lock: ## refresh the locked requirements (needs uv)
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	$(LOCK) pyproject.toml --group demo -o requirements/demo.txt
	$(LOCK) --group build -o requirements/build.txt
	$(LOCK) pyproject.toml --group dev -o requirements/dev.txt

clean: ## remove what the other targets made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
