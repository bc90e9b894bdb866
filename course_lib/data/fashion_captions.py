"""Captions for Fashion-MNIST that say more than the garment: tone, fill, size, place, and where a shoe points.

Tone and fill are measured on the pixels. Size, place and direction are made: a picture is shrunk, moved or mirrored,
and its caption then always says so, while a caption that says nothing means a picture as the data set has it. So no
augmentation contradicts a caption, and `Looks.fit` tells of any picture and any caption whether they go together.

    looks = plain_looks(pictures, labels)           # of (n, 1, 28, 28)
    images = arrange(pictures, looks)               # (n, 1, 32, 32)
    sentence(8, tone=0, small=1, place=0, frame="a photo of {it}")  # "a photo of a small dark bag at the left"
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_lib.data.grey_sets import GARMENTS
from course_lib.data.images import moved
from course_lib.data.shapes_scene import POSITIONS

TONES = ("dark", "grey", "bright")
FILLS = ("plain", "patterned")
SHOES = (5, 7, 9)  # sandal, sneaker, ankle boot: they point to the left in the data set
UNSAID = -1
LONGEST = 62  # bytes that fit the tokenizer's 64

FRAMES = (
    "{it}", "an image of {it}", "a photo of {it}", "a picture of {it}", "this is {it}", "there is {it}",
    "look at {it}", "{it} on a black background", "i would like {it}", "{it}, please", "it shows {it}",
    "the shop has {it}", "one sees {it}",
)  # fmt: skip
UNSEEN_FRAMES = (  # never trained on
    "a drawing of {it}", "here you can see {it}", "{it} on a table", "someone sells {it}", "what is this? {it}",
)  # fmt: skip
_AT = {place: f"at the {place}" for place in POSITIONS} | {"center": "in the center"}


@dataclass(frozen=True, eq=False)
class Looks:
    """What n pictures show, or what n captions say, as indices; `UNSAID` where a caption says nothing."""

    garment: Int[Tensor, " n"]  # into GARMENTS
    tone: Int[Tensor, " n"]  # into TONES
    fill: Int[Tensor, " n"]  # into FILLS
    small: Int[Tensor, " n"]  # 1: shrunk to 20 of 32 pixels
    place: Int[Tensor, " n"]  # into POSITIONS; the center unless small
    mirrored: Int[Tensor, " n"]  # 1: a shoe that points to the right

    def __len__(self) -> int:
        return len(self.garment)

    def __getitem__(self, some: slice | Tensor) -> Looks:
        return Looks(*(getattr(self, field.name)[some] for field in fields(self)))

    def rows(self) -> list[tuple[int, ...]]:
        """One tuple of indices per picture: what `sentence` takes."""
        return list(zip(*(getattr(self, field.name).tolist() for field in fields(self)), strict=True))

    def fit(self, captions: Looks) -> Bool[Tensor, "n m"]:
        """True where a picture (row) has everything that a caption (column) says."""
        agree = torch.ones(len(self), len(captions), dtype=torch.bool, device=self.garment.device)
        for field in fields(self):
            shown, said = getattr(self, field.name)[:, None], getattr(captions, field.name)
            agree &= (shown == said) | (said == UNSAID)
        return agree


def tone_and_fill(images: Float[Tensor, "n 1 28 28"]) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Indices into TONES (mean brightness of the garment: .5 and .7 of white part them) and FILLS.

    A garment is patterned where neighbouring pixels well inside it differ by more than .1 of white on average.
    """
    x = images.clamp(-1, 1) / 2 + 0.5
    cloth = (x > 0.08).float()
    inside = 1 - F.max_pool2d(1 - cloth, 3, stride=1, padding=1)  # every neighbour is cloth, too
    brightness = (x * cloth).sum((1, 2, 3)) / cloth.sum((1, 2, 3)).clamp(min=1)
    across, down = (x[..., 1:] - x[..., :-1]).abs(), (x[..., 1:, :] - x[..., :-1, :]).abs()
    both = inside[..., 1:] * inside[..., :-1], inside[..., 1:, :] * inside[..., :-1, :]
    change = (across * both[0]).sum((1, 2, 3)) + (down * both[1]).sum((1, 2, 3))
    texture = change / (both[0].sum((1, 2, 3)) + both[1].sum((1, 2, 3))).clamp(min=1)
    return (brightness > 0.5).long() + (brightness > 0.7).long(), (texture > 0.1).long()


