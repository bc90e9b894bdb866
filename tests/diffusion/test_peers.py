"""Other projects' implementations, at more settings than `make test` has time for (part of `make test-all`)."""

import importlib.util
import itertools
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from course_lib.diffusion import (
    Schedule,
    ddim_step,
    ddpm_step,
    dpm_solver_pp_2m,
    euler,
    heun,
    posterior,
    q_sample,
    timesteps,
)

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("T", [50, 100, 300, 1000, 4000])
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine"])
def test_diffusers_add_noise(name, T):
    """diffusers does not rescale betas with T, so the linear schedule gets its ends multiplied by 1000/T."""
    from diffusers import DDPMScheduler

    options = {
        "linear": {"beta_start": 1e-4 * 1000 / T, "beta_end": 0.02 * 1000 / T},
        "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
        "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    }
    theirs = DDPMScheduler(T, **options[name])
    ours = getattr(Schedule, name)(T)
    generator = torch.Generator().manual_seed(0)
    x_start, noise = torch.randn((2, 64, 3, 8, 8), generator=generator)
    t = torch.randint(0, T, (64,), generator=generator)
    assert torch.allclose(q_sample(ours, x_start, t, noise), theirs.add_noise(x_start, noise, t), atol=2e-5)
    assert (theirs.alphas_cumprod.double() / ours.alpha_bars - 1).abs().max() < 1e-4


# --- samplers --------------------------------------------------------------------------------------------------------

REFERENCE = Path(__file__).parent.parent / "reference"
S = Schedule.linear(1000)


def maker():
    """The script that made the committed vectors, as a module."""
    spec = importlib.util.spec_from_file_location("make_samplers", REFERENCE / "make_samplers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_vectors_are_what_diffusers_says_today():
    import json

    committed = json.loads((REFERENCE / "samplers.json").read_text(encoding="utf-8"))
    today = maker().regenerate()
    assert committed["inputs"] == today["inputs"]
    for part in ("steps", "runs"):
        assert len(committed[part]) == len(today[part])
        for then, now in zip(committed[part], today[part], strict=True):
            assert then.keys() == now.keys()
            for key in then:
                if isinstance(then[key], list) and key != "timesteps":
                    torch.testing.assert_close(torch.tensor(now[key]), torch.tensor(then[key]), rtol=1e-4, atol=1e-4)
                else:
                    assert then[key] == now[key]


def in_float64(scheduler):
    """A scheduler whose tables are ours: what is left to differ is the step's formula."""
    scheduler.betas, scheduler.alphas = S.betas, S.alphas
    scheduler.alphas_cumprod, scheduler.one = S.alpha_bars, torch.tensor(1.0, dtype=torch.float64)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [3, 7, 10, 50, 999])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_every_ddpm_step_in_float64(variance, steps, spacing):
    from diffusers import DDPMScheduler

    theirs = in_float64(DDPMScheduler(1000, variance_type=f"fixed_{variance}", clip_sample=False))
    theirs.register_to_config(timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    ts = theirs.timesteps.tolist()
    assert ts == timesteps(1000, steps, spacing)
    generator = torch.Generator().manual_seed(0)
    for t, t_prev in zip(ts, [*ts[1:], -1], strict=True):
        x_t, prediction = torch.randn((2, 2, 3), generator=generator, dtype=torch.float64)
        noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        if t_prev < 0 < t and variance == "large":
            continue  # they add noise to the finished image
        wanted = theirs.step(prediction, t, x_t, generator=torch.Generator().manual_seed(t)).prev_sample
        ours, _ = ddpm_step(S, x_t, prediction, t, t_prev, noise, variance=variance)
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("steps", "eta", "clip", "kind"),
    list(itertools.product([10, 20, 50, 1000], [0.0, 0.3, 1.0], [False, True], ["epsilon", "sample", "v_prediction"])),
)
def test_every_ddim_step_in_float64(steps, eta, clip, kind):
    from diffusers import DDIMScheduler

    theirs = in_float64(DDIMScheduler(1000, clip_sample=clip, prediction_type=kind, timestep_spacing="trailing"))
    theirs.set_timesteps(steps)
    ts = theirs.timesteps.tolist()
    ours_kind = {"epsilon": "noise", "sample": "x_start", "v_prediction": "v"}[kind]
    generator = torch.Generator().manual_seed(0)
    for t, t_prev in zip(ts, [*ts[1:], -1], strict=True):
        x_t, prediction = torch.randn((2, 2, 3), generator=generator, dtype=torch.float64)
        noise = torch.randn(2, 3, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        wanted = theirs.step(
            prediction, t, x_t, eta, use_clipped_model_output=clip, generator=torch.Generator().manual_seed(t)
        ).prev_sample
        options = {"eta": eta, "kind": ours_kind, "clip": (-1, 1) if clip else None}
        ours, _ = ddim_step(S, x_t, prediction, t, t_prev, noise, **options)
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_lists_of_timesteps(spacing):
    """Every count from 2; a single step is 0 in diffusers' leading and linspace, where pure noise has no business.

    Where the exact position is halfway between two steps, their floating-point sum may fall to either side, and for
    some counts (61 is the first) it yields one entry too many: t = -1.
    """
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(1000, timestep_spacing=spacing)
    for steps in range(2, 1001):
        theirs.set_timesteps(steps)
        listed = [t for t in theirs.timesteps.tolist() if t >= 0]
        for i, (a, b) in enumerate(zip(listed, timesteps(1000, steps, spacing), strict=True)):
            halves = 2 * i * Fraction(1000, steps) if spacing == "trailing" else 2 * i * Fraction(999, steps - 1)
            assert a == b or (abs(a - b) == 1 and halves.denominator == 1 and halves % 2 == 1), (steps, i)


@pytest.mark.parametrize(
    ("spacing", "steps", "same"),
    [
        ("trailing", 10, True),
        ("leading", 7, True),
        ("linspace", 10, False),
        ("linspace", 50, False),
        ("trailing", 7, False),
    ],
)
def test_diffusers_ddim_takes_a_stride_and_not_its_own_list(spacing, steps, same):
    """What lesson 10 says about it, so that we notice the day it is mended."""
    from diffusers import DDIMScheduler

    theirs = in_float64(DDIMScheduler(1000, clip_sample=False, timestep_spacing=spacing))
    theirs.set_timesteps(steps)
    x_t, prediction = torch.randn((2, 2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    equal = []
    ts = timesteps(1000, steps, spacing)
    for t, t_prev in zip(ts, [*ts[1:], -1], strict=True):
        ours, _ = ddim_step(S, x_t, prediction, t, t_prev)
        equal.append(torch.allclose(ours, theirs.step(prediction, t, x_t, 0.0).prev_sample, atol=1e-6))
    assert all(equal) == same


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("steps", [4, 10, 25, 50])
@pytest.mark.parametrize("name", ["dpm", "euler", "heun"])
def test_whole_runs_of_the_solvers(name, steps, kind):
    """A smooth made-up network; float32 on their side."""
    import diffusers

    if name == "euler" and kind == "sample":
        pytest.skip("diffusers' Euler reads prediction_type='sample' as an already scaled image")
    common = {"timestep_spacing": "trailing", "prediction_type": kind, "beta_start": 1e-4, "beta_end": 0.02}
    if name == "dpm":
        theirs, ours = (
            diffusers.DPMSolverMultistepScheduler(1000, final_sigmas_type="zero", lower_order_final=False, **common),
            dpm_solver_pp_2m,
        )
    elif name == "euler":
        theirs, ours = diffusers.EulerDiscreteScheduler(1000, **common), euler
    else:
        theirs, ours = diffusers.HeunDiscreteScheduler(1000, **common), heun

    def network(x_t, t, cond=None):
        return 0.8 * torch.tanh(x_t + t.reshape(-1, 1) / 1000)

    theirs.set_timesteps(steps)
    start = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    bars = theirs.alphas_cumprod
    scaled = name != "dpm"
    x = start / bars[999] ** 0.5 if scaled else start
    for t in theirs.timesteps:
        x = theirs.step(network(theirs.scale_model_input(x, t), t.reshape(1)), t, x).prev_sample
    ours_kind = {"epsilon": "noise", "sample": "x_start", "v_prediction": "v"}[kind]
    *_, state = ours(network, S, (2, 3), steps, x=start.double(), kind=ours_kind)
    torch.testing.assert_close(state.x.float(), x, rtol=2e-3, atol=2e-3)


def test_posterior_and_variances_against_their_tables():
    from diffusers import DDPMScheduler

    theirs = in_float64(DDPMScheduler(1000, variance_type="fixed_small", clip_sample=False))
    x_start, x_t = torch.randn((2, 3, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theirs.register_to_config(prediction_type="sample")
    for t in (1, 2, 500, 999):
        mean, variance = posterior(S, x_start, x_t, t)
        assert float(theirs._get_variance(t)) == pytest.approx(float(variance), rel=1e-9)
        noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        out = theirs.step(x_start, t, x_t, generator=torch.Generator().manual_seed(1)).prev_sample
        torch.testing.assert_close(out, mean + variance.sqrt() * noise)
