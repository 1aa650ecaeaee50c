#!/usr/bin/env bash
# Makes an environment with the extras test and yolo, checks style and types, and runs the tests.
#   ./runtests.sh          all tests but the slow ones
#   ./runtests.sh --all    all tests
#   ./runtests.sh ARGS     further arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")"
source scripts/environment.sh test,yolo
marker=(-m "not gpu and not slow")
if [ "${1:-}" = "--all" ]; then
    marker=(-m "not gpu")
    shift
fi
ruff check .
ruff format --check .
mypy
lint-imports --no-logo
# One process for each core, but at most four: each takes up to 4 GB. -n 0 runs all tests in one.
python -m pytest -n logical --maxprocesses 4 --dist worksteal "${marker[@]}" "$@"
