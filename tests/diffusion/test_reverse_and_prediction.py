"""The posterior in its two forms against Bayes' rule, and the three predictions against each other."""

import math

import pytest
import torch

from course_lib.diffusion import (
    Schedule,
    convert,
    ddim_step,
    ddpm_step,
    posterior,
    posterior_mean_from_noise,
    q_sample,
    reverse_variance,
    x_start_and_noise,
)

S = Schedule.linear(1000)
KINDS = ("noise", "x_start", "v")
X_START, NOISE = torch.randn((2, 5, 2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("t", [1, 10, 500, 999])
def test_posterior_is_the_product_of_two_gaussians(t):
    """q(x_{t-1} | x_t, x_0) ∝ q(x_t | x_{t-1}) q(x_{t-1} | x_0): precisions add, means are weighted by them."""
    x_t = q_sample(S, X_START, t, NOISE)
    alpha, before = float(S.alphas[t]), float(S.alpha_bars[t - 1])
    likelihood_precision, prior_precision = alpha / (1 - alpha), 1 / (1 - before)
    precision = likelihood_precision + prior_precision
    wanted = (likelihood_precision * x_t / math.sqrt(alpha) + prior_precision * math.sqrt(before) * X_START) / precision
    mean, variance = posterior(S, X_START, x_t, t)
    torch.testing.assert_close(mean, wanted, rtol=0, atol=1e-13)
    assert float(variance) == pytest.approx(1 / precision, rel=1e-11)
    torch.testing.assert_close(posterior_mean_from_noise(S, x_t, t, NOISE), mean, rtol=0, atol=1e-13)
    ddim, _ = ddim_step(S, x_t, NOISE, t, t - 1, 0 * NOISE, eta=1)
    torch.testing.assert_close(ddim, mean, rtol=0, atol=1e-13)


def test_posterior_is_bayes_rule_on_a_grid():
    schedule, t, x_start, x_t = Schedule.cosine(40), 17, 0.6, -0.4
    grid = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    alpha, before = float(schedule.alphas[t]), float(schedule.alpha_bars[t - 1])
    log_likelihood = -((x_t - math.sqrt(alpha) * grid) ** 2) / (2 * (1 - alpha))
    log_prior = -((grid - math.sqrt(before) * x_start) ** 2) / (2 * (1 - before))
    density = torch.softmax(log_likelihood + log_prior, 0)
    mean = float((density * grid).sum())
    variance = float((density * (grid - mean) ** 2).sum())
    ours = posterior(schedule, torch.tensor([[x_start]]).double(), torch.tensor([[x_t]]).double(), t)
    assert float(ours[0]) == pytest.approx(mean, abs=1e-6)
    assert float(ours[1]) == pytest.approx(variance, abs=1e-6)


def test_at_the_first_index_the_posterior_is_x_start():
    mean, variance = posterior(S, X_START, NOISE, 0)
    torch.testing.assert_close(mean, X_START, rtol=0, atol=1e-12)
    assert float(variance) == 0


def test_posterior_variance_is_published_share_of_beta():
    share = S.posterior_variance / S.betas
    wanted = {0: 0.0, 1: 0.455, 10: 0.864, 500: 0.9991, 999: 1.0}
    assert {t: round(float(share[t]), 4 if t == 500 else 3) for t in wanted} == wanted


def test_reverse_variance():
    assert torch.equal(reverse_variance(S, "large"), S.betas)
    small = reverse_variance(S, "small")
    assert torch.equal(small[1:], S.posterior_variance[1:])
    assert small[0] == S.posterior_variance[1] > 0


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("schedule", [S, Schedule.cosine(1000), Schedule.scaled_linear(1000)], ids=lambda s: s.name)
def test_conversions_name_the_same_image(schedule, source, target):
    t = torch.tensor([0, 3, 400, 998, 999])
    bar = schedule.alpha_bars[t].reshape(-1, 1, 1)
    x_t = bar.sqrt() * X_START + (1 - bar).sqrt() * NOISE
    values = {"noise": NOISE, "x_start": X_START, "v": bar.sqrt() * NOISE - (1 - bar).sqrt() * X_START}
    torch.testing.assert_close(
        convert(schedule, x_t, t, values[source], source, target), values[target], atol=1e-7, rtol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_clipping_changes_both_readings(kind):
    t = torch.tensor([0, 3, 400, 998, 999])
    x_t = q_sample(S, X_START, t, NOISE)
    x_start, noise = x_start_and_noise(S, x_t, t, convert(S, x_t, t, NOISE, "noise", kind), kind)
    torch.testing.assert_close(x_start, X_START, atol=1e-9, rtol=0)
    torch.testing.assert_close(noise, NOISE, atol=1e-9, rtol=0)
    clipped, noise = x_start_and_noise(S, x_t, t, convert(S, x_t, t, NOISE, "noise", kind), kind, clip=(-0.5, 0.25))
    torch.testing.assert_close(clipped, X_START.clamp(-0.5, 0.25), atol=1e-9, rtol=0)
    torch.testing.assert_close(q_sample(S, clipped, t, noise), x_t, atol=1e-12, rtol=0)


def test_clipping_tames_an_error_at_the_last_cosine_step():
    """A noise prediction that is off by .05 (std): without clipping the next mean has std 1.58, with it .032."""
    cosine, n = Schedule.cosine(1000), 40_000
    x_t, error = torch.randn(2, n, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prediction = x_t + 0.05 * error  # x_t is all noise: the exact answer, and the error
    mean_without, _ = ddpm_step(cosine, x_t, prediction, 999, 998, 0 * x_t)
    mean_with, _ = ddpm_step(cosine, x_t, prediction, 999, 998, 0 * x_t, clip=(-1, 1))
    assert float(mean_without.std()) == pytest.approx(1.58, rel=0.02)
    assert float(mean_with.std()) == pytest.approx(0.032, rel=0.02)
