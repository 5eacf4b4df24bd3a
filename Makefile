# `make demo` and `make test` work on a fresh clone: they create .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One process per core; each takes the next test that is left.
PARALLEL := --numprocesses auto --maxprocesses 8 --dist worksteal
# Where the rehearsal of the recipes writes what it measured.
REHEARSAL := STYLEGAN_INV_REHEARSAL=experiments/dress_rehearsal

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-long rehearsal lint format type docs bench clean

help:  ## Show this help.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 20

install: $(READY)  ## Create .venv and install the package with what its tests need.

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

demo: $(READY)  ## Train ReStyle on the embedded faces and print the path of its panel.
	$(BIN)/python -m stylegan_inv.train method=restyle

test: lint type  ## Lint, types and the whole test suite.
	$(BIN)/python -m pytest $(PARALLEL)

test-fast: $(READY)  ## The tests that take seconds.
	$(BIN)/python -m pytest $(PARALLEL) -m 'not slow'

test-long: $(READY)  ## The tests that take long, 1,000 steps with constant memory, and the rehearsal.
	STYLEGAN_INV_LONG=1 $(BIN)/python -m pytest $(PARALLEL) -m long --ignore=tests/rehearsal
	$(MAKE) rehearsal

rehearsal: $(READY)  ## Every recipe of the papers at its real size, one at a time; writes its table.
	STYLEGAN_INV_LONG=1 $(REHEARSAL) $(BIN)/python -m pytest tests/rehearsal
	$(BIN)/python experiments/dress_rehearsal/table.py

lint: $(READY)  ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## Apply formatting and the safe fixes.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

type: $(READY)  ## Check types.
	$(BIN)/mypy

docs: $(READY)  ## Build API pages from the docstrings into build/docs.
	$(BIN)/python .github/build_docs.py

bench: $(READY)  ## Time the embedded generator, the renderer and a training step.
	$(BIN)/python -m stylegan_inv.benchmark world

clean:  ## Remove the environment and everything generated.
	rm -rf $(VENV) outputs multirun wandb build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
