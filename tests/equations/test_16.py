"""Every tagged equation of lesson 16, checked by a route that does not use the formula itself."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import integrate, stats

from course_lib.diffusion import Schedule, diffusion_loss, q_sample
from course_lib.diffusion.exact import GaussianDenoiser
from course_lib.lesson.exercises.first_guess import gaussian_guess
from course_lib.lesson.exercises.lesson_16 import causal_attention, noisy_embedding
from course_lib.models.conditions import TextCondition
from course_lib.models.prior import FirstGuess, Prior, PriorConfig, looks
from course_lib.recipes._first_guess import guess_loss
from course_lib.recipes.prior_shapes import spread_ratio
from course_lib.training import Draws

SMALL = PriorConfig(dim=6, text_width=8, width=16, layers=2, heads=2)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_eq_16_1():
    """The spread is half the mean squared distance of two different members."""
    cloud, other = drawn(9, 5), 3 * drawn(9, 5, seed=1)
    halves = []
    for points in (cloud, other):
        distances = [math.dist(a, b) ** 2 for i, a in enumerate(points.tolist()) for b in points.tolist()[:i]]
        halves.append(sum(distances) / len(distances) / 2)
    assert spread_ratio(cloud, other) == pytest.approx(halves[0] / halves[1], rel=1e-9)


def test_eq_16_2():
    """In fractions, for a small cloud; no other answer than the mean is as good."""
    points = [(Fraction(1), Fraction(2)), (Fraction(-3), Fraction(1, 2)), (Fraction(5, 3), Fraction(0))]
    mean = tuple(sum(p[k] for p in points) / 3 for k in (0, 1))
    spread = sum((p[0] - mean[0]) ** 2 + (p[1] - mean[1]) ** 2 for p in points) / 3
    for answer in [mean, (Fraction(2), Fraction(-1)), *points]:
        error = sum((p[0] - answer[0]) ** 2 + (p[1] - answer[1]) ** 2 for p in points) / 3
        assert error == spread + (mean[0] - answer[0]) ** 2 + (mean[1] - answer[1]) ** 2
        assert error >= spread
    cloud = torch.tensor([[float(x) for x in p] for p in points], dtype=torch.float64)
    found = torch.cdist(cloud, cloud).square().mean().item()  # each strays on its own: twice
    assert found == pytest.approx(2 * float(spread))


@pytest.mark.parametrize(
    ("schedule", "drowned"),
    [(Schedule.linear(1000), {64: 36, 128: 24, 512: 11, 1: 260}), (Schedule.cosine(1000), {128: 50, 1: 497})],
)
def test_eq_16_3(schedule, drowned):
    """Measured on what the noising makes of arrows, signal and noise apart; the steps are those of the lesson."""
    betas = schedule.betas.numpy()
    for d, first in drowned.items():
        survives = np.cumprod(1 - betas) / d > 1 - np.cumprod(1 - betas)
        assert int(np.argmin(survives)) + 1 == first
    arrows = F.normalize(drawn(400, 128), dim=1).float()
    noise = drawn(400, 128, seed=1).float()
    for t in (10, 300, 900):
        bar = schedule.alpha_bars[t].float().expand(400)
        signal = noisy_embedding(arrows, bar, torch.zeros_like(noise))
        rest = noisy_embedding(torch.zeros_like(arrows), bar, noise)
        ratio = signal.square().mean() / rest.square().mean()
        assert ratio.log().item() == pytest.approx(schedule.log_snr[t].item(), abs=0.02)  # m = 1: length √d
        assert torch.allclose(signal + rest, q_sample(schedule, 128**0.5 * arrows, t, noise), atol=1e-4)


def test_eq_16_4():
    """A mask does what deleting the hidden tokens does."""
    q, k, v = drawn(3, 2, 7, 4).float()
    real = torch.tensor([[True] * 7, [False, True, True, False, False, True, True]])
    found = causal_attention(q, k, v, real)
    for n in range(2):
        for i in range(7):
            seen = [j for j in range(i + 1) if real[n, j] or j == i]
            alone = F.scaled_dot_product_attention(q[n, i : i + 1], k[n, seen], v[n, seen])
            assert torch.allclose(found[n, i], alone[0], atol=1e-5)
    assert torch.equal(
        looks(real)[:, 0],
        torch.tensor(
            [[[(j < i and bool(real[n, j])) or i == j for j in range(7)] for i in range(7)] for n in range(2)]
        ),
    )


def test_eq_16_5():
    """The loss by NumPy; the best answer that ignores its input is the mean, with the variance as its loss."""
    schedule, x_start = Schedule.cosine(1000), drawn(50, 6)
    t, noise = torch.arange(50) * 20, drawn(50, 6, seed=1)

    def model_of(answer):
        return lambda x_t, t, cond: answer.expand(len(x_t), -1)

    losses = {}
    for name, answer in (("mean", x_start.mean(0)), ("zero", torch.zeros(6).double()), ("first", x_start[0])):
        found = diffusion_loss(model_of(answer), schedule, x_start, t, noise, kind="x_start").mean().item()
        assert found == pytest.approx(np.mean((x_start.numpy() - answer.numpy()) ** 2))
        losses[name] = found
    assert losses["mean"] == pytest.approx(x_start.var(0, correction=0).mean().item())
    assert losses["mean"] < min(losses["zero"], losses["first"])


@pytest.mark.parametrize("variance", [0.05, 1.0])
@pytest.mark.parametrize("t", [60, 500, 900])
def test_eq_16_6(variance, t):
    """Bayes' rule by integration, and the exact denoiser of a Gaussian."""
    schedule, x, guess = Schedule.cosine(1000), 0.8, -0.3
    bar = schedule.alpha_bars[t].item()

    def joint(z, power):
        before = stats.norm.pdf(z, guess, math.sqrt(variance))
        return z**power * before * stats.norm.pdf(x, math.sqrt(bar) * z, math.sqrt(1 - bar))

    moments = [integrate.quad(joint, -8, 8, args=(p,), points=[guess, x], limit=400)[0] for p in range(3)]
    mean, left = gaussian_guess(*(torch.tensor([[value]]) for value in (x, guess, variance)), torch.tensor([bar]))
    assert mean.item() == pytest.approx(moments[1] / moments[0], abs=1e-5)
    assert left.item() == pytest.approx(moments[2] / moments[0] - (moments[1] / moments[0]) ** 2, abs=1e-5)
    exact = GaussianDenoiser(schedule, torch.tensor([guess]), torch.tensor([variance]), "x_start")
    assert mean.item() == pytest.approx(exact(torch.tensor([[x]]), t).item(), abs=1e-5)


