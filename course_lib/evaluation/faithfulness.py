"""Is the picture what was asked for? Prompts no model was trained on, and the share drawn right, with its interval.

A tenth of all meanings is reserved: no text-to-image model of the course is trained on a scene whose meaning is
`reserved`, nor on a pair of color and shape in `HELD_OUT`.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.data import shapes
from course_lib.data.shapes_scene import Kind, Scene, random_scenes

RESERVED = 10  # one meaning in so many


def reserved(scene: Scene) -> bool:
    """Whether scenes of this meaning are kept for tests: about a tenth of all meanings, the same on every machine."""
    return zlib.crc32(shapes.caption(scene.canonical).encode()) % RESERVED == 0


def trained_scenes(n: int, seed: int, two: float = 0.7) -> list[Scene]:
    """n scenes for training: none reserved, none with a pair of `HELD_OUT`; a share of `two` has two objects."""
    found: list[Scene] = []
    for kind, count in (("one", n - round(two * n)), ("two", round(two * n))):
        kept: list[Scene] = []
        while len(kept) < count:
            seed += 1
            kept += [s for s in random_scenes(count, seed=seed, kind=kind) if not s.held_out and not reserved(s)]
        found += kept[:count]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    return [found[i] for i in order]


def unseen_prompts(n: int, seed: int, kind: Kind = "any", held_out: bool = False) -> list[Scene]:
    """n scenes to ask for: reserved meanings, or (`held_out`) meanings with a pair of `HELD_OUT`."""
    found: list[Scene] = []
    while len(found) < n:
        drawn = random_scenes(4 * n, seed=seed, kind=kind)
        found += [s for s in drawn if (s.held_out if held_out else reserved(s) and not s.held_out)]
        seed += 1
    return found[:n]


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share of `right` in n that covers the truth in 95% of cases. Wilson 1927.

    Raises ValueError unless 0 ≤ right ≤ n and n ≥ 1.
    """
    if n < 1 or not 0 <= right <= n:
        raise ValueError(f"right={right} of n={n} is no share")
    share = right / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Faithfulness:
    """How many of n pictures are what their prompts ask for, every word of them, and each kind of word alone."""

    n: int
    right: int
    shuffled: int  # right when every picture is held against another picture's prompt: what chance gives
    words: dict[str, float]

    @property
    def share(self) -> float:
        """Share of the pictures with everything right."""
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share lies with 95% certainty, as far as n tells."""
        return wilson(self.right, self.n)

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.share:.1%} of {self.n} all right (95%: {low:.1%} to {high:.1%}), "
            f"against other prompts {self.shuffled / self.n:.1%}"
        )

    def entry(self) -> dict[str, float | int | list[float]]:
        """The result for a card; its floor is the share against shuffled prompts."""
        return {
            "value": round(self.share, 4),
            "floor": round(self.shuffled / self.n, 4),
            "interval": [round(end, 4) for end in self.interval],
            "n": self.n,
        }


def faithfulness(images: Float[Tensor, "n 3 32 32"], prompts: list[Scene]) -> Faithfulness:
    """Let the oracle compare pictures with what was asked for, and with the prompts of their neighbours.

    Raises ValueError where numbers differ or there are fewer than two pictures.
    """
    if len(images) != len(prompts) or len(prompts) < 2:
        raise ValueError(f"images holds {len(images)} pictures, prompts {len(prompts)}; give equal numbers, at least 2")
    reading = shapes.read(images.float().cpu())
    own, other = shapes.score(reading, prompts), shapes.score(reading, [*prompts[1:], prompts[0]])
    return Faithfulness(len(prompts), int(own.correct.sum()), int(other.correct.sum()), own.rates())
