#!/usr/bin/env bash
# Everything that is checked, from nothing: makes a virtual environment, installs the package with what
# its tests need, then lints, checks types and runs all tests, the slow ones too.
# Options are passed to pytest: `bash tests/run.sh -k sweep`. Set VENV to use another environment and
# PYTHON to use another Python.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${VENV:-.venv}"
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[test]'

"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
"$venv/bin/python" -m pytest -m "slow or not slow" -n 2 "$@"
