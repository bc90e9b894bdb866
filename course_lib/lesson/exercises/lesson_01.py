"""Lesson 01, Bayes and Markov chains: exercises 1.1 to 1.5. The last three, on chains, stand in `chains`."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.foundations import bayes_rule, normal_posterior
from course_lib.lesson.exercises.chains import BIT_POSTERIOR, MARKOV_FACTORISATION, STATIONARY
from course_lib.lesson.tasks import Exercise, Mistake

# --- 1.1 Bayes' rule on a table ------------------------------------------------------------------------------------


def _draw_tables(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    hypotheses, outcomes = torch.randint(2, 6, (2,), generator=generator).tolist()
    prior, likelihood = (
        torch.rand(shape, generator=generator, dtype=torch.float64) + 0.05
        for shape in ((hypotheses,), (hypotheses, outcomes))
    )
    return prior / prior.sum(), likelihood / likelihood.sum(1, keepdim=True)


def _count_cases(prior: Tensor, likelihood: Tensor) -> tuple[Tensor, Tensor]:
    cases = 1e6  # as if a million cases were sorted into a table by hand
    posterior, evidence = torch.zeros_like(likelihood), torch.zeros_like(likelihood[0])
    for x in range(likelihood.shape[1]):
        counts = [cases * float(prior[h]) * float(likelihood[h, x]) for h in range(len(prior))]
        for h, count in enumerate(counts):
            posterior[h, x] = count / sum(counts)
        evidence[x] = sum(counts) / cases
    return posterior, evidence


BAYES_RULE = Exercise(
    id="1.1",
    title="Bayes' rule on a table",
    reference=bayes_rule,
    independent=_count_cases,
    draw=_draw_tables,
    mistakes=(
        Mistake(
            "not divided by the evidence",
            lambda p, lik: (p[:, None] * lik, (p[:, None] * lik).sum(0)),
            "returns P(h) P(x | h), the joint table. Divide each column by its sum, the evidence P(x): what is "
            "believed after seeing x must sum to 1.",
        ),
        Mistake(
            "prior forgotten",
            lambda p, lik: (lik / lik.sum(0), (p[:, None] * lik).sum(0)),
            "leaves the prior out of the posterior, as if every hypothesis had been equally likely before. Multiply "
            "each row of the likelihood by its prior first.",
        ),
        Mistake(
            "prior forgotten twice",
            lambda p, lik: (lik / lik.sum(0), lik.sum(0)),
            "never uses the prior. Multiply each row of the likelihood by its prior, prior[:, None] * likelihood; "
            "posterior and evidence both come from that table.",
        ),
        Mistake(
            "likelihood taken for the posterior",
            lambda p, lik: (lik, (p[:, None] * lik).sum(0)),
            "returns P(x | h) where P(h | x) is wanted. Dividing the joint table by the sums of its rows gives the "
            "likelihood back: divide by the sums of its columns.",
        ),
        Mistake(
            "evidence without the prior",
            lambda p, lik: (p[:, None] * lik / (p[:, None] * lik).sum(0), lik.sum(0)),
            "has the right posterior, but sums the likelihood without the prior for the evidence. P(x) is the sum of "
            "P(x | h) P(h) over all h.",
        ),
    ),
    hints=(
        "First the joint table P(h, x): each row of the likelihood times the prior of its hypothesis.",
        "prior[:, None] * likelihood does it: prior[:, None] is a column, (H, 1), so row h is multiplied by prior[h].",
        "The evidence is the sum of each column of that table: .sum(dim=0). The posterior is the table divided by it.",
    ),
)

# --- 1.2 an unknown number -----------------------------------------------------------------------------------------


def _draw_measurements(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    prior_mean, a, b = torch.randn(3, generator=generator, dtype=torch.float64)
    prior_var, noise_var = 0.1 + a**2, 0.1 + b**2
    n = int(torch.randint(2, 9, (), generator=generator))
    return prior_mean, prior_var, torch.randn(n, generator=generator, dtype=torch.float64) + 1, noise_var


def _one_by_one(prior_mean: Tensor, prior_var: Tensor, observations: Tensor, noise_var: Tensor):
    """Each posterior is the next prior; the pull of one observation is its share of the variance (Kalman's gain)."""
    mean, variance = prior_mean, prior_var
    for x in observations:
        gain = variance / (variance + noise_var)
        mean, variance = mean + gain * (x - mean), (1 - gain) * variance
    return mean, variance


def _no_observation_leaves_the_prior(answer, generator) -> str | None:
    mean, variance, _, noise = _draw_measurements(generator)
    found = answer(mean, variance, torch.empty(0, dtype=torch.float64), noise)
    right = all(abs(float(f) - float(w)) < 1e-4 for f, w in zip(found, (mean, variance), strict=True))
    return (
        None
        if right
        else (
            "is right for one or more observations, but with none it must give the prior back. The mean of no numbers "
            "is NaN; their sum is 0: use observations.sum() and len(observations)."
        )
    )


def _precision(prior_var: Tensor, x: Tensor, noise_var: Tensor) -> Tensor:
    return 1 / prior_var + len(x) / noise_var


NORMAL_POSTERIOR = Exercise(
    id="1.2",
    title="an unknown number",
    reference=normal_posterior,
    independent=_one_by_one,
    draw=_draw_measurements,
    properties=(_no_observation_leaves_the_prior,),
    mistakes=(
        Mistake(
            "variances added",
            lambda m, v, x, s: (normal_posterior(m, v, x, s)[0], v + s / len(x)),
            "adds variances. Knowing more must make the variance smaller: precisions, 1/variance, add up.",
        ),
        Mistake(
            "one observation counted",
            lambda m, v, x, s: ((m / v + x.mean() / s) / (1 / v + 1 / s), 1 / (1 / v + 1 / s)),
            "treats all observations together as one. Each of the n brings the precision 1/noise_var.",
        ),
        Mistake(
            "mean of the data, not their sum",
            lambda m, v, x, s: ((m / v + x.mean() / s) / _precision(v, x, s), 1 / _precision(v, x, s)),
            "counts n observations in the precision but only one in the mean: the sum of the observations is divided "
            "by noise_var, not their average.",
        ),
        Mistake(
            "weights swapped",
            lambda m, v, x, s: ((x.mean() / v + m * len(x) / s) / _precision(v, x, s), 1 / _precision(v, x, s)),
            "gives the data the weight of the prior and the prior that of the data. The surer of the two pulls more.",
        ),
        Mistake(
            "mean not multiplied by the variance",
            lambda m, v, x, s: (m / v + x.sum() / s, 1 / _precision(v, x, s)),
            "leaves the bracket of equation 1.7 as it is. Multiply it by the posterior variance (or divide it by the "
            "precision): the weights of an average sum to 1.",
        ),
        Mistake(
            "standard deviation for variance",
            lambda m, v, x, s: (normal_posterior(m, v, x, s)[0], normal_posterior(m, v, x, s)[1].sqrt()),
            "returns a standard deviation. The variance is wanted: leave the root out.",
        ),
        Mistake(
            "precision for variance",
            lambda m, v, x, s: (normal_posterior(m, v, x, s)[0], _precision(v, x, s)),
            "returns the precision. The variance is 1 divided by it.",
        ),
        Mistake(
            "prior forgotten",
            lambda m, v, x, s: (x.mean(), s / len(x)),
            "looks at the data alone. The prior counts too, with the precision 1/prior_var.",
        ),
    ),
    hints=(
        "Precision is 1/variance. The prior brings one precision, every observation another, and they add up.",
        "precision = 1/prior_var + n/noise_var. The posterior variance is 1/precision.",
        "The mean: prior_mean/prior_var plus the sum of the observations over noise_var, all divided by the precision.",
    ),
)

EXERCISES = (BAYES_RULE, NORMAL_POSTERIOR, MARKOV_FACTORISATION, STATIONARY, BIT_POSTERIOR)
