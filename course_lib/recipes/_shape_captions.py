"""The training set of the text-to-image models of shapes: pictures, every wording of their captions, embeddings."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from course_lib import runtime
from course_lib.data import ByteTokenizer, shapes
from course_lib.evaluation.faithfulness import trained_scenes
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.models.clip import CLIP
from course_lib.models.conditions import TextCondition, encoded
from course_lib.pixels import from_uint8, to_uint8
from course_lib.training import Draws

SCENES = 100_000
DATA = f"shapes: {SCENES:,} scenes, none of a reserved meaning or with a held-out pair; measured on others"


def tokens_of(clip: CLIP, scenes: list[shapes.Scene]) -> Int[Tensor, "n wordings length"]:
    """The captions of the scenes as tokens, in every wording, padded."""
    texts = [text for scene in scenes for text in shapes.wordings(scene)]
    tokenizer = ByteTokenizer(clip.config.text_length)
    ids = torch.cat([tokenizer.encode(texts[k : k + 5000])[0].short() for k in range(0, len(texts), 5000)])
    return ids.unflatten(0, (len(scenes), -1))


class CaptionedShapes:
    """n scenes as bytes, and their captions as tokens, every wording."""

    def __init__(self, clip: CLIP, n: int = SCENES, seed: int = 0) -> None:
        scenes = trained_scenes(n, seed)
        parts = [shapes.render(scenes[k : k + 5000], seed=seed + k).images for k in range(0, n, 5000)]
        self.pixels = torch.cat([to_uint8(part) for part in parts])
        self.ids = tokens_of(clip, scenes)

    def __len__(self) -> int:
        return len(self.pixels)

    def __call__(self, index: Tensor) -> tuple[Tensor, ...]:
        """Bytes of the pictures, tokens of all wordings."""
        return self.pixels[index], self.ids[index]


class EmbeddedShapes(CaptionedShapes):
    """The same, and the CLIP embeddings of the pictures."""

    def __init__(self, clip: CLIP, n: int = SCENES, seed: int = 0) -> None:
        super().__init__(clip, n, seed)
        with runtime.autocast(clip.log_scale.device):  # rounding is far below what differs between pictures
            parts = [embed_images(clip, from_uint8(part)).float().cpu() for part in self.pixels.split(5000)]
        self.embeddings = torch.cat(parts)

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Bytes of the pictures, tokens of all wordings, embeddings."""
        return *super().__call__(index), self.embeddings[index]


@torch.no_grad()
def one_wording(clip: CLIP, ids: Tensor, draws: Draws) -> TextCondition:
    """Each caption in a wording drawn for it, encoded by the frozen CLIP."""
    wording = (draws.uniform() * ids.shape[1]).long()
    ids = ids[torch.arange(len(ids), device=ids.device), wording].long()
    return encoded(clip, ids, ids != ByteTokenizer.pad)


def pictures(pixels: Tensor) -> Tensor:
    """Bytes to pictures in [-1, 1], laid out as convolutions like them."""
    return from_uint8(pixels).contiguous(memory_format=torch.channels_last)
