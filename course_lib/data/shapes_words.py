"""The captions of the shapes as words: one number per word, for models whose tokens should be words, not bytes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from course_lib.data.shapes_captions import ONE_OBJECT_WORDINGS, TWO_OBJECT_WORDINGS
from course_lib.data.shapes_scene import COLORS, POSITIONS, RELATIONS, SHAPES, SIZES

LONGEST = 12  # words of the longest caption
_TEMPLATES = " ".join((*ONE_OBJECT_WORDINGS, *TWO_OBJECT_WORDINGS, *RELATIONS, "at the in the"))
VOCABULARY = tuple(
    dict.fromkeys(
        [
            *SIZES, *COLORS, *SHAPES, *POSITIONS,
            *(word.strip(",") for word in _TEMPLATES.split() if not word.startswith("{")),
        ]
    )
)  # fmt: skip
PADDING = len(VOCABULARY)
_NUMBER = {word: i for i, word in enumerate(VOCABULARY)}


def split(caption: str) -> list[str]:
    """The words of a caption, in order, without commas and the full stop."""
    return [word.strip(",.") for word in caption.lower().split()]


def word_ids(captions: Sequence[str]) -> tuple[Int64[Tensor, "n words"], Bool[Tensor, "n words"]]:
    """Numbers of the words of each caption (`VOCABULARY`), and a mask that is False for padding.

    Raises TypeError for one string in place of a list, ValueError for no caption at all, an unknown word, or too many.
    """
    if isinstance(captions, str):
        raise TypeError("captions must be a list of strings; for one caption use [caption]")
    if not len(captions):
        raise ValueError("captions is empty; give at least one sentence")
    ids = torch.full((len(captions), LONGEST), PADDING)
    for i, caption in enumerate(captions):
        words = split(caption)
        unknown = [word for word in words if word not in _NUMBER]
        if unknown or not words:
            told = f"holds {unknown[0]!r}, which no caption of the shapes does" if unknown else "is empty"
            raise ValueError(f"captions[{i}] {told}; known words: {', '.join(VOCABULARY)}")
        if len(words) > LONGEST:
            raise ValueError(f"captions[{i}] has {len(words)} words, {LONGEST} fit: {caption!r}")
        ids[i, : len(words)] = torch.tensor([_NUMBER[word] for word in words])
    real = ids != PADDING
    longest = int(real.sum(dim=1).amax())
    return ids[:, :longest], real[:, :longest]
