"""Lesson 08, the DDPM U-Net: exercises 8.1 to 8.5 with the mistakes that are usually made in them.

GroupNorm, scale-shift and attention, 8.2 to 8.4, stand in `blocks`.
"""

from __future__ import annotations

import cmath
import math

import torch
from torch import Tensor

from course_lib.lesson.exercises.blocks import ATTENTION, GROUP_NORM, MODULATE
from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.ddpm_unet import up_channels
from course_lib.nn import timestep_embedding

# --- 8.1 the embedding of t ----------------------------------------------------------------------------------------


def _draw_times(generator: torch.Generator) -> tuple[Tensor, int, str, float]:
    n, half, odd, other = (int(torch.randint(*span, (), generator=generator)) for span in ((2, 6), (3, 9), (2,), (2,)))
    t = torch.randint(3, 400, (n,), generator=generator)
    return t, 2 * half + odd, ("cos_sin", "sin_cos")[other], (10_000.0, 1000.0)[n % 2]


def _turning(t: Tensor, dim: int, convention: str, max_period: float) -> Tensor:
    """Each frequency is a number on the unit circle of the complex plane that turns by itself with every step."""
    half = dim // 2
    last = half - 1 if convention == "sin_cos" else half
    rows = []
    for step in t.tolist():
        circle = [cmath.exp(1j * step / math.pow(max_period, i / last)) for i in range(half)]
        parts = [z.real for z in circle], [z.imag for z in circle]
        first, second = parts if convention == "cos_sin" else parts[::-1]
        rows.append([*first, *second, *([0.0] * (dim % 2))])
    return torch.tensor(rows, dtype=torch.float64)


def _bent(t, dim, convention, max_period, *, swap=False, less=None, scale=1.0, mix=False, sign=-1, pad=True, up=1.0):
    """The formula, with one thing bent."""
    half = dim // 2
    less = {"cos_sin": 0, "sin_cos": 1}[convention] if less is None else less
    exponents = torch.arange(half, dtype=torch.float64) / (half - less)
    angles = scale * t.double()[:, None] * max_period ** (sign * up * exponents)
    parts = [angles.cos(), angles.sin()]
    if (convention == "sin_cos") != swap:
        parts = parts[::-1]
    found = torch.stack(parts, dim=2).flatten(1) if mix else torch.cat(parts, dim=1)
    if dim % 2:
        extra = found.new_zeros(len(t), 1) if pad else found[:, :1]
        found = torch.cat([found, extra], dim=1)
    return found


def _takes_fractions(answer, generator) -> str | None:
    t = torch.tensor([0.5, 7.25])
    right = _turning(t, 8, "cos_sin", 10_000.0)
    given = answer(t, 8, "cos_sin", 10_000.0)
    if torch.allclose(given.double(), right, atol=1e-4):
        return None
    return "is right for whole t, but not for t = 0.5: use t as it is, whole or not (t.float(), no look-up, no round)."


def _has_defaults(answer, generator) -> str | None:
    try:
        same = torch.allclose(answer(torch.tensor([3]), 8), answer(torch.tensor([3]), 8, "cos_sin", 10_000.0))
    except TypeError:
        same = False
    return None if same else 'needs the defaults convention="cos_sin" and max_period=10_000.0; keep the first line.'


TIMESTEP_EMBEDDING = Exercise(
    id="8.1",
    title="sines and cosines of t",
    reference=timestep_embedding,
    independent=_turning,
    draw=_draw_times,
    properties=(_takes_fractions, _has_defaults),
    rtol=1e-3,
    atol=1e-3,
    mistakes=(
        Mistake(
            "conventions swapped",
            lambda t, dim, convention, max_period: _bent(t, dim, convention, max_period, swap=True),
            'puts sines and cosines in the wrong order. "cos_sin" has all cosines first, "sin_cos" all sines; weights '
            "that were trained with one fit no other.",
        ),
        Mistake(
            "convention ignored",
            lambda t, dim, convention, max_period: _bent(t, dim, "cos_sin", max_period),
            'gives "cos_sin" whatever is asked for. For "sin_cos" the sines come first, and the exponent is '
            "-i / (half - 1).",
        ),
        Mistake(
            "half - 1 in neither",
            lambda t, dim, convention, max_period: _bent(t, dim, convention, max_period, less=0),
            'divides by half in both conventions. "sin_cos" divides by half - 1, so that its last frequency is exactly '
            "1 / max_period.",
        ),
        Mistake(
            "half - 1 in both",
            lambda t, dim, convention, max_period: _bent(t, dim, convention, max_period, less=1),
            'divides by half - 1 in both conventions; "cos_sin" divides by half.',
        ),
        Mistake(
            "interleaved",
            lambda t, dim, convention, max_period: _bent(t, dim, convention, max_period, mix=True),
            "mixes cosines and sines column by column, as tables for transformers do. Here they stand in two halves: "
            "torch.cat, not stack and flatten.",
        ),
        Mistake(
            "frequencies that grow",
            lambda t, dim, convention, max_period: _bent(t, dim, convention, max_period, sign=1),
            "multiplies t by max_period to a positive power. The frequencies fall, from 1 to about 1 / max_period: "
            "the exponent is negative.",
        ),
        Mistake(
            "exponent doubled",
            lambda t, dim, convention, max_period: _bent(t, dim, convention, max_period, up=2.0),
            "doubles the exponent, so the slowest wave turns max_period times slower than wanted and half of the "
            "columns hardly change. i runs over half the columns already.",
        ),
        Mistake(
            "waves with 2π",
            lambda t, dim, convention, max_period: _bent(t, dim, convention, max_period, scale=2 * math.pi),
            "multiplies the angle by 2π. The angle is t times the frequency, in radians; nothing more.",
        ),
        Mistake(
            "t divided by 1000",
            lambda t, dim, convention, max_period: _bent(t, dim, convention, max_period, scale=1e-3),
            "divides t by T. Then even the fastest wave turns by one radian in all, and neighbours look alike: use t "
            "as it comes.",
        ),
    ),
    hints=(
        "The angles are a table (batch, half): t as a column, frequencies as a row. t[:, None] makes the column.",
        "frequencies = max_period ** -(torch.arange(half) / half); with half - 1 below the line for 'sin_cos'.",
        "torch.cat([angles.cos(), angles.sin()], dim=1), the other way round for 'sin_cos', and a column of zeros "
        "where dim is odd: angles.new_zeros(len(t), dim % 2) has none or one.",
    ),
)

