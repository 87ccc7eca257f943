#!/bin/sh
# Everything that a commit must pass. `make test` runs this file and nothing else.
set -eu
cd "$(dirname "$0")/.."
ruff format --check .
ruff check .
pyright
lint-imports
# A worker a core; more torch threads than cores only get in each other's way.
export OMP_NUM_THREADS=1
python -m pytest -n auto -m "not gpu" "$@"
