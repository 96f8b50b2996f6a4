#!/usr/bin/env bash
# Builds the documentation into site/, from nothing; a broken reference or a failing example ends it.
#     bash docs/build.sh && python3 -m http.server --directory site
# Set VENV to use another environment and PYTHON to use another Python.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="${VENV:-.venv}"
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
"$venv/bin/python" -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs site
echo "site/index.html"
