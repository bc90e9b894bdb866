"""Where a word looks: maps of single words from recorded attention, and how far they keep to their object's mask."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def word_places(caption: str, word: str, occurrence: int = 0) -> slice:
    """Which tokens of `caption` are the bytes of `word`: a slice, counted from the start token at 0.

    `occurrence` chooses where a word stands more than once. Raises ValueError where it is not in the sentence.
    """
    found, place = [], 1
    for other in caption.split(" "):
        if other.strip(",.") == word:
            found.append(place)
        place += len(other.encode()) + 1
    if not 0 <= occurrence < len(found):
        raise ValueError(
            f"word={word!r} stands {len(found)} times in {caption!r}; occurrence={occurrence} is not there"
        )
    return slice(found[occurrence], found[occurrence] + len(word.encode()))


def coverage(masks: Bool[Tensor, "*n high wide"], side: int) -> Float[Tensor, "*n side side"]:
    """Masks of pixels at the size of the maps: the share of each square that the object covers.

    Raises ValueError unless `side` divides both sides of the masks.
    """
    if side < 1 or masks.shape[-1] % side or masks.shape[-2] % side:
        raise ValueError(f"side={side} must divide the masks' {masks.shape[-2]} x {masks.shape[-1]} pixels")
    flat = masks.reshape(-1, 1, *masks.shape[-2:]).float()
    small = F.avg_pool2d(flat, (masks.shape[-2] // side, masks.shape[-1] // side))
    return small.reshape(*masks.shape[:-2], side, side)


def lift(maps: Float[Tensor, "n side side"], mask: Float[Tensor, "n side side"]) -> Float[Tensor, " n"]:
    """The share of each map that lies in its mask, over the mask's share of the area: 1 for a map that knows nothing.

    The same number is the mean of the map inside the mask over its mean everywhere. `mask` may hold shares of squares.
    """
    inside = (maps * mask).sum(dim=(1, 2)) / maps.sum(dim=(1, 2))
    return inside / mask.mean(dim=(1, 2))
