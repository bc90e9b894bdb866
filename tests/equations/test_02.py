"""Every tagged equation of lesson 02, checked by a route that does not use the formula itself."""

import itertools
import math
from fractions import Fraction

import pytest
import scipy.integrate
import scipy.stats
import torch

from course_lib.foundations import (
    affine_multivariate,
    affine_normal,
    central_moment,
    complete_square,
    conditional_normal,
    mass_moments,
    mixed_moment,
    moment_about,
    normal_density,
    principal_axes,
    product_normal,
    raw_moment,
    sum_normal,
)

N = 400_000  # draws; tolerances are 4 standard errors, and all seeds are fixed
MASSES = [Fraction(1), Fraction(2), Fraction(3)]
PLACES = [Fraction(0), Fraction(1), Fraction(2)]


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exponential(n, seed):
    return torch.empty(n, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(seed))


def floats(fractions):
    return torch.tensor([float(f) for f in fractions], dtype=torch.float64)


def near_mean(values, wanted):
    """Is the average of these draws within four standard errors of `wanted`?"""
    return abs(values.mean().item() - wanted) < 4 * values.std().item() / math.sqrt(len(values))


def near_variance(values, wanted):
    squares = (values - values.mean()) ** 2
    return near_mean(squares, wanted)


def test_eq_2_1():
    """Moments as derivatives at 0 of the generating function Σ m e^{s x}, by finite differences in exact arithmetic."""
    found = mass_moments(floats(PLACES), floats(MASSES))
    h = Fraction(1, 10**6)

    def generating(s):  # e^{sx} to fourth order is plenty for s = 1e-6
        series = [sum((s * x) ** j / math.factorial(j) for j in range(6)) for x in PLACES]
        return sum(m * e for m, e in zip(MASSES, series, strict=True))

    first = (generating(h) - generating(-h)) / (2 * h)
    second = (generating(h) - 2 * generating(Fraction(0)) + generating(-h)) / h**2
    assert found.m0.item() == float(generating(Fraction(0))) == 6
    assert found.m1.item() == pytest.approx(float(first), rel=1e-9)
    assert found.m2.item() == pytest.approx(float(second), rel=1e-9)
    assert (found.m1.item(), found.m2.item()) == (8, 14)


def test_eq_2_2():
    """The ruler balances at the centroid: the torques about it cancel, and about no other point of a fine grid."""
    centroid = mass_moments(floats(PLACES), floats(MASSES)).centroid.item()
    grid = [Fraction(k, 300) for k in range(601)]
    torques = {c: sum(m * (x - c) for m, x in zip(MASSES, PLACES, strict=True)) for c in grid}
    balanced = [c for c, torque in torques.items() if torque == 0]
    assert balanced == [Fraction(4, 3)]
    assert centroid == pytest.approx(4 / 3, rel=1e-15)


def test_eq_2_3():
    """Width by pairs: the variance is half the mean squared distance of two independent draws."""
    total = sum(MASSES)
    pairs = itertools.product(zip(MASSES, PLACES, strict=True), repeat=2)
    half = sum(m * n * (x - y) ** 2 for (m, x), (n, y) in pairs) / (2 * total**2)
    found = mass_moments(floats(PLACES), floats(MASSES))
    assert found.variance.item() == pytest.approx(float(half), rel=1e-14) == pytest.approx(0.5556, abs=1e-4)
    shifted = mass_moments(floats(PLACES) + 100, floats(MASSES))
    assert shifted.variance.item() == pytest.approx(float(half), rel=1e-9)


def test_eq_2_4():
    """Draws average to Σ p x, and a density's to the quadrature of x p(x); expectations are linear."""
    p = floats(MASSES) / 6
    drawn = floats(PLACES)[torch.multinomial(p, N, replacement=True, generator=torch.Generator().manual_seed(1))]
    assert near_mean(drawn, raw_moment(floats(PLACES), 1, p).item())
    assert near_mean(drawn**3, raw_moment(floats(PLACES), 3, p).item())
    density = scipy.stats.gamma(2.5)
    mean = scipy.integrate.quad(lambda x: x * density.pdf(x), 0, math.inf)[0]
    sample = torch.from_numpy(density.rvs(N, random_state=2))
    assert near_mean(sample, mean)
    assert near_mean(3 * sample - 1 + sample**2, 3 * mean - 1 + density.moment(2))


def test_eq_2_5():
    """Moments about several points, of draws against scipy's integrals over the density."""
    sample = exponential(N, seed=3)
    for k, c in itertools.product((1, 2, 3), (0.0, 1.0, 2.5)):
        wanted = scipy.integrate.quad(lambda x, k=k, c=c: (x - c) ** k * math.exp(-x), 0, math.inf)[0]
        assert near_mean((sample - c) ** k, wanted)
        assert moment_about(sample, k, c).item() == pytest.approx(((sample - c) ** k).mean().item(), rel=1e-12)
    for k, wanted in ((1, 0), (2, 1), (3, 2)):  # about the mean
        assert abs(central_moment(sample, k).item() - wanted) < 0.1


