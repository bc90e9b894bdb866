"""Lesson 18, latent diffusion: exercises 18.1 and 18.3 with the mistakes that are usually made in them.

The other two, on channels and masks, stand in `small_maps`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.lesson.exercises.small_maps import KEPT, LEVELS
from course_lib.lesson.tasks import Exercise, Mistake

# --- 18.1 the scale of the latents -----------------------------------------------------------------------------------


def scale_latents(sample: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """The scale that brings all numbers of `sample` to standard deviation 1, and `latents` brought to that scale."""
    scale = 1 / sample.std()
    return scale, scale * latents


def _draw_latents(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    size = 0.2 + 6 * torch.rand((), generator=generator)
    middle = torch.randn(4, 1, 1, generator=generator)  # channels of our autoencoder have means of their own
    widths = 0.5 + torch.rand(4, 1, 1, generator=generator)
    sample = size * (middle + widths * torch.randn(24, 4, 8, 8, generator=generator))
    return sample, 1.5 * size * torch.randn(3, 4, 8, 8, generator=generator)


def _scale_in_loops(sample: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    numbers = sample.double().flatten().tolist()
    mean = math.fsum(numbers) / len(numbers)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in numbers) / (len(numbers) - 1))
    return torch.tensor(1 / std), torch.tensor([v / std for v in latents.double().flatten().tolist()]).reshape(
        latents.shape
    )


def _leaves_the_map_in_place(answer, generator) -> str | None:
    sample, latents = _draw_latents(generator)
    scale, scaled = answer(sample, latents)
    if torch.allclose(scaled / scale, latents, rtol=1e-3, atol=1e-4):
        return None
    return "cannot be undone by dividing by the scale: decode would start from other latents than encode gave."


def _per_channel(sample, latents):
    scale = 1 / sample.std(dim=(0, 2, 3), keepdim=True)
    return 1 / sample.std(), scale * latents


SCALE = Exercise(
    id="18.1",
    title="the scale of the latents",
    reference=scale_latents,
    independent=_scale_in_loops,
    draw=_draw_latents,
    properties=(_leaves_the_map_in_place,),
    rtol=5e-4,  # dividing by n or by n - 1 under the root are both right
    mistakes=(
        Mistake(
            "divided where to multiply",
            lambda sample, latents: (sample.std(), sample.std() * latents),
            "has it upside down: latents that are too large by the factor s must be multiplied by 1/s.",
        ),
        Mistake(
            "upside down in one place",
            lambda sample, latents: (1 / sample.std(), latents * sample.std()),
            "returns the right scale, then divides by it. Going in, latents are multiplied by the scale; it is on the "
            "way out, before the decoder, that they are divided.",
        ),
        Mistake(
            "variance instead of std",
            lambda sample, latents: (1 / sample.var(), latents / sample.var()),
            "divides by the variance. Numbers divided by their standard deviation have standard deviation 1.",
        ),
        Mistake(
            "one scale per channel",
            _per_channel,
            "scales every channel by itself. Here there is one number for all: the standard deviation of all numbers.",
        ),
        Mistake(
            "mean taken away",
            lambda sample, latents: (1 / sample.std(), (latents - sample.mean()) / sample.std()),
            "takes the mean away, too. Only the size is changed; the decoder would have to be told of the mean.",
        ),
        Mistake(
            "root of the mean square",
            lambda sample, latents: (sample.square().mean().rsqrt(), latents * sample.square().mean().rsqrt()),
            "takes the root of the mean square. The standard deviation is about the mean, which is not 0 here.",
        ),
        Mistake(
            "measured on the wrong latents",
            lambda sample, latents: (1 / latents.std(), latents / latents.std()),
            "measures the latents that it is to scale. The scale is measured once, on `sample`, and kept.",
        ),
    ),
    hints=(
        "One number: 1 over the standard deviation of all numbers in `sample`, whatever picture, channel and place.",
        "`sample.std()` is that standard deviation.",
        "scale = 1 / sample.std(); return scale, scale * latents",
    ),
)

# --- 18.3 a gate -----------------------------------------------------------------------------------------------------


def geglu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """value · GELU(gate): the first half of the numbers that a linear layer makes of x, let through by the second."""
    value, gate = F.linear(x, weight, bias).chunk(2, dim=-1)
    return value * F.gelu(gate)


def _draw_gate(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    n, width, out = (int(torch.randint(*span, (), generator=generator)) for span in ((2, 5), (3, 7), (4, 8)))
    x = torch.randn(2, n, width, generator=generator)
    return x, torch.randn(2 * out, width, generator=generator), torch.randn(2 * out, generator=generator)


def _gate_by_gate(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    out, rows = len(weight) // 2, weight.double().tolist()
    found = []
    for numbers in x.double().flatten(0, -2).tolist():
        both = [
            math.fsum(w * v for w, v in zip(row, numbers, strict=True)) + b
            for row, b in zip(rows, bias.double().tolist(), strict=True)
        ]
        normal = [0.5 * (1 + math.erf(gate / math.sqrt(2))) for gate in both[out:]]  # P(N(0, 1) < gate)
        found.append([v * g * p for v, g, p in zip(both[:out], both[out:], normal, strict=True)])
    return torch.tensor(found, dtype=torch.float64).reshape(*x.shape[:-1], out)


def _halves(x, weight, bias):
    return F.linear(x, weight, bias).chunk(2, dim=-1)


def _interleaved(x, weight, bias):
    both = F.linear(x, weight, bias)
    return both[..., ::2] * F.gelu(both[..., 1::2])


GATE = Exercise(
    id="18.3",
    title="a gate for every number",
    reference=geglu,
    independent=_gate_by_gate,
    draw=_draw_gate,
    mistakes=(
        Mistake(
            "value and gate swapped",
            lambda *a: F.gelu(_halves(*a)[0]) * _halves(*a)[1],
            "swaps the two: the first half is the value, the second half the gate, and GELU acts on the gate.",
        ),
        Mistake(
            "sigmoid as gate",
            lambda *a: _halves(*a)[0] * _halves(*a)[1].sigmoid(),
            "opens the gate with a sigmoid: that is GLU, its older relative. In GEGLU the gate goes through GELU.",
        ),
        Mistake(
            "SiLU as gate",
            lambda *a: _halves(*a)[0] * F.silu(_halves(*a)[1]),
            "uses SiLU: that is SwiGLU. In GEGLU the gate goes through GELU.",
        ),
        Mistake(
            "GELU of both",
            lambda *a: F.gelu(_halves(*a)[0]) * F.gelu(_halves(*a)[1]),
            "applies GELU to the value as well. The value passes as it is.",
        ),
        Mistake(
            "GELU of the product",
            lambda *a: F.gelu(_halves(*a)[0] * _halves(*a)[1]),
            "multiplies first. GELU acts on the gate alone; then the value is multiplied by it.",
        ),
        Mistake(
            "every other number",
            _interleaved,
            "takes every other number for the gate. The first half of the numbers is the value: `.chunk(2, dim=-1)`.",
        ),
        Mistake(
            "GELU by its approximation",
            lambda *a: _halves(*a)[0] * F.gelu(_halves(*a)[1], approximate="tanh"),
            "uses the approximation of GELU by tanh. Stable Diffusion uses the exact one, F.gelu(gate).",
        ),
    ),
    hints=(
        "A linear layer makes twice as many numbers as come out: F.linear(x, weight, bias).",
        "Cut them in two halves along the last dimension, value first: .chunk(2, dim=-1).",
        "value, gate = F.linear(x, weight, bias).chunk(2, dim=-1); return value * F.gelu(gate)",
    ),
)

EXERCISES = (SCALE, LEVELS, GATE, KEPT)
