"""Every tagged equation of lesson 06, checked by a route that does not use the formula itself."""

import math
import warnings

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from course_lib.diffusion import (
    GaussianDenoiser,
    MixtureDenoiser,
    Schedule,
    bits_per_dim,
    bound_term,
    bound_weights,
    convert,
    ddpm,
    ddpm_step,
    diffusion_loss,
    gaussian_bound,
    optimal_loss,
    posterior,
    posterior_mean_from_noise,
    prior_kl,
    q_chain,
    q_sample,
    q_step,
    reverse_variance,
)
from course_lib.foundations import Mixture

N = 400_000  # draws; tolerances below are 4 standard errors (a two-sided miss once in 16,000 runs; seeds are fixed)
GRID = torch.linspace(-8, 8, 40_001, dtype=torch.float64)
WIDTH = (GRID[1] - GRID[0]).item()


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def number(value):
    return torch.tensor([[value]], dtype=torch.float64)


def unfinished(betas):
    """A schedule too short to end in noise, without the warning that says so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Schedule(torch.tensor(betas, dtype=torch.float64))


SHORT = unfinished([0.3, 0.5, 0.6])
SLOPES, OFFSETS, VARIANCES = (
    (0.9, 0.6, 0.5),
    (0.1, -0.2, 0.3),
    (0.4, 0.6, 0.7),
)  # a model of three steps


def model_log_density(path):
    """Equation 6.1 for x_0 … x_3 (…, 4): the start's density times the three steps'."""
    total = Normal(0.0, 1.0).log_prob(path[..., 3])
    for t in range(3):
        mean = SLOPES[t] * path[..., t + 1] + OFFSETS[t]
        total = total + Normal(mean, math.sqrt(VARIANCES[t])).log_prob(path[..., t])
    return total


def model_joint():
    """The same as one Gaussian over x_0 … x_3: each state is a weighted sum of the four noises, plus a constant."""
    weights, constant = np.zeros((4, 4)), np.zeros(4)
    weights[3, 3] = 1
    for t in (2, 1, 0):
        weights[t], constant[t] = SLOPES[t] * weights[t + 1], SLOPES[t] * constant[t + 1] + OFFSETS[t]
        weights[t, t] += math.sqrt(VARIANCES[t])
    return constant, weights @ weights.T


def forward_joint(betas, x_0):
    """q(x_1 … x_T | x_0) as one Gaussian, in the same way."""
    weights, constant, image = np.zeros((len(betas), len(betas))), [], x_0
    for t, beta in enumerate(betas):
        weights[t] = math.sqrt(1 - beta) * weights[t - 1] if t else 0
        weights[t, t] = math.sqrt(beta)
        image = math.sqrt(1 - beta) * image
        constant.append(image)
    return np.array(constant), weights @ weights.T


def by_conditioning(betas, t, x_0, x_t):
    """Mean and variance of x_{t-1}, from the joint Gaussian of x_{t-1} and x_t: a regression on x_t."""
    weight, covariance = forward_joint(betas[: t + 1], 1.0)  # the states' means are their weights times x_0
    before, now = weight[-2:].tolist()
    slope = float(covariance[t - 1, t] / covariance[t, t])
    return before * x_0 + slope * (x_t - now * x_0), float(covariance[t - 1, t - 1] - slope * covariance[t - 1, t])


def by_grid(log_density):
    """Mean and variance of the density on GRID that has this logarithm, up to a constant."""
    weights = torch.softmax(log_density, dim=0)
    mean = (weights * GRID).sum()
    return mean.item(), (weights * (GRID - mean) ** 2).sum().item()


# --- the bound -------------------------------------------------------------------------------------------------------


def test_eq_6_1():
    """The product of the steps' densities is the density of the sampler's own path, taken as one Gaussian."""
    schedule = Schedule.linear(40)
    denoiser = GaussianDenoiser(schedule, torch.tensor([0.3]), torch.tensor([0.25]))

    def walk(noises):
        """The last five states x_40 … x_36 of the sampler, from five noises (5, n)."""
        states = [noises[0][:, None]]
        for t, z in zip((39, 38, 37, 36), noises[1:], strict=True):
            guess = denoiser(states[-1], t)
            states.append(ddpm_step(schedule, states[-1], guess, t, t - 1, z[:, None], variance="large")[0])
        return torch.cat(states, dim=1)

    nothing = torch.zeros(5, 1, dtype=torch.float64)
    constant = walk(nothing)[0]
    weights = walk(torch.eye(5, dtype=torch.float64)) - constant  # one row per noise
    path = walk(normal(5, 1, seed=1))[0]
    joint = MultivariateNormal(constant, weights.T @ weights).log_prob(path)
    product = Normal(0.0, 1.0).log_prob(path[0])
    for k, t in enumerate((39, 38, 37, 36)):
        bar, alpha, x_t = schedule.alpha_bars[t], schedule.alphas[t], path[k]
        x_start = 0.3 + bar.sqrt() * 0.25 / (bar * 0.25 + 1 - bar) * (x_t - bar.sqrt() * 0.3)
        noise = (x_t - bar.sqrt() * x_start) / (1 - bar).sqrt()
        mean = (x_t - (1 - alpha) / (1 - bar).sqrt() * noise) / alpha.sqrt()
        product = product + Normal(mean, (1 - alpha).sqrt()).log_prob(path[k + 1])
    assert product.item() == pytest.approx(joint.item(), rel=1e-9)


def test_eq_6_2():
    """Summing the joint density over all paths gives the density of the last state of many drawn chains."""
    x = 3 * torch.linspace(-3, 3, 101, dtype=torch.float64)
    edges = torch.linspace(0.2, 0.8, 13, dtype=torch.float64)
    paths = torch.cartesian_prod(x, x, x)
    cell = (x[1] - x[0]) ** 3
    density = torch.stack(
        [model_log_density(torch.cat([e.expand(len(paths), 1), paths], 1)).exp().sum() * cell for e in edges]
    )
    by_sum = torch.trapezoid(density, edges).item()
    state, z = normal(N, seed=2), normal(3, N, seed=3)
    for t in (2, 1, 0):
        state = SLOPES[t] * state + OFFSETS[t] + math.sqrt(VARIANCES[t]) * z[t]
    share = ((state > 0.2) & (state < 0.8)).double().mean().item()
    assert abs(share - by_sum) < 4 * math.sqrt(by_sum * (1 - by_sum) / N)


def forward_paths(x_0, n, seed):
    """x_0 … x_3 (n, 4) from the library's chain."""
    start = torch.full((n, 1), x_0, dtype=torch.float64)
    return torch.cat([start, *q_chain(SHORT, start, torch.Generator().manual_seed(seed))], dim=1)


