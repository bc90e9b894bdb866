"""Lesson 11, GANs: exercises 11.1 to 11.5 with the mistakes that are usually made in them.

The two about networks and their gradients, 11.4 and 11.5, stand in `players`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.foundations import optimal_discriminator
from course_lib.lesson.exercises.players import PLAYER_LOSSES, R1_PENALTY
from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.gan import discriminator_loss, generator_loss

# --- 11.1 the best discriminator -------------------------------------------------------------------------------------


def _draw_tables(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two tables of probabilities; some outcomes come from one side only."""
    n = int(torch.randint(2, 8, (), generator=generator))
    p, q = (torch.rand(n, generator=generator, dtype=torch.float64) + 0.05 for _ in range(2))
    p[0] *= torch.rand((), generator=generator) < 0.7
    q[-1] *= torch.rand((), generator=generator) < 0.7
    return p / p.sum(), q / q.sum()


def _one_by_one(p_data: Tensor, p_model: Tensor) -> Tensor:
    """Bayes' rule, outcome by outcome: half of all examples are real, and the rest are made."""
    found = []
    for a, b in zip(p_data.tolist(), p_model.tolist(), strict=True):
        seen = 0.5 * a + 0.5 * b
        found.append(0.5 * a / seen if seen > 0 else 0.5)
    return torch.tensor(found, dtype=torch.float64)


def _never_seen(answer, generator) -> str | None:
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    found = answer(p, q)
    if not bool(torch.isfinite(found).all()):
        return "gives NaN for an outcome that neither side ever shows: 0/0. Such an outcome should get ½."
    if abs(float(found[2]) - 0.5) > 1e-6:
        return f"gives {float(found[2]):.3g} for an outcome that neither side ever shows. It should get ½."
    return None


OPTIMAL_DISCRIMINATOR = Exercise(
    id="11.1",
    title="the best discriminator",
    reference=optimal_discriminator,
    independent=_one_by_one,
    draw=_draw_tables,
    properties=(_never_seen,),
    mistakes=(
        Mistake(
            "the probability of fake",
            lambda p, q: 1 - _one_by_one(p, q),
            "gives the probability of 'made'. D is the probability of 'real': p_data stands above the line.",
        ),
        Mistake(
            "the ratio",
            lambda p, q: p / q,
            "gives p_data / p_model, the odds. A probability is p_data / (p_data + p_model).",
        ),
        Mistake(
            "halved below the line",
            lambda p, q: p / ((p + q) / 2),
            "divides by the mean of the two. That gives values up to 2; divide by the sum.",
        ),
        Mistake(
            "sure of every outcome",
            lambda p, q: (p > q).double(),
            "answers 0 or 1. Where both sides show an outcome, no one can be sure.",
        ),
        Mistake(
            "a sigmoid of the difference",
            lambda p, q: torch.sigmoid(p - q),
            "takes the sigmoid of p_data - p_model. It belongs to the difference of the logarithms.",
        ),
    ),
    hints=(
        "Someone tosses a coin and shows a real or a made example. Bayes' rule: what is the probability of 'real'?",
        "Both priors are ½ and cancel: p_data / (p_data + p_model).",
        "Where the sum is 0, divide by 1 instead and put ½ there: torch.where(total > 0, …, 0.5).",
    ),
)

# --- 11.2 and 11.3 the losses of scores ------------------------------------------------------------------------------


def _scores(generator: torch.Generator) -> Tensor:
    n = int(torch.randint(1, 9, (), generator=generator))
    return 3 * torch.randn(n, generator=generator)


def _log(score: Tensor, real: bool) -> Tensor:
    """ln D, or ln(1 - D), of each score, in float64 and as it stands in the paper."""
    chance = 1 / (1 + torch.exp(-score.double()))
    return torch.log(chance) if real else torch.log(1 - chance)


def _entropy(real: Tensor, fake: Tensor) -> Tensor:
    return -_log(real, True).mean() - _log(fake, False).mean()


def _large_scores(answer, *sides) -> str | None:
    """None if the answer is finite for scores of 200 in either direction."""
    for score in (200.0, -200.0):
        if not bool(torch.isfinite(answer(*[torch.tensor([score, 0.5])] * sides[0], *sides[1:]))):
            return (
                f"gives inf for a score of {score:.0f}: the sigmoid rounds to 0 or 1 there. "
                "F.softplus(x) = ln(1 + eˣ) does not: -ln D is softplus(-score), -ln(1 - D) is softplus(score)."
            )
    return None