def test_eq_2_6():
    """E[X²] - (E X)² against the variance by half mean squared distances, for uneven masses."""
    x, p = normal(40, seed=4) + 3, torch.softmax(normal(40, seed=5), 0)
    half = (p[:, None] * p * (x[:, None] - x) ** 2).sum() / 2
    assert (raw_moment(x, 2, p) - raw_moment(x, 1, p) ** 2).item() == pytest.approx(half.item(), rel=1e-12)
    assert central_moment(x, 2, p).item() == pytest.approx(half.item(), rel=1e-12)


def test_eq_2_7():
    """Covariance from the variances of sum and difference, and signed."""
    x = normal(1000, seed=6)
    for slope in (-2.0, 0.0, 0.7):
        y = slope * x + normal(1000, seed=7)
        polar = ((x + y).var(correction=0) - (x - y).var(correction=0)) / 4
        assert mixed_moment(x, y, 1, 1).item() == pytest.approx(polar.item(), rel=1e-10)
    assert mixed_moment(x, -x, 1, 1).item() == pytest.approx(-x.var(correction=0).item(), rel=1e-12)


def test_eq_2_8():
    """The spread of 4,000 averages of m draws, against σ / √m for σ = 1."""
    for m in (4, 25, 400):
        averages = exponential(4000 * m, seed=m).reshape(4000, m).mean(1)
        assert near_variance(averages, 1 / m)


def test_eq_2_9():
    """Density against scipy (which wants the standard deviation), and its area by quadrature."""
    for mean, variance in ((0.0, 1.0), (0.7, 0.04), (-3.0, 9.0)):
        x = torch.linspace(-5, 5, 101, dtype=torch.float64)
        wanted = scipy.stats.norm(mean, math.sqrt(variance)).pdf(x.numpy())
        assert torch.allclose(normal_density(x, mean, variance), torch.from_numpy(wanted), rtol=1e-10)
        area = scipy.integrate.quad(
            lambda v, mean=mean, variance=variance: normal_density(v, mean, variance).item(),
            mean - 40 * math.sqrt(variance),
            mean + 40 * math.sqrt(variance),
            points=[mean],
        )[0]
        assert area == pytest.approx(1, abs=1e-8)


def test_eq_2_10():
    """Mean and variance of the curve exp(-(a x² + b x)) by quadrature."""
    for a, b in ((1.5, -2.4), (0.1, 0.3), (8.0, 20.0)):

        def curve(x, a=a, b=b):
            return math.exp(-(a * x**2 + b * x) - b * b / (4 * a))  # the last term only keeps numbers small

        span = (-b / (2 * a) - 12 / math.sqrt(a), -b / (2 * a) + 12 / math.sqrt(a))
        area = scipy.integrate.quad(curve, *span)[0]
        mean = scipy.integrate.quad(lambda x, curve=curve: x * curve(x), *span)[0] / area
        variance = scipy.integrate.quad(lambda x, curve=curve, m=mean: (x - m) ** 2 * curve(x), *span)[0] / area
        found = complete_square(a, b)
        assert found[0].item() == pytest.approx(mean, rel=1e-6)
        assert found[1].item() == pytest.approx(variance, rel=1e-6)


def test_eq_2_11():
    """The distribution of a X + c by draws, with a Kolmogorov-Smirnov test against the Gaussian named."""
    mean, variance = affine_normal(1.5, 0.64, -2.0, 3.0)
    draws = -2.0 * (1.5 + 0.8 * normal(20_000, seed=8)) + 3.0
    named = scipy.stats.norm(mean.item(), math.sqrt(variance.item()))
    assert scipy.stats.kstest(draws.numpy(), named.cdf).pvalue > 0.01
    wider = scipy.stats.norm(mean.item(), 1.1 * math.sqrt(variance.item()))
    assert scipy.stats.kstest(draws.numpy(), wider.cdf).pvalue < 1e-4  # the test can tell


def test_eq_2_12():
    """Means add whether the two hang together or not."""
    x = 1 + 2 * normal(N, seed=9)
    for y, mean_y in ((-2 + 0.5 * normal(N, seed=10), -2.0), (x**2, 5.0), (-x, -1.0)):
        mean, _ = sum_normal(1.0, 4.0, mean_y, 1.0, a=0.6, b=-2.0)
        assert near_mean(0.6 * x - 2 * y, mean.item())


def test_eq_2_13():
    """Variance of a sum by draws, for independent and for tied numbers; X + X has four times the variance."""
    x, z = normal(N, seed=11), normal(N, seed=12)
    for rho in (-1.0, -0.5, 0.0, 0.8, 1.0):
        y = 3 * (rho * x + math.sqrt(1 - rho**2) * z)
        _, variance = sum_normal(0, 1.0, 0, 9.0, a=2.0, b=-0.5, covariance=3 * rho)
        assert near_variance(2 * x - 0.5 * y, variance.item())
    assert sum_normal(0, 1, 0, 1, covariance=1)[1].item() == pytest.approx((2 * x).var().item() / x.var().item())
    ks = scipy.stats.kstest((2 * x - 1.5 * z)[:20_000].numpy(), scipy.stats.norm(0, 2.5).cdf)  # and it is Gaussian
    assert ks.pvalue > 0.01


