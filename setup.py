"""Says which setuptools is needed, where an old one would not; all else is in pyproject.toml."""

import setuptools

if int(setuptools.__version__.partition(".")[0]) < 77:
    raise SystemExit(
        f"circuitsim is built by setuptools >= 77, and here is {setuptools.__version__}: "
        "pip install 'setuptools>=77', or leave --no-build-isolation out"
    )
setuptools.setup()
