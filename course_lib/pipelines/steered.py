"""Sentences and control images to pictures: lesson 15's text-to-image model, steered by the ControlNets of lesson 19.

from course_lib.pipelines import Steered

edges = shapes.make(1, seed=3).edges                                        # (1, 1, 32, 32) in [0, 1]
images = Steered.load("edges")(["a large green star at the left"], {"edges": edges})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.data import shapes
from course_lib.diffusion.guidance import check_scale
from course_lib.models.clip import CLIP
from course_lib.models.conditions import text_condition
from course_lib.models.controlnet import Control, ControlNet
from course_lib.models.text_unet import TextUNet
from course_lib.recipes import _control, clip_shapes, controlnet_edges, controlnet_keypoints, text_shapes

SHIPPED = {"edges": controlnet_edges, "keypoints": controlnet_keypoints}


@dataclass(frozen=True, eq=False)
class Steered:
    """A locked text-to-image model and one ControlNet for each kind of control image."""

    clip: CLIP
    base: TextUNet
    nets: Mapping[str, ControlNet]

    @classmethod
    def load(cls, *kinds: str) -> Steered:
        """The shipped parts, on the course's device. Raises ValueError for a kind that is not shipped."""
        for kind in kinds:
            if kind not in SHIPPED:
                raise ValueError(f"kind={kind!r} is not shipped; use {' or '.join(map(repr, SHIPPED))}")
        nets = {kind: SHIPPED[kind].load() for kind in kinds or SHIPPED}
        return cls(clip_shapes.load(), text_shapes.load(), nets)

    def __call__(
        self,
        captions: Sequence[str],
        images: Mapping[str, Float[Tensor, "n channel height width"]],
        *,
        strength: float | int | Mapping[str, float | int] = 1.0,
        guidance: float | int = 3.0,
        steps: int = 25,
        seed: int = 0,
        guess: bool = False,
        progress: bool = True,
    ) -> Float[Tensor, "n 3 32 32"]:
        """A picture in [-1, 1] per caption, on the CPU. An empty caption leaves all to the control images.

        `images`: kind to control images in [0, 1], one per caption. `strength`: how much they count, from 0 to 2, for
        all or by kind. Raises ValueError or TypeError for a kind without a ControlNet, another number of images than
        captions, and what `Control`, `shapes.parse_caption` and `CLIP.tokens` raise.
        """
        check_scale(guidance, "guidance")
        if isinstance(captions, str):
            raise TypeError("captions is one string; give a list of captions")
        told = torch.tensor([bool(caption.strip()) for caption in captions], dtype=torch.bool)
        plain = [shapes.plain([caption])[0] if caption.strip() else "?" for caption in captions]
        device = self.clip.log_scale.device
        text = text_condition(self.clip, plain).kept(told.to(device))
        controls = []
        for kind, image in images.items():
            if kind not in self.nets:
                raise ValueError(
                    f"images[{kind!r}] has no ControlNet here; there are: {', '.join(self.nets) or 'none'}"
                )
            if len(image) != len(captions):
                raise ValueError(f"images[{kind!r}] holds {len(image)} control images for {len(captions)} captions")
            counts = strength.get(kind, 1.0) if isinstance(strength, Mapping) else strength
            controls.append(Control(self.nets[kind], image.to(device), counts))
        return _control.draw(
            self.base, text_shapes.schedule(), text, controls, scale=guidance, steps=steps, seed=seed, guess=guess,
            progress=progress,
        ).clamp(-1, 1)  # fmt: skip