def log_weights(x_0, n, seed):
    path = forward_paths(x_0, n, seed)
    mean, covariance = forward_joint(SHORT.betas.tolist(), x_0)
    q = scipy.stats.multivariate_normal(mean, covariance).logpdf(path[:, 1:].numpy())
    return model_log_density(path) - torch.from_numpy(q)


def log_evidence(x_0):
    mean, covariance = model_joint()
    return scipy.stats.norm(mean[0], math.sqrt(covariance[0, 0])).logpdf(x_0)


@pytest.mark.parametrize("x_0", [0.9, -0.5])
def test_eq_6_3(x_0):
    """Importance weights of forward paths average to p(x_0), which linear algebra knows."""
    weights = log_weights(x_0, N, seed=4).exp()
    assert abs(weights.mean().item() - math.exp(log_evidence(x_0))) < 4 * weights.std().item() / math.sqrt(N)


@pytest.mark.parametrize("x_0", [0.9, -0.5])
def test_eq_6_4(x_0):
    """ELBO from paths; ln p and the two beliefs about the path from linear algebra; their KL from torch."""
    elbo = log_weights(x_0, N, seed=5)
    mean, covariance = model_joint()
    to_image = covariance[1:, 0] / covariance[0, 0]  # regression of the path on x_0: p(path | x_0)
    belief = MultivariateNormal(
        torch.tensor(mean[1:] + to_image * (x_0 - mean[0])),
        torch.tensor(covariance[1:, 1:] - np.outer(to_image, covariance[0, 1:])),
    )
    forward = MultivariateNormal(*map(torch.tensor, forward_joint(SHORT.betas.tolist(), x_0)))
    gap = kl_divergence(forward, belief).item()
    assert gap > 0.1
    assert abs(elbo.mean().item() - (log_evidence(x_0) - gap)) < 4 * elbo.std().item() / math.sqrt(N)


