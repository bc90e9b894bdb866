"""Every tagged equation of lesson 12, by a route that does not use it: grids, torch.distributions, other samplers."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence

from course_lib.diffusion import Schedule, bound_term, posterior, prior_kl, reverse_variance
from course_lib.models.conv_vae import ConvVAE, ConvVAEConfig, PointVAE
from course_lib.models.gaussian_latent import kl_to_standard
from course_lib.models.linear_vae import LinearVAE
from course_lib.models.vae import (
    bernoulli_log_likelihood,
    gaussian_log_likelihood,
    latent_walk,
    log_likelihood_bound,
    log_mean_exp,
    vae_loss,
)

SLOPE, NOISE, SEEN = 1.5, 0.25, 1.2
SEEN_TENSOR = torch.tensor(SEEN, dtype=torch.float64)
Z = torch.linspace(-12, 12, 60_001, dtype=torch.float64)
STEP = 24 / 60_000
PRIOR = Normal(torch.zeros(()).double(), torch.ones(()).double())
LIKELIHOOD = Normal(SLOPE * Z, NOISE**0.5).log_prob(SEEN_TENSOR)  # ln p(x|z) along the grid
LOG_P = Normal(0 * SEEN_TENSOR, (SLOPE**2 + NOISE) ** 0.5).log_prob(SEEN_TENSOR).item()
Q = Normal(
    torch.tensor(0.4, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
)  # some proposal that is not the posterior


def area(values):
    return (values * STEP).sum().item()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_eq_12_1():
    """The integral on a grid, and by draws from the prior, against the Gaussian that x is."""
    assert abs(math.log(area((LIKELIHOOD + PRIOR.log_prob(Z)).exp())) - LOG_P) < 1e-9
    z = torch.randn(200_000, generator=generator(), dtype=torch.float64)
    values = Normal(SLOPE * z, NOISE**0.5).log_prob(SEEN_TENSOR).exp()
    assert abs(values.mean().item() - math.exp(LOG_P)) < 4 * values.std().item() / 200_000**0.5
    assert abs(log_mean_exp(values.log()[:, None]).item() - math.log(values.mean())) < 1e-9


def test_eq_12_2():
    """The sum of the three logarithms is the same at every z; the posterior's density comes from a grid here."""
    joint = LIKELIHOOD + PRIOR.log_prob(Z)
    log_posterior = joint - math.log(area(joint.exp()))
    near = (Z > -2) & (Z < 3)
    mean = area(Z * log_posterior.exp())
    variance = area((Z - mean) ** 2 * log_posterior.exp())
    total = joint - Normal(mean, variance**0.5).log_prob(Z)  # that it is a Gaussian is known from lesson 01
    assert (total[near] - LOG_P).abs().max() < 1e-5


def test_eq_12_3():
    """Evidence = reconstruction - KL to the prior + KL to the posterior, all four integrated on a grid."""
    joint = LIKELIHOOD + PRIOR.log_prob(Z)
    log_posterior, q = joint - LOG_P, Q.log_prob(Z)
    reconstruction = area(q.exp() * LIKELIHOOD)
    rate, gap = area(q.exp() * (q - PRIOR.log_prob(Z))), area(q.exp() * (q - log_posterior))
    assert gap > 0.1
    assert abs(reconstruction - rate + gap - LOG_P) < 1e-9


