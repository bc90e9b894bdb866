"""Step functions: against diffusers' answers to the same questions, and against each other where they must agree."""

import json
from pathlib import Path

import pytest
import torch

from course_lib import diffusion
from course_lib.diffusion import (
    Schedule,
    ddim_step,
    ddpm_step,
    dpm_solver_pp_2m_step,
    euler_step,
    heun_step,
    posterior,
    timesteps,
)

REFERENCE = json.loads((Path(__file__).parent.parent / "reference" / "samplers.json").read_text(encoding="utf-8"))
S = Schedule.linear(REFERENCE["T"])
GIVEN = {name: torch.tensor(value, dtype=torch.float64) for name, value in REFERENCE["inputs"].items()}
THEIR_FLOAT32 = 1e-4  # relative: their ᾱ is a float32 product, and 1 - ᾱ₁/ᾱ₀ = 1e-4 has lost four of its seven digits


def off(ours: torch.Tensor, theirs: list) -> float:
    """Largest difference, relative to the largest value (at least 1)."""
    theirs = torch.tensor(theirs, dtype=torch.float64)
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))


def label(case: dict) -> str:
    return "-".join(str(value) for key, value in case.items() if key not in ("x_prev", "x_start"))


@pytest.mark.parametrize("case", REFERENCE["steps"], ids=label)
def test_one_step_equals_diffusers(case):
    common = {"clip": (-1, 1) if case["clip"] else None}
    arguments = (S, GIVEN["x_t"], GIVEN["prediction"], case["t"], case["t_prev"], GIVEN["noise"])
    if case["sampler"] == "ddpm":
        x_prev, x_start = ddpm_step(*arguments, variance=case["variance"], **common)
    else:
        x_prev, x_start = ddim_step(*arguments, eta=case["eta"], kind=case["kind"], **common)
    assert off(x_prev, case["x_prev"]) < THEIR_FLOAT32
    assert off(x_start, case["x_start"]) < THEIR_FLOAT32


def test_the_reference_holds_what_it_should():
    def values(key):
        return {case[key] for case in REFERENCE["steps"] if key in case}

    assert values("steps") == {10, 50, 1000}
    assert values("eta") == {0.0, 0.5, 1.0}
    assert values("kind") == {"noise", "x_start", "v"}
    assert values("variance") == {"small", "large"}
    assert {run["sampler"] for run in REFERENCE["runs"]} == {"dpm_solver_pp_2m", "euler", "heun"}
    assert len(REFERENCE["steps"]) > 150
    noisy = [case for case in REFERENCE["steps"] if case["sampler"] == "ddpm" and case["t_prev"] >= 0]
    small, large = ([case["x_prev"] for case in noisy if case["variance"] == name] for name in ("small", "large"))
    assert (torch.tensor(small) - torch.tensor(large)).abs().amax((1, 2)).max() > 0.1  # they do tell the two apart


@pytest.mark.parametrize("run", REFERENCE["runs"], ids=lambda run: f"{run['sampler']}-{run['kind']}")
def test_whole_runs_equal_diffusers(run):
    answers = iter(GIVEN["predictions"])
    sampler = getattr(diffusion, run["sampler"])
    visited = []

    def model(x_t, t, cond):
        visited.append(int(t[0]))
        return next(answers)

    states = list(sampler(model, S, (2, 3), 10, x=GIVEN["x_t"], kind=run["kind"]))
    assert len(states) == len(run["states"]) == 10
    for state, theirs in zip(states, run["states"], strict=True):
        assert off(state.x, theirs) < THEIR_FLOAT32
    assert list(dict.fromkeys(visited)) == run["timesteps"] == timesteps(1000, 10)
    assert len(visited) == (19 if run["sampler"] == "heun" else 10)


# --- what must agree without any reference ---------------------------------------------------------------------------

