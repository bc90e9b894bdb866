"""Exercise 16.3: what Bayes' rule says of a clean embedding, when all is Gaussian."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.lesson.tasks import Exercise, Mistake


def gaussian_guess(x_t: Tensor, guess: Tensor, variance: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the clean embedding's numbers, after x_t is seen."""
    bar = alpha_bar[:, None]
    total = bar * variance + 1 - bar  # variance of x_t around √ᾱ guess
    mean = guess + bar.sqrt() * variance / total * (x_t - bar.sqrt() * guess)
    return mean, variance * (1 - bar) / total


def _draw_beliefs(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = int(torch.randint(2, 5, (), generator=generator))
    x_t, guess = torch.randn(2, n, 6, generator=generator)
    variance = 0.05 + 0.7 * torch.rand(n, 6, generator=generator)
    return x_t, guess, variance, 0.05 + 0.9 * torch.rand(n, generator=generator)


def _by_precisions(x_t: Tensor, guess: Tensor, variance: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Precisions add; the mean is the mean of both opinions, weighed by them."""
    means, left = torch.zeros_like(x_t), torch.zeros_like(x_t)
    for n, bar in enumerate(alpha_bar.tolist()):
        for k, (x, g, v) in enumerate(zip(x_t[n].tolist(), guess[n].tolist(), variance[n].tolist(), strict=True)):
            before, seen = 1 / v, bar / (1 - bar)
            left[n, k] = 1 / (before + seen)
            means[n, k] = (before * g + seen * x / math.sqrt(bar)) / (before + seen)
    return means, left


def _wrong_guess(gain=None, seen=None, left=None):
    """`gain` and `left` of (variance, ᾱ), `seen` of (x_t, guess, √ᾱ) -> what else the three could be."""

    def function(x_t: Tensor, guess: Tensor, variance: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
        bar = alpha_bar[:, None]
        factor = gain(variance, bar) if gain else bar.sqrt() * variance / (bar * variance + 1 - bar)
        mean = guess + factor * (seen(x_t, guess, bar.sqrt()) if seen else x_t - bar.sqrt() * guess)
        return mean, (left or _left)(variance, bar)

    return function


def _left(variance: Tensor, bar: Tensor) -> Tensor:
    return variance * (1 - bar) / (bar * variance + 1 - bar)


GAUSSIAN_GUESS = Exercise(
    id="16.3",
    title="the guess that can be calculated",
    reference=gaussian_guess,
    independent=_by_precisions,
    draw=_draw_beliefs,
    mistakes=(
        Mistake(
            "a standard deviation",
            _wrong_guess(left=lambda variance, bar: _left(variance, bar).sqrt()),
            "has the mean right, but returns the standard deviation that is left. A variance is wanted.",
        ),
        Mistake(
            "the guess not shrunk",
            _wrong_guess(seen=lambda x_t, guess, root: x_t - guess),
            "compares x_t with the guess itself. x_t is noise around √ᾱ times the clean embedding: subtract √ᾱ guess.",
        ),
        Mistake(
            "gain without the root",
            _wrong_guess(gain=lambda variance, bar: variance / (bar * variance + 1 - bar)),
            "has lost a √ᾱ: the gain is √ᾱ variance / (ᾱ variance + 1 - ᾱ).",
        ),
        Mistake(
            "gain with ᾱ",
            _wrong_guess(gain=lambda variance, bar: bar * variance / (bar * variance + 1 - bar)),
            "has ᾱ where √ᾱ belongs: the gain is √ᾱ variance / (ᾱ variance + 1 - ᾱ).",
        ),
        Mistake(
            "variance squared",
            lambda x_t, guess, variance, alpha_bar: gaussian_guess(x_t, guess, variance**2, alpha_bar),
            "squares the variance. It is a variance already, not a standard deviation.",
        ),
        Mistake(
            "the variance of the noise",
            _wrong_guess(left=lambda variance, bar: (1 - bar).expand_as(variance)),
            "has the mean right, but returns 1 - ᾱ, the variance of the noise in x_t. What is left of the clean "
            "embedding's variance is less: the guess knew something, too.",
        ),
        Mistake(
            "x_t alone",
            lambda x_t, guess, variance, alpha_bar: (
                x_t / alpha_bar.sqrt()[:, None],
                _left(variance, alpha_bar[:, None]),
            ),
            "only rescales x_t. Where there is much noise, the first guess is worth more.",
        ),
    ),
    hints=(
        "First make a column of ᾱ: bar = alpha_bar[:, None]. Then the variance of x_t, before it is seen: ᾱ variance "
        "from the clean embedding, 1 - ᾱ from the noise. Call the sum `total`.",
        "How far x_t is off: x_t - √ᾱ guess. The mean moves by √ᾱ variance / total of that; variance (1 - ᾱ) / total "
        "is left.",
        "guess + bar.sqrt() * variance / total * (x_t - bar.sqrt() * guess), and variance * (1 - bar) / total",
    ),
)
