"""Latent diffusion of the shapes: lesson 18's text-to-image model, which works on 4×8×8 latents in place of pixels.

The frozen autoencoder turns each scene into a Gaussian over latents, of which training draws; the frozen CLIP of lesson
13 reads the caption. The U-Net is Stable Diffusion's, made small.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib import runtime
from course_lib.data import shapes
from course_lib.diffusion import Schedule, diffusion_loss
from course_lib.evaluation.faithfulness import faithfulness, unseen_prompts
from course_lib.models.clip import CLIP
from course_lib.models.latent_pipeline import LatentDiffusion
from course_lib.models.latent_space import LatentSpace
from course_lib.models.latent_unet import LatentUNet, LatentUNetConfig
from course_lib.recipes import autoencoder_shapes, clip_shapes, text_shapes
from course_lib.recipes._shape_captions import CaptionedShapes, one_wording, pictures
from course_lib.recipes._weights import Round, fit_rounds, load_into, ship
from course_lib.training import Draws, FitConfig, Fitted

NAME = "latent_shapes"
SCENES = 100_000
DATA = f"shapes: {SCENES:,} scenes, none of a reserved meaning or with a held-out pair; measured on others"
T = 1000
DROPPED = 0.1
SCALES = (1, 2, 3, 5)
FEWER = (15, 10)  # steps that are measured, too
SCALE = 3  # where nobody names one
NETWORK = LatentUNetConfig(width=48, attention=(0,), groups=8)
ROUNDS = (
    Round(NETWORK, FitConfig(steps=12_000, batch_size=64, learning_rate=1e-3, warmup=200, ema=0.998, save_every=120.0)),
)


def schedule() -> Schedule:
    """The cosine schedule that the text-to-image models of the course share."""
    return Schedule.cosine(T)


def new(seed: int = 0, config: LatentUNetConfig = NETWORK) -> LatentUNet:
    """An untrained network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LatentUNet(config).to(memory_format=torch.channels_last)


def load(device: torch.device | str | None = None) -> LatentUNet:
    """The shipped U-Net, in eval mode and float32. Raises CheckpointError where it is missing or damaged."""
    return load_into(new(), NAME, device)


def pipeline(device: torch.device | str | None = None) -> LatentDiffusion:
    """The three shipped parts together: CLIP, U-Net, autoencoder."""
    clip = clip_shapes.load().to(device or runtime.device())
    return LatentDiffusion(clip, load(device), autoencoder_shapes.load(device), schedule())


class LatentShapes(CaptionedShapes):
    """Captioned scenes as what the autoencoder says of them: mean and standard deviation of the scaled latents."""

    @torch.no_grad()
    def __init__(self, clip: CLIP, space: LatentSpace, n: int = SCENES, seed: int = 0) -> None:
        super().__init__(clip, n, seed)
        device, means, stds = next(space.parameters()).device, [], []
        for part in self.pixels.split(500):
            with runtime.autocast(device):  # rounding is far below what differs between scenes
                posterior = space.autoencoder.encode(pictures(part.to(device)))
            means.append((space.scale * posterior.mean).half().cpu())
            stds.append((space.scale * posterior.std).half().cpu())
        self.means, self.stds = torch.cat(means), torch.cat(stds)
        del self.pixels

    def __len__(self) -> int:
        return len(self.means)

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means, standard deviations, tokens of all wordings."""
        return self.means[index], self.stds[index], self.ids[index]


@dataclass(frozen=True, eq=False)
class LatentObjective:
    """The loss of lesson 15's model, on latents drawn from q(z|x) (Rombach et al. 2022, equation 3)."""

    clip: CLIP
    dropped: float = DROPPED

    def __call__(self, model: LatentUNet, batch: tuple[Tensor, Tensor, Tensor], draws: Draws) -> Float[Tensor, ""]:
        """The mean loss of a batch of `LatentShapes`."""
        means, stds, ids = batch
        text = one_wording(self.clip, ids, draws).kept(draws.uniform() >= self.dropped)
        latents = means.float() + stds.float() * draws.normal(*means.shape[1:])
        latents = latents.contiguous(memory_format=torch.channels_last)
        t, noise = draws.integers(T), draws.normal(*means.shape[1:])
        return diffusion_loss(model, schedule(), latents, t, noise, text).mean()


def measure(pipe: LatentDiffusion, n: int = 500, seed: int = 10**6) -> dict[str, Any]:
    """The card's metrics: faithfulness to reserved prompts at each scale, and to pairs that were never trained on."""
    metrics: dict[str, Any] = {}

    def asked(name: str, scale: float | int, kind: str, held_out: bool = False, steps: int = 25) -> None:
        scenes = unseen_prompts(n, seed, kind=kind, held_out=held_out)
        found = faithfulness(pipe([shapes.caption(s) for s in scenes], scale=scale, steps=steps), scenes)
        print(f"{name}: {found}", flush=True)
        metrics[name] = found.entry()

    for scale in SCALES:
        asked(f"all words right, unseen prompts, scale {scale} (n = {n})", scale, "any")
    for kind, name in (("one", "one object"), ("two", "two objects")):
        asked(f"all words right, {name}, scale 3 (n = {n})", 3, kind)
    asked(f"all words right, pairs never trained on, scale 3 (n = {n})", 3, "any", held_out=True)
    for steps in FEWER:
        asked(f"all words right, unseen prompts, scale 3, {steps} steps (n = {n})", 3, "any", steps=steps)
    return metrics | race(pipe)


def race(pipe: LatentDiffusion, n: int = 50, rounds: int = 3) -> dict[str, Any]:
    """Processor time per picture over that of lesson 15's model on pixels in 25 steps, from sentence to picture.

    All take turns in one process; the quickest of the rounds counts.
    """
    base, captions = text_shapes.load(pipe.device), [shapes.caption(scene) for scene in unseen_prompts(n, 0)]

    def pixels() -> None:
        text_shapes.draw(base, pipe.text, captions, scale=3, steps=25)

    ways = {25: pixels} | {-steps: partial(pipe, captions, scale=3, steps=steps) for steps in (25, *FEWER)}
    taken = dict.fromkeys(ways, math.inf)
    for _ in range(rounds):
        for key, way in ways.items():
            begin = time.process_time()
            way()
            taken[key] = min(taken[key], time.process_time() - begin)
    name = "processor time per picture over that of text_shapes in 25 steps"
    return {f"{name}, {-k} steps": {"value": round(taken[k] / taken[25], 3), "floor": None} for k in ways if k < 0}


def run(rounds: Sequence[Round] = ROUNDS, folder: Any = None, scenes: int = SCENES) -> Fitted:
    """Train it."""
    clip = clip_shapes.load()
    data = LatentShapes(clip, autoencoder_shapes.load(), scenes, rounds[0].fit.seed)
    return fit_rounds(rounds, new, LatentObjective(clip), data, folder)


def train(folder: Path | str | None = None, rounds: Sequence[Round] = ROUNDS) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint `latent_shapes` with its card."""
    found, clip = run(rounds, Path(folder or runtime.state_root() / "runs" / NAME)), clip_shapes.load()
    ship(NAME, found, rounds, clip=clip, data=DATA, measure=lambda: measure(pipeline()))
