"""Precision, recall, density and coverage: by loops, on pictures that can be drawn on paper, on known overlaps."""

import itertools
import math
import sys

import pytest
import torch

from course_lib.evaluation import neighbour_radius, precision_recall


def by_loops(samples, real, k):
    def radius(points):
        return [sorted(math.dist(p, q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)]

    s, r = samples.double().tolist(), real.double().tolist()
    rs, rr = radius(s), radius(r)
    hits = [[math.dist(x, y) <= rr[j] for j, y in enumerate(r)] for x in s]
    return (
        sum(map(any, hits)) / len(s),
        sum(any(math.dist(x, y) <= rs[i] for i, x in enumerate(s)) for y in r) / len(r),
        sum(map(sum, hits)) / (k * len(s)),
        sum(any(row[j] for row in hits) for j in range(len(r))) / len(r),
    )


@pytest.mark.parametrize(("k", "seed"), itertools.product([1, 3, 5], range(4)))
def test_by_loops(k, seed):
    g = torch.Generator().manual_seed(seed)
    samples, real = torch.randn(30, 3, generator=g) * 0.7 + 0.4, torch.randn(41, 3, generator=g)
    assert tuple(precision_recall(samples, real, k)) == pytest.approx(by_loops(samples, real, k))


def test_on_a_line():
    """Real at 0, 1, 2, 10 with k = 1: balls of radius 1, 1, 1, 8, the last from 2 to 18."""
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    assert neighbour_radius(real, 1).tolist() == [1, 1, 1, 8]
    assert neighbour_radius(real, 3).tolist() == [10, 9, 8, 10]
    samples = torch.tensor([[-2.0], [0.5], [17.0]])  # outside; in the balls of 0 and 1; in that of 10
    found = precision_recall(samples, real, 1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.density == pytest.approx((0 + 2 + 1) / 3)
    assert found.coverage == pytest.approx(3 / 4)  # the ball of 2 (from 1 to 3) is empty
    # samples' balls: -2 reaches 2.5, 0.5 reaches 2.5 to both sides, 17 reaches 16.5: all real points are in one
    assert found.recall == 1.0


def test_known_overlaps():
    """Uniform on an interval: the share of the interval that both have."""
    g = torch.Generator().manual_seed(0)
    real, half = torch.rand(3000, 1, generator=g), torch.rand(3000, 1, generator=g) / 2
    dropped = precision_recall(half, real)
    assert dropped.precision > 0.98
    assert dropped.recall == pytest.approx(0.5, abs=0.02)
    assert dropped.coverage == pytest.approx(0.5, abs=0.03)
    wide = precision_recall(2 * torch.rand(3000, 1, generator=g), real)
    assert wide.precision == pytest.approx(0.5, abs=0.03)
    assert wide.recall > 0.97


def test_real_against_itself_and_against_elsewhere():
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(1))
    same = precision_recall(x, x)
    assert same.precision == same.recall == same.coverage == 1
    assert same.density == pytest.approx((3 + 1) / 3)  # each point, and its three neighbours on average
    other = torch.randn(300, 8, generator=torch.Generator().manual_seed(2))
    assert precision_recall(other, x).density == pytest.approx(1, abs=0.1)
    assert tuple(precision_recall(other + 100, x)) == (0, 0, 0, 0)


def test_an_outlier_deceives_precision_and_not_density():
    """Why Naeem et al. count balls: one far real point has a huge ball, and everything near it counts as real."""
    g = torch.Generator().manual_seed(3)
    real = torch.cat([torch.randn(500, 2, generator=g), torch.tensor([[30.0, 0.0]])])
    bad = torch.randn(500, 2, generator=g) * 0.5 + torch.tensor([20.0, 0.0])
    found = precision_recall(bad, real)
    assert found.precision == 1
    assert found.density == pytest.approx(1 / 3)
    assert found.coverage < 0.01


def test_copies_duplicates_and_chunks(monkeypatch):
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(5))
    double = x.repeat(5, 1)  # every point five times: radius 0 with k = 3
    assert (neighbour_radius(double, 3) == 0).all()
    assert precision_recall(double, double).precision == 1  # at distance 0 of itself
    assert precision_recall(double + 1e-3, double).precision == 0
    a, b = x[:25], x[10:]
    whole = precision_recall(a, b)
    monkeypatch.setattr(sys.modules[precision_recall.__module__], "CHUNK", 3)
    assert precision_recall(a, b) == whole
    assert precision_recall(a.half(), b.half(), 2).precision == pytest.approx(
        precision_recall(a, b, 2).precision, abs=0.1
    )
