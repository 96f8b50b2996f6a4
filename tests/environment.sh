# Sourced by scripts that start from nothing: makes a virtual environment and installs the package there with
# the extra that $1 names. Leaves $venv and $python.
venv="${VENV:-.venv}"
python="$venv/bin/python"
[ -x "$python" ] || "${PYTHON:-python3}" -m venv "$venv"
# uv installs in seconds what takes pip minutes; where it cannot be had, or cannot install, pip does.
pip() { "$python" -m pip --quiet --disable-pip-version-check "$@"; }
uv() { "$python" -m uv --quiet "$@"; }
uv --version > /dev/null 2>&1 || pip install uv || true
# Hundreds of processes import these packages: compiled once, not by each of them (as pip does, uv does not).
unset PYTHONDONTWRITEBYTECODE
install=(pip install --compile-bytecode --python "$python" --editable ".[$1]")
if [ -n "${RESOLUTION:-}" ]; then  # of uv, "lowest-direct": the lowest versions that the package allows
    uv "${install[@]}" --resolution "$RESOLUTION"
else
    uv "${install[@]}" || pip install --editable ".[$1]"
fi
