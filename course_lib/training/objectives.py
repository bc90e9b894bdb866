"""What a diffusion model is trained on."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from course_lib.diffusion import Schedule, diffusion_loss
from course_lib.diffusion.prediction import prediction_kind
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
