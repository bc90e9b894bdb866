"""The autoencoder of the shapes: lesson 18's way from pictures of 3×32×32 to latents of 4×8×8 and back.

Trained on the pictures alone, with a light pull to N(0, I), then frozen for good: the latent diffusion model is trained
on its latents, divided by their standard deviation. Rombach et al. 2022, arXiv:2112.10752, section 3.1 and appendix G;
they add a perceptual and an adversarial loss, which keep the texture of photographs. Shapes have none.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from course_lib import checkpoints, runtime
from course_lib.data import shapes
from course_lib.evaluation.faithfulness import faithfulness, trained_scenes, unseen_prompts
from course_lib.evaluation.reconstruction import psnr
from course_lib.models.kl_autoencoder import KLAutoencoder, KLAutoencoderConfig
from course_lib.models.latent_space import LatentSpace
from course_lib.pixels import from_uint8, to_uint8
from course_lib.recipes import _card
from course_lib.recipes._weights import load_into
from course_lib.training import FitConfig, Fitted, VAEObjective, fit

NAME = "autoencoder_shapes"
SCENES = 50_000
DATA = f"shapes: {SCENES:,} scenes, none of a reserved meaning or with a held-out pair; measured on others"
NETWORK = KLAutoencoderConfig(width=16, mults=(1, 2, 4))
BETA = 0.05  # what a nat of the latents' divergence from N(0, I) costs, beside the reconstruction
CONFIG = FitConfig(
    steps=3_000, batch_size=64, learning_rate=1e-3, warmup=200, ema=0.998, clip_norm=2000.0, save_every=120.0
)


def new(seed: int = 0, config: KLAutoencoderConfig = NETWORK) -> KLAutoencoder:
    """An untrained autoencoder."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return KLAutoencoder(config).to(memory_format=torch.channels_last)


def load(device: torch.device | str | None = None) -> LatentSpace:
    """The shipped autoencoder with the scale of its latents. Raises CheckpointError where it is missing or damaged."""
    return load_into(LatentSpace(new()), NAME, device)


def scenes(n: int, seed: int) -> UInt8[Tensor, "n 3 32 32"]:
    """Pictures for training, as bytes."""
    chosen = trained_scenes(n, seed)
    parts = [shapes.render(chosen[k : k + 5000], seed=seed + k).images for k in range(0, n, 5000)]
    return torch.cat([to_uint8(part) for part in parts])


def run(config: FitConfig = CONFIG, folder: Path | None = None, n: int = SCENES) -> Fitted:
    """Train it."""
    pixels = scenes(n, config.seed)

    def batches(index: Tensor) -> Tensor:
        return from_uint8(pixels[index]).contiguous(memory_format=torch.channels_last)

    return fit(new(config.seed), VAEObjective(BETA), batches, n, config, folder=folder)


@torch.no_grad()
def measure(space: LatentSpace, n: int = 1_000, seed: int = 10**6) -> dict[str, Any]:
    """The card's metrics, on scenes whose meanings are in no training set."""
    asked = unseen_prompts(n, seed)
    images = shapes.render(asked, seed=seed).images
    device = next(space.parameters()).device
    latents = torch.cat([space.encode(part.to(device)) for part in images.split(250)])
    found = torch.cat([space.decode(part).cpu() for part in latents.split(250)]).clamp(-1, 1)
    small = F.interpolate(F.interpolate(images, size=9, mode="area"), size=32, mode="bicubic").clamp(-1, 1)
    right, real = faithfulness(found, asked), faithfulness(images, asked)
    ratios = psnr(found, images)
    return {
        f"PSNR in dB, mean of unseen scenes (n = {n})": {
            "value": round(ratios.mean().item(), 2),
            "floor": round(psnr(small, images).mean().item(), 2),  # of a picture of 9×9: as many numbers
            "lowest": round(ratios.amin().item(), 2),
        },
        f"all words right, reconstructions of unseen scenes (n = {n})": {
            **right.entry(),
            "the scenes themselves": round(real.share, 4),
        },
        f"standard deviation of the latents, scaled (n = {n})": {"value": round(latents.std().item(), 3), "floor": 1.0},
    }


def train(folder: Path | str | None = None, config: FitConfig = CONFIG) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint with its card."""
    found = run(config, Path(folder or runtime.state_root() / "runs" / NAME))
    space = LatentSpace.fitted(found.best, from_uint8(scenes(5_000, config.seed + 1)))

    def store(metrics: dict[str, Any]) -> None:
        settings = {"network": dataclasses.asdict(NETWORK), "beta": BETA}
        card = _card.of_run(NAME, config, found, DATA, metrics, **settings)
        checkpoints.save(NAME, space.state_dict(), card, packed=True)

    store({})
    metrics = measure(load())
    for what, entry in metrics.items():
        print(f"{what}: {entry['value']}")
    store(metrics)
