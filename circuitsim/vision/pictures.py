"""Image files as arrays of bytes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from circuitsim.files import open_regular
from circuitsim.public import own

__dir__ = own(__name__)

_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # none that runs programs
EXTENSIONS = frozenset(
    ".png .jpg .jpeg .jpe .jfif .bmp .gif .pbm .pgm .ppm .pnm .tif .tiff .webp".split()  # noqa: SIM905
)
_GREY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")
_MODES = (*_GREY, "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_PIXELS = 2**26  # of a file that is made smaller


@dataclass(frozen=True)
class Form:
    """What image files are brought to.

    Parameters
    ----------
    rows, columns : int
        Size of the array.
    channels : {1, 3}
        Grey or colour, to which files of the other kind are converted.
    resize : bool
        Cut out the largest part in the middle that has the form's proportions, and resize it. Else
        files must have as many rows and columns.
    """

    rows: int
    columns: int
    channels: int
    resize: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels."""
        return self.rows, self.columns, self.channels


def decode(file: BinaryIO, form: Form) -> NDArray[np.uint8]:
    """Return an image of the shape (row, column, channel).

    Transparency is left out. Of 16 bits the upper 8 are taken, as Pillow does for colours.

    Raises
    ------
    ValueError
        If it is no image that can be read, or has another size.
    """
    try:
        image = _opened(file)
        rows, columns = form.rows, form.columns
        if not form.resize and _size(image) != (rows, columns):
            height, width = _size(image)
            raise ValueError(f"it has {height} x {width} pixels and must have {rows} x {columns}")
        if image.width * image.height > _PIXELS:
            raise ValueError(f"it has more than {_PIXELS} pixels")
        if form.resize:  # a large JPEG is decoded at a half, a quarter or an eighth of its size
            image.draft(image.mode, (2 * max(form.shape[:2]),) * 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF data, of palettes
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = image.convert("L" if form.channels == 1 else "RGB")
        if image.size != (columns, rows):
            image = _middle(image, rows, columns)
            image = image.resize((columns, rows), Image.Resampling.BILINEAR)
        return np.asarray(image, np.uint8).reshape(form.shape)
    except Exception as error:  # the library's, for a damaged file, are of any kind
        raise ValueError(_reason(error)) from None


def look(file: BinaryIO) -> tuple[int, int, int]:
    """Return rows, columns and channels of an image, 1 if it is grey, without decoding it.

    Raises
    ------
    ValueError
        If it is no image that can be read.
    """
    try:
        image = _opened(file)
        grey = image.mode in _GREY
        if image.mode in ("P", "PA"):
            colours = np.frombuffer(image.palette.getdata()[1], np.uint8)
            colours = colours[: colours.size // 3 * 3].reshape(-1, 3)
            grey = image.palette.mode == "RGB" and bool((colours == colours[:, :1]).all())
        return (*_size(image), 1 if grey else 3)
    except Exception as error:  # as above
        raise ValueError(_reason(error)) from None


def read(path: Path, shape: tuple[int, int, int], resize: bool = False) -> NDArray[np.uint8]:
    """Read an image of the shape (row, column, channel).

    Parameters
    ----------
    path : Path
        File.
    shape : tuple of int
        Rows, columns and channels; see `Form`.
    resize : bool
        As in `Form`.

    Raises
    ------
    ParameterError
        If there is no such file, or it is no image that could be read, or has another size.
    """
    from circuitsim.checks.validation import (
        ParameterError,  # takes long, which a decoder should not
    )

    rows, columns, channels = shape
    if channels not in (1, 3):
        raise ParameterError(
            "image", f"files cannot have the network's {channels} channels", str(path)
        )
    try:
        with open_regular(path) as file:
            if not resize and (size := look(file)[:2]) != (rows, columns):
                raise ValueError(
                    f"it has {size[0]} x {size[1]} pixels, and the network takes {rows} x "
                    f"{columns}; --resize cuts out its middle and resizes it"
                )
            file.seek(0)
            return decode(file, Form(rows, columns, channels, resize))
    except FileNotFoundError:
        raise ParameterError("image", "there is no such file", str(path)) from None
    except (OSError, ValueError) as error:
        raise ParameterError("image", f"cannot be read ({_reason(error)})", str(path)) from None


def _opened(file: BinaryIO) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow's own limit against files that unpack to more than there is memory.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(file, formats=_FORMATS)
    if image.mode == "I" and image.format == "PNG":  # 16 bits, in Pillow before 11.3
        image.load()
        image = Image.fromarray(np.asarray(image).astype(np.uint16))
    if image.mode not in _MODES:
        raise ValueError(f"its mode {image.mode} is none of {', '.join(_MODES)}")
    # Photographs of some cameras hold a preview as a second frame.
    if image.format != "MPO" and getattr(image, "n_frames", 1) != 1:
        raise ValueError("it has several frames")
    return image


def _middle(image: Image.Image, rows: int, columns: int) -> Image.Image:
    """Cut out the largest part in the middle that has the proportions."""
    width = min(image.width, max(1, round(image.height * columns / rows)))
    height = min(image.height, max(1, round(image.width * rows / columns)))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _size(image: Image.Image) -> tuple[int, int]:
    """Rows and columns, once the image is upright."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (image.width, image.height) if turned else (image.height, image.width)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"it is no image that can be read: none of {', '.join(_FORMATS)}"
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
