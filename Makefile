# make train   train PPO on CartPole-v1 and evaluate it
# make test    install everything the tests need and run them
# Both create .venv on the first call and reuse it afterwards.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What `make train` runs: make train ALGO=A2C ENV=Acrobot-v1 STEPS=200000 TUNED=
# With TUNED empty, settings are the defaults; some are tuned: kerasrl tuned
ALGO ?= PPO
ENV ?= CartPole-v1
TUNED ?= --tuned
STEPS ?=
SEED ?= 0
PYTEST_ARGS ?=
SOURCES := kerasrl tests benchmarks setup.py $(wildcard examples notebooks)

export KERAS_BACKEND := tensorflow
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help .venv install install-test train test test-slow matrix lint format type \
        check bench clean

help:
	@echo "make train      train $(ALGO) on $(ENV) with tuned settings and evaluate"
	@echo "make test       lint, types and all quick tests"
	@echo "make test-slow  the tests that learn for minutes"
	@echo "make matrix     try every two features together: docs/features.md"
	@echo "make check      lint and types only;  make format  to mend the first"
	@echo "make bench      throughput and learning against Stable-Baselines3"
	@echo "make clean      remove .venv and caches"

.venv: $(BIN)/python

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "kerasrl needs Python 3.11 or newer; $(PYTHON) is" \
	    "$$($(PYTHON) -V). Set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

# The stamps are newer than setup.py once the installation has succeeded.
$(VENV)/.installed: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-test: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	@touch $@ $(VENV)/.installed

# Built once for a Python and a TensorFlow, for minutes; then taken from a cache.
$(VENV)/.installed-horovod: scripts/install_horovod.sh $(VENV)/.installed-test
	scripts/install_horovod.sh $(BIN)/python
	@touch $@

$(VENV)/.installed-bench: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	@touch $@ $(VENV)/.installed

train: $(VENV)/.installed
	$(BIN)/kerasrl train $(ALGO) $(ENV) $(TUNED) $(STEPS:%=--steps %) --seed $(SEED)

# One process per core; PYTEST_ARGS="-n 0" for one in all.
test: check $(VENV)/.installed-horovod
	$(BIN)/python -m pytest -n auto --dist worksteal $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-test $(VENV)/.installed-horovod
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

matrix: $(VENV)/.installed-test
	$(BIN)/python tests/matrix/report.py

lint: $(VENV)/.installed-test
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

type: $(VENV)/.installed-test
	$(BIN)/mypy

check: lint type

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/learning.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
