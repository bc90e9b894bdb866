"""The CLIP of Fashion-MNIST: garments with captions that also say tone, fill, size, place and direction.

The first 55,000 training pictures train it, the last 5,000 choose when to stop, the test set measures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from course_lib import checkpoints, runtime
from course_lib.data import ByteTokenizer, fashion_mnist
from course_lib.data.fashion_captions import (
    SHOES,
    Looks,
    arrange,
    plain_looks,
    sentence,
    spoken,
    write,
)
from course_lib.data.grey_sets import ImageSet
from course_lib.data.shapes_scene import POSITIONS
from course_lib.evaluation.clip_scores import zero_shot
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.models.clip import CLIP, CLIPConfig, clip_loss
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


@torch.no_grad()
def class_accuracy(clip: CLIP, pictures: ImageSet, frame: str = "a photo of {it}", count: int | None = None) -> float:
    """Share of 28×28 pictures, as they are, whose garment is the one whose sentence fits best."""
    some = slice(0, count)
    images = pictures.images(some)
    image = embed_images(clip, arrange(images, plain_looks(images, pictures.labels[some])))
    classes = clip.encode_captions([sentence(k, frame=frame) for k in range(10)])
    return (zero_shot(image, classes).cpu() == pictures.labels[some].cpu()).float().mean().item()


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
    held_back = torch.arange(TRAINED_ON, len(train_set))

    def batches(index: Tensor) -> tuple[Tensor, Tensor]:
        return train_set.images(index), train_set.labels[index.to(train_set.device)]

    check = train_set.images(held_back), train_set.labels[held_back.to(train_set.device)]

    def evaluate(model: CLIP) -> float:
        image = embed_images(model, arrange(check[0], plain_looks(*check)))
        classes = model.encode_captions([sentence(k, frame="a photo of {it}") for k in range(10)])
        return 1 - (zero_shot(image, classes) == check[1]).float().mean().item()

    return fit(new(config.seed), loss, batches, TRAINED_ON, config, folder=folder, evaluate=evaluate)
