"""Every tagged equation of lesson 09, checked by a route that does not use the formula itself."""

import math
import warnings

import numpy as np
import pytest
import torch
from scipy import stats

from course_lib.data import shapes
from course_lib.diffusion import (
    GaussianDenoiser,
    Schedule,
    ancestral,
    ddpm,
    posterior,
    q_chain,
    q_mean_variance,
    q_sample,
    q_step,
    sample,
    true_times,
    x_start_and_noise,
)
from course_lib.evaluation import frechet_distance
from course_lib.recipes.mnist_denoisers import noise_level
from course_lib.training import DiffusionObjective, Draws, improvements, training_step

S = Schedule.linear(500)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Says(torch.nn.Module):
    """A network that answers with a multiple of what it sees."""

    prediction = "noise"

    def __init__(self, factor):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x_t, t, cond=None):
        return self.factor * x_t


def test_eq_9_1():
    """Answers 0 and x_t have losses known by the algebra of variances; t is uniform, every value has its own noise."""
    n, std, bars = 40_000, 0.5, np.cumprod(1 - np.linspace(2e-4, 0.04, 500))
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0)) * std
    for factor, expected in (
        (0.0, 1.0),
        (1.0, np.mean(bars * std**2 + (np.sqrt(1 - bars) - 1) ** 2)),
    ):
        model = Says(factor)
        by_objective = DiffusionObjective(S)(model, x, Draws(0, 0, n, slice(0, n))).item()
        t = torch.randint(500, (n,), generator=torch.Generator().manual_seed(1))
        noise = torch.randn(n, 2, generator=torch.Generator().manual_seed(2))
        by_step = training_step(model, torch.optim.SGD(model.parameters(), lr=0.0), S, x, t, noise)
        error = 4 * math.sqrt(2) / math.sqrt(2 * n)
        assert abs(by_objective - expected) < error
        assert abs(by_step - expected) < error


@pytest.mark.parametrize("t", [20, 150, 320])
def test_eq_9_2(t):
    """Of all pictures between -1 and 1, the guess is the one that explains x_t best: found on a fine grid."""
    x_t, answer = draws(6, seed=1), draws(6, seed=2)
    grid = torch.linspace(-1, 1, 4001, dtype=torch.float64)
    bar = math.prod((1 - S.betas[: t + 1]).tolist())
    left_over = x_t[:, None] - math.sqrt(bar) * grid - math.sqrt(1 - bar) * answer[:, None]
    found, again = x_start_and_noise(S, x_t, t, answer, "noise", (-1, 1))
    assert torch.allclose(found, grid[left_over.abs().argmin(dim=1)], atol=2.6e-4)
    assert torch.allclose(math.sqrt(bar) * found + math.sqrt(1 - bar) * again, x_t)


def test_eq_9_3():
    """Mean and spread of x_{t-1}: by brute force, all clean-to-noisy paths that end at x_t."""
    t, x_start, x_t, n = 40, 0.4, -0.3, 200_000
    grid = torch.linspace(-4, 4, 200_001, dtype=torch.float64)
    before = math.prod((1 - S.betas[:t]).tolist())
    beta = S.betas[t].item()
    weight = torch.exp(
        -((grid - math.sqrt(before) * x_start) ** 2) / (2 * (1 - before))
        - (x_t - math.sqrt(1 - beta) * grid) ** 2 / (2 * beta)
    )
    weight /= weight.sum()
    mean = (weight * grid).sum()
    variance = (weight * (grid - mean) ** 2).sum()
    one = torch.ones(1, dtype=torch.float64)
    middle, spread = posterior(S, x_start * one, x_t * one, t)
    x_prev = middle + spread.sqrt() * draws(n)
    assert abs(x_prev.mean() - mean) < 4 * math.sqrt(variance / n)
    assert abs(x_prev.var() - variance) < 4 * variance * math.sqrt(2 / n)