DISCRIMINATOR_LOSS = Exercise(
    id="11.2",
    title="the discriminator's loss",
    reference=discriminator_loss,
    independent=_entropy,
    draw=lambda generator: (_scores(generator), _scores(generator)),
    properties=(lambda answer, generator: _large_scores(answer, 2),),
    mistakes=(
        Mistake(
            "the sigmoid twice",
            lambda real, fake: _entropy(real.sigmoid(), fake.sigmoid()),
            "takes the sigmoid twice. softplus and binary_cross_entropy_with_logits take scores as they are; with "
            "another sigmoid before them D never leaves the range from 0.5 to 0.73.",
        ),
        Mistake(
            "real and made swapped",
            lambda real, fake: _entropy(-real, -fake),
            "rewards low scores for real examples. Real ones should get high scores: softplus(-real).",
        ),
        Mistake(
            "V itself",
            lambda real, fake: -_entropy(real, fake),
            "returns V. The discriminator wants V high, and a loss is made low: return -V.",
        ),
        Mistake(
            "one mean over all",
            lambda real, fake: -torch.cat([_log(real, True), _log(fake, False)]).mean(),
            "averages over all examples at once. Each side has a mean of its own, and the two are added.",
        ),
        Mistake(
            "half of it",
            lambda real, fake: _entropy(real, fake) / 2,
            "halves the sum. Equation 11.5 adds the two means.",
        ),
        Mistake(
            "sums",
            lambda real, fake: -_log(real, True).sum() - _log(fake, False).sum(),
            "adds up the examples. E means their mean.",
        ),
        Mistake(
            "real examples only",
            lambda real, fake: -_log(real, True).mean(),
            "forgets the made examples. Without them, a discriminator that always says 'real' is perfect.",
        ),
    ),
    hints=(
        "D is the sigmoid of a score: D = 1 / (1 + e^(-score)). So -ln D = ln(1 + e^(-score)).",
        "F.softplus(x) is ln(1 + eˣ), exact for any x. What is 1 - D? The sigmoid of -score.",
        "F.softplus(-real).mean() + F.softplus(fake).mean().",
    ),
)


def _draw_kind(generator: torch.Generator) -> tuple[Tensor, str]:
    kind = ("non_saturating", "saturating")[int(torch.randint(0, 2, (), generator=generator))]
    return _scores(generator), kind


def _generator(fake: Tensor, kind: str) -> Tensor:
    return -_log(fake, True).mean() if kind == "non_saturating" else _log(fake, False).mean()


def _the_other(kind: str) -> str:
    return "saturating" if kind == "non_saturating" else "non_saturating"


def _finite_for_both_kinds(answer, generator) -> str | None:
    for kind in ("non_saturating", "saturating"):
        complaint = _large_scores(answer, 1, kind)
        if complaint:
            return complaint
    return None


GENERATOR_LOSS = Exercise(
    id="11.3",
    title="the generator's loss, two kinds",
    reference=generator_loss,
    independent=_generator,
    draw=_draw_kind,
    properties=(_finite_for_both_kinds,),
    mistakes=(
        Mistake(
            "the two kinds swapped",
            lambda fake, kind: _generator(fake, _the_other(kind)),
            "has the two kinds the wrong way round. 'saturating' is the game's own term, ln(1 - D).",
        ),
        Mistake(
            "always non-saturating",
            lambda fake, kind: _generator(fake, "non_saturating"),
            "ignores `kind`. 'saturating' is mean ln(1 - D).",
        ),
        Mistake(
            "the saturating one, turned round",
            lambda fake, kind: _generator(fake, kind) * (1 if kind == "non_saturating" else -1),
            "returns -ln(1 - D) for 'saturating'. The generator wants ln(1 - D) low: it is the loss as it stands, "
            "without a minus. With it, the generator learns to be found out.",
        ),
        Mistake(
            "the non-saturating one, turned round",
            lambda fake, kind: _generator(fake, kind) * (-1 if kind == "non_saturating" else 1),
            "returns ln D for 'non_saturating'. The generator wants D high, so its loss is -ln D.",
        ),
        Mistake(
            "the sigmoid twice",
            lambda fake, kind: _generator(fake.sigmoid(), kind),
            "takes the sigmoid twice. softplus takes scores as they are.",
        ),
        Mistake(
            "sums",
            lambda fake, kind: _generator(fake, kind) * len(fake),
            "adds up the examples. E means their mean.",
        ),
    ),
    hints=(
        "One line for each kind. With D = sigmoid(score): -ln D = softplus(-score), ln(1 - D) = -softplus(score).",
        "non_saturating: F.softplus(-fake).mean().",
        "saturating: -F.softplus(fake).mean(). The minus belongs there: ln(1 - D) is never positive.",
    ),
)

EXERCISES = (OPTIMAL_DISCRIMINATOR, DISCRIMINATOR_LOSS, GENERATOR_LOSS, PLAYER_LOSSES, R1_PENALTY)
