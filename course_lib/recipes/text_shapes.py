"""A diffusion model that draws what a sentence says, without image embeddings: lesson 15's model, on the shapes.

The sentence is read by the frozen CLIP of lesson 13 and withheld in a tenth of the training examples, so that the same
network also knows what pictures look like in general: that is all that classifier-free guidance needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_lib import runtime
from course_lib.data import shapes
from course_lib.diffusion import Schedule, ddim, diffusion_loss, sample
from course_lib.diffusion.guidance import Guided
from course_lib.evaluation.faithfulness import faithfulness, unseen_prompts
from course_lib.models.clip import CLIP
from course_lib.models.conditioned_unet import BodyConfig
from course_lib.models.conditions import text_condition
from course_lib.models.text_unet import TextUNet, TextUNetConfig
from course_lib.recipes import clip_shapes
from course_lib.recipes._shape_captions import DATA, SCENES, CaptionedShapes, one_wording, pictures
from course_lib.recipes._weights import Round, fit_rounds, load_into, ship
from course_lib.training import Draws, FitConfig, Fitted

NAME = "text_shapes"
T = 1000
DROPPED = 0.1
SCALES = (1, 2, 3, 5)
BODY = BodyConfig(
    mults=(2, 3), attention=(1,), heads=4, token_dim=128, patch=2, places=True, fine=16, dropout=0.0, order="classic"
)
NETWORK = TextUNetConfig(BODY, prediction="v")
FIT = FitConfig(steps=2_500, batch_size=64, learning_rate=1e-3, warmup=200, ema=0.998, save_every=120.0)
ROUNDS = (
    # Without `places` and with the loss of the noise it learns shapes, colors and sizes, and puts things anywhere:
    # where they go is decided at the noisiest steps, which weigh next to nothing in that loss: it counts an error of
    # x_start ᾱ / (1 - ᾱ) times, .004 at step 960. The loss of v mends it.
    Round(TextUNetConfig(dataclasses.replace(BODY, places=False)), FIT),
    Round(NETWORK, dataclasses.replace(FIT, steps=1_800)),
)


def schedule() -> Schedule:
    """The cosine schedule that the text-to-image models of the course share."""
    return Schedule.cosine(T)


def new(seed: int = 0, config: TextUNetConfig = NETWORK) -> TextUNet:
    """An untrained network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TextUNet(config).to(memory_format=torch.channels_last)


@dataclasses.dataclass(frozen=True)
class TextObjective:
    """Mean squared error of what the network predicts, with a share `dropped` of the sentences withheld."""

    clip: CLIP
    dropped: float = DROPPED

    def __call__(self, model: TextUNet, batch: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
        """The mean loss of a batch of (bytes, tokens of every wording)."""
        pixels, ids = batch
        text = one_wording(self.clip, ids, draws)
        text = text.kept(draws.uniform() >= self.dropped)
        images = pictures(pixels)
        t, noise = draws.integers(T), draws.normal(*images.shape[1:])
        return diffusion_loss(model, schedule(), images, t, noise, text).mean()


def load(device: torch.device | str | None = None) -> TextUNet:
    """The shipped model, in eval mode and float32. Raises CheckpointError where it is missing or damaged."""
    return load_into(new(), NAME, device)


@torch.no_grad()
def draw(
    model: TextUNet, clip: CLIP, captions: list[str], scale: float | int = 3, steps: int = 25, seed: int = 0,
    batch: int = 125,
) -> Tensor:  # fmt: skip
    """One picture per caption, with guidance and DDIM, on the CPU."""
    device, parts = next(model.parameters()).device, []
    for k in range(0, len(captions), batch):
        text = text_condition(clip, captions[k : k + batch])
        guided = Guided(model, null=text.null(), scale=scale)
        shape = (len(text), model.config.body.channels, model.config.body.size, model.config.body.size)
        generator = torch.Generator(device).manual_seed(seed * 1_000_003 + k)
        with runtime.autocast(device):
            drawn = sample(
                guided, schedule(), shape, steps, sampler=ddim, cond=text, clip=(-1, 1), generator=generator,
                device=device,
            )  # fmt: skip
        parts.append(drawn.float().cpu())
    return torch.cat(parts)


def measure(model: TextUNet, clip: CLIP, n: int = 500, seed: int = 10**6) -> dict[str, Any]:
    """The card's metrics: faithfulness to reserved prompts at each scale, and to pairs that were never trained on."""
    metrics: dict[str, Any] = {}

    def asked(name: str, scale: float | int, kind: str, held_out: bool = False) -> None:
        scenes = unseen_prompts(n, seed, kind=kind, held_out=held_out)
        found = faithfulness(draw(model, clip, [shapes.caption(s) for s in scenes], scale), scenes)
        print(f"{name}: {found}", flush=True)
        metrics[name] = found.entry()

    for scale in SCALES:
        asked(f"all words right, unseen prompts, scale {scale} (n = {n})", scale, "any")
    for kind, name in (("one", "one object"), ("two", "two objects")):
        asked(f"all words right, {name}, scale 3 (n = {n})", 3, kind)
    asked(f"all words right, pairs never trained on, scale 3 (n = {n})", 3, "any", held_out=True)
    return metrics


def run(rounds: Sequence[Round] = ROUNDS, folder: Any = None, scenes: int = SCENES) -> Fitted:
    """Train it."""
    clip = clip_shapes.load()
    data = CaptionedShapes(clip, scenes, rounds[0].fit.seed)
    return fit_rounds(rounds, new, TextObjective(clip), data, folder)


def train(folder: Path | str | None = None, rounds: Sequence[Round] = ROUNDS) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint `text_shapes` with its card."""
    found, clip = run(rounds, Path(folder or runtime.state_root() / "runs" / NAME)), clip_shapes.load()
    ship(NAME, found, rounds, clip=clip, data=DATA, measure=lambda: measure(load(), clip))
