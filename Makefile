# Every target sets up what it needs, in .venv, on a machine that has only python3 and make.
#   make demo                  train a small CLIP on drawn scenes and show what it can do
#   make demo ARGS=--json      the same, with one JSON object as the last line
#   make test                  everything but the slow tests;  make test ARGS="-k config"  a part of it
#   make test-slow             the slow tests
#   make lint                  ruff, mypy --strict, the rooms' import contract
#   make bench ARGS=--list     benchmarks against peers
#   make clean                 remove caches and build output (.venv and runs stay)

PYTHON ?= python3
WORKERS ?= auto
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt
TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal

.PHONY: help setup demo test test-slow lint bench clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

setup: $(VENV)/.installed-dev

demo: $(VENV)/.installed
	@$(BIN)/pictura demo $(ARGS)

test: $(VENV)/.installed-dev
	@$(TEST) -m "not slow" $(ARGS)

test-slow: $(VENV)/.installed-dev
	@$(TEST) -m slow $(ARGS)

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

bench: $(VENV)/.installed-dev
	@$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: set up once, and again when what is asked for changes. The stamp with everything serves the demo too.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pictura needs Python 3.11 or newer, and \
	$(PYTHON) is %d.%d; try: make PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "Installing Pictura and what it needs into $(VENV) (torch is large: some minutes the first time) ..."
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "Installing Pictura with its tests and peers into $(VENV) (torch is large: some minutes the first time) ..."
	@$(PIP) --editable '.[dev]'
	@touch $(VENV)/.installed $@
