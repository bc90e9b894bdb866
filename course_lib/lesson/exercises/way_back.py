"""Lesson 09, the way back: exercises 9.3 and 9.4."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.diffusion import Schedule, ancestral, true_times
from course_lib.lesson.tasks import Exercise, Mistake

# --- 9.3 from noise to pictures --------------------------------------------------------------------------------------


class _Wave:
    """A network that looks at the picture and the time, and declares nothing but that it predicts noise."""

    prediction = "noise"

    def __init__(self, T: int, speed: float) -> None:
        self.T, self.speed = T, speed

    def __call__(self, x_t: Tensor, t: Tensor, cond: None = None) -> Tensor:
        time = (t.double() / self.T).reshape(-1, *[1] * (x_t.ndim - 1)).to(x_t.dtype)
        return torch.sin(self.speed * x_t) + time * x_t


def _draw_way(generator: torch.Generator) -> tuple:
    T = int(torch.randint(25, 40, (), generator=generator))
    model = _Wave(T, 0.5 + torch.rand((), generator=generator).item())
    x = torch.randn(2, 1, 3, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(T, 2, 1, 3, 3, generator=generator, dtype=torch.float64)
    return (
        model,
        Schedule.linear(T),
        x,
        noise,
        (None, (-1, 1), (-0.8, 0.6))[int(torch.randint(0, 3, (), generator=generator))],
    )


def _walk(model, schedule, x, noise, clip, *, power=0.5, told=0, order=-1, which=None, large=False, last=False, **bent):
    """All steps, with precisions that add (lesson 01) in place of the posterior's tables; one thing may be bent."""
    bars, T, share = schedule.alpha_bars.tolist(), schedule.T, bent.get("share", 1.0)
    for t in range(T)[::order]:
        bar, bar_prev = bars[t], bars[t - 1] if t else 1.0
        alpha = bar / bar_prev
        told_t = torch.full((len(x),), min(max(t + told, 0), T - 1))
        guess = (x - (1 - bar) ** 0.5 * model(x, told_t, None)) / bar**0.5
        if clip is not None:
            guess = guess.clip(*clip)
        if bent.get("jump"):  # always straight to the guess, noised anew
            x = bar_prev**0.5 * guess + (1 - bar_prev) ** 0.5 * noise[t]
            continue
        if t == 0:
            x = guess + ((1 - alpha) ** 0.5 * noise[t] if last else 0)
            continue
        precision = 1 / (1 - bar_prev) + alpha / (1 - alpha)
        mean = (bar_prev**0.5 * guess / (1 - bar_prev) + alpha**0.5 * x / (1 - alpha)) / precision
        variance = 1 - alpha if large else 1 / precision
        x = mean + share * variance**power * noise[t if which is None else which]
    return x


def _single_pixels(answer, generator) -> str | None:
    model, schedule, _, noise, clip = _draw_way(generator)
    x, noise = noise[0, :, 0, 0, 0], noise[:, :, 0, 0, 0]
    try:
        found = answer(model, schedule, x, noise, clip)
    except Exception:
        found = None
    if (
        found is not None
        and found.shape == x.shape
        and torch.allclose(found.double(), _walk(model, schedule, x, noise, clip))
    ):
        return None
    return "fits pictures only. It should also take a batch of single pixels, of shape (batch,): `posterior` fits both."


