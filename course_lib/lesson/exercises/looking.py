"""Exercises on who looks where: the weights of attention with a mask, and how far a word's map keeps to its object."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.evaluation.word_maps import lift
from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.nn.cross_attention import attention_weights

# --- 15.4 the weights of attention -----------------------------------------------------------------------------------


def _draw_queries(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
    """Queries of pixels, keys of tokens, and (mostly) which tokens are real, at least one in each sentence."""
    batch, heads, pixels, tokens, dim = (
        int(torch.randint(*span, (), generator=generator)) for span in ((2, 4), (1, 3), (3, 6), (4, 8), (2, 6))
    )
    q = 2 * torch.randn(batch, heads, pixels, dim, generator=generator)
    k = 2 * torch.randn(batch, heads, tokens, dim, generator=generator)
    if torch.rand((), generator=generator) < 0.2:
        return q, k, None
    lengths = torch.randint(1, tokens, (batch,), generator=generator)
    return q, k, (torch.arange(tokens) < lengths[:, None])[:, None, None, :]


def _pixel_by_pixel(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    found = torch.zeros(*q.shape[:3], k.shape[2])
    for b in range(q.shape[0]):
        flags = [True] * k.shape[2] if mask is None else mask[b, 0, 0].tolist()
        for head in range(q.shape[1]):
            for i in range(q.shape[2]):
                dots = [
                    math.fsum(x * y for x, y in zip(q[b, head, i].tolist(), key, strict=True))
                    for key in k[b, head].tolist()
                ]
                loud = [
                    math.exp(dot / math.sqrt(q.shape[3])) if flag else 0.0
                    for dot, flag in zip(dots, flags, strict=True)
                ]
                found[b, head, i] = torch.tensor([value / math.fsum(loud) for value in loud])
    return found


def _weights(scale=lambda dim: dim**-0.5, hide=lambda s, mask: s.masked_fill(~mask, -torch.inf), dim=-1, after=None):
    """Weights with one thing done otherwise."""

    def answer(q, k, mask=None):
        scores = q @ k.transpose(-2, -1) * scale(q.shape[-1])
        if mask is not None and after is None:
            scores = hide(scores, mask)
        weights = scores.softmax(dim=dim)
        return weights if after is None or mask is None else after(weights, mask)

    return answer


ATTENTION_WEIGHTS = Exercise(
    id="15.4",
    title="the weights of cross-attention",
    reference=attention_weights,
    independent=_pixel_by_pixel,
    draw=_draw_queries,
    mistakes=(
        Mistake(
            "over the pixels",
            _weights(dim=-2),
            "takes the softmax over the pixels. Each pixel shares itself out over the *tokens*: the last axis.",
        ),
        Mistake(
            "not scaled",
            _weights(scale=lambda dim: 1.0),
            "forgets to divide by √d: with wide heads the softmax would be nearly all or nothing.",
        ),
        Mistake(
            "divided by d",
            _weights(scale=lambda dim: 1 / dim),
            "divides by d. A sum of d products spreads like √d: divide by the root.",
        ),
        Mistake(
            "the mask the other way",
            _weights(hide=lambda s, mask: s.masked_fill(mask, -torch.inf)),
            "hides the real tokens and shows the padding. True means: may be looked at.",
        ),
        Mistake(
            "the mask as numbers",
            _weights(hide=lambda s, mask: s + mask),
            "adds the mask as ones and zeros, which hides nothing. Hidden scores must become -∞.",
        ),
        Mistake(
            "scores times the mask",
            _weights(hide=lambda s, mask: s * mask),
            "makes hidden scores 0, and e⁰ is 1: padding is still looked at. Hidden scores must become -∞.",
        ),
        Mistake(
            "hidden after the softmax",
            _weights(after=lambda weights, mask: weights * mask),
            "hides padding after the softmax, so what is left no longer sums to 1. Hide it before.",
        ),
        Mistake(
            "no mask",
            _weights(hide=lambda s, mask: s),
            "ignores the mask: padding is looked at like words.",
        ),
    ),
    hints=(
        "Scores first: q @ k.transpose(-2, -1) is a table (pixels, tokens) for each head. Divide by √d.",
        "scores.masked_fill(~mask, -torch.inf) hides padding, since e to the minus infinity is 0. Only where a mask is "
        "given.",
        "Then .softmax(dim=-1): over the tokens.",
    ),
)

# --- 15.5 how far a map keeps to a mask ------------------------------------------------------------------------------


def _draw_maps(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n, side = (int(torch.randint(*span, (), generator=generator)) for span in ((2, 5), (3, 7)))
    maps = torch.rand(n, side, side, generator=generator) ** 2
    mask = (torch.rand(n, side, side, generator=generator) - 0.5).clamp(min=0) * 2  # about half of it is 0
    mask[:, 0, 0] = 0.5  # at least something
    return maps, mask


def _square_by_square(maps: Tensor, mask: Tensor) -> Tensor:
    found = []
    for values, shares in zip(maps.flatten(1).double().tolist(), mask.flatten(1).double().tolist(), strict=True):
        inside = math.fsum(v * s for v, s in zip(values, shares, strict=True)) / math.fsum(shares)
        found.append(inside / (math.fsum(values) / len(values)))
    return torch.tensor(found)


def _total(x: Tensor) -> Tensor:
    return x.sum(dim=(1, 2))


def _a_flat_map_says_nothing(answer, generator) -> str | None:
    _, mask = _draw_maps(generator)
    if torch.allclose(answer(torch.full_like(mask, 0.01), mask).double(), torch.ones(len(mask)).double(), atol=1e-4):
        return None
    return "is not 1 for a map that is the same everywhere. Such a map says nothing about the object."


LIFT = Exercise(
    id="15.5",
    title="the lift of a word's map",
    reference=lift,
    independent=_square_by_square,
    draw=_draw_maps,
    properties=(_a_flat_map_says_nothing,),
    mistakes=(
        Mistake(
            "the share alone",
            lambda maps, mask: _total(maps * mask) / _total(maps),
            "is the share of the attention inside the mask. A large object has a large share anyway: divide by the "
            "mask's share of the area.",
        ),
        Mistake(
            "the mean inside",
            lambda maps, mask: _total(maps * mask) / _total(mask),
            "is the mean attention inside the mask. Compare it with the mean of the whole map: a word that is loud "
            "everywhere would seem to know where things are.",
        ),
        Mistake(
            "inside over outside",
            lambda maps, mask: (_total(maps * mask) / _total(mask)) / (_total(maps * (1 - mask)) / _total(1 - mask)),
            "compares inside with *outside*. Here the comparison is with the whole map: 1 is still 'knows nothing', "
            "but other values differ.",
        ),
        Mistake(
            "upside down",
            lambda maps, mask: mask.mean(dim=(1, 2)) / (_total(maps * mask) / _total(maps)),
            "is upside down: a map that keeps to its object should get more than 1.",
        ),
        Mistake(
            "the total forgotten",
            lambda maps, mask: _total(maps * mask) / mask.mean(dim=(1, 2)),
            "forgets the map's own total: what counts is which *share* of it lies inside.",
        ),
    ),
    hints=(
        "Two shares per map: how much of the attention lies inside, and how much of the area does. Both sums run over "
        "the last two axes.",
        "(maps * mask).sum(dim=(1, 2)) / maps.sum(dim=(1, 2)) is the first share; the second is mask.mean(dim=(1, 2)).",
        "Divide the first by the second. One number per map: shape (n,).",
    ),
)
