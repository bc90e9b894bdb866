"""Every tagged equation of lesson 10, checked by a route that does not use the formula itself."""

import math
from itertools import pairwise

import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import norm

from course_lib.diffusion import (
    GaussianDenoiser,
    MixtureDenoiser,
    Schedule,
    ddim_step,
    ddpm,
    ddpm_step,
    dpm_solver_pp_2m_step,
    euler_step,
    heun_step,
    q_sample,
    q_step,
    slerp,
    timesteps,
    x_start_and_noise,
)
from course_lib.foundations import Mixture

N = 200_000  # draws; tolerances below are 4 standard errors (a two-sided miss once in 16,000 runs; seeds are fixed)
S = Schedule.linear(1000)
WEIGHTS, MEANS, VARIANCES = (torch.tensor(v, dtype=torch.float64) for v in ([0.9, 0.1], [-1.0, 1.0], [0.04, 0.04]))
JUMPS = ((999, 700), (400, 399), (300, 20))


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def probe(step, *args, **options):
    """The weights of x_start, x_t and noise in a step that is told the x_start."""
    x_start, x_t, noise = torch.eye(3, dtype=torch.float64)[:, :, None]
    x_prev, _ = step(S, x_t, x_start, *args, noise, kind="x_start", **options)
    return x_prev[:, 0].tolist()


def bayes_on_a_grid(x_start, x_t, t, t_prev):
    """Mean and variance of x_prev: its density given x_start, times the likelihood of x_t, summed on a grid."""
    bar_prev = S.alpha_bars[t_prev].item()
    x = torch.linspace(-8, 8, 400_001, dtype=torch.float64)
    log_prior = torch.distributions.Normal(math.sqrt(bar_prev) * x_start, math.sqrt(1 - bar_prev)).log_prob(x)
    kept = math.prod(S.alphas[t_prev + 1 : t + 1].tolist())
    chances = torch.softmax(log_prior - (x_t - math.sqrt(kept) * x) ** 2 / (2 * (1 - kept)), dim=0)
    mean = (chances * x).sum().item()
    return mean, (chances * (x - mean) ** 2).sum().item()


def levels(t):
    """σ_t, as the log-SNR gives it."""
    return math.exp(-S.log_snr[t].item() / 2)


def test_eq_10_1():
    """The mean of x_0 given x_t, integrated over a grid of x_0."""
    denoiser = MixtureDenoiser(S, WEIGHTS, MEANS[:, None], VARIANCES, prediction="x_start")
    x_0 = torch.linspace(-3, 3, 20_001, dtype=torch.float64)
    x_t = torch.tensor([-2.0, -0.3, 0.1, 0.8, 2.4], dtype=torch.float64)
    for t in (10, 300, 999):
        a = S.alpha_bars[t].item()
        likelihood = torch.distributions.Normal(math.sqrt(a) * x_0, math.sqrt(1 - a)).log_prob(x_t[:, None]).exp()
        weights = Mixture(WEIGHTS, MEANS, VARIANCES).density(x_0) * likelihood
        by_grid = torch.trapezoid(weights * x_0, x_0) / torch.trapezoid(weights, x_0)
        assert torch.allclose(denoiser(x_t[:, None], t)[:, 0], by_grid, atol=1e-8)


def test_eq_10_2():
    """An image is noised with known noise; whoever knows the image gets that noise back."""
    image, noise = normal(4, 3, seed=1), normal(4, 3, seed=2)
    for t in (0, 500, 999):
        x_start, found = x_start_and_noise(S, q_sample(S, image, t, noise), t, image, "x_start")
        assert torch.allclose(found, noise, atol=1e-9)
        assert torch.equal(x_start, image)


@pytest.mark.parametrize(("t", "t_prev"), JUMPS)
def test_eq_10_3(t, t_prev):
    """The step is affine; its mean is that of Bayes' rule on a grid for three pairs of x_start and x_t."""
    first, second, _ = probe(ddpm_step, t, t_prev)
    for x_start, x_t in ((0.8, -0.3), (-1.0, 1.7), (0.0, 0.4)):
        assert first * x_start + second * x_t == pytest.approx(bayes_on_a_grid(x_start, x_t, t, t_prev)[0], abs=1e-7)


