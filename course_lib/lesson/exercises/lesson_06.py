"""Lesson 06, the bound and the posterior: exercises 6.1 to 6.4 with the mistakes that are usually made in them.

The two on what a model pays, 6.2 and 6.4, stand in `objectives`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.diffusion import Schedule, posterior, posterior_mean_from_noise
from course_lib.lesson.exercises.objectives import DIFFUSION_LOSS, PRIOR_KL
from course_lib.lesson.tasks import Exercise, Mistake


def _column(table: Tensor, t: Tensor) -> Tensor:
    return table.float()[t].view(-1, 1, 1, 1)


def _draw_pair(generator: torch.Generator, first: int) -> tuple[Schedule, Tensor, Tensor, Tensor]:
    """A schedule, two batches of images and one step for each of them, the first of which is `first`."""
    T = int(torch.randint(30, 200, (), generator=generator))
    schedule = Schedule.linear(T) if torch.rand((), generator=generator) < 0.5 else Schedule.cosine(T)
    t = torch.randint(1, T, (int(torch.randint(2, 5, (), generator=generator)),), generator=generator)
    t[0] = first
    one, other = torch.randn((2, len(t), 1, 4, 4), generator=generator)
    return schedule, one, other, t


# --- 6.1 the posterior ---------------------------------------------------------------------------------------------


def _posterior_by_precisions(schedule: Schedule, x_start: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Add precisions, image by image, in plain Python: no table of coefficients is used."""
    means, variances = [], []
    for clean, noisy, step in zip(x_start.double(), x_t.double(), t.tolist(), strict=True):
        betas = schedule.betas.tolist()
        kept = math.prod(1 - beta for beta in betas[:step])  # up to the step before: 1 for the first
        if step == 0:
            means.append(clean)
            variances.append(0.0)
            continue
        before, now = 1 / (1 - kept), (1 - betas[step]) / betas[step]
        variances.append(1 / (before + now))
        means.append((before * math.sqrt(kept) * clean + now * noisy / math.sqrt(1 - betas[step])) * variances[-1])
    return torch.stack(means), torch.tensor(variances, dtype=torch.float64).reshape(-1, 1, 1, 1)


def _posterior_with(s: Schedule, x_start: Tensor, x_t: Tensor, t: Tensor, previous: Tensor | None = None, **other):
    """The right formulas, from tables of which some may be replaced by wrong ones."""
    previous = s.alpha_bars_prev if previous is None else previous
    tables = {
        "clean": previous.sqrt() * s.betas / (1 - s.alpha_bars),
        "noisy": s.alphas.sqrt() * (1 - previous) / (1 - s.alpha_bars),
        "variance": s.betas * (1 - previous) / (1 - s.alpha_bars),
        **other,
    }
    clean, noisy, variance = (_column(table, t) for table in tables.values())
    return clean * x_start + noisy * x_t, variance


def _first_step_is_certain(answer, generator) -> str | None:
    """t = 0 for the whole batch: x_0 is given, so there is nothing to guess."""
    schedule, x_start, x_t, _ = _draw_pair(generator, 0)
    mean, variance = answer(schedule, x_start, x_t, torch.zeros(len(x_t), dtype=torch.long))
    if torch.allclose(mean.double(), x_start.double(), atol=1e-4) and float(variance.abs().max()) < 1e-6:
        return None
    return "does not give x_start itself, with variance 0, at the first step: there ᾱ of the step before is 1."


def _takes_one_number(answer, generator) -> str | None:
    """As the lesson uses it: a single t for all, and data that is no picture at all."""
    schedule, _, _, _ = _draw_pair(generator, 0)
    one, other = torch.randn((2, 6, 1), generator=generator)
    return _same_for_one_number(lambda t: answer(schedule, one, other, t)[0])


def _mean_takes_one_number(answer, generator) -> str | None:
    schedule, _, _, _ = _draw_pair(generator, 0)
    one, other = torch.randn((2, 6, 1), generator=generator)
    return _same_for_one_number(lambda t: answer(schedule, one, t, other))


