# make demo: the whole idea on built-in data.   make test: everything a commit must pass.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WAYMO := waymo-open-dataset-tf-2-12-0==1.6.7
OFFICIAL := .venv-official

.PHONY: demo test test-official coverage benchmark format install clean

demo: $(INSTALLED)
	$(BIN)/python -m trainers.catk

test: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/check.sh

# Our Sim Agents metric beside Waymo's own, which runs in an environment of its own (1.7 GB).
test-official: $(INSTALLED) $(OFFICIAL)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/official -o addopts="--import-mode=importlib"

# Lines of the simulator that its own tests run: at least 90 %.
coverage: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --cov --cov-report=term tests/catk_sim

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
	$(BIN)/pip install --quiet --no-deps $(WAYMO) || echo "No $(WAYMO) for this machine: tests against Waymo's classes are skipped."
	touch $@

$(OFFICIAL)/.installed: pyproject.toml
	$(PYTHON) -m venv $(OFFICIAL)
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["official"], sep="\n")' > $(OFFICIAL)/requirements.txt
	$(OFFICIAL)/bin/pip install --quiet -r $(OFFICIAL)/requirements.txt
	# These two ask for other builds of TensorFlow than the one above.
	$(OFFICIAL)/bin/pip install --quiet --no-deps tf-keras==2.21.0 $(WAYMO)
	touch $@

clean:
	rm -rf $(VENV) $(OFFICIAL) build dist .pytest_cache .ruff_cache .hypothesis
