"""One way to ask for randomness: either a `torch.Generator` or a whole-number seed, never the global state."""

from __future__ import annotations

import torch

from course_lib.runtime import generator as fresh_generator


def as_generator(generator: torch.Generator | None, seed: int | None) -> torch.Generator:
    """The generator given, or a fresh CPU one from `seed`. Raises unless exactly one of the two is given."""
    if (generator is None) == (seed is None):
        given = "neither" if generator is None else "both"
        raise ValueError(f"give either generator=torch.Generator or seed=int, not {given}")
    if generator is not None:
        if not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator, not {type(generator).__name__}; for a number use seed="
            )
        return generator
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be a whole number, not {type(seed).__name__}")
    return fresh_generator(seed)


def uniform(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Float32 numbers in [0, 1) on the CPU, drawn on whatever device the generator lives on."""
    return torch.rand(shape, generator=generator, device=generator.device).cpu()


def integers(generator: torch.Generator, below: int, *shape: int) -> torch.Tensor:
    """Whole numbers 0 … below − 1 (int64) on the CPU."""
    return torch.randint(below, shape, generator=generator, device=generator.device).cpu()
