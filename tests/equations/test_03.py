"""Every tagged equation of lesson 03, checked by a route that does not use the formula itself."""

import itertools
import math

import pytest
import scipy.integrate
import scipy.optimize
import scipy.spatial.distance
import scipy.stats
import torch
from torch.distributions import Categorical, MultivariateNormal, Normal, kl_divergence

from course_lib.foundations import (
    Mixture,
    cross_entropy,
    entropy,
    fit_forward,
    forward_kl,
    js_divergence,
    kl_diagonal,
    kl_discrete,
    kl_multivariate,
    kl_normal,
    mean_log_likelihood,
    mutual_information,
    normal_log_density,
    reparameterise,
    reparameterised_gradients,
    reverse_kl,
    score_function_gradients,
)

N = 200_000  # draws; tolerances are 4 standard errors, and seeds are fixed
P, Q = [0.1, 0.2, 0.3, 0.4], [0.4, 0.1, 0.25, 0.25]
HUMPS = Mixture(torch.tensor([0.3, 0.7]), torch.tensor([-2.0, 1.5]), torch.tensor([0.25, 0.5]))
PAIRS = ((1.0, 4.0, -0.5, 2.25), (-0.5, 2.25, 1.0, 4.0), (0.3, 0.2, 0.1, 1.7), (2.0, 1.0, 2.0, 0.3))


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def within_4_standard_errors(draws, wanted):
    return abs(draws.mean().item() - wanted) < 4 * draws.std().item() / math.sqrt(len(draws))


def integral(function, mean, variance):
    """∫ function with scipy, in two halves of ±12 standard deviations."""
    reach = 12 * math.sqrt(variance)
    return sum(scipy.integrate.quad(function, a, b)[0] for a, b in ((mean - reach, mean), (mean, mean + reach)))


def kl_by_quadrature(mean_p, var_p, mean_q, var_q):
    p, q = (scipy.stats.norm(m, math.sqrt(v)) for m, v in ((mean_p, var_p), (mean_q, var_q)))
    return integral(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mean_p, var_p)


def test_eq_3_1():
    """The surprise at certainty x is the cross-entropy from certainty: k coin tosses' worth; independent ones add."""
    halves = f64(1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16)
    certain = torch.eye(5, dtype=torch.float64)
    surprise = cross_entropy(certain, halves)
    coin = entropy(f64(0.5, 0.5))
    assert torch.allclose(surprise / coin, f64(1, 2, 3, 4, 4), atol=1e-12)
    assert coin.item() == pytest.approx(math.log(2), rel=1e-12)
    other = f64(*Q)
    both = cross_entropy(torch.eye(20, dtype=torch.float64), torch.outer(halves, other).flatten()).reshape(5, 4)
    add = surprise[:, None] + cross_entropy(torch.eye(4, dtype=torch.float64), other)
    assert torch.allclose(both, add, atol=1e-12)


def test_eq_3_2():
    """How many sequences have the shares p? Their number is e^(n H): ln (n! / Π (n p)!) / n tends to the entropy."""
    for shares in (P, Q, [0.5, 0.5], [1 / 3, 2 / 3]):
        n = 3 * 10**8
        count = math.lgamma(n + 1) - sum(math.lgamma(n * share + 1) for share in shares)
        assert entropy(f64(*shares)).item() == pytest.approx(count / n, abs=1e-6)


def test_eq_3_3():
    """Draws from p, priced by q: their mean surprise within 4 standard errors, and exactly on a list of draws."""
    draws = Categorical(f64(*P)).probs.multinomial(N, replacement=True, generator=generator(0))
    assert within_4_standard_errors(-Categorical(f64(*Q)).log_prob(draws), cross_entropy(f64(*P), f64(*Q)).item())
    exactly = torch.tensor([0] * 1 + [1] * 2 + [2] * 3 + [3] * 4)  # ten outcomes with the shares P
    priced = -Categorical(f64(*Q)).log_prob(exactly).mean().item()
    assert cross_entropy(f64(*P), f64(*Q)).item() == pytest.approx(priced, rel=1e-9)


