"""Lesson 17, the unCLIP decoder: exercises 17.1 to 17.4 with the mistakes that are usually made in them.

The last two, on intervals and on paths between embeddings, stand in `asking`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.lesson.exercises.asking import INTERVAL, SLERP
from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.unclip import ImageTokens
from course_lib.nn.cross_attention import attention_weights

# --- 17.1 one embedding as several tokens ----------------------------------------------------------------------------


def image_tokens(image: Tensor, weight: Tensor, bias: Tensor, count: int) -> Tensor:
    """(batch, dim) to (batch, count, width): one projection to count · width numbers, cut into `count` pieces."""
    return (image @ weight.T + bias).unflatten(1, (count, -1))


def _draw_tokens(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, int]:
    n, dim, count, width = (
        int(torch.randint(*span, (), generator=generator)) for span in ((2, 5), (5, 8), (3, 5), (6, 9))
    )
    image = torch.randn(n, dim, generator=generator)
    weight, bias = torch.randn(count * width, dim, generator=generator), torch.randn(count * width, generator=generator)
    return image, weight, bias, count


def _row_by_row(image: Tensor, weight: Tensor, bias: Tensor, count: int) -> Tensor:
    width = len(weight) // count
    found = []
    for z in image.double().tolist():
        numbers = [
            math.fsum(w * x for w, x in zip(row, z, strict=True)) + b
            for row, b in zip(weight.double().tolist(), bias.double().tolist(), strict=True)
        ]
        found.append([numbers[k * width : (k + 1) * width] for k in range(count)])
    return torch.tensor(found, dtype=torch.float64)


def _says_different_things(answer, generator) -> str | None:
    layer = ImageTokens(9, 4, 7)
    with torch.no_grad():
        found = answer(torch.randn(1, 9, generator=generator), layer.weight, layer.bias, 4)[0]
    if torch.linalg.matrix_rank(found.double()) == 4:
        return None
    return "gives tokens that are multiples of each other: four of them must span four directions."


def _count_last(image, weight, bias, count):
    return (image @ weight.T + bias).unflatten(1, (-1, count)).transpose(1, 2)


IMAGE_TOKENS = Exercise(
    id="17.1",
    title="one embedding as several tokens",
    reference=image_tokens,
    independent=_row_by_row,
    draw=_draw_tokens,
    properties=(_says_different_things,),
    mistakes=(
        Mistake(
            "every count-th number",
            _count_last,
            "puts every so-manieth number into one token. The pieces lie one after the other: the first `width` "
            "numbers are the first token. In unflatten(1, (count, -1)) the number of tokens comes first.",
        ),
        Mistake(
            "first token only",
            lambda image, weight, bias, count: (
                (image @ weight.T + bias).unflatten(1, (count, -1))[:, :1].expand(-1, count, -1)
            ),
            "repeats the first token. Each token has rows of the matrix of its own.",
        ),
        Mistake(
            "no bias",
            lambda image, weight, bias, count: image_tokens(image, weight, 0 * bias, count),
            "forgets the bias.",
        ),
        Mistake(
            "length 1 first",
            lambda image, weight, bias, count: image_tokens(
                torch.nn.functional.normalize(image, dim=1), weight, bias, count
            ),
            "brings the embedding to length 1 first. It comes as it should be used.",
        ),
    ),
    hints=(
        "A linear layer is image @ weight.T + bias. That gives count · width numbers per picture.",
        "Cut the numbers of each picture into `count` pieces of equal length: .unflatten(1, (count, -1)), or "
        ".reshape(len(image), count, -1).",
        "(image @ weight.T + bias).unflatten(1, (count, -1))",
    ),
)

# --- 17.2 pixels and tokens in one row -------------------------------------------------------------------------------


def joint_attention(q: Tensor, k: Tensor, v: Tensor, token_k: Tensor, token_v: Tensor, real: Tensor) -> Tensor:
    """Pixels ask pixels and tokens at once; q, k, v: (batch, pixels, dim), the tokens' (batch, tokens, dim)."""
    keys, values = torch.cat([k, token_k], dim=1), torch.cat([v, token_v], dim=1)
    mask = torch.cat([real.new_ones(k.shape[:2]), real], dim=1)[:, None, :]
    return attention_weights(q[:, None], keys[:, None], mask[:, None])[:, 0] @ values


