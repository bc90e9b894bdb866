"""Drawn scenes look as their words say, and the maps agree with the pictures."""

import pytest
import torch

from course_lib.data import shapes
from course_lib.data.shapes_layout import RADIUS
from course_lib.data.shapes_render import LANDMARKS, coverage, signed_distance, visible_share
from course_lib.runtime import generator

ALL = ("images", "masks", "edges", "depth", "keypoints")


@pytest.fixture(scope="module")
def scenes():
    return shapes.make(2500, seed=4)  # more than two chunks


def test_shapes_types_and_ranges(scenes):
    n = len(scenes)
    assert n == len(scenes.captions) == len(scenes.specs) == 2500
    assert scenes.images.shape == (n, 3, 32, 32)
    assert scenes.images.dtype == torch.float32
    assert scenes.images.amin() >= -1
    assert scenes.images.amax() <= 1
    assert scenes.masks.shape == (n, 2, 32, 32)
    assert scenes.edges.shape == scenes.depth.shape == (n, 1, 32, 32)
    assert scenes.keypoints.shape == (n, 2, 5, 2)
    assert [shapes.parse_caption(c) for c in scenes.captions] == scenes.specs


def test_the_same_seed_gives_the_same_bits():
    a, b, c = shapes.make(40, seed=9), shapes.make(40, generator=generator(9)), shapes.make(40, seed=10)
    assert a.specs == b.specs
    assert a.captions == b.captions
    assert all(torch.equal(getattr(a, name).nan_to_num(), getattr(b, name).nan_to_num()) for name in ALL)
    assert not torch.equal(a.images, c.images)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    shapes.make(5, seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_the_generator_moves_on():
    rng = generator(3)
    assert not torch.equal(shapes.make(5, generator=rng).images, shapes.make(5, generator=rng).images)


def test_every_word_is_drawn_equally_often(scenes):
    two = torch.tensor([s.second is not None for s in scenes.specs]).double().mean()
    assert abs(two - 0.5) < 5 * (0.25 / 2500) ** 0.5  # five standard errors
    firsts = [s.first for s in scenes.specs]
    for name, words in (("shape", shapes.SHAPES), ("color", shapes.COLORS), ("size", shapes.SIZES)):
        for word in words:
            p = 1 / len(words)
            rate = sum(getattr(thing, name) == word for thing in firsts) / 2500
            assert abs(rate - p) < 5 * (p * (1 - p) / 2500) ** 0.5


def test_masks_show_where_the_objects_are(scenes):
    two = torch.tensor([s.second is not None for s in scenes.specs])
    assert torch.equal(scenes.masks.flatten(2).any(2), torch.stack([torch.ones_like(two), two], 1))
    assert not scenes.masks.all(1).any()  # no pixel shows both
    assert (scenes.masks.sum((2, 3))[:, 0] >= 8).all()
    # Seen from the background, the pixels of a mask lie in the direction of the object's color.
    background = scenes.geometry.background[:, None]
    seen = ((scenes.images - background[..., None, None]) * scenes.masks[:, :1]).sum((2, 3))
    directions = torch.tensor(list(shapes.PALETTE.values())) - background[:, None]
    nearest = torch.nn.functional.cosine_similarity(seen[:, None], directions, dim=-1).argmax(1)
    assert [shapes.COLORS[i] for i in nearest] == [s.first.color for s in scenes.specs]


def test_at_least_60_percent_of_each_object_is_visible_and_some_overlap(scenes):
    share = visible_share(scenes.geometry)
    assert share.amin() >= 0.6
    assert (share < 0.98).any(1).double().mean() > 0.05


def test_objects_of_one_color_can_be_asked_for_and_stay_apart():
    spec = shapes.Scene(shapes.Thing("large", "red", "square"), "left of", shapes.Thing("large", "red", "square"))
    scenes = shapes.render([spec] * 50, seed=0)
    dark = scenes.images[:, 0].amax(1) < -0.3  # columns without any red
    first, last = (~dark).float().argmax(1), 31 - (~dark).flip(1).float().argmax(1)
    assert all(dark[i, first[i] : last[i]].any() for i in range(50))
    assert visible_share(scenes.geometry).amin() == 1


def test_nothing_is_cut_off(scenes):
    g = scenes.geometry
    there = g.present
    for centre in (g.x, g.y):
        assert ((centre - 1.07 * g.radius)[there] >= -0.81).all()
        assert ((centre + 1.07 * g.radius)[there] <= 31.81).all()


def test_sizes_and_positions_mean_what_they_say(scenes):
    g = scenes.geometry
    for i, spec in enumerate(scenes.specs):
        for k, thing in enumerate(spec.things):
            low, high = RADIUS[thing.size]
            assert low <= g.radius[i, k] <= high
        if spec.second is None:
            u, v = g.x[i, 0] - 15.5, g.y[i, 0] - 15.5
            far = {"left": -u, "right": u, "top": -v, "bottom": v, "center": torch.tensor(9.0)}[spec.place]
            assert far >= 6.4
            if spec.place == "center":
                assert max(abs(u), abs(v)) <= 2
        else:
            dx, dy = g.x[i, 1] - g.x[i, 0], g.y[i, 1] - g.y[i, 0]
            along, across = (dx, dy) if spec.place in ("left of", "right of") else (dy, dx)
            assert along * (1 if spec.place in ("left of", "above") else -1) > 3 * abs(across) - 1e-3


def test_depth_orders_what_hides_what(scenes):
    assert torch.equal(scenes.depth == 1, ~scenes.masks.any(1, keepdim=True))
    for i in range(50):
        front = int(scenes.geometry.front[i]) if scenes.specs[i].second else 0
        assert torch.allclose(scenes.depth[i, 0][scenes.masks[i, front]], torch.tensor(1 / 3))
        if scenes.specs[i].second:
            assert torch.allclose(scenes.depth[i, 0][scenes.masks[i, 1 - front]], torch.tensor(2 / 3))


def test_edges_lie_on_the_rim_of_the_masks(scenes):
    assert set(scenes.edges.unique().tolist()) == {0.0, 1.0}
    shown = scenes.masks.any(1, keepdim=True)
    grown = torch.nn.functional.max_pool2d(shown.float(), 5, 1, 2) > 0
    assert not (scenes.edges.bool() & ~grown).any()
    core = -torch.nn.functional.max_pool2d(-shown.float(), 5, 1, 2) > 0
    assert not (scenes.edges.bool() & core).any()
    assert (scenes.edges.sum((1, 2, 3)) >= 8).all()


def test_edges_of_a_drawn_square_by_hand():
    image = torch.full((1, 3, 8, 8), -1.0)
    image[:, 0, 2:6, 2:6] = 1.0
    expected = torch.zeros(8, 8)
    expected[2:6, 2:6] = 1
    expected[3:5, 3:5] = 0
    assert torch.equal(shapes.edge_map(image)[0, 0], expected)


def test_keypoints_lie_on_the_shapes():
    for number, name in enumerate(shapes.SHAPES):
        one = torch.tensor([10.0])
        distance = signed_distance(torch.tensor([number]), 0 * one + 15, 0 * one + 15, one)[0]
        for x, y in LANDMARKS[name][1:]:
            column, row = round(15 + 10 * x), round(15 + 10 * y)
            assert abs(distance[row, column]) <= 1.5, (name, x, y)


def test_keypoints_of_a_missing_object_are_nan():
    keypoints = shapes.make(10, seed=0, kind="one").keypoints
    assert keypoints[:, 1].isnan().all()
    assert not keypoints[:, 0].isnan().any()


@pytest.mark.parametrize(
    ("name", "area"),
    [  # in units of radius squared, from each shape's definition
        ("circle", torch.pi),
        ("ring", torch.pi * (1 - 0.44**2)),
        ("square", (2 * 0.86) ** 2),
        ("triangle", 0.95 * 1.8),
        ("cross", 2 * 2 * 0.6 - 0.6**2),
        ("star", 1.12257 * 1.12**2),
    ],
)
def test_areas(name, area):
    number = torch.tensor([shapes.SHAPES.index(name)])
    centre, radius = torch.tensor([15.3]), torch.tensor([12.0])
    drawn = coverage(signed_distance(number, centre, centre, radius)).sum()
    assert drawn == pytest.approx(area * 144, rel=0.02)


def test_no_scenes_at_all():
    scenes = shapes.make(0, seed=0)
    assert scenes.images.shape == (0, 3, 32, 32)
    assert all(len(getattr(scenes, name)) == 0 for name in ALL)
