"""Fits of one Gaussian: both divergences by scipy's quadrature, their minima by brute force over a grid."""

import math

import pytest
import scipy.integrate
import torch

from course_lib.foundations import (
    Mixture,
    fit_forward,
    fit_likelihood,
    fit_reverse,
    forward_kl,
    kl_normal,
    mean_log_likelihood,
    reverse_kl,
)

HUMPS = Mixture(torch.tensor([0.5, 0.5]), torch.tensor([-2.0, 2.0]), torch.tensor([0.25, 0.25]))
UNEVEN = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([-1.0, 1.5]), torch.tensor([0.3, 0.8]))
MEANS, STDS = torch.linspace(-3, 3, 31, dtype=torch.float64), torch.linspace(0.3, 3, 28, dtype=torch.float64)


def by_quadrature(log_p, log_q):
    """∫ p (ln p - ln q) with scipy, over pieces that each hold one hump."""
    total = 0.0
    for low, high in ((-16, -4), (-4, -1), (-1, 1), (1, 4), (4, 16)):
        total += scipy.integrate.quad(lambda x: math.exp(log_p(x)) * (log_p(x) - log_q(x)), low, high)[0]
    return total


@pytest.mark.parametrize("data", [HUMPS, UNEVEN])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 2.0), (-2.0, 0.5), (1.0, 1.3)])
def test_both_divergences(data, mean, std):
    normal = torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), std)

    def log_data(x):
        return data.log_density(torch.tensor(x, dtype=torch.float64)).item()

    def log_model(x):
        return normal.log_prob(torch.tensor(x, dtype=torch.float64)).item()

    assert forward_kl(data, mean, std**2).item() == pytest.approx(by_quadrature(log_data, log_model), abs=1e-6)
    assert reverse_kl(data, mean, std**2).item() == pytest.approx(by_quadrature(log_model, log_data), abs=1e-6)


def test_one_hump_is_the_closed_form():
    one = Mixture(torch.ones(1), torch.tensor([1.0]), torch.tensor([4.0]))
    assert forward_kl(one, -0.5, 2.25).item() == pytest.approx(kl_normal(1, 4, -0.5, 2.25).item(), abs=1e-9)
    assert reverse_kl(one, -0.5, 2.25).item() == pytest.approx(kl_normal(-0.5, 2.25, 1, 4).item(), abs=1e-9)
    for mean, variance in (fit_forward(one), fit_reverse(one), fit_reverse(one, (-3.0, 0.1))):
        assert (mean.item(), variance.item()) == pytest.approx((1, 4), abs=1e-6)


def lowest(table):
    row, column = divmod(int(table.argmin()), table.shape[1])
    return MEANS[row].item(), STDS[column].item()


def test_forward_covers_reverse_chooses():
    """The curriculum's example: (0, 2.06) against (±2, .5)."""
    mean, variance = fit_forward(HUMPS)
    assert mean.item() == pytest.approx(0, abs=1e-12)
    assert variance.item() == pytest.approx(4.25)
    assert math.sqrt(variance) == pytest.approx(2.06, abs=2e-3)
    for start, wanted in ((None, -2), ((-1.5, 1.0), -2), ((1.5, 1.0), 2)):
        mean, variance = fit_reverse(HUMPS, start)
        assert mean.item() == pytest.approx(wanted, abs=2e-3)
        assert variance.sqrt().item() == pytest.approx(0.5, abs=2e-3)
        assert reverse_kl(HUMPS, mean, variance).item() == pytest.approx(math.log(2), abs=2e-3)  # half the data missed


def test_reverse_has_a_third_place_to_rest():
    """Between the humps lies a minimum that is worse than either: where a walk ends depends on where it starts."""
    mean, variance = fit_reverse(HUMPS, (0.0, 4.0))
    here = reverse_kl(HUMPS, mean, variance)
    assert mean.item() == pytest.approx(0, abs=1e-6)
    for d_mean, factor in ((0.1, 1), (-0.1, 1), (0, 1.1), (0, 0.9)):
        assert reverse_kl(HUMPS, mean + d_mean, variance * factor) > here
    assert here > reverse_kl(HUMPS, *fit_reverse(HUMPS)) + 1


