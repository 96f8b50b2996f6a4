"""Image files as a network's input."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from circuitsim.files import open_regular
from circuitsim.validation import ParameterError

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # none that runs programs
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_PIXELS = 2**26  # of a file that is made smaller


def read(path: Path, shape: tuple[int, int, int], resize: bool = False) -> NDArray[np.uint8]:
    """Read an image of the shape (row, column, channel).

    Parameters
    ----------
    path : Path
        File.
    shape : tuple of int
        1 or 3 channels, in which a file with others is converted to grey or to colour.
    resize : bool
        Cut out the largest part in the middle that has the shape's proportions, and resize it. Else
        the file must have as many rows and columns.

    Raises
    ------
    ParameterError
        If there is no such file, or it is no image that could be read, or has another size.
    """
    rows, columns, channels = shape
    if channels not in (1, 3):
        raise ParameterError(
            "image", f"files cannot have the network's {channels} channels", str(path)
        )
    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("error")
            image = Image.open(file, formats=_FORMATS)
            if image.mode not in _MODES:
                raise ValueError(f"its mode {image.mode} is none of {', '.join(_MODES)}")
            if getattr(image, "n_frames", 1) != 1:
                raise ValueError("it has several frames")
            if not resize and image.size != (columns, rows):
                raise ValueError(
                    f"it has {image.height} x {image.width} pixels, and the network takes {rows} x "
                    f"{columns}; --resize cuts out its middle and resizes it"
                )
            if image.width * image.height > _PIXELS:
                raise ValueError(f"it has more than {_PIXELS} pixels")
            image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
            if image.size != (columns, rows):
                image = ImageOps.fit(image, (columns, rows), Image.Resampling.BOX)
            return np.asarray(image, np.uint8).reshape(shape)
    except FileNotFoundError:
        raise ParameterError("image", "there is no such file", str(path)) from None
    except Exception as error:  # the library's, for a damaged file, are of any kind
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ParameterError("image", f"cannot be read ({reason[:300]})", str(path)) from None
