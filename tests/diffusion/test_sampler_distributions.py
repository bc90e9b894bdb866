"""What samplers make of a perfect network: their own error, known exactly on Gaussian data, and seen in draws."""

import math
from itertools import pairwise

import pytest
import torch

from course_lib.diffusion import (
    GaussianDenoiser,
    MixtureDenoiser,
    Schedule,
    ddim,
    ddim_step,
    ddpm,
    ddpm_step,
    dpm_solver_pp_2m,
    euler,
    heun,
    sample,
    timesteps,
)
from course_lib.runtime import generator

S = Schedule.linear(1000)
MEAN = torch.tensor([0.5, -0.3], dtype=torch.float64)
TURN = torch.tensor([[math.cos(0.6), -math.sin(0.6)], [math.sin(0.6), math.cos(0.6)]], dtype=torch.float64)
AXIS_VARIANCES = torch.tensor([0.09, 1.7], dtype=torch.float64)  # along the two columns of TURN
COVARIANCE = TURN @ torch.diag(AXIS_VARIANCES) @ TURN.T
DENOISERS = {kind: GaussianDenoiser(S, MEAN, COVARIANCE, prediction=kind) for kind in ("noise", "x_start", "v")}
DENOISER = DENOISERS["noise"]

# --- affine probing: on Gaussian data every sampler is affine, so a few calls give its exact output distribution -----


def probed(step, ts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance after all steps from x ~ N(0, I). `step(x, t, t_prev, noise)` is probed at 0, e₁, e₂."""
    zero, basis = torch.zeros(1, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    mean, covariance = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    for t, t_prev in zip(ts, [*ts[1:], -1], strict=True):
        b = step(zero, t, t_prev, zero)[0]
        A = (step(basis, t, t_prev, torch.zeros_like(basis)) - b).T
        N = (step(zero.expand(2, -1), t, t_prev, basis) - b).T
        mean, covariance = A @ mean + b, A @ covariance @ A.T + N @ N.T
    return mean, covariance


def exact(rule, ts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in plain numbers, one principal axis at a time. rule(ᾱ, ᾱ_prev) -> weights of x_start, x_t and noise.

    With gain g, the best guess of x_start is m + g (x_t - √ᾱ m): one line of school algebra per step.
    """
    bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).tolist()
    means, variances = [], []
    for m, s2 in zip((TURN.T @ MEAN).tolist(), AXIS_VARIANCES.tolist(), strict=True):
        mean, variance = 0.0, 1.0
        for t, t_prev in zip(ts, [*ts[1:], -1], strict=True):
            bar, bar_prev = bars[t], bars[t_prev] if t_prev >= 0 else 1.0
            gain = math.sqrt(bar) * s2 / (bar * s2 + 1 - bar)
            of_x_start, of_x_t, of_noise = rule(bar, bar_prev)
            slope = of_x_start * gain + of_x_t
            mean = slope * mean + of_x_start * (m - gain * math.sqrt(bar) * m)
            variance = slope**2 * variance + of_noise**2
        means.append(mean)
        variances.append(variance)
    return TURN @ torch.tensor(means, dtype=torch.float64), TURN @ torch.diag(
        torch.tensor(variances, dtype=torch.float64)
    ) @ TURN.T


def ddpm_rule(variance):
    def rule(bar, bar_prev):
        alpha = bar / bar_prev
        small = (1 - bar_prev) / (1 - bar) * (1 - alpha)
        std = math.sqrt(small if variance == "small" else 1 - alpha) if bar_prev < 1 else 0.0
        return (
            math.sqrt(bar_prev) * (1 - alpha) / (1 - bar),
            math.sqrt(alpha) * (1 - bar_prev) / (1 - bar),
            std,
        )

    return rule


def ddim_rule(eta):
    def rule(bar, bar_prev):
        std = eta * math.sqrt((1 - bar_prev) / (1 - bar)) * math.sqrt(1 - bar / bar_prev)
        # the noise is (x_t - √ᾱ x_start) / √(1-ᾱ)
        kept = math.sqrt(max(0.0, 1 - bar_prev - std**2)) / math.sqrt(1 - bar)
        return math.sqrt(bar_prev) - kept * math.sqrt(bar), kept, std

    return rule


