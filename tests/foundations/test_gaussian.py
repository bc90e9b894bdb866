"""One-dimensional Gaussians against torch.distributions, quadrature and draws."""

import math

import pytest
import scipy.integrate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.foundations import (
    affine_normal,
    complete_square,
    expect_normal,
    normal_density,
    normal_log_density,
    product_normal,
    sum_normal,
)

N = 400_000
X = torch.linspace(-6, 7, 501, dtype=torch.float64)


def draws(seed):
    return torch.randn(N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def check_moments(sample, mean, variance):
    """Sample mean and variance within 4 standard errors (Gaussian samples)."""
    assert abs(sample.mean().item() - mean) < 4 * math.sqrt(variance / N)
    assert abs(sample.var().item() - variance) < 4 * variance * math.sqrt(2 / N)


def test_density_is_torchs_and_takes_a_variance():
    for mean, variance in ((0, 1), (1.5, 4.0), (-2.0, 0.01)):
        normal = torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), math.sqrt(variance))
        assert torch.allclose(normal_log_density(X, mean, variance), normal.log_prob(X), rtol=1e-12, atol=1e-12)
        assert torch.allclose(normal_density(X, mean, variance), normal.log_prob(X).exp(), rtol=1e-9)


@pytest.mark.parametrize(("mean", "variance"), [(0.3, 0.05), (-1.0, 9.0)])
def test_density_has_area_one(mean, variance):
    ends = mean - 10 * math.sqrt(variance), mean + 10 * math.sqrt(variance)
    area, _ = scipy.integrate.quad(lambda x: normal_density(x, mean, variance).item(), *ends, epsabs=1e-10)
    assert area == pytest.approx(1, abs=1e-8)


def test_a_density_may_exceed_one():
    assert normal_density(0, 0, 0.01).item() == pytest.approx(1 / math.sqrt(2 * math.pi * 0.01))
    assert normal_log_density(1e6, 0.0, 1.0).item() == pytest.approx(-0.5e12)  # no -inf where exp would underflow


def test_shapes_broadcast():
    assert normal_log_density(X[:, None], torch.zeros(3), torch.ones(3)).shape == (501, 3)


@settings(deadline=None, max_examples=100)
@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_completing_the_square(a, b):
    mean, variance = complete_square(a, b)
    x = torch.tensor([-1.7, 0.0, 2.3], dtype=torch.float64)
    rest = a * x**2 + b * x - (x - mean) ** 2 / (2 * variance)  # a number without x
    assert (rest - rest[0]).abs().max() <= 1e-9 * (a + abs(b) + rest[0].abs())


def test_square_of_a_density_exponent():
    """-ln N(x; μ, σ²) is x²/2σ² - μx/σ² + …: reading it off gives μ and σ² back."""
    for mean, variance in ((1.0, 4.0), (-0.5, 2.25), (3.0, 0.01)):
        found = complete_square(1 / (2 * variance), -mean / variance)
        assert (found[0].item(), found[1].item()) == pytest.approx((mean, variance), rel=1e-12)


def test_affine():
    mean, variance = affine_normal(1.5, 4.0, -0.5, 3.0)
    check_moments(-0.5 * (1.5 + 2.0 * draws(0)) + 3.0, mean.item(), variance.item())
    assert (mean.item(), variance.item()) == (2.25, 1.0)
    assert affine_normal(1.0, 2.0, 0.0)[1].item() == 0


def test_sum_of_independent():
    mean, variance = sum_normal(1.0, 4.0, -2.0, 0.25, a=2.0, b=-3.0)
    sample = 2 * (1 + 2 * draws(1)) - 3 * (-2 + 0.5 * draws(2))
    check_moments(sample, mean.item(), variance.item())
    assert (mean.item(), variance.item()) == (8.0, 18.25)
    grid = torch.linspace(-40, 40, 40_001, dtype=torch.float64)  # the density of a sum is a convolution
    at = 5.0
    product = normal_density(grid, 2.0, 16.0) * normal_density(at - grid, 6.0, 2.25)
    assert torch.trapezoid(product, grid).item() == pytest.approx(normal_density(at, mean, variance).item(), abs=1e-9)