ANCESTRAL = Exercise(
    id="9.3",
    title="from noise to pictures",
    reference=ancestral,
    independent=_walk,
    draw=_draw_way,
    properties=(_single_pixels,),
    mistakes=(
        Mistake(
            "variance used as standard deviation",
            lambda *a: _walk(*a, power=1.0),
            "multiplies the fresh noise by the variance. Take the root: noise is multiplied by a standard deviation.",
        ),
        Mistake(
            "no fresh noise",
            lambda *a: _walk(*a, share=0.0),
            "adds no noise in its steps. Each step is a draw: posterior mean plus root of the variance times noise[t].",
        ),
        Mistake(
            "noise at the last step",
            lambda *a: _walk(*a, large=True, last=True),
            "uses the variance β, which is not 0 at the last step: the finished picture gets noise on top. Use the "
            "posterior's variance.",
        ),
        Mistake(
            "the large variance",
            lambda *a: _walk(*a, large=True),
            "uses the variance β. That is a possible choice, but here the posterior's is asked for.",
        ),
        Mistake(
            "not clipped",
            lambda *a: _walk(*a[:4], None),
            "does not clip the guessed clean picture. Hand `clip` on to x_start_and_noise.",
        ),
        Mistake(
            "forwards in time",
            lambda *a: _walk(*a, order=1),
            "goes from t = 0 upwards. The way back starts at T - 1: reversed(range(schedule.T)).",
        ),
        Mistake(
            "told the step after",
            lambda *a: _walk(*a, told=1),
            "tells the model t + 1. Indices run from 0 to T - 1, and x at index t is asked about with t.",
        ),
        Mistake(
            "the same noise in every step",
            lambda *a: _walk(*a, which=0),
            "uses the same noise in every step. Each step has its own: noise[t].",
        ),
        Mistake(
            "the guess noised anew",
            lambda *a: _walk(*a, jump=True),
            "takes the guess for the truth and noises it to t - 1 with q_sample. A step is a draw from `posterior`, "
            "which also remembers x_t.",
        ),
    ),
    hints=(
        "One loop, for t in reversed(range(schedule.T)). In it: ask the model, guess x_start, take mean and variance "
        "of the posterior, draw the new x.",
        "steps = torch.full((len(x),), t, device=x.device); x_start, _ = x_start_and_noise(schedule, x, steps, "
        'prediction, "noise", clip); mean, variance = posterior(schedule, x_start, x, steps).',
        "x = mean + variance.sqrt() * noise[t]. At t = 0 the variance is 0 by itself. Ask the model under "
        "torch.no_grad(): nothing is learned here.",
    ),
)

# --- 9.4 true times --------------------------------------------------------------------------------------------------


def _draw_positions(generator: torch.Generator) -> tuple[int, list[int]]:
    T = int(torch.randint(40, 1000, (), generator=generator))
    return T, [0, *sorted(torch.randint(1, T - 1, (6,), generator=generator).tolist()), -2, -1]


def _by_counting(T: int, positions: list[int]) -> list[int]:
    found = []
    for k in positions:
        steps_done = k + 1 if k >= 0 else T + k + 1
        found.append(T - steps_done)
    return found


TRUE_TIMES = Exercise(
    id="9.4",
    title="the true time of each column",
    reference=true_times,
    independent=_by_counting,
    draw=_draw_positions,
    mistakes=(
        Mistake(
            "the place taken for the time",
            lambda T, positions: [k % T for k in positions],
            "labels a state with its place in the list. The list runs backwards in time: its first state is the "
            "noisiest, with t = T - 1.",
        ),
        Mistake(
            "one too many",
            lambda T, positions: [T - k % T for k in positions],
            "is too high by 1. The first state in the list is what the first step made of x_T: it belongs to T - 1.",
        ),
        Mistake(
            "the index for the time",
            lambda T, positions: [T - 2 - k % T for k in positions],
            "is too low by 1: it gives the index that the code uses for the state, and -1 at the end. Asked is the "
            "time of the formulas, which is 0 for the clean picture.",
        ),
        Mistake(
            "one too many, and negative places",
            lambda T, positions: [T - k for k in positions],
            "gives T for the first state and more than T for negative positions. One step was taken before the first "
            "state, so it belongs to T - 1; and position -1 is the last of the T states: count it as T - 1.",
        ),
        Mistake(
            "negative places",
            lambda T, positions: [T - 1 - k for k in positions],
            "gives times of T and more for negative positions. -1 is the last of the T states: count it as T - 1.",
        ),
    ),
    hints=(
        "Which time has the first state in the list, position 0? One step was taken, from x_T. And the last, T - 1?",
        "Position k belongs to T - 1 - k. For a negative k, first add T: in Python k % T does that.",
    ),
)
