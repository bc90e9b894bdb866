"""The autoencoder of latent diffusion: pictures to small maps of latents and back, with a light pull to N(0, I).

A VAE whose latent is a picture itself, 4×8×8 for 32×32 RGB, so that a diffusion model can work on it. Rombach,
Blattmann, Lorenz, Esser, Ommer 2022, arXiv:2112.10752, section 3.1 and appendix G. Parts and order are those of
diffusers' AutoencoderKL; `CONFIGS["sd"]` is the one of Stable Diffusion 1, with its 83,653,863 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from course_lib.models.gaussian_latent import DiagonalGaussian
from course_lib.models.vae import VAE
from course_lib.nn import Downsample, ResidualBlock, SelfAttention2d, Upsample, normalisation


@dataclass(frozen=True)
class KLAutoencoderConfig:
    """What a `KLAutoencoder` is made of. A plain `KLAutoencoderConfig()` turns 3×32×32 into 4×8×8 and back."""

    size: int = 32  # height and width of the pictures it is made for; others that can be halved as often work too
    channels: int = 3  # of the picture
    width: int = 32  # channels of the first level
    mults: tuple[int, ...] = (1, 2, 2)  # width of each level, in units of `width`; between levels the size is halved
    blocks: int = 1  # residual blocks per level on the way down; one more on the way up
    latent: int = 4  # channels of the latent
    groups: int = 8  # of GroupNorm
    attention: bool = True  # between the two blocks at the smallest size
    variance: float | int = 0.01  # of the pixels around the decoded picture
    learn_variance: bool = False

    def __post_init__(self) -> None:
        if not self.mults or min(self.mults) < 1 or self.blocks < 1 or self.width < 1 or self.latent < 1:
            raise ValueError(
                f"mults={self.mults}, blocks={self.blocks}, width={self.width}, latent={self.latent}: "
                f"all must be at least 1"
            )
        if self.size < 1 or self.size % self.factor:
            raise ValueError(
                f"size={self.size} cannot be halved {len(self.mults) - 1} times (len(mults) - 1); use a multiple of "
                f"{self.factor}"
            )

    @property
    def factor(self) -> int:
        """How many times smaller the latent is than the picture, in height and in width."""
        return 2 ** (len(self.mults) - 1)

    @classmethod
    def stable_diffusion_v1(cls) -> KLAutoencoderConfig:
        """The published one of Stable Diffusion 1: 3×512×512 to 4×64×64, 83,653,863 parameters."""
        return cls(512, 3, 128, (1, 2, 4, 4), blocks=2, groups=32)

    def with_(self, **changes: Any) -> KLAutoencoderConfig:
        """A copy in which some fields differ."""
        return replace(self, **changes)


CONFIGS = {
    "shapes": KLAutoencoderConfig(),
    "sd": KLAutoencoderConfig.stable_diffusion_v1(),
}


def _middle(channels: int, config: KLAutoencoderConfig) -> list[nn.Module]:
    first, last = (ResidualBlock(channels, channels, None, groups=config.groups) for _ in range(2))
    return [first, SelfAttention2d(channels, groups=config.groups), last] if config.attention else [first, last]


class Encoder(nn.Sequential):
    """Pictures to maps of 2 · latent channels, `factor` times smaller."""

    def __init__(self, config: KLAutoencoderConfig) -> None:
        layers: list[nn.Module] = [nn.Conv2d(config.channels, config.width, 3, padding=1)]
        channels = config.width
        for level, mult in enumerate(config.mults):
            for _ in range(config.blocks):
                layers.append(ResidualBlock(channels, mult * config.width, None, groups=config.groups))
                channels = mult * config.width
            if level < len(config.mults) - 1:
                layers.append(Downsample(channels))
        layers += [*_middle(channels, config), normalisation(channels, config.groups), nn.SiLU()]
        super().__init__(*layers, nn.Conv2d(channels, 2 * config.latent, 3, padding=1))


class Decoder(nn.Sequential):
    """Latents to pictures: the encoder's way back, with one more residual block per level."""

    def __init__(self, config: KLAutoencoderConfig) -> None:
        channels = config.mults[-1] * config.width
        layers: list[nn.Module] = [nn.Conv2d(config.latent, channels, 3, padding=1), *_middle(channels, config)]
        for level, mult in reversed(list(enumerate(config.mults))):
            for _ in range(config.blocks + 1):
                layers.append(ResidualBlock(channels, mult * config.width, None, groups=config.groups))
                channels = mult * config.width
            if level > 0:
                layers.append(Upsample(channels))
        layers += [normalisation(channels, config.groups), nn.SiLU()]
        super().__init__(*layers, nn.Conv2d(channels, config.channels, 3, padding=1))


class KLAutoencoder(VAE):
    """`encode(x)` is a Gaussian over latents (batch, latent, height / factor, width / factor), `decode(z)` a picture.

    Train it with `Elbo.loss(beta)` and a β far below 1 where a diffusion model is to learn the latents afterwards.
    Raises ValueError for pictures with other channels or of a size that cannot be halved often enough.
    """

    def __init__(self, config: KLAutoencoderConfig = CONFIGS["shapes"]) -> None:
        super().__init__(
            Encoder(config),
            Decoder(config),
            config.latent,
            variance=config.variance,
            learn_variance=config.learn_variance,
        )
        self.config = config
        side = config.size // config.factor
        self.latent_shape = (config.latent, side, side)
        self.quant_conv = nn.Conv2d(2 * config.latent, 2 * config.latent, 1)
        self.post_quant_conv = nn.Conv2d(config.latent, config.latent, 1)

    def encode(self, x: Float[Tensor, "batch channel height width"]) -> DiagonalGaussian:
        """q(z|x), with log variances clamped to [-30, 20]; `.sample(…)` draws from it, `.mode` is its mean."""
        unit = self.config.factor
        if x.ndim != 4 or x.shape[1] != self.config.channels or x.shape[2] % unit or x.shape[3] % unit:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; this autoencoder takes {self.config.channels} channels, and a height "
                f"and width that are multiples of {unit}"
            )
        mean, log_var = self.quant_conv(self.encoder(x)).float().chunk(2, dim=1)
        return DiagonalGaussian(mean, log_var)

    def raw(self, z: Float[Tensor, "batch latent height width"]) -> Float[Tensor, "batch channel tall wide"]:
        """What the decoder gives: here the mean of p(x|z) itself."""
        if z.ndim != 4 or z.shape[1] != self.config.latent:
            raise ValueError(f"z has shape {tuple(z.shape)}; it needs (batch, {self.config.latent}, height, width)")
        return self.decoder(self.post_quant_conv(z))
