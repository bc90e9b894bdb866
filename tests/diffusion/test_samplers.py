"""The samplers' loop: which steps it visits, what it hands out and takes back, whose random numbers it uses."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from course_lib.diffusion import (
    GaussianDenoiser,
    Schedule,
    ddim,
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
DENOISER = GaussianDenoiser(S, torch.tensor([0.5, -0.3]).double(), torch.tensor([0.4, 1.1]).double())
ALL = (ddpm, ddim, dpm_solver_pp_2m, euler, heun)


class Recorder:
    """Answers with zeros and remembers what it was asked."""

    prediction = "noise"

    def __init__(self):
        self.asked = []

    def __call__(self, x_t, t, cond):
        self.asked.append((t, cond))
        return torch.zeros_like(x_t)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [1, 7, 13, 30, 50])
@pytest.mark.parametrize("sampler", ALL)
def test_the_next_step_is_the_next_entry_of_the_list(sampler, steps, spacing):
    model = Recorder()
    states = list(sampler(model, S, (2, 3), steps, spacing=spacing, cond="a shoe", generator=generator(0)))
    visited = timesteps(1000, steps, spacing)
    assert [state.t for state in states] == [*visited[1:], -1]
    asked = [int(t[0]) for t, _ in model.asked]
    assert list(dict.fromkeys(asked)) == visited
    assert len(asked) == (2 * steps - 1 if sampler is heun else steps)
    for t, cond in model.asked:
        assert t.shape == (2,)
        assert t.dtype == torch.long
        assert cond == "a shoe"


@pytest.mark.parametrize("sampler", ALL)
def test_an_iterator_of_known_length_that_may_be_left_early(sampler):
    states = sampler(DENOISER, S, (2, 2), 8, generator=generator(0))
    assert len(states) == 8
    assert iter(states) is states
    first = next(states)
    assert first.x.shape == first.x_start.shape == (2, 2)
    assert first.t == timesteps(1000, 8)[1]
    assert len(list(states)) == 7


@pytest.mark.parametrize("sampler", ALL)
def test_the_work_grows_with_calls_and_with_pixels(sampler):
    """Multiplications in the network: 2n - 1 calls for n steps of Heun, n for the others, each linear in the pixels."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 3, 3, padding=1))

    def work(steps, pixels):
        with FlopCounterMode(display=False) as counter:
            states = sampler(lambda x, t, cond: network(x), S, (1, 3, pixels, pixels), steps, kind="noise")
            list(states)
        return counter.get_total_flops()

    calls = 2 * 10 - 1 if sampler is heun else 10
    assert work(10, 8) == calls * work(1, 8) > 0
    assert work(10, 16) == 4 * work(10, 8)


def test_ddpm_visits_every_step_unless_told_otherwise():
    assert len(ddpm(Recorder(), Schedule.linear(60), (1, 2))) == 60
    assert len(ddpm(Recorder(), S, (1, 2), 20)) == 20


@pytest.mark.parametrize("sampler", ALL)
def test_assigning_to_the_state_moves_the_sampler(sampler):
    """What the next prediction is made from is the state's x, whatever a loop put there."""
    seen = []

    def model(x_t, t, cond):
        seen.append(x_t.clone())
        return torch.zeros_like(x_t)

    for state in sampler(model, S, (2, 3), 4, kind="noise", generator=generator(0)):
        state.x = torch.full((2, 3), 7.0)
    per_step = 2 if sampler is heun else 1
    assert all((x == 7).all() for x in seen[per_step::per_step])


def small_network() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = torch.nn.Conv2d(3, 3, 3, padding=1)
    return type(
        "Net", (torch.nn.Module,), {"prediction": "noise", "forward": lambda self, x, t, c: network(x).tanh()}
    )()


NOISY = [
    (ddpm, {}),
    (ddpm, {"variance": "large"}),
    (ddim, {"eta": 0.5}),
    (ddim, {}),
    (dpm_solver_pp_2m, {}),
    (heun, {}),
]


@pytest.mark.parametrize(("sampler", "options"), NOISY)
def test_the_same_generator_gives_the_same_images(sampler, options):
    def draw(seed):
        return sample(
            small_network(), S, (3, 3, 8, 8), 12, sampler=sampler, generator=generator(seed), progress=False, **options
        )

    assert torch.equal(draw(1), draw(1))
    assert (draw(1) - draw(2)).abs().max() > 0.1


@pytest.mark.parametrize(("sampler", "options"), NOISY)
def test_an_image_depends_on_its_own_generator_only(sampler, options):
    """Six images at once, or two and four: the same six images, to 1e-4."""

    def draw(seeds):
        generators = [generator(seed) for seed in seeds]
        return sample(
            small_network(),
            S,
            (len(seeds), 3, 8, 8),
            12,
            sampler=sampler,
            generator=generators,
            progress=False,
            **options,
        )

    whole = draw(range(6))
    torch.testing.assert_close(torch.cat([draw([0, 1]), draw([2, 3, 4, 5])]), whole, rtol=0, atol=1e-4)
    torch.testing.assert_close(draw([5, 0]), whole[[5, 0]], rtol=0, atol=1e-4)
    assert (whole[0] - whole[1]).abs().max() > 0.1


def test_nothing_is_drawn_behind_the_callers_back():
    before = torch.random.get_rng_state()
    for sampler, options in NOISY:
        sample(small_network(), S, (2, 3, 4, 4), 3, sampler=sampler, generator=generator(0), progress=False, **options)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_generator_is_a_loop_over_the_step():
    """Drawing the same numbers by hand gives the same images, bit for bit."""
    g = generator(4)
    x = torch.randn(5, 2, generator=g)
    ts = timesteps(1000, 9)
    for t, t_prev in zip(ts, [*ts[1:], -1], strict=True):
        noise = torch.randn(5, 2, generator=g) if t_prev >= 0 else None
        x, _ = ddpm_step(S, x, DENOISER(x, torch.full((5,), t)), t, t_prev, noise, variance="large", clip=(-2, 2))
    options = {"sampler": ddpm, "variance": "large", "clip": (-2, 2), "generator": generator(4), "progress": False}
    assert torch.equal(sample(DENOISER, S, (5, 2), 9, **options), x)


def test_clip_reaches_every_sampler():
    for sampler in ALL:
        final = sample(
            DENOISER, S, (50, 2), 5, sampler=sampler, clip=(-0.2, 0.2), generator=generator(0), progress=False
        )
        assert float(final.abs().max()) <= 0.2 + 1e-6


def test_no_gradients_are_kept():
    network = torch.nn.Linear(2, 2)
    states = ddim(lambda x, t, c: network(x), S, (4, 2), 5, kind="noise", generator=generator(0))
    assert not any(state.x.requires_grad for state in states)


def test_images_are_made_where_the_weights_are():
    with torch.device("meta"):
        network = torch.nn.Conv2d(3, 3, 3, padding=1)
    model = torch.nn.Module()
    model.inner, model.prediction, model.forward = network, "noise", lambda x, t, c: network(x)
    (state, *_) = ddim(model, S, (2, 3, 8, 8), 3)
    assert state.x.device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("sampler", "options"), NOISY)
def test_a_gpu_makes_the_same_images_from_a_cpu_generator(sampler, options):
    on_cpu, on_gpu = (
        sample(
            DENOISER, S, (4, 2), 10, sampler=sampler, device=d, generator=generator(0), progress=False, **options
        ).cpu()
        for d in ("cpu", "cuda")
    )
    torch.testing.assert_close(on_cpu, on_gpu, rtol=1e-4, atol=1e-4)
