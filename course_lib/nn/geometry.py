"""How large a map comes out of a convolution, and how much of the picture each of its pixels has seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Layer(NamedTuple):
    """A convolution or pooling along one axis."""

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1


def conv_output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """⌊(size + 2 padding - dilation (kernel - 1) - 1) / stride⌋ + 1: how often the kernel fits. Pooling is the same.

    Raises ValueError where it does not fit even once.
    """
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if room < 0:
        raise ValueError(
            f"kernel={kernel} (dilation={dilation}) does not fit into size={size} with padding={padding}; "
            f"use a padding of at least {-(room // 2)} or a smaller kernel"
        )
    return room // stride + 1


def transposed_output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, output_padding: int = 0) -> int:
    """(size - 1) stride + kernel - 2 padding + output_padding: a size that the convolution above shrinks to `size`.

    Several sizes shrink to the same one where stride > 1; `output_padding` chooses among them.
    """
    return (size - 1) * stride + kernel - 2 * padding + output_padding


def receptive_field(layers: Sequence[Layer]) -> int:
    """Side of the square of input pixels that one output pixel depends on, after these layers in this order."""
    field, jump = 1, 1  # jump: distance, in input pixels, between neighbouring pixels of the current map
    for layer in layers:
        field += (layer.kernel - 1) * layer.dilation * jump
        jump *= layer.stride
    return field


def conv_multiplications(
    channels: int, out_channels: int, kernel: int, out_height: int, out_width: int, groups: int = 1
) -> int:
    """Multiplications (each with an addition) that a convolution makes for one picture."""
    return channels // groups * out_channels * kernel**2 * out_height * out_width
