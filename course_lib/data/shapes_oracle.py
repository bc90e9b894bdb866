"""The oracle: looks at pictures, says what they show, and checks that against prompts.

It works by analysis and synthesis. Analysis: find the background, give every pixel to the palette color that
explains it best, then match each object with drawn templates of every shape and size (`shapes_match`). Synthesis:
draw what was found and compare with the picture; what the drawing leaves unexplained decides whether the picture is
such a scene at all. It never sees how a picture was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_lib.data.shapes_captions import parse_caption
from course_lib.data.shapes_geometry import GAP, MIDDLE, REACH, SIDE
from course_lib.data.shapes_match import match
from course_lib.data.shapes_render import PALETTE_TABLE, coverage, signed_distance
from course_lib.data.shapes_scene import COLORS, POSITIONS, RELATIONS, SHAPES, SIZES, Scene

CHUNK = 512  # pictures read at a time
SOLID = 0.45  # a pixel belongs to an object when at least this share of it has the object's color
FEWEST_PIXELS = 7  # the smallest visible object (a small star, partly hidden) has about 11
SIZE_BORDER = 5.4  # radius in pixels: small is at most 4.6, large at least 6.2
CENTER_BORDER = 4.2  # pixels from the middle: "center" stays within 2, "left" and its like are at least 6.5 away
UNEXPLAINED = (
    0.12  # largest share of an object's signal that its drawing may leave unexplained; a soft blob leaves 0.135
)
STRAY = 0.12  # largest mean squared error in any 5×5 patch, beyond the noise
NOISE_VARIANCE = 0.03  # more noise than this (std 0.17) and the picture counts as unreadable
STRENGTH = (0.6, 1.3)  # brightness of an object relative to the palette
BACKGROUND = (-1.15, -0.55)  # range of the grey
CUT_OFF = 0.5  # pixels by which an object may seem to leave the picture; drawn ones never do by more than 0.3
GREYNESS = 0.25  # largest difference between the background's channels


@dataclass(frozen=True, eq=False)
class Reading:
    """What n pictures show. Column 1 of an `n 2` field is the second object, meaningless where `count` < 2."""

    clean: Bool[Tensor, " n"]  # the picture is such a scene and nothing else: dark ground, one or two known objects
    count: Int[Tensor, " n"]  # objects found: 0, 1 or 2
    shape: Int[Tensor, "n 2"]  # index into SHAPES
    color: Int[Tensor, "n 2"]  # index into COLORS
    size: Int[Tensor, "n 2"]  # index into SIZES
    x: Float[Tensor, "n 2"]  # centre in pixels
    y: Float[Tensor, "n 2"]
    radius: Float[Tensor, "n 2"]  # pixels

    def __len__(self) -> int:
        return len(self.clean)


@dataclass(frozen=True, eq=False)
class Score:
    """Which words of its prompt each of n pictures obeys. Column 1 is its second object, False if there is none."""

    asked: Bool[Tensor, "n 2"]  # does the prompt ask for a first, a second object?
    shape: Bool[Tensor, "n 2"]
    color: Bool[Tensor, "n 2"]
    size: Bool[Tensor, "n 2"]
    place: Bool[Tensor, " n"]  # the position, or the relation
    count: Bool[Tensor, " n"]  # as many objects as asked for
    clean: Bool[Tensor, " n"]  # the picture is such a scene and nothing else

    @property
    def correct(self) -> Bool[Tensor, " n"]:
        """Everything right at once."""
        words = (self.shape & self.color & self.size) | ~self.asked
        return words.all(dim=1) & self.place & self.count & self.clean

    def rates(self) -> dict[str, float]:
        """Share of right answers per attribute: over the objects asked for, or over the pictures."""
        rates = {name: getattr(self, name)[self.asked].double().mean().item() for name in ("shape", "color", "size")}
        for name in ("place", "count", "clean", "correct"):
            rates[name] = getattr(self, name).double().mean().item()
        return rates

    def __len__(self) -> int:
        return len(self.place)


def _dilate(mask: Tensor, pixels: int) -> Tensor:
    """Grow a mask (… h w, bool) by so many pixels to every side."""
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return F.max_pool2d(flat, 2 * pixels + 1, stride=1, padding=pixels).reshape(mask.shape) > 0.5


def _two_largest_parts(mask: Bool[Tensor, "n side side"]) -> tuple[Bool[Tensor, "n 2 side side"], Int[Tensor, "n 2"]]:
    """The two largest connected parts of each mask (neighbours by side or corner) and their sizes in pixels."""
    numbers = torch.arange(1, SIDE * SIDE + 1, dtype=torch.float32).reshape(1, SIDE, SIDE) * mask
    for _ in range(SIDE * SIDE):  # the largest number spreads over its part; a dozen rounds for the shapes drawn here
        spread = F.max_pool2d(numbers[:, None], 3, stride=1, padding=1)[:, 0] * mask
        if torch.equal(spread, numbers):
            break
        numbers = spread
    label = numbers.long().flatten(1)
    sizes = torch.zeros(len(mask), SIDE * SIDE + 1, dtype=torch.int64).scatter_add_(1, label, mask.flatten(1).long())
    size, which = sizes.topk(2, dim=1)
    parts = (label[:, None] == which[:, :, None]) & (size > 0)[:, :, None]
    return parts.reshape(-1, 2, SIDE, SIDE), size


def _segment(share: Float[Tensor, "n 7 side side"], best: Int[Tensor, "n side side"]) -> tuple[Tensor, Tensor]:
    """Which pixels show which object (n 2 side side, bool), and the objects' colors (n 2).

    Two colors are two objects. One color in two separate parts is two objects of that color.
    """
    solid = share.gather(1, best[:, None])[:, 0] > SOLID
    votes = F.one_hot(torch.where(solid, best, 7), 8)[..., :7].sum((1, 2))
    pixels, color = votes.topk(2, dim=1)
    mine = (best[:, None] == color[..., None, None]) & solid[:, None]
    mine &= (pixels >= FEWEST_PIXELS)[..., None, None]
    alone = ((pixels[:, 0] >= FEWEST_PIXELS) & (pixels[:, 1] < FEWEST_PIXELS)).nonzero()[:, 0]
    parts, size = _two_largest_parts(mine[alone, 0])
    split = size[:, 1] >= FEWEST_PIXELS
    mine[alone[split]] = parts[split]
    color[alone[split], 1] = color[alone[split], 0]
    return mine, color


def _synthesis_error(
    signal: Tensor, cover: Tensor, distance: Tensor, strength: Tensor
) -> Float[Tensor, "n 3 side side"]:
    """Picture minus drawing (both less the background), for the order of drawing that fits better."""
    errors = []
    for front in (0, 1):
        visible = cover.clone()
        visible[:, 1 - front] *= 1 - coverage(distance[:, front] - GAP)
        errors.append(signal - torch.einsum("nohw,noc->nchw", visible, strength))
    better = errors[0].square().sum((1, 2, 3)) <= errors[1].square().sum((1, 2, 3))
    return torch.where(better[:, None, None, None], errors[0], errors[1])


def _explained(signal: Tensor, cover: Tensor, error: Tensor, strength: Tensor, found: Tensor) -> Bool[Tensor, " n"]:
    """Does the drawing explain the picture: every object well, nothing left over, noise within bounds?"""
    around = _dilate(cover > 0, 2)
    outside = ~around.any(1)
    # Noise level from how much neighbours outside the objects differ: the median is blind to a stray spot, and the
    # difference to a soft halo; both are left for the tests below.
    apart = outside[:, None, :, 1:] & outside[:, None, :, :-1]
    spread = error.diff(dim=3).abs().where(apart, torch.tensor(float("nan"))).flatten(1).nanmedian(dim=1).values
    noise = (1.4826 * spread).square().nan_to_num(2.0) / 2
    squared = error.square().mean(1) - noise[:, None, None]
    stray = F.avg_pool2d(squared[:, None], 5, stride=1).amax((1, 2, 3))
    left = (squared[:, None] * around).sum((2, 3))
    energy = strength.square().mean(-1) * cover.square().sum((2, 3))
    unexplained = left / energy.clamp(min=1e-6)
    return (stray < STRAY) & (noise < NOISE_VARIANCE) & ((unexplained < UNEXPLAINED) | ~found).all(1)


def _read(images: Float[Tensor, "n 3 side side"]) -> Reading:
    n = len(images)
    finite = images.isfinite().flatten(1).all(1)
    images = images.nan_to_num(0.0, 0.0, 0.0).clamp(-4, 4)  # beyond 4 is no picture of ours; keeps the sums finite
    ground = images.flatten(2).median(dim=2).values  # n 3: objects cover less than half of a scene
    dark = (ground.mean(1) > BACKGROUND[0]) & (ground.mean(1) < BACKGROUND[1])
    grey = ground.amax(1) - ground.amin(1) < GREYNESS
    signal = images - ground[:, :, None, None]
    color_signal = PALETTE_TABLE - ground[:, None]  # n 7 3: from the background to each color
    norm = color_signal.square().sum(-1)
    share = torch.einsum("nchw,nkc->nkhw", signal, color_signal) / norm[..., None, None]
    used = share.clamp(0, STRENGTH[1])
    # |signal − used·color|², less the |signal|² that is the same for all colors
    misfit = (used * (used - 2 * share)) * norm[..., None, None]
    mine, color = _segment(share, misfit.argmin(1))
    found = mine.flatten(2).any(2)

    evidence = share.gather(1, color[..., None, None].expand(-1, -1, SIDE, SIDE))
    unsure = _dilate(mine, 2).flip(1) & ~mine  # near the other object: may be hidden, counts neither way
    shape, x, y, radius, amount = (torch.zeros(n, 2) for _ in range(5))
    fit = match(evidence[found], (~unsure[found]).float(), mine[found])
    for field, values in zip((shape, x, y, radius, amount), fit, strict=True):
        field[found] = values.float()
    distance = torch.full((n, 2, SIDE, SIDE), 1e3)
    distance[found] = signed_distance(shape[found].long(), x[found], y[found], radius[found])
    cover = coverage(distance)
    strength = amount[..., None] * color_signal.gather(1, color[..., None].expand(-1, -1, 3))
    error = _synthesis_error(signal, cover, distance, strength)
    right_strength = (((amount > STRENGTH[0]) & (amount < STRENGTH[1])) | ~found).all(1)
    # Pixels end half a pixel beyond their centres: the picture reaches from −0.5 to 31.5.
    out = torch.maximum((x - MIDDLE).abs(), (y - MIDDLE).abs()) + REACH * radius - SIDE / 2
    inside = ((out < CUT_OFF) | ~found).all(1)
    clean = finite & dark & grey & found[:, 0] & right_strength & inside
    clean &= _explained(signal, cover, error, strength, found)
    size = (radius > SIZE_BORDER).long()
    return Reading(clean, found.sum(1), shape.long(), color, size, x, y, radius)


def read(images: Float[Tensor, "n 3 32 32"]) -> Reading:
    """What each picture shows: decided from its pixels alone.

    Pictures are in [-1, 1]; noise may reach beyond. Any device and float type; the answer is on the CPU.
    Raises TypeError for anything but a float tensor, ValueError for a shape other than (n, 3, 32, 32).
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images must be a float tensor in [-1, 1], not {kind}; from_uint8 converts bytes")
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, SIDE, SIDE):
        raise ValueError(f"images must have the shape (n, 3, 32, 32), not {tuple(images.shape)}")
    with torch.no_grad():
        plain = images.detach().to("cpu", torch.float32)
        parts = [_read(part) for part in plain.split(CHUNK)] if len(plain) else [_read(plain)]
    return Reading(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Reading)))


