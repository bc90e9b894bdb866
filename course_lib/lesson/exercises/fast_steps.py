"""Exercises on steps that need no noise: DDIM, and Euler's method on the probability-flow equation."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.diffusion import ddim_step, euler_step
from course_lib.lesson.exercises.step_draws import bars, both, draw_jump, table_at
from course_lib.lesson.tasks import Exercise, Mistake

# --- 10.4 DDIM -------------------------------------------------------------------------------------------------------


def _draw_ddim(generator: torch.Generator) -> tuple:
    *jump, kind, clip = draw_jump(generator)
    eta = (0.0, 0.3, 0.7, 1.0)[int(torch.randint(0, 4, (), generator=generator))]
    return (*jump, kind, eta, clip)


def _share_by_share(schedule, x_t, prediction, t, t_prev, noise, kind, eta, clip) -> tuple[Tensor, Tensor]:
    """Split the noise variance 1 - ᾱ_prev into a fresh share, η² times the posterior's, and a kept one."""
    x_start, predicted = both(schedule, x_t, prediction, t, kind, clip)
    if t_prev < 0:
        return x_start, x_start
    bar, bar_prev = bars(schedule, t, t_prev)
    posterior = 1 / (1 / (1 - bar_prev) + (bar / bar_prev) / (1 - bar / bar_prev))  # precisions add
    fresh = eta * eta * posterior
    return bar_prev**0.5 * x_start + (1 - bar_prev - fresh) ** 0.5 * predicted + fresh**0.5 * noise, x_start


def _ddim(
    schedule, x_t, prediction, t, t_prev, noise, kind, eta, clip, *, fresh=None, kept=None, wrap=False, power=0.5
):
    """The formula with one thing bent: `fresh` and `kept` replace the variances of the two noises."""
    x_start, predicted = both(schedule, x_t, prediction, t, kind, clip)
    bar, bar_prev = bars(schedule, t, t_prev)
    bar_prev = table_at(schedule, t_prev) if wrap else bar_prev
    usual = (1 - bar_prev) / (1 - bar) * (1 - bar / bar_prev)
    new = eta**2 * usual if fresh is None else fresh(usual, eta, bar_prev, float(schedule.betas[t]), bar)
    old = 1 - bar_prev - new if kept is None else kept(1 - bar_prev, new)
    return bar_prev**0.5 * x_start + max(old, 0.0) ** 0.5 * predicted + abs(new) ** power * noise, x_start


def _old_noise(schedule, x_t, prediction, t, t_prev, noise, kind, eta, clip):
    """Clips x_start and keeps the noise of the unclipped one."""
    x_start, predicted = both(schedule, x_t, prediction, t, kind, None)
    x_start = x_start if clip is None else x_start.clamp(*clip)
    bar, bar_prev = bars(schedule, t, t_prev)
    fresh = eta**2 * (1 - bar_prev) / (1 - bar) * (1 - bar / bar_prev)
    return bar_prev**0.5 * x_start + (1 - bar_prev - fresh) ** 0.5 * predicted + fresh**0.5 * noise, x_start


def _eta_0_needs_no_noise(answer, generator) -> str | None:
    schedule, x_t, prediction, t, t_prev, *_ = draw_jump(generator)
    try:
        answer(schedule, x_t, prediction, t, t_prev, None, kind="noise", eta=0.0, clip=None)
    except TypeError:
        return (
            "fails when `noise` is None and eta is 0. Leave the term with `noise` out where eta is 0: 0 * None fails."
        )
    return None


DDIM_STEP = Exercise(
    id="10.4",
    title="one DDIM step",
    reference=ddim_step,
    independent=_share_by_share,
    draw=_draw_ddim,
    properties=(_eta_0_needs_no_noise,),
    mistakes=(
        Mistake(
            "η not squared",
            lambda *a: _ddim(*a, fresh=lambda usual, eta, *_: eta * usual),
            "multiplies the variance by η. η scales the standard deviation, so the variance gets η².",
        ),
        Mistake(
            "predicted noise not reduced",
            lambda *a: _ddim(*a, kept=lambda all_of_it, new: all_of_it),
            "keeps all of the predicted noise and adds fresh noise on top. Together they must have the variance "
            "1 - ᾱ_prev: the predicted noise gets √(1 - ᾱ_prev - σ²).",
        ),
        Mistake(
            "variance used as standard deviation",
            lambda *a: _ddim(*a, power=1.0),
            "multiplies the fresh noise by σ². That is a variance: multiply by its root.",
        ),
        Mistake(
            "σ taken off without its square",
            lambda *a: _ddim(*a, kept=lambda all_of_it, new: all_of_it - new**0.5),
            "computes 1 - ᾱ_prev - σ. Variances are added and taken off, never standard deviations: σ².",
        ),
        Mistake(
            "ᾱ read from the table's end",
            lambda *a: _ddim(*a, wrap=True),
            "reads alpha_bars[-1] when t_prev is -1. That is pure noise; -1 means the clean image, where ᾱ = 1.",
        ),
        Mistake(
            "β of one step for a jump",
            lambda *a: _ddim(*a, fresh=lambda usual, eta, prev, beta, bar: eta**2 * (1 - prev) / (1 - bar) * beta),
            "uses schedule.betas[t] in σ². For a jump β is 1 - ᾱ_t / ᾱ_prev.",
        ),
        Mistake(
            "η ignored",
            lambda *a: _ddim(*a[:7], 0.0, a[8]),
            "never adds noise. With η above 0 the step adds σ times `noise`.",
        ),
        Mistake(
            "clipped without deriving the noise again",
            _old_noise,
            "clips x_start but uses the noise that belonged to the unclipped one. x_start_and_noise(…, clip) gives two "
            "that fit together.",
        ),
        Mistake(
            "not clipped",
            lambda *a: _ddim(*a[:8], None),
            "does not clip. Hand `clip` on to x_start_and_noise.",
        ),
    ),
    hints=(
        "x_start, predicted_noise = x_start_and_noise(schedule, x_t, t, prediction, kind, clip), and ᾱ at both ends as "
        "in exercise 10.1.",
        "Equation 10.10 gives σ², with η². Three terms: √ᾱ_prev x_start, then √(1 - ᾱ_prev - σ²) times the predicted "
        "noise.",
        "The third term is σ times the fresh `noise`; with eta = 0 leave it out, since `noise` may be None. Return "
        "the new x and x_start.",
    ),
)

