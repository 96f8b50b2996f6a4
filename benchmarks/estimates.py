"""How right the estimates of --dry-run are, for each engine and code generation.

Prints what a pilot says, what the same circuits then take, and the ratio, which should lie between
1/2 and 2. Compile once before (or run it twice), as a user who repeats a study has.

    python benchmarks/estimates.py [--presentations 2000] [--trials 20] [ENGINE/CODEGEN ...]
"""

from __future__ import annotations

import argparse
import sys
import time

from circuitsim.engines import registry
from circuitsim.studies.sweep import Study, run_cells

WAYS = ("propagator/numpy", "propagator/numba", "stepper/numpy", "stepper/numba", "brian2/numpy",
        "brian2/cython", "brian2/cpp_standalone")  # fmt: skip


def compared(study: Study) -> tuple[float, float]:
    """Seconds that a pilot says the study takes in this process, and that it takes."""
    once, run = study.pilot(study.cells, 1)
    began = time.perf_counter()
    for job in study.jobs(study.cells):
        run_cells(study, job)
    return once + run, time.perf_counter() - began


def main() -> int:
    """Print the figures; the exit code says whether all are within a factor of 2."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("ways", nargs="*", default=WAYS, metavar="ENGINE/CODEGEN")
    p.add_argument("--k", type=int, nargs="+", default=[9])
    p.add_argument("--neurons", type=int, default=100)
    p.add_argument("--trials", type=int, default=20)
    p.add_argument("--presentations", type=int, default=2000)
    options = p.parse_args()
    far = 0
    print(f"{'engine':<24}{'estimate':>11}{'took':>11}{'ratio':>8}")
    for way in options.ways:
        engine, _, codegen = way.partition("/")
        codegen = registry.get(engine, codegen or "auto").codegen
        study = Study(
            k=options.k, gamma=(0.01,), neurons=(options.neurons,), trials=options.trials,
            presentations=options.presentations, engine=engine, codegen=codegen,
        )  # fmt: skip
        said, took = compared(study)
        ratio = said / took
        far += not 0.5 <= ratio <= 2
        print(f"{engine}/{codegen:<{23 - len(engine)}}{said:>9.2f} s{took:>9.2f} s{ratio:>8.2f}",
              flush=True)  # fmt: skip
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
