"""Where the receptive fields of a layer lie."""

from __future__ import annotations

from dataclasses import dataclass

from circuitsim.checks.validation import ParameterError, integer, regular
from circuitsim.public import own

__dir__ = own(__name__)


@dataclass(frozen=True)
class Geometry:
    """Receptive fields of a convolutional or locally connected layer.

    Parameters
    ----------
    input_shape : tuple of int
        Rows and columns of the layer's input, without padding.
    kernel : int
        Rows, and columns, of a receptive field.
    stride : int
        Rows, and columns, from one receptive field to the next.
    padding : int
        Rows, and columns, of zeros added on every side of the input.

    Raises
    ------
    ParameterError
        If a value is out of range, or no receptive field fits.
    """

    input_shape: tuple[int, int]
    kernel: int
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        rule = "must be (rows, columns)"
        if regular("input_shape", self.input_shape, rule).shape != (2,):
            raise ParameterError("input_shape", rule, self.input_shape)
        rows, columns = (integer("input_shape", n, minimum=1) for n in self.input_shape)
        object.__setattr__(self, "input_shape", (rows, columns))
        kernel = integer("kernel", self.kernel, minimum=1)
        integer("stride", self.stride, minimum=1)
        padding = integer("padding", self.padding, minimum=0)
        if padding >= kernel:
            raise ParameterError(
                "padding",
                f"must be smaller than the kernel ({kernel}), or fields lie wholly outside",
                padding,
            )
        if min(rows, columns) + 2 * padding < kernel:
            raise ParameterError(
                "kernel", f"does not fit into {rows} x {columns} with padding {padding}", kernel
            )

    @property
    def output_shape(self) -> tuple[int, int]:
        """Rows and columns of the layer's output: one position for each receptive field."""
        rows, columns = (
            (size + 2 * self.padding - self.kernel) // self.stride + 1 for size in self.input_shape
        )
        return rows, columns
