"""Lesson 13, CLIP: exercises 13.1 to 13.5 with the mistakes that are usually made in them.

The three on matching pictures with sentences, 13.3 to 13.5, stand in `matching`.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from course_lib.lesson.exercises.matching import CLIP_LOSS, RETRIEVAL, ZERO_SHOT
from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.nn.transformer import at_end, patches

# --- 13.1 the vector at the end of each text -------------------------------------------------------------------------


def _texts(generator: torch.Generator, batch: int, tokens: int, shortest: int = 3) -> tuple[Tensor, Tensor]:
    """States, and masks of texts of different lengths, each with padding behind it."""
    lengths = torch.randint(shortest, tokens, (batch,), generator=generator)
    lengths[:2] = torch.tensor([shortest, tokens - 1])  # two that differ in any case
    real = torch.arange(tokens) < lengths[:, None]
    return torch.randn(batch, tokens, 3, generator=generator), real


def _draw_texts(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    batch, tokens = (
        int(torch.randint(3, 7, (), generator=generator)),
        int(torch.randint(6, 12, (), generator=generator)),
    )
    return _texts(generator, batch, tokens)


def _token_by_token(states: Tensor, real: Tensor) -> Tensor:
    found = []
    for vectors, flags in zip(states.tolist(), real.tolist(), strict=True):
        last = [vector for vector, flag in zip(vectors, flags, strict=True) if flag][-1]
        found.append(last)
    return torch.tensor(found)


def _row(states: Tensor, where: Tensor) -> Tensor:
    return states[torch.arange(len(states)), where]


def _texts_that_fill_their_row(answer, generator) -> str | None:
    states, real = _texts(generator, 3, 5)
    real = torch.ones_like(real)
    if torch.allclose(answer(states, real), states[:, -1]):
        return None
    return "is right where padding follows, and wrong for a text that fills its row: its end is then the last token."


AT_END = Exercise(
    id="13.1",
    title="the vector at the end of each text",
    reference=at_end,
    independent=_token_by_token,
    draw=_draw_texts,
    properties=(_texts_that_fill_their_row,),
    mistakes=(
        Mistake(
            "one too far",
            lambda states, real: _row(states, real.sum(dim=1)),
            "reads one place behind the end: that is padding. Counting starts at 0, so a text of n real tokens ends "
            "at n - 1.",
        ),
        Mistake(
            "one too early",
            lambda states, real: _row(states, real.sum(dim=1) - 2),
            "reads the last letter. The end token stands behind it and is a real token too.",
        ),
        Mistake(
            "the last column",
            lambda states, real: states[:, -1],
            "reads the last column, which is padding for most texts. Each text ends at a place of its own.",
        ),
        Mistake(
            "the end of the longest",
            lambda states, real: states[:, real.sum(dim=1).amax() - 1],
            "reads all texts where the longest one ends. Each text ends at a place of its own: one index per row.",
        ),
        Mistake(
            "the first token",
            lambda states, real: states[:, 0],
            "reads the start token. Here the end token is read out (other networks read the first; both work, if "
            "training did the same).",
        ),
        Mistake(
            "the mean, padding included",
            lambda states, real: states.mean(dim=1),
            "averages over all tokens, padding too: then the answer depends on how much padding there is.",
        ),
        Mistake(
            "the mean of the real tokens",
            lambda states, real: (states * real[..., None]).sum(dim=1) / real.sum(dim=1, keepdim=True),
            "averages over the real tokens. That is a way to read a text, but here the vector of the end token is "
            "wanted.",
        ),
    ),
    hints=(
        "Where does a text end? Count its real tokens: real.sum(dim=1). Python counts places from 0.",
        "ends = real.sum(dim=1) - 1 is one place per text. Pick with two indices: which text, and which token.",
        "states[torch.arange(len(states)), ends]",
    ),
)

# --- 13.2 a picture in patches ---------------------------------------------------------------------------------------


def _draw_pictures(generator: torch.Generator) -> tuple[Tensor, int]:
    size, rows, columns, channels = (
        int(torch.randint(*span, (), generator=generator)) for span in ((2, 5), (2, 4), (4, 6), (2, 4))
    )
    return torch.randn(2, channels, rows * size, columns * size, generator=generator), size


def _pixel_by_pixel(images: Tensor, size: int) -> Tensor:
    _, channels, height, width = images.shape
    found = []
    for picture in images.tolist():
        squares = []
        for top in range(0, height, size):
            for left in range(0, width, size):
                squares.append(
                    [
                        picture[c][y][x]
                        for c in range(channels)
                        for y in range(top, top + size)
                        for x in range(left, left + size)
                    ]
                )
        found.append(squares)
    return torch.tensor(found)


def _refuses_a_rest(answer, generator) -> str | None:
    images = torch.randn(1, 3, 8, 10, generator=generator)
    for size in (4, 5):  # the width, then the height, leaves a rest
        try:
            answer(images, size)
        except ValueError:
            continue
        return (
            f"cuts a picture of 8×10 into squares of {size}: something is lost or mixed. Raise a ValueError unless "
            "size divides height and width."
        )
    return None


def _cut(pattern: str):
    return lambda images, size: rearrange(images, f"b c (h s1) (w s2) -> {pattern}", s1=size, s2=size)


PATCHES = Exercise(
    id="13.2",
    title="a picture in patches",
    reference=patches,
    independent=_pixel_by_pixel,
    draw=_draw_pictures,
    properties=(_refuses_a_rest,),
    mistakes=(
        Mistake(
            "reshape alone",
            lambda images, size: images.reshape(len(images), -1, images.shape[1] * size**2),
            "only reshapes. That cuts the picture into pieces of rows, not into squares: split height and width first, "
            "then bring the axes into order (rearrange, or reshape and permute).",
        ),
        Mistake(
            "column by column",
            _cut("b (w h) (c s1 s2)"),
            "lists the patches column by column. Read them like a page: the first row from left to right, then the "
            "next.",
        ),
        Mistake(
            "channels last",
            _cut("b (h w) (s1 s2 c)"),
            "lists each patch pixel by pixel, with its colours together. Here one channel comes after the other, as in "
            "a convolution's weights.",
        ),
        Mistake(
            "patches turned over",
            _cut("b (h w) (c s2 s1)"),
            "reads each patch column by column, so it is mirrored along its diagonal. Read its rows one after the "
            "other.",
        ),
        Mistake(
            "every size-th pixel",
            lambda images, size: rearrange(images, "b c (s1 h) (s2 w) -> b (h w) (c s1 s2)", s1=size, s2=size),
            "puts pixels from all over the picture into one patch: every so-manieth of them. A patch is a square of "
            "neighbours: in the pattern (h s1) the number of squares comes first.",
        ),
    ),
    hints=(
        "Each side splits in two: which square, and which pixel of the square. That makes six axes: batch, channel, "
        "square row, pixel row, square column, pixel column.",
        'einops: rearrange(images, "b c (h s1) (w s2) -> …", s1=size, s2=size). On the right: (h w) for the patches, '
        "then what a patch holds, channel first.",
        '"b c (h s1) (w s2) -> b (h w) (c s1 s2)"; before it, `if images.shape[-2] % size or images.shape[-1] % size: '
        "raise ValueError(…)`.",
    ),
)

EXERCISES = (AT_END, PATCHES, CLIP_LOSS, ZERO_SHOT, RETRIEVAL)
