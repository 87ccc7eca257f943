# make demo: the whole idea on built-in data.   make test: everything a commit must pass.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WAYMO := waymo-open-dataset-tf-2-12-0==1.6.7

.PHONY: demo test benchmark format install clean

demo: $(INSTALLED)
	$(BIN)/python -m trainers.catk

test: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/check.sh

benchmark: $(INSTALLED)
	$(BIN)/python -m pytest tests/benchmarks -o addopts="--import-mode=importlib" --benchmark-only

format: $(INSTALLED)
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"wanted Python 3.11 to 3.13, got {v[0]}.{v[1]}: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	# torch first and by the constraints, so that nothing else pulls another build.
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	# Waymo's wheel pins an old TensorFlow that its protos do not need; it exists for x86 Linux only.
	$(BIN)/pip install --quiet --no-deps $(WAYMO) || echo "No $(WAYMO) for this machine: WOMD files can be read but not written, and submissions cannot be made."
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
