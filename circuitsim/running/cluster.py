"""Campaigns on a Dask cluster that is there already."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from circuitsim.checks.validation import ParameterError
from circuitsim.files import read_text, reason
from circuitsim.running.runner import IN_FLIGHT
from circuitsim.version import __version__

logger = logging.getLogger("circuitsim")

_TIMEOUT = 10.0  # seconds in which a scheduler must answer
_LOOKS = 3.0  # seconds between looks at whether there are workers


@contextmanager
def connected(
    address: str | None, file: Path | None, told: Callable[[str], None] | None = None
) -> Iterator[tuple[Executor, int]]:
    """Connect to a scheduler while the context lasts.

    Parameters
    ----------
    address : str, optional
        Of the scheduler, e.g. ``tcp://node1:8786``.
    file : Path, optional
        That the scheduler has written, where there is no address.
    told : callable, optional
        Is told when there are no workers, which may come later; the log by default.

    Yields
    ------
    tuple of Executor and int
        What runs jobs, and how many to give it at once.

    Raises
    ------
    ParameterError
        If the library is missing, the scheduler does not answer, or its workers have another
        version of this package.
    """
    option, given = ("scheduler", address) if address is not None else ("scheduler_file", str(file))
    try:
        import distributed
    except ImportError:
        raise ParameterError(
            option, "needs Dask: pip install 'circuitsim[cluster]'", given
        ) from None
    if address is None:
        address = _address_in(Path(str(file)))
    # What there is to say of a lost connection is said in one line, by whoever misses it.
    for name in ("distributed", "distributed.client", "distributed.core", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TypeError, TimeoutError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ParameterError(
            option,
            f"no scheduler answers there within {_TIMEOUT:g} s ({reason}); is it running, and can "
            "this machine reach it?",
            given,
        ) from None
    try:
        _check_versions(client, option, given)
        threads = sum(client.ncores().values())
        # Not pure: the same cells again are to be run again, not taken from the cluster's memory.
        executor = client.get_executor(pure=False)
        ended = threading.Event()
        watch = threading.Thread(
            target=_watch, args=(client, executor, ended, told or logger.warning), daemon=True
        )
        watch.start()
        try:
            yield executor, max(IN_FLIGHT, 2 * threads)
        finally:
            ended.set()
            watch.join()
            # Cancels what still runs. If the scheduler has ended there is none to tell, which
            # Dask reports by exceptions of any kind.
            with suppress(Exception):
                executor.shutdown(wait=False)
    finally:
        client.close(timeout=2)


def _watch(client: Any, executor: Any, ended: threading.Event, told: Callable[[str], None]) -> None:
    """Say when the scheduler has no workers, so that nobody waits without knowing what for."""
    missed = False
    while True:
        try:
            workers = client.ncores()  # their threads
            executor.at_once = sum(workers.values())
        except Exception:  # of any kind, when the connection is lost: others tell of it
            return
        if not workers and not missed:
            told("the scheduler has no workers: nothing is run until one comes (or press Ctrl-C)")
        missed = not workers
        if ended.wait(_LOOKS):
            return


def _address_in(file: Path) -> str:
    try:
        address = json.loads(read_text(file))["address"]
        if not isinstance(address, str):
            raise TypeError("its address is no text")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ParameterError(
            "scheduler_file", f"must be what a Dask scheduler wrote ({reason(error)})", str(file)
        ) from None
    return address


def _version() -> str:
    return __version__


def _check_versions(client: Any, option: str, given: str) -> None:
    """Refuse workers that lack this package, or have another version of it.

    Only those that are there by now, and before anything starts: whatever a worker computes is
    checked again when it arrives.
    """
    for worker, found in client.run(_version, on_error="return").items():
        if isinstance(found, BaseException):
            raise ParameterError(
                option, f"the worker {worker} cannot run circuitsim ({found}); install it", given
            )
        if found != _version():
            raise ParameterError(
                option, f"the worker {worker} has circuitsim {found}, not {_version()}", given
            )
