"""Lesson 15, guidance and cross-attention: exercises 15.1 to 15.5 with the mistakes that are usually made in them.

The two on who looks where, 15.4 and 15.5, stand in `looking`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.diffusion.guidance import guide
from course_lib.lesson.exercises.looking import ATTENTION_WEIGHTS, LIFT
from course_lib.lesson.tasks import Exercise, Mistake

# --- 15.1 the guided prediction --------------------------------------------------------------------------------------


def _draw_predictions(generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Two predictions of any number of axes, and a scale that may be 0 or 1."""
    axes = int(torch.randint(2, 5, (), generator=generator))
    shape = [int(torch.randint(1, 5, (), generator=generator)) for _ in range(axes)]
    cond, null = torch.randn(2, *shape, generator=generator)
    which = int(torch.randint(0, 6, (), generator=generator))
    scale = (0.0, 1.0)[which] if which < 2 else 10 * torch.rand((), generator=generator).item()
    return cond, null, scale


def _value_by_value(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    pairs = zip(conditional.double().flatten().tolist(), unconditional.double().flatten().tolist(), strict=True)
    return torch.tensor([math.fsum((scale * c, (1 - scale) * u)) for c, u in pairs]).reshape(conditional.shape)


def _the_ends_bit_for_bit(answer, generator) -> str | None:
    cond, null = torch.randn(50, 2, generator=generator), 1e4 * torch.randn(50, 2, generator=generator)
    for scale, wanted, name in ((1, cond, "conditional"), (0, null, "unconditional")):
        if not torch.equal(answer(cond, null, scale), wanted):
            return (
                f"is only nearly the {name} prediction at scale {scale}: adding and subtracting rounds. Return "
                f"`{name}` itself there, so that the result is the unguided one bit for bit."
            )
    return None


def _refuses_less_than_0(answer, generator) -> str | None:
    x = torch.randn(2, 2, generator=generator)
    try:
        answer(x, x, -0.5)
    except ValueError:
        return None
    return "takes a scale of -0.5, which flees from what was asked for. Raise a ValueError for a negative scale."


GUIDE = Exercise(
    id="15.1",
    title="the guided prediction",
    reference=guide,
    independent=_value_by_value,
    draw=_draw_predictions,
    properties=(_the_ends_bit_for_bit, _refuses_less_than_0),
    mistakes=(
        Mistake(
            "the other convention",
            lambda cond, null, scale: cond + scale * (cond - null),
            "starts from the conditional prediction: that is the convention of Ho & Salimans, whose w is scale - 1. "
            "Here scale 0 is unconditional: start from there.",
        ),
        Mistake(
            "swapped",
            lambda cond, null, scale: cond + scale * (null - cond),
            "has the two predictions swapped: at scale 0 it is conditional, and from 1 on it flees from what was "
            "asked for.",
        ),
        Mistake(
            "the difference alone",
            lambda cond, null, scale: scale * (cond - null),
            "is only what the condition changes. It has to be added to the unconditional prediction.",
        ),
        Mistake(
            "a louder conditional one",
            lambda cond, null, scale: scale * cond,
            "multiplies the conditional prediction. What is exaggerated is its *difference* from the unconditional "
            "one.",
        ),
        Mistake(
            "both added",
            lambda cond, null, scale: null + scale * cond,
            "adds the two predictions, so it has too much noise in it. Add scale times their difference to the "
            "unconditional one.",
        ),
    ),
    hints=(
        "Equation 15.2: the unconditional prediction, and scale times what the condition changes.",
        "At scale 1 and 0 the formula rounds: return `conditional` and `unconditional` themselves.",
        "unconditional + scale * (conditional - unconditional), after `if scale < 0: raise ValueError(…)` and the two "
        "ends.",
    ),
)

# --- 15.2 classifier guidance ----------------------------------------------------------------------------------------


def classifier_guided(noise, gradient, alpha_bar, scale):
    """The noise prediction of a model that knows no condition, pushed by a classifier's gradient."""
    noise_std = (1 - alpha_bar).sqrt().reshape(-1, *[1] * (noise.ndim - 1))
    return noise - scale * noise_std * gradient


def _draw_pushes(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    n = int(torch.randint(2, 6, (), generator=generator))
    shape = (n, 2) if torch.rand((), generator=generator) < 0.5 else (n, 3, 2, 4)
    noise, gradient = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    alpha_bar = 0.02 + 0.96 * torch.rand(n, generator=generator, dtype=torch.float64)
    return noise, gradient, alpha_bar, 0.2 + 4 * torch.rand((), generator=generator).item()


def _example_by_example(noise: Tensor, gradient: Tensor, alpha_bar: Tensor, scale: float) -> Tensor:
    found = []
    for eps, push, bar in zip(noise, gradient, alpha_bar.tolist(), strict=True):
        score = -eps / math.sqrt(1 - bar) + scale * push
        found.append(-math.sqrt(1 - bar) * score)
    return torch.stack(found)


def _column(alpha_bar: Tensor, noise: Tensor) -> Tensor:
    return alpha_bar.reshape(-1, *[1] * (noise.ndim - 1))


CLASSIFIER_GUIDED = Exercise(
    id="15.2",
    title="classifier guidance",
    reference=classifier_guided,
    independent=_example_by_example,
    draw=_draw_pushes,
    mistakes=(
        Mistake(
            "the wrong sign",
            lambda noise, gradient, bar, scale: noise + scale * (1 - _column(bar, noise)).sqrt() * gradient,
            "pushes the wrong way. Noise points away from the data, the gradient towards it: subtract.",
        ),
        Mistake(
            "the gradient as it is",
            lambda noise, gradient, bar, scale: noise - scale * gradient,
            "forgets the factor √(1 - ᾱ), which turns a gradient of log-probabilities into noise.",
        ),
        Mistake(
            "the variance",
            lambda noise, gradient, bar, scale: noise - scale * (1 - _column(bar, noise)) * gradient,
            "multiplies by 1 - ᾱ, the variance of the noise. Its standard deviation is wanted: the root.",
        ),
        Mistake(
            "the signal's factor",
            lambda noise, gradient, bar, scale: noise - scale * _column(bar, noise).sqrt() * gradient,
            "multiplies by √ᾱ, the share of the picture. The noise's factor is √(1 - ᾱ).",
        ),
        Mistake(
            "divided",
            lambda noise, gradient, bar, scale: noise - scale * gradient / (1 - _column(bar, noise)).sqrt(),
            "divides by √(1 - ᾱ). That is the way from noise to score; the gradient goes the other way: multiply.",
        ),
    ),
    hints=(
        "Equation 15.7. alpha_bar holds one number per example; the predictions may have more axes.",
        "alpha_bar.reshape(-1, *[1] * (noise.ndim - 1)) stands beside each example, whatever its shape.",
        "noise - scale * (1 - alpha_bar).sqrt() * gradient, with alpha_bar reshaped.",
    ),
)

# --- 15.3 conditions withheld ----------------------------------------------------------------------------------------


def withhold(tokens, null, share, uniform):
    """A share of the conditions replaced by the one that says nothing; `uniform` decides, one number per example."""
    kept = uniform >= share
    return torch.where(kept[:, None, None], tokens, null)


def _draw_conditions(generator: torch.Generator) -> tuple[Tensor, Tensor, float, Tensor]:
    n, length, width = (int(torch.randint(*span, (), generator=generator)) for span in ((4, 9), (2, 6), (2, 5)))
    tokens, null = torch.randn(n, length, width, generator=generator), torch.randn(width, generator=generator)
    share, uniform = 0.25 + 0.5 * torch.rand((), generator=generator).item(), torch.rand(n, generator=generator)
    uniform[0], uniform[-1] = 0.5 * share, (1 + share) / 2  # one of each in any case
    return tokens, null, share, uniform


def _one_by_one(tokens: Tensor, null: Tensor, share: float, uniform: Tensor) -> Tensor:
    rows = [
        [null.tolist()] * tokens.shape[1] if u < share else x for u, x in zip(uniform, tokens.tolist(), strict=True)
    ]
    return torch.tensor(rows)


def _nothing_and_everything(answer, generator) -> str | None:
    tokens, null, _, uniform = _draw_conditions(generator)
    uniform[0] = 0.0  # torch.rand may give 0, never 1
    if not torch.equal(answer(tokens, null, 0.0, uniform), tokens):
        return "withholds something at share 0. An example is withheld where uniform < share, and 0 < 0 is False."
    if not torch.equal(answer(tokens, null, 1.0, uniform), null.expand_as(tokens)):
        return "tells something at share 1, where all conditions must be withheld."
    return None


def _withheld(replace, keep=lambda share, uniform: uniform >= share):
    return lambda tokens, null, share, uniform: torch.where(
        keep(share, uniform)[:, None, None], tokens, replace(tokens, null)
    )


WITHHOLD = Exercise(
    id="15.3",
    title="conditions withheld",
    reference=withhold,
    independent=_one_by_one,
    draw=_draw_conditions,
    properties=(_nothing_and_everything,),
    mistakes=(
        Mistake(
            "the wrong ones",
            _withheld(lambda tokens, null: null, lambda share, uniform: uniform < share),
            "withholds the wrong ones: with share = 0.1 nine in ten would be told nothing. uniform lies below share in "
            "that share of the cases: there withhold.",
        ),
        Mistake(
            "zeros for nothing",
            _withheld(lambda tokens, null: torch.zeros_like(tokens)),
            "puts zeros where `null` should stand. Zeros are a condition like others, and at sampling the model is "
            "asked with `null`.",
        ),
        Mistake(
            "all or none",
            lambda tokens, null, share, uniform: null.expand_as(tokens) if uniform[0] < share else tokens,
            "decides once for the whole batch. Each example has a number of its own in `uniform`.",
        ),
        Mistake(
            "a mixture",
            lambda tokens, null, share, uniform: (1 - share) * tokens + share * null,
            "mixes every condition with `null`. A condition is told whole or not at all.",
        ),
        Mistake(
            "as dropout does it",
            lambda tokens, null, share, uniform: torch.where(
                (uniform >= share)[:, None, None], tokens / (1 - share), null
            ),
            "makes the told ones larger, as dropout in a network does. Conditions stay as they are.",
        ),
    ),
    hints=(
        "Which ones? uniform < share is True for about that share of the examples.",
        "One flag per example must decide on (length, width) numbers: kept[:, None, None].",
        "torch.where((uniform >= share)[:, None, None], tokens, null)",
    ),
)

EXERCISES = (GUIDE, CLASSIFIER_GUIDED, WITHHOLD, ATTENTION_WEIGHTS, LIFT)