def test_the_whole_way_back():
    """`ancestral` with the exact answer for a Gaussian draws that Gaussian; at the last step noise has no effect."""
    short, n = Schedule.linear(200), 20_000
    exact = GaussianDenoiser(short, torch.tensor([0.3]), torch.tensor([0.25]))
    x, noise = draws(n, 1, seed=3), draws(200, n, 1, seed=4)
    found = ancestral(exact, short, x, noise, clip=None)
    assert abs(found.mean() - 0.3) < 4 * 0.5 / math.sqrt(n) + 0.005
    assert abs(found.var() - 0.25) < 0.25 * (4 * math.sqrt(2 / n) + 0.04)
    noise[0] = 100.0
    assert torch.equal(found, ancestral(exact, short, x, noise, clip=None))
    few = noise[:, :3].clone()
    theirs = few.flip(0)  # `ddpm` asks for its numbers in the order of its steps
    queue = iter(theirs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("course_lib.diffusion.samplers.randn", lambda *args: next(queue))
        by_library = sample(exact, short, (3, 1), sampler=ddpm, x=x[:3], clip=(-1, 1), progress=False)
    assert torch.allclose(ancestral(exact, short, x[:3], few), by_library)


@pytest.mark.parametrize("t", [0, 100, 300, 499])
def test_eq_9_4(t):
    """The derivative of the guess by the answer, measured."""
    x_t, answer, step = draws(3, 4, seed=5), draws(3, 4, seed=6), 1e-3
    guesses = [x_start_and_noise(S, x_t, t, answer + s * step, "noise")[0] for s in (-1, 1)]
    signal, noise = q_mean_variance(S, torch.ones(1, dtype=torch.float64), t)[:2]
    assert torch.allclose((guesses[1] - guesses[0]) / (2 * step), -(noise.sqrt() / signal), rtol=1e-6)


def test_eq_9_5():
    """The distance of two bells is the mean squared way of the best transport: between equal quantiles."""
    shares = (np.arange(400_000) + 0.5) / 400_000
    for m_a, s_a, m_b, s_b in ((0.0, 1.0, 0.7, 1.5), (-1.0, 0.2, 1.0, 0.2), (0.3, 2.0, 0.3, 0.5)):
        moved = stats.norm.ppf(shares, m_a, s_a) - stats.norm.ppf(shares, m_b, s_b)
        cells = [
            torch.tensor([m]) if k % 2 == 0 else torch.tensor([[m**2]]) for k, m in enumerate((m_a, s_a, m_b, s_b))
        ]
        assert frechet_distance(*cells) == pytest.approx(np.mean(moved**2), rel=1e-3)


def test_eq_9_6():
    """The spread of what 60 single steps have added; and `noise_level` finds it in pictures, knowing nothing else."""
    short = Schedule.linear(60)
    x = torch.full((40_000,), 0.7, dtype=torch.float64)
    kept = 1.0
    for t, x_t in enumerate(q_chain(short, x, torch.Generator().manual_seed(0))):
        kept *= math.sqrt(1 - short.betas[t].item())
        if t % 15 == 9:
            left = (x_t - kept * 0.7).std().item()
            assert left == pytest.approx(short.noise_std[t].item(), rel=4 / math.sqrt(2 * 40_000))
    pictures = shapes.make(16, seed=0).images[:, :1]
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    for t in (60, 150, 400):
        assert noise_level(q_sample(S, pictures, t, noise)) == pytest.approx(S.noise_std[t].item(), rel=0.05)
    assert noise_level(pictures) < 0.01


# --- the small functions of the exercises ----------------------------------------------------------------------------


def test_one_step_follows_the_gradient_of_the_loss_it_reports():
    model = Says(0.2)
    x, noise, t = draws(5, 3), draws(5, 3, seed=1), torch.tensor([3, 50, 100, 300, 499])
    x_t = q_sample(S, x, t, noise)
    loss = training_step(model, torch.optim.SGD(model.parameters(), lr=0.1), S, x, t, noise)
    assert loss == pytest.approx(((0.2 * x_t - noise) ** 2).mean().item(), rel=1e-6)
    slope = (2 * (0.2 * x_t - noise) * x_t).mean().item()
    assert model.factor.item() == pytest.approx(0.2 - 0.1 * slope, rel=1e-5)


def test_improvements_and_times():
    assert improvements([]) == []
    assert improvements([math.nan, 2.0, 2.0, 1.0, math.nan, 1.5]) == [False, True, False, True, False, False]
    seen = []
    for state in ddpm(Says(0.0), S, (1, 1), 500, generator=torch.Generator().manual_seed(0)):
        seen.append(state.t + 1)  # the index of the code, and 1 more for the time of the formulas
    assert true_times(500, [0, 7, 499, -1, -500]) == [seen[k] for k in (0, 7, 499, -1, -500)] == [499, 492, 0, 0, 499]


# --- the same in other people's code ---------------------------------------------------------------------------------


def test_names_of_the_class():
    """Every method of the sources' GaussianDiffusion, with another T than 1000, beside numbers made by hand."""
    short = Schedule.linear(50)
    x, noise, t = draws(4, 2), draws(4, 2, seed=1), torch.tensor([0, 10, 30, 49])
    bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 50, dtype=torch.float64) * 20, 0)[t][:, None]
    x_t = q_sample(short, x, t, noise)
    assert torch.allclose(x_t, bar**0.5 * x + (1 - bar) ** 0.5 * noise)
    mean, variance, log_variance = q_mean_variance(short, x, t)
    assert torch.allclose(mean, bar**0.5 * x)
    assert torch.allclose(variance, 1 - bar)
    assert torch.allclose(log_variance.exp(), 1 - bar)
    back, _ = x_start_and_noise(short, x_t, t, noise, "noise")
    assert torch.allclose(back, x)
    images = sample(
        Says(0.1), short, (3, 1, 4, 4), sampler=ddpm, clip=(-1, 1), generator=torch.Generator().manual_seed(0)
    )
    assert images.shape == (3, 1, 4, 4)
    assert images.abs().max() <= 1


