"""Lesson 10, fast samplers: exercises 10.1 to 10.5 with the mistakes that are usually made in them.

The two on deterministic steps, 10.4 and 10.5, stand in `fast_steps`; what all draw from stands in `step_draws`.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor

import torch
from torch import Tensor

from course_lib.diffusion import ddpm_step, timesteps, x_start_and_noise
from course_lib.lesson.exercises.fast_steps import DDIM_STEP, EULER_STEP
from course_lib.lesson.exercises.step_draws import bars, both, draw_jump, draw_reading, table_at
from course_lib.lesson.tasks import Exercise, Mistake

# --- 10.1 one step of ancestral sampling -----------------------------------------------------------------------------


def _draw_ddpm(generator: torch.Generator) -> tuple:
    *jump, kind, clip = draw_jump(generator)
    variance = ("small", "large")[int(torch.randint(0, 2, (), generator=generator))]
    return (*jump, kind, variance, clip)


def _by_bayes(schedule, x_t, prediction, t, t_prev, noise, kind, variance, clip) -> tuple[Tensor, Tensor]:
    """Prior N(√ᾱ_prev x_start, 1 - ᾱ_prev) times the likelihood of x_t: precisions add (lesson 01)."""
    x_start, _ = both(schedule, x_t, prediction, t, kind, clip)
    if t_prev < 0:
        return x_start, x_start
    bar, bar_prev = bars(schedule, t, t_prev)
    alpha = bar / bar_prev
    precision = 1 / (1 - bar_prev) + alpha / (1 - alpha)
    mean = (bar_prev**0.5 * x_start / (1 - bar_prev) + alpha**0.5 * x_t / (1 - alpha)) / precision
    return mean + ((1 / precision if variance == "small" else 1 - alpha) ** 0.5) * noise, x_start


def _ddpm(
    schedule, x_t, prediction, t, t_prev, noise, kind, variance, clip, *, power=0.5, dense=False, wrap=False, **bent
):
    """The formula, with one thing bent."""
    last, swapped, bar_for_alpha = (bent.get(name, False) for name in ("last", "swapped", "bar_for_alpha"))
    x_start, _ = both(schedule, x_t, prediction, t, kind, clip)
    bar, bar_prev = table_at(schedule, t), table_at(schedule, t_prev) if wrap else bars(schedule, t, t_prev)[1]
    alpha = float(schedule.alphas[t]) if dense else bar / bar_prev
    beta = 1 - alpha
    chosen = beta * (1 - bar_prev) / (1 - bar) if variance == "small" else beta
    if t_prev < 0 and not last and not wrap:
        chosen = 0.0
    weights = bar_prev**0.5 * beta / (1 - bar), (bar if bar_for_alpha else alpha) ** 0.5 * (1 - bar_prev) / (1 - bar)
    first, second = (x_t, x_start) if swapped else (x_start, x_t)
    chosen = chosen if chosen >= 0 else torch.nan  # ᾱ from the table's end gives a negative variance
    return weights[0] * first + weights[1] * second + chosen**power * noise, x_start


def _other(variance: str) -> str:
    return "large" if variance == "small" else "small"


def _the_last_step_needs_no_noise(answer, generator) -> str | None:
    schedule, x_t, prediction, t, *_ = draw_jump(generator)
    for variance in ("small", "large"):
        try:
            answer(schedule, x_t, prediction, t, -1, None, kind="noise", variance=variance, clip=None)
        except TypeError:
            return "fails when `noise` is None at the last step. Leave its term out where t_prev is -1: 0 * None fails."
    return None


DDPM_STEP = Exercise(
    id="10.1",
    title="one step of ancestral sampling",
    reference=ddpm_step,
    independent=_by_bayes,
    draw=_draw_ddpm,
    draws=32,
    properties=(_the_last_step_needs_no_noise,),
    mistakes=(
        Mistake(
            "variance used as standard deviation",
            lambda *a: _ddpm(*a, power=1.0),
            "multiplies the noise by the variance. Noise is multiplied by a standard deviation: take the root. Samples "
            "of this code look fine and have far too little spread.",
        ),
        Mistake(
            "β of one step for a jump",
            lambda *a: _ddpm(*a, dense=True),
            "uses schedule.betas[t] and alphas[t], which belong to a single step. A jump from t to t_prev has "
            "α = ᾱ_t / ᾱ_prev and β = 1 - α.",
        ),
        Mistake(
            "ᾱ read from the table's end",
            lambda *a: _ddpm(*a, wrap=True),
            "reads alpha_bars[-1] when t_prev is -1. That is ᾱ of pure noise; -1 means the clean image, where ᾱ = 1.",
        ),
        Mistake(
            "noise at the last step",
            lambda *a: _ddpm(*a, last=True),
            "adds noise at the last step, t_prev = -1, when the variance is 'large'. The clean image has none.",
        ),
        Mistake(
            "ᾱ in place of α",
            lambda *a: _ddpm(*a, bar_for_alpha=True),
            "weighs x_t with √ᾱ_t. One jump keeps the share α = ᾱ_t / ᾱ_prev.",
        ),
        Mistake(
            "weights swapped",
            lambda *a: _ddpm(*a, swapped=True),
            "gives the weight of x_start to x_t and that of x_t to x_start.",
        ),
        Mistake(
            "small and large swapped",
            lambda *a: _ddpm(*a[:7], _other(a[7]), a[8]),
            "has the two variances the wrong way round: 'large' is β, 'small' is β times (1 - ᾱ_prev)/(1 - ᾱ_t).",
        ),
        Mistake(
            "always the small variance",
            lambda *a: _ddpm(*a[:7], "small", a[8]),
            "always uses the small variance. Look at the argument `variance`; 'large' is β.",
        ),
        Mistake(
            "not clipped",
            lambda *a: _ddpm(*a[:8], None),
            "does not clip. Hand `clip` on: x_start_and_noise(schedule, x_t, t, prediction, kind, clip).",
        ),
        Mistake(
            "every prediction read as noise",
            lambda *a: _ddpm(*a[:6], "noise", *a[7:]),
            "takes every prediction for noise. Hand `kind` on to x_start_and_noise.",
        ),
    ),
    hints=(
        "x_start, _ = x_start_and_noise(schedule, x_t, t, prediction, kind, clip). All the rest needs two numbers: ᾱ "
        "at t and ᾱ at t_prev, which is 1 if t_prev is -1.",
        "alpha = bar / bar_prev and beta = 1 - alpha, then equation 10.3, with the roots where they stand.",
        "Add variance ** 0.5 * noise, and nothing at all if t_prev is -1. Return the new x and x_start.",
    ),
)

# --- 10.2 which steps to visit ---------------------------------------------------------------------------------------


def _draw_spacing(generator: torch.Generator) -> tuple[int, int, str]:
    """No tie to round: halves are rounded differently by different right answers."""
    while True:
        T, steps, spacing = (
            int(torch.randint(a, b, (), generator=generator)) for a, b in ((60, 1200), (3, 50), (0, 3))
        )
        strides = (Fraction(T, steps), Fraction(T - 1, steps - 1))
        if T % steps and all(abs((k * s) % 1 - Fraction(1, 2)) > 0.001 for s in strides for k in range(steps)):
            return T, steps, ("trailing", "leading", "linspace")[spacing]


def _by_fractions(T: int, steps: int, spacing: str) -> list[int]:
    def nearest(x: Fraction) -> int:
        return floor(x + Fraction(1, 2))

    if spacing == "leading":
        return list(range(0, steps * (T // steps), T // steps))[::-1]
    if spacing == "linspace":
        return [T - 1 - nearest(Fraction(k * (T - 1), steps - 1)) for k in range(steps)]
    return [nearest(Fraction((steps - k) * T, steps)) - 1 for k in range(steps)]


def _one_step_starts_in_noise(answer, generator) -> str | None:
    for spacing in ("trailing", "leading", "linspace"):
        try:
            found = [int(t) for t in answer(1000, 1, spacing)]
        except ZeroDivisionError:
            return f"divides by zero for a single step, spacing {spacing!r}: that step is T - 1 in every spacing."
        if found != [999]:
            return f"gives {found} for T = 1000, one step, {spacing!r}: a single step is T - 1 = 999 in every spacing."
    return None


TIMESTEPS = Exercise(
    id="10.2",
    title="which steps to visit",
    reference=timesteps,
    independent=_by_fractions,
    draw=_draw_spacing,
    properties=(_one_step_starts_in_noise,),
    mistakes=(
        Mistake(
            "starts at T",
            lambda T, n, spacing: [t + (spacing == "trailing") for t in _by_fractions(T, n, spacing)],
            "starts 'trailing' at T. The formula counts steps from 1, indices count from 0: the first is T - 1.",
        ),
        Mistake(
            "always leading",
            lambda T, n, spacing: _by_fractions(T, n, "leading"),
            "always uses multiples of T // steps. Its first step lies below T - 1, where x_t still holds some image, "
            "yet sampling starts from pure noise.",
        ),
        Mistake(
            "always trailing",
            lambda T, n, spacing: _by_fractions(T, n, "trailing"),
            "always uses 'trailing'. Look at the argument `spacing`.",
        ),
        Mistake(
            "rising",
            lambda T, n, spacing: _by_fractions(T, n, spacing)[::-1],
            "rises. A sampler starts in noise: highest step first.",
        ),
        Mistake(
            "whole strides for trailing",
            lambda T, n, spacing: (
                [T - 1 - k * (T // n) for k in range(n)] if spacing == "trailing" else _by_fractions(T, n, spacing)
            ),
            "walks 'trailing' in strides of T // steps. Strides of T / steps, each place rounded, spread evenly even "
            "where steps does not divide T.",
        ),
        Mistake(
            "cut, not rounded",
            lambda T, n, spacing: {
                "trailing": [int(T - k * T / n) - 1 for k in range(n)],
                "linspace": [int(k * (T - 1) / (n - 1)) for k in reversed(range(n))],
                "leading": _by_fractions(T, n, "leading"),
            }[spacing],
            "cuts off the digits behind the point. Round to the nearest whole number.",
        ),
    ),
    hints=(
        "Three cases, and one more in front of them: with steps == 1 all three give [T - 1].",
        "trailing: round(T - i * T / steps) - 1 for i = 0, 1, …, steps - 1.",
        "leading: multiples of T // steps from 0, reversed. linspace: i * (T - 1) / (steps - 1), rounded, reversed.",
    ),
)

# --- 10.3 both readings of a prediction ------------------------------------------------------------------------------


def _reading(schedule, x_t, t, prediction, kind, clip) -> tuple[Tensor, Tensor]:
    return both(schedule, x_t, prediction, t, kind, clip)


def _range(clip) -> tuple[float, float]:
    return (-torch.inf, torch.inf) if clip is None else clip


def _clip_only(schedule, x_t, t, prediction, kind, clip) -> tuple[Tensor, Tensor]:
    x_start, noise = both(schedule, x_t, prediction, t, kind, None)
    return x_start.clamp(*_range(clip)), noise


def _clip_x_t(schedule, x_t, t, prediction, kind, clip) -> tuple[Tensor, Tensor]:
    return both(schedule, x_t.clamp(*_range(clip)), prediction, t, kind, None)


def _clip_prediction(schedule, x_t, t, prediction, kind, clip) -> tuple[Tensor, Tensor]:
    return both(schedule, x_t, prediction.clamp(*_range(clip)), t, kind, None)


X_START_AND_NOISE = Exercise(
    id="10.3",
    title="both readings of a prediction",
    reference=x_start_and_noise,
    independent=_reading,
    draw=draw_reading,
    mistakes=(
        Mistake(
            "clipped without deriving the noise again",
            _clip_only,
            "clips x_start but keeps the old noise. The two no longer make up x_t: derive the noise again from x_t and "
            "the clipped x_start.",
        ),
        Mistake(
            "x_t clipped",
            _clip_x_t,
            "clips x_t, which is full of noise: a third of it rightly lies outside [-1, 1]. Clip x_start instead.",
        ),
        Mistake(
            "prediction clipped",
            _clip_prediction,
            "clips the prediction, whatever its kind. Only x_start is known to lie in the range of the data.",
        ),
        Mistake(
            "always clipped to [-1, 1]",
            lambda s, x, t, p, kind, clip: both(s, x, p, t, kind, clip and (-1.0, 1.0)),
            "clips to [-1, 1]. The range is in `clip`: not all data live in [-1, 1].",
        ),
        Mistake(
            "never clipped",
            lambda s, x, t, p, kind, clip: both(s, x, p, t, kind, None),
            "does not clip. If `clip` is a pair, use x_start.clamp(*clip).",
        ),
        Mistake(
            "noise first",
            lambda s, x, t, p, kind, clip: both(s, x, p, t, kind, clip)[::-1],
            "returns noise and x_start. x_start comes first.",
        ),
    ),
    hints=(
        'convert(schedule, x_t, t, prediction, kind, "x_start") is the clean image, whatever the kind.',
        'With clip, clamp it. Then the noise: convert(schedule, x_t, t, x_start, "x_start", "noise").',
        "Without clip the same two lines are right too; only the clamp is missing.",
    ),
)

EXERCISES = (DDPM_STEP, TIMESTEPS, X_START_AND_NOISE, DDIM_STEP, EULER_STEP)
