"""The exam that small denoisers sit: held-out pictures whose steps and noise were drawn once and never change."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib import runtime
from course_lib.diffusion import Schedule, diffusion_loss


@torch.no_grad()
def exam(model: nn.Module, test: Float[Tensor, "n 1 height width"], schedule: Schedule) -> Float[Tensor, " n"]:
    """The loss for each of these held-out pictures. Their steps are spread evenly over 0…T-1, their noise is fixed."""
    t = torch.arange(len(test)) * schedule.T // len(test)
    noise = torch.randn(test.shape, generator=runtime.generator(0))
    device = next(model.parameters()).device
    parts = (part.to(device).split(125) for part in (test, t, noise))
    return torch.cat([diffusion_loss(model, schedule, *some) for some in zip(*parts, strict=True)]).cpu()
