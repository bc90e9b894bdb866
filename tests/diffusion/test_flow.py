"""Flow matching: exact velocities by other routes, the ODE's map in closed form; and that it is DDIM in other words."""

import math

import pytest
import torch
from torch import nn

from course_lib.diffusion import (
    ExactVelocity,
    FiniteDenoiser,
    GaussianDenoiser,
    MixtureDenoiser,
    Schedule,
    ddim_step,
    flow_alpha_bar,
    flow_convert,
    flow_loss,
    flow_ode,
    flow_path,
    straightness,
)

S = Schedule.cosine(50)
WEIGHTS, MEANS = torch.tensor([0.3, 0.7]).double(), torch.tensor([[-1.0, 0.5], [0.8, -0.2]]).double()
VARIANCES = torch.tensor([0.04, 0.2]).double()
MIXTURE = ExactVelocity(MixtureDenoiser(S, WEIGHTS, MEANS, VARIANCES))


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def double(*shape, seed=0):
    return torch.randn(shape, generator=fresh(seed), dtype=torch.float64)


def last(states):
    *_, state = states
    return state.x


# --- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 2), (5, 3, 4, 4), (5,)])
def test_a_line_runs_from_the_picture_to_the_noise_at_a_constant_velocity(shape):
    x, noise = double(*shape), double(*shape, seed=1)
    t = torch.rand(5, generator=fresh(2), dtype=torch.float64)
    assert torch.equal(flow_path(x, 0, noise)[0], x)
    assert torch.equal(flow_path(x, 1.0, noise)[0], noise)
    here, velocity = flow_path(x, t, noise)
    there, same = flow_path(x, (t + 1) / 2, noise)
    assert torch.equal(velocity, same)
    away = ((1 - t) / 2).reshape(-1, *[1] * (len(shape) - 1))
    assert torch.allclose(here + away * velocity, there, atol=1e-12)


def test_one_time_for_all_is_that_time_for_each():
    x, noise = double(4, 3), double(4, 3, seed=1)
    for a, b in zip(flow_path(x, 0.3, noise), flow_path(x, torch.full((4,), 0.3).double(), noise), strict=True):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("source", ["velocity", "x_start", "noise"])
@pytest.mark.parametrize("target", ["velocity", "x_start", "noise"])
def test_every_kind_says_the_same(source, target):
    x, noise, t = double(6, 2), double(6, 2, seed=1), torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    x_t, velocity = flow_path(x, t, noise)
    known = {"velocity": velocity, "x_start": x, "noise": noise}
    assert torch.allclose(flow_convert(x_t, t, known[source], source, target), known[target], atol=1e-10)


def test_a_velocity_can_be_read_at_both_ends():
    x, noise = double(3, 2), double(3, 2, seed=1)
    for t in (0.0, 1.0):
        x_t, velocity = flow_path(x, t, noise)
        assert torch.allclose(flow_convert(x_t, t, velocity, "velocity", "x_start"), x)
        assert torch.allclose(flow_convert(x_t, t, velocity, "velocity", "noise"), noise)
    with pytest.raises(ValueError, match="says nothing where t is 0"):
        flow_convert(x, 0.0, x, "x_start", "velocity")
    with pytest.raises(ValueError, match="says nothing where t is 1"):
        flow_convert(x, torch.tensor([0.2, 1.0, 0.3]), x, "noise", "x_start")


# --- exact velocities ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.05, 0.3, 0.7, 1.0])
def test_the_exact_velocity_of_a_gaussian(t):
    """x_t is N((1-t) m, V) with V = (1-t)² Σ + t² I: its mean moves by -m, and its axes stretch by V'/2V."""
    mean, variances = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.1, 2.0]).double()
    x = double(7, 2)
    V = (1 - t) ** 2 * variances + t**2
    wanted = -mean + (t - (1 - t) * variances) / V * (x - (1 - t) * mean)
    found = ExactVelocity(GaussianDenoiser(S, mean, variances))(x, t)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [0.15, 0.5, 0.9])
def test_the_exact_velocity_moves_the_density(t):
    """The continuity equation, dp/dt + div(p u) = 0, by finite differences: mass goes where the velocity carries it."""

    def density(x, time):
        V = (1 - time) ** 2 * VARIANCES + time**2
        squared = ((x[:, None] - (1 - time) * MEANS) ** 2).sum(dim=2)
        return (WEIGHTS * torch.exp(-squared / (2 * V)) / (2 * math.pi * V)).sum(dim=1)

    x, h = 0.8 * double(20, 2), 1e-4
    change = (density(x, t + h) - density(x, t - h)) / (2 * h)
    flux = 0
    for k in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[k] = h
        ahead, behind = (density(y, t) * MIXTURE(y, t)[:, k] for y in (x + step, x - step))
        flux = flux + (ahead - behind) / (2 * h)
    torch.testing.assert_close(change, -flux, rtol=1e-5, atol=1e-6)
    assert change.abs().max() > 0.05


