"""What diffusion models, GANs and VAEs are trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.diffusion import Schedule, diffusion_loss, q_sample
from course_lib.diffusion.prediction import prediction_kind
from course_lib.models.gan import Kind
from course_lib.training.draws import Draws


@dataclass(frozen=True)
class DiffusionObjective:
    """Noise each picture to a random step, ask for the noise, take the squared error (Ho et al. 2020, algorithm 1).

    `kind`: what the network predicts, if it does not declare it itself; `weights` (T,): one per step, None for all 1.
    """

    schedule: Schedule
    kind: str | None = None
    weights: Float[Tensor, " T"] | None = None

    def __call__(self, model: nn.Module, x_start: Float[Tensor, "batch ..."], draws: Draws) -> Float[Tensor, ""]:
        """The mean loss of a batch of clean pictures."""
        t, noise = draws.integers(self.schedule.T), draws.normal(*x_start.shape[1:])
        kind = prediction_kind(getattr(model, "module", model), self.kind)  # .module: what several GPUs share
        return diffusion_loss(model, self.schedule, x_start, t, noise, kind=kind, weights=self.weights).mean()


@dataclass(frozen=True)
class GANObjective:
    """Both losses of a `GAN`, and now and then the R1 penalty γ/2 E ‖∇D(x)‖² (Mescheder et al. 2018).

    Each loss has gradients for its own network only, so that one step on the sum is a step of both players at once.
    The penalty is computed in every `every`-th step only and counts `every` times there (Karras et al. 2020,
    arXiv:1912.04958, section 4: lazy regularisation), which saves most of its cost. Raises ValueError for a negative
    `gamma` and `every` below 1.
    """

    kind: Kind = "non_saturating"
    gamma: float | int = 0.0
    every: int = 1

    def __post_init__(self) -> None:
        if self.gamma < 0 or self.every < 1:
            raise ValueError(f"gamma={self.gamma} must not be negative, every={self.every} must be at least 1")

    def __call__(self, model: nn.Module, batch: Tensor | tuple[Tensor, Tensor], draws: Draws) -> Float[Tensor, ""]:
        """The sum of the losses for a batch of real examples, or of (examples, labels)."""
        real, label = batch if isinstance(batch, tuple | list) else (batch, None)
        z = draws.normal(getattr(model, "module", model).generator.latent)  # .module: what several GPUs share
        penalise = self.gamma > 0 and draws.step % self.every == 0
        losses = model(real, z, label, kind=self.kind, penalise=penalise)
        return losses.discriminator + losses.generator + self.every * self.gamma / 2 * losses.penalty


def training_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    x_start: Float[Tensor, "batch ..."],
    t: Int[Tensor, " batch"],
    noise: Float[Tensor, "batch ..."],
) -> float:
    """One turn of algorithm 1, in plain words: noise the pictures, ask the model, follow the gradient.

    Changes the model's weights; returns the mean squared error of the answer that the gradient was taken of.
    """
    x_t = q_sample(schedule, x_start, t, noise)
    loss = (model(x_t, t, None) - noise).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@dataclass(frozen=True)
class VAEObjective:
    """Minus the ELBO of a VAE, in nats per example, its KL term weighed by β; 1 is the VAE itself.

    For `fit`: nats are large numbers, so give a `clip_norm` of hundreds, or None.
    """

    beta: float | int = 1.0

    def __call__(self, model: nn.Module, x: Float[Tensor, "batch ..."], draws: Draws) -> Float[Tensor, ""]:
        """The mean loss of a batch, with one latent drawn for each example."""
        shape = getattr(model, "module", model).latent_shape
        return model(x, draws.normal(*shape)).loss(self.beta)
