"""The unCLIP decoder of Fashion-MNIST: from a CLIP image embedding and a caption to a garment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_lib import runtime
from course_lib.data import fashion_mnist
from course_lib.data.fashion_captions import UNSEEN_FRAMES, arrange, plain_looks, sentence
from course_lib.data.grey_sets import GARMENTS
from course_lib.evaluation import report
from course_lib.evaluation.faithfulness import wilson
from course_lib.evaluation.yardstick import look
from course_lib.models.clip import CLIP
from course_lib.models.conditions import decoder_condition, text_condition
from course_lib.models.prior import Prior, draw_embeddings
from course_lib.models.unclip import DecoderConfig, UnclipDecoder
from course_lib.recipes import _decoder, clip_fashion, prior_fashion, text_shapes
from course_lib.recipes._garments import DATA, Garments, shown, source_captions, told
from course_lib.recipes._weights import Round, fit_rounds, load_into, ship
from course_lib.training import Draws, FitConfig, Fitted

NAME = "decoder_fashion"
NETWORK = DecoderConfig(dataclasses.replace(text_shapes.BODY, channels=1), prediction="v")
SCALE = 3.0
ROUNDS = (
    Round(NETWORK, FitConfig(steps=4_000, batch_size=64, learning_rate=8e-4, warmup=200, ema=0.998, save_every=120.0)),
)


def load(device: torch.device | str | None = None) -> UnclipDecoder:
    """The shipped decoder, in eval mode and float32. Raises CheckpointError where it is missing or damaged."""
    return load_into(_decoder.new(NETWORK), NAME, device)


@torch.no_grad()
def asked(parts: tuple[CLIP, Prior, UnclipDecoder], captions: list[str], seed: int = 10**6, **options: Any) -> Tensor:
    """One picture per caption, its embedding drawn by the prior."""
    clip, prior, decoder = parts
    text = text_condition(clip, captions)
    image = draw_embeddings(prior, text, generator=runtime.generator(seed, text.embedding.device))
    return _decoder.draw(decoder, decoder_condition(image, text), seed=seed, **({"scale": SCALE} | options))


def measure(parts: tuple[CLIP, Prior, UnclipDecoder], n: int = 100, seed: int = 10**6) -> dict[str, Any]:
    """The card's metrics: garments as asked, in the sources' wording and new ones; Fréchet distance over its floor."""
    metrics: dict[str, Any] = {}
    labels = torch.arange(len(GARMENTS)).repeat_interleave(n)
    real = fashion_mnist("test", 28)
    seen = look(arrange(real.images(), plain_looks(real.images(), real.labels))).labels == real.labels.cpu()

    def told_right(name: str, captions: list[str], seed: int) -> Tensor:
        images = asked(parts, captions, seed)
        right = look(images).labels == labels
        low, high = wilson(int(right.sum()), len(right))
        metrics[f"garment as asked, {name} (n = {len(right)})"] = {
            "value": round(right.float().mean().item(), 4),
            "floor": 0.1,
            "interval": [round(low, 4), round(high, 4)],
            "real test pictures": round(seen.float().mean().item(), 4),
            "by garment": [round(share, 2) for share in right.float().unflatten(0, (-1, n)).mean(dim=1).tolist()],
        }
        print(name, metrics[f"garment as asked, {name} (n = {len(right)})"], flush=True)
        return images

    ten = source_captions()
    images = told_right("the ten captions of the sources", [text for text in ten for _ in range(n)], seed)
    wordings = [
        sentence(k, frame=UNSEEN_FRAMES[j % len(UNSEEN_FRAMES)]) for k in range(len(GARMENTS)) for j in range(n)
    ]
    told_right("wordings never trained on", wordings, seed + 1)
    result = report(images, fashion_mnist("train"), fashion_mnist("test"))
    metrics[f"Fréchet distance, the ten captions, n={result.n}"] = {
        "value": round(result.frechet, 4),
        "floor": round(result.floor, 4),
    }
    return metrics


def run(rounds: Sequence[Round] = ROUNDS, folder: Any = None) -> Fitted:
    """Train it."""
    clip, data, objective = clip_fashion.load(), Garments(), _decoder.DecoderObjective()

    def loss(model: UnclipDecoder, batch: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
        images, looks = shown(batch, draws)
        return objective(model, images, decoder_condition(*told(clip, images, looks, draws)), draws)

    painter = text_shapes.load()  # what fits is taken over

    def first(seed: int, network: DecoderConfig) -> UnclipDecoder:
        return _decoder.new(network, seed, painter)

    return fit_rounds(rounds, first, loss, data, folder)


def train(folder: Path | str | None = None, rounds: Sequence[Round] = ROUNDS) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint `decoder_fashion` with its card."""
    found, clip = run(rounds, Path(folder or runtime.state_root() / "runs" / NAME)), clip_fashion.load()

    def measured() -> dict[str, Any]:
        return measure((clip, prior_fashion.load(), load()))

    ship(NAME, found, rounds, clip=clip, data=DATA, measure=measured)
