"""Random numbers for samplers: from one generator for the whole batch, or from one per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Generators = torch.Generator | Sequence[torch.Generator] | None


def randn(
    shape: Sequence[int],
    generator: Generators = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "..."]:
    """Independent N(0, 1) numbers of `shape` on `device`.

    With a list of generators, one per image, image i depends on generator i alone: splitting a batch or changing its
    neighbours leaves it as it is. Numbers are drawn where the generator lives and then moved, so a CPU generator gives
    a GPU the same images. Raises ValueError unless there are as many generators as images.
    """
    if generator is None or isinstance(generator, torch.Generator):
        source = generator.device if generator is not None else device
        return torch.randn(tuple(shape), generator=generator, device=source, dtype=dtype).to(device)
    if isinstance(generator, str) or not isinstance(generator, Sequence):
        raise TypeError(f"generator must be a torch.Generator or a list of them, got {type(generator).__name__}")
    if len(generator) != shape[0]:
        raise ValueError(f"generator must hold one per image: {shape[0]} images, got {len(generator)} generators")
    return torch.cat([randn((1, *shape[1:]), each, device, dtype) for each in generator])
