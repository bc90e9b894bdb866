"""Samplers with a perfect network: what is left is the sampler's own error, known exactly on Gaussian data."""

import math
from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from course_lib.diffusion import (
    GaussianDenoiser,
    MixtureDenoiser,
    Schedule,
    ddim,
    ddim_step,
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
MEAN = torch.tensor([0.5, -0.3], dtype=torch.float64)
TURN = torch.tensor([[math.cos(0.6), -math.sin(0.6)], [math.sin(0.6), math.cos(0.6)]], dtype=torch.float64)
AXIS_VARIANCES = torch.tensor([0.09, 1.7], dtype=torch.float64)  # along the two columns of TURN
COVARIANCE = TURN @ torch.diag(AXIS_VARIANCES) @ TURN.T
DENOISERS = {kind: GaussianDenoiser(S, MEAN, COVARIANCE, prediction=kind) for kind in ("noise", "x_start", "v")}
DENOISER = DENOISERS["noise"]
ALL = (ddpm, ddim, dpm_solver_pp_2m, euler, heun)

# --- affine probing: on Gaussian data every sampler is affine, so a few calls give its exact output distribution -----


def probed(step, ts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance after all steps from x ~ N(0, I). `step(x, t, t_prev, noise)` is probed at 0, e₁, e₂."""
    zero, basis = torch.zeros(1, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    mean, covariance = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    for t, t_prev in zip(ts, [*ts[1:], -1], strict=True):
        b = step(zero, t, t_prev, zero)[0]
        A = (step(basis, t, t_prev, torch.zeros_like(basis)) - b).T
        N = (step(zero.expand(2, -1), t, t_prev, basis) - b).T
        mean, covariance = A @ mean + b, A @ covariance @ A.T + N @ N.T
    return mean, covariance


def exact(rule, ts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in plain numbers, one principal axis at a time. rule(ᾱ, ᾱ_prev) -> weights of x_start, x_t and noise.

    With gain g, the best guess of x_start is m + g (x_t - √ᾱ m): one line of school algebra per step.
    """
    bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).tolist()
    means, variances = [], []
    for m, s2 in zip((TURN.T @ MEAN).tolist(), AXIS_VARIANCES.tolist(), strict=True):
        mean, variance = 0.0, 1.0
        for t, t_prev in zip(ts, [*ts[1:], -1], strict=True):
            bar, bar_prev = bars[t], bars[t_prev] if t_prev >= 0 else 1.0
            gain = math.sqrt(bar) * s2 / (bar * s2 + 1 - bar)
            of_x_start, of_x_t, of_noise = rule(bar, bar_prev)
            slope = of_x_start * gain + of_x_t
            mean = slope * mean + of_x_start * (m - gain * math.sqrt(bar) * m)
            variance = slope**2 * variance + of_noise**2
        means.append(mean)
        variances.append(variance)
    return TURN @ torch.tensor(means, dtype=torch.float64), TURN @ torch.diag(
        torch.tensor(variances, dtype=torch.float64)
    ) @ TURN.T


def ddpm_rule(variance):
    def rule(bar, bar_prev):
        alpha = bar / bar_prev
        small = (1 - bar_prev) / (1 - bar) * (1 - alpha)
        std = math.sqrt(small if variance == "small" else 1 - alpha) if bar_prev < 1 else 0.0
        return (
            math.sqrt(bar_prev) * (1 - alpha) / (1 - bar),
            math.sqrt(alpha) * (1 - bar_prev) / (1 - bar),
            std,
        )

    return rule


def ddim_rule(eta):
    def rule(bar, bar_prev):
        std = eta * math.sqrt((1 - bar_prev) / (1 - bar)) * math.sqrt(1 - bar / bar_prev)
        # the noise is (x_t - √ᾱ x_start) / √(1-ᾱ)
        kept = math.sqrt(max(0.0, 1 - bar_prev - std**2)) / math.sqrt(1 - bar)
        return math.sqrt(bar_prev) - kept * math.sqrt(bar), kept, std

    return rule


@pytest.mark.parametrize("steps", [10, 37, 1000])
@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("small", ddpm_rule("small")),
        ("large", ddpm_rule("large")),
        (0.0, ddim_rule(0.0)),
        (0.5, ddim_rule(0.5)),
        (1.0, ddim_rule(1.0)),
    ],
)
def test_noisy_samplers_have_their_exact_output_distribution(steps, name, rule):
    def step(x, t, t_prev, noise):
        prediction = DENOISER(x, t)
        if isinstance(name, str):
            return ddpm_step(S, x, prediction, t, t_prev, noise, variance=name)[0]
        return ddim_step(S, x, prediction, t, t_prev, noise, eta=name)[0]

    ts = timesteps(1000, steps)
    for ours, wanted in zip(probed(step, ts), exact(rule, ts), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-9)


