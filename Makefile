# The front door. `make help` lists what there is.
PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup bpf test test-all lint build clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## install what is missing: Debian packages, .venv with locked versions, the compiled datapath
	@bash tools/setup.sh

bpf: ## compile bpf/ into the package
	@$(PYTHON) build_backend/compile_bpf.py

test: setup ## all tests that this machine can run; says what it skipped and why
	@$(PYTHON) -m pytest tests

test-all: setup ## also what takes longer
	@AXONEME_TEST_ALL=1 $(PYTHON) -m pytest tests

lint: setup ## style and types
	@$(PYTHON) -m ruff check src tests build_backend
	@$(PYTHON) -m ruff format --check src tests build_backend
	@$(PYTHON) -m mypy src

build: setup ## the wheel, with the compiled datapath inside, into dist/
	@$(PYTHON) -m build --wheel --no-isolation

clean: ## remove what was built; not .venv
	@rm -rf build dist src/*.egg-info src/axoneme/datapath/objects .hypothesis .mypy_cache .ruff_cache .pytest_cache
