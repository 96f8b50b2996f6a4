"""Noise of rates and of inputs: normal numbers that are a function of what they are for.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") makes four words
of 32 bits of a counter and a key, and the transform of Box and Muller two normal numbers of two
words. The key is a circuit's, the counter the number of a presentation since the initial weights
and a place in it. So there is no state: noise depends neither on the company of a circuit, nor on
blocks, threads or engines, and vector registers can draw it: `circuitsim._noise_numba` does so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
INCREMENTS = 0x9E3779B9, 0xBB67AE85  # of the key from one round to the next
LOW = 0xFFFFFFFF


def keys(seeds: Sequence[np.random.SeedSequence]) -> NDArray[np.uint64]:
    """Return the key of each circuit."""
    drawn = [seed.generate_state(1, np.uint64) for seed in seeds]
    return np.concatenate(drawn) if drawn else np.empty(0, dtype=np.uint64)


def normals(key: int, presentation: int, *shape: int) -> NDArray[np.float64]:
    """Standard normal numbers of one presentation, such as (step, neuron) or (neuron, input).

    Parameters
    ----------
    key : int
        Of the circuit, below 2**64.
    presentation : int
        Number since the initial weights.
    *shape : int
        Of what is returned.
    """
    numbers = math.prod(shape)
    quarter = -(-numbers // 4)  # each counter gives the numbers at j, j + quarter, ...
    place = np.arange(quarter, dtype=np.uint64)
    words = philox((place & LOW, place >> 32, presentation & LOW, presentation >> 32), key)
    drawn = np.empty((4, quarter))
    for pair, (size, angle) in zip((drawn[:2], drawn[2:]), (words[:2], words[2:]), strict=True):
        radius = np.sqrt(-2 * np.log((size + 0.5) / 2**32))
        turn = 2 * np.pi * (angle / 2**32)
        pair[:] = radius * np.cos(turn), radius * np.sin(turn)
    return drawn.ravel()[:numbers].reshape(shape)


def philox(counter: Sequence[NDArray[Any] | int], key: int) -> NDArray[np.uint64]:
    """Return four words of 32 bits for each counter of four words, shape (4, ...)."""
    a, b, c, d = np.broadcast_arrays(*(np.asarray(word, dtype=np.uint64) for word in counter))
    first, second = int(key) & LOW, int(key) >> 32
    for _ in range(ROUNDS):
        left, right = np.uint64(MULTIPLIERS[0]) * a, np.uint64(MULTIPLIERS[1]) * c
        a, b = (right >> np.uint64(32)) ^ b ^ np.uint64(first), right & np.uint64(LOW)
        c, d = (left >> np.uint64(32)) ^ d ^ np.uint64(second), left & np.uint64(LOW)
        first, second = (first + INCREMENTS[0]) & LOW, (second + INCREMENTS[1]) & LOW
    return np.stack([a, b, c, d])