def plain_looks(images: Float[Tensor, "n 1 28 28"], garment: Int[Tensor, " n"]) -> Looks:
    """What pictures of the data set show as they are: not shrunk, in the center, not mirrored."""
    zero = torch.zeros_like(garment)
    return Looks(garment, *tone_and_fill(images), zero, zero + POSITIONS.index("center"), zero)


def arrange(
    images: Float[Tensor, "n 1 28 28"], looks: Looks, shift: Int[Tensor, "n 2"] | None = None
) -> Float[Tensor, "n 1 32 32"]:
    """The pictures on 32×32 pixels: shrunk, placed, mirrored as `looks` says, then moved by `shift` (down, right)."""
    mirrored = torch.where(looks.mirrored.bool()[:, None, None, None], images.flip(3), images)
    large = F.pad(mirrored, (2, 2, 2, 2), value=-1)
    shrunk = F.interpolate(mirrored, size=(20, 20), mode="bilinear", antialias=True, align_corners=False)
    small = F.pad(shrunk, (6, 6, 6, 6), value=-1)
    steps = torch.tensor([{"left": (0, -6), "right": (0, 6), "top": (-6, 0), "bottom": (6, 0)}.get(p, (0, 0))
                          for p in POSITIONS], device=images.device)  # fmt: skip
    is_small = looks.small.bool()
    move = steps[looks.place] * is_small[:, None]
    if shift is not None:
        move = move + shift
    placed = torch.where(is_small[:, None, None, None], small, large)
    return moved(placed, move)


def sentence(
    garment: int, tone: int = UNSAID, fill: int = UNSAID, small: int = 0, place: int = 4, mirrored: int = 0,
    frame: str = "{it}",
) -> str:  # fmt: skip
    """One caption. Raises ValueError where it would not fit the tokenizer."""
    words = ["small"] if small else []
    words += [TONES[tone]] if tone != UNSAID else []
    words += [FILLS[fill]] if fill != UNSAID else []
    noun = GARMENTS[garment].split(" ", 1)[1]
    it = " ".join([*words, noun])
    it = ("an " if it[0] in "aeiou" else "a ") + it
    if small:
        it += " " + _AT[POSITIONS[place]]
    if mirrored:
        it += ", facing right"
    text = frame.format(it=it)
    if len(text) > LONGEST:
        raise ValueError(f"the caption has {len(text)} letters, {LONGEST} fit: {text!r}; leave tone or fill unsaid")
    return text


def spoken(looks: Looks, chance: Float[Tensor, "n 2"]) -> Looks:
    """What captions say of pictures: all but tone and fill, each of which is left out where `chance` is above .5.

    Both are left out, too, where the sentence would grow too long.
    """
    tone = torch.where(chance[:, 0] > 0.5, UNSAID, looks.tone)
    fill = torch.where(chance[:, 1] > 0.5, UNSAID, looks.fill)
    crowded = (looks.small + looks.mirrored == 2) | ((looks.small == 1) & (looks.garment == 1))
    fill = torch.where(crowded & (tone != UNSAID), UNSAID, fill)
    return Looks(looks.garment, tone, fill, looks.small, looks.place, looks.mirrored)


def write(said: Looks, numbers: Int[Tensor, " n"], noise: bool = True) -> list[str]:
    """The captions as training reads them: a frame, sometimes capitals, a full stop or words that mean nothing.

    `numbers` seeds each caption's choices. The made-up words teach the encoder to pass over what it doesn't know.
    """
    texts = []
    for values, number in zip(said.rows(), numbers.tolist(), strict=True):
        dice = random.Random(number)
        bare = sentence(*values)
        text = dice.choice(FRAMES).format(it=bare)
        if noise and dice.random() < 0.3:
            made_up = " ".join(_made_up(dice) for _ in range(dice.randint(1, 3)))
            text = f"{made_up} {bare}" if dice.random() < 0.6 else f"{bare} {made_up}"
        text = text if len(text) < LONGEST else bare
        if noise and dice.random() < 0.3:
            text = dice.choice((text.capitalize(), text + ".", text.upper()))
        texts.append(text[:LONGEST])
    return texts


def _made_up(dice: random.Random) -> str:
    return "".join(dice.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(dice.randint(2, 8)))
