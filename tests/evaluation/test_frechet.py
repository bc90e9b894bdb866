"""The Fréchet distance against closed forms, scipy's matrix root, and its own floor."""

import math
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.evaluation.frechet import (
    distance_to_real,
    expected_floor,
    feature_distance,
    floor,
    frechet_distance,
    mean_over_pairs,
    moments,
)


def spd(d, generator, rank=None):
    root = torch.randn(d, rank or d, generator=generator, dtype=torch.float64)
    return root @ root.T / d


def test_closed_forms():
    zero, one = torch.zeros(8), torch.eye(8)
    assert frechet_distance(zero, one, torch.ones(8), 4 * one) == pytest.approx(8 + 8 * (2 - 1) ** 2)  # 16
    assert frechet_distance(zero, one, zero, one) == pytest.approx(0, abs=1e-12)
    a, b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 1.0, 0.0])
    wanted = (a.sqrt() - b.sqrt()).square().sum().item()  # commuting covariances: Σ(σ_a - σ_b)²
    assert frechet_distance(torch.zeros(3), a.diag(), torch.zeros(3), b.diag()) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(10))
def test_against_scipy_and_symmetries(seed):
    g = torch.Generator().manual_seed(seed)
    a, b = spd(12, g), spd(12, g)
    m, n = torch.randn(2, 12, generator=g, dtype=torch.float64)
    root = scipy.linalg.sqrtm((a @ b).numpy())
    wanted = (m - n).square().sum().item() + np.trace(a.numpy() + b.numpy() - 2 * root.real)
    found = frechet_distance(m, a, n, b)
    assert found == pytest.approx(wanted, rel=1e-8)
    assert frechet_distance(n, b, m, a) == pytest.approx(found, rel=1e-10)
    turn = torch.linalg.qr(torch.randn(12, 12, generator=g, dtype=torch.float64)).Q
    turned = frechet_distance(turn @ m, turn @ a @ turn.T, turn @ n, turn @ b @ turn.T)
    assert turned == pytest.approx(found, rel=1e-9)
    assert frechet_distance(3 * m, 9 * a, 3 * n, 9 * b) == pytest.approx(9 * found, rel=1e-9)


def test_singular_covariances_stay_real():
    g = torch.Generator().manual_seed(0)
    a, b = spd(20, g, rank=3), spd(20, g, rank=5)
    found = frechet_distance(torch.zeros(20), a, torch.zeros(20), b)
    assert 0 < found < (a.trace() + b.trace()).item()
    assert frechet_distance(torch.zeros(20), a, torch.zeros(20), a) == pytest.approx(0, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    d=st.integers(1, 40),
    ranks=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    scales=st.tuples(st.floats(-12, 12), st.floats(-12, 12)),
    seed=st.integers(0, 2**31),
)
def test_any_covariances(d, ranks, scales, seed):
    """The value that follows from the roots they were made of; finite, symmetric, never below 0."""
    g = torch.Generator().manual_seed(seed)
    roots = [
        torch.randn(d, min(rank, d), generator=g, dtype=torch.float64) * 10**scale
        for rank, scale in zip(ranks, scales, strict=True)
    ]
    m, n = torch.randn(2, d, generator=g, dtype=torch.float64)
    a, b = (root @ root.T for root in roots)
    sizes = [(root**2).sum().item() for root in roots]
    truth = (m - n).square().sum().item() + sum(sizes) - 2 * torch.linalg.svdvals(roots[0].T @ roots[1]).sum().item()
    found = frechet_distance(m, a, n, b)
    assert isinstance(found, float)
    assert 0 <= found < math.inf
    assert found == pytest.approx(truth, rel=1e-6, abs=1e-12 * sum(sizes))
    assert frechet_distance(n, b, m, a) == pytest.approx(found, rel=1e-9, abs=1e-12 * sum(sizes))
    assert frechet_distance(m, a, m, a) <= 1e-12 * max(sizes[0], 1e-300)