def _draw_joint(generator: torch.Generator) -> tuple[Tensor, ...]:
    n, pixels, tokens, dim = (
        int(torch.randint(*span, (), generator=generator)) for span in ((2, 4), (4, 7), (4, 6), (2, 5))
    )
    q, k, v = torch.randn(3, n, pixels, dim, generator=generator)
    token_k, token_v = torch.randn(2, n, tokens, dim, generator=generator)
    lengths = torch.randint(1, tokens, (n,), generator=generator)
    return q, k, v, token_k, token_v, torch.arange(tokens) < lengths[:, None]


def _pixel_by_pixel(q, k, v, token_k, token_v, real) -> Tensor:
    found = torch.zeros(q.shape, dtype=torch.float64)
    for b in range(len(q)):
        keys = k[b].tolist() + [key for key, flag in zip(token_k[b].tolist(), real[b].tolist(), strict=True) if flag]
        values = v[b].tolist() + [x for x, flag in zip(token_v[b].tolist(), real[b].tolist(), strict=True) if flag]
        for i, question in enumerate(q[b].tolist()):
            scores = [math.fsum(a * c for a, c in zip(question, key, strict=True)) for key in keys]
            shares = [math.exp(score / math.sqrt(len(question))) for score in scores]
            for d in range(q.shape[2]):
                found[b, i, d] = math.fsum(s * x[d] for s, x in zip(shares, values, strict=True)) / math.fsum(shares)
    return found


def _attend(q, k, v, mask=None, scale=None):
    """softmax(q kᵀ · scale) v for (batch, n, dim)."""
    scores = q @ k.transpose(1, 2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    return (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(dim=-1) @ v


def _joined(q, k, v, token_k, token_v, real, *, padding=False, scale=None, turned=False):
    keys, values = torch.cat([k, token_k], dim=1), torch.cat([v, token_v], dim=1)
    flags = ~real if turned else real
    mask = None if padding else torch.cat([real.new_ones(k.shape[:2]), flags], dim=1)[:, None, :]
    return _attend(q, keys, values, mask, scale)


def _silent_padding(answer, generator) -> str | None:
    q, k, v, token_k, token_v, real = _draw_joint(generator)
    loud = torch.where(real[:, :, None], token_k, 50 * torch.randn(token_k.shape, generator=generator))
    if torch.allclose(answer(q, k, v, token_k, token_v, real), answer(q, k, v, loud, token_v, real), atol=1e-5):
        return None
    return "changes when the keys of padding change. Padding must have no weight at all."


JOINT = Exercise(
    id="17.2",
    title="pixels and tokens in one row",
    reference=joint_attention,
    independent=_pixel_by_pixel,
    draw=_draw_joint,
    properties=(_silent_padding,),
    mistakes=(
        Mistake(
            "padding is asked, too",
            lambda *args: _joined(*args, padding=True),
            "looks at padding as if it were words. `real` says which tokens count; all pixels do: put a mask of Trues "
            "for the pixels in front of it.",
        ),
        Mistake(
            "mask turned over",
            lambda *args: _joined(*args, turned=True),
            "hides the words and looks at the padding: True in `real` means a real token.",
        ),
        Mistake(
            "tokens only",
            lambda q, k, v, token_k, token_v, real: _attend(q, token_k, token_v, real[:, None, :]),
            "asks the tokens only: that is lesson 15's cross-attention. Here the pixels' own keys and values come "
            "first in the row.",
        ),
        Mistake(
            "pixels only",
            lambda q, k, v, token_k, token_v, real: _attend(q, k, v),
            "asks the pixels only: append the tokens' keys and values.",
        ),
        Mistake(
            "two answers added",
            lambda q, k, v, token_k, token_v, real: _attend(q, k, v) + _attend(q, token_k, token_v, real[:, None, :]),
            "gives pixels a softmax of their own, and tokens another. Here they share one: all weights of a pixel, "
            "over pixels and tokens together, add up to 1.",
        ),
        Mistake(
            "no root",
            lambda *args: _joined(*args, scale=1.0),
            "forgets to divide by √dim.",
        ),
    ),
    hints=(
        "Append: keys = torch.cat([k, token_k], dim=1), and the same with the values. There is one softmax over the "
        "whole row.",
        "A mask for the row: all pixels count, so torch.cat([real.new_ones(k.shape[:2]), real], dim=1). As "
        "mask[:, None, :] it fits (batch, pixel, key).",
        "scores = q @ keys.transpose(1, 2) / q.shape[-1] ** 0.5; scores.masked_fill(~mask, -torch.inf).softmax(dim=-1) "
        "@ values",
    ),
)

EXERCISES = (IMAGE_TOKENS, JOINT, INTERVAL, SLERP)
