"""How long a slider's redraw takes: ``python benchmarks/notebooks.py``.

Every slider of every notebook is moved to each of its values, the others where they start, and the
median and the longest of all redraws are printed, in seconds of wall clock and of this process. The
aim is 0.3 s; on a machine that is busy with other work only the second tells.
"""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path

import numpy as np

import circuitsim as cs
from circuitsim import notebook
from circuitsim.notebook import Explorer

FOLDER = Path(__file__).parents[1] / "notebooks"


def explorers(path: Path) -> list[Explorer]:
    """All that a notebook makes, without running the rest of it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and "Explorer(" in source:
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Explorer":
                    found.append(eval(ast.unparse(node), vars(notebook) | {"cs": cs}))
    return found


def redraws(explorer: Explorer) -> list[tuple[float, float]]:
    """Seconds that each redraw takes, by the clock and of this process."""
    explorer._repr_mimebundle_()  # shows it: compiles, and fills caches
    taken = []
    for name, control in explorer.controls.items():
        for value in control.values:
            clock, spent = time.perf_counter(), time.process_time()
            explorer.choose(**{name: value}).png()
            taken.append((time.perf_counter() - clock, time.process_time() - spent))
        explorer.choose(**{name: control.start})
    return taken


def main() -> None:
    """Time all sliders."""
    print("notebook       drawing      redraws   median   longest  (clock; of the process)")
    for path in sorted(FOLDER.glob("*.ipynb")):
        for explorer in explorers(path):
            taken = np.array(redraws(explorer))
            middle, most = np.median(taken, axis=0), taken.max(axis=0)
            name = explorer._draw.__name__
            print(
                f"{path.stem:<14} {name:<12} {len(taken):7} {middle[0]:8.2f} {most[0]:8.2f}"
                f"   {middle[1]:7.2f} {most[1]:6.2f}"
            )


if __name__ == "__main__":
    main()