def test_eq_12_4():
    """No proposal lifts the bound above ln p(x), and the posterior reaches it."""
    values = []
    for mean, std in itertools.product((-1.0, 0.0, 0.5, 0.72, 1.0), (0.05, 0.2, 0.1**0.5, 0.6, 1.0)):
        q = Normal(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
        log_q = q.log_prob(Z)
        values.append(area(log_q.exp() * LIKELIHOOD) - area(log_q.exp() * (log_q - PRIOR.log_prob(Z))))
    assert max(values) < LOG_P + 1e-6
    assert abs(max(values) - LOG_P) < 1e-6


def test_eq_12_5():
    """The story, drawn: x has the variance w² + s², and the covariance w with z."""
    z, noise = (torch.randn(400_000, generator=generator(k), dtype=torch.float64) for k in (1, 2))
    x = SLOPE * z + NOISE**0.5 * noise
    known = LinearVAE(torch.tensor([[SLOPE]]), 0.0, NOISE)
    assert abs(x.var().item() - known.covariance.item()) < 4 * 2.5 * (2 / 400_000) ** 0.5
    near = (x - SEEN).abs() < 0.02  # the posterior, by keeping the draws whose x came out as seen
    mean, variance = known.posterior(torch.tensor([[SEEN]]))
    kept = z[near]
    assert abs(kept.mean().item() - mean.item()) < 4 * kept.std().item() / len(kept) ** 0.5
    assert abs(kept.var().item() - variance.item()) < 4 * variance.item() * (2 / len(kept)) ** 0.5 + 1e-3


def test_eq_12_6():
    """The closed form against integrals over z, for several proposals; the library's matrices agree."""
    known, x = LinearVAE(torch.tensor([[SLOPE]]), 0.0, NOISE), torch.tensor([[SEEN]], dtype=torch.float64)
    for mean, variance in ((0.0, 1.0), (0.72, 0.1), (0.3, 0.5), (-1.0, 0.01)):
        q = Normal(
            torch.tensor(mean, dtype=torch.float64), torch.tensor(variance, dtype=torch.float64).sqrt()
        ).log_prob(Z)
        integral = area(q.exp() * (LIKELIHOOD + PRIOR.log_prob(Z) - q))
        formula = -0.5 * math.log(2 * math.pi * NOISE) - ((SEEN - SLOPE * mean) ** 2 + SLOPE**2 * variance) / (
            2 * NOISE
        )
        formula -= 0.5 * (mean**2 + variance - 1 - math.log(variance))
        assert abs(integral - formula) < 1e-7
        assert (
            abs(
                known.elbo(x, torch.tensor([[mean]]).double(), torch.tensor([[variance]], dtype=torch.float64)).item()
                - formula
            )
            < 1e-6
        )


def test_eq_12_7():
    """Sizes of real layers, for all small kernels, strides and paddings."""
    for size, kernel, stride, padding in itertools.product((5, 7, 14, 28), (1, 3, 4), (1, 2, 3), (0, 1)):
        if size + 2 * padding < kernel or padding >= kernel:
            continue
        x = torch.zeros(1, 1, size, size)
        down = nn.Conv2d(1, 1, kernel, stride, padding)(x).shape[-1]
        assert down == (size + 2 * padding - kernel) // stride + 1
        for extra in range(stride):
            up = nn.ConvTranspose2d(1, 1, kernel, stride, padding, output_padding=extra)(x).shape[-1]
            assert up == (size - 1) * stride - 2 * padding + kernel + extra


def test_eq_12_8():
    mean, log_var = torch.randn(6, 3, generator=generator()), torch.randn(6, 3, generator=generator(1))
    z = mean + (log_var / 2).exp() * torch.randn(20_000, 6, 3, generator=generator(2))
    logs = (Normal(mean, (log_var / 2).exp()).log_prob(z) - Normal(0.0, 1.0).log_prob(z)).sum(dim=2).double()
    error = 4 * logs.std(0) / 20_000**0.5
    assert ((kl_to_standard(mean, log_var) - logs.mean(0)).abs() < error).all()
    torch.testing.assert_close(
        kl_to_standard(mean, log_var), kl_divergence(Normal(mean, (log_var / 2).exp()), Normal(0.0, 1.0)).sum(1)
    )


def test_eq_12_9():
    """The draw has the right mean and spread; its gradient is that of the average, computed on a grid."""
    mean, log_var = torch.tensor(0.3, requires_grad=True), torch.tensor(-1.0, requires_grad=True)
    noise = torch.randn(200_000, generator=generator())
    z = mean + torch.exp(0.5 * log_var) * noise
    slopes = torch.autograd.grad(z.sin().mean(), [mean, log_var])
    grid, h = torch.linspace(-8, 8, 40_001, dtype=torch.float64), 1e-4

    def average(m, v):
        return (grid.sin() * Normal(m, math.exp(v / 2)).log_prob(grid).exp()).sum().item() * 16 / 40_000

    exact = (average(0.3 + h, -1.0) - average(0.3 - h, -1.0), average(0.3, -1.0 + h) - average(0.3, -1.0 - h))
    for slope, change in zip(slopes, exact, strict=True):
        assert abs(slope.item() - change / (2 * h)) < 4 / 200_000**0.5


def test_eq_12_10():
    """Against torch's Gaussian with a full covariance matrix."""
    mean, x = (
        torch.randn(4, 2, 3, generator=generator()).double(),
        torch.randn(4, 2, 3, generator=generator(1)).double(),
    )
    for variance in (0.05, 1.0, 3.0):
        theirs = MultivariateNormal(mean.flatten(1), variance * torch.eye(6).double()).log_prob(x.flatten(1))
        torch.testing.assert_close(gaussian_log_likelihood(mean, x, variance).double(), theirs, rtol=1e-5, atol=1e-4)


def test_eq_12_11():
    """All pictures of eight pixels: their probabilities sum to 1, and each is a product of coins."""
    logits = torch.randn(1, 8, generator=generator()).double()
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8))).double()
    found = bernoulli_log_likelihood(logits.expand(256, 8), every).double()
    assert abs(found.exp().sum().item() - 1) < 1e-5
    p = 1 / (1 + (-logits[0]).exp())
    for bits, value in zip(every[::37], found[::37], strict=True):
        product = math.prod(q if bit else 1 - q for q, bit in zip(p.tolist(), bits.tolist(), strict=True))
        assert abs(value.item() - math.log(product)) < 1e-5


