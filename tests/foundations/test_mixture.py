"""Exact mixtures: densities integrate to 1, moments match draws, noise widens as it should."""

import pytest
import scipy.integrate
import torch

from course_lib.foundations import Mixture

MIX = Mixture(torch.tensor([0.2, 0.5, 0.3]), torch.tensor([-1.0, 0.4, 2.0]), torch.tensor([0.05, 0.2, 0.01]))


def density(x):
    return MIX.density(torch.tensor([x], dtype=torch.float64)).item()


def test_density_integrates_to_one_and_to_the_cdf():
    assert scipy.integrate.quad(density, -6, 6, limit=200, points=[-1, 0.4, 2])[0] == pytest.approx(1, abs=1e-8)
    part = scipy.integrate.quad(density, -6, 0.7, limit=200, points=[-1, 0.4])[0]
    assert MIX.cdf(torch.tensor([0.7], dtype=torch.float64)).item() == pytest.approx(part, abs=1e-7)


def test_moments():
    mean = scipy.integrate.quad(lambda x: x * density(x), -6, 6, limit=200, points=[-1, 0.4, 2])[0]
    square = scipy.integrate.quad(lambda x: x * x * density(x), -6, 6, limit=200, points=[-1, 0.4, 2])[0]
    assert MIX.mean == pytest.approx(mean, abs=1e-8)
    assert MIX.variance == pytest.approx(square - mean**2, abs=1e-7)
    draws = MIX.sample(200_000, torch.Generator().manual_seed(0))
    assert abs(draws.mean().item() - mean) < 4 * (MIX.variance / 200_000) ** 0.5


def test_noised():
    assert MIX.noised(1.0).variance == pytest.approx(MIX.variance)
    assert MIX.noised(0.0).variance == pytest.approx(1)
    assert MIX.noised(0.3).mean == pytest.approx(0.3**0.5 * MIX.mean)
    assert MIX.noised(0.3).variance == pytest.approx(0.3 * MIX.variance + 0.7)


def test_log_density_reaches_further_than_the_density():
    x = torch.linspace(-4, 5, 91)
    assert torch.allclose(MIX.log_density(x).exp(), MIX.density(x), rtol=1e-9)
    far = torch.tensor([[60.0]])
    assert MIX.density(far).item() == 0
    nearest = torch.distributions.Normal(torch.tensor(0.4, dtype=torch.float64), 0.2**0.5)  # the widest one wins there
    wanted = (nearest.log_prob(far.double()) + torch.log(torch.tensor(0.5, dtype=torch.float64))).item()
    assert MIX.log_density(far).item() == pytest.approx(wanted, rel=1e-5)
