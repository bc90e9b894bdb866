"""Lesson 05, forward noising: exercises 5.1 to 5.5 with the mistakes that are usually made in them.

The two on schedules, 5.4 and 5.5, stand in `schedules`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.diffusion import Schedule, q_sample, q_step
from course_lib.lesson.exercises.schedules import COSINE_BETAS, LOG_SNR
from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.pixels import from_uint8

# --- 5.1 bytes to [-1, 1] ------------------------------------------------------------------------------------------


def _draw_pixels(generator: torch.Generator) -> tuple[Tensor]:
    side = int(torch.randint(2, 9, (), generator=generator))
    return (torch.randint(0, 256, (2, 1, side, side), generator=generator, dtype=torch.uint8),)


def _table_lookup(pixels: Tensor) -> Tensor:
    table = torch.tensor([-1 + 2 * value / 255 for value in range(256)], dtype=torch.float64)
    return table[pixels.long()]


def _ends_are_exact(answer, generator) -> str | None:
    ends = answer(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).double().flatten().tolist()
    return None if ends == [-1.0, 1.0] else f"maps 0 and 255 to {ends[0]} and {ends[1]}: black must be -1, white 1."


FROM_UINT8 = Exercise(
    id="5.1",
    title="bytes to [-1, 1]",
    reference=from_uint8,
    independent=_table_lookup,
    draw=_draw_pixels,
    properties=(_ends_are_exact,),
    atol=1e-6,
    mistakes=(
        Mistake(
            "range 0 to 1",
            lambda p: p.float() / 255,
            "maps to [0, 1]. Noise is centred on 0, so the image must be too: stretch [0, 1] to [-1, 1].",
        ),
        Mistake(
            "mean and std of the data set",
            lambda p: (p.float() / 255 - 0.2856) / 0.3385,
            "divides by the data set's mean and std. That gives the range [-0.84, 2.11], and clamping to [-1, 1] "
            "later cuts off everything brighter than 62% of white.",
        ),
        Mistake(
            "divided by 128",
            lambda p: p.float() / 128 - 1,
            "divides by 128, so white becomes 0.992 and the way back is no longer exact: divide by 127.5.",
        ),
        Mistake(
            "divided by 127",
            lambda p: p.float() / 127 - 1,
            "divides by 127, so white becomes 1.008. The middle between 0 and 255 is 127.5.",
        ),
        Mistake(
            "centred but half as wide",
            lambda p: p.float() / 255 - 0.5,
            "is centred on 0 but reaches only from -0.5 to 0.5: stretch it to [-1, 1].",
        ),
        Mistake(
            "bytes wrap around",
            lambda p: p * 2 / 255 - 1,
            "computes `pixels * 2` while the pixels are still bytes: 200 * 2 wraps around to 144. Convert first.",
        ),
    ),
    hints=(
        "Two points fix a straight line: 0 must become -1, and 255 must become 1.",
        "The range 0…255 is 255 wide and the target is 2 wide, so divide by 127.5. Convert to float before you do.",
        "pixels.float() / 127.5, and then shift by one.",
    ),
)

# --- 5.2 one step and 5.3 all steps at once ------------------------------------------------------------------------


def _draw_step(generator: torch.Generator) -> tuple[Schedule, Tensor, Tensor, Tensor]:
    T = int(torch.randint(30, 200, (), generator=generator))
    schedule = Schedule.linear(T) if torch.rand((), generator=generator) < 0.5 else Schedule.cosine(T)
    batch = int(torch.randint(2, 5, (), generator=generator))
    t = torch.randint(1, T, (batch,), generator=generator)  # from 1: at 0 one step and all steps are the same
    x, noise = (torch.randn((batch, 1, 4, 4), generator=generator) for _ in range(2))
    return schedule, x, t, noise


def _per_image(table: Tensor, t: Tensor) -> Tensor:
    return table.float()[t].view(-1, 1, 1, 1)


def _step_by_hand(schedule: Schedule, x_prev: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    images = []
    for image, step, z in zip(x_prev.double(), t.tolist(), noise.double(), strict=True):
        beta = float(schedule.betas[step])
        images.append(math.sqrt(1 - beta) * image + math.sqrt(beta) * z)
    return torch.stack(images)


def _shot_by_hand(schedule: Schedule, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    images = []
    for image, step, z in zip(x_start.double(), t.tolist(), noise.double(), strict=True):
        kept = math.prod(1 - beta for beta in schedule.betas[: step + 1].tolist())
        images.append(math.sqrt(kept) * image + math.sqrt(1 - kept) * z)
    return torch.stack(images)


def _takes_one_number_and_any_shape(answer, generator) -> str | None:
    """As the lesson uses it: a single t for all images, and data that is no picture at all."""
    schedule, _, _, _ = _draw_step(generator)
    x, noise = torch.randn((2, 6), generator=generator)
    try:
        one, each = answer(schedule, x, 7, noise), answer(schedule, x, torch.full((6,), 7), noise)
        same = one.shape == each.shape == x.shape and torch.allclose(one.double(), each.double(), atol=1e-5)
    except Exception:  # whatever an answer does with a shape that it was not written for
        same = False
    if same:
        return None
    return (
        "works for images with one step each, but not for plain numbers x of shape (n,) or for a single t such as 7, "
        "and the lesson needs both. gather(schedule.alpha_bars, t, x_start) fits every case."
    )


def _keeps_unit_variance(answer, generator) -> str | None:
    schedule = Schedule.linear(100)
    x, noise = torch.randn((2, 1, 1, 100, 100), generator=generator)
    variance = float(answer(schedule, x, torch.tensor([40]), noise).var())
    if abs(variance - 1) < 0.06:  # the std of this estimate is √(2/10⁴) = 0.014: four of them
        return None
    return f"turns pixels of variance 1 into variance {variance:.2f}: the squares of the two weights must sum to 1."


Q_STEP = Exercise(
    id="5.2",
    title="one noising step",
    reference=q_step,
    independent=_step_by_hand,
    draw=_draw_step,
    properties=(_keeps_unit_variance,),
    mistakes=(
        Mistake(
            "variance used as standard deviation",
            lambda s, x, t, z: (1 - _per_image(s.betas, t)).sqrt() * x + _per_image(s.betas, t) * z,
            "multiplies the noise by β. β is a variance; noise is multiplied by a standard deviation: take the root.",
        ),
        Mistake(
            "no root on the image's weight",
            lambda s, x, t, z: (1 - _per_image(s.betas, t)) * x + _per_image(s.betas, t).sqrt() * z,
            "multiplies the image by 1 - β. Its variance would shrink by (1 - β)²: take the root of 1 - β too.",
        ),
        Mistake(
            "no roots",
            lambda s, x, t, z: (1 - _per_image(s.betas, t)) * x + _per_image(s.betas, t) * z,
            "uses β and 1 - β without their roots. They are variances; images and noise are multiplied by the roots.",
        ),
        Mistake(
            "image and noise swapped",
            lambda s, x, t, z: _per_image(s.betas, t).sqrt() * x + (1 - _per_image(s.betas, t)).sqrt() * z,
            "gives the image's weight to the noise and the noise's to the image: one step would erase the picture.",
        ),
        Mistake(
            "root over the product",
            lambda s, x, t, z: ((1 - _per_image(s.betas, t)) * x).sqrt() + (_per_image(s.betas, t) * z).sqrt(),
            "takes the root of weight times image. The root covers the weight alone; a dark pixel has no root (NaN).",
        ),
        Mistake(
            "image not shrunk",
            lambda s, x, t, z: x + _per_image(s.betas, t).sqrt() * z,
            "adds noise without shrinking the image first, so the variance grows at every step. Weigh x by √(1 - β).",
        ),
        Mistake(
            "ᾱ in place of α",
            lambda s, x, t, z: _per_image(s.alpha_bars, t).sqrt() * x + (1 - _per_image(s.alpha_bars, t)).sqrt() * z,
            "uses ᾱ_t, which holds all steps up to t. One single step uses β_t (and α_t = 1 - β_t).",
        ),
        Mistake(
            "t off by one",
            lambda s, x, t, z: (1 - _per_image(s.betas, t - 1)).sqrt() * x + _per_image(s.betas, t - 1).sqrt() * z,
            "reads the table at t - 1. Use t as it comes: in code it counts from 0 already, so no shift is needed.",
        ),
    ),
    hints=(
        "Two weights whose squares sum to 1: one for the image, one for the noise.",
        "beta = gather(schedule.betas, t, x_prev) is β for every image, in a shape that multiplies x_prev.",
        "The noise's weight is the square root of beta; the image's weight is the square root of what is left.",
    ),
)

Q_SAMPLE = Exercise(
    id="5.3",
    title="all steps in one shot",
    reference=q_sample,
    independent=_shot_by_hand,
    draw=_draw_step,
    properties=(_keeps_unit_variance, _takes_one_number_and_any_shape),
    mistakes=(
        Mistake(
            "variance used as standard deviation",
            lambda s, x, t, z: _per_image(s.alpha_bars, t).sqrt() * x + (1 - _per_image(s.alpha_bars, t)) * z,
            "multiplies the noise by 1 - ᾱ. That is a variance; multiply by its root. (The best-known courses have "
            "shipped this very slip.)",
        ),
        Mistake(
            "no root on the image's weight",
            lambda s, x, t, z: _per_image(s.alpha_bars, t) * x + (1 - _per_image(s.alpha_bars, t)).sqrt() * z,
            "multiplies the image by ᾱ instead of √ᾱ: ᾱ is a share of variance, the image needs its root.",
        ),
        Mistake(
            "α in place of ᾱ",
            lambda s, x, t, z: _per_image(s.alphas, t).sqrt() * x + (1 - _per_image(s.alphas, t)).sqrt() * z,
            "uses α_t, the share that a single step keeps. All t steps together keep the product, ᾱ_t.",
        ),
        Mistake(
            "weights that sum to 1",
            lambda s, x, t, z: _per_image(s.alpha_bars, t).sqrt() * x + (1 - _per_image(s.alpha_bars, t).sqrt()) * z,
            "makes the weights sum to 1, like an average. Variances add, not standard deviations: the squares of the "
            "weights must sum to 1.",
        ),
        Mistake(
            "product up to T",
            lambda s, x, t, z: s.alpha_bars[-1].sqrt().float() * x + (1 - s.alpha_bars[-1]).sqrt().float() * z,
            "uses the product of all T alphas for every t. ᾱ_t stops at t: read alpha_bars at t.",
        ),
        Mistake(
            "t off by one",
            lambda s, x, t, z: (
                _per_image(s.alpha_bars, t - 1).sqrt() * x + (1 - _per_image(s.alpha_bars, t - 1)).sqrt() * z
            ),
            "reads alpha_bars at t - 1. Use t as it comes: in code it counts from 0 already, so no shift is needed.",
        ),
        Mistake(
            "no roots",
            lambda s, x, t, z: _per_image(s.alpha_bars, t) * x + (1 - _per_image(s.alpha_bars, t)) * z,
            "uses ᾱ and 1 - ᾱ without their roots. They are variances; image and noise are multiplied by the roots.",
        ),
        Mistake(
            "noise of one step",
            lambda s, x, t, z: _per_image(s.alpha_bars, t).sqrt() * x + _per_image(s.betas, t).sqrt() * z,
            "adds only the noise of step t, √β_t. All the noise up to t has the variance 1 - ᾱ_t.",
        ),
        Mistake(
            "image and noise swapped",
            lambda s, x, t, z: (1 - _per_image(s.alpha_bars, t)).sqrt() * x + _per_image(s.alpha_bars, t).sqrt() * z,
            "gives the image's weight to the noise and the noise's to the image: early images would be all noise.",
        ),
    ),
    hints=(
        "The same shape of formula as one step, with ᾱ_t in the place of α_t = 1 - β_t.",
        "gather(schedule.alpha_bars, t, x_start) is ᾱ for every image. Which root goes with the image, which with "
        "the noise?",
        "√ᾱ_t times the image plus √(1 - ᾱ_t) times the noise.",
    ),
)

EXERCISES = (FROM_UINT8, Q_STEP, Q_SAMPLE, LOG_SNR, COSINE_BETAS)