# --- the posterior ---------------------------------------------------------------------------------------------------

BETAS = (0.05 + 0.3 * torch.rand(12, generator=torch.Generator().manual_seed(6), dtype=torch.float64)).tolist()
ANY = unfinished(BETAS)


def test_eq_6_5():
    """Bayes' rule in densities: the posterior comes from conditioning, the three others from chain and torch."""
    for t, x_prev, x_t in ((1, 0.4, -0.3), (5, -1.0, 0.2), (11, 1.5, 1.1)):
        mean, variance = by_conditioning(BETAS, t, 0.7, x_t)
        marginal_mean, marginal = forward_joint(BETAS, 0.7)
        now, before = (scipy.stats.norm(marginal_mean[s], math.sqrt(marginal[s, s])) for s in (t, t - 1))
        right = scipy.stats.norm(mean, math.sqrt(variance)).logpdf(x_prev) + now.logpdf(x_t) - before.logpdf(x_prev)
        one, nought = number(1.0), number(0.0)
        weight, std = q_step(ANY, one, t, nought).item(), q_step(ANY, nought, t, one).item()
        assert scipy.stats.norm(weight * x_prev, std).logpdf(x_t) == pytest.approx(right, rel=1e-9)


def test_eq_6_6():
    """The path read from its end with `posterior` has the density of the joint Gaussian of the whole path."""
    x_0 = number(0.7)
    path = torch.stack(list(q_chain(ANY, x_0, torch.Generator().manual_seed(7))))
    mean, covariance = forward_joint(BETAS, 0.7)
    joint = scipy.stats.multivariate_normal(mean, covariance).logpdf(path.flatten().numpy())
    backwards = Normal(number(mean[-1]), number(covariance[-1, -1]).sqrt()).log_prob(path[-1])
    for t in range(1, 12):
        step_mean, variance = posterior(ANY, x_0, path[t], t)
        backwards = backwards + Normal(step_mean, variance.sqrt()).log_prob(path[t - 1])
    assert backwards.item() == pytest.approx(joint, rel=1e-9)


def square(t, x_0, x_t):
    """-2 ln (prior · likelihood) on five points x, from scipy's densities, and a parabola through three of them."""
    x = np.array([-1.0, 0.0, 1.0, 2.5, -3.0])
    mean, covariance = forward_joint(BETAS, x_0)
    prior = scipy.stats.norm(mean[t - 1], math.sqrt(covariance[t - 1, t - 1])).logpdf(x)
    likelihood = scipy.stats.norm(math.sqrt(1 - BETAS[t]) * x, math.sqrt(BETAS[t])).logpdf(x_t)
    values = -2 * (prior + likelihood)
    return x, values, np.polyfit(x[:3], values[:3], 2)


@pytest.mark.parametrize("t", [1, 4, 11])
def test_eq_6_7(t):
    """Left side: -2 ln of the product but for a constant. Right side: a parabola, whose three points give all."""
    x_0, x_t = 0.8, -0.6
    x, values, parabola = square(t, x_0, x_t)
    bar_prev = math.prod(1 - beta for beta in BETAS[:t])
    left = (x_t - math.sqrt(1 - BETAS[t]) * x) ** 2 / BETAS[t] + (x - math.sqrt(bar_prev) * x_0) ** 2 / (1 - bar_prev)
    assert np.ptp(values - left) < 1e-9
    assert np.polyval(parabola, x) == pytest.approx(values)


@pytest.mark.parametrize("t", [1, 4, 11])
def test_eq_6_8(t):
    """A and B against the coefficients of the fitted parabola, and against the library's mean and variance."""
    x_0, x_t = 0.8, -0.6
    second, first, _ = square(t, x_0, x_t)[2]
    bar_prev = math.prod(1 - beta for beta in BETAS[:t])
    A = (1 - BETAS[t]) / BETAS[t] + 1 / (1 - bar_prev)
    B = math.sqrt(1 - BETAS[t]) / BETAS[t] * x_t + math.sqrt(bar_prev) / (1 - bar_prev) * x_0
    assert pytest.approx(second) == A
    assert pytest.approx(-first / 2) == B
    mean, variance = posterior(ANY, number(x_0), number(x_t), t)
    assert (mean.item(), variance.item()) == pytest.approx((-first / 2 / second, 1 / second))