def _same_for_one_number(mean) -> str | None:
    try:
        one, each = mean(7), mean(torch.full((6,), 7))
        same = one.shape == each.shape == (6, 1) and torch.allclose(one.double(), each.double(), atol=1e-5)
    except Exception:  # whatever an answer does with a shape that it was not written for
        same = False
    if same:
        return None
    return (
        "works for images with one step each, but not for single pixels of shape (n, 1) or for one t such as 7, and "
        "the lesson needs both. gather(table, t, x_t) fits every case."
    )


POSTERIOR = Exercise(
    id="6.1",
    title="the posterior",
    reference=posterior,
    independent=_posterior_by_precisions,
    draw=lambda generator: _draw_pair(generator, 0),
    properties=(_first_step_is_certain, _takes_one_number),
    mistakes=(
        Mistake(
            "first step from alphas[0]",
            lambda s, x, y, t: _posterior_with(s, x, y, t, torch.cat([s.alphas[:1], s.alpha_bars[:-1]])),
            "takes alphas[0] for the ᾱ before the first step. Before any noise the whole image is left, so it is 1; "
            "with alphas[0] the first mean is nearly x_0 + x_1, a picture twice as bright.",
        ),
        Mistake(
            "ᾱ of the step before not shifted",
            lambda s, x, y, t: _posterior_with(s, x, y, t, s.alpha_bars),
            "uses ᾱ_t where ᾱ of the step before, alpha_bars_prev, is wanted. The variance then comes out as β_t.",
        ),
        Mistake(
            "ᾱ in place of α",
            lambda s, x, y, t: _posterior_with(
                s, x, y, t, noisy=s.alpha_bars.sqrt() * (1 - s.alpha_bars_prev) / (1 - s.alpha_bars)
            ),
            "weighs x_t by √ᾱ_t. Only one step lies between x_t and x_{t-1}: its share is α_t.",
        ),
        Mistake(
            "standard deviation returned",
            lambda s, x, y, t: _posterior_with(s, x, y, t, variance=s.posterior_variance.sqrt()),
            "returns the standard deviation as its second value. The variance is wanted: take no root.",
        ),
        Mistake(
            "variance of the forward step",
            lambda s, x, y, t: _posterior_with(s, x, y, t, variance=s.betas),
            "returns β_t as the variance. Knowing x_0 helps, so the posterior is narrower: "
            "multiply by (1 - ᾱ_{t-1}) / (1 - ᾱ_t).",
        ),
        Mistake(
            "weights swapped",
            lambda s, x, y, t: _posterior_with(s, y, x, t),
            "gives the weight of x_start to x_t and the other way round. Near the end of noising x_t must weigh most.",
        ),
        Mistake(
            "no roots",
            lambda s, x, y, t: _posterior_with(
                s,
                x,
                y,
                t,
                clean=s.alpha_bars_prev * s.betas / (1 - s.alpha_bars),
                noisy=s.alphas * (1 - s.alpha_bars_prev) / (1 - s.alpha_bars),
            ),
            "weighs the images by ᾱ_{t-1} and α_t. These are shares of variance: images take their roots.",
        ),
        Mistake(
            "precision returned",
            lambda s, x, y, t: _posterior_with(
                s, x, y, t, variance=s.alphas / s.betas + 1 / (1 - s.alpha_bars_prev).clamp(min=1e-20)
            ),
            "returns the precision (equation 6.8) as its second value. The variance is 1 over it.",
        ),
    ),
    hints=(
        "Three tables are enough: schedule.alpha_bars_prev is 1 before the first step, and gather(table, t, x_t) "
        "shapes each of them to multiply a batch.",
        "The weights of x_start and of x_t both have 1 - ᾱ_t below the line. Above it: √ᾱ_{t-1} β_t for x_start, and "
        "√α_t (1 - ᾱ_{t-1}) for x_t.",
        "The variance has the same denominator, and β_t (1 - ᾱ_{t-1}) above it. Return (mean, variance).",
    ),
)

