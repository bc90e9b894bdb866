"""Exercises on what a diffusion model pays: the prior term of its bound, and the simple loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.diffusion import Schedule, diffusion_loss, prior_kl
from course_lib.lesson.tasks import Exercise, Mistake

# --- 6.2 the prior term --------------------------------------------------------------------------------------------


def _draw_unfinished(generator: torch.Generator) -> tuple[Schedule, Tensor]:
    """A schedule that leaves 0.5 to 1% of the image's variance in x_T, so that the term is large enough to be seen."""
    left = 0.005 + 0.0045 * float(torch.rand((), generator=generator))
    T = int(torch.randint(20, 60, (), generator=generator))
    schedule = Schedule(torch.full((T,), 1 - left ** (1 / T), dtype=torch.float64))
    return schedule, 2 * torch.randn((int(torch.randint(2, 5, (), generator=generator)), 3, 4, 4), generator=generator)


def _prior_by_distributions(schedule: Schedule, x_start: Tensor) -> Tensor:
    kept = math.prod(1 - beta for beta in schedule.betas.tolist())
    standard = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    images = [
        torch.distributions.kl_divergence(
            torch.distributions.Normal(math.sqrt(kept) * image.double().flatten(), math.sqrt(1 - kept)), standard
        ).sum()
        for image in x_start
    ]
    return torch.stack(images)


def _prior_with(s: Schedule, x: Tensor, *, mean=None, variance=None, total=torch.sum, reverse: bool = False) -> Tensor:
    """½ (mean² + variance - ln variance - 1), with parts of it replaced."""
    bar = s.alpha_bars[-1].float()
    mean = bar.sqrt() * x if mean is None else mean
    variance = 1 - bar if variance is None else variance
    terms = mean**2 + variance - torch.log(variance) - 1
    if reverse:
        terms = (1 + mean**2) / variance - 1 + torch.log(variance)
    return total(0.5 * terms.flatten(1), dim=1)


PRIOR_KL = Exercise(
    id="6.2",
    title="the prior term",
    reference=prior_kl,
    independent=_prior_by_distributions,
    draw=_draw_unfinished,
    mistakes=(
        Mistake(
            "averaged over the pixels",
            lambda s, x: _prior_with(s, x, total=torch.mean),
            "averages over the values of an image. Nats of independent pixels add up: sum them.",
        ),
        Mistake(
            "KL the other way round",
            lambda s, x: _prior_with(s, x, reverse=True),
            "is KL(N(0, I) ‖ q). The draws come from q(x_T | x_start), so q stands first.",
        ),
        Mistake(
            "standard deviation as variance",
            lambda s, x: _prior_with(s, x, variance=s.noise_std[-1].float()),
            "uses √(1 - ᾱ) where the variance 1 - ᾱ is wanted.",
        ),
        Mistake(
            "no root on the image's weight",
            lambda s, x: _prior_with(s, x, mean=s.alpha_bars[-1].float() * x),
            "multiplies the image by ᾱ. The mean of x_T is √ᾱ times the image.",
        ),
        Mistake(
            "image not shrunk",
            lambda s, x: _prior_with(s, x, mean=x),
            "takes the clean image as the mean of x_T. Hardly anything of it is left there: √ᾱ times the image.",
        ),
        Mistake(
            "variance forgotten",
            lambda s, x: 0.5 * (s.alpha_bars[-1].float() * x**2).flatten(1).sum(dim=1),
            "counts the mean only. The variance of x_T is not quite 1 either: use the whole of equation 3.8.",
        ),
        Mistake(
            "half forgotten",
            lambda s, x: 2 * _prior_with(s, x),
            "is twice the right value: equation 3.8 begins with ½.",
        ),
        Mistake(
            "in bits",
            lambda s, x: _prior_with(s, x) / math.log(2),
            "is in bits. Nats are wanted: no division by ln 2.",
        ),
        Mistake(
            "first step",
            lambda s, x: _prior_with(s, x, mean=s.sqrt_alpha_bars[0].float() * x, variance=s.betas[0].float()),
            "looks at x_1. The prior term is about the last state, x_T: read the tables at -1.",
        ),
    ),
    hints=(
        "x_T is Gaussian, given x_start: what are its mean and its variance? Read the tables at the last step, [-1].",
        "mean = √ᾱ_T x_start and variance = 1 - ᾱ_T, the same for every pixel. kl_normal(mean, variance, 0, 1) is the "
        "KL of each pixel.",
        "Sum over everything but the batch: .flatten(1).sum(dim=1).",
    ),
)

# --- 6.4 the simple loss -------------------------------------------------------------------------------------------


class _Guesser:
    """A stand-in for a network: its answer depends on x_t and on t, and its weight can be trained."""

    prediction = "noise"

    def __init__(self, weight: Tensor, T: int):
        self.weight, self.T = weight, T

    def __call__(self, x_t: Tensor, t: Tensor, cond: object = None) -> Tensor:
        time = (t / self.T).reshape(-1, *[1] * (x_t.ndim - 1))
        return torch.tanh(self.weight * x_t + time) + 0.3 * x_t * time


def _draw_training_batch(generator: torch.Generator) -> tuple:
    T = int(torch.randint(30, 200, (), generator=generator))
    schedule = Schedule.linear(T) if torch.rand((), generator=generator) < 0.5 else Schedule.cosine(T)
    t = torch.randint(1, T, (int(torch.randint(2, 5, (), generator=generator)),), generator=generator)
    x_start, noise = torch.randn((2, len(t), 1, 4, 4), generator=generator)
    return _Guesser(torch.randn((), generator=generator), T), schedule, x_start, t, noise