@pytest.mark.parametrize("steps", [10, 37, 1000])
@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("small", ddpm_rule("small")),
        ("large", ddpm_rule("large")),
        (0.0, ddim_rule(0.0)),
        (0.5, ddim_rule(0.5)),
        (1.0, ddim_rule(1.0)),
    ],
)
def test_noisy_samplers_have_their_exact_output_distribution(steps, name, rule):
    def step(x, t, t_prev, noise):
        prediction = DENOISER(x, t)
        if isinstance(name, str):
            return ddpm_step(S, x, prediction, t, t_prev, noise, variance=name)[0]
        return ddim_step(S, x, prediction, t, t_prev, noise, eta=name)[0]

    ts = timesteps(1000, steps)
    for ours, wanted in zip(probed(step, ts), exact(rule, ts), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-9)


def whole_run(sampler, kind: str, ts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A deterministic sampler is one affine map from x_T: three start points give it, and its output distribution."""
    start = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
    x = sample(DENOISERS[kind], S, (3, 2), sampler=sampler, timesteps=ts, x=start, progress=False)
    A = (x[1:] - x[0]).T
    return x[0], A @ A.T


def solver_by_hand(name: str, ts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Each solver from its paper in its own coordinates, one axis at a time: x = b + a x_T as a pair of numbers.

    Euler and Heun: dx̄/dσ = (x̄ - D)/σ with D the denoised x̄ (Karras et al. 2022). DPM-Solver++(2M): algorithm 2.
    """
    bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).tolist()
    levels = [bars[t] for t in ts] + [1.0]
    offsets, slopes = [], []
    for m, s2 in zip((TURN.T @ MEAN).tolist(), AXIS_VARIANCES.tolist(), strict=True):

        def denoised(scaled, sigma, m=m, s2=s2):  # of x̄ = x_start + σ noise, as a pair (constant, factor of x_T)
            share = s2 / (s2 + sigma**2)
            return m - share * m + share * scaled[0], share * scaled[1]

        sigmas = [math.sqrt(1 / bar - 1) for bar in levels]
        scaled, before = (0.0, 1 / math.sqrt(levels[0])), None
        for sigma, ahead in pairwise(sigmas):
            D = denoised(scaled, sigma)
            slope = [(a - b) / sigma for a, b in zip(scaled, D, strict=True)]
            if name == "dpm_solver_pp_2m":
                aim = D
                if before is not None and ahead > 0:
                    r = math.log(before[1] / sigma) / math.log(sigma / ahead)  # λ = -ln σ
                    aim = [(1 + 1 / (2 * r)) * a - b / (2 * r) for a, b in zip(D, before[0], strict=True)]
                before = (D, sigma)
                scaled = [ahead / sigma * a + (1 - ahead / sigma) * b for a, b in zip(scaled, aim, strict=True)]
                continue
            arrived = [a + (ahead - sigma) * s for a, s in zip(scaled, slope, strict=True)]
            if name == "heun" and ahead > 0:
                end = [(a - b) / ahead for a, b in zip(arrived, denoised(arrived, ahead), strict=True)]
                middle = [(s + e) / 2 for s, e in zip(slope, end, strict=True)]
                arrived = [a + (ahead - sigma) * s for a, s in zip(scaled, middle, strict=True)]
            scaled = arrived
        offsets.append(scaled[0])
        slopes.append(scaled[1])
    A = TURN @ torch.diag(torch.tensor(slopes, dtype=torch.float64)) @ TURN.T
    return TURN @ torch.tensor(offsets, dtype=torch.float64), A @ A.T


@pytest.mark.parametrize("kind", ["noise", "x_start", "v"])
@pytest.mark.parametrize("steps", [1, 2, 10, 37, 50])
@pytest.mark.parametrize("sampler", [dpm_solver_pp_2m, euler, heun, ddim])
def test_deterministic_samplers_have_their_exact_output_distribution(sampler, steps, kind):
    name = "euler" if sampler is ddim else sampler.__name__
    ts = timesteps(1000, steps)
    for ours, wanted in zip(whole_run(sampler, kind, ts), solver_by_hand(name, ts), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-8)


