"""Every tagged equation of lesson 20, checked by a route that does not use the formula itself."""

import math

import pytest
import torch
from scipy import stats

from course_lib.data import ring
from course_lib.diffusion import (
    ExactVelocity,
    GaussianDenoiser,
    MixtureDenoiser,
    Schedule,
    convert,
    ddim,
    ddim_step,
    distillation_loss,
    flow_alpha_bar,
    flow_convert,
    flow_loss,
    flow_ode,
    flow_path,
    one_step_target,
    q_sample,
    straightness,
    timesteps,
)

COSINE = Schedule.cosine(1000)


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def double(*shape, seed=0):
    return torch.randn(shape, generator=fresh(seed), dtype=torch.float64)


def last(states):
    *_, state = states
    return state.x


def test_eq_20_1():
    """A place on the line divides it: its distances to the two ends are as t to 1 - t, and add up to the whole."""
    x, noise, t = double(50, 3), double(50, 3, seed=1), torch.rand(50, generator=fresh(2), dtype=torch.float64)
    place, _ = flow_path(x, t, noise)
    whole, to_x, to_noise = ((a - b).norm(dim=1) for a, b in ((x, noise), (place, x), (place, noise)))
    assert torch.allclose(to_x, t * whole)
    assert torch.allclose(to_x + to_noise, whole)


def test_eq_20_2():
    """The derivative, by differences of the place."""
    x, noise = double(1, 4), double(1, 4, seed=1)
    for t in (0.1, 0.5, 0.9):
        ahead, behind = (flow_path(x, t + d, noise)[0] for d in (1e-4, -1e-4))
        assert torch.allclose((ahead - behind) / 2e-4, flow_path(x, t, noise)[1], atol=1e-7)


def test_eq_20_3():
    """Number by number; and its lowest value for points of variance 1, (2 - (1 - 2t)² / ((1-t)² + t²)) on average."""
    x, noise, t = double(5, 2), double(5, 2, seed=1), torch.rand(5, generator=fresh(2), dtype=torch.float64)

    def model(x_t, t, cond=None):
        return x_t.sin() + t[:, None]

    model.prediction = "velocity"
    total = []
    for k in range(5):
        row = 0.0
        for j in range(2):
            place = (1 - t[k]) * x[k, j] + t[k] * noise[k, j]
            row += (math.sin(place) + t[k] - (noise[k, j] - x[k, j])).item() ** 2
        total.append(row / 2)
    assert flow_loss(model, x, t, noise).tolist() == pytest.approx(total)
    n = 200_000
    best = ExactVelocity(GaussianDenoiser(COSINE, torch.zeros(1), torch.ones(1)))
    for time in (0.2, 0.5, 0.9):
        loss = flow_loss(best, double(n, 1, seed=3), torch.full((n,), time).double(), double(n, 1, seed=4))
        left = 2 - (2 * time - 1) ** 2 / ((1 - time) ** 2 + time**2)
        assert abs(loss.mean() - left) < 4 * loss.std() / math.sqrt(n)


def test_eq_20_4():
    """Simulation alone: among lines that pass a small window, the mean of noise minus point is the field's answer."""
    n, t, window = 4_000_000, 0.55, 0.02
    weights, means, variance = torch.tensor([0.4, 0.6]).double(), torch.tensor([-1.0, 1.0]).double(), 0.04
    g = fresh(1)
    part = torch.multinomial(weights, n, replacement=True, generator=g)
    x = means[part] + variance**0.5 * torch.randn(n, generator=g, dtype=torch.float64)
    noise = torch.randn(n, generator=g, dtype=torch.float64)
    x_t, velocity = (1 - t) * x + t * noise, noise - x
    field = ExactVelocity(MixtureDenoiser(COSINE, weights, means[:, None], torch.full((2,), variance)))
    for place in (-0.6, 0.0, 0.5):
        here = (x_t - place).abs() < window
        found = velocity[here]
        wanted = field(torch.tensor([[place]]).double(), t).item()
        assert abs(found.mean().item() - wanted) < 4 * found.std().item() / math.sqrt(len(found)) + 0.005


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_eq_20_5(steps):
    """For data N(0, s²) a step multiplies: its factors, multiplied by hand."""
    s2 = 0.3
    field, x = ExactVelocity(GaussianDenoiser(COSINE, torch.zeros(1), torch.tensor([s2]).double())), double(6, 1)
    factor, h = 1.0, 1 / steps
    for k in range(steps):
        t = 1 - k * h
        factor *= 1 - h * (t - (1 - t) * s2) / ((1 - t) ** 2 * s2 + t**2)
    assert torch.allclose(last(flow_ode(field, (6, 1), steps, x=x)), factor * x, atol=1e-7)