def test_eq_3_4():
    """n draws from q show the shares p with probability e^(-n KL); H(p, q) - H(p); two other libraries; and ∞."""
    n = 10**8
    for p, q in ((P, Q), (Q, P), ([0.5, 0.5, 0.0], [0.25, 0.25, 0.5])):
        chance = scipy.stats.multinomial(n, q).logpmf([round(n * share) for share in p])
        assert kl_discrete(f64(*p), f64(*q)).item() == pytest.approx(-chance / n, abs=1e-6)
        extra = cross_entropy(f64(*p), f64(*q)) - entropy(f64(*p))
        assert kl_discrete(f64(*p), f64(*q)).item() == pytest.approx(extra.item(), rel=1e-9)
        by_torch = kl_divergence(Categorical(f64(*p)), Categorical(f64(*q))).item()
        functional = torch.nn.functional.kl_div(f64(*q).log(), f64(*p), reduction="sum").item()
        assert by_torch == pytest.approx(functional, rel=1e-6)
        assert kl_discrete(f64(*p), f64(*q)).item() == pytest.approx(by_torch, rel=1e-6)
    assert kl_discrete(f64(0.25, 0.25, 0.5), f64(0.5, 0.5, 0)).item() == math.inf


def test_eq_3_5():
    """All pairs of lists of three eighths, zeros too: never below 0, 0 for equals only, ∞ in its place."""
    steps = [(a, b, 8 - a - b) for a in range(9) for b in range(9 - a)]
    table = torch.tensor(steps, dtype=torch.float64) / 8
    kl = kl_discrete(table[:, None], table[None])
    equal = torch.eye(len(steps), dtype=torch.bool)
    assert (kl[equal] == 0).all()
    assert (kl[~equal] > 0.001).all()
    forbidden = torch.tensor([[any(x and not y for x, y in zip(p, q, strict=True)) for q in steps] for p in steps])
    assert torch.equal(kl == math.inf, forbidden)


def test_eq_3_6():
    """Bins ever finer: their sum tends to the integral, for Gaussians and for a density with two humps."""
    edges = torch.arange(-14, 14.0001, 0.01, dtype=torch.float64)
    wide = Mixture(torch.ones(1), torch.tensor([0.2]), torch.tensor([4.0]))
    bins = [torch.from_numpy(scipy.stats.norm(0.2, 2).cdf(edges)).diff(), HUMPS.cdf(edges).diff()]
    humps, bell = bins[1].clamp(min=0), bins[0]
    assert kl_discrete(humps / humps.sum(), bell / bell.sum()).item() == pytest.approx(
        forward_kl(HUMPS, 0.2, 4.0).item(), abs=1e-4
    )
    density = torch.exp(wide.log_density(edges)) * (wide.log_density(edges) - HUMPS.log_density(edges))
    assert torch.trapezoid(density, edges).item() == pytest.approx(reverse_kl(HUMPS, 0.2, 4.0).item(), abs=1e-4)
    for case in PAIRS:
        assert kl_normal(*case).item() == pytest.approx(kl_by_quadrature(*case), abs=1e-7)


def test_eq_3_7():
    """The bracket is the difference of two log-densities, by torch and by the library."""
    x = torch.linspace(-6, 6, 25, dtype=torch.float64)
    for mean, variance in ((1.0, 4.0), (-0.3, 0.2)):
        bracket = 0.5 * (-math.log(variance) + x**2 - (x - mean) ** 2 / variance)
        by_torch = Normal(f64(mean), f64(variance).sqrt()).log_prob(x) - Normal(f64(0), f64(1)).log_prob(x)
        assert torch.allclose(bracket, by_torch, atol=1e-12)
        ours = normal_log_density(x, mean, variance) - normal_log_density(x, 0, 1)
        assert torch.allclose(ours, by_torch, atol=1e-12)


