"""Whether a picture obeys its control image: against counting by hand."""

import math

import pytest
import torch

from course_lib.data import shapes
from course_lib.evaluation.control import OFF, edge_f1, edge_recall, placed_as_asked


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def points(edges):
    return edges[0].nonzero().tolist()


def share(some, others, tolerance):
    """Share of points that have one of the others within `tolerance`, by looking at all pairs."""
    hit = [any((y - v) ** 2 + (x - u) ** 2 <= tolerance**2 for v, u in others) for y, x in some]
    return sum(hit) / max(len(hit), 1)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_against_all_pairs(tolerance, seed):
    found, asked = (torch.rand(2, 4, 1, 13, 17, generator=fresh(seed)) < 0.06).float()
    f1, recall = edge_f1(found, asked, tolerance), edge_recall(found, asked, tolerance)
    for k in range(4):
        a, b = points(found[k]), points(asked[k])
        precision, reached = share(a, b, tolerance), share(b, a, tolerance)
        both = 0 if precision + reached == 0 else 2 * precision * reached / (precision + reached)
        assert f1[k].item() == pytest.approx(both, abs=1e-6)
        assert recall[k].item() == pytest.approx(reached, abs=1e-6)


def dots(*places):
    edges = torch.zeros(1, 1, 9, 9)
    for y, x in places:
        edges[0, 0, y, x] = 1
    return edges


def test_known_cases():
    asked = dots((4, 4))
    assert edge_f1(asked, asked).item() == 1
    assert edge_f1(dots((4, 5)), asked).item() == 1, "one pixel off counts"
    assert edge_f1(dots((5, 5)), asked).item() == 0, "diagonally is farther than one"
    assert edge_f1(dots((5, 5)), asked, 2).item() == 1
    assert edge_f1(dots(), asked).item() == 0
    assert edge_f1(dots(), dots()).item() == 0
    assert edge_f1(dots((4, 4), (0, 0)), asked).item() == pytest.approx(2 / 3)
    assert edge_recall(dots((4, 4), (0, 0)), asked).item() == 1
    assert edge_recall(dots((0, 0)), asked).item() == 0
    assert edge_f1(dots((0, 0)), dots((8, 8)), 1).item() == 0, "nothing wraps round"


def test_real_scenes():
    scenes = shapes.make(60, seed=5)
    assert torch.equal(edge_f1(scenes.edges, scenes.edges), torch.ones(60))
    moved = scenes.edges.roll(1, dims=3)
    assert (edge_f1(moved, scenes.edges) == 1).all(), "one pixel to the right"
    chance = edge_f1(scenes.edges.roll(1, dims=0), scenes.edges)
    assert 0.05 < chance.mean() < 0.4


def read_as(scenes):
    """A reading that sees every object exactly where it is."""
    g = scenes.geometry
    n = len(scenes)
    return shapes.Reading(
        clean=torch.ones(n, dtype=torch.bool), count=g.present.sum(dim=1), shape=g.shape, color=g.color,
        size=torch.zeros(n, 2, dtype=torch.long), x=g.x.clone(), y=g.y.clone(), radius=g.radius.clone(),
    )  # fmt: skip


def by_hand(reading, scenes, shown):
    g, found = scenes.geometry, []
    for k in range(len(scenes)):
        right = True
        for j in range(2):
            if not g.present[k, j] or not shown[k, j]:
                continue
            hits = [
                math.hypot(float(reading.x[k, i] - g.x[k, j]), float(reading.y[k, i] - g.y[k, j])) <= OFF
                and abs(float(reading.radius[k, i] - g.radius[k, j])) <= OFF
                for i in range(int(reading.count[k]))
            ]
            right = right and any(hits)
        found.append(right)
    return found


@pytest.mark.parametrize("spread", [0.0, 0.6, 1.5])
def test_objects_where_they_were_asked_against_a_loop(spread):
    scenes = shapes.make(200, seed=6)
    exact = read_as(scenes)
    noise = spread * torch.randn(3, 200, 2, generator=fresh(1))
    count = torch.where(torch.rand(200, generator=fresh(2)) < 0.8, exact.count, (exact.count - 1).clamp(min=0))
    reading = shapes.Reading(
        exact.clean, count, exact.shape, exact.color, exact.size, exact.x + noise[0], exact.y + noise[1],
        exact.radius + noise[2],
    )  # fmt: skip
    shown = torch.rand(200, 2, generator=fresh(3)) < 0.7
    everything = torch.ones(200, 2, dtype=torch.bool)
    assert placed_as_asked(reading, scenes).tolist() == by_hand(reading, scenes, everything)
    assert placed_as_asked(reading, scenes, shown).tolist() == by_hand(reading, scenes, shown)
    assert placed_as_asked(exact, scenes).all()


def test_the_order_of_the_objects_does_not_count_and_a_missing_one_does():
    scenes = shapes.make(40, seed=7, kind="two")
    exact = read_as(scenes)
    turned = shapes.Reading(
        exact.clean, exact.count, exact.shape, exact.color, exact.size, exact.x.flip(1), exact.y.flip(1),
        exact.radius.flip(1),
    )  # fmt: skip
    assert placed_as_asked(turned, scenes).all()
    none = shapes.Reading(
        exact.clean, 0 * exact.count, exact.shape, exact.color, exact.size, exact.x, exact.y, exact.radius
    )
    assert not placed_as_asked(none, scenes).any()
    assert placed_as_asked(none, scenes, torch.zeros(40, 2, dtype=torch.bool)).all(), "nothing was asked"


def test_the_oracle_finds_real_scenes_where_they_are():
    scenes = shapes.make(200, seed=8)
    assert placed_as_asked(shapes.read(scenes.images), scenes).float().mean() > 0.95
    moved = shapes.read(scenes.images.roll(1, dims=0))
    assert placed_as_asked(moved, scenes).float().mean() < 0.15
