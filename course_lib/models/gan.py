"""Generative adversarial networks: a generator makes pictures from noise, a discriminator tells them from real ones.

Goodfellow et al. 2014, arXiv:1406.2661. What a discriminator gives is a score, the log-odds of "real"; the sigmoid of
the score is the D of the paper. `GAN` holds both networks and gives both losses, of which each moves its own network
only: so their sum can be handed to one optimiser, and `training.fit` trains a GAN like anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from course_lib.models.points import check_label
from course_lib.nn import modulate, normalisation, zeroed

Kind = Literal["non_saturating", "saturating"]

# --- losses --------------------------------------------------------------------------------------------------------


def discriminator_loss(real: Float[Tensor, " n"], fake: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """-mean ln D(real) - mean ln(1 - D(fake)), from scores: a classifier's cross-entropy, summed over its two classes.

    2 ln 2 = 1.386 for a discriminator that sees no difference. softplus keeps it exact for scores of any size.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Float[Tensor, " n"], kind: Kind = "non_saturating") -> Float[Tensor, ""]:
    """What the generator lowers, from the scores of what it made.

    "non_saturating": -mean ln D(fake), whose slope is steepest where the discriminator is sure of a fake.
    "saturating": mean ln(1 - D(fake)), the minimax game itself, whose slope vanishes there (Goodfellow et al. 2014,
    section 3). Both pull in the same direction. Raises ValueError for another kind.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r} is not known; use one of: {', '.join(get_args(Kind))}")
    return F.softplus(-fake).mean() if kind == "non_saturating" else -F.softplus(fake).mean()


def r1_penalty(scores: Float[Tensor, " n"], real: Float[Tensor, "n ..."]) -> Float[Tensor, ""]:
    """E ‖∇D(x)‖², the mean squared slope of the scores at real examples; times γ/2 it joins the discriminator's loss.

    `real` must have had requires_grad before the scores were computed; ValueError where it had not.
    Mescheder et al. 2018, arXiv:1801.04406, eq. 9.
    """
    if not real.requires_grad or not scores.requires_grad:
        raise ValueError("real takes no gradients; call real.requires_grad_() before the discriminator sees it")
    (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    return slope.flatten(1).square().sum(dim=1).mean()


class Losses(NamedTuple):
    """What one batch gives. `generator` has gradients for the generator only, the others for the discriminator only."""

    discriminator: Float[Tensor, ""]
    generator: Float[Tensor, ""]
    penalty: Float[Tensor, ""]  # E ‖∇D(x)‖², 0 unless asked for
    real: Float[Tensor, " n"]  # scores
    fake: Float[Tensor, " n"]


class GAN(nn.Module):
    """A generator and a discriminator, and the two losses they play for.

    `generator(z, label)` makes examples of noise z (n, generator.latent); `discriminator(x, label)` gives n scores: for
    instance a `Generator` and a `Discriminator` of pictures, or those of points in `models.points`.
    """

    def __init__(self, generator: nn.Module, discriminator: nn.Module) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator

    def forward(
        self,
        real: Float[Tensor, "n ..."],
        z: Float[Tensor, "n latent"],
        label: Int[Tensor, " n"] | None = None,
        kind: Kind = "non_saturating",
        penalise: bool = False,
    ) -> Losses:
        """Both losses of one batch; `label` is told to both networks; `penalise` computes the R1 penalty too."""
        fake = self.generator(z, label)
        real = real.detach().requires_grad_(penalise)
        real_scores = self.discriminator(real, label)
        penalty = r1_penalty(real_scores, real) if penalise else real_scores.new_zeros(())
        fake_scores = self.discriminator(fake.detach(), label)  # detach: no gradient goes on into the generator
        frozen = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        judged = functional_call(self.discriminator, frozen, (fake, label))  # the same scores, but D's weights fixed
        losses = discriminator_loss(real_scores, fake_scores), generator_loss(judged, kind)
        return Losses(*losses, penalty, real_scores.detach(), fake_scores.detach())


# --- pictures ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GANConfig:
    """Generator and discriminator of square pictures. A plain `GANConfig()` is made for 32×32 grey ones, no classes."""

    size: int = 32
    channels: int = 1  # of the picture
    latent: int = 64  # numbers of noise
    classes: int = 0  # that both networks are told; 0 for none
    generator: tuple[int, ...] = (64, 96, 64, 16)  # channels from the coarsest map to the size of the picture
    discriminator: tuple[int, ...] = (32, 64, 128)  # channels after each halving
    groups: int = 8  # of GroupNorm in the generator
    hidden: int = 128  # the discriminator's last layer

    def __post_init__(self) -> None:
        for name, halvings in (("generator", len(self.generator) - 1), ("discriminator", len(self.discriminator))):
            widths = getattr(self, name)
            if halvings < 1 or min(widths) < 1 or self.size % 2**halvings or self.size < 2 ** (halvings + 1):
                raise ValueError(
                    f"{name}={widths} halves pictures {halvings} times, which size={self.size} does not allow; "
                    "give at least one halving, no width below 1, and a size that is a larger multiple of 2**halvings"
                )
        if min(self.channels, self.latent, self.hidden) < 1 or self.classes < 0:
            raise ValueError("channels, latent and hidden must be at least 1, classes at least 0")


class _Styled(nn.Module):
    """h + convolutions of h, whose first norm is scaled and shifted as the noise (and the class) say."""

    def __init__(self, channels: int, style: int, groups: int) -> None:
        super().__init__()
        self.norm = normalisation(channels, groups)
        self.style = zeroed(nn.Linear(style, 2 * channels))
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, h: Tensor, style: Tensor) -> Tensor:
        told = modulate(self.norm(h), self.style(style).to(h.dtype))
        return h + self.conv2(F.leaky_relu(self.conv1(F.leaky_relu(told, 0.2)), 0.2))


class Generator(nn.Module):
    """Noise (n, latent) to pictures in [-1, 1]: a small map, doubled by transposed convolutions, with blocks between.

    The shape of DCGAN (Radford et al. 2016, arXiv:1511.06434), with residual blocks, GroupNorm in place of BatchNorm
    (so that a picture does not depend on its batch), and every block told the noise again. The last doubling has no
    block: at full size it would cost more than all others.
    """

    def __init__(self, config: GANConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or GANConfig()
        self.latent, widths = c.latent, c.generator
        self.side = c.size // 2 ** (len(widths) - 1)
        self.embedding = nn.Embedding(c.classes, c.latent) if c.classes else None
        style = c.latent * (2 if c.classes else 1)
        self.enter = nn.Linear(style, widths[0] * self.side**2)
        self.blocks = nn.ModuleList(_Styled(width, style, c.groups) for width in widths[1:-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        self.leave = nn.Conv2d(widths[-1], c.channels, 3, padding=1)

    def forward(
        self, z: Float[Tensor, "n latent"], label: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, "n channel size size"]:
        """A picture for each row of noise, of the class asked for. Raises ValueError for labels that don't fit."""
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"z has shape {tuple(z.shape)}; this generator takes (n, {self.latent})")
        check_label(self.config.classes, label, len(z))
        style = z if self.embedding is None else torch.cat([z, self.embedding(label)], dim=1)
        h = self.enter(style).reshape(len(z), -1, self.side, self.side).contiguous(memory_format=torch.channels_last)
        h = self.up[0](F.leaky_relu(h, 0.2))
        for block, up in zip(self.blocks, self.up[1:], strict=True):
            h = up(F.leaky_relu(block(h, style), 0.2))
        return torch.tanh(self.leave(F.leaky_relu(h, 0.2)).float())


