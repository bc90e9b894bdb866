"""Sampling as lesson 09 writes it: the whole of algorithm 2 in one loop, and the times of what it leaves behind.

`samplers.ddpm` does the same and more: any steps, every kind of prediction, a state after each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.diffusion.prediction import Clip, x_start_and_noise
from course_lib.diffusion.reverse import posterior
from course_lib.diffusion.schedule import Schedule


def ancestral(
    model: Callable,
    schedule: Schedule,
    x: Float[Tensor, "batch *shape"],
    noise: Float[Tensor, "T batch *shape"],
    clip: Clip = (-1, 1),
) -> Float[Tensor, "batch *shape"]:
    """From pure noise x to pictures, in T steps (Ho et al. 2020, algorithm 2, small variance). model: predicts noise.

    noise[t] are the fresh N(0, 1) numbers of the step that starts at index t; clip: range of the guessed x_start.
    """
    for t in reversed(range(schedule.T)):
        steps = torch.full((len(x),), t, device=x.device)
        with torch.no_grad():
            prediction = model(x, steps, None)
        x_start, _ = x_start_and_noise(schedule, x, steps, prediction, "noise", clip)
        mean, variance = posterior(schedule, x_start, x, steps)
        x = mean + variance.sqrt() * noise[t]  # at t = 0 the variance is 0
    return x


def true_times(T: int, positions: Sequence[int]) -> list[int]:
    """The time t of some states of a sampler that keeps x after each of its T steps, in order: T - 1, …, 1, 0.

    positions: of the states in that list, as Python counts: 0 is the first, -1 the last. Time 0 is the clean picture.
    """
    return [list(range(T - 1, -1, -1))[k] for k in positions]
