"""Run notebooks from a clean kernel: ``python notebooks/execute.py [--write] [NOTEBOOK ...]``.

``--write`` keeps the outputs as they are committed: without times and without widgets, in the place
of which stands the picture that a page on the web can show.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"


def execute(path: Path, directory: Path) -> nbformat.NotebookNode:
    """Run a notebook in a directory; an error of a cell ends it with that cell's traceback."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(directory)}}
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources=resources).execute()
    return notebook


def stripped(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out what differs from run to run, and what only a live notebook can show."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.metadata = {}
        cell.id = f"cell-{number}"
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        for output in cell.outputs:
            output.pop("execution_count", None)
            if output.output_type in ("execute_result", "display_data"):
                output.output_type, output.metadata = "display_data", {}
                output.data.pop(WIDGET, None)
    return notebook


def main() -> int:
    """Run the notebooks given, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, default=NOTEBOOKS, metavar="NOTEBOOK")
    parser.add_argument("--write", action="store_true", help="keep the outputs")
    options = parser.parse_args()
    for path in options.notebooks:
        with tempfile.TemporaryDirectory() as directory:
            notebook = execute(path, Path(directory))
        if options.write:
            nbformat.write(stripped(notebook), path)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