def test_eq_3_8():
    """By quadrature, by draws, and by looking for its lowest point."""
    for mean, variance in ((1.0, 4.0), (0.0, 1.0), (-2.0, 0.1), (0.5, 9.0)):
        assert kl_normal(mean, variance, 0, 1).item() == pytest.approx(kl_by_quadrature(mean, variance, 0, 1), abs=1e-7)
    assert kl_normal(1, 4, 0, 1).item() == pytest.approx(1.30685, abs=5e-6)
    x = 1 + 2 * normal(N, seed=1)
    ratios = Normal(f64(1), f64(2)).log_prob(x) - Normal(f64(0), f64(1)).log_prob(x)
    assert within_4_standard_errors(ratios, kl_normal(1, 4, 0, 1).item())
    mean, log_var = normal(2, 50, seed=2)
    vae_term = -0.5 * (1 + log_var - mean**2 - log_var.exp())  # as the VAE of lesson 12 writes it
    assert torch.allclose(kl_normal(mean, log_var.exp(), 0, 1), vae_term, atol=1e-12)
    found = scipy.optimize.minimize(lambda v: kl_normal(v[0], math.exp(v[1]), 0, 1).item(), [2.0, 1.0])
    assert found.x == pytest.approx([0, 0], abs=1e-4)
    assert found.fun == pytest.approx(0, abs=1e-8)


def test_eq_3_9():
    """The mean squared miss, in units of q's variance: by draws within 4 standard errors, and by quadrature."""
    for k, (mean_p, var_p, mean_q, var_q) in enumerate(PAIRS):
        wanted = (var_p + (mean_p - mean_q) ** 2) / var_q
        x = mean_p + math.sqrt(var_p) * normal(N, seed=10 + k)
        assert within_4_standard_errors((x - mean_q) ** 2 / var_q, wanted)
        p = scipy.stats.norm(mean_p, math.sqrt(var_p))
        exact = integral(lambda x, p=p, m=mean_q, v=var_q: p.pdf(x) * (x - m) ** 2 / v, mean_p, var_p)
        assert wanted == pytest.approx(exact, rel=1e-6)
        known = 2 * kl_normal(mean_p, var_p, mean_q, var_q).item() - math.log(var_q / var_p) + 1  # what the library has
        assert known == pytest.approx(exact, rel=1e-6)


def test_eq_3_10():
    """Closed form against quadrature, draws and torch, in both directions."""
    for k, case in enumerate(PAIRS):
        mean_p, var_p, mean_q, var_q = case
        p, q = Normal(f64(mean_p), f64(var_p).sqrt()), Normal(f64(mean_q), f64(var_q).sqrt())
        assert kl_normal(*case).item() == pytest.approx(kl_by_quadrature(*case), abs=1e-7)
        assert kl_normal(*case).item() == pytest.approx(kl_divergence(p, q).item(), abs=1e-6)
        x = mean_p + math.sqrt(var_p) * normal(N, seed=20 + k)
        assert within_4_standard_errors(p.log_prob(x) - q.log_prob(x), kl_normal(*case).item())


def test_two_directions_and_extra_nats():
    """The direction matters; either way it is the nats of the wrong code less those of the right one."""
    assert kl_normal(*PAIRS[0]).item() == pytest.approx(0.6012, abs=5e-5)
    assert kl_normal(*PAIRS[1]).item() == pytest.approx(0.3502, abs=5e-5)
    for mean_p, var_p, mean_q, var_q in PAIRS[:2]:
        p, q = (scipy.stats.norm(m, math.sqrt(v)) for m, v in ((mean_p, var_p), (mean_q, var_q)))
        cross = integral(lambda x, p=p, q=q: -p.pdf(x) * q.logpdf(x), mean_p, var_p)
        assert kl_normal(mean_p, var_p, mean_q, var_q).item() == pytest.approx(cross - p.entropy(), abs=1e-7)
    assert abs(kl_discrete(f64(*P), f64(*Q)) - kl_discrete(f64(*Q), f64(*P))).item() > 0.01


