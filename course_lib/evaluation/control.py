"""Does a picture obey its control image? Edges held against edges, objects against keypoints."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from course_lib.data import shapes

OFF = 1.5  # pixels by which an object's centre and its radius may miss


def _near(edges: Float[Tensor, "n 1 height width"], tolerance: int) -> Float[Tensor, "n 1 height width"]:
    """1 where an edge pixel lies within `tolerance` pixels, measured straight."""
    away = torch.arange(-tolerance, tolerance + 1)
    disc = (away.square() + away[:, None].square() <= tolerance**2).to(edges)
    return (F.conv2d(edges, disc[None, None], padding=tolerance) > 0.5).to(edges)


def _share_near(some: Tensor, others: Tensor, tolerance: int) -> Float[Tensor, " n"]:
    if some.shape != others.shape:
        raise ValueError(f"found and asked have shapes {tuple(some.shape)}, {tuple(others.shape)}; they must be equal")
    near = some * _near(others, tolerance)
    return near.flatten(1).sum(1) / some.flatten(1).sum(1).clamp(min=1)


def edge_recall(
    found: Float[Tensor, "n 1 height width"], asked: Float[Tensor, "n 1 height width"], tolerance: int = 1
) -> Float[Tensor, " n"]:
    """Share of each picture's asked edge pixels that have a found one within `tolerance` pixels."""
    return _share_near(asked, found, tolerance)


def edge_f1(
    found: Float[Tensor, "n 1 height width"], asked: Float[Tensor, "n 1 height width"], tolerance: int = 1
) -> Float[Tensor, " n"]:
    """F1 of found edges (1, elsewhere 0) against the asked ones, per picture: 1 is perfect, 0 is none right.

    Precision is the share of found pixels with an asked one within `tolerance` pixels, recall the share of asked ones
    with a found one as near; F1 is their harmonic mean, 0 where nothing was found. Raises ValueError for other shapes.
    """
    precision, recall = _share_near(found, asked, tolerance), _share_near(asked, found, tolerance)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-9)


def placed_as_asked(
    reading: shapes.Reading, scenes: shapes.Scenes, shown: Bool[Tensor, "n 2"] | None = None
) -> Bool[Tensor, " n"]:
    """Whether each object that the keypoints show is in the picture: centre and radius within 1.5 pixels.

    `reading` is what the oracle found in n pictures, `scenes` where the keypoints came from, `shown` which objects
    they show (None: all there are). Kind and color of the object don't count.
    """
    geometry = scenes.geometry
    wanted = geometry.present if shown is None else geometry.present & shown
    there = torch.arange(2) < reading.count[:, None]  # (n, found)

    def apart(name: str) -> Tensor:  # (n, asked, found)
        return getattr(reading, name)[:, None, :] - getattr(geometry, name)[:, :, None]

    close = (apart("x").square() + apart("y").square()).sqrt() <= OFF
    hit = (close & (apart("radius").abs() <= OFF) & there[:, None]).any(dim=2)
    return (hit | ~wanted).all(dim=1)
