"""A study as an array of tasks, for clusters where nothing else may run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from circuitsim.checks.validation import ParameterError

MOST_TASKS = 1000  # Slurm's own limit is 1001, unless a site has set another


def script(command: Sequence[str], parts: int, name: str) -> str:
    """Return a job-array script that runs all parts of a study.

    Parameters
    ----------
    command : sequence of str
        Runs the study; with ``--cell I`` a part of it, with ``--merge`` it collects them.
    parts : int
        How many there are. If more than a site allows tasks, each task runs several.
    name : str
        Of the job.

    Raises
    ------
    ParameterError
        If a part of the command cannot stand in one line of a script.
    """
    for word in command:
        # Bytes of a file's name that are no UTF-8 can stand in a script.
        if not re.sub("[\udc80-\udcff]", "", word).isprintable():
            raise ParameterError("write_slurm", "a path or value must be printable", word)
    line = shlex.join(command)
    per_task = -(-parts // MOST_TASKS)
    tasks = -(-parts // per_task)
    cell = '"$SLURM_ARRAY_TASK_ID"'
    if per_task > 1:
        first = f"SLURM_ARRAY_TASK_ID * {per_task}"
        last = f"{first} + {per_task - 1}"
        cell = f"$(seq $(({first})) $(({last} < {parts} ? {last} : {parts - 1})))"
    return f"""#!/bin/bash
#SBATCH --job-name={re.sub("[^A-Za-z0-9_.-]", "_", name)[:60]}
#SBATCH --array=0-{tasks - 1}
#SBATCH --cpus-per-task=1
# Add what your site needs: --time, --mem, --partition, --account.
# A task that ends early keeps what it has finished: submit again, and only the rest is run.
set -euo pipefail
cd {shlex.quote(str(Path.cwd()))}
exec {line} --cell {cell}
# When all tasks have ended: {line} --merge
"""
