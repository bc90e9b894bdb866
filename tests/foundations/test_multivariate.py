"""Gaussians in d dimensions: marginals, conditionals and affine maps against densities, precisions and draws."""

import math

import pytest
import torch

from course_lib.foundations import affine_multivariate, conditional_normal, marginal_normal, principal_axes


def gaussian(d, seed, rank=None):
    """A random mean and covariance, float64."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, rank or d, generator=generator, dtype=torch.float64)
    return torch.randn(d, generator=generator, dtype=torch.float64), root @ root.T


def log_density(x, mean, covariance):
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)


@pytest.mark.parametrize("seed", range(8))
def test_joint_is_marginal_times_conditional(seed):
    mean, covariance = gaussian(4, seed)
    generator = torch.Generator().manual_seed(seed + 100)
    for given in ([0], [3, 1], [2, 0, 1]):
        x = torch.randn(4, generator=generator, dtype=torch.float64)
        rest = [i for i in range(4) if i not in given]
        whole = log_density(x, mean, covariance)
        part = log_density(x[given], *marginal_normal(mean, covariance, given))
        other = log_density(x[rest], *conditional_normal(mean, covariance, given, x[given]))
        assert whole.item() == pytest.approx((part + other).item(), rel=1e-8, abs=1e-8)


def test_conditional_from_the_precision_matrix():
    """Λ = Σ⁻¹: the conditional covariance is Λ_aa⁻¹ (Bishop 2006, eq. 2.73)."""
    mean, covariance = gaussian(5, 3)
    precision = torch.linalg.inv(covariance)
    found_mean, found = conditional_normal(mean, covariance, [0, 2], torch.tensor([1.0, -1.0]))
    rest, given = [1, 3, 4], [0, 2]
    wanted = torch.linalg.inv(precision[rest][:, rest])
    assert torch.allclose(found, wanted, rtol=1e-7, atol=1e-9)
    shift = torch.tensor([1.0, -1.0], dtype=torch.float64) - mean[given]
    assert torch.allclose(found_mean, mean[rest] - wanted @ precision[rest][:, given] @ shift, atol=1e-7)


def test_two_dimensions_by_hand():
    mean, covariance = torch.tensor([1.0, -1.0]), torch.tensor([[4.0, 1.2], [1.2, 1.0]])
    found = conditional_normal(mean, covariance, [1], torch.tensor([0.5]))
    assert found[0].item() == pytest.approx(1 + 1.2 * 1.5, abs=1e-6)
    assert found[1].item() == pytest.approx(4 - 1.44, abs=1e-6)
    assert marginal_normal(mean, covariance, [1, 0])[1].tolist() == [
        pytest.approx([1, 1.2]),
        pytest.approx([1.2, 4]),
    ]


def test_perfect_correlation():
    """y = 2x + 1: knowing x leaves nothing open, and no variance of -1e-17; a redundant second sensor is harmless."""
    mean, covariance = torch.tensor([0.3, 1.6]), torch.tensor([[0.7, 1.4], [1.4, 2.8]])
    y, variance = conditional_normal(mean, covariance, [0], torch.tensor([1.1]))
    assert y.item() == pytest.approx(3.2, abs=1e-6)
    assert variance.item() == pytest.approx(0, abs=1e-6)
    exact = torch.tensor([[1.0, 2.0], [2.0, 4.0]])
    assert conditional_normal(torch.zeros(2), exact, [0], torch.ones(1))[1].item() == 0
    twice = torch.tensor([[1.0, 1.0, 0.5], [1.0, 1.0, 0.5], [0.5, 0.5, 2.0]])
    left, variance = conditional_normal(torch.zeros(3), twice, [0, 1], torch.tensor([2.0, 2.0]))
    assert left.item() == pytest.approx(1)
    assert variance.item() == pytest.approx(1.75)
    with pytest.raises(ValueError, match="impossible"):
        conditional_normal(torch.zeros(3), twice, [0, 1], torch.tensor([2.0, 1.0]))


def test_affine_map_by_draws():
    mean, covariance = gaussian(3, 5)
    matrix, shift = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]]), torch.tensor([3.0, -1.0])
    new_mean, new_covariance = affine_multivariate(mean, covariance, matrix, shift)
    n = 200_000
    noise = torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = mean + noise @ torch.linalg.cholesky(covariance).T
    y = x @ matrix.double().T + shift.double()
    variances = new_covariance.diagonal()
    assert ((y.mean(0) - new_mean).abs() < 4 * (variances / n).sqrt()).all()
    errors = ((new_covariance**2 + variances[:, None] * variances) / n).sqrt()  # of a Gaussian's sample covariance
    assert ((torch.cov(y.T) - new_covariance).abs() < 4 * errors).all()


def test_affine_map_to_more_dimensions_stays_a_covariance():
    _, covariance = gaussian(2, 6)
    mean, wide = affine_multivariate(
        torch.zeros(2), covariance, torch.tensor([[1.0, 0], [0, 1], [1, 1]]), torch.ones(3)
    )
    assert mean.tolist() == [1, 1, 1]
    assert len(principal_axes(wide).variances) == 2


@pytest.mark.parametrize(("d", "rank"), [(3, 3), (4, 2), (5, 1)])
def test_axes_rebuild_the_covariance(d, rank):
    _, covariance = gaussian(d, 7, rank)
    units = torch.logspace(-6, 6, d, dtype=torch.float64)
    covariance = covariance * units[:, None] * units  # millimetres beside kilometres
    axes = principal_axes(covariance)
    assert axes.root.shape == (d, rank)
    limit = covariance.diagonal().sqrt()
    assert ((axes.root @ axes.root.T - covariance).abs() <= 1e-12 * limit[:, None] * limit).all()
    inside, missed = axes.coordinates(axes.root)
    assert torch.allclose(inside, torch.eye(rank, dtype=torch.float64), atol=1e-9)
    assert missed.abs().max() < 1e-12


def test_axes_of_a_float32_covariance():
    """Rounding in float32 leaves 1e-8 of a variance that is truly 0: it counts as 0."""
    root = torch.randn(4, 2, generator=torch.Generator().manual_seed(8))
    assert len(principal_axes(root @ root.T).variances) == 2
    assert len(principal_axes(torch.zeros(3, 3)).variances) == 0
    assert principal_axes(torch.diag(torch.tensor([4.0, 0.0]))).root.flatten().abs().tolist() == [2.0, 0.0]
    assert math.isclose(principal_axes(torch.eye(2) * 1e-30).root.norm().item(), math.sqrt(2) * 1e-15, rel_tol=1e-6)