@pytest.mark.parametrize("data", [HUMPS, UNEVEN])
def test_fits_are_the_lowest_points_of_a_grid(data):
    candidates = MEANS[:, None], STDS[None] ** 2
    forward, reverse = forward_kl(data, *candidates), reverse_kl(data, *candidates)
    assert forward.min() >= forward_kl(data, *fit_forward(data)) - 1e-12
    assert reverse.min() >= reverse_kl(data, *fit_reverse(data)) - 1e-12
    for table, (mean, variance) in ((forward, fit_forward(data)), (reverse, fit_reverse(data))):
        best_mean, best_std = lowest(table)
        assert abs(abs(best_mean) - abs(mean.item())) <= 0.2 + 1e-9
        assert abs(best_std - variance.sqrt().item()) <= 0.1 + 1e-9


def test_reverse_fit_in_other_units():
    for unit in (1e-4, 1e5):
        scaled = Mixture(UNEVEN.weights, UNEVEN.means * unit, UNEVEN.variances * unit**2)
        mean, variance = fit_reverse(scaled)
        wanted = fit_reverse(UNEVEN)
        assert mean.item() / unit == pytest.approx(wanted[0].item(), rel=1e-5)
        assert variance.item() / unit**2 == pytest.approx(wanted[1].item(), rel=1e-5)


def test_maximum_likelihood_is_forward_kl():
    """On one grid: the likeliest candidate is the one with the least forward KL, and not that of the reverse."""
    samples = HUMPS.sample(20_000, torch.Generator().manual_seed(0))
    candidates = MEANS[:, None], STDS[None] ** 2
    likeliest = lowest(-mean_log_likelihood(samples, *candidates))
    assert likeliest == lowest(forward_kl(HUMPS, *candidates))
    assert likeliest != lowest(reverse_kl(HUMPS, *candidates))
    mean, variance = fit_likelihood(samples)
    assert abs(mean.item()) < 4 * math.sqrt(4.25 / 20_000)
    assert mean_log_likelihood(samples, mean, variance) >= mean_log_likelihood(samples, *candidates).max()


def test_log_likelihood_by_torch():
    samples = UNEVEN.sample(500, torch.Generator().manual_seed(1))
    for mean, variance in ((0.3, 2.0), (-5.0, 0.1)):
        normal = torch.distributions.Normal(torch.tensor(mean, dtype=torch.float64), math.sqrt(variance))
        wanted = normal.log_prob(samples).mean().item()
        assert mean_log_likelihood(samples, mean, variance).item() == pytest.approx(wanted, rel=1e-9)
    mean, variance = fit_likelihood(samples)
    assert mean.item() == pytest.approx(samples.mean().item())
    assert variance.item() == pytest.approx(samples.var(correction=0).item())


def test_likelihood_and_forward_kl_differ_by_the_entropy_only():
    """With many samples, -log-likelihood - KL is the same number, the data's entropy, whatever the candidate."""
    samples = HUMPS.sample(100_000, torch.Generator().manual_seed(2))
    entropy = -HUMPS.log_density(samples)
    error = entropy.std().item() / math.sqrt(len(samples))
    for mean, variance in ((0.0, 4.25), (0.5, 3.0), (-1.0, 8.0)):
        cross = -torch.distributions.Normal(mean, math.sqrt(variance)).log_prob(samples)
        gap = -mean_log_likelihood(samples, mean, variance).item() - forward_kl(HUMPS, mean, variance).item()
        assert abs(gap - entropy.mean().item()) < 4 * (error + cross.std().item() / math.sqrt(len(samples)))