def test_eq_12_12():
    """Picture by picture with torch.distributions; twice the same batch has the same loss."""
    logits, mean, log_var = (torch.randn(4, n, generator=generator(n)) for n in (12, 3, 4))
    log_var = log_var[:, :3]
    bits = (torch.rand(4, 12, generator=generator(5)) < 0.5).float()
    for beta in (0.5, 1.0, 4.0):
        total = 0.0
        for row in range(4):
            q = Normal(mean[row], (log_var[row] / 2).exp())
            total -= Bernoulli(logits=logits[row]).log_prob(bits[row]).sum()
            total += beta * kl_divergence(q, Normal(0.0, 1.0)).sum()
        found = vae_loss(logits, bits, mean, log_var, beta)
        torch.testing.assert_close(found, total / 4)
        twice = [v.repeat(2, 1) for v in (logits, bits, mean, log_var)]
        torch.testing.assert_close(vae_loss(*twice, beta), found)


def test_eq_12_13():
    """An untrained VAE: its bound with many draws is ln p(x), integrated on a grid of latents; with few it is below."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PointVAE(latent=1, hidden=8, variance=0.5)
    grid = torch.linspace(-8, 8, 2_001)
    for x in torch.tensor([[0.3, -0.4], [1.0, 0.2]]):
        with torch.no_grad():
            each = model.log_likelihood(x.expand(2_001, 2), grid[:, None]).double()
        exact = math.log((each + PRIOR.log_prob(grid)).exp().sum().item() * 16 / 2_000)
        repeated = log_likelihood_bound(model, x.expand(500, 2), 40, generator())  # 500 times 40 draws
        assert abs(log_mean_exp(repeated[:, None]).item() - exact) < 0.02
        assert repeated.mean().item() < exact


def test_eq_12_14():
    """Of many variances, the mean squared error gives the highest likelihood."""
    mean, x = torch.randn(10, 1, 4, 4, generator=generator()), torch.randn(10, 1, 4, 4, generator=generator(1))
    error = (x - mean).square().mean().item()
    tried = [error * 1.01**k for k in range(-60, 61)]
    values = [gaussian_log_likelihood(mean, x, v).mean().item() for v in tried]
    assert values.index(max(values)) == 60


def test_eq_12_15():
    """The VAE's bound with z = x_1 … x_T, path by path, against the sum of DDPM's terms and against a closed form.

    A denoiser that always answers 0 makes every reverse step a Gaussian with a mean proportional to x_t.
    """
    schedule, n = Schedule.cosine(6), 100_000
    x_0 = torch.full((n, 1), 0.8, dtype=torch.float64)
    path, log_q, g = [x_0], torch.zeros(n, 1, dtype=torch.float64), generator(3)
    for t in range(6):
        step = Normal((1 - schedule.betas[t]).sqrt() * path[-1], schedule.betas[t].sqrt())
        path.append(step.mean + step.stddev * torch.randn(n, 1, generator=g, dtype=torch.float64))
        log_q = log_q + step.log_prob(path[-1])
    log_p, terms = PRIOR.log_prob(path[6]), prior_kl(schedule, x_0)[:, None]
    for t in range(6):
        guess = torch.zeros_like(x_0)
        mean, _ = posterior(schedule, guess, path[t + 1], t)
        log_p = log_p + Normal(mean, reverse_variance(schedule, "large")[t].sqrt()).log_prob(path[t])
        terms = terms + bound_term(schedule, x_0, path[t + 1], t, guess, "large")[:, None]
    gap = log_p - log_q + terms
    assert gap.mean().abs() < 4 * gap.std() / n**0.5
    assert (log_p - log_q).std() > 0.1  # the two are different estimates, and agree on average only


def test_eq_12_16():
    """Change of variables against the area under a histogram of draws, and against torch's own transform."""
    from torch.distributions import TransformedDistribution
    from torch.distributions.transforms import AffineTransform

    for a, b in ((2.0, 3.0), (-0.5, 1.0)):
        theirs = TransformedDistribution(Normal(0.0, 1.0), AffineTransform(b, a))
        x = torch.linspace(-2, 5, 50)
        ours = Normal(0.0, 1.0).log_prob((x - b) / a) - math.log(abs(a))
        torch.testing.assert_close(ours, theirs.log_prob(x))
        draws = a * torch.randn(400_000, generator=generator(), dtype=torch.float64) + b
        share = ((draws > b) & (draws < b + 0.1)).double().mean().item()
        width = 0.1 * math.exp(Normal(0.0, 1.0).log_prob(torch.tensor(0.05 / a)).item() - math.log(abs(a)))
        assert abs(share - width) < 4 * (share / 400_000) ** 0.5