# --- 10.5 Euler ------------------------------------------------------------------------------------------------------


def _draw_euler(generator: torch.Generator) -> tuple:
    schedule, x_t, prediction, t, t_prev, _, kind, clip = draw_jump(generator)
    return schedule, x_t, prediction, t, t_prev, kind, clip


def _between_two_points(schedule, x_t, prediction, t, t_prev, kind, clip) -> tuple[Tensor, Tensor]:
    """The straight line runs from x̄ at σ_t to x_start at σ = 0: go the share of it that σ falls by."""
    x_start, _ = both(schedule, x_t, prediction, t, kind, clip)
    bar, bar_prev = bars(schedule, t, t_prev)
    left = ((1 - bar_prev) / bar_prev) ** 0.5 / ((1 - bar) / bar) ** 0.5
    return bar_prev**0.5 * (x_start + left * (x_t / bar**0.5 - x_start)), x_start


def _euler(
    schedule, x_t, prediction, t, t_prev, kind, clip, *, wrap=False, start=True, back=True, root=0.5, slope=1, sign=1
):
    """The formula with one thing bent."""
    x_start, noise = both(schedule, x_t, prediction, t, kind, clip)
    bar, bar_prev = bars(schedule, t, t_prev)
    bar_prev = table_at(schedule, t_prev) if wrap else bar_prev
    sigma, sigma_prev = (1 / bar - 1) ** root, (1 / bar_prev - 1) ** root
    scaled = x_t / bar**0.5 if start else x_t
    scaled = scaled + sign * (sigma_prev - sigma) * (noise if slope else x_start)
    return (bar_prev**0.5 * scaled if back else scaled), x_start


def _plain_std(schedule, x_t, prediction, t, t_prev, kind, clip):
    x_start, noise = both(schedule, x_t, prediction, t, kind, clip)
    bar, bar_prev = bars(schedule, t, t_prev)
    return bar_prev**0.5 * (x_t / bar**0.5 + ((1 - bar_prev) ** 0.5 - (1 - bar) ** 0.5) * noise), x_start


EULER_STEP = Exercise(
    id="10.5",
    title="one Euler step",
    reference=euler_step,
    independent=_between_two_points,
    draw=_draw_euler,
    mistakes=(
        Mistake(
            "√(1 - ᾱ) in place of σ",
            _plain_std,
            "uses √(1 - ᾱ), the noise in x_t. In the stretched picture x̄ = x/√ᾱ the noise is stretched too: "
            "σ = √(1/ᾱ - 1).",
        ),
        Mistake(
            "not stretched",
            lambda *a: _euler(*a, start=False),
            "starts from x_t. The line is straight for x̄ = x_t / √ᾱ_t: divide first.",
        ),
        Mistake(
            "not shrunk back",
            lambda *a: _euler(*a, back=False),
            "returns x̄. Multiply by √ᾱ_prev to get x back.",
        ),
        Mistake(
            "the wrong way",
            lambda *a: _euler(*a, sign=-1),
            "walks towards more noise. σ falls, so σ_prev - σ is negative.",
        ),
        Mistake(
            "σ squared",
            lambda *a: _euler(*a, root=1.0),
            "uses 1/ᾱ - 1, which is σ². The slope is multiplied by a difference of σ.",
        ),
        Mistake(
            "x_start as the slope",
            lambda *a: _euler(*a, slope=0),
            "uses x_start as the slope. dx̄/dσ is the predicted noise.",
        ),
        Mistake(
            "ᾱ read from the table's end",
            lambda *a: _euler(*a, wrap=True),
            "reads alpha_bars[-1] when t_prev is -1. That is pure noise; -1 means the clean image: ᾱ = 1, σ = 0.",
        ),
    ),
    hints=(
        "Stretch, walk, shrink: three lines. ᾱ is 1 at t_prev = -1, so σ is 0 there.",
        "x_bar = x_t / √ᾱ_t; the slope is the predicted noise; sigma = (1 / bar - 1) ** 0.5.",
        "x_bar + (sigma_prev - sigma) * noise, then times √ᾱ_prev. Return it and x_start.",
    ),
)
