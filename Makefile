# The front door. `make help` lists what there is.
PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo bpf ui test test-all test-kernels programs bench lint build clean

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## install what is missing: Debian packages, .venv with locked versions, the compiled datapath
	@bash tools/setup.sh

demo: setup ## a cluster of virtual nodes on this machine: traffic, policies, and who may talk to whom
	@.venv/bin/axo demo

bpf: ## compile bpf/ and the messages of hubble/proto into the package
	@$(PYTHON) build_backend/compile_bpf.py
	@$(PYTHON) build_backend/compile_proto.py

ui: ## build the web UI's page into the package
	@$(PYTHON) build_backend/build_ui.py

test: setup ## all tests that this machine can run; says what it skipped and why
	@bash tools/test.sh

test-all: setup ## also what takes longer
	@$(PYTHON) -c 'import atheris' 2>/dev/null || $(PYTHON) -m pip install -q --only-binary :all: 'atheris==3.*' || \
		echo "test-all: atheris is not to be had: parsers are fuzzed without its guidance"
	@AXONEME_TEST_ALL=1 bash tools/test.sh

test-kernels: setup ## two nodes with pods under Debian's kernels 6.1 and 6.12, emulated: policy, overlay, flows
	@AXONEME_TEST_KERNELS=1 $(PYTHON) -m pytest tests/kernels

programs: setup ## measure what the programs cost under those kernels, and write docs/programs.md
	@AXONEME_RECORD=1 $(PYTHON) -m pytest tests/kernels/test_programs_load.py

bench: setup ## measure against the budgets, and write docs/performance.md
	@$(PYTHON) bench/run.py

lint: setup ## style and types; the datapath is compiled with every warning an error
	@$(PYTHON) -m ruff check src tests build_backend bench
	@$(PYTHON) -m ruff format --check src tests build_backend bench
	@$(PYTHON) -m mypy src
	@if [ -d ui/node_modules ]; then npm --prefix ui run --silent lint; else echo "lint: ui/ is left out: 'make ui' installs what checks it"; fi

build: setup ## the wheel, with the compiled datapath inside, and the source distribution, into dist/
	@$(PYTHON) -m build --wheel --sdist --no-isolation

clean: ## remove what was built; not .venv
	@rm -rf build dist src/*.egg-info src/axoneme/datapath/objects src/axoneme/cni/bin src/axoneme/ui/static src/axoneme/hubble/proto/hubble.binpb .hypothesis .mypy_cache .ruff_cache .pytest_cache