def _loss_by_hand(model: _Guesser, schedule: Schedule, x_start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Image by image and in float64."""
    losses = []
    for image, step, eps in zip(x_start.double(), t.tolist(), noise.double(), strict=True):
        kept = math.prod(1 - beta for beta in schedule.betas[: step + 1].tolist())
        noisy = math.sqrt(kept) * image + math.sqrt(1 - kept) * eps
        error = model(noisy[None], torch.tensor([step]))[0] - eps
        losses.append(sum(e * e for e in error.flatten().tolist()) / error.numel())
    return torch.tensor(losses, dtype=torch.float64)


def _loss_with(m, s, x, t, z, *, signal=None, std=None, aim=None, told=None, seen=None) -> Tensor:
    """The squared errors, one row per image, with parts of the way replaced."""

    def column(table: Tensor) -> Tensor:
        return table.float()[t].view(-1, 1, 1, 1)

    x_t = column(s.sqrt_alpha_bars if signal is None else signal) * x + column(s.noise_std if std is None else std) * z
    return (m(x_t if seen is None else seen, t if told is None else told) - (z if aim is None else aim)).flatten(1) ** 2


def _gradients_get_through(answer, generator) -> str | None:
    model, *rest = _draw_training_batch(generator)
    model.weight.requires_grad_()
    loss = answer(model, *rest).sum()
    if loss.requires_grad and float(torch.autograd.grad(loss, model.weight)[0].abs()) > 0:
        return None
    return (
        "has the right value, but no gradient reaches the model, so it could not learn: leave out .detach(), .item() "
        "and torch.no_grad()."
    )


def _fits_single_pixels(answer, generator) -> str | None:
    """The lesson trains on single pixels, shape (batch, 1)."""
    model, schedule, _, _, _ = _draw_training_batch(generator)
    x_start, noise = torch.randn((2, 6, 1), generator=generator)
    t = torch.arange(6)
    wanted = (model(_flat_noisy(schedule, x_start, t, noise), t) - noise)[:, 0] ** 2
    try:
        found = answer(model, schedule, x_start, t, noise)
        same = found.shape == (6,) and torch.allclose(found.double(), wanted.double(), atol=1e-4)
    except Exception:  # whatever an answer does with a shape that it was not written for
        same = False
    if same:
        return None
    return (
        "works for pictures, but not for single pixels of shape (batch, 1), on which the lesson trains. q_sample and "
        ".flatten(1).mean(dim=1) fit both."
    )


DIFFUSION_LOSS = Exercise(
    id="6.4",
    title="the simple loss",
    reference=diffusion_loss,
    independent=_loss_by_hand,
    draw=_draw_training_batch,
    properties=(_gradients_get_through, _fits_single_pixels),
    mistakes=(
        Mistake(
            "summed over the pixels",
            lambda *a: _loss_with(*a).sum(dim=1),
            "sums over the values of an image. The simple loss averages, so that 1 means the same at every size.",
        ),
        Mistake(
            "compared with the clean image",
            lambda m, s, x, t, z: _loss_with(m, s, x, t, z, aim=x).mean(dim=1),
            "compares the prediction with x_start. This model predicts the noise: compare with that.",
        ),
        Mistake(
            "model sees the clean image",
            lambda m, s, x, t, z: _loss_with(m, s, x, t, z, seen=x).mean(dim=1),
            "shows the model the clean image. It must see the noisy one: q_sample(schedule, x_start, t, noise).",
        ),
        Mistake(
            "variance used as standard deviation",
            lambda m, s, x, t, z: _loss_with(m, s, x, t, z, std=1 - s.alpha_bars).mean(dim=1),
            "noises the image with 1 - ᾱ in place of its root. Use q_sample, which takes the roots.",
        ),
        Mistake(
            "noise of one step",
            lambda m, s, x, t, z: _loss_with(m, s, x, t, z, signal=s.alphas.sqrt(), std=s.betas.sqrt()).mean(dim=1),
            "adds the noise of a single step (α_t, β_t). x_t holds all the noise up to t: use ᾱ_t, or q_sample.",
        ),
        Mistake(
            "model not told the step",
            lambda m, s, x, t, z: _loss_with(m, s, x, t, z, told=torch.zeros_like(t)).mean(dim=1),
            "does not hand the step t to the model (0 arrives there). It needs t: model(x_t, t, cond).",
        ),
        Mistake(
            "absolute difference",
            lambda *a: _loss_with(*a).sqrt().mean(dim=1),
            "averages absolute differences. The bound leads to squares.",
        ),
        Mistake(
            "root taken",
            lambda *a: _loss_with(*a).mean(dim=1).sqrt(),
            "takes a root at the end. The mean of the squares is the loss.",
        ),
        Mistake(
            "compared with the noisy image",
            lambda m, s, x, t, z: (m(_noisy(s, x, t, z), t) - _noisy(s, x, t, z)).flatten(1).square().mean(dim=1),
            "compares the prediction with x_t. The noise that went into x_t is wanted.",
        ),
    ),
    hints=(
        "Three lines: noise the images to step t, ask the model, compare with the noise.",
        "x_t = q_sample(schedule, x_start, t, noise), then prediction = model(x_t, t, cond).",
        "((prediction - noise) ** 2).flatten(1).mean(dim=1): one number per image, no mean over the batch.",
    ),
)


def _noisy(s: Schedule, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
    return (s.sqrt_alpha_bars.float()[t].view(-1, 1, 1, 1) * x) + (s.noise_std.float()[t].view(-1, 1, 1, 1) * z)


def _flat_noisy(s: Schedule, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
    return s.sqrt_alpha_bars.float()[t][:, None] * x + s.noise_std.float()[t][:, None] * z
