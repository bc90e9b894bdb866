"""VAEs for pictures, made of convolutions, and for points in the plane, made of linear layers."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from course_lib.models.vae import VAE, Likelihood
from course_lib.nn import ResidualBlock, normalisation


@dataclass(frozen=True)
class ConvVAEConfig:
    """What a `ConvVAE` is made of. A plain `ConvVAEConfig()` takes 28×28 grey pictures."""

    size: int = 28  # height and width of the pictures
    channels: int = 1  # 1 grey, 3 RGB
    widths: tuple[int, ...] = (32, 64)  # channels after each halving
    narrow: int = 0  # channels that a 1×1 convolution leaves before the linear layer, 0 for no such layer
    hidden: int = 128  # units between the feature maps and the latent, 0 for none
    latent: int = 16  # numbers per picture
    blocks: int = 0  # residual blocks after each halving, and before each doubling
    groups: int = 8  # of the residual blocks' GroupNorm
    likelihood: Likelihood = "gaussian"
    variance: float | int = 0.1  # of the Gaussian, to begin with
    learn_variance: bool = True

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths={self.widths} must hold at least one number, all at least 1")
        halvings = len(self.widths)
        if self.size < 1 or self.size % 2**halvings:
            raise ValueError(
                f"size={self.size} cannot be halved {halvings} times (widths has {halvings} entries); use a multiple "
                f"of {2**halvings}, pad the pictures, or give fewer widths"
            )

    @property
    def side(self) -> int:
        """Height and width of the smallest feature maps."""
        return self.size // 2 ** len(self.widths)


class ConvEncoder(nn.Sequential):
    """Pictures (batch, channels, size, size) to (batch, 2 · latent): means, then ln variances.

    Each 3×3 convolution of stride 2 and padding 1 halves the picture. ValueError for pictures of another shape.
    """

    def __init__(self, config: ConvVAEConfig) -> None:
        layers: list[nn.Module] = []
        before = config.channels
        for width in config.widths:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.SiLU()]
            layers += [ResidualBlock(width, width, None, groups=config.groups) for _ in range(config.blocks)]
            before = width
        if config.blocks:
            layers += [normalisation(before, config.groups), nn.SiLU()]
        if config.narrow:
            layers += [nn.Conv2d(before, config.narrow, 1), nn.SiLU()]
            before = config.narrow
        layers += [nn.Flatten()]
        inputs = before * config.side**2
        if config.hidden:
            layers += [nn.Linear(inputs, config.hidden), nn.SiLU()]
            inputs = config.hidden
        super().__init__(*layers, nn.Linear(inputs, 2 * config.latent))
        self.shape = (config.channels, config.size, config.size)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch twice_latent"]:
        """Means and ln variances of the latents."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; this encoder takes (batch, {', '.join(map(str, self.shape))})"
            )
        return super().forward(x)


class ConvDecoder(nn.Sequential):
    """Latents (batch, latent) to (batch, channels, size, size), the encoder's way back.

    Each transposed 3×3 convolution of stride 2, padding 1 and output padding 1 doubles the picture exactly.
    """

    def __init__(self, config: ConvVAEConfig) -> None:
        widths, side = config.widths, config.side
        first = config.narrow or widths[-1]
        layers: list[nn.Module] = []
        inputs = config.latent
        if config.hidden:
            layers += [nn.Linear(inputs, config.hidden), nn.SiLU()]
            inputs = config.hidden
        layers += [nn.Linear(inputs, first * side**2), nn.SiLU(), nn.Unflatten(1, (first, side, side))]
        if config.narrow:
            layers += [nn.Conv2d(config.narrow, widths[-1], 1)]
        for level in reversed(range(len(widths))):
            width, after = widths[level], widths[max(level - 1, 0)]
            layers += [ResidualBlock(width, width, None, groups=config.groups) for _ in range(config.blocks)]
            if config.blocks:
                layers += [normalisation(width, config.groups), nn.SiLU()]
            if config.blocks and level == 0:  # the blocks have done the work: straight to the pixels, at a lower price
                layers += [nn.ConvTranspose2d(width, config.channels, 4, stride=2, padding=1)]
            else:
                layers += [nn.ConvTranspose2d(width, after, 3, stride=2, padding=1, output_padding=1), nn.SiLU()]
        if not config.blocks:
            layers += [nn.Conv2d(widths[0], config.channels, 3, padding=1)]
        super().__init__(*layers)


class ConvVAE(VAE):
    """The convolutional VAE. Raises ValueError for a size that cannot be halved as often as there are widths."""

    def __init__(self, config: ConvVAEConfig = ConvVAEConfig()) -> None:
        super().__init__(
            ConvEncoder(config),
            ConvDecoder(config),
            config.latent,
            config.likelihood,
            variance=config.variance,
            learn_variance=config.learn_variance,
        )
        self.config = config


class PointVAE(VAE):
    """A VAE for points of the plane (or of `dim` coordinates), with two hidden layers on either side."""

    def __init__(
        self,
        dim: int = 2,
        latent: int = 2,
        hidden: int = 128,
        *,
        variance: float | int = 0.1,
        learn_variance: bool = True,
    ) -> None:
        super().__init__(
            _mlp(dim, hidden, 2 * latent), _mlp(latent, hidden, dim), latent, variance=variance,
            learn_variance=learn_variance,
        )  # fmt: skip


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
    )
