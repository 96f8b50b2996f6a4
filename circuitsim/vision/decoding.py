"""Image files decoded in processes of their own, ahead of whoever needs them.

What comes out depends on the files alone: not on the number of processes, nor on the order in which
they finish. A process is a plain ``python`` that reads which files are wanted from a pipe and
writes their pixels to another, so that it runs no script of the user's a second time, and ends when
its pipe is closed, by whatever end of this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from circuitsim.files import open_regular
from circuitsim.public import own
from circuitsim.vision import pictures
from circuitsim.vision.pictures import Form

__dir__ = own(__name__)

AT_ONCE = 32  # files in one order to a process
_AHEAD = 4  # orders under way for each process

# One answer for each file: its pixels or (from `look`) its shape, else why it cannot be read.
Answer = Any


class Decoder:
    """Processes that decode image files.

    Parameters
    ----------
    workers : int
        How many; with 0, files are decoded in this process.

    Notes
    -----
    Processes start with the first order, and end with `close`, with this object or with this
    process. A file on which a process dies is one that cannot be read; where none can be started,
    this process does the work.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._threads: ThreadPoolExecutor | None = None
        self._owner = os.getpid()

    def __getstate__(self) -> int:
        return self.workers

    def __setstate__(self, workers: int) -> None:
        self.__init__(workers)  # type: ignore[misc]

    def submit(self, paths: Sequence[str], form: Form | None) -> Future[list[Answer]]:
        """Order files, decoded or (``form`` None) only looked at."""
        if self._owner != os.getpid():  # a forked process has neither threads nor pipes of its own
            self.__init__(self.workers)  # type: ignore[misc]
        if not self.workers:
            future: Future[list[Answer]] = Future()
            future.set_result(answers(paths, form))
            return future
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.workers, "decoding")
        return self._threads.submit(self._order, list(paths), form)

    def _order(self, paths: list[str], form: Form | None) -> list[Answer]:
        """Have one process decode files; called in a thread of its own."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        try:
            worker = worker or _Worker()
        except OSError:
            return answers(paths, form)
        found = worker.order(paths, form)
        if found is not None:
            with self._lock:
                self._idle.append(worker)
            return found
        worker.close()
        if len(paths) == 1:
            return ["the process that decoded it died"]
        return [answer for path in paths for answer in self._order([path], form)]

    def all(self, paths: Sequence[str], form: Form | None) -> Iterator[list[Answer]]:
        """Give the answers for files in their order, in groups, and never many ahead."""
        orders = [slice(n, n + AT_ONCE) for n in range(0, len(paths), AT_ONCE)]
        pending: list[Future[list[Answer]]] = []
        try:
            for number in range(len(orders)):
                ahead = orders[number + len(pending) : number + max(1, _AHEAD * self.workers)]
                pending += [self.submit(paths[order], form) for order in ahead]
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """End the processes; a later order starts others."""
        if self._owner != os.getpid():
            return
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


class Ahead:
    """Images that were announced, decoded before they are asked for.

    Parameters
    ----------
    decoder : Decoder
    paths : sequence of str
    form : Form
    """

    def __init__(self, decoder: Decoder, paths: Sequence[str], form: Form) -> None:
        self._decoder, self._paths, self._form = decoder, paths, form
        self._coming: list[tuple[int, ...]] = []
        self._ordered: OrderedDict[tuple[int, ...], list[Future[list[Answer]]]] = OrderedDict()

    def __getstate__(self) -> tuple[Any, ...]:
        return self._decoder, self._paths, self._form

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def announce(self, groups: Iterable[Sequence[int]]) -> None:
        """Say in which groups, and in which order, images will be asked for."""
        for futures in self._ordered.values():
            for future in futures:
                future.cancel()
        self._ordered.clear()
        self._coming = [tuple(map(int, group)) for group in groups][::-1]
        self._fill()

    def take(self, chosen: Sequence[int]) -> list[Answer]:
        """Return the answers for images: those announced, or others at once."""
        key = tuple(map(int, chosen))
        futures = self._ordered.pop(key, None)
        if futures is None:
            futures = self._order(key)
        self._fill()
        return [answer for future in futures for answer in future.result()]

    def _fill(self) -> None:
        """Keep two groups, or what the processes can have under way, in the making."""
        while self._decoder.workers and self._coming:
            under_way = sum(
                not future.done() for group in self._ordered.values() for future in group
            )
            if len(self._ordered) >= 2 and (
                under_way >= 2 * self._decoder.workers or len(self._ordered) >= 8
            ):
                return
            key = self._coming.pop()
            self._ordered[key] = self._order(key)

    def _order(self, key: tuple[int, ...]) -> list[Future[list[Answer]]]:
        """Share a group among the processes."""
        size = min(AT_ONCE, -(-len(key) // max(1, self._decoder.workers)))
        return [
            self._decoder.submit([self._paths[n] for n in key[first : first + size]], self._form)
            for first in range(0, len(key), max(1, size))
        ]


def answers(paths: Iterable[str], form: Form | None) -> list[Answer]:
    """Decode files, or look at them, in this process."""
    return [_answer(path, form) for path in paths]


def _answer(path: str, form: Form | None) -> Answer:
    try:
        with open_regular(Path(path)) as file:
            return pictures.look(file) if form is None else pictures.decode(file, form)
    except FileNotFoundError:
        return "there is no such file, or it is a link to none"
    except OSError as error:
        return error.strerror or type(error).__name__
    except ValueError as error:
        return str(error)


class _Worker:
    """A process that decodes, and its two pipes."""

    def __init__(self) -> None:
        start = (
            "import sys; sys.path[:] = {!r}; from circuitsim.vision.decoding import main; main()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", start.format(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the parent's; this ends as its pipe does
        )

    def order(self, paths: list[str], form: Form | None) -> list[Answer] | None:
        """Send an order and read what comes back; None if the process has died."""
        asked, came = self._process.stdin, self._process.stdout
        assert asked is not None
        assert came is not None
        order = {"paths": paths, "form": None if form is None else astuple(form)}
        try:
            asked.write(json.dumps(order).encode() + b"\n")
            asked.flush()
            told = json.loads(came.readline() or b"null")
            if told is None:
                return None
            if form is None:
                return [tuple(answer) if isinstance(answer, list) else answer for answer in told]
            return [_pixels(came, form) if answer is None else answer for answer in told]
        except (OSError, ValueError):
            return None

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _pixels(file: Any, form: Form) -> NDArray[np.uint8]:
    content = file.read(form.rows * form.columns * form.channels)
    return np.frombuffer(content, np.uint8).reshape(form.shape)


def main() -> None:
    """Decode what standard input asks for, until it ends."""
    asked: BinaryIO = sys.stdin.buffer
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no pixel
    for line in asked:
        order = json.loads(line)
        form = None if order["form"] is None else Form(*order["form"])
        found = answers(order["paths"], form)
        arrays = [answer for answer in found if isinstance(answer, np.ndarray)]
        told = [None if isinstance(answer, np.ndarray) else answer for answer in found]
        with contextlib.suppress(BrokenPipeError):
            out.write(json.dumps(told).encode() + b"\n")
            out.writelines(array.tobytes() for array in arrays)
            out.flush()
            continue
        os._exit(0)  # whoever asked has gone
