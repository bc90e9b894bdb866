"""The VAE in which everything is known: the bound against the evidence, both by other routes."""

import math

import pytest
import torch

from course_lib.foundations import kl_multivariate
from course_lib.models.linear_vae import LinearVAE

ONE = LinearVAE(torch.tensor([[1.5]]), 0.0, 0.25)
X = torch.tensor([[1.2]], dtype=torch.float64)


def several(seed):
    g = torch.Generator().manual_seed(seed)
    model = LinearVAE(torch.randn(4, 2, generator=g), torch.randn(4, generator=g), 0.3)
    return model, model.sample(6, g), g


def test_the_numbers_of_the_lesson():
    """Row C05: -1.66508 on both sides at the true posterior; -7.606 where q is the prior."""
    mean, covariance = ONE.posterior(X)
    assert ONE.log_evidence(X).item() == pytest.approx(-1.66508, abs=5e-6)
    assert ONE.elbo(X, mean, covariance).item() == pytest.approx(-1.66508, abs=5e-6)
    assert ONE.elbo(X, torch.zeros(1, 1), torch.eye(1)).item() == pytest.approx(-7.606, abs=5e-4)
    assert (mean.item(), covariance.item()) == (pytest.approx(0.72), pytest.approx(0.1))


@pytest.mark.parametrize("seed", range(5))
def test_tight_at_the_posterior_and_below_elsewhere(seed):
    model, x, g = several(seed)
    evidence, (mean, covariance) = model.log_evidence(x), model.posterior(x)
    torch.testing.assert_close(model.elbo(x, mean, covariance), evidence, rtol=0, atol=1e-6)
    root = torch.randn(2, 2, generator=g, dtype=torch.float64)
    for other_mean, other in ((mean + 0.1, covariance), (mean, 1.2 * covariance), (mean + 1, root @ root.T)):
        bound = model.elbo(x, other_mean, other)
        assert (bound < evidence - 1e-4).all()
        gaps = torch.stack([kl_multivariate(a, other, b, covariance) for a, b in zip(other_mean, mean, strict=True)])
        torch.testing.assert_close(bound + gaps, evidence, rtol=0, atol=1e-6)


def test_evidence_by_integration():
    """∫ N(z; 0, 1) N(x; 1.5 z, 0.25) dz on a fine grid."""
    z = torch.linspace(-12, 12, 48_001, dtype=torch.float64)
    normal = torch.distributions.Normal
    joint = normal(0.0, 1.0).log_prob(z) + normal(1.5 * z, 0.5).log_prob(torch.tensor(1.2, dtype=torch.float64))
    assert ONE.log_evidence(X).item() == pytest.approx(math.log(joint.exp().sum().item() * 24 / 48_000), abs=1e-9)


def test_reconstruction_by_monte_carlo():
    model, x, g = several(7)
    mean, covariance = torch.randn(6, 2, generator=g).double(), torch.tensor([[0.5, 0.2], [0.2, 0.4]]).double()
    root = torch.linalg.cholesky(covariance)
    z = mean + torch.randn(100_000, 1, 2, generator=g, dtype=torch.float64) @ root.T
    values = -0.5 * ((x - model.bias - z @ model.weight.T).square().sum(2) / 0.3 + 4 * math.log(2 * math.pi * 0.3))
    error = 4 * values.std(0) / 100_000**0.5
    assert ((model.terms(x, mean, covariance)[0] - values.mean(0)).abs() < error).all()


def test_samples_have_the_covariance():
    model, _, g = several(3)
    x = model.sample(200_000, g)
    torch.testing.assert_close(torch.cov(x.T), model.covariance, rtol=0.03, atol=0.03)
    torch.testing.assert_close(x.mean(0), model.bias, rtol=0, atol=0.03)


def test_one_value_one_latent_one_example():
    model = LinearVAE(torch.tensor([[2.0]]), torch.tensor([1.0]))
    assert model.sample(1).shape == (1, 1)
    assert model.elbo(X, *model.posterior(X)).shape == (1,)
