"""Lesson 09, training and sampling: exercises 9.1 to 9.4 with the mistakes that are usually made in them.

The two on sampling, 9.3 and 9.4, stand in `way_back`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from course_lib.diffusion import Schedule, q_sample
from course_lib.lesson.exercises.way_back import ANCESTRAL, TRUE_TIMES
from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.training import improvements, training_step

# --- 9.1 one step of training ----------------------------------------------------------------------------------------


class _Line(nn.Module):
    """prediction = a x_t + b t/T + c: small enough for gradients by hand. It remembers the weights it was born with."""

    prediction = "noise"

    def __init__(self, weights: Tensor, T: int) -> None:
        super().__init__()
        self.weights, self.T, self.born = nn.Parameter(weights.clone()), T, tuple(weights.tolist())

    def forward(self, x_t: Tensor, t: Tensor, cond: None = None) -> Tensor:
        a, b, c = self.weights.to(x_t.dtype)
        time = (t.to(x_t.dtype) / self.T).reshape(-1, *[1] * (x_t.ndim - 1))
        return a * x_t + b * time + c


def _draw_step(generator: torch.Generator) -> tuple:
    schedule = Schedule.cosine(int(torch.randint(20, 60, (), generator=generator)))
    model = _Line(torch.randn(3, generator=generator, dtype=torch.float64), schedule.T)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    t = torch.randint(schedule.T, (4,), generator=generator)
    x_start, noise = torch.randn((2, 4, 1, 3, 3), generator=generator, dtype=torch.float64)
    return model, optimizer, schedule, x_start, t, noise


def _by_loops(model, optimizer, schedule, x_start, t, noise) -> float:
    """The loss of the weights that the model was born with, value by value; nothing is updated."""
    a, b, c = model.born
    bars, total = schedule.alpha_bars.tolist(), 0.0
    for picture, step, its_noise in zip(x_start.tolist(), t.tolist(), noise.tolist(), strict=True):
        for row, noises in zip(picture[0], its_noise[0], strict=True):
            for x, e in zip(row, noises, strict=True):
                x_t = math.sqrt(bars[step]) * x + math.sqrt(1 - bars[step]) * e
                total += (a * x_t + b * step / schedule.T + c - e) ** 2
    return total / noise.numel()


def _answer(model, schedule, x_start, t, noise) -> tuple[Tensor, Tensor]:
    """What the model is shown, and what it says."""
    x_t = q_sample(schedule, x_start, t, noise)
    return x_t, model(x_t, t, None)


def _reported_afterwards(model, optimizer, schedule, x_start, t, noise) -> float:
    training_step(model, optimizer, schedule, x_start, t, noise)
    return (_answer(model, schedule, x_start, t, noise)[1] - noise).square().mean().item()


def _weights_after(answer, generator, steps: int) -> tuple[Tensor, Tensor]:
    """The model's weights after some turns on the same pictures, and what gradients by hand make of them."""
    model, optimizer, schedule, x_start, t, noise = _draw_step(generator)
    x_t = q_sample(schedule, x_start, t, noise)
    columns = torch.stack(
        [x_t, (t.double() / schedule.T).reshape(-1, 1, 1, 1).expand_as(x_t), torch.ones_like(x_t)]
    ).flatten(1)
    wanted = torch.tensor(model.born, dtype=torch.float64)
    for _ in range(steps):
        answer(model, optimizer, schedule, x_start, t, noise)
        wanted = wanted - 0.1 * 2 * columns @ (wanted @ columns - noise.flatten()) / noise.numel()
    return model.weights.detach(), wanted


def _follows_the_gradient(answer, generator) -> str | None:
    found, wanted = _weights_after(answer, generator, 1)
    if torch.allclose(found, wanted, rtol=1e-6):
        return None
    return (
        "gives the right loss, but the model's weights are not where one step of the optimizer leads. It takes "
        "loss.backward() and then, once, optimizer.step()."
    )


def _forgets_the_last_gradient(answer, generator) -> str | None:
    found, wanted = _weights_after(answer, generator, 3)
    if torch.allclose(found, wanted, rtol=1e-6):
        return None
    return (
        "is right once and wrong when called again: PyTorch adds each gradient to the one before. Call "
        "optimizer.zero_grad() before loss.backward()."
    )


