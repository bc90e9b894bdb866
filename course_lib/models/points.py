"""Small networks for points in the plane: a generator, a discriminator, a denoiser. All of them plain MLPs.

They compute in float32 whatever the precision: a point needs all its digits, and the networks are tiny.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.nn import timestep_embedding


class _PointNetwork(nn.Module):
    """Linear layers with a leaky ReLU between any two; may be told a label, as a row of 0s and a 1 beside its input."""

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, classes: int = 0) -> None:
        super().__init__()
        if min(inputs, outputs, width, depth) < 1 or classes < 0:
            raise ValueError("latent, dim, width and depth must be at least 1, classes at least 0")
        self.inputs, self.classes = inputs, classes
        layers: list[nn.Module] = []
        for a, b in pairwise((inputs + classes, *[width] * depth, outputs)):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers[:-1])

    def _answer(self, name: str, x: Tensor, label: Tensor | None = None) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.inputs:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; this network takes (n, {self.inputs})")
        check_label(self.classes, label, len(x))
        with torch.autocast(x.device.type, enabled=False):
            return self.body(x if label is None else torch.cat([x, F.one_hot(label, self.classes).to(x)], dim=1))


class PointGenerator(_PointNetwork):
    """Noise (n, latent) to points (n, dim): `depth` hidden layers of `width`; with `classes`, of a wanted class."""

    def __init__(self, latent: int = 2, dim: int = 2, width: int = 64, depth: int = 3, classes: int = 0) -> None:
        super().__init__(latent, dim, width, depth, classes)
        self.latent = latent

    def forward(self, z: Float[Tensor, "n latent"], label: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n dim"]:
        """A point for each row of noise. Raises ValueError for another shape, and labels that don't fit."""
        return self._answer("z", z, label)


class PointDiscriminator(_PointNetwork):
    """Points (n, dim) to a score each; with `classes`, how real each point is as one of its class."""

    def __init__(self, dim: int = 2, width: int = 64, depth: int = 3, classes: int = 0) -> None:
        super().__init__(dim, 1, width, depth, classes)

    def forward(self, x: Float[Tensor, "n dim"], label: Int[Tensor, " n"] | None = None) -> Float[Tensor, " n"]:
        """Log-odds of "real" for each point. Raises ValueError for another shape, and labels that don't fit."""
        return self._answer("x", x, label)[:, 0]


class PointDenoiser(nn.Module):
    """Noisy points (n, dim) and their steps t, 0 … T-1, to the noise in them: the DDPM beside the GAN."""

    prediction = "noise"

    def __init__(self, dim: int = 2, width: int = 128, depth: int = 3, T: int = 100) -> None:
        super().__init__()
        self.dim, self.scale, self.time_dim = dim, 1000 / T, 32  # the embedding is made for times up to 1000
        self.network = _PointNetwork(dim + self.time_dim, dim, width, depth)

    def forward(self, x_t: Float[Tensor, "n dim"], t: Int[Tensor, " n"], cond: None = None) -> Float[Tensor, "n dim"]:
        """Predicted noise, shaped like x_t. Raises ValueError for another shape."""
        if x_t.ndim != 2 or x_t.shape[1] != self.dim:
            raise ValueError(f"x_t has shape {tuple(x_t.shape)}; this network takes (n, {self.dim})")
        return self.network._answer(
            "x_t", torch.cat([x_t, timestep_embedding(t * self.scale, self.time_dim).to(x_t)], dim=1)
        )


def check_label(classes: int, label: Tensor | None, n: int) -> None:
    """Raise ValueError where labels are missing, superfluous, or not one for each of n examples."""
    if (label is None) == (classes > 0):
        wanted = f"needs label=, one of {classes} classes for each example" if classes else "takes no label="
        raise ValueError(f"label is {'missing' if label is None else 'given'}, but this network {wanted}")
    if label is not None and label.shape != (n,):
        raise ValueError(f"label has shape {tuple(label.shape)}, but there are {n} examples; it should be ({n},)")