@pytest.mark.parametrize("t", [1, 4, 11])
def test_eq_6_9_and_6_10(t):
    """Prior times likelihood on a fine grid, and a regression of x_{t-1} on x_t: both to 1e-6."""
    for x_0, x_t in ((0.8, -0.6), (-1.0, 0.3)):
        mean, variance = posterior(ANY, number(x_0), number(x_t), t)
        prior_mean, covariance = forward_joint(BETAS, x_0)
        log_density = Normal(prior_mean[t - 1], math.sqrt(covariance[t - 1, t - 1])).log_prob(GRID)
        log_density += Normal(math.sqrt(1 - BETAS[t]) * GRID, math.sqrt(BETAS[t])).log_prob(torch.tensor(x_t))
        for wanted in (by_grid(log_density), by_conditioning(BETAS, t, x_0, x_t)):
            assert (mean.item(), variance.item()) == pytest.approx(wanted, abs=1e-6)


def test_eq_6_9():
    """The variance, on forward paths: what is left of x_{t-1} after the best straight line in x_t."""
    path = torch.cat(list(q_chain(ANY, torch.full((N, 1), 0.7).double(), torch.Generator().manual_seed(8))), dim=1)
    for t in (1, 6):
        covariance = torch.cov(path[:, [t - 1, t]].T)
        left = (covariance[0, 0] - covariance[0, 1] ** 2 / covariance[1, 1]).item()
        assert abs(ANY.posterior_variance[t].item() - left) < 4 * left * math.sqrt(2 / N)
    assert ANY.posterior_variance[0].item() == 0


def test_eq_6_10():
    """Both weights, on forward paths of many images: the regression of x_{t-1} on x_0 and x_t."""
    x_0 = normal(N, 1, seed=9) + 0.5
    path = torch.cat([x_0, *q_chain(ANY, x_0, torch.Generator().manual_seed(10))], dim=1)
    for t in (1, 6):
        design = path[:, [0, t + 1]]
        found = torch.linalg.lstsq(design, path[:, t : t + 1]).solution.flatten()
        error = (ANY.posterior_variance[t] * torch.linalg.inv(design.T @ design).diagonal()).sqrt()
        weights = torch.stack([ANY.posterior_coef_x_start[t], ANY.posterior_coef_x_t[t]])
        assert ((found - weights).abs() < 4 * error).all()
    assert (ANY.posterior_coef_x_start > 0).all()
    assert (ANY.posterior_coef_x_t[1:] > 0).all()
    assert (ANY.posterior_coef_x_start[0].item(), ANY.posterior_coef_x_t[0].item()) == pytest.approx((1, 0))


# --- its terms -------------------------------------------------------------------------------------------------------


def test_eq_6_11():
    """The terms, each averaged over x_t by quadrature, add up to -ln p(x_0) + KL of the two beliefs (equation 6.4)."""
    schedule, x_0 = unfinished([0.3, 0.5, 0.6, 0.7]), 0.9
    denoiser = GaussianDenoiser(schedule, torch.tensor([0.3]).double(), torch.tensor([0.25]), "x_start")
    sigma2 = reverse_variance(schedule, "large")
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    total = prior_kl(schedule, number(x_0)).item()
    for t in range(4):
        noise = torch.from_numpy(nodes)[:, None]
        start = torch.full_like(noise, x_0)
        x_t = q_sample(schedule, start, t, noise)
        terms = bound_term(schedule, start, x_t, t, denoiser(x_t, t), "large")
        total += (terms * torch.from_numpy(weights)).sum().item() / math.sqrt(2 * math.pi)

    forward_mean, forward_covariance = forward_joint(schedule.betas.tolist(), x_0)
    mixing, constant = np.zeros((5, 5)), np.zeros(5)  # the model's x_0 … x_4 from five noises
    mixing[4, 4] = 1
    for t in (3, 2, 1, 0):
        ends = torch.tensor([[0.0], [1.0]]).double()
        nought, one = posterior(schedule, denoiser(ends, t), ends, t)[0].flatten().tolist()
        mixing[t], constant[t] = (one - nought) * mixing[t + 1], (one - nought) * constant[t + 1] + nought
        mixing[t, t] += math.sqrt(sigma2[t])
    model = MultivariateNormal(torch.from_numpy(constant), torch.from_numpy(mixing @ mixing.T))
    chosen = torch.tensor(forward_mean), torch.tensor(forward_covariance)
    roots = torch.linalg.cholesky(chosen[1])
    # E_q[-ln p(x_0, path)] of a Gaussian: at the mean, plus half the trace of precision times covariance
    at_mean = -model.log_prob(torch.cat([number(x_0)[0], chosen[0]])).item()
    spread = 0.5 * torch.trace(model.precision_matrix[1:, 1:] @ chosen[1]).item()
    entropy = MultivariateNormal(chosen[0], scale_tril=roots).entropy().item()
    assert total == pytest.approx(at_mean + spread - entropy, rel=1e-9)