# --- rows of the curriculum that no single equation holds ------------------------------------------------------------


def test_sizes_that_cannot_be_halved():
    """Row C01: 28, 14, 7, 4: the source's 28 // 8 = 3 does not fit its own maps."""
    x = torch.zeros(4, 1, 28, 28)
    for width in (16, 32, 64):
        x = nn.Conv2d(x.shape[1], width, 3, stride=2, padding=1)(x)
    assert x.shape[1:] == (64, 4, 4)
    for size in (28, 30, 33):
        with pytest.raises(ValueError, match="multiple of 8"):
            ConvVAEConfig(size=size, widths=(16, 32, 64))
    assert (
        ConvVAE(ConvVAEConfig(size=32, widths=(4, 4, 4), hidden=0, latent=1)).decode(torch.zeros(1, 1)).shape[-1] == 32
    )


def test_grey_coins_are_no_distribution():
    """Row C09: over all grey values the 'probabilities' add up to 0.5 at p = 0.5, 0.364 at 0.9; the floor is 543.4."""
    x = torch.linspace(0, 1, 1_000_001, dtype=torch.float64)
    for p, total in ((0.5, 0.5), (0.9, 0.364)):
        values = (x * math.log(p) + (1 - x) * math.log(1 - p)).exp()
        assert abs(values.mean().item() - total) < 5e-4
    grey = torch.full((1, 1, 28, 28), 0.5)
    assert round(F.binary_cross_entropy(grey, grey, reduction="sum").item(), 1) == 543.4


def test_a_walk_is_continuous():
    """Row C07: the largest change between neighbours halves with twice as many steps."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = ConvVAE(ConvVAEConfig(size=8, widths=(8,), hidden=16, latent=2, likelihood="bernoulli"))
    model.decoder[0].weight.data *= 5
    a, b = torch.tensor([-2.0, 1.0]), torch.tensor([1.5, -1.0])
    with torch.no_grad():
        jumps = [model.decode(latent_walk(a, b, n)).diff(dim=0).abs().max().item() for n in (33, 65, 129)]
    assert jumps[0] > 0
    for before, after in itertools.pairwise(jumps):
        assert 0.4 < after / before < 0.65


def test_a_flow_finds_mean_and_spread():
    """Row B05: gradient ascent on the exact log-likelihood ends at the closed form."""
    data = 3 + 2 * torch.randn(500, generator=generator(), dtype=torch.float64)
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.0, 0.0))
    optimizer = torch.optim.LBFGS([a, b], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = 0.5 * ((data - b) / a).square().mean() + a.abs().log()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert abs(b.item() - data.mean().item()) < 1e-5
    assert abs(abs(a.item()) - data.std(correction=0).item()) < 1e-5
