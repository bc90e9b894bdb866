"""Moments: the point masses of the curriculum, scipy's sample moments, and what signs are for."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.foundations import central_moment, mass_moments, mixed_moment, moment_about, raw_moment

N = 400_000
POSITIONS, MASSES = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0])


def normal(n=N, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exponential(n=N, seed=0):
    return -torch.log1p(-torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def test_three_masses():
    m = mass_moments(POSITIONS, MASSES)
    assert (m.m0.item(), m.m1.item(), m.m2.item()) == (6, 8, 14)
    assert m.centroid.item() == pytest.approx(4 / 3, rel=1e-12)
    assert m.variance.item() == pytest.approx(5 / 9, rel=1e-12)
    assert m.central_m2.item() == pytest.approx(6 * 5 / 9, rel=1e-12)


def test_masses_and_probabilities_agree():
    """Masses divided by their sum are probabilities, and physical moments become those of probability."""
    m, total = mass_moments(POSITIONS, MASSES), 6
    assert raw_moment(POSITIONS, 0, MASSES).item() == pytest.approx(1)
    assert raw_moment(POSITIONS, 1, MASSES).item() == pytest.approx(m.m1.item() / total)
    assert raw_moment(POSITIONS, 2, MASSES).item() == pytest.approx(m.m2.item() / total)
    assert central_moment(POSITIONS, 2, MASSES).item() == pytest.approx(m.variance.item())
    repeated = torch.tensor([0.0, 1, 1, 2, 2, 2])  # mass 3 is three samples
    for k in range(5):
        assert central_moment(POSITIONS, k, MASSES).item() == pytest.approx(central_moment(repeated, k).item())


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.1, 10)), min_size=1, max_size=8), st.floats(-10, 10))
def test_inertia_is_smallest_about_the_centroid(points, c):
    """Huygens and Steiner: about any point c the moment of inertia is the central one plus m0 (c - centroid)²."""
    x, masses = torch.tensor(points, dtype=torch.float64).T
    m = mass_moments(x, masses)
    about_c = moment_about(x, 2, c, masses) * m.m0
    assert about_c.item() == pytest.approx((m.central_m2 + m.m0 * (c - m.centroid) ** 2).item(), rel=1e-9, abs=1e-9)
    assert m.m2.item() == pytest.approx((m.central_m2 + m.m0 * m.centroid**2).item(), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_samples_by_scipy(k):
    x = exponential(1000)
    assert central_moment(x, k).item() == pytest.approx(scipy.stats.moment(x.numpy(), k), rel=1e-9, abs=1e-12)
    assert raw_moment(x, k).item() == pytest.approx(np.mean(x.numpy() ** k), rel=1e-9)


@pytest.mark.parametrize(("k", "wanted", "square"), [(1, 0, 1), (2, 1, 3), (3, 0, 15), (4, 3, 105)])
def test_moments_of_the_standard_normal(k, wanted, square):
    """0, 1, 0, 3; `square` is E X^2k, for the standard error."""
    error = math.sqrt((square - wanted**2) / N)
    assert abs(raw_moment(normal(), k).item() - wanted) < 4 * error
    absolute = normal().abs().pow(k).mean().item()
    assert (abs(absolute - wanted) > 0.7) == (k % 2 == 1)  # |X| would tell another story, for odd k


def test_third_central_moment_of_the_exponential():
    """2, and not the 2.45 that absolute values give; the error is that of (X - 1)³, whose variance is 265 - 4."""
    x = exponential()
    assert abs(moment_about(x, 3, 1.0).item() - 2) < 4 * math.sqrt(261 / N)
    assert abs(central_moment(x, 3).item() - 2) < 4 * math.sqrt(261 / N)
    assert (x - 1).abs().pow(3).mean().item() > 2.3


def test_covariance_may_be_negative():
    x = normal(seed=1)
    assert mixed_moment(x, -x, 1, 1).item() == pytest.approx(-central_moment(x, 2).item(), rel=1e-12)
    y = 0.5 * x + normal(seed=2) + 3
    wanted = np.cov(x.numpy(), y.numpy(), bias=True)[0, 1]
    assert mixed_moment(x, y, 1, 1).item() == pytest.approx(wanted, rel=1e-9)
    raw = mixed_moment(x, y, 1, 1, central=False)
    assert raw.item() == pytest.approx((x * y).mean().item(), rel=1e-9)
    assert raw.item() == pytest.approx(wanted + (x.mean() * y.mean()).item(), rel=1e-9)


def test_weighted_mixed_moments_by_loops():
    x, y, w = [1.0, -2.0, 4.0], [0.5, 3.0, -1.0], [1.0, 2.0, 5.0]
    mean_x, mean_y = (sum(a * b for a, b in zip(w, v, strict=True)) / 8 for v in (x, y))
    for p in range(3):
        for q in range(4):
            wanted = sum(c * (a - mean_x) ** p * (b - mean_y) ** q for a, b, c in zip(x, y, w, strict=True)) / 8
            found = mixed_moment(torch.tensor(x), torch.tensor(y), p, q, torch.tensor(w))
            assert found.item() == pytest.approx(wanted, abs=1e-12)


def test_whole_numbers_are_numbers():
    assert raw_moment(torch.tensor([1, 2, 3]), 2).item() == pytest.approx(14 / 3)
    assert mass_moments(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3])).m2.item() == 14


def test_mean_of_m_draws_errs_like_one_over_root_m():
    """The law of large numbers with its speed: slope -½ on logarithmic axes, within 0.1."""
    sizes = [10, 30, 100, 300, 1000, 3000]
    generator = torch.Generator().manual_seed(3)
    errors = []
    for m in sizes:
        means = torch.rand(400, m, generator=generator, dtype=torch.float64).mean(dim=1)
        errors.append(math.log((means - 0.5).square().mean().sqrt()))
        assert abs(errors[-1] - math.log(math.sqrt(1 / 12 / m))) < 4 / math.sqrt(2 * 400)
    slope = np.polyfit(np.log(sizes), errors, 1)[0]
    assert abs(slope + 0.5) < 0.1
