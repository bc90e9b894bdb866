"""A text-to-image model whose tokens are words, and which is told nothing else: its attention shows who draws what.

Lesson 15's other model, `text_shapes`, draws better, because a frozen CLIP has read the sentence for it. But there each
token has heard of all others, so that a map of one token is not the map of one word.
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
from course_lib.data.shapes_words import LONGEST, PADDING, VOCABULARY, split, word_ids
from course_lib.diffusion import diffusion_loss, q_sample
from course_lib.evaluation.faithfulness import trained_scenes, unseen_prompts
from course_lib.evaluation.word_maps import coverage, lift
from course_lib.models.conditions import TextCondition, word_condition
from course_lib.models.text_unet import TextUNet, TextUNetConfig
from course_lib.nn.cross_attention import Maps, watch
from course_lib.pixels import to_uint8
from course_lib.recipes import text_shapes
from course_lib.recipes._shape_captions import DATA, pictures
from course_lib.recipes._weights import Round, fit_rounds, load_into, ship
from course_lib.training import Draws, FitConfig, Fitted

NAME = "text_words"
SCENES = 30_000
NETWORK = TextUNetConfig(
    dataclasses.replace(text_shapes.BODY, mults=(1, 2), fine=0), text_dim=0, vocabulary=len(VOCABULARY), longest=LONGEST
)
ROUNDS = (
    Round(
        NETWORK, FitConfig(steps=2_000, batch_size=64, learning_rate=1.5e-3, warmup=100, ema=0.998, save_every=120.0)
    ),
)
SIDE = 8  # of the maps
WORDS = ("color", "shape")  # whose maps are looked at


def new(seed: int = 0) -> TextUNet:
    """An untrained network."""
    return text_shapes.new(seed, NETWORK)


def load(device: torch.device | str | None = None) -> TextUNet:
    """The shipped model, in eval mode and float32. Raises CheckpointError where it is missing or damaged."""
    return load_into(new(), NAME, device)


class CaptionedInWords:
    """n scenes as bytes, and every wording of their captions as numbers of words."""

    def __init__(self, n: int = SCENES, seed: int = 0) -> None:
        specs = trained_scenes(n, seed)
        parts = [shapes.render(specs[k : k + 5000], seed=k).images for k in range(0, n, 5000)]
        self.pixels = torch.cat([to_uint8(part) for part in parts])
        self.ids = word_ids([text for spec in specs for text in shapes.wordings(spec)])[0].unflatten(0, (n, -1))

    def __len__(self) -> int:
        return len(self.pixels)

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Bytes of the pictures, words of all wordings."""
        return self.pixels[index], self.ids[index]


def loss(model: TextUNet, batch: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
    """Mean squared error of the noise, each caption in a wording drawn for it, a tenth of them withheld."""
    images, words = pictures(batch[0]), batch[1]
    words = words[torch.arange(len(words), device=words.device), (draws.uniform() * words.shape[1]).long()]
    keep = draws.uniform() >= text_shapes.DROPPED
    text = TextCondition(words, words != PADDING, torch.zeros(len(words), 0, device=words.device), keep)
    t, noise = draws.integers(text_shapes.T), draws.normal(*images.shape[1:])
    return diffusion_loss(model, text_shapes.schedule(), images, t, noise, text).mean()


def run(rounds: Sequence[Round] = ROUNDS, folder: Any = None, scenes: int = SCENES) -> Fitted:
    """Train it."""
    data = CaptionedInWords(scenes, rounds[0].fit.seed)
    return fit_rounds(rounds, text_shapes.new, loss, data, folder)


@dataclasses.dataclass(frozen=True, eq=False)
class Watched:
    """What each head looked at in one pass over noised pictures of scenes, with the plainest captions."""

    maps: Maps
    scenes: shapes.Scenes
    longest: int  # words of the longest caption

    def lifts(self, head: tuple[str, int] | None = None) -> dict[str, Tensor]:
        """For "own" and "other": lift of the first object's color and shape word on its own mask, on the other's.

        Over all heads, or in one `head`: its layer's name and its number.
        """
        words = self.maps.of_words(SIDE, self.longest, head).cpu()
        found: dict[str, list[Tensor]] = {"own": [], "other": []}
        for word in WORDS:
            place = torch.tensor([split(shapes.caption(s)).index(getattr(s.first, word)) for s in self.scenes.specs])
            of_word = words[torch.arange(len(place)), place]
            for which, name in enumerate(found):
                found[name].append(lift(of_word, coverage(self.scenes.masks[:, which], SIDE)))
        return {name: torch.stack(parts) for name, parts in found.items()}

    def best_heads(self) -> dict[str, tuple[str, int]]:
        """For "color" and "shape": the head in which such words have the largest lift on their own object."""
        heads = [
            (layer, k)
            for layer, weights in zip(self.maps.layers, self.maps.weights, strict=True)
            if weights.shape[2] == SIDE**2
            for k in range(weights.shape[1])
        ]
        means = torch.stack([self.lifts(head)["own"].mean(dim=1) for head in heads])
        return dict(zip(WORDS, (heads[k] for k in means.argmax(dim=0).tolist()), strict=True))


@torch.no_grad()
def watched(model: TextUNet, specs: list[shapes.Scene], t: int = 500, seed: int = 0) -> Watched:
    """Noise real pictures of the scenes to step `t`, ask the network once, and record where it looks."""
    device = next(model.parameters()).device
    scenes, captions = shapes.render(specs, seed=seed), [shapes.caption(spec) for spec in specs]
    noise = torch.randn(scenes.images.shape, generator=runtime.generator(seed))
    x_t = q_sample(text_shapes.schedule(), scenes.images, t, noise).to(device)
    with watch(model) as maps:
        model(x_t, torch.full((len(x_t),), t, device=device), word_condition(captions, device))
    return Watched(maps, scenes, max(len(split(caption)) for caption in captions))


def measure(model: TextUNet, n: int = 500, seed: int = 10**6) -> dict[str, Any]:
    """The card's metrics: lifts of words on unseen scenes of two objects, over all heads and in one per kind of word.

    That head is chosen on other scenes, of meanings that were trained on.
    """
    chosen = watched(model, [s for s in trained_scenes(2 * n, seed) if s.second is not None][: n // 2], seed=seed + 1)
    heads, metrics = chosen.best_heads(), {}
    seen = watched(model, unseen_prompts(n, seed, kind="two"), seed=seed)
    over_all = seen.lifts()

    def told(words: str, lifts: dict[str, Tensor], row: int) -> None:
        for whose, name in (("their own", "own"), ("the other", "other")):
            value = round(lifts[name][row].mean().item(), 4)
            metrics[f"lift of {words} on {whose} object (n = {n})"] = {"value": value, "floor": 1.0}

    for row, word in enumerate(WORDS):
        told(f"{word} words", over_all, row)
        layer, k = heads[word]
        told(f"{word} words in head {k} of {layer}", seen.lifts((layer, k)), row)
    return metrics


def train(folder: Path | str | None = None, rounds: Sequence[Round] = ROUNDS) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint `text_words` with its card."""
    found = run(rounds, Path(folder or runtime.state_root() / "runs" / NAME))
    ship(NAME, found, rounds, clip=None, data=DATA, measure=lambda: measure(load()))
