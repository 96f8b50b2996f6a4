"""Images as networks get them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from circuitsim.vision.layers import Array

_ASPECT = 4 / 3  # of rescaled crops, at most, either way
_TRIES = 10  # of a rescaled crop that does not fit, before the largest in the middle


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
    size: tuple[int, int] | None = None,
    scale: float | None = None,
    part: slice = slice(None),
    number: int | None = None,
) -> NDArray[np.uint8]:
    """Return a random crop of every image, and mirror every second one or so.

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
    size : tuple of int, optional
        Rows and columns of the crops; those of the images by default.
    scale : float, optional
        Resize crops of random size and proportions: of this share of the image's area at least,
        and no longer than 4 : 3 (of bytes in one or three channels).
    part, number
        If these images are a part of so many, which: they get what they would among all.
    """
    own, rows, columns, channels = images.shape
    number = own if number is None else number
    height, width = size or (rows, columns)
    if scale is not None:
        drawn = [_drawn(rng, scale) for _ in range(number)]
        images = np.stack([
            _rescaled(image, of, (height, width))
            for image, of in zip(images, drawn[part], strict=True)
        ])  # fmt: skip
    elif crop_padding or (height, width) != (rows, columns):
        pad = crop_padding
        padded = np.zeros((own, rows + 2 * pad, columns + 2 * pad, channels), images.dtype)
        padded[:, pad : pad + rows, pad : pad + columns] = images
        spare: Any = rows - height + 2 * pad + 1
        if rows - height != columns - width:
            spare = [[spare], [columns - width + 2 * pad + 1]]
        top, left = rng.integers(spare, size=(2, number))[:, part]
        crops = [
            image[t : t + height, c : c + width]
            for image, t, c in zip(padded, top, left, strict=True)
        ]
        images = np.stack(crops)
    if flips:
        mirrored = np.flatnonzero(rng.random(number)[part] < 0.5)
        images = images.copy()
        images[mirrored] = images[mirrored, :, ::-1]
    return images


def middle(images: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Cut the middle of a size, (row, column), out of images (image, row, column, channel)."""
    if images.shape[1:3] == size:
        return images
    top, left = ((whole - part) // 2 for whole, part in zip(images.shape[1:3], size, strict=True))
    return images[:, top : top + size[0], left : left + size[1]]


def _drawn(rng: np.random.Generator, scale: float) -> tuple[NDArray[Any], ...]:
    """Shares of the area, proportions and places to try: as many numbers, whichever fits."""
    shares = rng.uniform(scale, 1, _TRIES)
    aspects = np.exp(rng.uniform(-np.log(_ASPECT), np.log(_ASPECT), _TRIES))
    return shares, aspects, rng.random((_TRIES, 2))


def _rescaled(
    image: NDArray[np.uint8], drawn: tuple[NDArray[Any], ...], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """A crop of random size, proportions and place, resized."""
    rows, columns, channels = image.shape
    height, width = min(rows, columns), min(rows, columns)
    top, left = (rows - height) // 2, (columns - width) // 2
    for share, aspect, (down, across) in zip(*drawn, strict=True):
        w = round(np.sqrt(share * rows * columns * aspect))
        h = round(np.sqrt(share * rows * columns / aspect))
        if 0 < w <= columns and 0 < h <= rows:
            height, width = h, w
            top, left = int(down * (rows - h + 1)), int(across * (columns - w + 1))
            break
    crop = Image.fromarray(np.ascontiguousarray(image[..., 0] if channels == 1 else image))
    box = (left, top, left + width, top + height)
    resized = crop.crop(box).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(resized, np.uint8).reshape(*size, channels)