def test_the_exact_velocity_is_the_mean_of_all_lines_through_a_place():
    """Over finitely many points every line through x_t can be listed: noise = (x_t - (1-t) x_start) / t."""
    points, t = double(5, 2), 0.6
    x = double(4, 2, seed=3)
    found = ExactVelocity(FiniteDenoiser(S, points))(x, t)
    for k, place in enumerate(x):
        noise = (place - (1 - t) * points) / t
        share = torch.softmax(-(noise**2).sum(dim=1) / 2, dim=0)
        assert torch.allclose(found[k], share @ (noise - points), atol=1e-10)


def test_it_is_the_best_answer():
    """No other field has a lower loss: shifting it by a constant adds exactly the square of the shift, on average."""
    n, generator = 100_000, fresh(5)
    part = torch.multinomial(WEIGHTS, n, replacement=True, generator=generator)
    x = MEANS[part] + VARIANCES[part].sqrt()[:, None] * torch.randn(n, 2, generator=generator)
    noise, t = (
        torch.randn(n, 2, generator=generator).double(),
        0.02 + 0.98 * torch.rand(n, generator=generator).double(),
    )

    def shifted(x_t, t, cond=None):
        return MIXTURE(x_t, t) + 0.3

    shifted.prediction = "velocity"
    gap = flow_loss(shifted, x, t, noise) - flow_loss(MIXTURE, x, t, noise)
    assert abs(gap.mean() - 0.09) < 4 * gap.std() / math.sqrt(n)


def test_pictures_and_float32_and_a_time_for_each():
    pictures = torch.randn(3, 1, 4, 4, generator=fresh())
    field = ExactVelocity(FiniteDenoiser(S, pictures))
    x, t = torch.randn(2, 1, 4, 4, generator=fresh(1)), torch.tensor([0.2, 0.9])
    together = field(x, t)
    assert together.dtype == torch.float32
    assert together.shape == x.shape
    assert torch.allclose(together[1:], field(x[1:], 0.9), atol=1e-5)


# --- the ODE ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heun", [False, True])
def test_the_ode_maps_noise_to_a_gaussian_of_the_datas_moments(heun):
    """Exactly: N(0, 1) becomes m + s x, so each axis has the standard deviation of the data."""
    mean, variances = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.04, 2.25]).double()
    field, x = ExactVelocity(GaussianDenoiser(S, mean, variances)), double(9, 2)
    errors = []
    for steps in (100, 200):
        end = last(flow_ode(field, (9, 2), steps, x=x, heun=heun))
        errors.append((end - (mean + variances.sqrt() * x)).abs().max().item())
    assert errors[1] < (1e-3 if heun else 0.04)
    assert errors[0] / errors[1] == pytest.approx(4 if heun else 2, rel=0.35), "order two, order one"


def test_a_single_point_is_reached_in_one_step():
    """All lines end there, so the field is straight, and one step is as good as a thousand."""
    point = torch.tensor([[0.3, -0.7]]).double()
    field, x = ExactVelocity(FiniteDenoiser(S, point)), double(6, 2)
    for steps in (1, 7):
        assert torch.allclose(last(flow_ode(field, (6, 2), steps, x=x)), point.expand(6, 2), atol=1e-12)
    path = torch.stack([x, *(state.x for state in flow_ode(field, (6, 2), 16, x=x))])
    assert straightness(path) == pytest.approx(0, abs=1e-20)


def test_euler_on_the_line_is_ddim():
    """With the same shares of picture and noise, step by step: only the length of the arrow x_t differs."""
    times = [0.95, 0.7, 0.45, 0.2]
    bars = flow_alpha_bar(torch.tensor(times[::-1], dtype=torch.float64))
    previous = torch.cat([torch.ones(1, dtype=torch.float64), bars[:-1]])
    schedule = Schedule(1 - bars / previous)
    assert torch.allclose(schedule.alpha_bars, bars)
    denoiser = MixtureDenoiser(schedule, WEIGHTS, MEANS, VARIANCES)
    field, x = ExactVelocity(denoiser), double(30, 2)
    flow = [state.x for state in flow_ode(field, x.shape, times=[*times, 0.0], x=x)]
    length = [math.hypot(1 - t, t) for t in [*times, 0.0]]
    y = x / length[0]
    for k, t in enumerate((3, 2, 1, 0)):
        y, _ = ddim_step(schedule, y, denoiser(y, t), t, t - 1)
        assert torch.allclose(flow[k], y * length[k + 1], atol=1e-6)


