"""Scenes as pixels: each shape is a signed distance, each picture and map follows from it.

A signed distance is negative inside a shape and positive outside, in pixels; half a pixel to either side of the
contour the coverage runs from 1 to 0, which is what makes the edges smooth.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from course_lib.data.shapes_geometry import GAP, SIDE, Geometry
from course_lib.data.shapes_scene import COLORS, SHAPES

PALETTE = {  # in [-1, 1]; neighbours on the color circle are at least 20 degrees apart as seen from the background
    "red": (0.9, -0.85, -0.8),
    "orange": (1.0, 0.0, -1.0),
    "yellow": (1.0, 1.0, -0.7),
    "green": (-0.8, 0.7, -0.8),
    "cyan": (-0.6, 0.9, 1.0),
    "blue": (-0.8, -0.4, 1.0),
    "purple": (0.5, -0.8, 0.7),
}
PALETTE_TABLE = torch.tensor([PALETTE[name] for name in COLORS])
CHUNK = 1024  # scenes drawn at a time: keeps the intermediate arrays in tens of megabytes

# Landmarks of each shape, in radii from its centre (x, y): centre, top, right, bottom, left.
LANDMARKS = {
    "circle": ((0, 0), (0, -1), (1, 0), (0, 1), (-1, 0)),
    "square": ((0, 0), (-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)),  # its corners
    "triangle": ((0, 0), (0, -1), (0.95, 0.8), (0, 0.8), (-0.95, 0.8)),
    "cross": ((0, 0), (0, -1), (1, 0), (0, 1), (-1, 0)),
    "star": ((0, 0.1), (0, -1.02), (1.065, -0.246), (0.658, 1.006), (-1.065, -0.246)),
    "ring": ((0, 0), (0, -1), (1, 0), (0, 1), (-1, 0)),
}


def _circle(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    return (u * u + v * v).sqrt() - r


def _ring(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    return ((u * u + v * v).sqrt() - 0.72 * r).abs() - 0.28 * r


def _square(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.86 * r


def _cross(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    u, v = u.abs(), v.abs()
    across, down = torch.maximum(u - r, v - 0.3 * r), torch.maximum(u - 0.3 * r, v - r)
    return torch.minimum(across, down)


def _triangle(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(v - 0.8 * r, 0.8844 * u.abs() - 0.4668 * (v + r))


def _star(u: Tensor, v: Tensor, r: Tensor) -> Tensor:
    """A pentagram is where at most one of its five lines is crossed: the second largest of five distances."""
    u, v = u.abs(), v - 0.1 * r
    up = -v
    first, second = up, 0.95106 * u - 0.30902 * v  # towards the top, and the upper right tip
    first, second = torch.maximum(first, second), torch.minimum(first, second)
    third = 0.58779 * u + 0.80902 * v  # the lower right tip; the two on the left can only be third or later here…
    first, second = torch.maximum(first, third), torch.maximum(second, torch.minimum(first, third))
    fourth = -0.58779 * u + 0.80902 * v  # …except the lower left one, just below the middle
    second = torch.maximum(second, torch.minimum(first, fourth))
    return second - 0.30902 * 1.12 * r


_DISTANCES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "ring": _ring,
}


def signed_distance(
    shape: Int[Tensor, " m"],
    x: Float[Tensor, " m"],
    y: Float[Tensor, " m"],
    radius: Float[Tensor, " m"],
    side: int = SIDE,
) -> Float[Tensor, "m side side"]:
    """Distance of every pixel of a side×side picture from the contour of each of m objects, in pixels."""
    grid = torch.arange(side, dtype=x.dtype, device=x.device)
    u = (grid - x[:, None])[:, None, :]
    v = (grid - y[:, None])[:, :, None]
    out = x.new_empty(len(x), side, side)
    for number, name in enumerate(SHAPES):
        mine = (shape == number).nonzero()[:, 0]
        out[mine] = _DISTANCES[name](u[mine], v[mine], radius[mine, None, None])
    return out


def coverage(distance: Tensor) -> Tensor:
    """Share of each pixel that lies inside the contour, in [0, 1]."""
    return (0.5 - distance).clamp(0, 1)


def _coverages(geometry: Geometry) -> tuple[Float[Tensor, "n 2 side side"], Float[Tensor, "n 2 side side"]]:
    """Coverage of each object if it were alone, and its visible part."""
    n = len(geometry)
    present = geometry.present.flatten()
    distance = torch.full((2 * n, SIDE, SIDE), 1e3)
    distance[present] = signed_distance(
        *(getattr(geometry, name).flatten()[present] for name in ("shape", "x", "y", "radius"))
    )
    whole = coverage(distance).reshape(n, 2, SIDE, SIDE)
    visible = whole.clone()
    two = geometry.present[:, 1].nonzero()[:, 0]
    front = geometry.front[two]
    pairs = distance.reshape(n, 2, SIDE, SIDE)
    visible[two, 1 - front] *= 1 - coverage(pairs[two, front] - GAP)
    return whole, visible


def visible_share(geometry: Geometry) -> Float[Tensor, "n 2"]:
    """Share of each object's area that the other does not hide; 1 where there is no such object."""
    whole, visible = _coverages(geometry)
    share = visible.sum((2, 3)) / whole.sum((2, 3)).clamp(min=1e-6)
    return torch.where(geometry.present, share, torch.ones_like(share))


