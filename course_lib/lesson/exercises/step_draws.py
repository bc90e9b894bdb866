"""Random steps of a sampler to try answers on, and both readings of a prediction without the library's help."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.diffusion import Schedule

KINDS = ("noise", "x_start", "v")
CLIPS = (None, (-1.0, 1.0), (-0.84, 0.6))


def _some(options: tuple, generator: torch.Generator) -> object:
    return options[int(torch.randint(0, len(options), (), generator=generator))]


def _schedule(generator: torch.Generator) -> Schedule:
    T = int(torch.randint(40, 200, (), generator=generator))
    return _some((Schedule.linear, Schedule.cosine), generator)(T)


def draw_jump(generator: torch.Generator) -> tuple:
    """(schedule, x_t, prediction, t, t_prev, noise, kind, clip): a jump over several steps, often to the end, -1."""
    schedule = _schedule(generator)
    t = int(torch.randint(10, 4 * schedule.T // 5, (), generator=generator))  # beyond, x_start is hardly determined
    t_prev = -1 if torch.rand((), generator=generator) < 0.4 else int(torch.randint(3, t - 2, (), generator=generator))
    x_t, prediction, noise = torch.randn((3, 3, 1, 4, 4), generator=generator, dtype=torch.float64)
    return schedule, x_t, prediction, t, t_prev, noise, _some(KINDS, generator), _some(CLIPS, generator)


def draw_reading(generator: torch.Generator) -> tuple:
    """(schedule, x_t, t, prediction, kind, clip) with one step per image."""
    schedule = _schedule(generator)
    t = torch.randint(3, 4 * schedule.T // 5, (3,), generator=generator)
    x_t, prediction = torch.randn((2, 3, 1, 4, 4), generator=generator, dtype=torch.float64)
    return schedule, x_t, t, prediction, _some(KINDS, generator), _some(CLIPS, generator)


def table_at(schedule: Schedule, t: int) -> float:
    """alpha_bars[t] as Python reads it: -1 is the table's end."""
    return float(schedule.alpha_bars[t])


def bars(schedule: Schedule, t: int, t_prev: int) -> tuple[float, float]:
    """ᾱ at both ends of a step; 1 at -1."""
    return table_at(schedule, t), 1.0 if t_prev < 0 else table_at(schedule, t_prev)


def both(
    schedule: Schedule, x_t: Tensor, prediction: Tensor, t: int | Tensor, kind: str, clip
) -> tuple[Tensor, Tensor]:
    """x_start and noise from two equations in two unknowns for every image."""
    bar = schedule.alpha_bars[torch.as_tensor(t)].expand(len(x_t))
    a, s, one, nought = bar.sqrt(), (1 - bar).sqrt(), torch.ones_like(bar), torch.zeros_like(bar)
    second = {"noise": (nought, one), "x_start": (one, nought), "v": (-s, a)}[kind]
    unknowns = torch.stack([a, s, *second], dim=1).reshape(-1, 2, 2)
    known = torch.stack([x_t.double().flatten(1), prediction.double().flatten(1)], dim=1)
    x_start, noise = torch.linalg.solve(unknowns, known).unbind(1)
    if clip is not None:
        x_start = x_start.clip(*clip)
        noise = (x_t.double().flatten(1) - a[:, None] * x_start) / s[:, None]
    return x_start.reshape(x_t.shape), noise.reshape(x_t.shape)