def test_eq_3_11():
    """Products of independent parts: joint tables for lists, a full covariance for Gaussians."""
    p, q = [f64(*P), f64(0.3, 0.7)], [f64(*Q), f64(0.6, 0.4)]
    joint = kl_discrete(torch.outer(*p).flatten(), torch.outer(*q).flatten())
    assert joint.item() == pytest.approx(sum(kl_discrete(a, b).item() for a, b in zip(p, q, strict=True)), rel=1e-12)
    mean_p, mean_q = normal(2, 6, seed=30)
    var_p, var_q = normal(2, 6, seed=31) ** 2 + 0.1
    full = kl_divergence(MultivariateNormal(mean_p, var_p.diag()), MultivariateNormal(mean_q, var_q.diag()))
    assert kl_diagonal(mean_p, var_p, mean_q, var_q).item() == pytest.approx(full.item(), rel=1e-9)
    one_by_one = sum(kl_by_quadrature(*case) for case in torch.stack([mean_p, var_p, mean_q, var_q], 1).tolist())
    assert kl_diagonal(mean_p, var_p, mean_q, var_q).item() == pytest.approx(one_by_one, rel=1e-6)


def test_eq_3_12():
    """Full covariances: by draws within 4 standard errors, by torch, and by turning both to the axes of one."""
    roots = normal(2, 3, 3, seed=32)
    cov_p, cov_q = roots @ roots.mT + 0.2 * torch.eye(3, dtype=torch.float64)
    mean_p, mean_q = normal(2, 3, seed=33)
    found = kl_multivariate(mean_p, cov_p, mean_q, cov_q).item()
    p, q = MultivariateNormal(mean_p, cov_p), MultivariateNormal(mean_q, cov_q)
    assert found == pytest.approx(kl_divergence(p, q).item(), rel=1e-9)
    x = mean_p + normal(N, 3, seed=34) @ torch.linalg.cholesky(cov_p).T
    assert within_4_standard_errors(p.log_prob(x) - q.log_prob(x), found)
    whiten = torch.linalg.inv(torch.linalg.cholesky(cov_q))  # seen so, q is N(0, I); then turn p onto its own axes
    variances, turn = torch.linalg.eigh(whiten @ cov_p @ whiten.T)
    shift = turn.T @ whiten @ (mean_p - mean_q)
    straight = sum(kl_by_quadrature(m, v, 0, 1) for m, v in zip(shift.tolist(), variances.tolist(), strict=True))
    assert found == pytest.approx(straight, rel=1e-6)


def test_eq_3_13():
    """The mean log-likelihood of samples is -H(data) - KL within 4 standard errors, H by quadrature."""
    samples = HUMPS.sample(N, generator(35))

    def p_ln_p(x):
        log_p = HUMPS.log_density(torch.tensor(x, dtype=torch.float64)).item()
        return math.exp(log_p) * log_p

    minus_entropy = sum(scipy.integrate.quad(p_ln_p, a, b)[0] for a, b in itertools.pairwise((-9, -2, -0.5, 1.5, 10)))
    for mean, variance in ((0.0, 3.0), (-1.0, 8.0), (1.5, 0.5)):
        log_q = Normal(f64(mean), f64(variance).sqrt()).log_prob(samples)
        assert mean_log_likelihood(samples, mean, variance).item() == pytest.approx(log_q.mean().item(), rel=1e-9)
        assert within_4_standard_errors(log_q, minus_entropy - forward_kl(HUMPS, mean, variance).item())


def test_eq_3_14():
    """A blind search for the smallest KL, integrated on a grid, ends at the fitted mean and variance."""
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    for data in (HUMPS, Mixture(f64(0.5, 0.5), f64(-2, 2), f64(0.25, 0.25))):
        weights = torch.softmax(data.log_density(x), 0)

        def loss(place, weights=weights):
            return -(weights @ Normal(f64(place[0]), f64(math.exp(place[1]))).log_prob(x)).item()

        found = scipy.optimize.minimize(loss, [0.5, 0.0], tol=1e-9).x
        mean, variance = (v.item() for v in fit_forward(data))
        assert mean == pytest.approx(found[0], abs=1e-4)
        assert math.sqrt(variance) == pytest.approx(math.exp(found[1]), abs=1e-4)
    assert math.sqrt(variance) == pytest.approx(2.0616, abs=1e-4)


