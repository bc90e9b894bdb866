"""What the recipes of the unCLIP decoders share: the objective, a start from lesson 15's model, drawing."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib import runtime
from course_lib.diffusion import Schedule, ddim, diffusion_loss, sample
from course_lib.diffusion.guidance import Guided
from course_lib.models.conditions import DecoderCondition
from course_lib.models.text_unet import TextUNet
from course_lib.models.unclip import DecoderConfig, UnclipDecoder
from course_lib.recipes._weights import take_over
from course_lib.training import Draws

T = 1000
NO_IMAGE, NO_TEXT = 0.1, 0.5  # shares of the training examples whose embedding, whose caption is withheld
_PIXELS = re.compile(r"(body\.(?:encoder|bottleneck|decoder)\.\d+)\.pixels\.(.*)")


def schedule() -> Schedule:
    """The cosine schedule."""
    return Schedule.cosine(T)


def new(config: DecoderConfig, seed: int = 0, painter: TextUNet | None = None) -> UnclipDecoder:
    """An untrained decoder; with a `painter`, all that has the same name and shape there starts from it.

    Its self-attention becomes the pixels' part of the decoder's joint attention.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = UnclipDecoder(config).to(memory_format=torch.channels_last)
    if painter is not None:
        take_over(model, {_PIXELS.sub(r"\1.\2", name): value for name, value in painter.state_dict().items()})
    return model


@dataclass(frozen=True)
class DecoderObjective:
    """Mean squared error of what the network predicts, given each picture's own CLIP embedding and its caption.

    Embedding and caption are withheld independently of each other, so that the network knows all four cases.
    Ramesh et al. 2022, section 2.1.
    """

    no_image: float = NO_IMAGE
    no_text: float = NO_TEXT

    def __call__(self, model: UnclipDecoder, images: Tensor, cond: DecoderCondition, draws: Draws) -> Tensor:
        """The mean loss of a batch of pictures in [-1, 1]."""
        told = cond.kept(draws.uniform() >= self.no_image, draws.uniform() >= self.no_text)
        t, noise = draws.integers(T), draws.normal(*images.shape[1:])
        return diffusion_loss(model, schedule(), images, t, noise, told).mean()


@torch.no_grad()
def draw(
    decoder: UnclipDecoder,
    cond: DecoderCondition,
    *,
    scale: float | int = 2.0,
    steps: int | None = 25,
    seed: int = 0,
    batch: int = 125,
    progress: bool = True,
    **options: object,
) -> Tensor:
    """One picture per condition, on the CPU: guided DDIM, or whatever `sampler` the options name."""
    body, device, parts = decoder.config.body, next(decoder.parameters()).device, []
    how = {"sampler": ddim, "clip": (-1, 1), "progress": progress} | options
    for k in range(0, len(cond), batch):
        part = cond[k : k + batch]
        guided = Guided(decoder, null=part.null(), scale=scale)
        generator = torch.Generator(device).manual_seed(seed * 1_000_003 + k)
        shape = (len(part), body.channels, body.size, body.size)
        with runtime.autocast(device):
            drawn = sample(guided, schedule(), shape, steps, cond=part, generator=generator, device=device, **how)
        parts.append(drawn.float().cpu())
    return torch.cat(parts)
