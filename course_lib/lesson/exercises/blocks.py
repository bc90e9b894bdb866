"""Exercises on the parts of a block: GroupNorm, scale-shift, attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.nn import attention, group_norm, modulate

# --- 8.2 GroupNorm -------------------------------------------------------------------------------------------------


def _draw_features(generator: torch.Generator) -> tuple[Tensor, int, float]:
    groups, each, height, width = (
        int(torch.randint(*span, (), generator=generator)) for span in ((2, 5), (2, 5), (2, 5), (5, 7))
    )
    shape = (3, groups * each, height, width)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    spread, centre = (torch.rand((*shape[:2], 1, 1), generator=generator, dtype=torch.float64) for _ in range(2))
    return (x * (0.3 + 3 * spread) + 4 * centre).float(), groups, (1e-6, 0.1)[each % 2]


def _group_by_group(x: Tensor, groups: int, eps: float) -> Tensor:
    """Loops over pictures and groups; the variance as the mean of squares minus the square of the mean."""
    each, found = x.shape[1] // groups, x.double().clone()
    for picture in found:
        for g in range(groups):
            part = picture[g * each : (g + 1) * each]
            numbers = part.flatten().tolist()
            mean = math.fsum(numbers) / len(numbers)
            variance = math.fsum(v * v for v in numbers) / len(numbers) - mean**2
            part.sub_(mean).div_(math.sqrt(variance + eps))
    return found


def _normed(x, groups, eps, *, batch=False, pixelwise=False, channels_apart=False, bessel=0, late=False, power=0.5):
    """GroupNorm, with one thing bent."""
    b, c, h, w = x.shape
    parts = x.double().reshape(b, c if channels_apart else groups, -1, h, w)
    dims = (0, 2, 3, 4) if batch else (2,) if pixelwise else (2, 3, 4)
    variance, mean = torch.var_mean(parts, dim=dims, keepdim=True, correction=bessel)
    scale = variance**power + eps if late else (variance + eps) ** power
    return ((parts - mean) / scale).reshape(x.shape)


GROUP_NORM = Exercise(
    id="8.2",
    title="GroupNorm",
    reference=group_norm,
    independent=_group_by_group,
    draw=_draw_features,
    rtol=1e-3,
    atol=1e-4,
    mistakes=(
        Mistake(
            "BatchNorm in groups",
            lambda x, groups, eps=1e-6: _normed(x, groups, eps, batch=True),
            "averages over the pictures of the batch. Then what a picture becomes depends on its neighbours: take mean "
            "and variance within each picture.",
        ),
        Mistake(
            "each channel for itself",
            lambda x, groups, eps=1e-6: _normed(x, groups, eps, channels_apart=True),
            "treats every channel on its own (that is InstanceNorm). All channels of a group share one mean and one "
            "variance.",
        ),
        Mistake(
            "all channels together",
            lambda x, groups, eps=1e-6: _normed(x, 1, eps),
            "takes all channels as one group (that is LayerNorm). Reshape to (batch, groups, -1) first.",
        ),
        Mistake(
            "each pixel for itself",
            lambda x, groups, eps=1e-6: _normed(x, groups, eps, pixelwise=True),
            "takes mean and variance at each pixel. They run over the pixels too: one pair per picture and group.",
        ),
        Mistake(
            "channels dealt like cards",
            lambda x, groups, eps=1e-6: (
                _normed(x.unflatten(1, (-1, groups)).transpose(1, 2).flatten(1, 2), groups, eps)
                .unflatten(1, (groups, -1))
                .transpose(1, 2)
                .flatten(1, 2)
            ),
            "deals the channels to the groups in turn. Neighbouring channels belong together: the first "
            "channels / groups of them are the first group, which is what reshape does.",
        ),
        Mistake(
            "divided by the variance",
            lambda x, groups, eps=1e-6: _normed(x, groups, eps, power=1.0),
            "divides by the variance. Divide by its root, or the result has the variance 1 / variance.",
        ),
        Mistake(
            "n - 1 in the variance",
            lambda x, groups, eps=1e-6: _normed(x, groups, eps, bessel=1),
            "divides by n - 1 in the variance, as .var() and .std() do unless told otherwise. Here it is the plain "
            "mean of squares: correction=0.",
        ),
        Mistake(
            "eps outside the root",
            lambda x, groups, eps=1e-6: _normed(x, groups, eps, late=True),
            "adds eps to the standard deviation. It belongs under the root: sqrt(variance + eps).",
        ),
    ),
    hints=(
        "Put everything that shares a mean into one axis: x.reshape(len(x), groups, -1).",
        "Mean and variance along that axis, with keepdim=True so that they can be subtracted; for the variance "
        "((parts - mean) ** 2).mean(dim=2, keepdim=True).",
        "((parts - mean) / torch.sqrt(variance + eps)).reshape(x.shape)",
    ),
)

# --- 8.3 scale-shift -----------------------------------------------------------------------------------------------


def _draw_told(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    batch, channels, side = (int(torch.randint(*span, (), generator=generator)) for span in ((2, 5), (2, 7), (2, 6)))
    flat = torch.rand((), generator=generator) < 0.3
    features = torch.randn((batch, channels, side) + (() if flat else (side + 1,)), generator=generator)
    return features, torch.randn((batch, 2 * channels), generator=generator)


def _channel_by_channel(features: Tensor, told: Tensor) -> Tensor:
    found = features.double().clone()
    channels = features.shape[1]
    for picture, numbers in zip(found, told.tolist(), strict=True):
        for c in range(channels):
            picture[c].add_(numbers[c] * picture[c]).add_(numbers[channels + c])
    return found


def _changed(features, told, *, one=1.0, swap=False, every_other=False, times=False):
    """Scale-shift, with one thing bent."""
    pair = (told[:, 0::2], told[:, 1::2]) if every_other else told.chunk(2, dim=1)
    scale, shift = (p.reshape(*p.shape, *([1] * (features.ndim - 2))) for p in (pair[::-1] if swap else pair))
    return (features + shift) * (one + scale) if times else features * (one + scale) + shift


def _nothing_told(answer, generator) -> str | None:
    features, told = _draw_told(generator)
    if torch.allclose(answer(features, 0 * told).double(), features.double()):
        return None
    return "changes the features although `told` is all zeros: a scale of 0 must mean times 1."


MODULATE = Exercise(
    id="8.3",
    title="scale and shift",
    reference=modulate,
    independent=_channel_by_channel,
    draw=_draw_told,
    properties=(_nothing_told,),
    mistakes=(
        Mistake(
            "without the 1",
            lambda features, told: _changed(features, told, one=0.0),
            "multiplies by scale. A new Linear gives numbers around 0, so nearly all of the signal would be lost: "
            "multiply by 1 + scale.",
        ),
        Mistake(
            "halves swapped",
            lambda features, told: _changed(features, told, swap=True),
            "takes the first half of `told` for the shift. The first half is scale, the second shift.",
        ),
        Mistake(
            "every other number",
            lambda features, told: _changed(features, told, every_other=True),
            "takes scale and shift in turns. `told` holds all scales, then all shifts: told.chunk(2, dim=1).",
        ),
        Mistake(
            "shifted first",
            lambda features, told: _changed(features, told, times=True),
            "adds the shift before it multiplies, so the shift is scaled too: features * (1 + scale) + shift.",
        ),
        Mistake(
            "only added",
            lambda features, told: _changed(features, told * (torch.arange(told.shape[1]) >= features.shape[1])),
            "uses the shift alone. Multiply by 1 + scale as well.",
        ),
    ),
    hints=(
        "scale, shift = told.chunk(2, dim=1) gives two tables (batch, channel).",
        "They must be spread over all pixels: unsqueeze_to(scale, features) appends axes of length 1.",
        "features * (1 + scale) + shift",
    ),
)

# --- 8.4 attention -------------------------------------------------------------------------------------------------


def _draw_tokens(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    n, m, d, v = (int(torch.randint(*span, (), generator=generator)) for span in ((2, 6), (6, 9), (2, 5), (5, 8)))
    batch = (3,) if torch.rand((), generator=generator) < 0.6 else (2, 3)
    shapes = ((*batch, n, d), (*batch, m, d), (*batch, m, v))
    return tuple(1.5 * torch.randn(shape, generator=generator) for shape in shapes)


def _question_by_question(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    def one(question: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        strength = [
            math.exp(sum(a * b for a, b in zip(question.tolist(), key, strict=True)) / math.sqrt(len(question)))
            for key in keys.tolist()
        ]
        return sum(s / sum(strength) * value.double() for s, value in zip(strength, values, strict=True))

    *batch, n, _ = q.shape
    flat = (x.reshape(-1, *x.shape[-2:]) for x in (q, k, v))
    found = [
        torch.stack([one(question, keys, values) for question in qs]) for qs, keys, values in zip(*flat, strict=True)
    ]
    return torch.stack(found).reshape(*batch, n, v.shape[-1])


def _attended(q, k, v, *, power=-0.5, dim=-1, size=None, kernel=torch.softmax):
    """Attention, with one thing bent."""
    scores = q.double() @ k.double().transpose(-2, -1) * (q.shape[-1] if size is None else size) ** power
    return kernel(scores, dim) @ v.double()


ATTENTION = Exercise(
    id="8.4",
    title="attention",
    reference=attention,
    independent=_question_by_question,
    draw=_draw_tokens,
    mistakes=(
        Mistake(
            "scores not divided",
            lambda q, k, v: _attended(q, k, v, power=0.0),
            "does not divide the scores by √dim. With many dimensions they get so large that softmax picks a single "
            "key, and hardly any gradient is left.",
        ),
        Mistake(
            "divided by dim",
            lambda q, k, v: _attended(q, k, v, power=-1.0),
            "divides the scores by dim. A sum of dim products of variance 1 has the variance dim, so divide by its "
            "root.",
        ),
        Mistake(
            "divided by the number of keys",
            lambda q, k, v: _attended(q, k, v, size=k.shape[-2]),
            "divides by the root of the number of keys. It is the length of a query, q.shape[-1], that counts.",
        ),
        Mistake(
            "softmax over the queries",
            lambda q, k, v: _attended(q, k, v, dim=-2),
            "takes the softmax over the queries. Each query shares out one whole among the keys: softmax along the "
            "last axis.",
        ),
        Mistake(
            "no softmax",
            lambda q, k, v: _attended(q, k, v, kernel=lambda s, dim: s),
            "uses the scores as weights. They must be positive and sum to 1 for every query: softmax.",
        ),
        Mistake(
            "divided by the sum, without exp",
            lambda q, k, v: _attended(q, k, v, kernel=lambda s, dim: s / s.sum(dim, keepdim=True)),
            "divides the scores by their sum. They may be negative, and their sum near 0: softmax takes exp first.",
        ),
        Mistake(
            "the keys handed out",
            lambda q, k, v: F.pad(_attended(q, k, k), (0, v.shape[-1] - k.shape[-1])),
            "averages the keys. The keys only decide the weights; what is averaged are the values v.",
        ),
    ),
    hints=(
        "One score for each pair of query and key: q @ k.transpose(-2, -1) is a table (query, key).",
        "Divide by math.sqrt(q.shape[-1]), then .softmax(dim=-1): every row becomes weights that sum to 1.",
        "weights @ v",
    ),
)
