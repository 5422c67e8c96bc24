# make demo | test | test-all | test-norse | conformance | check | benchmark | benchmark-guard | benchmark-estimators
# | clean. All but the last benchmark lives in .venv; only Python >= 3.11 is needed beforehand.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all test-norse conformance check benchmark benchmark-guard benchmark-estimators clean

demo: .venv/installed
	$(BIN)/morphax judge josephson --quick
	$(BIN)/morphax run josephson/waveforms
	$(BIN)/morphax run josephson/forecast

test: .venv/installed-test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

# Also what is marked slow.
test-all: .venv/installed-test
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not norse" $(ARGS)

# Every rule x substrate x task is trained for two steps; writes the table in docs/devices.md.
conformance: .venv/installed-test
	$(BIN)/python -m tests.conformance.table

# Exported graphs in Norse. It brings PyTorch, of which pip on Linux takes the build for CUDA (some GB) unless
# PIP_EXTRA_INDEX_URL is PyTorch's index of builds for CPUs (1 GB).
test-norse: .venv/installed-norse
	$(BIN)/python -m pytest -m norse tests/export $(ARGS)

check: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Each on one core and on all, kept for the tables in the docs (hours). The code before is that of BEFORE.
BEFORE ?= b987d30
benchmark: .venv/installed-benchmark
	git worktree list | grep -q '$(CURDIR)/build/before' || git worktree add --force --detach build/before $(BEFORE)
	$(BIN)/python benchmarks/before.py --keep build/before
	for name in josephson spintronic phase_oscillators quantized spiking judging devices; do \
	  $(BIN)/python benchmarks/$$name.py --keep --threads 1 && $(BIN)/python benchmarks/$$name.py --keep || exit 1; \
	done
	$(BIN)/python benchmarks/growth.py --keep
	$(BIN)/python benchmarks/guard.py --keep --full || true
	$(BIN)/python benchmarks/starts.py --keep --threads 1
	$(BIN)/python benchmarks/executor.py --keep
	$(BIN)/python benchmarks/rules.py --keep --threads 1
	$(BIN)/python docs/build.py

# Whether what was made fast still is: ratios on one core, in about two minutes.
benchmark-guard: .venv/installed-benchmark
	$(BIN)/python benchmarks/guard.py

# aeon asks for an older NumPy than constraints.txt names, so this has an environment of its own.
benchmark-estimators: .venv-peers/installed
	.venv-peers/bin/python benchmarks/estimators.py --keep

clean:
	rm -rf .venv .venv-peers runs

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "morphax needs Python 3.11 or newer; say which: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable .
	@touch $@

.venv/installed-test: .venv/installed
	$(PIP) --editable '.[test,lint]'
	@touch $@

.venv/installed-norse: .venv/installed-test
	$(PIP) --editable '.[norse]'
	@touch $@

.venv-peers/installed: pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[estimators,data]' 'aeon>=1.6'
	@touch $@

.venv/installed-benchmark: .venv/installed
	$(PIP) --editable '.[benchmark]'
	@touch $@
