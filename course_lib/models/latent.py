"""Latent diffusion, in four files: the autoencoder, the scaled space of its latents, the U-Net, and all of it together.

    from course_lib.models.latent import KLAutoencoder, LatentSpace, LatentUNet, LatentDiffusion, stable_diffusion_v1

Rombach, Blattmann, Lorenz, Esser, Ommer 2022, arXiv:2112.10752.
"""

from __future__ import annotations

import torch

from course_lib.diffusion import Schedule
from course_lib.models.clip_text import CLIPTextConfig, CLIPTextTower, PublishedReader
from course_lib.models.clip_tokenizer import CLIPTokenizer
from course_lib.models.kl_autoencoder import KLAutoencoder, KLAutoencoderConfig
from course_lib.models.latent_pipeline import LatentDiffusion, TextReader
from course_lib.models.latent_space import LatentSpace
from course_lib.models.latent_unet import Concatenated, LatentUNet, LatentUNetConfig

__all__ = [
    "CLIPTextConfig",
    "CLIPTextTower",
    "Concatenated",
    "KLAutoencoder",
    "KLAutoencoderConfig",
    "LatentDiffusion",
    "LatentSpace",
    "LatentUNet",
    "LatentUNetConfig",
    "TextReader",
    "stable_diffusion_v1",
]

LATENT_SCALE = 0.18215  # of Stable Diffusion 1: one over the standard deviation of its latents


def stable_diffusion_v1(tokenizer: CLIPTokenizer | None = None) -> LatentDiffusion:
    """Stable Diffusion 1 with its 1,066,235,307 parameters, untrained: `models.published` reads the published ones.

    Under `with torch.device("meta")` nothing is computed and no memory is taken. The tokenizer is needed to ask it.
    """
    with torch.device("cpu"):
        schedule = Schedule.scaled_linear(1000)
    return LatentDiffusion(
        PublishedReader(CLIPTextTower(CLIPTextConfig.stable_diffusion_v1()), tokenizer),
        LatentUNet(LatentUNetConfig.stable_diffusion_v1()),
        LatentSpace(KLAutoencoder(KLAutoencoderConfig.stable_diffusion_v1()), LATENT_SCALE),
        schedule,
    )
