"""Images as networks get them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from circuitsim.vision.layers import Array


def channel_statistics(images: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mean and standard deviation of each channel of (image, row, column, channel)."""
    if images.dtype != np.uint8:
        mean, variance = (f(images, axis=(0, 1, 2), dtype=float) for f in (np.mean, np.var))
        return mean, np.sqrt(np.where(variance > 0, variance, 1.0))
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for first in range(0, len(images), 1000):  # counting takes 8 bytes for each of these
        pixels = images[first : first + 1000].reshape(-1, images.shape[-1])
        counts += [np.bincount(channel, minlength=256) for channel in pixels.T]
    values, number = np.arange(256.0), counts[0].sum()
    mean = counts @ values / number
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / number
    return mean, np.sqrt(np.where(variance > 0, variance, 1.0))


def prepared(
    images: NDArray[np.uint8], mean: NDArray[Any], deviation: NDArray[Any], dtype: Any = np.float32
) -> Array:
    """Return images as (row, column, channel, image), each channel with mean 0 and variance 1."""
    x = np.ascontiguousarray(images.transpose(1, 2, 3, 0)).astype(dtype)
    x -= mean.astype(dtype)[:, None]
    x *= (1 / deviation).astype(dtype)[:, None]
    return x


def augmented(
    images: NDArray[np.uint8],
    rng: np.random.Generator,
    crop_padding: int,
    flips: bool,
) -> NDArray[np.uint8]:
    """Return a random crop of every image, of its own size, and mirror every second one or so.

    Parameters
    ----------
    images : array of uint8
        (image, row, column, channel).
    rng : numpy.random.Generator
        Draws the crops and flips.
    crop_padding : int
        Black rows and columns added on every side before cropping.
    flips : bool
        Whether to mirror left and right, with a probability of 1/2.
    """
    number, rows, columns, channels = images.shape
    if crop_padding:
        pad = crop_padding
        padded = np.zeros((number, rows + 2 * pad, columns + 2 * pad, channels), images.dtype)
        padded[:, pad : pad + rows, pad : pad + columns] = images
        top, left = rng.integers(2 * pad + 1, size=(2, number))
        crops = [
            image[t : t + rows, c : c + columns]
            for image, t, c in zip(padded, top, left, strict=True)
        ]
        images = np.stack(crops)
    if flips:
        mirrored = np.flatnonzero(rng.random(number) < 0.5)
        images = images.copy()
        images[mirrored] = images[mirrored, :, ::-1]
    return images
