"""What the recipes of the ControlNets share: data, objective, drawing under control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from course_lib import runtime
from course_lib.data import shapes
from course_lib.data.shapes_control import maps_by_object, merged
from course_lib.data.shapes_geometry import Geometry
from course_lib.diffusion import Schedule, ddim, diffusion_loss, sample
from course_lib.diffusion.guidance import Guided
from course_lib.evaluation.faithfulness import trained_scenes
from course_lib.models.clip import CLIP
from course_lib.models.conditions import TextCondition
from course_lib.models.controlnet import Control, Controlled
from course_lib.pixels import from_uint8, to_uint8
from course_lib.recipes._shape_captions import one_wording, pictures, tokens_of
from course_lib.training import Draws

SCENES = 40_000
DATA = f"shapes: {SCENES:,} scenes, none of a reserved meaning or with a held-out pair; measured on others"
NO_TEXT = 0.5  # share of the training examples whose prompt is withheld (Zhang et al. 2023, section 3.3)
ONE_ONLY = 0.2  # share of the control images that show one object of two: the rest is for the prompt, or for another
BLANK = 0.1  # share of the control images that show nothing: then the prompt decides, as it does in the base


class ControlledScenes:
    """n scenes as bytes, their captions as tokens in every wording, and one kind of control image, object by object."""

    def __init__(self, kind: str, clip: CLIP, n: int = SCENES, seed: int = 0) -> None:
        self.kind, scenes = kind, trained_scenes(n, seed)
        drawn = [shapes.render(scenes[k : k + 5000], seed=seed + k) for k in range(0, n, 5000)]
        self.pixels = torch.cat([to_uint8(part.images) for part in drawn])
        self.masks = torch.cat([part.masks for part in drawn])
        parts = [vars(part.geometry) for part in drawn]
        self.geometry = Geometry(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})
        self.ids = tokens_of(clip, scenes)

    def __len__(self) -> int:
        return len(self.pixels)

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Bytes of the pictures, tokens of all wordings, control images by object, which objects there are."""
        pixels, geometry = self.pixels[index], self.geometry[index]
        maps = maps_by_object(self.kind, from_uint8(pixels), self.masks[index], geometry)
        return pixels, self.ids[index], maps, geometry.present


def control_images(kind: str, scenes: shapes.Scenes, shown: Bool[Tensor, "n 2"] | None = None) -> Tensor:
    """Control images of scenes, of all their objects or of those shown."""
    return merged(maps_by_object(kind, scenes.images, scenes.masks, scenes.geometry), shown)


def some_shown(present: Bool[Tensor, "n 2"], draws: Draws) -> Bool[Tensor, "n 2"]:
    """Which objects each control image shows: all; in a share `ONE_ONLY` of the pairs one; in a share `BLANK` none."""
    one, first = draws.uniform() < ONE_ONLY, draws.uniform() < 0.5
    chosen = torch.stack([first, ~first], dim=1)
    shown = torch.where((one & present[:, 1])[:, None], chosen, present)
    return shown & (draws.uniform() >= BLANK)[:, None]


@dataclass(frozen=True, eq=False)
class ControlObjective:
    """Mean squared error of what the locked base predicts with the control's help (Zhang et al. 2023, equation 5)."""

    base: nn.Module
    schedule: Schedule
    clip: CLIP
    no_text: float = NO_TEXT

    def __call__(self, net: nn.Module, batch: tuple[Tensor, ...], draws: Draws) -> Float[Tensor, ""]:
        """The mean loss of a batch of `ControlledScenes`."""
        pixels, ids, maps, present = batch
        text = one_wording(self.clip, ids, draws).kept(draws.uniform() >= self.no_text)
        shown = some_shown(present, draws)
        control = Control(net, merged(maps, shown))
        images = pictures(pixels)
        t, noise = draws.integers(self.schedule.T), draws.normal(*images.shape[1:])
        steered = Controlled(self.base, [control])
        return diffusion_loss(steered, self.schedule, images, t, noise, text).mean()


@torch.no_grad()
def draw(
    base: nn.Module, schedule: Schedule, text: TextCondition, controls: Sequence[Control] = (), *,
    scale: float | int = 3, steps: int = 25, seed: int = 0, batch: int = 125, progress: bool = True,
    guess: bool = False,
) -> Float[Tensor, "n channel height width"]:  # fmt: skip
    """One picture per sentence, on the CPU: guided DDIM, under any number of controls."""
    body, device, parts = base.config.body, next(base.parameters()).device, []
    for k in range(0, len(text), batch):
        rows = slice(k, k + batch)
        part = text[rows]
        model = Controlled(base, [control[rows] for control in controls], guess=guess)
        guided = Guided(model, null=part.null(), scale=scale)
        generator = torch.Generator(device).manual_seed(seed * 1_000_003 + k)
        shape = (len(part), body.channels, body.size, body.size)
        with runtime.autocast(device):
            drawn = sample(
                guided, schedule, shape, steps, sampler=ddim, cond=part, clip=(-1, 1), generator=generator,
                device=device, progress=progress,
            )  # fmt: skip
        parts.append(drawn.float().cpu())
    return torch.cat(parts)
