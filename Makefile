PYTHON ?= python3
# Where pip finds torch's CPU builds, if it is to take those: see the README.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: demo test train-smoke lint types imports broker bench fuzz chaos audit screenshots help

demo: $(VENV)/.demo  ## run the worker on an embedded broker and show what it hears; BOARD=1 opens the live board
	@$(BIN)/python -m worker demo $(if $(BOARD),--board)

test: $(VENV)/.dev  ## run the test suite
	@$(BIN)/python -m pytest

train-smoke: $(VENV)/.dev  ## run every stage of training on tiny models and data
	@$(BIN)/python -m pytest tests/smoke

lint: $(VENV)/.dev  ## check style and formatting
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.dev  ## check types
	@$(BIN)/mypy

imports: $(VENV)/.dev  ## check that imports point from the edge to the core
	@$(BIN)/lint-imports --no-logo

broker: $(VENV)/.dev  ## run the tests of real Apache Kafka alone
	@$(BIN)/python -m pytest tests/broker

bench: $(VENV)/.dev  ## measure ceiling, worker, latency, scaling and peers; results go to bench_results/
	@$(BIN)/python -m tests.bench

fuzz: $(VENV)/.dev  ## look for records that break the worker, for SECONDS=300; what is found stays in fuzz_corpus/
	@$(PIP_INSTALL) --editable '.[fuzz]'
	@mkdir -p fuzz_corpus && $(BIN)/python -m tests.fuzz.fuzz_record fuzz_corpus -max_total_time=$(or $(SECONDS),300) -max_len=4000 -len_control=0 \
		-timeout=20 -artifact_prefix=fuzz_corpus/

chaos: $(VENV)/.dev  ## break things around workers on a real Kafka and check every law; CHAOS="--seed 2 --minutes 20 ..."
	@$(BIN)/python -m tests.chaos $(CHAOS)

audit: $(VENV)/.audit  ## ask for known vulnerabilities of the pinned dependencies; needs the network
	@$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

screenshots: $(VENV)/.dev  ## take the docs' pictures of the live board from the demo (needs a Chromium)
	@$(BIN)/python -m tests.browser.screenshots

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 20

$(BIN)/python:
	@echo "making the virtual environment $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what the demo needs"
	@$(PIP_INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what the tests need, torch included: this takes a few minutes"
	@$(PIP_INSTALL) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[dev]'
	@touch $@ $(VENV)/.demo

$(VENV)/.audit: | $(BIN)/python
	@$(BIN)/python -m venv $(VENV)/audit
	@$(VENV)/audit/bin/pip install --quiet --disable-pip-version-check 'pip-audit==2.10.1'
	@touch $@
