"""Training a tiny denoiser: it nears the best loss; t must be told, and random; coarse structure comes before fine."""

import math

import pytest
import scipy.stats
import torch

from course_lib.data import shapes
from course_lib.diffusion import FiniteDenoiser, MixtureDenoiser, Schedule, ddim, ddpm, diffusion_loss, q_sample
from course_lib.foundations import Mixture

S = Schedule.linear(100)
WEIGHTS, TONES, VARIANCES = torch.tensor([0.5, 0.5]), torch.tensor([-1.0, 1.0]), torch.tensor([0.01, 0.01])
EXACT = MixtureDenoiser(S, WEIGHTS, TONES[:, None], VARIANCES)


def pixels(n: int, generator: torch.Generator) -> torch.Tensor:
    """A black-and-white drawing's: near -1 or 1, standard deviation 0.1; (n, 1)."""
    sign = 2.0 * (torch.rand(n, 1, generator=generator) < 0.5) - 1
    return sign + 0.1 * torch.randn(n, 1, generator=generator)


class Tiny:
    """n networks at once, each with its own share of the batch; they see x_t and waves of t / T."""

    prediction = "noise"

    def __init__(self, n: int, T: int = S.T, seed: int = 0):
        self.n, self.T = n, T
        generator, sides = torch.Generator().manual_seed(seed), ((10, 32), (32, 32), (32, 1))
        drafts = [torch.randn(3, *side, generator=generator) / math.sqrt(side[0]) for side in sides]
        self.matrices = [draft[torch.arange(n) % 3].requires_grad_() for draft in drafts]  # three first drafts
        self.offsets = [torch.zeros(n, 1, side[1], requires_grad=True) for side in sides]

    def parameters(self):
        return [*self.matrices, *self.offsets]

    def __call__(self, x_t, t, cond=None):
        time = t[:, None] / self.T
        waves = math.pi * time * torch.tensor([1.0, 2.0, 4.0, 8.0])
        h = torch.cat([x_t, time, waves.sin(), waves.cos()], dim=1).reshape(self.n, -1, 10)
        for k, (matrix, offset) in enumerate(zip(self.matrices, self.offsets, strict=True)):
            h = torch.baddbmm(offset, torch.nn.functional.silu(h) if k else h, matrix)
        return h.reshape(-1, 1)


