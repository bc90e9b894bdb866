"""Pictures that say where things are, as a ControlNet is shown them: edges, keypoints, masks, depth; all in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from course_lib.data.shapes_geometry import SIDE, Geometry
from course_lib.data.shapes_render import depth_map, edge_map, keypoints
from course_lib.data.shapes_scene import SHAPES

SPOT = 0.8  # standard deviation of the spot that marks a keypoint, in pixels


def _edges(images: Tensor, masks: Tensor, geometry: Geometry) -> Tensor:
    edges = edge_map(images)  # (n, 1, side, side)
    near = F.max_pool2d(masks.float(), 3, stride=1, padding=1) > 0  # objects keep a gap wider than that
    return (edges * near * ~masks.flip(1))[:, :, None]


def _keypoints(images: Tensor, masks: Tensor, geometry: Geometry) -> Tensor:
    points = keypoints(geometry).nan_to_num(-100.0)[..., None, None]  # n, object, landmark, xy, 1, 1
    row = torch.arange(SIDE, dtype=points.dtype)
    squared = (row - points[:, :, :, 0]).square() + (row[:, None] - points[:, :, :, 1]).square()
    return torch.exp(-squared / (2 * SPOT**2))


def _masks(images: Tensor, masks: Tensor, geometry: Geometry) -> Tensor:
    return masks[:, :, None] * F.one_hot(geometry.shape, len(SHAPES))[..., None, None].float()


def _depth(images: Tensor, masks: Tensor, geometry: Geometry) -> Tensor:
    return masks[:, :, None] * (1 - depth_map(geometry, masks))[:, None]


_MAPS: dict[str, tuple[int, Callable[[Tensor, Tensor, Geometry], Tensor]]] = {
    "edges": (1, _edges),  # 1 on the contour
    "keypoints": (5, _keypoints),  # a spot per landmark: centre, top, right, bottom, left; a channel for each
    "masks": (len(SHAPES), _masks),  # a channel per kind of shape, 1 where such a thing is seen
    "depth": (1, _depth),  # nearness: 2/3 for the thing in front, 1/3 behind it, 0 for the ground
}
CONTROL_CHANNELS = {kind: channels for kind, (channels, _) in _MAPS.items()}


def maps_by_object(
    kind: str,
    images: Float[Tensor, "n 3 side side"],
    masks: Bool[Tensor, "n 2 side side"],
    geometry: Geometry,
) -> Float[Tensor, "n 2 channel side side"]:
    """What control images of this kind say about the first and about the second object of each picture.

    Raises ValueError for an unknown kind.
    """
    if kind not in _MAPS:
        raise ValueError(f"kind={kind!r} is not known; use one of {', '.join(_MAPS)}")
    return _MAPS[kind][1](images, masks, geometry) * geometry.present[:, :, None, None, None]


def merged(
    by_object: Float[Tensor, "n 2 channel side side"], shown: Bool[Tensor, "n 2"] | None = None
) -> Float[Tensor, "n channel side side"]:
    """Control images of the objects that are `shown`, all of them where None."""
    if shown is not None:
        by_object = by_object * shown[:, :, None, None, None].to(by_object)
    return by_object.amax(dim=1)