class Discriminator(nn.Module):
    """Pictures to a score each: convolutions that halve, a residual block after each but the first, then two layers.

    No norm at all: it would tie the pictures of a batch together, and the R1 penalty keeps the slopes in check. A
    class joins as a scalar product with the last features (Miyato & Koyama 2018, arXiv:1802.05637).
    """

    def __init__(self, config: GANConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or GANConfig()
        widths = (c.channels, *c.discriminator)
        side = c.size // 2 ** len(c.discriminator)
        self.halve = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(0.2), nn.Conv2d(w, w, 3, padding=1),
                nn.LeakyReLU(0.2), zeroed(nn.Conv2d(w, w, 3, padding=1)),
            )
            for w in widths[2:]
        )  # fmt: skip
        self.last = nn.Linear(widths[-1] * side**2, c.hidden)
        self.score = nn.Linear(c.hidden, 1)
        self.embedding = nn.Embedding(c.classes, c.hidden) if c.classes else None

    def forward(
        self, x: Float[Tensor, "n channel size size"], label: Int[Tensor, " n"] | None = None
    ) -> Float[Tensor, " n"]:
        """Log-odds of "real" for each picture in [-1, 1]. Raises ValueError for another shape or labels."""
        c = self.config
        if x.ndim != 4 or x.shape[1:] != (c.channels, c.size, c.size):
            raise ValueError(f"x has shape {tuple(x.shape)}; this takes (n, {c.channels}, {c.size}, {c.size})")
        check_label(c.classes, label, len(x))
        h = self.halve[0](x)
        for halve, block in zip(self.halve[1:], self.blocks, strict=True):
            h = halve(F.leaky_relu(h, 0.2))
            h = h + block(h)
        h = F.leaky_relu(self.last(F.leaky_relu(h, 0.2).flatten(1)), 0.2).float()
        score = self.score(h).float()[:, 0]
        if self.embedding is not None:
            score = score + (self.embedding(label) * h).sum(dim=1) / c.hidden**0.5
        return score


def make_gan(config: GANConfig | None = None, seed: int = 0) -> GAN:
    """A GAN for pictures with the initial weights of this seed; torch's global random state stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GAN(Generator(config), Discriminator(config))
