#!/usr/bin/env bash
# Builds the documentation into site/, from nothing; a broken reference or a failing example ends it.
#     bash docs/build.sh && python3 -m http.server --directory site
# Set VENV to use another environment and PYTHON to use another Python.
set -euo pipefail
cd "$(dirname "$0")/.."

. tests/environment.sh docs
"$python" -m sphinx --fail-on-warning --keep-going --nitpicky --quiet docs site
echo "site/index.html"