def whole_run(sampler, kind: str, ts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """A deterministic sampler is one affine map from x_T: three start points give it, and its output distribution."""
    start = torch.cat([torch.zeros(1, 2), torch.eye(2)]).double()
    x = sample(DENOISERS[kind], S, (3, 2), sampler=sampler, timesteps=ts, x=start, progress=False)
    A = (x[1:] - x[0]).T
    return x[0], A @ A.T


def solver_by_hand(name: str, ts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Each solver from its paper in its own coordinates, one axis at a time: x = b + a x_T as a pair of numbers.

    Euler and Heun: dx̄/dσ = (x̄ - D)/σ with D the denoised x̄ (Karras et al. 2022). DPM-Solver++(2M): algorithm 2.
    """
    bars = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).tolist()
    levels = [bars[t] for t in ts] + [1.0]
    offsets, slopes = [], []
    for m, s2 in zip((TURN.T @ MEAN).tolist(), AXIS_VARIANCES.tolist(), strict=True):

        def denoised(scaled, sigma, m=m, s2=s2):  # of x̄ = x_start + σ noise, as a pair (constant, factor of x_T)
            share = s2 / (s2 + sigma**2)
            return m - share * m + share * scaled[0], share * scaled[1]

        sigmas = [math.sqrt(1 / bar - 1) for bar in levels]
        scaled, before = (0.0, 1 / math.sqrt(levels[0])), None
        for sigma, ahead in pairwise(sigmas):
            D = denoised(scaled, sigma)
            slope = [(a - b) / sigma for a, b in zip(scaled, D, strict=True)]
            if name == "dpm_solver_pp_2m":
                aim = D
                if before is not None and ahead > 0:
                    r = math.log(before[1] / sigma) / math.log(sigma / ahead)  # λ = -ln σ
                    aim = [(1 + 1 / (2 * r)) * a - b / (2 * r) for a, b in zip(D, before[0], strict=True)]
                before = (D, sigma)
                scaled = [ahead / sigma * a + (1 - ahead / sigma) * b for a, b in zip(scaled, aim, strict=True)]
                continue
            arrived = [a + (ahead - sigma) * s for a, s in zip(scaled, slope, strict=True)]
            if name == "heun" and ahead > 0:
                end = [(a - b) / ahead for a, b in zip(arrived, denoised(arrived, ahead), strict=True)]
                middle = [(s + e) / 2 for s, e in zip(slope, end, strict=True)]
                arrived = [a + (ahead - sigma) * s for a, s in zip(scaled, middle, strict=True)]
            scaled = arrived
        offsets.append(scaled[0])
        slopes.append(scaled[1])
    A = TURN @ torch.diag(torch.tensor(slopes, dtype=torch.float64)) @ TURN.T
    return TURN @ torch.tensor(offsets, dtype=torch.float64), A @ A.T


@pytest.mark.parametrize("kind", ["noise", "x_start", "v"])
@pytest.mark.parametrize("steps", [1, 2, 10, 37, 50])
@pytest.mark.parametrize("sampler", [dpm_solver_pp_2m, euler, heun, ddim])
def test_deterministic_samplers_have_their_exact_output_distribution(sampler, steps, kind):
    name = "euler" if sampler is ddim else sampler.__name__
    ts = timesteps(1000, steps)
    for ours, wanted in zip(whole_run(sampler, kind, ts), solver_by_hand(name, ts), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-8)


def test_few_steps_have_too_little_variance():
    """Correct code does not reproduce the data's covariance with few steps: here is by how much it falls short."""
    shares = [
        float(torch.trace(whole_run(ddim, "noise", timesteps(1000, steps))[1]) / torch.trace(COVARIANCE))
        for steps in (10, 50, 100, 1000)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.7
    assert 0.98 < shares[-1] < 1


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (ddim, 1), (heun, 2), (dpm_solver_pp_2m, 2)])
def test_order_of_convergence(sampler, order):
    """Against the exact solution of the probability-flow ODE, x̄ = m + (x̄₀ - m) √(s² + σ²) / √(s² + σ₀²).

    Measured on a fine schedule, before the last step: that one goes to σ = 0, where a second slope can't be asked.
    """
    fine = Schedule.linear(2**14)
    denoiser = GaussianDenoiser(
        fine, torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.3], dtype=torch.float64)
    )
    start, errors = torch.tensor([[1.3], [-0.4]], dtype=torch.float64), []
    high, low = 2**14 - 1, 2**11
    for steps in (128, 256, 512):
        ts = [round(high - i * (high - low) / steps) for i in range(steps + 1)]
        states = sampler(denoiser, fine, (2, 1), timesteps=ts, x=start)
        (x,) = (state.x for state in states if state.t == low)
        bars = fine.alpha_bars[[high, low]]
        sigma0, sigma = (1 / bars - 1).sqrt()
        spread = ((0.3 + sigma**2) / (0.3 + sigma0**2)).sqrt()
        wanted = bars[1].sqrt() * (0.5 + (start / bars[0].sqrt() - 0.5) * spread)
        errors.append(float((x - wanted).abs().max()))
    measured = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(abs(each - order) < 0.2 for each in measured), (measured, errors)


