"""Divergences against torch.distributions, scipy, quadrature and draws; zeros, infinities and near-singular cases."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.spatial.distance
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, MultivariateNormal, Normal, kl_divergence

from course_lib.foundations import (
    cross_entropy,
    entropy,
    js_divergence,
    kl_diagonal,
    kl_discrete,
    kl_multivariate,
    kl_normal,
    mutual_information,
    wasserstein_1d,
)

LN_2 = math.log(2)
means = st.floats(-20, 20)
variances = st.floats(1e-3, 1e3)


def rows(*shape, seed=0):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values / values.sum(-1, keepdim=True)


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


# --- discrete


def test_discrete_by_two_other_libraries():
    p, q = rows(20, 7, seed=1), rows(20, 7, seed=2)
    assert torch.allclose(kl_discrete(p, q), kl_divergence(Categorical(p), Categorical(q)), atol=1e-12)
    assert torch.allclose(kl_discrete(p, q), torch.from_numpy(scipy.stats.entropy(p, q, axis=-1)), atol=1e-12)
    assert torch.allclose(entropy(p), Categorical(p).entropy(), atol=1e-12)
    functional = torch.nn.functional.kl_div(q.log(), p, reduction="none").sum(-1)  # its arguments are turned round
    assert torch.allclose(kl_discrete(p, q), functional, atol=1e-12)
    js = torch.from_numpy(scipy.spatial.distance.jensenshannon(p, q, axis=-1)) ** 2
    assert torch.allclose(js_divergence(p, q), js, atol=1e-12)


def test_extra_code_length():
    p, q = rows(5, 4, seed=3), rows(4, seed=4)
    assert torch.allclose(cross_entropy(p, q) - entropy(p), kl_discrete(p, q), atol=1e-12)
    assert cross_entropy(p, q).shape == (5,)


def test_zeros_of_p_cost_nothing_and_zeros_of_q_cost_all():
    assert kl_discrete(f64(0.5, 0.5, 0), f64(0.25, 0.25, 0.5)).item() == pytest.approx(LN_2)
    assert kl_discrete(f64(0.25, 0.25, 0.5), f64(0.5, 0.5, 0)).item() == math.inf
    assert cross_entropy(f64(0.25, 0.25, 0.5), f64(0.5, 0.5, 0)).item() == math.inf
    assert kl_discrete(f64(1, 0), f64(1, 0)).item() == 0
    assert entropy(f64(0, 1, 0)).item() == 0
    assert kl_discrete(f64(1, 0), f64(0, 1)).item() == math.inf
    tiny = f64(5e-324, 1)
    assert kl_discrete(f64(0.5, 0.5), tiny).item() == pytest.approx(0.5 * 744.44 - LN_2, rel=1e-4)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 8), st.integers(0, 10**6), st.floats(0, 0.6))
def test_never_negative_and_zero_only_for_equals(n, seed, threshold):
    generator = torch.Generator().manual_seed(seed)
    p, q = torch.rand(2, n, generator=generator, dtype=torch.float64)
    p, q = (torch.where(v < threshold, 0.0, v) + (v == v.max()) for v in (p, q))
    p, q = p / p.sum(), q / q.sum()
    kl, js = kl_discrete(p, q).item(), js_divergence(p, q).item()
    assert kl >= -1e-14
    assert kl_discrete(p, p).item() == 0
    assert -1e-14 <= js <= LN_2 + 1e-14
    assert js == pytest.approx(js_divergence(q, p).item(), abs=1e-14)
    if (p - q).abs().max() > 1e-3:
        assert kl >= 0.5 * (p - q).abs().sum().item() ** 2 - 1e-12  # Pinsker's bound
        assert js > 0
    assert (kl == math.inf) == bool(((p > 0) & (q == 0)).any())


def test_js_saturates_where_wasserstein_does_not():
    """Two points, ever further apart: JS stays at ln 2 (no slope to follow), W₁ is their distance."""
    for distance in (1, 3, 9):
        places = torch.arange(10.0)
        p, q = torch.zeros(2, 10)
        p[0], q[distance] = 1, 1
        assert js_divergence(p, q).item() == pytest.approx(LN_2, abs=1e-15)
        assert wasserstein_1d(places, places, p, q).item() == distance


def test_js_by_hand_and_the_gan_value():
    """On p = (.5, .5, 0), q = (0, .5, .5): JS = ½ ln 2; V(G, D*) = 2 JS - ln 4, by the discriminator's own formula."""
    p, q = f64(0.5, 0.5, 0), f64(0, 0.5, 0.5)
    assert js_divergence(p, q).item() == pytest.approx(0.5 * LN_2, rel=1e-12)
    p, q = f64(0.1, 0.4, 0.5), f64(0.6, 0.3, 0.1)
    best = p / (p + q)
    value = (p * best.log()).sum() + (q * (1 - best).log()).sum()
    assert value.item() == pytest.approx(2 * js_divergence(p, q).item() - math.log(4), rel=1e-12)


