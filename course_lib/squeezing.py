"""The same tensors in fewer bytes, to the last bit: each is compressed by zlib where that saves something.

The high bytes of numbers of one kind look alike, so bytes of the same weight are put side by side first. A tensor that
is compressed becomes one of bytes, whose name says what it was: `conv.weight.deflated.float16.64x32x3x3`.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

SMALLEST = 2048  # bytes; smaller tensors are left as they are
WORTH = 0.97  # of its size is the most that a compressed tensor may take
_NAME = re.compile(r"(.+)\.deflated\.([a-z0-9]+)\.([0-9x]*)")


def _deflated(blob: bytes) -> bytes:
    """The smaller of two: weights only have common and rare bytes, pictures have repetitions."""
    ways = []
    for strategy in (zlib.Z_HUFFMAN_ONLY, zlib.Z_DEFAULT_STRATEGY):
        press = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy)
        ways.append(press.compress(blob) + press.flush())
    return min(ways, key=len)


def squeeze(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors on the CPU with the large ones compressed. Raises ValueError for a name that would be read as such."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _NAME.fullmatch(name):
            raise ValueError(f"tensors[{name!r}]: names of this form stand for compressed tensors; use another name")
        found[name] = tensor
        if tensor.numel() * tensor.element_size() < SMALLEST:
            continue
        by_weight = tensor.contiguous().flatten().view(torch.uint8).reshape(-1, tensor.element_size()).T
        blob = by_weight.contiguous().numpy().tobytes()
        small = _deflated(blob)
        if len(small) <= WORTH * len(blob):
            del found[name]
            kind, shape = str(tensor.dtype).removeprefix("torch."), "x".join(map(str, tensor.shape))
            found[f"{name}.deflated.{kind}.{shape}"] = torch.frombuffer(bytearray(small), dtype=torch.uint8)
    return found


def expand(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `squeeze`. Raises ValueError for a compressed tensor that is damaged."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            found[name] = tensor
            continue
        own, kind, sizes = match.groups()
        dtype = getattr(torch, kind, None)
        shape = [int(size) for size in sizes.split("x")]
        try:
            blob = zlib.decompress(tensor.cpu().numpy().tobytes())
        except zlib.error as error:
            raise ValueError(f"tensor {name!r} cannot be unpacked: {error}") from None
        if not isinstance(dtype, torch.dtype) or len(blob) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"tensor {name!r} does not hold what its name says")
        by_weight = torch.frombuffer(bytearray(blob), dtype=torch.uint8).reshape(dtype.itemsize, -1)
        found[own] = by_weight.T.contiguous().view(dtype).reshape(shape)
    return found
