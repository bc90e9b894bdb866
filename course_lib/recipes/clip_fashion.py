"""The CLIP of Fashion-MNIST: garments with captions that also say tone, fill, size, place and direction.

The first 55,000 training pictures train it, the last 5,000 choose when to stop, the test set measures.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_lib import checkpoints, runtime
from course_lib.data import ByteTokenizer, fashion_mnist
from course_lib.data.fashion_captions import (
    FILLS,
    FRAMES,
    SHOES,
    TONES,
    UNSAID,
    UNSEEN_FRAMES,
    Looks,
    arrange,
    plain_looks,
    sentence,
    spoken,
    write,
)
from course_lib.data.grey_sets import GARMENTS, ImageSet
from course_lib.data.shapes_scene import POSITIONS
from course_lib.evaluation.clip_scores import above_shuffled, zero_shot
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.models.clip import CLIP, CLIPConfig, clip_loss
from course_lib.recipes import _card
from course_lib.recipes._weights import INTO_THE_SPACE
from course_lib.training import Draws, FitConfig, Fitted, fit

NAME = "clip_fashion"
NETWORK = CLIPConfig(channels=1, stem="convolutions", text_layers=2, dropout=0.05)
TRAINED_ON = 55_000
CONFIG = FitConfig(
    steps=2_400, batch_size=256, learning_rate=1e-3, warmup=100, betas=(0.9, 0.98), weight_decay=0.05, ema=0.998,
    evaluate_every=200,
)  # fmt: skip


def dressed(looks: Looks, draws: Draws) -> tuple[Looks, Tensor]:
    """Looks of pictures of which some are shrunk and some shoes mirrored, and by how many pixels each is moved."""
    small = (draws.uniform() < 0.35).long()
    place = torch.where(small == 1, draws.integers(len(POSITIONS)), POSITIONS.index("center"))
    shoe = torch.isin(looks.garment, torch.tensor(SHOES, device=looks.garment.device))
    mirrored = ((draws.uniform() < 0.4) & shoe).long()
    reach = torch.where(small == 1, 1, 2)[:, None]
    shift = (draws.uniform(2) * (2 * reach + 1)).long() - reach
    return Looks(looks.garment, looks.tone, looks.fill, small, place, mirrored), shift


def loss(model: CLIP, batch: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
    """The contrastive loss; a caption is right for every picture of the batch that it fits."""
    images, garment = batch
    looks, shift = dressed(plain_looks(images, garment), draws)
    other = ~torch.isin(garment, torch.tensor(SHOES, device=garment.device)) & (draws.uniform() < 0.5)
    images = torch.where(other[:, None, None, None], images.flip(3), images)  # no caption speaks of their direction
    said = spoken(looks, draws.uniform(2))
    texts = write(said, draws.integers(2**31 - 1))
    ids, real = (part.to(images.device) for part in ByteTokenizer(NETWORK.text_length).encode(texts))
    return clip_loss(*model(arrange(images, looks, shift), ids, real), looks.fit(said))


def embedded(clip: CLIP, pictures: ImageSet, some: slice | None = None) -> tuple[Tensor, Tensor]:
    """Embeddings of 28×28 pictures as they are, and what garments they are."""
    images, garment = pictures.images(some), pictures.labels[some or slice(None)]
    return embed_images(clip, arrange(images, plain_looks(images, garment))), garment


@torch.no_grad()
def class_accuracy(clip: CLIP, image: Tensor, garment: Tensor, frame: str = "a photo of {it}") -> float:
    """Share of embedded pictures whose garment is the one whose sentence fits best."""
    classes = clip.encode_captions([sentence(k, frame=frame) for k in range(len(GARMENTS))])
    return (zero_shot(image, classes).cpu() == garment.cpu()).float().mean().item()


def new(seed: int = 0) -> CLIP:
    """An untrained network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CLIP(NETWORK)


def load() -> CLIP:
    """The shipped CLIP, frozen, in float32, on the course's device."""
    tensors, _ = checkpoints.load(NAME, device=runtime.device())
    model = CLIP(NETWORK).to(runtime.device())
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.freeze()


