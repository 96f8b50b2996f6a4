"""Numbers of noise, compiled: those of `circuitsim.noise`, to rounding."""

from __future__ import annotations

import math

import numpy as np

from circuitsim.files.compiled import compiled
from circuitsim.noise import INCREMENTS, LOW, MULTIPLIERS, ROUNDS


def _exact(function):  # type: ignore[no-untyped-def]
    """Compile; in the order that is written, and into the function that calls it."""
    return compiled(function, nogil=True, fastmath={"contract", "nsz"}, error_model="numpy")


_ONE, _TWO = np.uint64(1), np.uint64(2)
_SHIFT = np.uint64(32)
_LOW = np.uint64(LOW)
_LEFT, _RIGHT = (np.uint64(number) for number in MULTIPLIERS)
_FIRST, _SECOND = (np.uint64(number) for number in INCREMENTS)
_HUGE = 2.0**52  # from here on the last bit of a number is 1
_BITS_OF_HUGE = np.uint64(0x4330000000000000)
_BITS_OF_ONE, _BITS_OF_ROOT = np.uint64(0x3FF0000000000000), np.uint64(0x3FE6A09E667F3BCD)
_MANTISSA, _BIAS = np.uint64(52), np.uint64(1023)
_LOG_2 = math.log(2)
_TURN = 2 * math.pi / 2**32


@_exact
def _number(word):  # type: ignore[no-untyped-def]
    """A whole number below 2**52 as another, in ways that vector registers have."""
    return np.uint64(word | _BITS_OF_HUGE).view(np.float64) - _HUGE


@_exact
def _radius(word):  # type: ignore[no-untyped-def]
    """sqrt(-2 log((word + 0.5)/2**32)); the logarithm as in the library of C."""
    u = _number(word) + 0.5
    bits = np.float64(u).view(np.uint64)
    # As 2**exponent times what is between the roots of 1/2 and 2.
    exponent = (bits + (_BITS_OF_ONE - _BITS_OF_ROOT)) >> _MANTISSA
    f = np.uint64(bits - ((exponent - _BIAS) << _MANTISSA)).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = 0.1531383769920937332 + z * 0.1479819860511658591
    series = 0.1818357216161805012 + z * series
    series = 0.2222219843214978396 + z * series
    series = 0.2857142874366239149 + z * series
    series = 0.3999999999940941908 + z * series
    series = 0.6666666666666735130 + z * series
    log = 2.0 * s + s * z * series + (_number(exponent) - 1055.0) * _LOG_2
    return math.sqrt(-2.0 * log)


@_exact
def _directions(word):  # type: ignore[no-untyped-def]
    """Cosine and sine of word/2**32 turns; of an eighth by the series of the library of C."""
    quarter = (word + np.uint64(0x20000000)) >> np.uint64(30)
    x = (_number(word) - _number(quarter) * 2.0**30) * _TURN
    z = x * x
    s = -2.50507602534068634195e-08 + z * 1.58969099521155010221e-10
    s = 2.75573137070700676789e-06 + z * s
    s = -1.98412698298579493134e-04 + z * s
    s = 8.33333333332248946124e-03 + z * s
    s = x + x * z * (-1.66666666666666324348e-01 + z * s)
    c = 2.08757232129817482790e-09 - z * 1.13596475577881948265e-11
    c = -2.75573143513906633035e-07 + z * c
    c = 2.48015872894767294178e-05 + z * c
    c = -1.38888888888741095749e-03 + z * c
    c = 1.0 - 0.5 * z + z * z * (4.16666666666666019037e-02 + z * c)
    cosine = s if quarter & _ONE else c
    sine = c if quarter & _ONE else s
    cosine = -cosine if (quarter + _ONE) & _TWO else cosine
    sine = -sine if quarter & _TWO else sine
    return cosine, sine


@_exact
def normals(key, presentation, quarter, out):  # type: ignore[no-untyped-def]
    """Fill an array of 4 times `quarter`; see `circuitsim.noise.normals`."""
    for j in range(quarter):
        a, b = j & _LOW, j >> _SHIFT
        c, d = presentation & _LOW, presentation >> _SHIFT
        first, second = key & _LOW, key >> _SHIFT
        for _ in range(ROUNDS):
            left, right = _LEFT * a, _RIGHT * c
            a, b = (right >> _SHIFT) ^ b ^ first, right & _LOW
            c, d = (left >> _SHIFT) ^ d ^ second, left & _LOW
            first, second = (first + _FIRST) & _LOW, (second + _SECOND) & _LOW
        radius = _radius(a)
        cosine, sine = _directions(b)
        out[j], out[j + quarter] = radius * cosine, radius * sine
        radius = _radius(c)
        cosine, sine = _directions(d)
        out[j + _TWO * quarter] = radius * cosine
        out[j + _TWO * quarter + quarter] = radius * sine


@_exact
def around(keys, first, scale, common, out):  # type: ignore[no-untyped-def]
    """Fill (presentation, circuit, neuron, input) with what neurons have in common, and noise."""
    n_presentations, n_circuits, n_neurons, n_inputs = out.shape
    quarter = np.uint64((n_neurons * n_inputs + 3) // 4)
    drawn = np.empty(4 * quarter)
    for presentation in range(n_presentations):
        for circuit in range(n_circuits):
            normals(keys[circuit], np.uint64(first + presentation), quarter, drawn)
            x = common[presentation, circuit if common.shape[1] > 1 else 0]
            for neuron in range(n_neurons):
                of = out[presentation, circuit, neuron]
                for j in range(n_inputs):
                    of[j] = x[j] + scale * drawn[neuron * n_inputs + j]