def test_mutual_information():
    joint = rows(12, seed=5).reshape(3, 4)
    wanted = entropy(joint.sum(1)) + entropy(joint.sum(0)) - entropy(joint.flatten())
    assert mutual_information(joint).item() == pytest.approx(wanted.item(), abs=1e-12)
    assert mutual_information(torch.eye(4) / 4).item() == pytest.approx(math.log(4))
    independent = rows(3, seed=6)[:, None] * rows(4, seed=7)
    assert abs(mutual_information(independent).item()) < 1e-14


@pytest.mark.parametrize(("n", "m"), [(50, 50), (40, 77), (1, 9)])
def test_wasserstein_by_scipy_and_by_sorting(n, m):
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    y = 2 * torch.randn(m, generator=generator, dtype=torch.float64) + 1
    a, b = torch.rand(n, generator=generator), torch.rand(m, generator=generator)
    assert wasserstein_1d(x, y).item() == pytest.approx(scipy.stats.wasserstein_distance(x, y), rel=1e-12)
    weighted = scipy.stats.wasserstein_distance(x, y, a.numpy(), b.numpy())
    assert wasserstein_1d(x, y, a, b).item() == pytest.approx(weighted, rel=1e-6)
    if n == m:  # the cheapest transport keeps the order
        assert wasserstein_1d(x, y).item() == pytest.approx((x.sort()[0] - y.sort()[0]).abs().mean().item(), rel=1e-12)


def test_wasserstein_of_a_shift_is_the_shift():
    x = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert wasserstein_1d(x, x + 3.7).item() == pytest.approx(3.7)
    assert wasserstein_1d(x, x.flip(0)).item() == pytest.approx(0, abs=1e-14)
    assert wasserstein_1d(torch.tensor([0, 2]), torch.tensor([1])).item() == 1


# --- univariate Gaussians


def test_values_of_the_curriculum():
    assert kl_normal(1, 4, -0.5, 2.25).item() == pytest.approx(0.6012068, abs=1e-7)
    assert kl_normal(-0.5, 2.25, 1, 4).item() == pytest.approx(0.3502, abs=5e-5)
    assert kl_normal(1, 4, 0, 1).item() == pytest.approx(1.30685, abs=5e-6)
    assert kl_normal(0, 1, 1, 4).item() == pytest.approx(0.44315, abs=5e-6)


@settings(deadline=None, max_examples=100)
@given(means, variances, means, variances)
def test_normal_is_torchs_and_never_negative(mean_p, var_p, mean_q, var_q):
    kl = kl_normal(mean_p, var_p, mean_q, var_q).item()
    p, q = (Normal(f64(m), f64(v).sqrt()) for m, v in ((mean_p, var_p), (mean_q, var_q)))
    assert kl == pytest.approx(kl_divergence(p, q).item(), rel=1e-9, abs=1e-9)
    assert kl >= -1e-14
    assert kl_normal(mean_p, var_p, mean_p, var_p).item() == 0
    if abs(mean_p - mean_q) > 0.01 or abs(var_p / var_q - 1) > 0.01:
        assert kl > 0


def test_normal_by_quadrature_and_by_draws():
    """The integral itself, then 4 standard errors of the mean of ln p - ln q over draws from p."""
    p, q = Normal(f64(1), f64(2)), Normal(f64(-0.5), f64(1.5))

    def integrand(x):
        x = f64(x)
        return (p.log_prob(x).exp() * (p.log_prob(x) - q.log_prob(x))).item()

    kl = kl_normal(1, 4, -0.5, 2.25).item()
    assert scipy.integrate.quad(integrand, -20, 22)[0] == pytest.approx(kl, abs=1e-6)
    x = 1 + 2 * torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ratios = p.log_prob(x) - q.log_prob(x)
    assert abs(ratios.mean().item() - kl) < 4 * ratios.std().item() / math.sqrt(len(x))
    second = (x + 0.5) ** 2 / 2.25  # E_p[(x - μ_q)²/σ_q²] = (σ_p² + (μ_p - μ_q)²)/σ_q², with σ_q and no third σ
    assert abs(second.mean().item() - (4 + 1.5**2) / 2.25) < 4 * second.std().item() / math.sqrt(len(x))


