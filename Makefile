# Everything runs in .venv, which each target makes when it is missing or older than what it installs.
#
#   make test     installs the train and dev extras, runs the tests
#   make demo     installs the train extra, runs the whole loop in the simulated world
#   make lint     ruff, mypy, import-linter
#   make clean    removes caches and build products (neither .venv nor runs)
#
# TORCH_INDEX=https://... adds a package index for torch, for example one that holds CPU-only builds.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_INDEX ?=
PYTEST_ARGS ?= -n 2

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
INPUTS := pyproject.toml constraints.txt

.PHONY: venv demo test lint clean

venv: .venv/.installed-dev

.venv/.installed-train: $(INPUTS)
	@echo "Installing into .venv: PyTorch (0.8 GB with the CPU build, about 5 GB with CUDA), transformers, scipy (1.3 GB in all on CPU)"
	$(PYTHON) -m venv .venv
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "torch==2.13.0"
	$(PIP) -e ".[train]"
	@touch $@

.venv/.installed-dev: .venv/.installed-train
	@echo "Installing into .venv: pytest, hypothesis, ruff, mypy, import-linter (0.1 GB)"
	$(PIP) -e ".[train,dev]"
	@touch $@

demo: .venv/.installed-train
	$(BIN)/prefloop demo --out runs/demo

test: .venv/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.*
	find src tests docs examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