@pytest.mark.parametrize("t", [0.0, 0.25, 0.8, 1.0])
def test_eq_20_6(t):
    """The ends that lines were made of come back, at both ends of time, too."""
    x, noise = double(9, 2), double(9, 2, seed=1)
    x_t, velocity = flow_path(x, t, noise)
    assert torch.allclose(flow_convert(x_t, t, velocity, "velocity", "x_start"), x)
    assert torch.allclose(flow_convert(x_t, t, velocity, "velocity", "noise"), noise)


def test_eq_20_7():
    """Eight steps of DDIM, and eight of Euler at the times with the same signal-to-noise ratio, found by bisection."""
    denoiser = MixtureDenoiser(COSINE, torch.full((8,), 1 / 8), ring.means(), torch.full((8,), ring.STD**2))
    times = []
    for step in timesteps(1000, 8):
        ratio = (COSINE.alpha_bars[step] / (1 - COSINE.alpha_bars[step])).item()
        low, high = 0.0, 1.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if ((1 - middle) / middle) ** 2 > ratio else (low, middle)
        times.append(low)
        assert flow_alpha_bar(torch.tensor(low, dtype=torch.float64)).item() == pytest.approx(
            COSINE.alpha_bars[step].item(), rel=1e-6
        )
    x = double(40, 2)
    by_ddim = last(ddim(denoiser, COSINE, x.shape, 8, x=x))
    stretched = math.hypot(1 - times[0], times[0]) * x
    by_flow = last(flow_ode(ExactVelocity(denoiser), x.shape, times=[*times, 0.0], x=stretched))
    assert torch.allclose(by_flow, by_ddim, atol=1e-6)


def test_eq_20_8():
    """On a line it is twice the squared area between the distribution functions: scipy's energy distance, squared."""
    a, b = double(300, 1), 0.5 + 1.4 * double(200, 1, seed=1)

    def apart(x, y):
        return torch.cdist(x, y).mean().item()

    found = 2 * apart(a, b) - apart(a, a) - apart(b, b)
    assert found == pytest.approx(stats.energy_distance(a[:, 0], b[:, 0]) ** 2, rel=1e-9)
    assert 2 * apart(a, a) - apart(a, a) - apart(a, a) == 0


def test_eq_20_9():
    """Paths of a Gaussian are known: x_1 √((1-t)² s² + t²). The integral by fine sums of its derivative, per axis."""
    variances = torch.tensor([0.04, 4.0]).double()
    x = double(2000, 2)
    t = torch.linspace(1, 0, 4001, dtype=torch.float64)[:, None, None]
    path = x * ((1 - t) ** 2 * variances + t**2).sqrt()
    middle = (t[:-1] + t[1:]) / 2
    slope = (middle - (1 - middle) * variances) / ((1 - middle) ** 2 * variances + middle**2).sqrt()
    expected = (((1 - variances.sqrt()) - slope) ** 2).mean(dim=0)[0] @ (x**2).mean(dim=0)
    assert straightness(path) == pytest.approx(expected.item(), rel=1e-4)
    assert straightness(path) > 0.1, "a Gaussian's paths are straight in space, but not walked evenly"


