"""The ring of eight Gaussians: what is drawn has the density that is stated, and what counts as covered."""

import math

import pytest
import torch

from course_lib.data import ring

# --- drawing -------------------------------------------------------------------------------------------------------


def test_points_have_the_stated_moments_and_labels():
    points, label = ring.labelled(40_000, seed=0)
    assert points.shape == (40_000, 2)
    assert points.dtype == torch.float32
    assert label.unique().tolist() == list(range(8))
    share = torch.bincount(label) / len(label)
    assert (share - 1 / 8).abs().max() < 4 * math.sqrt(1 / 8 * 7 / 8 / 40_000)
    offset = points - ring.means()[label]
    assert offset.std(dim=0).sub(ring.STD).abs().max() < 4 * ring.STD / math.sqrt(2 * 40_000)
    assert points.var(dim=0).sub(ring.RADIUS**2 / 2 + ring.STD**2).abs().max() < 0.02


def test_means_lie_on_the_circle_evenly():
    means = ring.means()
    assert torch.allclose(means.norm(dim=1), torch.full((8,), ring.RADIUS))
    gaps = (means - means.roll(-1, 0)).norm(dim=1)
    assert torch.allclose(gaps, torch.full((8,), 2 * math.sin(math.pi / 8)), atol=1e-6)


def test_the_same_seed_gives_the_same_points_and_a_generator_moves_on():
    assert torch.equal(ring.sample(5, seed=3), ring.sample(5, seed=3))
    assert torch.equal(ring.sample(5, seed=3), ring.labelled(5, seed=3)[0])
    generator = torch.Generator().manual_seed(3)
    first, second = ring.sample(5, generator=generator), ring.sample(5, generator=generator)
    assert torch.equal(first, ring.sample(5, seed=3))
    assert not torch.equal(first, second)


def test_density_integrates_to_one_and_agrees_with_torch():
    axis = torch.linspace(-1.4, 1.4, 561)
    grid = torch.cartesian_prod(axis, axis)
    assert ring.log_density(grid).double().exp().sum().item() * 0.005**2 == pytest.approx(1, abs=1e-4)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(8)),
        torch.distributions.Independent(torch.distributions.Normal(ring.means(), ring.STD), 1),
    )
    points = ring.sample(100, seed=1)
    assert torch.allclose(ring.log_density(points), mixture.log_prob(points), atol=1e-3)


# --- counting ------------------------------------------------------------------------------------------------------


def test_the_rings_own_points_cover_it():
    found = ring.count_modes(ring.sample(20_000, seed=0))
    inside = 1 - math.exp(-(3**2) / 2)  # a Gaussian in the plane, within 3 standard deviations
    assert found.modes == 8
    assert found.near == pytest.approx(inside, abs=4 * math.sqrt(inside * (1 - inside) / 20_000))
    assert found.shares.sum().item() == pytest.approx(found.near, abs=1e-5)


def test_lost_modes_and_stray_points_are_counted():
    kept = ring.means()[[0, 3]].repeat_interleave(100, 0)
    assert ring.count_modes(kept).modes == 2
    assert ring.count_modes(kept).near == 1
    assert ring.count_modes(torch.zeros(10, 2))[:2] == (0, 0.0)
    # 24 of 1000 points are too few for a mode, 25 are enough
    for few, modes in ((24, 1), (25, 2)):
        points = torch.cat([ring.means()[:1].expand(1000 - few, 2), ring.means()[1:2].expand(few, 2)])
        assert ring.count_modes(points).modes == modes


def test_near_means_within_three_standard_deviations():
    for gap, near in ((0.149, 1.0), (0.151, 0.0)):
        assert ring.count_modes(torch.tensor([[1 + gap, 0.0]])).near == near
    assert ring.count_modes(torch.tensor([[1.19, 0.0]]), within=4).near == 1


def test_points_that_are_not_finite_are_near_none():
    found = ring.count_modes(torch.tensor([[math.nan, 0.0], [math.inf, 1.0], [1.0, 0.0]]))
    assert found.modes == 1
    assert found.near == pytest.approx(1 / 3)


def test_counting_takes_float64_and_changes_nothing():
    points = ring.sample(500, seed=0)
    before = points.clone()
    assert ring.count_modes(points.double()).near == pytest.approx(ring.count_modes(points).near)
    assert torch.equal(points, before)
