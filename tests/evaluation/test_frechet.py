"""The Fréchet distance against closed forms, scipy's matrix root, and its own floor."""

import numpy as np
import pytest
import scipy.linalg
import torch

from course_lib.evaluation.frechet import distance_to_real, feature_distance, floor, frechet_distance, moments


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