@pytest.mark.parametrize(("t", "t_prev"), JUMPS)
def test_eq_10_4(t, t_prev):
    """Small: the variance on the grid. Large: that of many draws that were noised from t_prev to t step by step."""
    assert probe(ddpm_step, t, t_prev)[2] ** 2 == pytest.approx(bayes_on_a_grid(0.5, 0.2, t, t_prev)[1], rel=1e-4)
    x, generator = torch.full((20_000, 1), 0.7, dtype=torch.float64), torch.Generator().manual_seed(t)
    for i in range(t_prev + 1, t + 1):
        x = q_step(S, x, i, torch.randn(x.shape, generator=generator, dtype=torch.float64))
    large = probe(ddpm_step, t, t_prev, variance="large")[2] ** 2
    assert abs(x.var().item() - large) < 4 * large * math.sqrt(2 / len(x))


def test_eq_10_5():
    """Backwards without noise, and forwards without noise: one shrinks x_T as the other shrinks x_0."""
    denoiser = GaussianDenoiser(S, torch.zeros(1), torch.ones(1))
    backward = forward = column(1, -2)
    for t in reversed(range(S.T)):
        backward, _ = ddpm_step(S, backward, denoiser(backward, t), t, t - 1, torch.zeros(2, 1, dtype=torch.float64))
    for t in range(S.T):
        forward = q_step(S, forward, t, torch.zeros(2, 1, dtype=torch.float64))
    assert torch.allclose(backward, forward, rtol=1e-9)
    assert forward[0].item() == pytest.approx(0.0064, abs=5e-5)


def test_eq_10_6():
    """Many samples are as spread as the recursion over probed steps says."""
    for T, variance in ((25, "small"), (25, "large"), (60, "small")):
        schedule = Schedule.linear(T)
        denoiser = GaussianDenoiser(schedule, torch.zeros(1), torch.tensor([0.09], dtype=torch.float64))
        recursion = 1.0
        for t in reversed(range(T)):
            x, z = column(1, 0), column(0, 1)
            a, b = ddpm_step(schedule, x, denoiser(x, t), t, t - 1, z, variance=variance)[0][:, 0].tolist()
            recursion = a**2 * recursion + b**2
        start = normal(50_000, 1, seed=T)
        states = ddpm(
            denoiser,
            schedule,
            (50_000, 1),
            x=start,
            variance=variance,
            generator=torch.Generator().manual_seed(3),
        )
        *_, last = states
        assert abs(last.x.var().item() - recursion) < 4 * recursion * math.sqrt(2 / 50_000)


@pytest.mark.parametrize("T", [50, 1000, 777])
def test_eq_10_7(T):
    """n points that divide (0, T] evenly, the nearest whole numbers to them, counted from 0."""
    for n in (1, 3, 7, 10, 50):
        found = timesteps(T, n)
        even = torch.linspace(T, 0, n + 1, dtype=torch.float64)[:-1]
        assert found[0] == T - 1
        assert len(set(found)) == n
        assert (torch.tensor(found) + 1 - even).abs().max() <= 0.5 + 1e-9


