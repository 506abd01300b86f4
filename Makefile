# Two commands on a fresh machine: `make train` and `make test`. They install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
SUITE ?= attention linear input_pipeline train_step inference epoch memory eval_overhead

.DEFAULT_GOAL := help
.PHONY: help train test check lint format bench bench-gpu docs clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: setup.cfg pyproject.toml
	@echo "Setting up $(VENV): this downloads PyTorch, 6 GB in all, and takes some minutes."
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is no Python 3.11 or newer; name one that is: make train PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

train: $(VENV)/.installed  ## Train the embedded default; more with ARGS="configs/x.yaml key=value"
	$(BIN)/python train.py $(ARGS)

test: $(VENV)/.installed  ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.installed  ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test  ## Everything that must hold before a change lands

format: $(VENV)/.installed  ## Put format and imports right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/.bench: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

bench: $(VENV)/.bench  ## Measure against other libraries; one script with SUITE=train_step
	@for name in $(SUITE); do $(BIN)/python -m benchmarks.$$name $(ARGS) && echo || exit 1; done

bench-gpu: $(VENV)/.bench  ## Measure on a GPU, in ten minutes; run again to go on
	$(BIN)/python -m benchmarks.gpu $(ARGS)

$(VENV)/.docs: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,docs]'
	@touch $@

docs: $(VENV)/.docs  ## Build the documentation into site/, to be opened from disk
	rm -rf site
	$(BIN)/zensical build --clean --strict
	$(BIN)/zensical build --clean --strict --config-file zensical.zh.toml
	@echo "open site/index.html, in Chinese site/zh/index.html"

clean:  ## Remove the environment and what tools left; runs/ and data/ stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .cache site