# --- 6.3 its mean, from the noise ----------------------------------------------------------------------------------


def _mean_through_x_start(schedule: Schedule, x_t: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Solve for the clean image first, then ask the posterior of 6.1's other route."""
    kept = torch.tensor([math.prod(1 - beta for beta in schedule.betas[: k + 1].tolist()) for k in t.tolist()])
    kept = kept.double().reshape(-1, 1, 1, 1)
    x_start = (x_t.double() - (1 - kept).sqrt() * noise.double()) / kept.sqrt()
    return _posterior_by_precisions(schedule, x_start, x_t, t)[0]


def _draw_noisy(generator: torch.Generator) -> tuple[Schedule, Tensor, Tensor, Tensor]:
    schedule, x_t, noise, t = _draw_pair(generator, 1)
    return schedule, x_t, t.clamp(max=schedule.T * 4 // 5), noise  # at the very end x_start is a difference of giants


def _subtract(share, divide=lambda s: s.alphas.sqrt()):
    """(x_t - share noise) / divide, both tables of the schedule."""
    return lambda s, x, t, z: (x - _column(share(s), t) * z) / _column(divide(s), t)


POSTERIOR_MEAN = Exercise(
    id="6.3",
    title="the posterior mean, from the noise",
    reference=posterior_mean_from_noise,
    independent=_mean_through_x_start,
    draw=_draw_noisy,
    properties=(_mean_takes_one_number,),
    rtol=1e-3,
    atol=1e-4,
    mistakes=(
        Mistake(
            "all the noise at once",
            _subtract(lambda s: s.noise_std, lambda s: s.sqrt_alpha_bars),
            "takes away all the noise, which gives x_0. One step removes the share β_t / (1 - ᾱ_t) of it only.",
        ),
        Mistake(
            "β alone",
            _subtract(lambda s: s.betas),
            "subtracts β_t times the noise. Divide β_t by √(1 - ᾱ_t), the size that the noise has in x_t.",
        ),
        Mistake(
            "no root below β",
            _subtract(lambda s: s.betas / (1 - s.alpha_bars)),
            "divides β_t by 1 - ᾱ_t. Its root, the noise's standard deviation, is wanted.",
        ),
        Mistake(
            "noise of one step",
            _subtract(lambda s: s.betas.sqrt()),
            "subtracts √β_t times the noise, as if this were the noise of step t. It is all the noise up to t.",
        ),
        Mistake(
            "ᾱ in place of α",
            _subtract(lambda s: s.betas / s.noise_std, lambda s: s.sqrt_alpha_bars),
            "divides by √ᾱ_t. Only one step is undone, so only its shrinking is: divide by √α_t.",
        ),
        Mistake(
            "no root on α",
            _subtract(lambda s: s.betas / s.noise_std, lambda s: s.alphas),
            "divides by α_t. The step multiplied the image by √α_t, so divide by that.",
        ),
        Mistake(
            "not stretched again",
            _subtract(lambda s: s.betas / s.noise_std, lambda s: torch.ones_like(s.alphas)),
            "forgets to divide by √α_t: the step also shrank the image, and that is to be undone as well.",
        ),
        Mistake(
            "noise added",
            _subtract(lambda s: -s.betas / s.noise_std),
            "adds noise where some must be taken away.",
        ),
    ),
    hints=(
        "Two tables: how much of the noise goes, and how much the rest is stretched.",
        "gather(schedule.betas / schedule.noise_std, t, x_t) multiplies the noise.",
        "Subtract that from x_t, then divide by gather(schedule.alphas.sqrt(), t, x_t).",
    ),
)

EXERCISES = (POSTERIOR, PRIOR_KL, POSTERIOR_MEAN, DIFFUSION_LOSS)
