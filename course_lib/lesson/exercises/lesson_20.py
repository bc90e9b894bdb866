"""Lesson 20, where next: exercises 20.1 to 20.3, flow matching and distillation, with their usual mistakes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.diffusion import flow_path, one_step_target
from course_lib.lesson.exercises.step_draws import bars, draw_jump
from course_lib.lesson.tasks import Exercise, Mistake


def _share(t: Tensor, like: Tensor) -> Tensor:
    return t.to(like).reshape(-1, *[1] * (like.ndim - 1))


def _draw_places(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Two batches of points or of pictures, and a time for each pair."""
    shape = ((4, 2), (3, 1, 4, 4))[int(torch.randint(0, 2, (), generator=generator))]
    a, b = torch.randn((2, *shape), generator=generator)
    t = 0.05 + 0.9 * torch.rand(shape[0], generator=generator)
    return a, t, b


# --- 20.1 a line and its velocity ------------------------------------------------------------------------------------


def _number_by_number(x_start: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Where the line is, and by how much it moves per unit of time: measured between t - 1/100 and t + 1/100."""

    def place(time: list[float]) -> list[list[float]]:
        rows = zip(x_start.flatten(1).tolist(), noise.flatten(1).tolist(), time, strict=True)
        return [[math.fsum((a, -s * a, s * z)) for a, z in zip(one, other, strict=True)] for one, other, s in rows]

    now = t.double().tolist()
    before, after = (torch.tensor(place([s + d for s in now]), dtype=torch.float64) for d in (-0.01, 0.01))
    here = torch.tensor(place(now), dtype=torch.float64)
    return here.reshape(x_start.shape), ((after - before) / 0.02).reshape(x_start.shape)


def _reaches_both_ends(answer, generator) -> str | None:
    x_start, t, noise = _draw_places(generator)
    for end, wanted, name in ((0 * t, x_start, "x_start at t = 0"), (0 * t + 1, noise, "the noise at t = 1")):
        if not torch.allclose(answer(x_start, end, noise)[0].to(wanted), wanted, atol=1e-5):
            return f"does not reach {name}."
    return None


PATH = Exercise(
    id="20.1",
    title="a line and its velocity",
    reference=flow_path,
    independent=_number_by_number,
    draw=_draw_places,
    properties=(_reaches_both_ends,),
    mistakes=(
        Mistake(
            "time the other way",
            lambda x, t, z: (_share(t, x) * x + (1 - _share(t, x)) * z, x - z),
            "lets time run from noise to data, as many papers do. In this course t = 0 is the clean picture and t = 1 "
            "noise.",
        ),
        Mistake(
            "velocity with the wrong sign",
            lambda x, t, z: (flow_path(x, t, z)[0], x - z),
            "has the right place, but a velocity that points from noise to picture. As t grows, x_t moves towards the "
            "noise: differentiate equation 20.1.",
        ),
        Mistake(
            "place the other way",
            lambda x, t, z: (_share(t, x) * x + (1 - _share(t, x)) * z, z - x),
            "has the right velocity, but swaps picture and noise in x_t: at t = 0 it is noise.",
        ),
        Mistake(
            "roots, as in diffusion",
            lambda x, t, z: ((1 - _share(t, x)).sqrt() * x + _share(t, x).sqrt() * z, z - x),
            "takes roots of the shares, as diffusion does to keep the variance. The straight line has none.",
        ),
        Mistake(
            "the way left to go",
            lambda x, t, z: (flow_path(x, t, z)[0], _share(t, x) * (z - x)),
            "gives the way travelled until t, t (noise - x_start). The velocity is the way per unit of time.",
        ),
    ),
    hints=(
        "t has one number per example, x_start any shape behind that: t.reshape(-1, *[1] * (x_start.ndim - 1)) "
        "multiplies it.",
        "Equation 20.1 gives the place. Differentiate it by t: (1 - t) becomes -1, t becomes 1.",
        "return (1 - t) * x_start + t * noise, noise - x_start",
    ),
)

# --- 20.2 what a velocity says ---------------------------------------------------------------------------------------


def from_velocity(x_t: Tensor, t: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
    """(x_start, noise): both ends of the line through x_t with this velocity, t (batch,) between 0 and 1."""
    share = t.to(x_t).reshape(-1, *[1] * (x_t.ndim - 1))
    return x_t - share * velocity, x_t + (1 - share) * velocity


def _two_equations(x_t: Tensor, t: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
    """Solve (1 - t) x_start + t noise = x_t and noise - x_start = velocity, example by example."""
    found = []
    for x, s, u in zip(x_t.double(), t.double().tolist(), velocity.double(), strict=True):
        matrix = torch.tensor([[1 - s, s], [-1.0, 1.0]], dtype=torch.float64)
        found.append(torch.linalg.solve(matrix, torch.stack([x.flatten(), u.flatten()])))
    x_start, noise = torch.stack(found).unbind(dim=1)
    return x_start.reshape(x_t.shape), noise.reshape(x_t.shape)


def _ends_make_up_the_place(answer, generator) -> str | None:
    x_start, t, noise = _draw_places(generator)
    x_t, velocity = flow_path(x_start, t, noise)
    ends = answer(x_t, t, velocity)
    if all(
        torch.allclose(found.to(x_t), wanted, atol=1e-4) for found, wanted in zip(ends, (x_start, noise), strict=True)
    ):
        return None
    return "does not give back the two ends that a line was made of."


ENDS = Exercise(
    id="20.2",
    title="what a velocity says",
    reference=from_velocity,
    independent=_two_equations,
    draw=_draw_places,
    properties=(_ends_make_up_the_place,),
    mistakes=(
        Mistake(
            "steps of the wrong length",
            lambda x, t, u: (x - (1 - _share(t, x)) * u, x + _share(t, x) * u),
            "goes the wrong way lengths: from x_t it is t back to the picture, and 1 - t on to the noise.",
        ),
        Mistake(
            "the wrong sign",
            lambda x, t, u: (x + _share(t, x) * u, x - (1 - _share(t, x)) * u),
            "walks the wrong way. The velocity points from picture to noise: the picture lies at x_t minus t times it.",
        ),
        Mistake(
            "noise and picture swapped",
            lambda x, t, u: (x + (1 - _share(t, x)) * u, x - _share(t, x) * u),
            "returns the noise first. First x_start, then the noise.",
        ),
        Mistake(
            "as if x_t were noise",
            lambda x, t, u: (x - u, x),
            "is right at t = 1 only: it walks the whole line, though x_t may be half-way already.",
        ),
        Mistake(
            "rotated, as v",
            lambda x, t, u: (
                (1 - _share(t, x)).sqrt() * x - _share(t, x).sqrt() * u,
                _share(t, x).sqrt() * x + (1 - _share(t, x)).sqrt() * u,
            ),
            "is the formula for v of lesson 06. A velocity is another mixture: noise minus x_start, without factors.",
        ),
    ),
    hints=(
        "From x_t it takes the time t to walk back to the picture, at this velocity.",
        "And the time 1 - t to walk on to the noise.",
        "return x_t - t * velocity, x_t + (1 - t) * velocity, with t shaped to multiply x_t.",
    ),
)

# --- 20.3 two steps in one -------------------------------------------------------------------------------------------


def _draw_end(generator: torch.Generator) -> tuple:
    schedule, x_t, x_end, t, t_end, *_ = draw_jump(generator)
    return schedule, x_t, x_end, t, t_end


def _by_solving(schedule, x_t, x_end, t, t_end) -> Tensor:
    """One x_start and one noise that make up x_t at t and x_end at t_end: two equations."""
    rows = [[math.sqrt(bar), math.sqrt(1 - bar)] for bar in bars(schedule, t, t_end)]
    known = torch.stack([x_t.flatten(), x_end.flatten()]).double()
    return torch.linalg.solve(torch.tensor(rows, dtype=torch.float64), known)[0].reshape(x_t.shape)


def _target(schedule, x_t, x_end, t, t_end, *, ratio=None, wrap=False):
    bar, end = bars(schedule, t, t_end)
    end = float(schedule.alpha_bars[t_end]) if wrap else end
    r = math.sqrt((1 - end) / (1 - bar)) if ratio is None else ratio(bar, end)
    return (x_end - r * x_t) / (math.sqrt(end) - r * math.sqrt(bar))


TWO_IN_ONE = Exercise(
    id="20.3",
    title="two steps in one",
    reference=one_step_target,
    independent=_by_solving,
    draw=_draw_end,
    draws=32,
    mistakes=(
        Mistake(
            "where the teacher arrives",
            lambda schedule, x_t, x_end, t, t_end: x_end / bars(schedule, t, t_end)[1] ** 0.5,
            "takes x_end for a clean picture. Unless t_end is -1 there is noise in it: use x_t to find out how much.",
        ),
        Mistake(
            "variances in place of roots",
            lambda *a: _target(*a, ratio=lambda bar, end: (1 - end) / (1 - bar)),
            "compares variances of noise. Noise is multiplied by standard deviations: take the root of the ratio.",
        ),
        Mistake(
            "ratio upside down",
            lambda *a: _target(*a, ratio=lambda bar, end: math.sqrt((1 - bar) / (1 - end)) if end < 1 else math.nan),
            "divides the noise of x_t by that of x_end. Less noise is left at the end: r is below 1.",
        ),
        Mistake(
            "ᾱ read from the table's end",
            lambda *a: _target(*a, wrap=True),
            "reads alpha_bars[-1] when t_end is -1. That is ᾱ of pure noise; -1 means the clean picture, where ᾱ = 1.",
        ),
    ),
    hints=(
        "One step of DDIM writes x_end with the same x_start and noise as x_t: x_t = a x_start + s noise, "
        "x_end = a_end x_start + s_end noise. Get rid of the noise.",
        "With r = s_end / s, x_end - r x_t holds x_start alone, with the factor a_end - r a. At t_end = -1 take ᾱ = 1.",
        "return (x_end - r * x_t) / (bar_end ** 0.5 - r * bar ** 0.5), bar = schedule.alpha_bars[t].",
    ),
)

EXERCISES = (PATH, ENDS, TWO_IN_ONE)