X, PREDICTION, NOISE = torch.randn((3, 4, 2, 5), generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["noise", "x_start", "v"])
@pytest.mark.parametrize(("t", "t_prev"), [(999, 998), (999, 899), (500, 17), (1, 0), (40, -1), (0, -1)])
def test_eta_1_is_ddpm_and_euler_is_eta_0(t, t_prev, kind):
    arguments = (S, X, PREDICTION, t, t_prev)
    for ours, other in (
        (ddim_step(*arguments, NOISE, kind=kind, eta=1), ddpm_step(*arguments, NOISE, kind=kind)),
        (ddim_step(*arguments, kind=kind), euler_step(*arguments, kind=kind)),
        (ddim_step(*arguments, kind=kind), dpm_solver_pp_2m_step(*arguments, kind=kind)),
    ):
        for a, b in zip(ours, other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_a_dense_step_draws_from_the_posterior():
    for t in (1, 2, 11, 501, 999):
        x_prev, x_start = ddpm_step(S, X, PREDICTION, t, t - 1, NOISE)
        mean, variance = posterior(S, x_start, X, t)
        torch.testing.assert_close(x_prev, mean + variance.sqrt() * NOISE, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("t", [0, 1, 99, 999])
def test_the_last_step_lands_on_x_start_without_noise(t):
    for make in (ddpm_step, ddim_step):
        for options in ({"variance": "large"}, {"variance": "small"}) if make is ddpm_step else ({}, {"eta": 1}):
            x_prev, x_start = make(S, X, PREDICTION, t, -1, 100 * NOISE, **options)
            torch.testing.assert_close(x_prev, x_start, rtol=0, atol=0)
    x_prev, x_start = dpm_solver_pp_2m_step(S, X, PREDICTION, t, -1, (PREDICTION, 999) if t < 999 else None)
    torch.testing.assert_close(x_prev, x_start, rtol=0, atol=1e-12)


def test_the_large_variance_of_a_jump_is_that_of_the_whole_jump():
    t, t_prev = 600, 500
    with_noise, _ = ddpm_step(S, X, PREDICTION, t, t_prev, NOISE, variance="large")
    without, _ = ddpm_step(S, X, PREDICTION, t, t_prev, 0 * NOISE, variance="large")
    kept = 1.0
    for beta in S.betas[t_prev + 1 : t + 1].tolist():
        kept *= 1 - beta
    torch.testing.assert_close(with_noise - without, (1 - kept) ** 0.5 * NOISE)


def test_each_image_may_stand_at_its_own_step():
    t, t_prev = torch.tensor([999, 40, 1, 0]), torch.tensor([998, 20, 0, -1])
    steps = (
        lambda x, p, t, s, z: ddpm_step(S, x, p, t, s, z, variance="large", clip=(-1, 1)),
        lambda x, p, t, s, z: ddim_step(S, x, p, t, s, z, eta=0.7, kind="v"),
        lambda x, p, t, s, z: dpm_solver_pp_2m_step(S, x, p, t, s),
        lambda x, p, t, s, z: euler_step(S, x, p, t, s),
    )
    for step in steps:
        together, _ = step(X, PREDICTION, t, t_prev, NOISE)
        for i in range(4):
            alone, _ = step(X[i : i + 1], PREDICTION[i : i + 1], int(t[i]), int(t_prev[i]), NOISE[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone)


def test_clipping_derives_the_noise_again():
    """x_prev must be what q_sample makes of the clipped x_start and the noise that belongs to it and x_t."""
    t, t_prev = 700, 650
    x_prev, x_start = ddim_step(S, X, PREDICTION, t, t_prev, clip=(-0.1, 0.1))
    assert x_start.abs().max() == 0.1
    noise = (X - S.alpha_bars[t].sqrt() * x_start) / (1 - S.alpha_bars[t]).sqrt()
    wanted = S.alpha_bars[t_prev].sqrt() * x_start + (1 - S.alpha_bars[t_prev]).sqrt() * noise
    torch.testing.assert_close(x_prev, wanted)


def test_heun_averages_the_slopes_at_both_ends():
    """In x̄ = x/√ᾱ and σ = √(1/ᾱ - 1), written out; the second prediction is read at t_prev."""
    t, t_prev = 600, 400
    ahead, _ = euler_step(S, X, PREDICTION, t, t_prev)
    x_prev, x_start = heun_step(S, X, PREDICTION, t, t_prev, ahead, NOISE, kind="noise")
    bars = S.alpha_bars[[t, t_prev]]
    sigma, sigma_prev = (1 / bars - 1).sqrt()
    middle = (PREDICTION + NOISE) / 2
    torch.testing.assert_close(x_prev / bars[1].sqrt(), X / bars[0].sqrt() + (sigma_prev - sigma) * middle)
    torch.testing.assert_close(x_start, X / bars[0].sqrt() - sigma * middle)


def test_steps_can_be_differentiated():
    x = X.clone().requires_grad_()
    for step in (ddim_step, euler_step, dpm_solver_pp_2m_step):
        step(S, x, PREDICTION, 500, 400)[0].sum().backward()
    assert torch.isfinite(x.grad).all()
    assert (x.grad != 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_networks_half_precision_is_read_in_the_images_precision(dtype):
    x_prev, x_start = ddim_step(S, X.float(), PREDICTION.to(dtype), 999, 900)
    assert x_prev.dtype == x_start.dtype == torch.float32
    wanted, _ = ddim_step(S, X.float(), PREDICTION.to(dtype).float(), 999, 900)
    torch.testing.assert_close(x_prev, wanted)