@pytest.mark.parametrize("t", [1, 5, 11])
def test_eq_6_12(t):
    """Both variances on a grid, for data of three bells: nothing in it is Gaussian but the noise."""
    data = Mixture(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([-1.2, 0.3, 1.2]), torch.tensor([0.02, 0.03, 0.02]))
    x_t, bar = 0.4, math.prod(1 - beta for beta in BETAS[: t + 1])
    bar_prev = bar / (1 - BETAS[t])
    seen = torch.tensor(x_t, dtype=torch.float64)
    from_image = Normal(math.sqrt(bar) * GRID, math.sqrt(1 - bar)).log_prob(seen)
    unknown = by_grid(data.density(GRID).log() + from_image)[1]
    from_before = Normal(math.sqrt(1 - BETAS[t]) * GRID, math.sqrt(BETAS[t])).log_prob(seen)
    wanted = by_grid(data.noised(bar_prev).density(GRID).log() + from_before)[1]
    optimal = ANY.posterior_variance[t].item() + ANY.posterior_coef_x_start[t].item() ** 2 * unknown
    assert optimal == pytest.approx(wanted, rel=1e-6)


def test_eq_6_13():
    """A picture of n fair bytes holds 8 bits each: -ln p = n ln 256."""
    for n in (1, 48, 3072):
        nats = -float(np.log(np.full(n, 1 / 256)).sum())
        assert bits_per_dim(nats, n) == pytest.approx(8)


@pytest.mark.parametrize("r", [0.3, 1.0, 2.0, 7.0])
def test_eq_6_14(r):
    """The KL of two bells of one mean, by quadrature."""
    right, used = scipy.stats.norm(0.4, math.sqrt(r)), scipy.stats.norm(0.4, 1)
    kl, _ = scipy.integrate.quad(lambda x: right.pdf(x) * (right.logpdf(x) - used.logpdf(x)), -40, 40, points=[0.4])
    assert 0.5 * (r - 1 - math.log(r)) == pytest.approx(kl, abs=1e-7)


def test_eq_6_15():
    """The series, summed up to a known tail; and what the bound really loses, extrapolated to endless T."""
    k = np.arange(1, 2_000_001)
    series = 0.5 * (1 - math.log(2)) + 0.5 * np.sum(1 / k - np.log1p(1 / k))
    limit = (np.euler_gamma + 1 - math.log(2)) / 2
    assert series == pytest.approx(limit, abs=1e-6)
    assert limit == pytest.approx(0.442, abs=5e-4)
    entropy = scipy.stats.norm(0, 0.5).entropy()
    lost = [gaussian_bound(Schedule.linear(T), 0.3, 0.25, "small").nats - entropy for T in (64_000, 256_000)]
    assert lost[0] > lost[1] > limit
    assert 2 * lost[1] - lost[0] == pytest.approx(limit, abs=2e-3)  # what is over halves as T is four times as long


# --- the loss --------------------------------------------------------------------------------------------------------


def test_eq_6_16():
    """The KL by torch, in five dimensions: what changes with the model's mean is ‖difference‖² / 2σ²."""
    mean, std = normal(5, seed=11), 1.0
    for sigma, seed in ((0.3, 12), (0.8, 13), (2.0, 14)):
        other = normal(5, seed=seed)
        q = Independent(Normal(mean, std * torch.ones(5).double()), 1)
        p, same = (Independent(Normal(m, sigma * torch.ones(5).double()), 1) for m in (other, mean))
        change = kl_divergence(q, p) - kl_divergence(q, same)
        assert change.item() == pytest.approx((mean - other).square().sum().item() / (2 * sigma**2))