def condition(n=3, length=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    real = torch.arange(length) < torch.tensor([length, 2, 4])[:n, None]
    embedding = F.normalize(torch.randn(n, 6, generator=g), dim=1)
    return TextCondition(torch.randn(n, length, 8, generator=g), real, embedding, torch.ones(n, dtype=torch.bool))


def test_eq_16_7():
    """What the transformer answered is recorded; told and withheld captions, at both ends and between."""
    torch.manual_seed(0)
    prior = Prior(SMALL).eval()
    torch.nn.init.normal_(prior.out.weight)
    answers = []
    prior.out.register_forward_hook(lambda module, given, answer: answers.append(answer))
    for keep in (True, False):
        cond = condition().kept(keep)
        guess, variance = prior.guess(cond)
        for t in (0, 400, 999):
            x_t, bar = drawn(3, 6).float(), prior.schedule.alpha_bars[t].float()
            with torch.no_grad():
                found = prior(x_t, torch.full((3,), t), cond)
            mean, left = gaussian_guess(x_t, guess, variance, bar.expand(3))
            assert torch.allclose(found, mean + left.sqrt() * answers[-1], atol=1e-4)
            assert torch.allclose(prior.left(torch.full((3,), t), variance), left, rtol=1e-4)
            if t == 0:
                off = (found - x_t).abs() - 0.01 * answers[-1].abs()
                assert off.max() < 0.02, "almost no noise: what is there is kept"
            if t == 999:
                assert torch.allclose(found, guess + variance.sqrt() * answers[-1], atol=1e-2)


def test_eq_16_8():
    """SciPy's density; the best mean and variance are those of the data."""
    g = torch.Generator().manual_seed(0)
    sentence, image = (F.normalize(torch.randn(40, 6, generator=g), dim=1) for _ in range(2))
    first = FirstGuess(6, 8)
    torch.nn.init.normal_(first.bend[-1].weight, std=0.3, generator=g)
    mean, variance = (part.detach().numpy() for part in first(6**0.5 * sentence))
    x_start = 6**0.5 * image.numpy()
    expected = -stats.norm.logpdf(x_start, mean, np.sqrt(variance)).mean() - math.log(2 * math.pi) / 2
    draws = Draws(0, 0, 40, slice(0, 40))
    found = guess_loss(first, (sentence, image), draws).item()
    assert found == pytest.approx(expected, rel=1e-4)

    class Known(FirstGuess):
        def forward(self, sentence):
            return own + self.shift, spread * self.factor

    def loss(shift, factor):
        known = Known(6, 8)
        known.shift, known.factor = shift, factor
        return guess_loss(known, (sentence, image), draws).item()

    own, spread = (6**0.5 * image).mean(0).expand(40, -1), (6**0.5 * image).var(0, correction=0).expand(40, -1)
    assert loss(0.0, 1.0) < min(loss(0.1, 1.0), loss(-0.1, 1.0), loss(0.0, 1.2), loss(0.0, 0.8))
