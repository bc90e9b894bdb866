"""The unCLIP prior of Fashion-MNIST: as `prior_shapes`, with garments and their captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from course_lib import runtime
from course_lib.data import fashion_mnist
from course_lib.data.fashion_captions import FRAMES, UNSEEN_FRAMES, sentence
from course_lib.data.grey_sets import GARMENTS
from course_lib.evaluation.clip_scores import zero_shot
from course_lib.models.clip import CLIP
from course_lib.models.conditions import text_condition
from course_lib.models.prior import Prior, PriorConfig, draw_embeddings
from course_lib.recipes import clip_fashion, prior_shapes
from course_lib.recipes._first_guess import GUESS, fit_guess
from course_lib.recipes._garments import DATA, Garments, shown, source_captions, told
from course_lib.recipes._weights import Round, fit_rounds, load_into, ship, take_over
from course_lib.training import Draws, FitConfig, Fitted

NAME = "prior_fashion"
NETWORK = PriorConfig(layers=3, width=128)
LOOKED_AT = 3  # times that the first guess sees each picture, every time as `shown` and in other words
ROUNDS = (
    Round(NETWORK, FitConfig(steps=2_500, batch_size=128, learning_rate=1e-3, warmup=200, ema=0.998, save_every=120.0)),
)


def load(device: torch.device | str | None = None) -> Prior:
    """The shipped prior, frozen, in float32. Raises CheckpointError where it is missing or damaged."""
    return load_into(prior_shapes.new(config=NETWORK), NAME, device).freeze()


@torch.no_grad()
def measure(prior: Prior, clip: CLIP, n: int = 200, seed: int = 10**6) -> dict[str, Any]:
    """The card's metrics on the test set: nearness to real embeddings, the right garment, the spread of a garment."""
    test, metrics, device = fashion_mnist("test", 28), {}, clip.log_scale.device
    real, garment = clip_fashion.embedded(clip, test)
    classes = clip.encode_captions([sentence(k, frame="a photo of {it}") for k in range(len(GARMENTS))])
    generator = runtime.generator(seed, device)

    def drawn(captions: list[str], draws: int = 2) -> Tensor:
        text = text_condition(clip, [caption for caption in captions for _ in range(n)])
        return draw_embeddings(prior, text, draws=draws, generator=generator)

    def told_garment(name: str, frames: tuple[str, ...]) -> None:
        asked = [(k, frames[j % len(frames)]) for j, k in enumerate(range(len(GARMENTS)))]
        found = drawn([sentence(k, frame=frame) for k, frame in asked])
        labels = torch.arange(len(GARMENTS)).repeat_interleave(n)
        right = (zero_shot(found, classes).cpu() == labels).float().mean().item()
        metrics[f"garment as asked, {name} (n = {len(labels)})"] = {"value": round(right, 4), "floor": 0.1}

    told_garment("wordings trained on", FRAMES[:10])
    told_garment("wordings never trained on", UNSEEN_FRAMES)
    found = drawn(source_captions(), draws=1).unflatten(0, (len(GARMENTS), n))
    there = [real[(garment == k).to(real.device)] for k in range(len(GARMENTS))]
    ratios = [prior_shapes.spread_ratio(a, b) for a, b in zip(found, there, strict=True)]
    nearness = [(a @ b.mean(dim=0)).mean().item() for a, b in zip(found, there, strict=True)]
    text = text_condition(clip, source_captions()).embedding
    floor = [(row @ b.mean(dim=0)).item() for row, b in zip(text, there, strict=True)]
    metrics["variance within a garment over that of its test pictures, mean of ten"] = {
        "value": round(sum(ratios) / len(ratios), 4),
        "floor": 1.0,
    }
    metrics["cosine of a sample to the true embeddings (floor: the text embedding's)"] = {
        "value": round(sum(nearness) / len(nearness), 4),
        "floor": round(sum(floor) / len(floor), 4),
    }
    return metrics


@torch.no_grad()
def pairs(clip: CLIP, data: Garments, times: int = LOOKED_AT, seed: int = 0, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Embeddings (times · pictures, dim) of sentences, and of the pictures that they describe."""
    found: list[tuple[Tensor, Tensor]] = []
    order = torch.arange(len(data)).repeat(times).split(batch)
    for k, index in enumerate(tqdm(order, desc="embedding", unit="batch")):
        draws = Draws(seed, k, len(index), slice(0, len(index)), clip.log_scale.device)
        with runtime.autocast(clip.log_scale.device):
            image, text = told(clip, *shown(data(index), draws), draws)
        found.append((text.embedding.float().cpu(), image.float().cpu()))
    sentences, images = zip(*found, strict=True)
    return torch.cat(sentences), torch.cat(images)


def run(
    rounds: Sequence[Round] = ROUNDS, folder: Any = None, times: int = LOOKED_AT, guess: FitConfig = GUESS
) -> Fitted:
    """Train it: the first guess alone, then all of it."""
    clip, data = clip_fashion.load(), Garments()

    def loss(prior: Prior, batch: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
        images, looks = shown(batch, draws)
        embeddings, text = told(clip, images, looks, draws)
        return prior_shapes.prior_loss(prior, embeddings, text, draws)

    guessing = prior_shapes.new(rounds[0].fit.seed, rounds[0].network)
    seconds = fit_guess(guessing, *pairs(clip, data, times), folder, guess)

    def first(seed: int, network: PriorConfig) -> Prior:
        return take_over(prior_shapes.new(seed, network), guessing.state_dict())

    found = fit_rounds(rounds, first, loss, data, folder)
    return dataclasses.replace(found, seconds=found.seconds + seconds)


def train(folder: Path | str | None = None, rounds: Sequence[Round] = ROUNDS) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint `prior_fashion` with its card."""
    found, clip = run(rounds, Path(folder or runtime.state_root() / "runs" / NAME)), clip_fashion.load()
    ship(NAME, found, rounds, clip=clip, data=DATA, measure=lambda: measure(load(), clip))