@pytest.mark.parametrize("t", [0, 1, 4, 11])
def test_eq_6_17(t):
    """Make x_t from an image and a noise; the mean from that noise is the regression's, which knows the image."""
    x_0, noise = 0.8, -1.3
    bar = math.prod(1 - beta for beta in BETAS[: t + 1])
    x_t = math.sqrt(bar) * x_0 + math.sqrt(1 - bar) * noise
    wanted = by_conditioning(BETAS, t, x_0, x_t)[0] if t else x_0
    assert posterior_mean_from_noise(ANY, number(x_t), t, number(noise)).item() == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_eq_6_18(variance):
    """torch's KL of the two reverse steps, with a wrong and a right noise: the difference is weight · ‖error‖²."""
    x_0, noise, guess = normal(6, seed=15), normal(6, seed=16), normal(6, seed=17)
    for t in (1, 4, 11):
        bar = math.prod(1 - beta for beta in BETAS[: t + 1])
        x_t = math.sqrt(bar) * x_0 + math.sqrt(1 - bar) * noise
        used = BETAS[t] if variance == "large" else by_conditioning(BETAS, t, 0.0, 0.0)[1]

        def kl(answer, t=t, bar=bar, x_t=x_t, used=used):
            guessed = (x_t - math.sqrt(1 - bar) * answer) / math.sqrt(bar)
            aim, exact = by_conditioning(BETAS, t, x_0, x_t)
            mean, _ = by_conditioning(BETAS, t, guessed, x_t)
            return kl_divergence(Normal(aim, math.sqrt(exact)), Normal(mean, math.sqrt(used))).sum().item()

        wanted = (kl(guess) - kl(noise)) / (guess - noise).square().sum().item()
        assert bound_weights(ANY, variance)[t].item() == pytest.approx(wanted)


class Half:
    """Answers with half of what it sees, and a little of the time."""

    prediction = "noise"

    def __call__(self, x_t, t, cond=None):
        return 0.5 * x_t + 0.01 * t.view(-1, 1)


def test_eq_6_19():
    """Random steps, images and noises average to the mean over all steps, worked out by hand for a linear model."""
    generator = torch.Generator().manual_seed(18)
    x_0 = torch.tensor([1.0, -2.0]).double().expand(N, 2)
    t = (12 * torch.rand(N, generator=generator)).long()
    found = diffusion_loss(Half(), ANY, x_0, t, torch.randn(N, 2, generator=generator, dtype=torch.float64))
    wanted = 0.0
    for step in range(12):
        bar = math.prod(1 - beta for beta in BETAS[: step + 1])
        for pixel in (1.0, -2.0):  # E[(ε - ½(√ᾱ x + √(1-ᾱ) ε) - 0.01 t)²]
            wanted += ((1 - 0.5 * math.sqrt(1 - bar)) ** 2 + (0.5 * math.sqrt(bar) * pixel + 0.01 * step) ** 2) / 24
    assert abs(found.mean().item() - wanted) < 4 * found.std().item() / math.sqrt(N)


@pytest.mark.parametrize(("t", "published"), [(0, 0.9996), (300, None), (500, 0.0207)])
def test_eq_6_20(t, published):
    """What is left of the noise after the best straight line in x_t, on draws."""
    schedule, s2 = Schedule.linear(1000), 0.25
    noise = normal(N, 1, seed=19)
    x_t = q_sample(schedule, 0.3 + math.sqrt(s2) * normal(N, 1, seed=20), t, noise)
    covariance = torch.cov(torch.cat([noise, x_t], dim=1).T)
    left = (covariance[0, 0] - covariance[0, 1] ** 2 / covariance[1, 1]).item()
    best = optimal_loss(schedule, s2)[t].item()
    assert abs(left - best) < 4 * left * math.sqrt(2 / N)
    assert published is None or round(best, 4) == published


