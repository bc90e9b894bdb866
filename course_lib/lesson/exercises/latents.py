"""Lesson 12, exercises 12.1 and 12.5: the mean of many draws, and a walk between two latents."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.vae import latent_walk, log_mean_exp


def _n(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))


# --- 12.1 many draws -------------------------------------------------------------------------------------------------


def _draw_logs(generator: torch.Generator) -> tuple[Tensor]:
    shape = (_n(2, 7, generator), _n(1, 5, generator))
    return (3 * torch.randn(shape, generator=generator) - 20,)


def _exact_mean(values: Tensor) -> Tensor:
    """In exact fractions: a number of type float is one, so the mean has no rounding but that of exp and ln."""
    columns = []
    for column in values.double().T.tolist():
        mean = sum(Fraction(math.exp(value)) for value in column) / len(column)
        columns.append(math.log(mean.numerator) - math.log(mean.denominator))
    return torch.tensor(columns, dtype=torch.float64)


def _far_from_zero(answer, generator) -> str | None:
    for value in (-2000.0, 800.0):
        found = answer(torch.full((3, 2), value))
        if not torch.allclose(found.double(), torch.full((2,), value).double(), atol=1e-2):
            return (
                f"gives {found[0].item():.5g} for three values of {value:.0f}, where {value:.0f} is right: exp leaves "
                "the range of numbers. Take the largest value out first, or use torch.logsumexp."
            )
    return None


LOG_MEAN_EXP = Exercise(
    id="12.1",
    title="ln of a mean of probabilities",
    reference=log_mean_exp,
    independent=_exact_mean,
    draw=_draw_logs,
    properties=(_far_from_zero,),
    mistakes=(
        Mistake(
            "mean of the logs",
            lambda values: values.mean(dim=0),
            "is the mean of the values. The ln of a mean is more than the mean of the lns: what you have is the ELBO "
            "again, without any gain from more draws.",
        ),
        Mistake(
            "sum in place of mean",
            lambda values: torch.logsumexp(values, dim=0),
            "adds up the K probabilities without dividing by K: subtract ln K.",
        ),
        Mistake(
            "divided by K outside the ln",
            lambda values: torch.logsumexp(values, dim=0) / len(values),
            "divides the ln by K. The division belongs inside: ln(sum / K) = ln sum - ln K.",
        ),
        Mistake(
            "largest only",
            lambda values: values.amax(dim=0),
            "takes the largest value. It is a lower bound, too, but the other draws count as well.",
        ),
    ),
    hints=(
        "exp of -90 is 1e-39, of -800 it is 0. Take the largest value of each column out before exp, and add it after.",
        "ln mean exp(v) = m + ln mean exp(v - m) for every m; with the largest v as m no exp is larger than 1.",
        "torch.logsumexp(values, dim=0) does that for the sum; then subtract math.log(len(values)).",
    ),
)

# --- 12.5 a walk -----------------------------------------------------------------------------------------------------


def _draw_walk(generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    latent = _n(2, 6, generator)
    return torch.randn(latent, generator=generator), torch.randn(latent, generator=generator), _n(2, 8, generator)


def _walk_by_fractions(start: Tensor, end: Tensor, steps: int) -> Tensor:
    rows = []
    for k in range(steps):
        share = Fraction(k, steps - 1)
        rows.append(
            [
                float(Fraction(a) + share * (Fraction(b) - Fraction(a)))
                for a, b in zip(start.tolist(), end.tolist(), strict=True)
            ]
        )
    return torch.tensor(rows, dtype=torch.float64)


def _walk(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    return start + shares[:, None] * (end - start)


LATENT_WALK = Exercise(
    id="12.5",
    title="a walk between two latents",
    reference=latent_walk,
    independent=_walk_by_fractions,
    draw=_draw_walk,
    mistakes=(
        Mistake(
            "never arrives",
            lambda a, b, steps: _walk(a, b, torch.arange(steps) / steps),
            "stops one step before `end`. With both ends there are steps - 1 gaps: divide by steps - 1.",
        ),
        Mistake(
            "starts too late",
            lambda a, b, steps: _walk(a, b, torch.arange(1, steps + 1) / steps),
            "leaves out `start`: the first share is 0.",
        ),
        Mistake(
            "backwards",
            lambda a, b, steps: _walk(b, a, torch.linspace(0, 1, steps)),
            "walks from `end` to `start`.",
        ),
        Mistake(
            "shares that don't add up to 1",
            lambda a, b, steps: a + torch.linspace(0, 1, steps)[:, None] * b,
            "keeps all of `start` while it adds `end`. The two shares must sum to 1.",
        ),
    ),
    hints=(
        "Each point is a mixture: (1 - share) of start, share of end, with a share that goes from 0 to 1.",
        "torch.linspace(0, 1, steps) gives the shares, both ends included.",
        "share = torch.linspace(0, 1, steps)[:, None]; return (1 - share) * start + share * end",
    ),
)