def test_states():
    x = double(4, 2)
    seen = []
    for state in flow_ode(MIXTURE, (4, 2), 4, x=x):
        seen.append(state.t)
        assert state.x.shape == state.x_start.shape == (4, 2)
    assert seen == [0.75, 0.5, 0.25, 0.0]
    assert torch.allclose(state.x, state.x_start), "the last Euler step goes where it aims"
    whole = [state.x for state in flow_ode(MIXTURE, (4, 2), 4, x=x)]
    moved = []
    for state in flow_ode(MIXTURE, (4, 2), 4, x=x):
        state.x = state.x + (0.1 if state.t == 0.5 else 0.0)
        moved.append(state.x)
    assert torch.equal(moved[0], whole[0])
    assert (moved[-1] - whole[-1]).abs().max() > 1e-3, "the next step starts from what is left in the state"


def test_calls_of_the_model():
    calls = []

    def counting(x_t, t, cond):
        calls.append((t.tolist(), cond))
        return torch.zeros_like(x_t)

    counting.prediction = "velocity"
    last(flow_ode(counting, (2, 3), 4, cond="told", generator=fresh()))
    assert calls == [([t, t], "told") for t in (1.0, 0.75, 0.5, 0.25)]
    calls.clear()
    last(flow_ode(counting, (2, 3), 4, heun=True, generator=fresh()))
    assert len(calls) == 7
    assert min(t for times, _ in calls for t in times) > 0


def test_the_same_noise_the_same_end():
    a, b = (last(flow_ode(MIXTURE, (5, 2), 8, generator=fresh(3))) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, last(flow_ode(MIXTURE, (5, 2), 8, generator=fresh(4))))


# --- straightness ----------------------------------------------------------------------------------------------------


def test_straightness_of_known_paths():
    s = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    line = torch.stack([s * 3, 1 - s * 2], dim=2)
    assert straightness(line) == pytest.approx(0, abs=1e-18)
    uneven = torch.stack([s**2, 0 * s], dim=2)  # straight in space, but not even: ∫ (1 - 2s)² ds = 1/3
    assert straightness(uneven) == pytest.approx(1 / 3, rel=1e-5)
    turn = torch.stack([torch.cos(math.pi / 2 * s), torch.sin(math.pi / 2 * s)], dim=2)  # a quarter of a circle
    assert straightness(turn) == pytest.approx((math.pi / 2) ** 2 - 2, rel=1e-5)
    both = torch.cat([uneven, turn], dim=1)
    assert straightness(both) == pytest.approx((1 / 3 + (math.pi / 2) ** 2 - 2) / 2, rel=1e-5)
    assert straightness(2 * uneven) == pytest.approx(4 / 3, rel=1e-5)


# --- learning --------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Velocity = t-dependent affine map of x_t: all that a Gaussian needs at a single t."""

    prediction = "velocity"

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(2, 2).double()

    def forward(self, x_t, t, cond=None):
        return self.map(x_t)


def test_training_finds_the_exact_velocity():
    """At one t, data Gaussian: the least-squares map is the exact field's, within 4 standard errors or so."""
    mean, variances = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.1, 2.0]).double()
    n, t = 20_000, 0.4
    x, noise = mean + variances.sqrt() * double(n, 2), double(n, 2, seed=1)
    model = Linear()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=12)

    def closure():
        optimizer.zero_grad()
        loss = flow_loss(model, x, torch.full((n,), t, dtype=torch.float64), noise).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    probe = double(20, 2, seed=3)
    with torch.no_grad():
        gap = model(probe, None) - ExactVelocity(GaussianDenoiser(S, mean, variances))(probe, t)
    assert gap.abs().max() < 0.08


def test_loss_is_one_number_per_picture_with_gradients():
    model = Linear()
    loss = flow_loss(model, double(5, 2), torch.rand(5, generator=fresh()), double(5, 2, seed=1))
    assert loss.shape == (5,)
    loss.sum().backward()
    assert model.map.weight.grad.abs().sum() > 0