@pytest.mark.parametrize(("t", "t_end"), [(999, 874), (500, 250), (62, -1)])
def test_eq_20_10(t, t_end):
    """From the two ends of a known mixture of picture and noise, the picture; and DDIM's step arrives there."""
    clean, noise = double(7, 2), double(7, 2, seed=1)
    x_t = q_sample(COSINE, clean, t, noise)
    x_end = clean if t_end < 0 else q_sample(COSINE, clean, t_end, noise)
    assert torch.allclose(one_step_target(COSINE, x_t, x_end, t, t_end), clean, atol=1e-6)
    elsewhere = double(7, 2, seed=2)
    target = one_step_target(COSINE, x_t, elsewhere, t, t_end)
    assert torch.allclose(ddim_step(COSINE, x_t, target, t, t_end, kind="x_start")[0], elsewhere, atol=1e-6)


def test_eq_20_11():
    """The error of v is that of the student's guess, by (SNR + 1): from where its step and its teacher's two end."""
    teacher = MixtureDenoiser(COSINE, torch.full((8,), 1 / 8), ring.means(), torch.full((8,), ring.STD**2))
    visited, place = timesteps(1000, 4), torch.tensor([0, 1])
    x, noise = double(2, 2), double(2, 2, seed=1)

    def student(x_t, t, cond=None):
        return 0.3 * x_t

    student.prediction = "v"
    found = distillation_loss(student, teacher, COSINE, x, place, noise, visited)
    for k in range(2):
        t, mid, end = [*visited, -1][2 * k : 2 * k + 3]
        x_t = q_sample(COSINE, x[k : k + 1], t, noise[k : k + 1])
        goal, _ = ddim_step(COSINE, x_t, teacher(x_t, t), t, mid)
        goal, _ = ddim_step(COSINE, goal, teacher(goal, mid), mid, end)
        reached, guess = ddim_step(COSINE, x_t, 0.3 * x_t, t, end, kind="v")
        assert torch.allclose(guess, convert(COSINE, x_t, t, 0.3 * x_t, "v", "x_start"))
        bar, bar_end = COSINE.alpha_bars[t].item(), 1.0 if end < 0 else COSINE.alpha_bars[end].item()
        gain = bar_end**0.5 - (1 - bar_end) ** 0.5 / (1 - bar) ** 0.5 * bar**0.5  # how far the guess moves the end
        off = ((reached - goal) / gain).square().mean().item()
        assert found[k].item() == pytest.approx(off * (bar / (1 - bar) + 1), rel=1e-5)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_time_the_other_way():
    """On data N(m, s²), where noise x must become m + s x: only the right one of four samplers gets there."""
    mean, std = torch.tensor([0.6, -0.4]).double(), torch.tensor([0.2, 0.5]).double()
    field, x = ExactVelocity(GaussianDenoiser(COSINE, mean, std**2)), double(50, 2)
    ends = {}
    for sign, clock in ((-1, "down"), (1, "down"), (-1, "up"), (1, "up")):
        y = x
        for k in range(200):
            y = y + sign / 200 * field(y, 1 - k / 200 if clock == "down" else (k + 1) / 200)
        ends[sign, clock] = (y - (mean + std * x)).norm(dim=1).mean().item()
    assert ends.pop((-1, "down")) < 0.02
    assert min(ends.values()) > 0.1, ends


def test_the_cubic_kernel_does_not_see_the_ring():
    """Its first three moments are a round blur's: odd ones 0, second ones the same in all directions."""
    means = ring.means().double()
    for a in range(4):
        for b in range(4 - a):
            if a + b:
                moment = (means[:, 0] ** a * means[:, 1] ** b).mean().item()
                assert moment == pytest.approx(0.5 if (a, b) in ((2, 0), (0, 2)) else 0.0, abs=1e-6)
