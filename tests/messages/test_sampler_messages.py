"""What a reader is told who asks a sampler, a step or a loss for something impossible. Nothing is computed first."""

import pytest
import torch

from course_lib.diffusion import (
    FiniteDenoiser,
    GaussianDenoiser,
    MixtureDenoiser,
    Schedule,
    bound_term,
    convert,
    ddim,
    ddim_step,
    ddpm,
    ddpm_step,
    diffusion_loss,
    dpm_solver_pp_2m,
    dpm_solver_pp_2m_step,
    euler,
    euler_step,
    gaussian_bound,
    heun,
    heun_step,
    img2img,
    inpaint,
    invert,
    min_snr_weights,
    optimal_loss,
    posterior,
    posterior_mean_from_noise,
    randn,
    reverse_variance,
    sample,
    slerp,
    timesteps,
    x_start_and_noise,
)

S = Schedule.linear(100)
X = torch.zeros(2, 1, 4, 4)
SHORT = torch.zeros(2, 1, 4)
MASK = torch.ones(4, 4, dtype=torch.bool)
M = GaussianDenoiser(S, torch.zeros(3), torch.ones(3))
G = torch.Generator().manual_seed(0)
ALL = (ddpm, ddim, dpm_solver_pp_2m, euler, heun)


def silent(x_t, t, cond):
    return torch.zeros_like(x_t)


def learned_variance(x_t, t, cond):
    return torch.cat([x_t, x_t], dim=1)


learned_variance.prediction = "noise"

STEPS = {
    "ddpm_step": lambda t, t_prev, x=X, p=X, **o: ddpm_step(S, x, p, t, t_prev, X, **o),
    "ddim_step": lambda t, t_prev, x=X, p=X, **o: ddim_step(S, x, p, t, t_prev, X, **o),
    "dpm_solver_pp_2m_step": lambda t, t_prev, x=X, p=X, **o: dpm_solver_pp_2m_step(S, x, p, t, t_prev, **o),
    "euler_step": lambda t, t_prev, x=X, p=X, **o: euler_step(S, x, p, t, t_prev, **o),
    "heun_step": lambda t, t_prev, x=X, p=X, **o: heun_step(S, x, p, t, t_prev, X, X, **o),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((100, 99), {}, ValueError, r"t must lie in 0…99 .*got \[100\]"),
        ((-1, -1), {}, ValueError, "t must lie in 0…99"),
        ((50, -2), {}, ValueError, "t_prev must lie in -1…99"),
        ((50, 50), {}, ValueError, "t_prev must be below t"),
        ((50, 60), {}, ValueError, "t_prev must be below t"),
        ((torch.tensor([5, 6, 7]), 1), {}, ValueError, r"t must hold one step per image, shape \(2,\)"),
        ((torch.tensor([5, 6]), torch.tensor([4, 6])), {}, ValueError, "t_prev must be below t"),
        ((5.0, 4), {}, TypeError, "t must be a whole number .* got float"),
        ((torch.tensor([5.0, 6.0]), 4), {}, TypeError, "t must be a whole number .* got torch.float32"),
        ((5, 4.0), {}, TypeError, "t_prev must be a whole number .* got float"),
        ((5, True), {}, TypeError, "t_prev must be a whole number .* got bool"),
        ((5, 4), {"kind": "epsilon"}, ValueError, "kind must be one of 'noise', 'x_start', 'v', got 'epsilon'"),
        ((5, 4), {"clip": True}, ValueError, r"clip must be None or a pair .*got True"),
        ((5, 4), {"clip": (1, -1)}, ValueError, r"clip must be None or a pair .*got \(1, -1\)"),
        ((5, 4), {"p": SHORT}, ValueError, r"must have the shape of x_t, \(2, 1, 4, 4\), got \(2, 1, 4\)"),
        ((5, 4), {"x": X.to(torch.uint8)}, TypeError, "x_t must be a float tensor, got torch.uint8"),
        ((5, 4), {"x": None}, TypeError, "x_t must be a float tensor, got NoneType"),
    ],
)
def test_steps(step, arguments, options, error, words):
    with pytest.raises(error, match=words):
        step(*arguments, **options)


