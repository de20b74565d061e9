# Each target makes .venv where it is missing, and installs again only after pyproject.toml or constraints.txt changed.
#
#   make venv     installs everything that development needs
#   make test     the same, then runs the tests
#   make coverage the same, then the tests with their branch coverage, and fails where a package is below its limit
#   make test-peers   makes .venv-peers-trl and .venv-peers-trl-1.12 too, then compares with these releases of TRL
#   make bench-peers  the same environments, then prefloop's speed beside TRL's (an hour; BENCH_ARGS="--size small --job sft")
#   make lint     the same, then ruff, mypy and import-linter
#   make test-crash       kills runs and damages checkpoints, at random, and compares the ends (minutes; not in CI)
#   make test-crash-full  the same with all algorithms and the counts of docs/reliability.md
#   make test-registry    the registry's tests with 100 kills and 1,000 changes of the ledger (two minutes; not in CI)
#   make test-label       the labelling database's tests with 50 annotators at once and 200 kills (minutes; not in CI)
#   make demo     installs what running needs, then runs the whole loop in the simulated world
#   make clean    removes caches and build products (neither .venv nor runs)
#
# PYTHON=python3.12             the interpreter that .venv is made with
# TORCH_INDEX=https://...       a further package index for torch, for example one with CPU-only builds
# PYTEST_ARGS="-n 2 -k config"  what pytest is told
# CRASH_ARGS="--jobs ppo"       what the crash tests are told (--help lists it)
# BENCH_ARGS="--job grpo"       what the comparison of speed is told (--help lists it)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_INDEX ?=
PYTEST_ARGS ?= -n 2
CRASH_ARGS ?=
BENCH_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: venv test coverage test-peers bench-peers test-crash test-crash-full test-registry test-label lint demo clean

venv: .venv/.installed-dev

.venv/.installed-train: pyproject.toml constraints.txt
	@echo "installing into .venv: $(TORCH) (0.8 GB as a CPU build, several GB with CUDA), transformers, scipy, plotly (0.6 GB)"
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("prefloop needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	$(PIP) -e ".[train]"
	@touch $@

.venv/.installed-dev: .venv/.installed-train
	@echo "installing into .venv: pytest, hypothesis, ruff, mypy, import-linter, pyarrow (0.3 GB)"
	$(PIP) -e ".[train,dev]"
	@touch $@

test: .venv/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

coverage: .venv/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS) --cov --cov-report= --cov-report=json:.coverage.json
	$(BIN)/python tests/coverage_table.py .coverage.json

.venv-peers-%/.installed: tests/peers/requirements-%.txt
	@echo "installing into .venv-peers-$*: $(TORCH), transformers, TRL (1.2 GB as a CPU build)"
	$(PYTHON) -m venv .venv-peers-$*
	.venv-peers-$*/bin/python -m pip install --disable-pip-version-check --quiet \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r $<
	@touch $@

test-peers: .venv/.installed-dev .venv-peers-trl/.installed .venv-peers-trl-1.12/.installed
	PREFLOOP_PEERS=. $(BIN)/python -m pytest tests/peers

bench-peers: .venv/.installed-dev .venv-peers-trl/.installed .venv-peers-trl-1.12/.installed
	$(BIN)/python -m benchmarks.peers $(BENCH_ARGS)

test-crash: .venv/.installed-dev
	$(BIN)/python -m tests.crash $(CRASH_ARGS)

test-crash-full: .venv/.installed-dev
	$(BIN)/python -m tests.crash --jobs all --kills 30 --signals 10 --writes 100 --damages 200 $(CRASH_ARGS)

test-registry: .venv/.installed-dev
	PREFLOOP_KILLS=100 PREFLOOP_CHANGES=1000 $(BIN)/python -m pytest tests/registry --durations=5

test-label: .venv/.installed-dev
	PREFLOOP_ANNOTATORS=50 PREFLOOP_VOTES=40 PREFLOOP_KILLS=200 $(BIN)/python -m pytest tests/label --durations=5

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

demo: .venv/.installed-train
	$(BIN)/prefloop demo --out runs/demo

clean:
	rm -rf build dist htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.*
	find src tests docs examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