def test_normal_with_variance_zero():
    inf = math.inf
    for case, wanted in {
        (1.0, 0.0, 1.0, 0.0): 0,
        (1.0, 0.0, 2.0, 0.0): inf,
        (1.0, 0.0, 1.0, 1.0): inf,
        (1.0, 1.0, 1.0, 0.0): inf,
    }.items():
        assert kl_normal(*case).item() == wanted
    mixed = kl_normal(torch.zeros(3), torch.tensor([0.0, 1.0, 1.0]), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    assert mixed.tolist() == [0, inf, 0]


def test_normal_far_from_one():
    """Variances whose ratio has no float: the logarithms are taken one by one."""
    assert kl_normal(0, 1e-200, 0, 1e200).item() == pytest.approx(0.5 * (400 * math.log(10) - 1), rel=1e-12)
    assert kl_normal(1e-160, 1e-320, 0, 1e-320).item() == pytest.approx(0.5 * 1e-320 / 1e-320, rel=1e-3)


def test_normal_broadcasts_and_differentiates():
    kl = kl_normal(torch.zeros(4, 1), 1, torch.zeros(3), torch.ones(3))
    assert kl.shape == (4, 3)
    assert kl.dtype == torch.float64
    inputs = [
        f64(0.7).requires_grad_(),
        f64(1.3).requires_grad_(),
        f64(-0.2).requires_grad_(),
        f64(2.1).requires_grad_(),
    ]
    assert torch.autograd.gradcheck(kl_normal, inputs)
    mean, var = torch.zeros(3, requires_grad=True), torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
    kl_normal(mean, var, 0, 1)[1:].sum().backward()
    assert torch.isfinite(var.grad).all()  # the point mass beside them must not spoil the others' gradients


# --- diagonal and full covariances


def test_diagonal_by_torch():
    g = torch.Generator().manual_seed(1)
    mean_p, mean_q = torch.randn(2, 5, 3, generator=g, dtype=torch.float64)
    var_p, var_q = torch.rand(2, 5, 3, generator=g, dtype=torch.float64) + 0.05
    wanted = kl_divergence(Normal(mean_p, var_p.sqrt()), Normal(mean_q, var_q.sqrt())).sum(-1)
    assert torch.allclose(kl_diagonal(mean_p, var_p, mean_q, var_q), wanted, rtol=1e-12)
    against_standard = kl_diagonal(mean_p, var_p, 0, 1)
    assert torch.allclose(against_standard, 0.5 * (mean_p**2 + var_p - var_p.log() - 1).sum(-1), rtol=1e-12)
    assert kl_diagonal(f64(0, 1), f64(0, 1), f64(0, 1), f64(0, 2)).item() == kl_normal(1, 1, 1, 2).item()
    assert kl_diagonal(f64(0, 1), f64(0, 1), f64(0, 1), f64(1, 0)).item() == math.inf


def covariance(d, seed):
    root = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T + 0.1 * torch.eye(d, dtype=torch.float64)


@pytest.mark.parametrize("d", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(4))
def test_multivariate_by_torch(d, seed):
    mean_p, mean_q = torch.randn(2, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    cov_p, cov_q = covariance(d, seed + 10), covariance(d, seed + 20)
    wanted = kl_divergence(MultivariateNormal(mean_p, cov_p), MultivariateNormal(mean_q, cov_q)).item()
    assert kl_multivariate(mean_p, cov_p, mean_q, cov_q).item() == pytest.approx(wanted, rel=1e-8)
    assert kl_multivariate(mean_p, cov_p, mean_p, cov_p).item() == pytest.approx(0, abs=1e-12)


def test_multivariate_by_draws():
    mean_p, mean_q, cov_p, cov_q = f64(1, -1, 0), f64(0, 0.5, 0.2), covariance(3, 1), covariance(3, 2)
    p, q = MultivariateNormal(mean_p, cov_p), MultivariateNormal(mean_q, cov_q)
    noise = torch.randn(100_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = mean_p + noise @ torch.linalg.cholesky(cov_p).T
    ratios = p.log_prob(x) - q.log_prob(x)
    error = ratios.std().item() / math.sqrt(len(x))
    assert abs(ratios.mean().item() - kl_multivariate(mean_p, cov_p, mean_q, cov_q).item()) < 4 * error


def rotation(d, seed):
    return torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


def rotated(variances, turn):
    turned = (turn * variances) @ turn.T
    return (turned + turned.T) / 2


@pytest.mark.parametrize("small", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("seed", range(4))
def test_near_singular(small, seed):
    """In rotated coordinates the answer is that of the diagonal case, whichever of the two is nearly flat."""
    turn, mean_p, mean_q = rotation(3, seed), f64(0.3, -0.2, 0.1), f64(0.1, 0.2, -0.4)
    for var_p, var_q in (
        (f64(1, 2, 0.5), f64(0.7, 1, small)),
        (f64(1, 2, small), f64(0.7, 1, 0.3)),
        (f64(1, 2, small), f64(0.7, 1, 3 * small)),
    ):
        wanted = kl_diagonal(mean_p, var_p, mean_q, var_q).item()
        found = kl_multivariate(turn @ mean_p, rotated(var_p, turn), turn @ mean_q, rotated(var_q, turn)).item()
        assert found == pytest.approx(wanted, rel=2e-6 if small == 1e-9 else 1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_singular(seed):
    """Flats: equal ones are compared within, all others are ∞ apart; rotated, so that zeros are rounded."""
    turn, inf = rotation(4, seed), math.inf
    mean = f64(0.3, -0.2, 0.1, 0.5)
    moved_within, moved_off = mean + f64(0.4, 0.1, 0, 0), mean + f64(0, 0, 0, 0.01)
    flat, same_flat, other_flat = f64(1, 2, 0, 0), f64(0.5, 3, 0, 0), f64(1, 0, 2, 0)
    solid = f64(1, 2, 0.5, 1)
    for mean_p, var_p, mean_q, var_q, wanted in (
        (mean, flat, mean, flat, 0.0),
        (mean, flat, moved_within, same_flat, kl_diagonal(mean, flat, moved_within, same_flat).item()),
        (mean, flat, moved_off, flat, inf),
        (mean, flat, mean, solid, inf),
        (mean, solid, mean, flat, inf),
        (mean, flat, mean, other_flat, inf),
        (mean, f64(1, 0, 0, 0), mean, flat, inf),
        (mean, f64(1, 1e-9, 0, 0), mean, f64(0, 1, 1, 0), inf),
        (mean, 0 * flat, mean, 0 * flat, 0.0),
        (mean, 0 * flat, moved_off, 0 * flat, inf),
        (mean, 0 * flat, mean, solid, inf),
    ):
        found = kl_multivariate(turn @ mean_p, rotated(var_p, turn), turn @ mean_q, rotated(var_q, turn)).item()
        assert found == pytest.approx(wanted, rel=1e-8, abs=1e-12)
        straight = kl_multivariate(mean_p, torch.diag(var_p), mean_q, torch.diag(var_q)).item()
        assert straight == pytest.approx(wanted, rel=1e-9, abs=1e-13)


def test_units_do_not_matter():
    """Metres or nanometres in one coordinate: a tiny variance is not a singular one."""
    cov_p, cov_q, mean_p, mean_q = covariance(3, 5), covariance(3, 6), f64(1, 2, 3), f64(0, 2.5, 3)
    wanted = kl_multivariate(mean_p, cov_p, mean_q, cov_q).item()
    for unit in (1e-9, 1e-150, 1e12):
        units = f64(1, unit, 1)
        scaled = [cov * units[:, None] * units for cov in (cov_p, cov_q)]
        found = kl_multivariate(mean_p * units, scaled[0], mean_q * units, scaled[1]).item()
        assert found == pytest.approx(wanted, rel=1e-9)


def test_diagonal_is_a_special_case():
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        mean_p, mean_q = torch.randn(2, 4, generator=g, dtype=torch.float64)
        var_p, var_q = torch.rand(2, 4, generator=g, dtype=torch.float64)
        found = kl_multivariate(mean_p, torch.diag(var_p), mean_q, torch.diag(var_q)).item()
        assert found == pytest.approx(kl_diagonal(mean_p, var_p, mean_q, var_q).item(), rel=1e-12)
    one = kl_multivariate(f64(1), f64(4)[None], f64(-0.5), f64(2.25)[None]).item()
    assert one == pytest.approx(kl_normal(1, 4, -0.5, 2.25).item())
    assert np.isfinite(one)