def run(config: FitConfig = CONFIG, folder: Any = None) -> Fitted:
    """Train it."""
    train_set = fashion_mnist("train", 28).to(runtime.device())
    held_back = slice(TRAINED_ON, len(train_set))

    def batches(index: Tensor) -> tuple[Tensor, Tensor]:
        return train_set.images(index), train_set.labels[index.to(train_set.device)]

    def evaluate(model: CLIP) -> float:
        return 1 - class_accuracy(model, *embedded(model, train_set, held_back))

    return fit(new(config.seed), loss, batches, TRAINED_ON, config, folder=folder, evaluate=evaluate)


@torch.no_grad()
def measure(model: CLIP, test: ImageSet, seed: int = 0) -> dict[str, Any]:
    """The card's metrics: the garment in all wordings, and the other words, on the test set."""
    metrics: dict[str, Any] = {}
    plain = embedded(model, test)
    for name, frames in (("trained on", FRAMES), ("never trained on", UNSEEN_FRAMES)):
        shares = [class_accuracy(model, *plain, frame) for frame in frames]
        metrics[f"garment, mean over {len(frames)} wordings {name}"] = {
            "value": round(sum(shares) / len(shares), 4),
            "floor": 0.1,
        }
        metrics[f"garment, the worst of them, {name}"] = {"value": round(min(shares), 4), "floor": 0.1}
    draws = Draws(seed, 0, len(test), slice(0, len(test)))
    looks, shift = dressed(plain_looks(test.images().cpu(), test.labels.cpu()), draws)
    image = embed_images(model, arrange(test.images().cpu(), looks, shift))
    every = torch.ones(len(test), dtype=torch.bool)
    for word, choices, some in (
        ("tone", len(TONES), every),
        ("fill", len(FILLS), every),
        ("small", 2, every),
        ("place", len(POSITIONS), looks.small == 1),
        ("mirrored", 2, torch.isin(looks.garment, torch.tensor(SHOES))),
    ):
        share = word_accuracy(model, image[some], looks[some], word, choices)
        usual = torch.bincount(getattr(looks[some], word)).max().item() / some.sum().item()
        metrics[f"{word}, the other words given"] = {"value": round(share, 4), "floor": round(usual, 4)}
    said = spoken(looks, torch.zeros(len(looks), 2))
    texts = [sentence(*row) for row in said.rows()]
    text = torch.cat([model.encode_captions(texts[k : k + 500]) for k in range(0, len(texts), 500)])
    metrics["right caption above a shuffled one"] = {
        "value": round(above_shuffled(image, text, same=looks.fit(said).to(image.device)), 4),
        "floor": 0.5,
    }
    return metrics


def word_accuracy(model: CLIP, image: Tensor, looks: Looks, word: str, choices: int) -> float:
    """Share of pictures for which the sentence with the right `word` fits best, the garment, size and place given."""
    plain = replace(looks, tone=torch.full_like(looks.tone, UNSAID), fill=torch.full_like(looks.fill, UNSAID))
    scores = []
    for k in range(choices):
        rows = replace(plain, **{word: torch.full_like(looks.tone, k)}).rows()
        distinct = sorted(set(rows))
        place = {row: i for i, row in enumerate(distinct)}
        text = model.encode_captions([sentence(*row) for row in distinct])
        scores.append((image * text[[place[row] for row in rows]]).sum(dim=1))
    return (torch.stack(scores, dim=1).argmax(dim=1).cpu() == getattr(looks, word)).float().mean().item()


def train(folder: str | None = None, config: FitConfig = CONFIG) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint `clip_fashion` with its card."""
    found = run(config, folder=folder or runtime.state_root() / "runs" / NAME)
    data = (
        f"Fashion-MNIST with captions by code: the first {TRAINED_ON:,} training pictures, some shrunk, moved or "
        "mirrored as their captions say; measured on the 10,000 test pictures"
    )

    def store(metrics: dict[str, Any]) -> Path:
        card = _card.of_run(NAME, config, found, data=data, metrics=metrics, network=asdict(NETWORK))
        return checkpoints.save(NAME, found.best.state_dict(), card, packed=True, exact=INTO_THE_SPACE)

    store({})
    metrics = measure(load(), fashion_mnist("test", 28))  # of what is shipped, rounding and all
    path = store(metrics)
    for name, entry in metrics.items():
        print(f"{name}: {entry['value']:.1%} (chance {entry['floor']:.1%})")
    print(f"written: {path}")
