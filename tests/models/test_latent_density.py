"""The mixture fitted to latents: EM climbs, finds what it was made from, and draws from what it says."""

from itertools import pairwise

import pytest
import torch
from scipy.stats import multivariate_normal

from course_lib.models.latent_density import GaussianMixture, fit_mixture

TRUE = GaussianMixture(
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([[-3.0, 0.0], [2.0, 1.0]]).double(),
    torch.tensor([[[1.0, 0.0], [0.8, 0.3]], [[0.5, 0.0], [-0.2, 0.6]]]).double(),
)


def test_log_density_is_scipys():
    z = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)) * 3
    theirs = sum(
        w * multivariate_normal.pdf(z.double().numpy(), mean.numpy(), (root @ root.T).numpy())
        for w, mean, root in zip(TRUE.weights.tolist(), TRUE.means, TRUE.roots, strict=True)
    )
    torch.testing.assert_close(TRUE.log_density(z).exp(), torch.as_tensor(theirs), rtol=1e-8, atol=0)


def test_finds_what_it_was_made_from():
    z = TRUE.sample(8_000, torch.Generator().manual_seed(1))
    found = fit_mixture(z, 2)
    order = found.means[:, 0].argsort()
    torch.testing.assert_close(found.weights[order], TRUE.weights, rtol=0, atol=0.03)
    torch.testing.assert_close(found.means[order], TRUE.means, rtol=0, atol=0.1)
    covariances = found.roots @ found.roots.mT
    torch.testing.assert_close(covariances[order], TRUE.roots @ TRUE.roots.mT, rtol=0, atol=0.1)


def test_each_round_climbs():
    z = TRUE.sample(3_000, torch.Generator().manual_seed(2))
    at = [fit_mixture(z, 5, rounds=k, ridge=1e-9).log_density(z).mean().item() for k in range(6)]
    assert all(after >= before - 1e-9 for before, after in pairwise(at))
    assert at[-1] > at[0]


def test_one_component_is_mean_and_covariance():
    z = TRUE.sample(500, torch.Generator().manual_seed(3)).double()
    found = fit_mixture(z, 1, rounds=1, ridge=0)
    torch.testing.assert_close(found.means[0], z.mean(0))
    torch.testing.assert_close(found.roots[0] @ found.roots[0].T, torch.cov(z.T, correction=0))


def test_samples_have_its_moments():
    z = TRUE.sample(100_000, torch.Generator().manual_seed(4)).double()
    mean = TRUE.weights @ TRUE.means
    assert ((z.mean(0) - mean).abs() < 4 * z.std(0) / 100_000**0.5).all()
    share = (z[:, 0] < -0.5).double().mean().item()
    assert share == pytest.approx(0.3, abs=0.01)
    assert torch.equal(
        TRUE.sample(5, torch.Generator().manual_seed(0)), TRUE.sample(5, torch.Generator().manual_seed(0))
    )


def test_the_same_fit_twice_and_points_in_one_spot():
    z = TRUE.sample(300, torch.Generator().manual_seed(5))
    assert torch.equal(fit_mixture(z, 3).means, fit_mixture(z, 3).means)
    same = fit_mixture(torch.ones(50, 2), 3)  # EM must not divide by a component that claims nothing
    assert torch.isfinite(same.sample(10)).all()
    assert torch.isfinite(same.log_density(torch.ones(1, 2))).all()