@pytest.mark.parametrize("T", [500, 1000])
def test_coefficients_in_numpy(T):
    """The tables of a Keras class, in NumPy and float64, agree with Schedule's to 1e-6."""
    betas = np.linspace(1000 / T * 1e-4, 1000 / T * 0.02, T)
    bar = np.cumprod(1 - betas)
    prev = np.append(1.0, bar[:-1])
    ours = Schedule.linear(T)
    for mine, theirs in (
        (ours.betas, betas),
        (ours.alpha_bars, bar),
        (ours.alpha_bars_prev, prev),
        (ours.sqrt_alpha_bars, np.sqrt(bar)),
        (ours.noise_std, np.sqrt(1 - bar)),
        (ours.recip_sqrt_alpha_bars, np.sqrt(1 / bar)),
        (ours.recipm1_sqrt_alpha_bars, np.sqrt(1 / bar - 1)),
        (ours.posterior_variance, betas * (1 - prev) / (1 - bar)),
        (ours.posterior_coef_x_start, betas * np.sqrt(prev) / (1 - bar)),
        (ours.posterior_coef_x_t, (1 - prev) * np.sqrt(1 - betas) / (1 - bar)),
    ):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-6, atol=1e-15)


def test_the_wrapper():
    """Its `forward` is q_sample, for t of shape (N,) and (N, 1); its default schedule leaves 36% of the picture."""
    x, noise = draws(3, 1, 2, 2), draws(3, 1, 2, 2, seed=1)
    t = torch.tensor([[0], [99], [199]])
    bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 200))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cut_short = Schedule.linear(200, rescale=False)
    by_hand = np.stack(
        [np.sqrt(bars[k]) * a + np.sqrt(1 - bars[k]) * b for k, a, b in zip([0, 99, 199], x, noise, strict=True)]
    )
    assert np.allclose(q_sample(cut_short, x, t.reshape(-1), noise), by_hand)
    assert math.sqrt(bars[-1]) == pytest.approx(0.363, abs=1e-3)
    with pytest.warns(UserWarning, match="x_T is not noise"):
        Schedule.linear(200, rescale=False)


def test_noise_in_one_shot_and_step_by_step_have_the_same_spread():
    """The dictionary's `q_sample` and the class's chain: same numbers in the mean."""
    x = torch.full((30_000,), -0.4, dtype=torch.float64)
    chain = x
    for t in range(30):
        chain = q_step(S, chain, t, draws(30_000, seed=t))
    shot = q_sample(S, x, 29, draws(30_000, seed=99))
    assert abs(chain.mean() - shot.mean()) < 4 * math.sqrt(2 / 30_000) * S.noise_std[29]
    assert chain.std() == pytest.approx(shot.std().item(), rel=4 / math.sqrt(30_000))
