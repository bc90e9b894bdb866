"""Lesson 20: other right forms of its exercises, what only a property catches, and what the lesson says in words."""

import pytest
import torch
from verdicts import verdict

from course_lib.data import ring
from course_lib.diffusion import (
    ExactVelocity,
    MixtureDenoiser,
    Schedule,
    ddim,
    flow_ode,
    straightness,
    timesteps,
)

# --- 20.1 a line and its velocity ------------------------------------------------------------------------------------


def test_lines_in_other_forms():
    def lerp(x_start, t, noise):
        return torch.lerp(x_start, noise, t.view(-1, *[1] * (x_start.ndim - 1)).to(x_start)), noise - x_start

    def in_float64(x_start, t, noise):
        share = t.double().reshape((-1,) + (1,) * (x_start.ndim - 1))
        return x_start + share * (noise - x_start), noise.double() - x_start

    for answer in (lerp, in_float64):
        assert verdict("20.1", answer).status == "passed"


def test_one_time_for_all_does_not_do():
    answer = verdict("20.1", lambda x, t, z: ((1 - t[0]) * x + t[0] * z, z - x))
    assert answer.status == "wrong"
    points_only = verdict("20.1", lambda x, t, z: ((1 - t[:, None]) * x + t[:, None] * z, z - x))
    assert points_only.status == "wrong"


# --- 20.2 what a velocity says ---------------------------------------------------------------------------------------


def test_ends_in_other_forms():
    def picture_first(x_t, t, velocity):
        share = t.reshape(-1, *[1] * (x_t.ndim - 1))
        x_start = x_t - share * velocity
        return x_start, x_start + velocity

    assert verdict("20.2", picture_first).status == "passed"


def test_one_end_alone_is_told():
    answer = verdict("20.2", lambda x, t, u: x - t.reshape(-1, *[1] * (x.ndim - 1)) * u)
    assert answer.status == "wrong"
    assert "one value" in answer.message


# --- 20.3 two steps in one -------------------------------------------------------------------------------------------


def test_the_target_in_other_forms():
    def plain(schedule, x_t, x_end, t, t_end):
        bar = schedule.alpha_bars[t]
        end = torch.tensor(1.0) if t_end < 0 else schedule.alpha_bars[t_end]
        a, s, a_end, s_end = bar**0.5, (1 - bar) ** 0.5, end**0.5, (1 - end) ** 0.5
        return (s * x_end - s_end * x_t) / (s * a_end - s_end * a)

    assert verdict("20.3", plain).status == "passed"


# --- what the lesson says --------------------------------------------------------------------------------------------

COSINE, LINEAR = Schedule.cosine(1000), Schedule.linear(1000)


def denoiser(schedule):
    return MixtureDenoiser(schedule, torch.full((8,), 1 / 8), ring.means(), torch.full((8,), ring.STD**2))


def last(states):
    *_, state = states
    return state.x


def distance(a, b):
    def apart(x, y):
        return torch.cdist(x.double(), y.double()).mean().item()

    n, m = len(a), len(b)
    return 2 * apart(a, b) - apart(a, a) * n / (n - 1) - apart(b, b) * m / (m - 1)


def test_even_steps_of_the_flow_are_the_better_noise_levels_here():
    """At seven calls of the perfect network, by far, against the linear schedule."""
    x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    real = ring.sample(1000, seed=5)
    found = [
        distance(end, real)
        for end in (
            last(ddim(denoiser(LINEAR), LINEAR, x.shape, 7, x=x)),
            last(ddim(denoiser(COSINE), COSINE, x.shape, 7, x=x)),
            last(flow_ode(ExactVelocity(denoiser(COSINE)), x.shape, 7, x=x)),
        )
    ]
    assert found[0] > 4 * found[1]
    assert found[1] > found[2]


def test_the_linear_schedule_spends_its_steps_near_noise():
    times = [(1 - LINEAR.alpha_bars[t]) ** 0.5 for t in timesteps(1000, 8)]
    kept = [LINEAR.alpha_bars[t] ** 0.5 for t in timesteps(1000, 8)]
    shares = [float(s / (s + a)) for s, a in zip(times, kept, strict=True)]
    assert sum(share > 0.8 for share in shares) >= 3
    cosine = [float((1 - COSINE.alpha_bars[t]) ** 0.5) for t in timesteps(1000, 8)]
    assert sum(s / (s + (1 - s * s) ** 0.5) > 0.8 for s in cosine) <= 2


def test_the_exact_paths_of_the_ring_bend():
    """What a network learns from chance pairs is not straight, however well it learns it."""
    x = torch.randn(500, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    field = ExactVelocity(denoiser(COSINE))
    path = torch.stack([x, *(state.x for state in flow_ode(field, x.shape, 64, x=x))])
    assert straightness(path) == pytest.approx(0.75, abs=0.15)
    lines = torch.linspace(0, 1, 65, dtype=torch.float64)[:, None, None]
    assert straightness((1 - lines) * x + lines * path[-1]) < 1e-20, "the same pairs, joined by lines"


def test_an_error_of_the_noise_grows_by_twenty_thousand():
    assert 0.001 * COSINE.recipm1_sqrt_alpha_bars[-1].item() == pytest.approx(20, abs=1)


def test_a_schedule_of_a_hundred_steps_that_is_not_rescaled():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        left = Schedule.linear(100, rescale=False).alpha_bars[-1].item()
    assert left == pytest.approx(0.364, abs=0.001)
