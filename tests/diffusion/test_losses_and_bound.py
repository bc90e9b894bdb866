"""Losses and the bound: closed forms against simulation, and the numbers that the literature reports."""

import math

import pytest
import torch

from course_lib.diffusion import (
    FiniteDenoiser,
    GaussianDenoiser,
    Schedule,
    bits_per_dim,
    bound_term,
    bound_weights,
    convert,
    diffusion_loss,
    gaussian_bound,
    min_snr_weights,
    optimal_loss,
    posterior,
    prior_kl,
    q_chain,
    q_sample,
    reverse_variance,
    target,
)

S = Schedule.linear(1000)
KINDS = ("noise", "x_start", "v")


class Zero:
    prediction = "noise"

    def __call__(self, x_t, t, cond):
        return torch.zeros_like(x_t)


def drawn(n: int, std: float, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x_start = std * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    return x_start, torch.randn(n, 1, generator=generator, dtype=torch.float64), generator


# --- the simple loss -------------------------------------------------------------------------------------------------


def test_a_network_that_answers_zero_has_loss_one():
    x_start, noise, generator = drawn(20_000, 0.5)
    t = torch.randint(0, 1000, (20_000,), generator=generator)
    loss = diffusion_loss(Zero(), S, x_start, t, noise)
    assert loss.shape == (20_000,)
    assert abs(float(loss.mean()) - 1) < 4 * math.sqrt(2 / 20_000)


@pytest.mark.parametrize(("t", "published"), [(0, 0.9996), (500, 0.0207)])
def test_the_best_loss_is_not_zero(t, published):
    """Data of std .5: in a nearly clean image the noise can't be seen, in pure noise it is all there is."""
    x_start, noise, _ = drawn(100_000, 0.5)
    denoiser = GaussianDenoiser(S, torch.zeros(1), torch.tensor([0.25]))
    loss = diffusion_loss(denoiser, S, x_start, torch.full((100_000,), t), noise)
    closed = float(optimal_loss(S, 0.25)[t])
    assert closed == pytest.approx(published, abs=5e-5)
    assert abs(float(loss.mean()) - closed) < 4 * float(loss.std()) / math.sqrt(100_000)


@pytest.mark.parametrize("kind", KINDS)
def test_best_losses_of_all_kinds_by_simulation(kind):
    variances = torch.tensor([0.25, 2.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x_start, noise = torch.randn((2, 60_000, 2), generator=generator, dtype=torch.float64)
    x_start = x_start * variances.sqrt()
    denoiser = GaussianDenoiser(S, torch.zeros(2), variances, kind)
    for t in (5, 200, 800):
        loss = diffusion_loss(denoiser, S, x_start, torch.full((60_000,), t), noise)
        wanted = float(optimal_loss(S, variances, kind)[t])
        assert abs(float(loss.mean()) - wanted) < 4 * float(loss.std()) / math.sqrt(60_000)


def test_loss_is_a_mean_over_each_image():
    images = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([0, 500, 999])
    losses = diffusion_loss(Zero(), S, images, t, noise)
    torch.testing.assert_close(losses, torch.stack([(each**2).mean() for each in noise]))
    weighted = diffusion_loss(Zero(), S, images, t, noise, weights=bound_weights(S))
    torch.testing.assert_close(weighted, losses * bound_weights(S)[t].float())


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_own_target(kind):
    points = torch.tensor([[0.7, -0.2]])
    x_start, noise = points.expand(4, 2), torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([1, 50, 300, 900])
    wanted = {
        "x_start": x_start,
        "noise": noise,
        "v": convert(S, q_sample(S, x_start, t, noise), t, noise, "noise", "v"),
    }
    torch.testing.assert_close(target(S, x_start, t, noise, kind), wanted[kind])
    losses = diffusion_loss(FiniteDenoiser(S, points, kind), S, x_start, t, noise)  # one point: it is known exactly
    assert losses.max() < 1e-6


def test_the_three_errors_differ_by_the_signal_to_noise_ratio():
    x_start, noise = torch.randn((2, 6, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.tensor([0, 10, 100, 300, 600, 999])
    x_t = q_sample(S, x_start, t, noise)
    guess = x_start + 0.1 * torch.randn(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    error = {
        kind: ((convert(S, x_t, t, guess, "x_start", kind) - target(S, x_start, t, noise, kind)) ** 2).sum(1)
        for kind in KINDS
    }
    snr = S.log_snr[t].exp()
    torch.testing.assert_close(error["noise"], snr * error["x_start"])
    torch.testing.assert_close(error["v"], (snr + 1) * error["x_start"])
    weighted = [min_snr_weights(S, kind)[t] * error[kind] for kind in KINDS]
    torch.testing.assert_close(weighted[0], weighted[1])
    torch.testing.assert_close(weighted[2], weighted[1])
    torch.testing.assert_close(weighted[1], snr.clamp(max=5) * error["x_start"])


def test_published_weights_of_the_bound():
    weights = bound_weights(S, "large")
    assert {t: round(float(weights[t - 1]), 4) for t in (1, 2, 10, 100, 1000)} == {
        1: 0.5001, 2: 0.2727, 10: 0.0737, 100: 0.0101, 1000: 0.0102,
    }  # fmt: skip


@pytest.mark.parametrize("variance", ["small", "large"])
def test_weights_turn_the_noise_error_into_the_kl(variance):
    """For t > 0 the KL is weight · ‖noise error‖² plus what the variances alone cost."""
    x_start, noise = torch.randn((2, 5, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wrong = noise + 0.3 * torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.tensor([1, 9, 99, 499, 999])
    x_t = q_sample(S, x_start, t, noise)
    of_a, of_b = (
        bound_term(S, x_start, x_t, t, convert(S, x_t, t, each, "noise", "x_start"), variance)
        for each in (wrong, noise)
    )
    torch.testing.assert_close(of_a - of_b, bound_weights(S, variance)[t] * ((wrong - noise) ** 2).sum(1))


# --- the bound -------------------------------------------------------------------------------------------------------

MEAN, VARIANCE = torch.tensor([0.4, -0.2], dtype=torch.float64), torch.tensor([0.25, 1.44], dtype=torch.float64)
ENTROPY = float(torch.distributions.Normal(MEAN, VARIANCE.sqrt()).entropy().sum())  # the least that any model can reach


def test_a_perfect_model_loses_only_what_x_T_still_shows():
    for schedule in (S, Schedule.linear(60), Schedule.cosine(100), Schedule.scaled_linear(1000)):
        bar = schedule.alpha_bars[-1]
        at_T = torch.distributions.Normal(bar.sqrt() * MEAN, (bar * VARIANCE + 1 - bar).sqrt())
        lost = torch.distributions.kl_divergence(at_T, torch.distributions.Normal(0.0, 1.0)).sum()
        bound = gaussian_bound(schedule, MEAN, VARIANCE, "optimal")
        assert bound.nats - ENTROPY == pytest.approx(float(lost), abs=2e-12, rel=1e-6)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_every_term_by_simulation(variance):
    """`bound_term` with the exact denoiser, averaged over data and noise: four standard errors at n = 40 000."""
    schedule, n = Schedule.linear(50), 40_000
    generator = torch.Generator().manual_seed(0)
    x_start = MEAN + VARIANCE.sqrt() * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    denoiser = GaussianDenoiser(schedule, MEAN, VARIANCE, "x_start")
    bound = gaussian_bound(schedule, MEAN, VARIANCE, variance)
    for t in (0, 1, 2, 10, 49):
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        x_t = q_sample(schedule, x_start, t, noise)
        terms = bound_term(schedule, x_start, x_t, t, denoiser(x_t, t), variance)
        wanted = bound.reconstruction if t == 0 else float(bound.matching[t - 1])
        assert abs(float(terms.mean()) - wanted) < 4 * float(terms.std()) / math.sqrt(n), t
    priors = prior_kl(schedule, x_start)
    assert abs(float(priors.mean()) - bound.prior) < 4 * float(priors.std()) / math.sqrt(n)


def test_the_whole_bound_is_the_log_ratio_of_two_paths():
    """E_q[ln q(path | x_start) - ln p(x_start, path)], from density functions and paths alone."""
    schedule, n = Schedule.linear(30), 20_000
    normal = torch.distributions.Normal
    generator = torch.Generator().manual_seed(0)
    x_start = MEAN + VARIANCE.sqrt() * torch.randn(n, 2, generator=generator, dtype=torch.float64)
    path = [x_start, *q_chain(schedule, x_start, generator)]
    denoiser = GaussianDenoiser(schedule, MEAN, VARIANCE, "x_start")
    for variance in ("small", "large"):
        sigma = reverse_variance(schedule, variance).sqrt()
        ratio = -normal(0.0, 1.0).log_prob(path[-1]).sum(1)
        for t in range(schedule.T):
            beta = schedule.betas[t]
            ratio = ratio + normal((1 - beta).sqrt() * path[t], beta.sqrt()).log_prob(path[t + 1]).sum(1)
            mean, _ = posterior(schedule, denoiser(path[t + 1], t), path[t + 1], t)
            ratio = ratio - normal(mean, sigma[t]).log_prob(path[t]).sum(1)
        bound = gaussian_bound(schedule, MEAN, VARIANCE, variance)
        assert abs(float(ratio.mean()) - bound.nats) < 4 * float(ratio.std()) / math.sqrt(n)


def test_the_small_variance_never_gets_close():
    """(γ + 1 - ln 2) / 2 = .442 nats, .638 bits per coordinate, are lost however long the chain is."""
    limit = (0.5772156649 + 1 - math.log(2)) / 2
    gaps = {}
    for T in (1000, 4000, 16_000):
        for variance in ("small", "large"):
            bound = gaussian_bound(Schedule.linear(T), MEAN, VARIANCE, variance)
            gaps[T, variance] = bits_per_dim(bound.nats - ENTROPY, 2)
    assert (
        gaps[1000, "small"]
        > gaps[4000, "small"]
        > gaps[16_000, "small"]
        > limit / math.log(2)
        == pytest.approx(0.638, abs=1e-3)
    )
    assert gaps[16_000, "small"] < 0.67
    assert gaps[1000, "large"] < 1e-3
    assert gaps[16_000, "large"] < 1e-4


def test_prior_kl_per_coordinate_is_small_and_has_no_parameters():
    for second_moment, wanted in ((0.25, 7.3e-6), (0.5, 1.5e-5), (1.0, 2.9e-5)):
        x_start = torch.full((1, 1), math.sqrt(second_moment), dtype=torch.float64)
        assert bits_per_dim(float(prior_kl(S, x_start)), 1) == pytest.approx(wanted, rel=0.03)
    assert not prior_kl(S, torch.ones(1, 1, requires_grad=True)).requires_grad


def test_bound_in_bits():
    bound = gaussian_bound(S, MEAN, VARIANCE)
    assert len(bound.matching) == 999
    assert bound.nats == pytest.approx(bound.reconstruction + float(bound.matching.sum()) + bound.prior)
    assert bound.bits_per_dim == pytest.approx(bound.nats / 2 / math.log(2))
    alone = [gaussian_bound(S, float(MEAN[i]), float(VARIANCE[i])).nats for i in (0, 1)]
    assert sum(alone) == pytest.approx(bound.nats)
