"""Uses of the loop: images as starting points, known parts, the way back, and walks between noises."""

import math

import pytest
import torch

from course_lib.diffusion import (
    FiniteDenoiser,
    GaussianDenoiser,
    Schedule,
    ddim,
    ddpm,
    dpm_solver_pp_2m,
    heun,
    img2img,
    inpaint,
    invert,
    q_sample,
    sample,
    slerp,
    timesteps,
)
from course_lib.runtime import generator

S = Schedule.linear(1000)
POINTS = torch.randn(12, 1, 6, 6, generator=generator(77)).clamp(-1, 1)
FINITE = FiniteDenoiser(S, POINTS)
MEAN = torch.tensor([0.3, -0.2], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
GAUSSIAN = GaussianDenoiser(S, MEAN, COVARIANCE)


def last(states):
    *_, state = states
    return state


# --- image to image --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("strength", "count"), [(0.001, 1), (0.2, 4), (0.5, 10), (1, 20)])
def test_strength_is_the_share_of_steps_that_run(strength, count):
    states = list(img2img(FINITE, S, POINTS[:2], strength, 20, generator=generator(0)))
    assert len(states) == count
    assert [state.t for state in states] == [*timesteps(1000, 20)[20 - count :][1:], -1]


def test_a_little_noise_leaves_the_image_and_much_forgets_it():
    gentle = last(img2img(FINITE, S, POINTS, 0.1, generator=generator(0))).x
    torch.testing.assert_close(gentle, POINTS, rtol=0, atol=1e-3)
    strong = last(img2img(FINITE, S, POINTS, 1, generator=generator(0))).x
    same = (strong - POINTS).flatten(1).abs().amax(1) < 0.1
    assert same.float().mean() < 0.5


def test_img2img_starts_from_the_noised_image_with_any_sampler():
    for sampler in (ddpm, heun):
        seen = []

        def model(x_t, t, cond, seen=seen):
            seen.append((x_t.clone(), int(t[0])))
            return torch.zeros_like(x_t)

        list(img2img(model, S, POINTS[:3], 0.5, 10, sampler=sampler, kind="noise", generator=generator(3)))
        start, t = seen[0]
        assert t == timesteps(1000, 10)[5]
        noise = torch.randn(3, 1, 6, 6, generator=generator(3))
        torch.testing.assert_close(start, q_sample(S, POINTS[:3], t, noise))


# --- inpainting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [ddpm, ddim, dpm_solver_pp_2m])
def test_the_known_part_is_kept_and_the_rest_fits(sampler):
    """Half an image of twelve tells which one it is."""
    keep = torch.zeros(6, 6, dtype=torch.bool)
    keep[:, :3] = True
    right = {}
    for resample in (1, 10):
        states = inpaint(FINITE, S, POINTS, keep, 50, resample=resample, sampler=sampler, generator=generator(0))
        result = last(states)
        assert result.t == -1
        assert torch.equal(result.x[..., :3], POINTS[..., :3])
        right[resample] = int(((result.x - POINTS).flatten(1).abs().amax(1) < 0.01).sum())
    assert right[10] >= 11
    assert right[1] <= right[10]


def test_every_step_runs_as_often_as_asked():
    keep = torch.zeros(6, 6, dtype=torch.bool)
    seen = [state.t for state in inpaint(FINITE, S, POINTS[:2], keep, 4, resample=3, generator=generator(0))]
    assert seen == [t for t in [*timesteps(1000, 4)[1:], -1] for _ in range(3)]


def test_every_image_may_have_its_own_mask_and_generator():
    keep = torch.rand(4, 1, 6, 6, generator=generator(9)) < 0.5

    def run(indices):
        generators = [generator(100 + i) for i in indices]
        return last(inpaint(FINITE, S, POINTS[indices], keep[indices], 20, generator=generators)).x

    torch.testing.assert_close(torch.cat([run([0]), run([1, 2, 3])]), run([0, 1, 2, 3]), rtol=0, atol=1e-4)


def test_resampling_brings_the_conditional_closer():
    """First coordinate known to be 1.5: the second's conditional is N(.76, .36). One run per step gives .4 or less."""
    n = 4000
    image = torch.tensor([[1.5, 0.0]], dtype=torch.float64).expand(n, 2)
    errors = []
    for resample in (1, 3, 20):
        states = inpaint(
            GAUSSIAN, S, image, torch.tensor([True, False]), 100, resample=resample, generator=generator(0)
        )
        x = last(states).x
        assert (x[:, 0] == 1.5).all()
        errors.append(abs(float(x[:, 1].mean()) - 0.76))
    assert errors[0] > 0.3
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.06


# --- there and back --------------------------------------------------------------------------------------------------


def test_inversion_comes_back_and_better_with_more_steps():
    x = MEAN + torch.randn(200, 2, generator=generator(0), dtype=torch.float64) @ torch.linalg.cholesky(COVARIANCE).T
    errors = []
    for steps in (25, 50, 100, 200):
        states = list(invert(GAUSSIAN, S, x, steps))
        assert [state.t for state in states] == timesteps(1000, steps)[::-1]
        back = sample(GAUSSIAN, S, (200, 2), steps, x=states[-1].x, progress=False)
        errors.append(float((back - x).abs().mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 5
    assert errors[-1] < 0.05


def test_inversion_of_data_gives_noise():
    x = MEAN + torch.randn(20_000, 2, generator=generator(0), dtype=torch.float64) @ torch.linalg.cholesky(COVARIANCE).T
    noise = last(invert(GAUSSIAN, S, x, 1000)).x
    assert (noise.mean(0).abs() < 0.03).all()
    torch.testing.assert_close(torch.cov(noise.T), torch.eye(2, dtype=torch.float64), rtol=0, atol=0.05)


@pytest.mark.parametrize("kind", ["x_start", "v"])
def test_inversion_is_the_same_for_every_kind_of_prediction(kind):
    x = torch.randn(5, 2, generator=generator(0), dtype=torch.float64)
    wanted = last(invert(GAUSSIAN, S, x, 40)).x
    other = last(invert(GaussianDenoiser(S, MEAN, COVARIANCE, kind), S, x, 40)).x
    torch.testing.assert_close(other, wanted, rtol=1e-6, atol=1e-8)


# --- between two noises ----------------------------------------------------------------------------------------------


def test_slerp_keeps_the_length_of_noise():
    a, b = torch.randn(2, 3, 1, 32, 32, generator=generator(0))
    assert torch.equal(slerp(a, b, 0), a)
    torch.testing.assert_close(slerp(a, b, 1), b)
    middle, straight = slerp(a, b, 0.5), (a + b) / 2
    assert float(middle.std()) == pytest.approx(1, abs=0.05)
    assert float(straight.std()) == pytest.approx(math.sqrt(0.5), abs=0.05)
    unit = torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(
        slerp(unit, torch.tensor([[0.0, 1.0]]), 1 / 3), torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6)]])
    )
    torch.testing.assert_close(slerp(a, a, 0.3), a)  # no angle between them


def test_slerp_image_by_image():
    a, b = torch.randn(2, 3, 5, generator=generator(0))
    together = slerp(a, b, 0.3)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], slerp(a[i : i + 1], b[i : i + 1], 0.3))