def test_sum_of_dependent():
    """Y = X gives (a + b)² σ², twice what independence gives; Y = -X gives 0, and never a negative variance."""
    x = 2 * draws(3)
    mean, variance = sum_normal(0.0, 4.0, 0.0, 4.0, covariance=4.0)
    check_moments(x + x, mean.item(), variance.item())
    assert variance.item() == 16
    assert sum_normal(0.0, 4.0, 0.0, 4.0)[1].item() == 8
    for v in (0.1, 0.3, 1 / 7):
        for a in (0.1, 0.7, 3.3):
            _, variance = sum_normal(0.0, v, 0.0, v, a=a, b=-a, covariance=v)
            assert 0 <= variance.item() < 1e-15
    half = 0.5 * x + math.sqrt(3) * draws(4)  # variance 4, covariance 2 with x
    check_moments(x + half, 0.0, sum_normal(0.0, 4.0, 0.0, 4.0, covariance=2.0)[1].item())


def test_uncorrelated_is_not_enough_for_the_shape():
    """X and X with a random sign: uncorrelated, the variances add, and yet half of all sums are exactly 0."""
    x = draws(5)
    y = x * (2 * torch.randint(0, 2, (N,), generator=torch.Generator().manual_seed(6)) - 1)
    total = x + y
    assert abs((x * y).mean().item()) < 4 / math.sqrt(N)
    assert abs(total.var().item() - sum_normal(0.0, 1.0, 0.0, 1.0)[1].item()) < 4 * math.sqrt(
        20 / N
    )  # E (X+Y)⁴ - 2² = 24 - 4
    assert abs((total == 0).double().mean().item() - 0.5) < 4 * 0.5 / math.sqrt(N)


@settings(deadline=None, max_examples=60)
@given(st.floats(-5, 5), st.floats(0.01, 20), st.floats(-5, 5), st.floats(0.01, 20))
def test_product_of_two_densities_at_every_x(mean_1, var_1, mean_2, var_2):
    mean, variance, log_z = product_normal(mean_1, var_1, mean_2, var_2)
    left = normal_log_density(X, mean_1, var_1) + normal_log_density(X, mean_2, var_2)
    assert torch.allclose(left, log_z + normal_log_density(X, mean, variance), rtol=1e-9, atol=1e-8)
    assert variance.item() < min(var_1, var_2)


def test_product_normaliser_by_area():
    grid = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    area = torch.trapezoid(normal_density(grid, 1.0, 4.0) * normal_density(grid, -0.5, 2.25), grid)
    assert product_normal(1.0, 4.0, -0.5, 2.25)[2].exp().item() == pytest.approx(area.item(), rel=1e-9)


def test_expectation_by_quadrature():
    """Moments, the moment generating function and a rough function, against formulas and scipy."""
    assert expect_normal(lambda x: x**4, 0.0, 1.0).item() == pytest.approx(3, abs=1e-10)
    assert expect_normal(torch.exp, 0.3, 0.5).item() == pytest.approx(math.exp(0.3 + 0.25), rel=1e-10)
    assert expect_normal(torch.ones_like, 0.3, 7.0).item() == pytest.approx(1, abs=1e-14)
    for mean, variance in ((0.4, 0.3), (-2.0, 5.0)):
        wanted, _ = scipy.integrate.quad(
            lambda x: math.log1p(math.exp(3 * x)) * normal_density(x, mean, variance).item(),  # noqa: B023
            mean - 10 * math.sqrt(variance),
            mean + 10 * math.sqrt(variance),
        )
        found = expect_normal(lambda x: torch.nn.functional.softplus(3 * x), mean, variance)
        assert found.item() == pytest.approx(wanted, abs=1e-7)
    assert expect_normal(torch.square, torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 1.0])).tolist() == [
        pytest.approx([1, 2]),
        pytest.approx([4, 5]),
    ]