def test_eq_10_8():
    """The derivative by automatic differentiation, at every step of two schedules."""
    for schedule in (Schedule.linear(1000), Schedule.cosine(1000)):
        prediction = torch.zeros(1000, 1, dtype=torch.float64, requires_grad=True)
        x_start, _ = x_start_and_noise(schedule, normal(1000, 1, seed=5), torch.arange(1000), prediction, "noise")
        (slope,) = torch.autograd.grad(x_start.sum(), prediction)
        assert torch.allclose(slope[:, 0].abs().log(), -schedule.log_snr / 2, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_eq_10_9(eta):
    """With the true x_0 and noise the step arrives where one jump of the forward process arrives."""
    for t, t_prev in JUMPS:
        x_0 = torch.full((N, 1), 0.7, dtype=torch.float64)
        eps, z = normal(N, 1, seed=t), normal(N, 1, seed=t + 1)
        x_prev, _ = ddim_step(S, q_sample(S, x_0, t, eps), eps, t, t_prev, z, eta=eta)
        jumped = q_sample(S, x_0, t_prev, normal(N, 1, seed=t + 2))
        std = jumped.std().item()
        assert abs((x_prev.mean() - jumped.mean()).item()) < 4 * std * math.sqrt(2 / N)
        assert abs(x_prev.var().item() / std**2 - 1) < 4 * math.sqrt(4 / N)
        old, new = (torch.corrcoef(torch.cat([x_prev, other], dim=1).T)[0, 1].item() for other in (eps, z))
        assert abs(old**2 + new**2 - 1) < 1e-2  # nothing but the two noises
        assert old > 0
        assert (abs(new) < 4 / math.sqrt(N)) == (eta == 0)


@pytest.mark.parametrize(("t", "t_prev"), JUMPS)
def test_eq_10_10(t, t_prev):
    """Fresh noise in units of the posterior's standard deviation, found on a grid."""
    posterior_std = math.sqrt(bayes_on_a_grid(-0.2, 0.6, t, t_prev)[1])
    for eta in (0.0, 0.3, 0.8, 1.0):
        assert probe(ddim_step, t, t_prev, eta=eta)[2] == pytest.approx(eta * posterior_std, rel=1e-4)


def test_eq_10_11():
    """Between two directions the arc turns evenly, stays in their plane and keeps their length."""
    a, b = (5 * v / v.norm() for v in normal(2, 1, 40, seed=6))

    def angle(u, v):
        return torch.arccos((u * v).sum() / (u.norm() * v.norm())).item()

    assert torch.allclose(slerp(a, b, 0), a)
    assert torch.allclose(slerp(a, b, 1), b)
    for w in (0.1, 0.5, 0.8):
        c = slerp(a, b, w)
        assert c.norm().item() == pytest.approx(5)
        assert angle(a, c) == pytest.approx(w * angle(a, b), abs=1e-6)
        assert angle(c, b) == pytest.approx((1 - w) * angle(a, b), abs=1e-6)


def test_eq_10_12():
    """Stretched, the image keeps its weight 1 and the noise has the measured level σ."""
    for t in (50, 500, 900):
        x_0 = torch.full((N, 1), 0.4, dtype=torch.float64)
        stretched = q_sample(S, x_0, t, normal(N, 1, seed=t)) / S.alpha_bars[t].sqrt()
        level = levels(t)
        assert abs(stretched.mean().item() - 0.4) < 4 * level / math.sqrt(N)
        assert abs(stretched.std().item() / level - 1) < 4 / math.sqrt(2 * N)


@pytest.mark.parametrize("step", [euler_step, ddim_step])
def test_eq_10_13(step):
    """Where a ruler between (σ_t, x̄) and (0, x_start) meets σ_prev."""
    x_t, prediction = normal(5, 2, seed=7), normal(5, 2, seed=8)
    for t, t_prev in JUMPS:
        x_prev, x_start = step(S, x_t, prediction, t, t_prev)
        start = x_t / S.alpha_bars[t].sqrt()
        ruler = torch.lerp(x_start, start, levels(t_prev) / levels(t))
        assert torch.allclose(x_prev / S.alpha_bars[t_prev].sqrt(), ruler, atol=1e-8)
        assert torch.allclose((start - x_start) / levels(t), prediction, atol=1e-8)  # its slope is the noise


def follow(slope, start, high, low):
    """The equation dx̄/dσ = slope, solved by somebody else's solver."""
    solution = solve_ivp(
        lambda level, x: slope(torch.as_tensor(x), level), (high, low), start, rtol=1e-9, atol=1e-11, method="DOP853"
    )
    return solution.y[:, -1]


def test_eq_10_14():
    """Who follows the equation keeps the rank: the share of data-plus-noise below each particle stays the same."""
    weights, means, variances = (v.tolist() for v in (WEIGHTS, MEANS, VARIANCES))

    def share_below(x, level):
        return sum(
            w * norm.cdf(x, m, math.sqrt(v + level**2)) for w, m, v in zip(weights, means, variances, strict=True)
        )

    def slope(x, level):
        bar = torch.tensor([[1 / (1 + level**2)]], dtype=torch.float64)
        x_start = MixtureDenoiser(S, WEIGHTS, MEANS[:, None], VARIANCES).expected_x_start(x[:, None] * bar.sqrt(), bar)
        return ((x - x_start[:, 0]) / level).numpy()  # the noise, equation 10.12

    start = torch.tensor([-9.0, -3.0, 0.0, 4.0, 8.0], dtype=torch.float64).numpy()
    for low in (2.0, 0.5, 0.1):
        end = follow(slope, start, 5.0, low)
        assert end == pytest.approx(sorted(end))
        assert share_below(end, low) == pytest.approx(share_below(start, 5.0), abs=1e-6)


def test_eq_10_15():
    """A slope that changes evenly with σ, here σ itself: the mean of both ends gives the integral exactly."""
    x_t = normal(3, 1, seed=9)
    for t, t_prev in JUMPS:
        slope, slope_ahead = (torch.full((3, 1), levels(i), dtype=torch.float64) for i in (t, t_prev))
        ahead, _ = euler_step(S, x_t, slope, t, t_prev)
        x_prev, _ = heun_step(S, x_t, slope, t, t_prev, ahead, slope_ahead)
        moved = x_prev / S.alpha_bars[t_prev].sqrt() - x_t / S.alpha_bars[t].sqrt()
        assert torch.allclose(moved, torch.full_like(moved, (levels(t_prev) ** 2 - levels(t) ** 2) / 2), atol=1e-9)


def test_eq_10_16():
    """x_start moves evenly in λ. One step misses the true solution by an error of third order in its length."""
    fine, errors = Schedule.linear(100_000), []
    half_log_snr = fine.log_snr / 2
    for h in (0.4, 0.2, 0.1):
        before, t, t_prev = ((half_log_snr - lam).abs().argmin().item() for lam in (0.3 - 0.7 * h, 0.3, 0.3 + h))
        lam_before, lam, lam_prev = (half_log_snr[i].item() for i in (before, t, t_prev))
        x_t = column(1.3)
        told = {i: column(0.2 + 0.9 * half_log_snr[i].item()) for i in (before, t)}
        x_prev, _ = dpm_solver_pp_2m_step(fine, x_t, told[t], t, t_prev, (told[before], before), kind="x_start")
        stretched = (x_t[:, 0] / fine.alpha_bars[t].sqrt()).numpy()
        true = follow(
            lambda x, level: ((x - (0.2 - 0.9 * math.log(level))) / level).numpy(),
            stretched,
            math.exp(-lam),
            math.exp(-lam_prev),
        )
        errors.append(abs((x_prev / fine.alpha_bars[t_prev].sqrt()).item() - true.item()))
        assert lam_before < lam < lam_prev
        first_order, _ = dpm_solver_pp_2m_step(fine, x_t, told[t], t, t_prev, kind="x_start")
        assert torch.allclose(first_order, ddim_step(fine, x_t, told[t], t, t_prev, kind="x_start")[0])
    assert all(6.5 < a / b < 9.5 for a, b in pairwise(errors)), errors  # 2³ = 8; second order: 4


def test_eq_10_17():
    """Somebody else's solver, from high noise to low, for three variances of the data."""
    for variance in (0.01, 0.25, 1.0):
        start = torch.tensor([-3.0, 1.0, 20.0], dtype=torch.float64).numpy()
        denoiser = GaussianDenoiser(S, torch.zeros(1), torch.tensor([variance], dtype=torch.float64))

        def slope(x, level, denoiser=denoiser):
            bar = torch.tensor([[1 / (1 + level**2)]], dtype=torch.float64)
            return ((x - denoiser.expected_x_start(x[:, None] * bar.sqrt(), bar)[:, 0]) / level).numpy()

        for low in (1.0, 0.1):
            formula = start * math.sqrt((variance + low**2) / (variance + 10.0**2))
            assert follow(slope, start, 10.0, low) == pytest.approx(formula, rel=1e-6)