def test_few_steps_have_too_little_variance():
    """Correct code does not reproduce the data's covariance with few steps: here is by how much it falls short."""
    shares = [
        float(torch.trace(whole_run(ddim, "noise", timesteps(1000, steps))[1]) / torch.trace(COVARIANCE))
        for steps in (10, 50, 100, 1000)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.7
    assert 0.98 < shares[-1] < 1


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (ddim, 1), (heun, 2), (dpm_solver_pp_2m, 2)])
def test_order_of_convergence(sampler, order):
    """Against the exact solution of the probability-flow ODE, x̄ = m + (x̄₀ - m) √(s² + σ²) / √(s² + σ₀²).

    Measured on a fine schedule, before the last step: that one goes to σ = 0, where a second slope can't be asked.
    """
    fine = Schedule.linear(2**14)
    denoiser = GaussianDenoiser(
        fine, torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    )
    start, errors = torch.tensor([[1.3], [-0.4]], dtype=torch.float64), []
    high, low = 2**14 - 1, 2**11
    for steps in (128, 256, 512):
        ts = [round(high - i * (high - low) / steps) for i in range(steps + 1)]
        states = sampler(denoiser, fine, (2, 1), timesteps=ts, x=start)
        (x,) = (state.x for state in states if state.t == low)
        bars = fine.alpha_bars[[high, low]]
        sigma0, sigma = (1 / bars - 1).sqrt()
        spread = ((0.3 + sigma**2) / (0.3 + sigma0**2)).sqrt()
        wanted = bars[1].sqrt() * (0.5 + (start / bars[0].sqrt() - 0.5) * spread)
        errors.append(float((x - wanted).abs().max()))
    measured = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(each - order) < 0.2 for each in measured), (measured, errors)


# --- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["noise", "v"])
def test_ddpm_recovers_the_weights_of_a_mixture(kind):
    """Two modes, .9 and .1, at -1 and 1 with std .1: within three standard errors at n = 4000, T = 1000."""
    n, weights = 4000, torch.tensor([0.9, 0.1])
    mixture = MixtureDenoiser(S, weights, torch.tensor([[-1.0], [1.0]]), torch.tensor([0.01, 0.01]), kind)
    x = sample(mixture, S, (n, 1), sampler=ddpm, generator=generator(5), progress=False)
    right = x > 0
    assert abs(float(right.float().mean()) - 0.1) < 3 * math.sqrt(0.09 / n)
    for mode, mean in ((right, 1.0), (~right, -1.0)):
        count = int(mode.sum())
        assert abs(float(x[mode].mean()) - mean) < 3 * 0.1 / math.sqrt(count) + 0.002
        # the small variance makes each mode a little too narrow: .0963 instead of .1 (see test_two_variances)
        assert abs(float(x[mode].std()) - 0.0963) < 3 * 0.1 / math.sqrt(2 * count)


@pytest.mark.parametrize(("T", "small", "large"), [(1000, 0.09631, 0.10077), (25, 0.05991, 0.15107)])
def test_two_variances(T, small, large):
    """Data of std .1. At T = 1000 the choice hardly matters; at T = 25 one is far too narrow and one far too wide.

    The numbers are those of the recursion std² ← gain² std² + σ², written in NumPy apart from this library. Four
    standard errors of 20,000 draws are 2%.
    """
    schedule = Schedule.linear(T)
    denoiser = GaussianDenoiser(schedule, torch.zeros(1).double(), torch.tensor([0.01], dtype=torch.float64))
    for variance, wanted in (("small", small), ("large", large)):
        x = sample(
            denoiser, schedule, (20_000, 1), sampler=ddpm, variance=variance, generator=generator(0), progress=False
        )
        assert float(x.std()) == pytest.approx(wanted, rel=0.02)


def test_without_noise_the_samples_collapse():
    """σ_t z is not decoration: without it every particle ends in the mean of the data."""
    denoiser = GaussianDenoiser(S, torch.zeros(1).double(), torch.ones(1).double())
    x = torch.randn(2000, 1, generator=generator(0), dtype=torch.float64)
    for t in range(999, -1, -1):
        x, _ = ddpm_step(S, x, denoiser(x, t), t, t - 1, torch.zeros_like(x))
    assert float(x.std()) == pytest.approx(0.0055, abs=0.001)


def test_the_way_back_draws_a_new_sample():
    """Noise x_start all the way and sample: the distribution is right, the image is another."""
    denoiser = MixtureDenoiser(S, torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.01, 0.01]))
    n, g = 2000, generator(1)
    x_start = torch.where(torch.rand(n, 1, generator=g) < 0.5, -1.0, 1.0) + 0.1 * torch.randn(n, 1, generator=g)
    x_T = S.alpha_bars[-1].sqrt().float() * x_start + (1 - S.alpha_bars[-1]).sqrt().float() * torch.randn(
        n, 1, generator=g
    )
    x = sample(denoiser, S, (n, 1), sampler=ddpm, x=x_T, generator=g, progress=False)
    same = float((x.sign() == x_start.sign()).float().mean())
    assert abs(same - 0.5) < 4 * 0.5 / math.sqrt(n) + 0.01  # √ᾱ_T = .006 of it is left
    assert 0.4 < float((x > 0).float().mean()) < 0.6
