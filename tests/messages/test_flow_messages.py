"""What a reader is told who asks flow matching or distillation for something impossible."""

import re

import pytest
import torch

from course_lib.diffusion import (
    ExactVelocity,
    MixtureDenoiser,
    Schedule,
    distillation_loss,
    flow_convert,
    flow_loss,
    flow_ode,
    flow_path,
    one_step_target,
    two_steps,
)

S = Schedule.cosine(200)
X, SHORT = torch.zeros(2, 2), torch.zeros(2, 3)
DENOISER = MixtureDenoiser(S, torch.tensor([1.0]), torch.zeros(1, 2), torch.ones(1))
FIELD = ExactVelocity(DENOISER)
FIRST = torch.zeros(2, dtype=torch.long)


def silent(x_t, t, cond=None):
    return x_t


def too_wide(x_t, t, cond=None):
    return SHORT


too_wide.prediction = "velocity"


@pytest.mark.parametrize("t", [-0.1, 1.5, 500, float("nan"), torch.tensor([0.1, 0.2, 0.3])])
def test_times_that_are_none(t):
    words = "t must hold one time in [0, 1] per picture (2), or a single one: a share, not a step"
    for call in (lambda: flow_path(X, t, X), lambda: flow_convert(X, t, X, "velocity", "noise"), lambda: FIELD(X, t)):
        with pytest.raises(ValueError, match=re.escape(words)):
            call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: flow_path(X, 0.5, SHORT), "noise must have the shape of x_t, (2, 2), got (2, 3)"),
        (lambda: flow_convert(X, 0.5, SHORT, "noise", "velocity"), "value must have the shape of x_t"),
        (lambda: flow_convert(X, 0.5, X, "v", "noise"), "among velocity, x_start, noise; got 'v' and 'noise'"),
        (lambda: flow_convert(X, 0.5, X, "noise", "v"), "got 'noise' and 'v'"),
        (lambda: flow_convert(X, 0.0, X, "x_start", "noise"), "source='x_start' says nothing where t is 0"),
        (lambda: flow_convert(X, 1.0, X, "noise", "x_start"), "source='noise' says nothing where t is 1"),
        (lambda: FIELD(X, 0.0), "says nothing where t is 0"),
        (lambda: flow_loss(silent, X, torch.rand(2), X), "say so, prediction = 'velocity'; it says None"),
        (lambda: flow_loss(DENOISER, X, torch.rand(2), X), "it says 'noise'"),
        (lambda: flow_loss(too_wide, X, torch.rand(2), X), "answer must have the shape of x_t, (2, 2), got (2, 3)"),
        (lambda: one_step_target(S, X, X, 40, 40), "t_end must be below t"),
        (lambda: one_step_target(S, X, X, 40, 60), "t_end must be below t"),
        (lambda: one_step_target(S, X, SHORT, 40, 20), "x_end must have the shape of x_t"),
        (lambda: one_step_target(S, X, X, 200, 20), "t must lie in"),
        (lambda: two_steps(silent, S, X, 40, 20, -1), "does not say what it predicts"),
        (lambda: two_steps(DENOISER, S, X, 40, 20, 30), "t_prev must be below t"),
    ],
)
def test_message(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps=0 must be a whole number of at least 1"),
        ({"steps": True}, "steps=True must be"),
        ({"steps": 2.5}, "steps=2.5 must be"),
        ({"times": [1.0]}, "times must fall strictly within 1…0, two of them at least; got [1.0]"),
        ({"times": [0.0, 1.0]}, "times must fall strictly"),
        ({"times": [1.0, 0.5, 0.5]}, "times must fall strictly"),
        ({"times": [2.0, 0.0]}, "times must fall strictly"),
        ({"x": SHORT}, "x must have the given shape (2, 2), got (2, 3)"),
    ],
)
def test_the_sampler_complains_at_once(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        flow_ode(FIELD, (2, 2), **options)


def test_a_sampler_wants_velocities():
    with pytest.raises(ValueError, match="model must predict velocities and say so"):
        flow_ode(DENOISER, (2, 2), 4)


@pytest.mark.parametrize(
    ("visited", "place", "words"),
    [
        ([150, 100, 40], FIRST, "visited holds 3 steps; to halve them there must be an even number"),
        ([40, 150], FIRST, "timesteps must fall strictly within 199…0"),
        ([250, 40], FIRST, "timesteps must fall strictly within 199…0"),
        ([150, 40], FIRST + 1, "place must hold one whole number from 0 to 0 for each of 2 examples"),
        ([150, 40], FIRST - 1, "place must hold one whole number"),
        ([150, 40], torch.zeros(3, dtype=torch.long), "place must hold one whole number"),
        ([150, 40], 0, "place must hold one whole number"),
    ],
)
def test_lists_of_steps(visited, place, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        distillation_loss(DENOISER, DENOISER, S, X, place, X, visited)