# --- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["noise", "v"])
def test_ddpm_recovers_the_weights_of_a_mixture(kind):
    """Two modes, .9 and .1, at -1 and 1 with std .1: within three standard errors at n = 4000, T = 1000."""
    n, weights = 4000, torch.tensor([0.9, 0.1])
    mixture = MixtureDenoiser(S, weights, torch.tensor([[-1.0], [1.0]]), torch.tensor([0.01, 0.01]), kind)
    x = sample(mixture, S, (n, 1), sampler=ddpm, generator=generator(5), progress=False)
    right = x > 0
    assert abs(float(right.float().mean()) - 0.1) < 3 * math.sqrt(0.09 / n)
    for mode, mean in ((right, 1.0), (~right, -1.0)):
        count = int(mode.sum())
        assert abs(float(x[mode].mean()) - mean) < 3 * 0.1 / math.sqrt(count) + 0.002
        # the small variance makes each mode a little too narrow: .0963 instead of .1 (see test_two_variances)
        assert abs(float(x[mode].std()) - 0.0963) < 3 * 0.1 / math.sqrt(2 * count)


@pytest.mark.parametrize(("T", "small", "large"), [(1000, 0.09631, 0.10077), (25, 0.05991, 0.15107)])
def test_two_variances(T, small, large):
    """Data of std .1. At T = 1000 the choice hardly matters; at T = 25 one is far too narrow and one far too wide.

    The numbers are those of the recursion std² ← gain² std² + σ², written in NumPy apart from this library. Four
    standard errors of 20,000 draws are 2%.
    """
    schedule = Schedule.linear(T)
    denoiser = GaussianDenoiser(schedule, torch.zeros(1).double(), torch.tensor([0.01], dtype=torch.float64))
    for variance, wanted in (("small", small), ("large", large)):
        x = sample(
            denoiser, schedule, (20_000, 1), sampler=ddpm, variance=variance, generator=generator(0), progress=False
        )
        assert float(x.std()) == pytest.approx(wanted, rel=0.02)


def test_without_noise_the_samples_collapse():
    """σ_t z is not decoration: without it every particle ends in the mean of the data."""
    denoiser = GaussianDenoiser(S, torch.zeros(1).double(), torch.ones(1).double())
    x = torch.randn(2000, 1, generator=generator(0), dtype=torch.float64)
    for t in range(999, -1, -1):
        x, _ = ddpm_step(S, x, denoiser(x, t), t, t - 1, torch.zeros_like(x))
    assert float(x.std()) == pytest.approx(0.0055, abs=0.001)


def test_the_way_back_draws_a_new_sample():
    """Noise x_start all the way and sample: the distribution is right, the image is another."""
    denoiser = MixtureDenoiser(S, torch.tensor([0.5, 0.5]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.01, 0.01]))
    n, g = 2000, generator(1)
    x_start = torch.where(torch.rand(n, 1, generator=g) < 0.5, -1.0, 1.0) + 0.1 * torch.randn(n, 1, generator=g)
    x_T = S.alpha_bars[-1].sqrt().float() * x_start + (1 - S.alpha_bars[-1]).sqrt().float() * torch.randn(
        n, 1, generator=g
    )
    x = sample(denoiser, S, (n, 1), sampler=ddpm, x=x_T, generator=g, progress=False)
    same = float((x.sign() == x_start.sign()).float().mean())
    assert abs(same - 0.5) < 4 * 0.5 / math.sqrt(n) + 0.01  # √ᾱ_T = .006 of it is left
    assert 0.4 < float((x > 0).float().mean()) < 0.6


# --- the loop --------------------------------------------------------------------------------------------------------


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
