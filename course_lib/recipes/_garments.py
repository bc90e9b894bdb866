"""What the text-to-image models of Fashion-MNIST are trained on and asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib import runtime
from course_lib.data import ByteTokenizer, fashion_mnist
from course_lib.data.fashion_captions import Looks, arrange, plain_looks, sentence, spoken, write
from course_lib.data.grey_sets import GARMENTS
from course_lib.models.clip import CLIP
from course_lib.models.conditions import TextCondition, encoded
from course_lib.recipes.clip_fashion import TRAINED_ON, dressed
from course_lib.training import Draws

DATA = "Fashion-MNIST, its first 55,000 training pictures, captioned; measured on or against its test set"
SOURCE_FRAME = "an image of {it}"  # how the course's sources put it


def source_captions() -> list[str]:
    """The ten captions of the course's sources, one per garment."""
    return [sentence(k, frame=SOURCE_FRAME) for k in range(len(GARMENTS))]


class Garments:
    """The training pictures and their labels, on the course's device."""

    def __init__(self) -> None:
        self.set = fashion_mnist("train", 28).to(runtime.device())

    def __len__(self) -> int:
        return TRAINED_ON

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """28×28 pictures and labels."""
        return self.set.images(index), self.set.labels[index.to(self.set.device)]


def shown(batch: tuple[Tensor, Tensor], draws: Draws) -> tuple[Tensor, Looks]:
    """Pictures on 32×32 pixels, some shrunk and placed, some shoes mirrored, and what they show."""
    looks, shift = dressed(plain_looks(*batch), draws)
    images = arrange(batch[0], looks, shift)
    return images.contiguous(memory_format=torch.channels_last), looks


@torch.no_grad()
def told(clip: CLIP, images: Tensor, looks: Looks, draws: Draws) -> tuple[Tensor, TextCondition]:
    """The CLIP embeddings of pictures, and a caption of each as the frozen CLIP reads it."""
    texts = write(spoken(looks, draws.uniform(2)), draws.integers(2**31 - 1), noise=False)
    ids, real = (part.to(images.device) for part in ByteTokenizer(clip.config.text_length).encode(texts))
    return clip.encode_image(images).float(), encoded(clip, ids, real)
