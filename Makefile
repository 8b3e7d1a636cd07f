# Every target works on a fresh machine: the first call makes .venv and installs into it, later calls start at once.
#
#   make demo ARGS="--out here"      ARGS goes through to the command
#   make test ARGS="-k soft -x"      JOBS=4 runs the tests in four processes
#   make demo PYTHON=python3.12      the interpreter that .venv is made with
#
# pip's own environment variables (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, ...) are obeyed.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
JOBS ?= 2

BIN := $(VENV)/bin
# Exists once everything is installed; older than one of its prerequisites, the installation is brought up to date.
STAMP := $(VENV)/.installed
# Exists while an installation runs: found at the start, it says that the last one broke off.
HALF := $(VENV)/.installing

.DEFAULT_GOAL := help
.PHONY: help demo demo-text test check lint bench evidence clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(STAMP)  ## train GEAR beside its baselines on this machine and show what came out
	$(BIN)/gear demo $(ARGS)

demo-text: $(STAMP)  ## the same with captions: two text-to-image generators, and what they draw
	$(BIN)/gear fetch minilm
	$(BIN)/gear demo --text $(ARGS)

test: $(STAMP)  ## the whole test suite
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

check: lint test  ## what continuous integration runs: style, types, tests

lint: $(STAMP)  ## style (ruff) and types (pyright)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(STAMP)  ## what is fast, measured against the plain way
	@$(BIN)/python -m bench $(ARGS)

evidence: $(STAMP)  ## test the paper's findings: what has no result; all anew, 24 hours of a core: ARGS="--results mine"
	$(BIN)/gear fetch cifar10
	$(BIN)/gear fetch inception-fid
	$(BIN)/gear fetch mobilenet_v2
	$(BIN)/gear fetch minilm
	$(BIN)/gear evidence $(ARGS)
	$(BIN)/gear evidence write $(ARGS)

clean:  ## remove the environment and the caches; runs stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find gear tests bench scripts -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt scripts/torchvision_ops.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	'gear needs Python 3.11 or newer, which $(PYTHON) is not.' \
	'Run `sudo apt install python3 python3-venv`, or name another: `make PYTHON=python3.12 ...`.'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo '$(PYTHON) cannot make virtual environments.' \
	'Run `sudo apt install $(notdir $(PYTHON))-venv`, then this again.'; exit 1; }
	@if [ -e $(HALF) ] || ! $(BIN)/python -c 'import pip' 2>/dev/null; then $(PYTHON) -m venv --clear $(VENV); fi
	@touch $(HALF)
	$(BIN)/python -m pip install -c constraints.txt setuptools
	$(BIN)/python -m pip install -c constraints.txt --no-build-isolation -e '.[dev]'
	$(BIN)/python scripts/torchvision_ops.py
	@touch $@ && rm $(HALF)