def test_eq_3_15():
    """The draws have the right distribution (Kolmogorov-Smirnov), and finite differences confirm their gradients."""
    noise = normal(20_000, seed=36)
    for mean, log_var in ((0.7, -0.4), (-1.0, 1.5)):
        z = reparameterise(f64(mean), f64(log_var), noise)
        assert scipy.stats.kstest(z.numpy(), scipy.stats.norm(mean, math.exp(log_var) ** 0.5).cdf).pvalue > 0.01
    inputs = [f64(0.7).requires_grad_(), f64(-0.4).requires_grad_(), noise[:5]]
    assert torch.autograd.gradcheck(reparameterise, inputs)


FUNCTIONS = {"square": torch.square, "sine": torch.sin, "ln data": lambda z: -HUMPS.log_density(z)}


def gradient_by_differences(function, mean, std):
    """The derivatives of ∫ N(x; mean, std²) f(x) dx, by shifting and widening the bell a little."""
    x = torch.linspace(-12, 12, 8001, dtype=torch.float64)
    values = function(x)

    def average(mean, std):
        return torch.trapezoid(Normal(f64(mean), f64(std)).log_prob(x).exp() * values, x).item()

    h = 1e-4
    slopes = average(mean + h, std) - average(mean - h, std), average(mean, std + h) - average(mean, std - h)
    return [slope / (2 * h) for slope in slopes]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_eq_3_16(name):
    """Through the draw: right on average, within 4 standard errors of finite differences of the integral."""
    estimates = reparameterised_gradients(FUNCTIONS[name], 0.4, 0.8, N, generator(37))
    for column, wanted in zip(estimates.T, gradient_by_differences(FUNCTIONS[name], 0.4, 0.8), strict=True):
        assert within_4_standard_errors(column, wanted)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_eq_3_17(name):
    """Through the probability: right on average too, and noisier."""
    estimates = score_function_gradients(FUNCTIONS[name], 0.4, 0.8, N, generator(38))
    for column, wanted in zip(estimates.T, gradient_by_differences(FUNCTIONS[name], 0.4, 0.8), strict=True):
        assert within_4_standard_errors(column, wanted)
    through = reparameterised_gradients(FUNCTIONS["square"], 3.0, 0.5, N, generator(39)).var(dim=0)
    score = score_function_gradients(FUNCTIONS["square"], 3.0, 0.5, N, generator(39)).var(dim=0)
    assert (score / through).tolist() == pytest.approx([453.75, 31.75], rel=0.05)  # by the moments of a Gaussian


def test_eq_3_18():
    """JS is what a draw tells about the coin that chose its source; scipy agrees; it stays at ln 2 while W1 grows."""
    p, q = f64(*P), f64(*Q)
    assert js_divergence(p, q).item() == pytest.approx(mutual_information(torch.stack([p, q]) / 2).item(), rel=1e-9)
    coin = torch.stack([p, q]) / 2  # the joint table of coin and outcome: I = H(coin) + H(outcome) - H(both)
    told = entropy(coin.sum(1)) + entropy(coin.sum(0)) - entropy(coin.flatten())
    assert js_divergence(p, q).item() == pytest.approx(told.item(), rel=1e-9)
    by_scipy = scipy.spatial.distance.jensenshannon(P, Q) ** 2
    assert js_divergence(p, q).item() == pytest.approx(by_scipy, rel=1e-9)
    assert js_divergence(f64(0.5, 0.5, 0, 0), f64(0, 0, 0.2, 0.8)).item() == pytest.approx(math.log(2), rel=1e-12)