def test_eq_6_21():
    """v is the derivative of x_t along the arc, by finite differences in the angle."""
    x_0, noise, step = normal(4, 3, seed=21), normal(4, 3, seed=22), 1e-5
    for t in (0, 5, 11):
        angle = math.acos(math.sqrt(math.prod(1 - beta for beta in BETAS[: t + 1])))
        after, before = (math.cos(a) * x_0 + math.sin(a) * noise for a in (angle + step, angle - step))
        v = convert(ANY, q_sample(ANY, x_0, t, noise), t, noise, "noise", "v")
        assert torch.allclose(v, (after - before) / (2 * step), atol=1e-8)


def test_the_sampler_is_the_same_for_every_prediction():
    """Noise, image or velocity: with the exact denoiser the same noise gives the same samples, whole runs long."""
    schedule, finished = Schedule.cosine(60), {}
    for kind in ("noise", "x_start", "v"):
        denoiser = GaussianDenoiser(schedule, torch.tensor([0.3, -1.0]), torch.tensor([0.25, 2.0]), kind)
        generator = torch.Generator().manual_seed(27)
        *_, last = ddpm(denoiser, schedule, (100, 2), generator=generator, dtype=torch.float64)
        finished[kind] = last.x
    assert finished["noise"].std() > 0.5
    assert torch.allclose(finished["noise"], finished["x_start"], atol=1e-9)
    assert torch.allclose(finished["v"], finished["x_start"], atol=1e-9)


def test_eq_6_22():
    """Errors of the three predictions after `convert`, and the signal-to-noise ratio as measured."""
    x_0, noise, guess = normal(1, 9, seed=23), normal(1, 9, seed=24), normal(1, 9, seed=25)
    for t in (0, 5, 11):
        signal = q_sample(ANY, x_0, t, 0 * noise).square().sum() / x_0.square().sum()
        rest = q_sample(ANY, 0 * x_0, t, noise).square().sum() / noise.square().sum()
        x_t = q_sample(ANY, x_0, t, noise)
        error = {
            kind: (convert(ANY, x_t, t, guess, "x_start", kind) - convert(ANY, x_t, t, x_0, "x_start", kind))
            for kind in ("noise", "x_start", "v")
        }
        squared = {kind: values.square().sum().item() for kind, values in error.items()}
        assert squared["noise"] / squared["x_start"] == pytest.approx((signal / rest).item())
        assert squared["v"] / squared["x_start"] == pytest.approx((signal / rest).item() + 1)


def test_eq_6_23():
    """The error of the best blind guess is not related to anything in x_t: its product with any function averages 0."""
    schedule = Schedule.linear(50)
    weights, means, variances = torch.tensor([0.5, 0.5]), torch.tensor([-1.0, 1.0]), torch.tensor([0.01, 0.01])
    exact = MixtureDenoiser(schedule, weights, means[:, None], variances)
    generator = torch.Generator().manual_seed(26)
    t = (50 * torch.rand(N, generator=generator)).long()
    x_0 = 2.0 * (torch.rand(N, generator=generator) < 0.5) - 1
    x_0 = (x_0 + 0.1 * torch.randn(N, generator=generator)).double()
    noise = torch.randn(N, generator=generator, dtype=torch.float64)
    x_t = q_sample(schedule, x_0, t, noise)

    x = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    densities = torch.stack(
        [Mixture(weights, means, variances).noised(a.item()).density(x) for a in schedule.alpha_bars]
    )
    answers = torch.stack([exact(x[:, None], step)[:, 0] for step in range(50)])
    blind = np.interp(x_t.numpy(), x.numpy(), ((answers * densities).sum(0) / densities.sum(0)).numpy())
    error = noise - torch.from_numpy(blind)
    one_answer = noise - exact(x_t[:, None], 25)[:, 0]  # a wrong one, for comparison: as if every step were the 26th
    windows = [(x_t > low) & (x_t <= low + 0.25) for low in torch.arange(-2.5, 2.5, 0.25).tolist()]
    missed = 0
    for window in windows:
        inside = window.sum().item()
        assert inside > 500
        assert abs(error[window].mean().item()) < 4 * error[window].std().item() / math.sqrt(inside)
        missed += abs(one_answer[window].mean().item()) > 4 * one_answer[window].std().item() / math.sqrt(inside)
    assert missed > len(windows) / 2
