"""What pytest is not to import in search of doctests."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("numba") else ["circuitsim/engines/_kernels_numba.py"]