TRAINING_STEP = Exercise(
    id="9.1",
    title="one step of training",
    reference=training_step,
    independent=_by_loops,
    draw=_draw_step,
    properties=(_follows_the_gradient, _forgets_the_last_gradient),
    mistakes=(
        Mistake(
            "the loss of the updated weights",
            _reported_afterwards,
            "asks the model a second time, after the update, and reports that loss. It is another network's loss, and "
            "it costs another pass: return the loss that the gradient was taken of.",
        ),
        Mistake(
            "the clean picture as the goal",
            lambda m, o, s, x, t, e: (_answer(m, s, x, t, e)[1] - x).square().mean().item(),
            "compares the model's answer with the clean picture. The model was asked for the noise.",
        ),
        Mistake(
            "the clean picture shown",
            lambda m, o, s, x, t, e: (m(x, t, None) - e).square().mean().item(),
            "shows the model the clean picture. It should see x_t = q_sample(schedule, x_start, t, noise).",
        ),
        Mistake(
            "the noise shown",
            lambda m, o, s, x, t, e: (m(e, t, None) - e).square().mean().item(),
            "shows the model the noise itself. It should see x_t = q_sample(schedule, x_start, t, noise).",
        ),
        Mistake(
            "the time not told",
            lambda m, o, s, x, t, e: (m(q_sample(s, x, t, e), 0 * t, None) - e).square().mean().item(),
            "tells the model t = 0 whatever t is. Hand on `t`.",
        ),
        Mistake(
            "a sum in place of a mean",
            lambda m, o, s, x, t, e: (_answer(m, s, x, t, e)[1] - e).square().sum().item(),
            "adds the squared errors up. Take their mean, or the step would grow with the number of pixels.",
        ),
        Mistake(
            "errors not squared",
            lambda m, o, s, x, t, e: (_answer(m, s, x, t, e)[1] - e).abs().mean().item(),
            "takes the mean of the errors' sizes. Equation 9.1 has their squares.",
        ),
    ),
    hints=(
        "Three things in order: the loss, its gradient, the update. The loss needs x_t = q_sample(schedule, x_start, "
        "t, noise) and the model's answer model(x_t, t, None).",
        "loss = (answer - noise).square().mean(); then optimizer.zero_grad(), loss.backward(), optimizer.step().",
        "Return loss.item(): a plain number, which holds on to no graph.",
    ),
)

# --- 9.2 keep the best -----------------------------------------------------------------------------------------------


def _draw_scores(generator: torch.Generator) -> tuple[list[float]]:
    """Scores that fall with noise, with ties, and now and then one that is not a number, at the start too."""
    n = int(torch.randint(8, 20, (), generator=generator))
    falling = 1 / (1 + torch.arange(n) / 4) + 0.25 * torch.randn(n, generator=generator)
    scores = [round(s, 1) for s in falling.tolist()]
    scores[int(torch.randint(0, n, (), generator=generator))] = math.nan
    if torch.rand((), generator=generator) < 0.3:
        scores[0] = math.nan
    elif math.isnan(scores[0]):
        scores[0] = 1.5
    best = min(range(n), key=lambda k: (math.isnan(scores[k]), scores[k]))
    return ([*scores, scores[best], 9.0, 8.0],)  # a tie with the best, and two that only beat the one before


def _each_against_all_before(scores: list[float]) -> list[bool]:
    return [s == s and all(not s >= earlier for earlier in scores[:k]) for k, s in enumerate(scores)]


def _keep(scores: list[float], better) -> list[bool]:
    """Go through the scores; `better(score, best, before)` says whether to keep."""
    best, before, found = math.inf, math.inf, []
    for score in scores:
        found.append(better(score, best, before))
        best = score if found[-1] else best
        before = score
    return found


IMPROVEMENTS = Exercise(
    id="9.2",
    title="keep the best",
    reference=improvements,
    independent=_each_against_all_before,
    draw=_draw_scores,
    mistakes=(
        Mistake(
            "compared with the one before",
            lambda scores: _keep(scores, lambda score, best, before: score < before),
            "compares each score with the one before it. A good network would be overwritten by one that is merely "
            "better than its predecessor: compare with the best so far.",
        ),
        Mistake(
            "ties count",
            lambda scores: _keep(scores, lambda score, best, before: score <= best),
            "also keeps a score that equals the best. That is no improvement, and writes the file for nothing: use <.",
        ),
        Mistake(
            "NaN counts",
            lambda scores: _keep(scores, lambda score, best, before: not score >= best),
            "keeps a score that is not a number. Every comparison with NaN is false, so ask `score < best`, not "
            "`not score >= best`.",
        ),
        Mistake(
            "highest kept",
            lambda scores: _keep([-s for s in scores], lambda score, best, before: score < best),
            "keeps the highest scores. These are losses: lower is better.",
        ),
        Mistake(
            "only the last one",
            lambda scores: [k == scores.index(min(s for s in scores if s == s)) for k in range(len(scores))],
            "is True for the best score only. While training runs nobody knows that it will be the best: the file is "
            "written each time a score beats all before it.",
        ),
        Mistake(
            "never the first",
            lambda scores: [False, *_each_against_all_before(scores)[1:]],
            "leaves the first score out. Nothing stands before it, so it is the best so far and is kept.",
        ),
    ),
    hints=(
        "Go through the scores once and remember the best so far. Before the first there is none: start with math.inf.",
        "for score in scores: append score < best to a list, and if it is True, remember the score as the new best.",
    ),
)

EXERCISES = (TRAINING_STEP, IMPROVEMENTS, ANCESTRAL, TRUE_TIMES)