@torch.no_grad()
def loss_per_fifth(model, n: int = 1) -> torch.Tensor:
    """Loss of each of n networks in each fifth of the steps (n, 5), on fresh pixels, the same for all."""
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(20_000) % S.T
    x_start, noise = pixels(len(t), generator), torch.randn(len(t), 1, generator=generator)
    errors = diffusion_loss(model, S, x_start.repeat(n, 1), t.repeat(n), noise.repeat(n, 1)).reshape(n, -1)
    return torch.stack([errors[:, t // 20 == fifth].mean(1) for fifth in range(5)], dim=1)


@pytest.fixture(scope="module")
def run():
    """Nine networks, three for each order of t: them, their losses (steps, 9), and how often a random t was drawn."""
    steps, batch = 1500, 128
    nets, generator = Tiny(9), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(nets.parameters(), lr=4e-3)
    losses, visits = [], torch.zeros(S.T)
    for k in range(steps):
        at_random = (S.T * torch.rand(3 * batch, generator=generator)).long()
        t = torch.cat([at_random, torch.tensor([S.T * k // steps, k % S.T]).repeat_interleave(3 * batch)])
        x_start, noise = pixels(len(t), generator), torch.randn(len(t), 1, generator=generator)
        loss = diffusion_loss(nets, S, x_start, t, noise).reshape(9, batch).mean(1)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        losses.append(loss.detach())
        visits += torch.bincount(at_random, minlength=S.T)
    return nets, torch.stack(losses), visits


def test_the_loop_trains(run):
    """t is uniform (chi-square at 1 in 10,000); the loss starts near 1, that of "always 0", and nears the best."""
    nets, losses, visits = run
    assert scipy.stats.chisquare(visits.numpy()).pvalue > 1e-4
    assert (losses[0, :3] > 0.7).all()
    assert (losses[-100:, :3].mean(0) < 0.25).all()
    best, reached = loss_per_fifth(EXACT).mean(), loss_per_fifth(nets, 9)[:3].mean(1)
    assert ((best < reached) & (reached < best + 0.04)).all()


def test_random_t_is_best_in_every_fifth(run):
    """So the reason for a random t is not that one end of the chain would get too much attention."""
    at_random, one_pass, sweeps = loss_per_fifth(run[0], 9).reshape(3, 3, 5).mean(1)
    assert (one_pass > at_random).all()
    assert (sweeps > at_random).all()
    assert one_pass[0] > 1.5 * at_random[0]  # what came first is forgotten most
    assert loss_per_fifth(EXACT).argmax() < 2  # even the exact denoiser has its largest losses at small t


def test_one_network_serves_every_number_of_steps():
    """The number of weights is the same for every T, and one net answers a batch of all steps at once."""
    counts = {T: sum(p.numel() for p in Tiny(1, T).parameters()) for T in (10, 100, 1000)}
    assert len(set(counts.values())) == 1
    answers = Tiny(1, 1000)(torch.zeros(1000, 1), torch.arange(1000))
    assert len(answers.unique()) > 900  # it can tell the steps apart


class Blind:
    """The best denoiser that is not told the step: exact answers, weighted by how likely each step is, given x."""

    prediction = "noise"

    def __init__(self):
        self.x = torch.linspace(-6, 6, 2401, dtype=torch.float64)
        data = Mixture(WEIGHTS, TONES, VARIANCES)
        self.densities = torch.stack([data.noised(bar.item()).density(self.x) for bar in S.alpha_bars])
        self.answers = torch.stack([EXACT(self.x[:, None], t)[:, 0] for t in range(S.T)])
        self.table = (self.answers * self.densities).sum(0) / self.densities.sum(0)

    def __call__(self, x_t, t, cond=None):
        place = ((x_t.double() + 6) * 200).clamp(0, 2399.999)
        low = place.long()
        return torch.lerp(self.table[low], self.table[low + 1], place - low).to(x_t.dtype)


def test_a_denoiser_must_be_told_the_time():
    """Not told, even the best possible one loses nearly twice as much, and its samples have a wrong variance."""
    blind, generator, n = Blind(), torch.Generator().manual_seed(0), 20_000
    t = (S.T * torch.rand(n, generator=generator)).long()
    x_start, noise = pixels(n, generator), torch.randn(n, 1, generator=generator)
    losses = {name: diffusion_loss(model, S, x_start, t, noise) for name, model in (("told", EXACT), ("not", blind))}
    extra = losses["not"] - losses["told"]
    assert extra.mean() > 0.1 > 20 * extra.std() / math.sqrt(n)
    x_t = q_sample(S, x_start, t, noise)[:, 0].double()  # no table of x alone does better: nudging it anywhere is worse
    for low in (-2.0, -1.0, 0.0, 1.0):
        inside = (x_t > low) & (x_t < low + 1)
        nudged = (noise[:, 0] - blind(x_t, t) - 0.2)[inside].square().mean()
        assert nudged > losses["not"][inside].mean()
    variances = {}
    for name, model in (("told", EXACT), ("not", blind)):
        *_, last = ddpm(model, S, (5000, 1), generator=generator)
        variances[name] = float(last.x.var())
    assert variances["told"] == pytest.approx(1.01, abs=0.05)
    assert variances["not"] < 0.6


def test_coarse_before_fine():
    """Along the chain the error of the guess falls first in the low frequencies of a picture, last in the high ones."""
    pictures = shapes.make(48, seed=1).images
    schedule = Schedule.linear(1000)
    states = list(
        ddim(
            FiniteDenoiser(schedule, pictures),
            schedule,
            (24, 3, 32, 32),
            40,
            generator=torch.Generator().manual_seed(5),
        )
    )
    wave = torch.fft.fftfreq(32) * 32
    radius = (wave[:, None] ** 2 + wave[None] ** 2).sqrt()
    bands = [(radius >= low) & (radius < high) for low, high in ((0, 1.5), (1.5, 4.5), (4.5, 23))]

    def power(images):
        spectrum = torch.fft.fft2(images).abs().square()
        return torch.stack([spectrum[..., band].sum() for band in bands]) / len(images)

    whole = power(pictures - pictures.mean(dim=0))
    errors = torch.stack([power(state.x_start - states[-1].x) / whole for state in states])  # (step, band)
    half = [int((errors[:, band] < 0.5).nonzero()[0]) for band in range(3)]
    assert half[0] < half[1] < half[2], half
