"""Exercises on the sizes of things in latent diffusion: channels into the blocks on the way up, masks of latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.latent_unet import LatentUNet, LatentUNetConfig

# --- 18.2 what comes into the blocks on the way up -------------------------------------------------------------------


def decoder_channels(width: int, mults: tuple[int, ...], blocks: int) -> list[int]:
    """Channels into each block on the way up: those from below plus those of the skip, last put aside, first used."""
    put_aside = [width]
    for level, mult in enumerate(mults):
        put_aside += [mult * width] * blocks
        if level < len(mults) - 1:
            put_aside.append(mult * width)  # the halving is a block, too
    below, found = mults[-1] * width, []
    for mult in reversed(mults):
        for _ in range(blocks + 1):
            found.append(below + put_aside.pop())
            below = mult * width
    return found


def _draw_levels(generator: torch.Generator) -> tuple[int, tuple[int, ...], int]:
    levels = int(torch.randint(2, 5, (), generator=generator))
    mults = tuple(torch.randint(1, 5, (levels,), generator=generator).cumsum(0).tolist())
    width, blocks = 8 * int(torch.randint(1, 5, (), generator=generator)), 2
    return width, mults, blocks


def _read_from_the_network(width: int, mults: tuple[int, ...], blocks: int) -> list[int]:
    config = LatentUNetConfig(
        2 ** (len(mults) - 1), 4, 0, width, mults, blocks, (), 1, context_width=None, text_dim=0, groups=1, places=False
    )
    with torch.device("meta"):
        network = LatentUNet(config)
    return [block[0].conv1.in_channels for block in network.decoder]


def _levels(width, mults, blocks, *, below=True, skip=True, queue=False, own_level=False):
    """The walk up with one thing done otherwise."""
    put_aside = [width]
    for level, mult in enumerate(mults):
        put_aside += [mult * width] * (blocks + (level < len(mults) - 1))
    if queue:
        put_aside.reverse()
    comes, found = mults[-1] * width, []
    for mult in reversed(mults):
        for _ in range(blocks + 1):
            beside = put_aside.pop()
            found.append(below * comes + skip * (mult * width if own_level else beside))
            comes = mult * width
    return found


LEVELS = Exercise(
    id="18.2",
    title="what comes into the blocks on the way up",
    reference=decoder_channels,
    independent=_read_from_the_network,
    draw=_draw_levels,
    mistakes=(
        Mistake(
            "first in, first out",
            lambda *a: _levels(*a, queue=True),
            "uses the skips in the order in which they were put aside. What was put aside last has the size of the "
            "middle, and is used first.",
        ),
        Mistake(
            "skip forgotten",
            lambda *a: _levels(*a, skip=False),
            "counts what comes from below only. The skip is put beside it: the channels of both are added.",
        ),
        Mistake(
            "below forgotten",
            lambda *a: _levels(*a, below=False),
            "counts the skip only. It is put beside what comes from below: the channels of both are added.",
        ),
        Mistake(
            "skips of the own level only",
            lambda *a: _levels(*a, own_level=True),
            "gives every skip the width of the level. The last block of a level gets what the halving *above* gave "
            "(or, at the top, the first convolution): write down all that is put aside, from the first convolution on.",
        ),
    ),
    hints=(
        "Write down what is put aside, in order: `width` by the first convolution, then for each level its width "
        "`blocks` times, and once more for the halving (the last level has none).",
        "Then walk up: each level has blocks + 1 blocks. Each takes the last skip that is left. From below come, at "
        "first, the channels of the middle, then those of the block before.",
        "below = mults[-1] * width; for mult in reversed(mults): for _ in range(blocks + 1): "
        "found.append(below + put_aside.pop()); below = mult * width",
    ),
)

# --- 18.4 which latents to keep --------------------------------------------------------------------------------------


def kept_latents(keep: Tensor, factor: int) -> Tensor:
    """1 for each latent under which all factor × factor pixels are kept, else 0. keep: (n, 1, height, width), bools."""
    return (F.max_pool2d((~keep).float(), factor) == 0).float()


def _draw_mask(generator: torch.Generator) -> tuple[Tensor, int]:
    factor = int(torch.randint(2, 6, (), generator=generator))
    high, wide = (int(torch.randint(3, 6, (), generator=generator)) for _ in range(2))
    blocks = torch.rand(2, 1, high, wide, generator=generator) < 0.4
    lost = blocks.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    lost &= torch.rand(lost.shape, generator=generator) < 0.3  # some squares lose a few pixels, some none
    return ~lost, factor


def _square_by_square(keep: Tensor, factor: int) -> Tensor:
    n, _, high, wide = keep.shape
    found = torch.zeros(n, 1, high // factor, wide // factor)
    for b in range(n):
        rows = keep[b, 0].tolist()
        for i in range(high // factor):
            for j in range(wide // factor):
                square = [row[j * factor : (j + 1) * factor] for row in rows[i * factor : (i + 1) * factor]]
                found[b, 0, i, j] = float(all(all(line) for line in square))
    return found


KEPT = Exercise(
    id="18.4",
    title="which latents to keep",
    reference=kept_latents,
    independent=_square_by_square,
    draw=_draw_mask,
    mistakes=(
        Mistake(
            "one kept pixel is enough",
            lambda keep, factor: F.max_pool2d(keep.float(), factor),
            "keeps a latent as soon as one of its pixels is kept. Then it also brings back pixels that should be "
            "invented anew: all of them must be kept.",
        ),
        Mistake(
            "share of the pixels",
            lambda keep, factor: F.avg_pool2d(keep.float(), factor),
            "gives the share of kept pixels. A latent is kept or not: 1 where the share is 1, else 0.",
        ),
        Mistake(
            "more than half",
            lambda keep, factor: (F.avg_pool2d(keep.float(), factor) > 0.5).float(),
            "lets the majority decide. One pixel to be invented is enough to invent the latent anew.",
        ),
        Mistake(
            "one pixel of each square",
            lambda keep, factor: F.interpolate(keep.float(), scale_factor=1 / factor, mode="nearest"),
            "looks at one pixel of each square. All of them must be kept.",
        ),
        Mistake(
            "turned over",
            lambda keep, factor: F.max_pool2d((~keep).float(), factor),
            "is 1 where something must be invented. It should be 1 where everything is kept.",
        ),
    ),
    hints=(
        "A latent stands for a square of factor × factor pixels. `F.max_pool2d(x, factor)` finds the largest number "
        "in each such square.",
        "Is any pixel of the square lost? That is the largest number of `(~keep).float()` in it.",
        "(F.max_pool2d((~keep).float(), factor) == 0).float()",
    ),
)
