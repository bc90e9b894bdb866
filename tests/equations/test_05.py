"""Every tagged equation of lesson 05, checked by a route that does not use the formula itself."""

import math

import pytest
import scipy.stats
import torch

from course_lib.diffusion import (
    Schedule,
    log_snr,
    path_log_prob,
    q_chain,
    q_mean_variance,
    q_sample,
    q_step,
    unrolled_weights,
)
from course_lib.foundations import Mixture
from course_lib.pixels import from_uint8, to_uint8

N = 400_000  # draws; tolerances below are 4 standard errors (a two-sided miss once in 16,000 runs; seeds are fixed)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def betas():
    """Any betas will do: 60 of them, far from every named schedule."""
    return 0.02 + 0.3 * torch.rand(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_eq_5_1():
    """The stretch is the one straight line through (0, -1) and (255, 1), and it can be undone exactly."""
    every = torch.arange(256, dtype=torch.uint8)
    line = torch.linspace(-1, 1, 256, dtype=torch.float64)
    assert torch.allclose(from_uint8(every).double(), line, atol=1e-7)
    assert from_uint8(every)[[0, 255]].tolist() == [-1.0, 1.0]
    assert torch.equal(to_uint8(from_uint8(every)), every)


def test_eq_5_2(betas):
    """The step is affine in image and noise: probe both weights, then compare q(x_t | x_{t-1}) with draws."""
    schedule = Schedule(betas)
    for t in (0, 7, 59):
        one, nought = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        image_weight = q_step(schedule, one, t, nought).item()
        noise_weight = q_step(schedule, nought, t, one).item()
        assert noise_weight**2 == pytest.approx(betas[t].item(), rel=1e-12)
        assert image_weight**2 == pytest.approx(1 - betas[t].item(), rel=1e-12)
        assert image_weight > 0
        assert noise_weight > 0
    x_t = q_step(schedule, torch.full((N, 1), 0.7, dtype=torch.float64), 9, normal(N, 1, seed=2))
    std = betas[9].sqrt().item()
    assert abs(x_t.mean().item() - math.sqrt(1 - betas[9]) * 0.7) < 4 * std / math.sqrt(N)
    assert abs(x_t.var().item() - std**2) < 4 * std**2 * math.sqrt(2 / N)


def test_eq_5_3(betas):
    """Var[x_t] = (1 - β) Var[x_{t-1}] + β, for images of any variance."""
    schedule = Schedule(betas)
    for k, variance in enumerate((0.0, 0.3, 1.0, 4.0)):
        x_prev = math.sqrt(variance) * normal(N, 1, seed=10 + k)
        found = q_step(schedule, x_prev, 30, normal(N, 1, seed=20 + k)).var().item()
        wanted = (1 - betas[30].item()) * variance + betas[30].item()
        assert abs(found - wanted) < 5 * wanted * math.sqrt(2 / N)
        if variance == 1.0:
            assert wanted == pytest.approx(1)


def test_eq_5_4():
    """The sum of the steps' log-densities is the log-density of one joint Gaussian over the whole path."""
    betas = torch.tensor([0.1, 0.25, 0.4], dtype=torch.float64)
    schedule, x_0 = unfinished(betas), torch.tensor([[0.8]], dtype=torch.float64)
    path = torch.stack(list(q_chain(schedule, x_0, torch.Generator().manual_seed(3))))
    alphas = (1 - betas).tolist()
    mean, covariance = [], torch.zeros(3, 3, dtype=torch.float64)
    for i in range(3):
        mean.append(math.sqrt(math.prod(alphas[: i + 1])) * 0.8)
        for j in range(i, 3):  # Cov[x_i, x_j] = √(α_{i+1}…α_j) Var[x_i | x_0]
            kept = math.prod(alphas[: i + 1])
            covariance[i, j] = covariance[j, i] = math.sqrt(math.prod(alphas[i + 1 : j + 1])) * (1 - kept)
    joint = scipy.stats.multivariate_normal(mean, covariance.numpy()).logpdf(path.flatten().numpy())
    assert path_log_prob(schedule, x_0, path).item() == pytest.approx(joint, rel=1e-9)


def test_eq_5_5(betas):
    """Probing the chain with one noise at a time gives the weights of the unrolled sum, for t up to 6."""
    schedule = Schedule(betas)
    for t in range(6):
        image_weight, noise_weights = unrolled_weights(schedule, t)
        probes = torch.eye(t + 2, dtype=torch.float64)  # one column for x_0, then one for each noise
        x = probes[:, :1]
        for s in range(t + 1):
            x = q_step(schedule, x, s, probes[:, s + 1 : s + 2])
        assert torch.allclose(x.flatten(), torch.cat([image_weight[None], noise_weights]), atol=1e-12)


def test_eq_5_6():
    """Squared weights sum to 1, whatever the betas."""
    for seed in range(20):
        betas = torch.rand(40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.98 + 0.01
        for t in (0, 1, 17, 39):
            image_weight, noise_weights = unrolled_weights(Schedule(betas), t)
            assert (image_weight**2 + (noise_weights**2).sum()).item() == pytest.approx(1, abs=1e-12)
    weights = torch.cat([image_weight[None], noise_weights])
    assert abs(weights.sum().item() - 1) > 0.01  # the weights themselves do not


def test_eq_5_7(betas):
    """One jump has the distribution of the chain: weights by probing, then a Kolmogorov-Smirnov test on draws."""
    schedule = Schedule(betas)
    one, nought = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for t in (0, 3, 20, 59):
        image_weight, noise_weights = unrolled_weights(schedule, t)  # derived from the chain in test_eq_5_5
        assert q_sample(schedule, one, t, nought).item() == pytest.approx(image_weight.item(), rel=1e-12)
        noise_std = noise_weights.square().sum().sqrt().item()
        assert q_sample(schedule, nought, t, one).item() == pytest.approx(noise_std, rel=1e-12)
        mean, variance, log_variance = q_mean_variance(schedule, one, t)
        assert mean.item() == pytest.approx(image_weight.item())
        assert variance.item() == pytest.approx(noise_std**2)
        assert log_variance.exp().item() == pytest.approx(noise_std**2)
    x_0 = torch.full((20_000, 1), 0.5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(4)
    *_, walked = (x for _, x in zip(range(5), q_chain(schedule, x_0, generator), strict=False))
    jumped = q_sample(schedule, x_0, 4, normal(20_000, 1, seed=5))
    assert scipy.stats.ks_2samp(walked.flatten().numpy(), jumped.flatten().numpy()).pvalue > 0.01


def test_eq_5_8():
    """The noised mixture's density is the convolution of the shrunk density with the noise, done on a grid."""
    mixture = Mixture(torch.tensor([0.2, 0.5, 0.3]), torch.tensor([-1.0, 0.4, 2.0]), torch.tensor([0.05, 0.2, 0.01]))
    for alpha_bar in (0.9, 0.5, 0.05):
        x_0 = torch.linspace(-4, 5, 9001, dtype=torch.float64)
        x_t = torch.tensor([-1.3, 0.0, 0.6, 2.2], dtype=torch.float64)
        kernel = torch.distributions.Normal(math.sqrt(alpha_bar) * x_0, math.sqrt(1 - alpha_bar))
        by_grid = torch.trapezoid(mixture.density(x_0) * kernel.log_prob(x_t[:, None]).exp(), x_0)
        assert torch.allclose(mixture.noised(alpha_bar).density(x_t), by_grid, rtol=1e-6)


def test_eq_5_9():
    """The pixels' standard deviation after noising, measured on pixels of another variance and mean than 0 and 1."""
    schedule = Schedule.linear(1000)
    x_0 = 0.6 * normal(N, 1, seed=6) - 0.4
    for t in (50, 260, 700):
        a = schedule.alpha_bars[t].item()
        found = q_sample(schedule, x_0, t, normal(N, 1, seed=t)).std().item()
        wanted = math.sqrt(a * x_0.var().item() + 1 - a)
        assert abs(found - wanted) < 4 * wanted / math.sqrt(2 * N)


def test_eq_5_10():
    """exp(log-SNR) is the measured ratio of the two variances in x_t."""
    schedule = Schedule.cosine(50)
    image, noise = normal(N, 1, seed=7), normal(N, 1, seed=8)
    for t in (0, 20, 49):
        signal = q_sample(schedule, image, t, torch.zeros_like(noise)).var()
        rest = q_sample(schedule, torch.zeros_like(image), t, noise).var()
        measured = torch.log(signal / rest) - torch.log(image.var() / noise.var())  # the draws' own variances out
        assert schedule.log_snr[t].item() == pytest.approx(measured.item(), abs=1e-9)
        assert log_snr(schedule.alpha_bars)[t].item() == schedule.log_snr[t].item()


def test_eq_5_11():
    """Straight from 1e-4 to 0.02, times 1000/T, at every t; refused where the last beta would reach 1."""
    for T in (21, 100, 200, 500, 1000, 4000):
        wanted = [1000 / T * (1e-4 + (t - 1) / (T - 1) * (0.02 - 1e-4)) for t in range(1, T + 1)]
        assert torch.allclose(Schedule.linear(T).betas, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12)
    for T in (1, 10, 20):
        with pytest.raises(ValueError, match="too small for a linear schedule"):
            Schedule.linear(T)


def test_eq_5_12():
    """ᾱ is f(t)/f(0) until the cap bites, with cos² through the half-angle formula; one beta is capped."""
    for T, s in ((1000, 0.008), (50, 0.008), (300, 0.02)):
        schedule = Schedule.cosine(T, s)

        def f(t, T=T, s=s):
            return (1 + math.cos(math.pi * (t / T + s) / (1 + s))) / 2

        alpha_bars = torch.tensor([f(t) / f(0) for t in range(1, T)], dtype=torch.float64)
        assert torch.allclose(schedule.alpha_bars[:-1], alpha_bars, rtol=1e-7)
        assert schedule.betas[-1].item() == 0.999
        assert (schedule.betas[:-1] < 0.999).all()


def test_eq_5_13():
    """Averaging k by k noisy copies of a pixel divides the noise variance by k², which is 2 ln k nats."""
    schedule, k, t = Schedule.linear(1000), 4, 500
    small = normal(1, 1, 150, 150, seed=9)
    large = small.repeat_interleave(k, dim=2).repeat_interleave(k, dim=3)
    noisy = q_sample(schedule, large, t, normal(*large.shape, seed=10))
    averaged = torch.nn.functional.avg_pool2d(noisy, k)
    a = schedule.alpha_bars[t].item()
    rest = averaged - math.sqrt(a) * small
    gained = math.log(a / rest.var().item()) - schedule.log_snr[t].item()
    assert abs(gained - 2 * math.log(k)) < 4 * math.sqrt(2 / small.numel())


def unfinished(betas):
    """A schedule too short to end in noise, without the warning that says so."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Schedule(betas)
