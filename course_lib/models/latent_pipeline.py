"""Latent diffusion as a whole: a text encoder, a U-Net on latents, an autoencoder. Any of the three can be swapped.

    from course_lib.recipes import latent_shapes

    pipe = latent_shapes.pipeline()
    images = pipe(["a small red circle above a large blue square"])        # (1, 3, 32, 32) in [-1, 1]

`img2img` starts from a picture, `inpaint` keeps a part of one; both work on latents, like everything between encoder
and decoder. Rombach et al. 2022, arXiv:2112.10752.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tqdm.auto import tqdm

from course_lib import runtime
from course_lib.diffusion import Schedule, State, ddim, editing
from course_lib.diffusion.guidance import Guided, check_scale
from course_lib.models.clip import CLIP
from course_lib.models.conditions import TextCondition, text_condition
from course_lib.models.controlnet import Control, Controlled
from course_lib.models.latent_space import LatentSpace


@runtime_checkable
class TextReader(Protocol):
    """A text encoder that is not a `CLIP` of the course: captions to a condition, and what says nothing."""

    def condition(self, captions: Sequence[str]) -> TextCondition: ...

    def nothing(self, cond: TextCondition) -> TextCondition: ...


@dataclass(frozen=True, eq=False)
class LatentDiffusion:
    """The three parts and the schedule that the U-Net was trained with. `replace(pipe, unet=other)` swaps one.

    Raises ValueError for a U-Net whose latents are not the autoencoder's.
    """

    text: CLIP | TextReader
    unet: nn.Module
    space: LatentSpace
    schedule: Schedule

    def __post_init__(self) -> None:
        own, made = self.unet.config.channels, self.space.latent_shape[0]
        if own != made:
            raise ValueError(f"unet works on latents of {own} channels, space makes them with {made}; they must agree")

    def with_(self, **parts: Any) -> LatentDiffusion:
        """The same pipeline with other parts."""
        return replace(self, **parts)

    def told(self, captions: Sequence[str]) -> tuple[TextCondition, TextCondition]:
        """What the U-Net is told of the captions, and what it is told where nothing is said."""
        if isinstance(self.text, CLIP):
            cond = text_condition(self.text, captions)
            return cond, cond.null()
        cond = self.text.condition(captions)
        return cond, self.text.nothing(cond)

    def model(
        self, null: TextCondition, scale: float | int, controls: Sequence[Control] = (), guess: bool = False
    ) -> Guided:
        """The U-Net under guidance and controls: what samplers are given."""
        base = Controlled(self.unet, controls, guess=guess) if controls else self.unet
        return Guided(base, null=null, scale=scale)

    def states(
        self, captions: Sequence[str], *, scale: float | int = 3, steps: int = 25, sampler: Callable = ddim,
        generator: object = None, controls: Sequence[Control] = (), guess: bool = False, **options: object,
    ) -> Iterator[State]:  # fmt: skip
        """The sampler's states, in latents, the noisiest first. Nothing is clipped: latents have no range."""
        cond, null = self.told(captions)
        model = self.model(null, check_scale(scale), controls, guess)
        shape = (len(cond), *self.space.latent_shape)
        return sampler(
            model, self.schedule, shape, steps, cond=cond, generator=generator, device=self.device, **options
        )

    @property
    def device(self) -> torch.device:
        """Where the U-Net is."""
        return next(self.unet.parameters()).device

    @torch.no_grad()
    def __call__(
        self, captions: Sequence[str], *, seed: int = 0, batch: int = 125, controls: Sequence[Control] = (),
        progress: bool = True, **options: object,
    ) -> Float[Tensor, "n channel height width"]:  # fmt: skip
        """A picture in [-1, 1] per caption, on the CPU; a progress bar appears after two seconds.

        Options are those of `states`.
        """
        parts = []
        for k in range(0, len(captions), batch):
            rows = slice(k, k + batch)
            generator = torch.Generator(self.device).manual_seed(seed * 1_000_003 + k)
            with runtime.autocast(self.device):
                states = self.states(
                    captions[rows], generator=generator, controls=[control[rows] for control in controls], **options
                )
                parts.append(self._picture(states, progress))
        return torch.cat(parts)

    def _picture(self, states: Iterator[State], progress: bool) -> Tensor:
        for state in tqdm(states, desc="drawing", delay=2, disable=not progress):
            last = state
        return self.space.decode(last.x.float()).float().clamp(-1, 1).cpu()

    @torch.no_grad()
    def img2img(
        self, captions: Sequence[str], images: Float[Tensor, "n channel height width"], strength: float | int, *,
        scale: float | int = 3, steps: int = 25, seed: int = 0, controls: Sequence[Control] = (),
        progress: bool = True, **options: object,
    ) -> Float[Tensor, "n channel height width"]:  # fmt: skip
        """Pictures that begin as the given ones, noised part of the way: `strength` is the share of steps that is run.

        Raises ValueError for another number of pictures than captions, and a strength outside (0, 1].
        """
        self._check_pairs(captions, images)
        cond, null = self.told(captions)
        with runtime.autocast(self.device):
            states = editing.img2img(
                self.model(null, check_scale(scale), controls), self.schedule,
                self.space.encode(images.to(self.device)).float(), strength, steps, cond=cond,
                generator=torch.Generator(self.device).manual_seed(seed), **options,
            )  # fmt: skip
            return self._picture(states, progress)

    @torch.no_grad()
    def inpaint(
        self, captions: Sequence[str], images: Float[Tensor, "n channel height width"],
        keep: Bool[Tensor, "n 1 height width"], *, scale: float | int = 3, steps: int = 25, seed: int = 0,
        resample: int = 3, controls: Sequence[Control] = (), progress: bool = True, **options: object,
    ) -> Float[Tensor, "n channel height width"]:  # fmt: skip
        """Pictures whose pixels stay where `keep` is True, the rest invented to fit the caption.

        A latent stays where all pixels under it do. It also tells of its neighbourhood, so the seam is the decoder's
        guess; at the end kept pixels are pasted back. Raises ValueError or TypeError for arguments that don't fit.
        """
        self._check_pairs(captions, images)
        fits = (len(images), 1, *images.shape[2:])
        if not isinstance(keep, Tensor) or keep.dtype != torch.bool or tuple(keep.shape) != fits:
            given = f"{keep.dtype} {tuple(keep.shape)}" if isinstance(keep, Tensor) else type(keep).__name__
            raise TypeError(f"keep must be a boolean tensor of shape (n, 1, height, width), got {given}")
        cond, null = self.told(captions)
        factor = images.shape[-1] // self.space.latent_shape[-1]
        kept = F.max_pool2d((~keep).float(), factor) == 0
        with runtime.autocast(self.device):
            latents = self.space.encode(images.to(self.device)).float()
            states = editing.inpaint(
                self.model(null, check_scale(scale), controls), self.schedule, latents,
                kept.expand(-1, latents.shape[1], -1, -1), steps, resample=resample,
                sampler=options.pop("sampler", ddim), cond=cond,
                generator=torch.Generator(self.device).manual_seed(seed), **options,
            )  # fmt: skip
            found = self._picture(states, progress)
        return torch.where(keep, images.cpu(), found)

    def _check_pairs(self, captions: Sequence[str], images: Tensor) -> None:
        if len(captions) != len(images):
            raise ValueError(f"there are {len(images)} images, but {len(captions)} captions; give one each")