# --- 8.5 what goes into the blocks on the way up -------------------------------------------------------------------


def _draw_network(generator: torch.Generator) -> tuple[int, tuple[int, ...], int]:
    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    mults = [number(1, 3)]
    while len(mults) < 3 + number(0, 3):
        mults.append(mults[-1] + number(1, 3))  # rising, or some mistakes would not show
    return 8 * number(1, 17), tuple(mults), number(1, 4)


def _walked(width: int, mults: tuple[int, ...], blocks: int) -> list[int]:
    """From the end: level by level, what each block's partner on the way down gives, without a stack."""
    found = []
    for level in reversed(range(len(mults))):
        own, finer = mults[level] * width, mults[max(level - 1, 0)] * width
        below = mults[min(level + 1, len(mults) - 1)] * width
        last_partner = finer if level else width  # the halved picture of the finer level, or the first convolution
        partners = [own] * blocks + [last_partner]
        found += [before + partner for before, partner in zip([below] + [own] * blocks, partners, strict=True)]
    return found


def _stacked(
    width: int, mults: tuple[int, ...], blocks: int, *, first=True, down=True, pop=-1, keep=False, add=True
) -> list[int]:
    """Push and pop, with one thing bent."""
    stack = [width] if first else []
    for level, mult in enumerate(mults):
        stack += [mult * width] * blocks
        if down and level < len(mults) - 1:
            stack.append(mult * width)
    found, below = [], mults[-1] * width
    for mult in reversed(mults):
        for _ in range(blocks + 1):
            skip = stack.pop(pop) if stack else 0
            found.append(below * add + skip)
            below = found[-1] if keep else mult * width
    return found


UP_CHANNELS = Exercise(
    id="8.5",
    title="channels on the way up",
    reference=up_channels,
    independent=_walked,
    draw=_draw_network,
    mistakes=(
        Mistake(
            "first in, first out",
            lambda width, mults, blocks: _stacked(width, mults, blocks, pop=0),
            "takes the oldest skip first. The last one pushed is needed first, at the bottom: pop from the end.",
        ),
        Mistake(
            "halved pictures forgotten",
            lambda width, mults, blocks: _stacked(width, mults, blocks, down=False),
            "puts aside the blocks' results only. Every halved picture is put aside too; that is why the way up has "
            "blocks + 1 per level.",
        ),
        Mistake(
            "first convolution forgotten",
            lambda width, mults, blocks: _stacked(width, mults, blocks, first=False),
            "forgets that the result of the first convolution, with `width` channels, is put aside before all others.",
        ),
        Mistake(
            "channels pile up",
            lambda width, mults, blocks: _stacked(width, mults, blocks, keep=True),
            "lets what comes from below grow from block to block. A block takes below + skip channels, and gives its "
            "level's own number: mult * width.",
        ),
        Mistake(
            "skips alone",
            lambda width, mults, blocks: _stacked(width, mults, blocks, add=False),
            "lists the skips' channels. A block gets them beside what comes from below: add both.",
        ),
        Mistake(
            "deepest level first on the way down",
            lambda width, mults, blocks: _stacked(width, tuple(reversed(mults)), blocks),
            "goes through the levels the wrong way round: down in the order of `mults`, up in reverse.",
        ),
    ),
    hints=(
        "Play the way down first: a list that starts with width, gets mult * width after each block, and once more "
        "where the picture is halved (every level but the last).",
        "Then the way up: levels in reverse, blocks + 1 times each. pop() gives the skip; what comes from below is "
        "mults[-1] * width at first, and then what the block before gave.",
        "below = mults[-1] * width; in the loop: found.append(below + stack.pop()), then below = mult * width.",
    ),
)

EXERCISES = (TIMESTEP_EMBEDDING, GROUP_NORM, MODULATE, ATTENTION, UP_CHANNELS)
