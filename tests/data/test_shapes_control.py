"""Control images of scenes: what each kind says, object by object, and how the objects' images are put together."""

import math

import pytest
import torch

from course_lib.data import shapes
from course_lib.data.shapes_control import CONTROL_CHANNELS, SPOT, maps_by_object, merged
from course_lib.data.shapes_scene import SHAPES

KINDS = ("edges", "keypoints", "masks", "depth")


@pytest.fixture(scope="module")
def scenes():
    return shapes.make(300, seed=3)


def of(kind, scenes):
    return maps_by_object(kind, scenes.images, scenes.masks, scenes.geometry)


@pytest.mark.parametrize("kind", KINDS)
def test_shape_and_range(kind, scenes):
    found = of(kind, scenes)
    assert found.shape == (300, 2, CONTROL_CHANNELS[kind], 32, 32)
    assert found.dtype == torch.float32
    assert found.amin() == 0
    assert 0.3 < found.amax() <= 1
    assert found[:, 0].flatten(1).any(dim=1).all()
    there = scenes.geometry.present[:, 1]
    assert found[:, 1].flatten(1).any(dim=1).tolist() == there.tolist()


def test_channels():
    assert CONTROL_CHANNELS == {"edges": 1, "keypoints": 5, "masks": 6, "depth": 1}
    assert len(SHAPES) == CONTROL_CHANNELS["masks"]


def test_edges_of_both_objects_are_the_edges_of_the_picture(scenes):
    """All but a few pixels at the thinnest tips, and none that the picture hasn't."""
    found = of("edges", scenes)
    whole = merged(found)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert (whole <= scenes.edges).all()
    assert whole.sum() >= 0.999 * scenes.edges.sum()
    assert found.sum(dim=1).amax() == 1, "no pixel belongs to both"


def test_edges_lie_at_their_own_object(scenes):
    found, distance = of("edges", scenes)[:, :, 0], torch.arange(32.0)
    geometry = scenes.geometry
    for k in range(300):
        for j in range(2):
            if not geometry.present[k, j]:
                continue
            away = ((distance - geometry.x[k, j]) ** 2 + (distance[:, None] - geometry.y[k, j]) ** 2).sqrt()
            assert (away[found[k, j] > 0] <= 1.45 * geometry.radius[k, j] + 1).all()


def test_a_spot_for_each_landmark(scenes):
    found, points = of("keypoints", scenes), scenes.keypoints
    for k in range(20):
        for j in range(2):
            for c in range(5):
                if not scenes.geometry.present[k, j]:
                    assert not found[k, j].any()
                    continue
                x, y = points[k, j, c].tolist()
                row, column = min(31, max(0, round(y))), min(31, max(0, round(x)))
                value = math.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * SPOT**2))
                assert found[k, j, c, row, column].item() == pytest.approx(value, abs=1e-5)
                assert found[k, j, c].argmax().item() == 32 * row + column


def test_masks_say_what_is_where(scenes):
    found = of("masks", scenes)
    for k in range(50):
        for j in range(2):
            kind = int(scenes.geometry.shape[k, j])
            if scenes.geometry.present[k, j]:
                assert torch.equal(found[k, j, kind] > 0, scenes.masks[k, j])
            assert not found[k, j, [c for c in range(6) if c != kind]].any()


def test_depth_is_nearness(scenes):
    found = of("depth", scenes)
    assert torch.allclose(merged(found), 1 - scenes.depth, atol=1e-6)
    two = scenes.geometry.present[:, 1].nonzero()[:, 0]
    for k in two[:30].tolist():
        front = int(scenes.geometry.front[k])
        assert found[k, front].amax().item() == pytest.approx(2 / 3)
        assert found[k, 1 - front].amax().item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", KINDS)
def test_merged_shows_whom_it_is_told_to_show(kind, scenes):
    found = of(kind, scenes)
    both, none = torch.ones(300, 2, dtype=torch.bool), torch.zeros(300, 2, dtype=torch.bool)
    assert torch.equal(merged(found), merged(found, both))
    assert not merged(found, none).any()
    for j in range(2):
        only = none.clone()
        only[:, j] = True
        assert torch.equal(merged(found, only), found[:, j])
    assert torch.equal(merged(found), torch.maximum(found[:, 0], found[:, 1]))
