# One command for each habit; `make` alone lists them. Options of the command behind a target go into ARGS:
#   make test ARGS="-k coherence"
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := divtf tests benchmarks docs examples setup.py

export MPLBACKEND ?= Agg
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test check lint types format docs bench dist clean distclean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## Make .venv with the pinned versions and the package, editable

# Made again when a file that says what to install changes; a second run installs nothing. The stamp comes
# last, so an interrupted installation goes on at the next call.
$(STAMP): requirements.txt constraints.txt setup.py divtf/__init__.py
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	    echo "Expected Python 3.11, 3.12 or 3.13 as PYTHON. Received: PYTHON=$(PYTHON)," \
	      "$$($(PYTHON) --version 2>&1 | tail -n 1). Try: make PYTHON=python3.12 ..." >&2; exit 1; }; \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "Expected a Python with the modules venv and ensurepip (Debian: package python3-venv)." \
	      "Received: PYTHON=$(PYTHON), which lacks them." >&2; exit 1; }; \
	  echo "Making $(VENV) with $$($(PYTHON) --version)"; \
	  $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing into $(VENV); the first time this downloads 0.9 GB and takes 3 GB of disk."
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev,docs,cluster,onnx,litert,attacks,bench,mlflow,wandb]'
	@touch $@

demo: $(STAMP) ## Train small ensembles with and without the alignment loss, attack them, print the table
	$(BIN)/python -m divtf.table2 --flagfile=flags/demo.flags $(ARGS)

# Two processes take the tests module by module, since a module's tests share what they train. ARGS=-n0 has
# one: for --pdb.
test: $(STAMP) ## Run the tests, the slow ones left out (add them: make test ARGS='-m "slow or not slow"')
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

lint: $(STAMP) ## Check style and format
	$(BIN)/python -m ruff check $(SOURCES)
	$(BIN)/python -m ruff format --check $(SOURCES)

types: $(STAMP) ## Check the package's types
	$(BIN)/python -m mypy

# In this order under any -j: what fails fast comes first, and the tests' closing line comes last.
check: ## Run what CI runs: lint, types, test
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory types
	@$(MAKE) --no-print-directory test

format: $(STAMP) ## Format the code and repair what can be repaired
	$(BIN)/python -m ruff check --fix $(SOURCES)
	$(BIN)/python -m ruff format $(SOURCES)

docs: $(STAMP) ## Build the guides and the API into docs/_build/html; a warning is an error
	$(BIN)/python -m sphinx -W --keep-going -q -b html -c docs . docs/_build/html

bench: $(STAMP) ## Measure speed and memory as ratios against a floor or a baseline
	$(BIN)/python -m benchmarks $(ARGS)

dist: $(STAMP) ## Build the wheel and the source archive into dist/
	$(BIN)/python -m build

clean: ## Remove build outputs and caches; keep .venv and runs/
	rm -rf build dist docs/_build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find divtf tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## Remove .venv too
	rm -rf $(VENV)