@pytest.mark.parametrize("d", [2, 16, 128, 512])
@pytest.mark.parametrize("full", [True, False])
def test_zeros_do_not_turn_into_roots_of_rounding(d, full):
    """Hundreds of eigenvalues that should be 0 and are 1e-17: their roots would add up."""
    g = torch.Generator().manual_seed(d)
    low, other = (torch.randn(d, k, generator=g, dtype=torch.float64) for k in (1, d if full else d // 2))
    truth = (low.square().sum() + other.square().sum() - 2 * torch.linalg.svdvals(low.T @ other).sum()).item()
    zero = torch.zeros(d)
    assert frechet_distance(zero, low @ low.T, zero, other @ other.T) == pytest.approx(truth, rel=1e-12)


def test_covariances_from_float32_are_covariances():
    """Rounding makes them a little asymmetric, and gives a singular one small negative eigenvalues."""
    x, y = torch.randn(2, 100, 256, generator=torch.Generator().manual_seed(4))
    wide = [(v.double().mean(0), torch.cov(v.double().T)) for v in (x, y)]
    narrow = [(v.mean(0), torch.cov(v.T)) for v in (x, y)]
    assert torch.linalg.eigvalsh(narrow[0][1])[0] < 0
    assert frechet_distance(*narrow[0], *narrow[1]) == pytest.approx(frechet_distance(*wide[0], *wide[1]), rel=1e-4)


def test_one_dimension_and_no_spread():
    def one(*values):
        return torch.tensor(values)

    assert frechet_distance(one(1.0), one([4.0]), one(3.0), one([25.0])) == pytest.approx(4 + 9)
    assert frechet_distance(one(1.0), one([0.0]), one(3.0), one([0.0])) == 4
    assert frechet_distance(torch.zeros(2), torch.zeros(2, 2), torch.zeros(2), torch.eye(2)) == pytest.approx(2)


def test_fewer_pictures_than_features_are_told():
    """With a number that is measured: how far apart the set's own halves are. The distance is computed all the same."""
    x, y = torch.randn(2, 100, 128, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="n=100 rows and d=128 columns") as said:
        found = feature_distance(x, y)
    assert 75 < found < 95
    told = float(str(said[0].message).split("halves are ")[1].split(" apart")[0])
    with pytest.warns(UserWarning, match="n=50 rows"):
        assert told == pytest.approx(feature_distance(y[:50], y[50:]), rel=0.1)  # as two other such sets
    with pytest.warns(UserWarning, match="a distance mostly measures n. Take"):
        moments(x[:3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert feature_distance(x[:, :99], y[:, :99]) > 0  # n = d + 1


@pytest.mark.parametrize("d", [1, 2, 8, 64, 128])
def test_expected_floor(d):
    """The mean over many pairs, for round clouds and for long ones; d (d + 5) / 2n for round ones."""
    g = torch.Generator().manual_seed(d)
    n = 20 * d + 20
    for spread in (torch.ones(d), torch.logspace(0, -2, d)):
        told = expected_floor((spread**2).diag(), n)
        pairs = [feature_distance(*(spread * torch.randn(2, n, d, generator=g))) for _ in range(400 // d + 4)]
        error = torch.tensor(pairs).std().item() / math.sqrt(len(pairs))
        assert abs(sum(pairs) / len(pairs) - told) < 4 * error + 0.06 * told
    assert expected_floor(torch.eye(d), n) == pytest.approx(d * (d + 5) / (2 * n))
    assert expected_floor(torch.zeros(d, d), n) == 0


def test_moments_are_numpys():
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(1)) + 3
    mean, cov = moments(x)
    assert np.allclose(mean, x.numpy().astype(float).mean(0))
    assert np.allclose(cov, np.cov(x.numpy().astype(float), rowvar=False))
    assert mean.dtype == cov.dtype == torch.float64


def test_the_floor_falls_as_one_over_n():
    """Equal distributions are not at distance 0: for d = 64 and n = 256 and 1024 it was 8.7 and 2.2 elsewhere."""
    x = torch.randn(4096, 64, generator=torch.Generator().manual_seed(0))
    floors = [floor(x, n) for n in (256, 1024)]
    assert floors == pytest.approx([8.7, 2.2], rel=0.1)
    assert floor(x, 256, seed=3) == floor(x, 256, seed=3) != floors[0]


def test_the_two_halves_share_no_picture():
    x = torch.arange(20.0)[:, None].repeat(1, 2) + torch.randn(20, 2, generator=torch.Generator().manual_seed(0)) * 0.01
    order = torch.randperm(20, generator=torch.Generator().manual_seed(7))
    assert floor(x, 10, seed=7, splits=1) == feature_distance(x[order[:10]], x[order[10:]])
    there_and_back = [order, order.flip(0)]  # the same pair twice: the distance is symmetric
    assert mean_over_pairs(x, 10, there_and_back) == pytest.approx(floor(x, 10, seed=7, splits=1))


def test_means_over_many_sets_vary_less():
    x = torch.randn(1000, 4, generator=torch.Generator().manual_seed(2)) ** 3  # heavy tails
    spread = [torch.tensor([floor(x, 100, seed, splits) for seed in range(12)]).std() for splits in (1, 16)]
    assert spread[1] < spread[0] / 2  # a quarter, were the pairs independent


def test_real_pictures_are_at_their_floor_and_moved_ones_are_not():
    x = torch.randn(4000, 4, generator=torch.Generator().manual_seed(3))
    samples, real = x[:500], x[500:]
    assert 0.4 < distance_to_real(samples, real) / floor(real, 500) < 2.5
    moved = distance_to_real(samples + 0.5, real)
    assert moved == pytest.approx(4 * 0.25, rel=0.3)
    order = torch.randperm(3500, generator=torch.Generator().manual_seed(5))
    assert distance_to_real(samples, real, 5, 1) == feature_distance(samples, real[order[:500]])


def test_a_shift_shows():
    x, y = torch.randn(2, 2000, 4, generator=torch.Generator().manual_seed(0))
    assert feature_distance(x, y + 0.5) == pytest.approx(4 * 0.25 + feature_distance(x, y), abs=0.2)