@pytest.mark.parametrize("sampler", ALL)
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"steps": 101}, ValueError, "steps must be a whole number from 1 to T = 100, got 101"),
        ({"steps": 0}, ValueError, "steps must be a whole number from 1"),
        ({"steps": 2.5}, ValueError, "got 2.5"),
        ({"spacing": "karras"}, ValueError, "spacing must be one of 'trailing', 'leading', 'linspace', got 'karras'"),
        ({"timesteps": [5, 5, 1]}, ValueError, "timesteps must fall strictly"),
        ({"timesteps": [100, 1]}, ValueError, r"timesteps must fall strictly within 99…0"),
        ({"timesteps": []}, ValueError, "timesteps must fall strictly"),
        ({"kind": "score"}, ValueError, "kind='score' contradicts the model"),
        ({"kind": "v"}, ValueError, "kind='v' contradicts the model, whose prediction is 'noise'"),
        ({"clip": 1.0}, ValueError, "clip must be None or a pair"),
        ({"x": torch.zeros(2, 4)}, ValueError, r"x must have the given shape \(2, 3\), got \(2, 4\)"),
        ({"generator": [G]}, ValueError, "generator must hold one per image: 2 images, got 1 generators"),
        ({"generator": 7}, TypeError, "generator must be a torch.Generator or a list of them, got int"),
        ({"temperature": 1}, TypeError, "temperature"),
    ],
)
def test_samplers_complain_at_once(sampler, options, error, words):
    """Not at the first step: nobody has asked for one yet."""
    with pytest.raises(error, match=words):
        sampler(M, S, (2, 3), **{"steps": 5, **options})


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ddim(M, S, (2, 3), eta=-0.1), ValueError, "eta must lie between 0 .* and 1 .*got -0.1"),
        (lambda: ddim(M, S, (2, 3), eta=1.5), ValueError, "eta must lie between"),
        (lambda: ddim_step(S, X, X, 5, 4, X, eta=float("nan")), ValueError, "eta must lie between"),
        (lambda: ddim_step(S, X, X, 5, 4, None, eta=0.5), ValueError, "noise is None, but this step adds noise"),
        (lambda: ddpm_step(S, X, X, 5, 4, None), ValueError, "noise is None, but this step adds noise"),
        (lambda: ddpm_step(S, X, X, 5, 4, SHORT), ValueError, "noise must have the shape of x_t"),
        (lambda: ddpm_step(S, X, X, 5, 4, X, variance="learned"), ValueError, "variance must be 'small' .*'learned'"),
        (lambda: ddpm(M, S, (2, 3), variance="fixed"), ValueError, "variance must be 'small'"),
        (lambda: dpm_solver_pp_2m_step(S, X, X, 5, 4, (SHORT, 6)), ValueError, "before must have the shape of x_t"),
        (lambda: dpm_solver_pp_2m_step(S, X, X, 5, 4, (X, 5)), ValueError, "t_prev must be below t"),
        (lambda: heun_step(S, X, X, 5, -1, X, X), ValueError, "t must lie in 0…99"),
        (lambda: ddim(silent, S, (2, 3)), ValueError, "function does not say what it predicts: .* prediction ="),
        (
            lambda: list(ddim(learned_variance, S, (2, 3, 4, 4))),
            ValueError,
            r"must return .*\(2, 3, 4, 4\), got \(2, 6",
        ),
        (lambda: list(ddim(lambda *a: None, S, (2, 3), kind="noise")), ValueError, "got NoneType"),
        (lambda: sample(M, S, (2, 4), progress=False), ValueError, r"x_t must have shape \(batch, 3\), got \(2, 4\)"),
        (lambda: timesteps(100, 101), ValueError, "from 1 to T = 100, got 101"),
        (lambda: timesteps(100, True), ValueError, "got True"),
        (lambda: timesteps(100, 5, "even"), ValueError, "spacing must be one of"),
        (lambda: randn((2, 3), "seed"), TypeError, "generator must be a torch.Generator or a list of them, got str"),
        (lambda: convert(S, X, 5, X, "eps", "v"), ValueError, "source must be one of .*got 'eps'"),
        (lambda: convert(S, X, 5, X, "v", "score"), ValueError, "target must be one of .*got 'score'"),
        (lambda: convert(S, X, 5, SHORT, "v", "noise"), ValueError, "value must have the shape of x_t"),
        (lambda: convert(S, X, 100, X, "v", "noise"), ValueError, "t must lie in 0…99"),
        (lambda: x_start_and_noise(S, X, 5, X, "eps"), ValueError, "kind must be one of"),
        (lambda: posterior(S, SHORT, X, 5), ValueError, "x_start must have the shape of x_t"),
        (lambda: posterior(S, X, X, -1), ValueError, "t must lie in 0…99"),
        (lambda: posterior_mean_from_noise(S, X, 5, SHORT), ValueError, "noise must have the shape of x_t"),
        (lambda: reverse_variance(S, "middle"), ValueError, "variance must be 'small'"),
        (lambda: reverse_variance(Schedule(torch.tensor([0.999])), "small"), ValueError, "no posterior variance"),
        (lambda: diffusion_loss(silent, S, X, 5, X), ValueError, "does not say what it predicts"),
        (lambda: diffusion_loss(silent, S, X, 5, SHORT, kind="noise"), ValueError, "noise must have x_start's shape"),
        (lambda: diffusion_loss(learned_variance, S, X, 5, X), ValueError, "prediction must have the shape of x_t"),
        (lambda: min_snr_weights(S, gamma=0), ValueError, "gamma must be positive, got 0"),
        (lambda: min_snr_weights(S, "eps"), ValueError, "kind must be one of"),
        (lambda: optimal_loss(S, -1.0), ValueError, "data_variance must be positive: a variance, not a standard"),
        (lambda: gaussian_bound(S, 0.0, 0.0), ValueError, "data_variance must be positive"),
        (lambda: gaussian_bound(S, 0.0, 1.0, "learned"), ValueError, "variance must be 'small'"),
        (lambda: bound_term(S, X, X, 5, SHORT), ValueError, "predicted_x_start must have the shape"),
        (lambda: GaussianDenoiser(S, torch.zeros(2), torch.ones(3)), ValueError, "mean must be .d,. and covariance"),
        (lambda: GaussianDenoiser(S, torch.zeros(2), -torch.eye(2)), ValueError, "without negative variance"),
        (lambda: GaussianDenoiser(S, torch.zeros(2), torch.tensor([[1.0, 2.0], [0.0, 1.0]])), ValueError, "symmetric"),
        (lambda: MixtureDenoiser(S, torch.ones(2), torch.zeros(2, 1), torch.ones(2)), ValueError, "sum to 1"),
        (lambda: MixtureDenoiser(S, torch.ones(1), torch.zeros(2, 1), torch.ones(2)), ValueError, "one per mean"),
        (lambda: MixtureDenoiser(S, torch.ones(1), torch.zeros(1, 1), -torch.ones(1)), ValueError, "not be negative"),
        (lambda: FiniteDenoiser(S, torch.zeros(0, 3)), ValueError, "points must hold at least one point"),
        (lambda: FiniteDenoiser(S, X, "image"), ValueError, "prediction must be one of"),
        (lambda: img2img(M, S, torch.zeros(2, 3), 0), ValueError, "strength must lie above 0 and up to 1"),
        (lambda: img2img(M, S, torch.zeros(2, 3), 1.1), ValueError, "strength must lie above 0 and up to 1"),
        (lambda: inpaint(M, S, torch.zeros(2, 3), torch.ones(3)), TypeError, "boolean tensor, .* got torch.float32"),
        (lambda: inpaint(M, S, torch.zeros(2, 3), MASK), ValueError, r"keep \(4, 4\) does not fit the image \(2, 3\)"),
        (lambda: inpaint(M, S, torch.zeros(2, 3), MASK[0, :3], resample=0), ValueError, "resample must be"),
        (lambda: inpaint(M, S, torch.zeros(2, 3), MASK[0, :3], 200), ValueError, "from 1 to T = 100, got 200"),
        (lambda: invert(M, S, torch.zeros(2, 3), 101), ValueError, "from 1 to T = 100, got 101"),
        (lambda: slerp(X, SHORT, 0.5), ValueError, "a and b must have the same shape"),
        (lambda: slerp(X, X, 1.5), ValueError, r"weight must lie in \[0, 1\], got 1.5"),
    ],
)
def test_message(call, error, words):
    with pytest.raises(error, match=words):
        call()