def _paint(geometry: Geometry, visible: Float[Tensor, "n 2 side side"]) -> Float[Tensor, "n 3 side side"]:
    background = geometry.background[:, None, None]
    strength = geometry.brightness[..., None] * (PALETTE_TABLE[geometry.color] - background)  # n, object, channel
    image = torch.einsum("nochw,nohw->nchw", strength[..., None, None].expand(-1, -1, -1, SIDE, SIDE), visible)
    return image + background[..., None]


def draw(geometry: Geometry) -> tuple[Float[Tensor, "n 3 side side"], Bool[Tensor, "n 2 side side"]]:
    """Pictures in [-1, 1], and for each object the pixels that show it (at least half)."""
    images = torch.empty(len(geometry), 3, SIDE, SIDE)
    masks = torch.empty(len(geometry), 2, SIDE, SIDE, dtype=torch.bool)
    for start in range(0, len(geometry), CHUNK):
        part = slice(start, start + CHUNK)
        _, visible = _coverages(geometry[part])
        images[part] = _paint(geometry[part], visible)
        masks[part] = visible >= 0.5
    return images, masks


def depth_map(geometry: Geometry, masks: Bool[Tensor, "n 2 side side"]) -> Float[Tensor, "n 1 side side"]:
    """Distance from the viewer: 1/3 for the object in front (or the only one), 2/3 behind it, 1 the background."""
    behind = (geometry.present[:, 1:] & (torch.arange(2) != geometry.front[:, None])).float()
    depth = (1 + behind)[:, :, None, None] / 3
    return torch.where(masks, depth, torch.ones(())).amin(1, keepdim=True)


def keypoints(geometry: Geometry) -> Float[Tensor, "n 2 5 2"]:
    """Five landmarks of each object as (x, y) in pixels: centre, top, right, bottom, left; NaN for no object.

    For a square the last four are its corners, clockwise from the top left. Hidden landmarks are given too.
    """
    table = torch.tensor([LANDMARKS[name] for name in SHAPES], dtype=torch.float32)
    centre = torch.stack([geometry.x, geometry.y], dim=-1)[:, :, None]
    points = centre + table[geometry.shape] * geometry.radius[..., None, None]
    return torch.where(geometry.present[..., None, None], points, torch.full((), float("nan")))


def edge_map(images: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n 1 height width"]:
    """Contours found in the pixels, 1 on a contour and 0 elsewhere, one pixel wide.

    A pixel is on a contour when it is bright in any channel and one of its four neighbours is not. Works on any
    pictures, so a generated image can be compared with the contour that it was asked for.
    """
    bright = (images.amax(1, keepdim=True) > -0.1).to(images.dtype)
    padded = torch.nn.functional.pad(bright, (1, 1, 1, 1))
    inner = torch.stack(
        [padded[..., 1:-1, :-2], padded[..., 1:-1, 2:], padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]]
    ).amin(0)
    return bright * (1 - inner)
