"""Progressive distillation: a student learns to do in one DDIM step what its teacher does in two.

Then the student is the teacher, with half of the steps, and so on down to one. Whoever is taught learns from x_t alone:
what the right answer is says the teacher, not the data. Salimans & Ho 2022 (arXiv:2202.00512), section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.diffusion.forward import q_sample
from course_lib.diffusion.prediction import convert, prediction_kind, same_shape
from course_lib.diffusion.schedule import Schedule, alpha_bar_at, per_image
from course_lib.diffusion.spacing import checked_timesteps
from course_lib.diffusion.steps import ddim_step

Images = Float[Tensor, "batch *shape"]
Steps = Int[Tensor, "..."] | int


def one_step_target(schedule: Schedule, x_t: Images, x_end: Images, t: Steps, t_end: Steps) -> Images:
    """The x_start that takes a single DDIM step (eta 0) from x_t at t to exactly x_end at t_end; -1 is the clean end.

    (x_end - r x_t) / (√ᾱ_end - r √ᾱ_t) with r = √(1-ᾱ_end) / √(1-ᾱ_t). Salimans & Ho 2022, algorithm 2.
    """
    same_shape(x_t, x_end=x_end)
    bar, bar_end = alpha_bar_at(schedule, t, len(x_t)), alpha_bar_at(schedule, t_end, len(x_t), "t_end")
    if not (bar_end > bar).all():
        raise ValueError(f"t_end must be below t: a step removes noise; got t={t}, t_end={t_end}")
    r = ((1 - bar_end) / (1 - bar)).sqrt()
    whole = bar_end.sqrt() - r * bar.sqrt()
    return per_image(1 / whole, x_t) * x_end - per_image(r / whole, x_t) * x_t


@torch.no_grad()
def two_steps(
    teacher: Callable, schedule: Schedule, x_t: Images, t: Steps, t_mid: Steps, t_end: Steps, cond: object = None
) -> Images:
    """Where two DDIM steps of the teacher lead, t to t_mid to t_end. No gradient is kept."""
    kind = prediction_kind(teacher, None)
    for now, following in ((t, t_mid), (t_mid, t_end)):
        asked = torch.as_tensor(now, device=x_t.device).expand(len(x_t))
        x_t, _ = ddim_step(schedule, x_t, teacher(x_t, asked, cond), now, following, kind=kind)
    return x_t


def distillation_loss(
    student: Callable, teacher: Callable, schedule: Schedule, x_start: Images, place: Int[Tensor, " batch"],
    noise: Images, visited: Sequence[int], cond: object = None,
) -> Float[Tensor, " batch"]:  # fmt: skip
    """Mean squared error of the student's prediction against what two steps of the teacher amount to.

    visited: the steps of the teacher, an even number of them, highest first; the student's are every second one.
    place: for each example which of the student's steps is trained, 0 … len(visited)/2 - 1. The error is one of the
    kind that the student predicts. Let that be "v" or "x_start": from noise alone no single step can be made.
    """
    ts = checked_timesteps(visited, schedule.T)
    if len(ts) % 2:
        raise ValueError(f"visited holds {len(ts)} steps; to halve them there must be an even number")
    if (
        not isinstance(place, Tensor)
        or place.shape != (len(x_start),)
        or not ((place >= 0) & (place < len(ts) // 2)).all()
    ):
        raise ValueError(
            f"place must hold one whole number from 0 to {len(ts) // 2 - 1} for each of {len(x_start)} examples"
        )
    kind = prediction_kind(student, None)
    t, t_mid, t_end = (torch.tensor(each, device=place.device)[place] for each in (ts[::2], ts[1::2], [*ts[2::2], -1]))
    x_t = q_sample(schedule, x_start, t, noise)
    x_end = two_steps(teacher, schedule, x_t, t, t_mid, t_end, cond)
    wanted = convert(schedule, x_t, t, one_step_target(schedule, x_t, x_end, t, t_end), "x_start", kind)
    answer = student(x_t, t, cond)
    same_shape(x_t, answer=answer)
    return ((answer - wanted) ** 2).flatten(1).mean(dim=1)