def _position(reading: Reading) -> Int[Tensor, " n"]:
    """Index into POSITIONS of the first object, −1 where it stands in no named place."""
    u, v = reading.x[:, 0] - MIDDLE, reading.y[:, 0] - MIDDLE
    place = torch.full_like(reading.count, -1)
    near_u, near_v = u.abs() < CENTER_BORDER, v.abs() < CENTER_BORDER
    for name, there in {
        "left": (u <= -CENTER_BORDER) & near_v,
        "right": (u >= CENTER_BORDER) & near_v,
        "top": (v <= -CENTER_BORDER) & near_u,
        "bottom": (v >= CENTER_BORDER) & near_u,
        "center": near_u & near_v,
    }.items():
        place[there] = POSITIONS.index(name)
    return place


def _relation(dx: Float[Tensor, " n"], dy: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Index into RELATIONS of one object to another that is (dx, dy) pixels away; −1 on the diagonals."""
    relation = torch.full(dx.shape, -1)
    level, upright = dx.abs() > 1.6 * dy.abs(), dy.abs() > 1.6 * dx.abs()
    relation[level & (dx > 0)] = RELATIONS.index("left of")
    relation[level & (dx < 0)] = RELATIONS.index("right of")
    relation[upright & (dy > 0)] = RELATIONS.index("above")
    relation[upright & (dy < 0)] = RELATIONS.index("below")
    return relation


def score(images: Float[Tensor, "n 3 32 32"] | Reading, prompts: Sequence[str | Scene]) -> Score:
    """Check each picture against its prompt (a caption or a `Scene`), word by word; see `Score` and `read`.

    Of the two ways to pair a prompt's objects with those in the picture, the one that gets more words right counts.
    A `Reading` may stand for the images, so that many prompts can be checked against pictures read once.
    Raises ValueError for a number of prompts other than that of the images, or a prompt that is no caption.
    """
    reading = images if isinstance(images, Reading) else read(images)
    if isinstance(prompts, str) or len(prompts) != len(reading):
        given = "one string" if isinstance(prompts, str) else f"{len(prompts)}"
        raise ValueError(f"prompts must be a list with one prompt per image: {len(reading)} images, {given} given")
    scenes = [prompt if isinstance(prompt, Scene) else parse_caption(prompt) for prompt in prompts]
    asked = torch.tensor([[True, s.second is not None] for s in scenes], dtype=torch.bool).reshape(-1, 2)
    rows = [
        [words.index(getattr(thing, name)) for thing in (s.first, s.second or s.first)]
        for name, words in (("shape", SHAPES), ("color", COLORS), ("size", SIZES))
        for s in scenes
    ]
    wanted = torch.tensor(rows, dtype=torch.int64).reshape(3, -1, 2)
    single = torch.tensor([POSITIONS.index(s.place) if s.second is None else -2 for s in scenes], dtype=torch.int64)
    pair = torch.tensor([-2 if s.second is None else RELATIONS.index(s.place) for s in scenes], dtype=torch.int64)

    there = torch.arange(2) < reading.count[:, None]
    seen = torch.stack([reading.shape, reading.color, reading.size])
    ways = []
    for swap in (False, True):
        found = there.flip(1) if swap else there
        hits = ((seen.flip(2) if swap else seen) == wanted) & found & asked
        sign = -1 if swap else 1
        relation = _relation(sign * reading.x.diff(dim=1)[:, 0], sign * reading.y.diff(dim=1)[:, 0])
        related = (relation == pair) & there.all(1)
        placed = (_position(reading) == single) & (reading.count == 1)
        ways.append((hits, torch.where(asked[:, 1], related, placed)))
    right = [hits.sum((0, 2)) + place for hits, place in ways]
    swapped = right[1] > right[0]
    hits = torch.where(swapped[None, :, None], ways[1][0], ways[0][0])
    place = torch.where(swapped, ways[1][1], ways[0][1])
    return Score(asked, hits[0], hits[1], hits[2], place, reading.count == asked.sum(1), reading.clean)
