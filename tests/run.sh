#!/usr/bin/env bash
# Everything that is checked, from nothing: makes a virtual environment, installs the package with what
# its tests need, then lints, checks types and runs the tests.
#     bash tests/run.sh               those of every day, in 10 minutes on two cores: before every merge
#     bash tests/run.sh --fast        those that are not slow, in a good minute: after every change
#     bash tests/run.sh --thorough    whole grids and many more random examples, too: once a week
#     bash tests/run.sh --lowest      with the lowest versions of packages that are allowed, in the environment
#                                     .venv-lowest, those that are not slow; no style, no types: once a week
# What follows is passed to pytest: `bash tests/run.sh --fast -k sweep`. Set VENV to use another environment,
# PYTHON to use another Python, and JOBS to run more or fewer than three tests at once (many wait for
# processes, so that three keep two cores busy).
set -euo pipefail
cd "$(dirname "$0")/.."

which=() lowest=
case "${1:-}" in
    --fast) which=(-m "not slow") && shift ;;
    --thorough) which=(--thorough) && shift ;;
    --lowest) lowest=yes which=(-m "not slow") RESOLUTION=lowest-direct VENV="${VENV:-.venv-lowest}" && shift ;;
esac

. tests/environment.sh test

tests() { "$python" -m pytest ${which[@]+"${which[@]}"} -n "${JOBS:-3}" --dist worksteal "$@"; }
if [ -n "$lowest" ]; then
    tests "$@"
    exit
fi

"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
# Types are checked beside the tests, and what was found is told after them.
said="$(mktemp)"
"$venv/bin/mypy" > "$said" 2>&1 &
types=$!
trap 'kill "$types" 2> /dev/null || true; rm -f "$said"' EXIT
failed=0
tests "$@" || failed=$?
wait "$types" || failed=$?
cat "$said"
exit "$failed"