PRODUCTS = [(-1.0, 1.0, 1.5, 0.5), (0.3, 4.0, 0.2, 0.01), (5.0, 2.0, -5.0, 3.0)]


def moments_of_product(mean_1, var_1, mean_2, var_2):
    x = torch.linspace(-15, 15, 200_001, dtype=torch.float64)
    logs = [
        torch.from_numpy(scipy.stats.norm(m, math.sqrt(v)).logpdf(x.numpy()))
        for m, v in ((mean_1, var_1), (mean_2, var_2))
    ]
    weights = torch.softmax(sum(logs), 0)
    mean = weights @ x
    return mean.item(), (weights @ (x - mean) ** 2).item()


@pytest.mark.parametrize("case", PRODUCTS)
def test_eq_2_14(case):
    """Variance of the product of two curves on a grid."""
    assert product_normal(*case)[1].item() == pytest.approx(moments_of_product(*case)[1], rel=1e-6)


@pytest.mark.parametrize("case", PRODUCTS)
def test_eq_2_15(case):
    """Mean of the product of two curves on a grid."""
    assert product_normal(*case)[0].item() == pytest.approx(moments_of_product(*case)[0], rel=1e-6, abs=1e-9)


def covariance_of(d, seed, rank=None):
    root = normal(d, rank or d, seed=seed)
    return root @ root.T


def test_eq_2_16():
    """mean + root Z: draws have the covariance, and each direction is Gaussian; also where the covariance is flat."""
    for rank in (3, 2):
        sigma, mean = covariance_of(3, seed=13, rank=rank), normal(3, seed=14)
        root = principal_axes(sigma).root
        assert torch.allclose(root @ root.T, sigma, atol=1e-12)
        draws = mean[:, None] + root @ normal(root.shape[1], N, seed=15)
        for i, j in itertools.product(range(3), range(3)):
            assert near_mean((draws[i] - mean[i]) * (draws[j] - mean[j]), sigma[i, j].item())
        direction = normal(3, seed=16)
        line = scipy.stats.norm((direction @ mean).item(), (direction @ sigma @ direction).sqrt().item())
        assert scipy.stats.kstest((direction @ draws)[:20_000].numpy(), line.cdf).pvalue > 0.01


def test_eq_2_17():
    """Entry by entry from sums of pairs of covariances, and by draws."""
    sigma, mean, A, c = covariance_of(3, seed=17), normal(3, seed=18), normal(2, 3, seed=19), normal(2, seed=20)
    found_mean, found = affine_multivariate(mean, sigma, A, c)
    draws = A @ (mean[:, None] + torch.linalg.cholesky(sigma) @ normal(3, N, seed=21)) + c[:, None]
    for i, j in itertools.product(range(2), range(2)):
        by_hand = sum(A[i, k] * A[j, m] * sigma[k, m] for k in range(3) for m in range(3))
        assert found[i, j].item() == pytest.approx(by_hand.item(), rel=1e-10)
        assert near_mean((draws[i] - found_mean[i]) * (draws[j] - found_mean[j]), found[i, j].item())
    assert all(near_mean(draws[i], found_mean[i].item()) for i in range(2))


def slice_of_the_density(mean, sigma, known):
    """Mean and variance of variable 0 of three along the line where the other two have the known values."""
    spread = 12 * sigma[0, 0].sqrt().item()
    x = torch.linspace(-spread, spread, 40_001, dtype=torch.float64) + mean[0]
    points = torch.stack([x, *(torch.full_like(x, v) for v in known)], dim=1)
    weights = torch.softmax(torch.distributions.MultivariateNormal(mean, sigma).log_prob(points), 0)
    center = weights @ x
    return center.item(), (weights @ (x - center) ** 2).item()


def test_eq_2_18():
    """The conditional mean as the mean of a slice through the joint density."""
    sigma, mean, known = covariance_of(3, seed=22), normal(3, seed=23), [0.4, -1.2]
    found, _ = conditional_normal(mean, sigma, [1, 2], torch.tensor(known, dtype=torch.float64))
    assert found.item() == pytest.approx(slice_of_the_density(mean, sigma, known)[0], rel=1e-7)


def test_eq_2_19():
    """The conditional variance as that of the slice; it is the same for every slice, and 0 for a copied variable."""
    sigma, mean = covariance_of(3, seed=24), normal(3, seed=25)
    for known in ([0.0, 0.0], [1.0, -0.5]):
        _, found = conditional_normal(mean, sigma, [1, 2], torch.tensor(known, dtype=torch.float64))
        assert found.item() == pytest.approx(slice_of_the_density(mean, sigma, known)[1], rel=1e-7)
    flat = torch.ones(2, 2, dtype=torch.float64)
    _, certain = conditional_normal(torch.zeros(2), flat, [0], torch.tensor([0.3], dtype=torch.float64))
    assert certain.item() == 0
