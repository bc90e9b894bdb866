"""Every tagged equation of lesson 15, checked by a route that does not use the formula itself."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import nn

from course_lib.diffusion import GaussianDenoiser, MixtureDenoiser, Schedule, q_sample, sample
from course_lib.diffusion.guidance import ClassifierGuided, Guided, guide, rescale, scale_from_w
from course_lib.evaluation.word_maps import lift
from course_lib.nn.cross_attention import CrossAttention2d, JointAttention2d

SCHEDULE = Schedule.linear(1000)
MEANS = torch.tensor([[-2.2, 1.2], [-0.5, 0.1], [0.6, -0.1], [1.9, -1.4]], dtype=torch.float64)
VARIANCES = torch.tensor([0.06, 0.1, 0.08, 0.2], dtype=torch.float64)
CLASSES = torch.tensor([0, 0, 1, 1])


def bells(which):
    weights = torch.full((len(which),), 1 / len(which), dtype=torch.float64)
    return MixtureDenoiser(SCHEDULE, weights, MEANS[which], VARIANCES[which])


EVERY, EACH = bells([0, 1, 2, 3]), (bells([0, 1]), bells([2, 3]))


def told(x_t, t, label):
    return torch.stack([part(x_t, t) for part in EACH])[label, torch.arange(len(x_t))]


def log_density(x, t, which):
    """ln q(x_t) of some bells, by torch.distributions."""
    bar = SCHEDULE.alpha_bars[t]
    parts = [
        torch.distributions.MultivariateNormal(
            bar.sqrt() * MEANS[k], (bar * VARIANCES[k] + 1 - bar) * torch.eye(2, dtype=torch.float64)
        ).log_prob(x)
        for k in which
    ]
    return torch.stack(parts).logsumexp(dim=0) - math.log(len(which))


def gradient(function, x, h=1e-5):
    """Central differences, coordinate by coordinate."""
    steps = h * torch.eye(2, dtype=torch.float64)
    return torch.stack([(function(x + step) - function(x - step)) / (2 * h) for step in steps], dim=1)


@pytest.mark.parametrize("t", [100, 500])
def test_eq_15_1(t):
    """The best answer's error is uncorrelated with whatever can be said of x_t and c; without c it is not."""
    n, g = 100_000, torch.Generator().manual_seed(0)
    which = torch.randint(0, 4, (n,), generator=g)
    x_start = MEANS[which] + VARIANCES[which].sqrt()[:, None] * torch.randn(n, 2, generator=g, dtype=torch.float64)
    noise, label = torch.randn(n, 2, generator=g, dtype=torch.float64), CLASSES[which]
    x_t, steps = q_sample(SCHEDULE, x_start, t, noise), torch.full((n,), t)
    known, unknown = noise - told(x_t, steps, label), noise - EVERY(x_t, steps)
    for feature in (label.double(), x_t[:, 0], (x_t[:, 1] > 0).double() * label, (3 * x_t[:, 0]).sin()):
        for error in known.T:
            product = error * (feature - feature.mean())
            assert abs(product.mean()) < 4.5 * product.std() / n**0.5
    product = unknown[:, 0] * (label - 0.5)
    assert abs(product.mean()) > 10 * product.std() / n**0.5
    assert (known**2).mean() < (unknown**2).mean()


def test_eq_15_2():
    g = torch.Generator().manual_seed(0)
    cond, null = torch.randn(2, 6, 3, 4, generator=g, dtype=torch.float64)
    for scale in (0.0, 0.3, 1.0, 2.5, 10.0):
        assert torch.allclose(guide(cond, null, scale), torch.lerp(null, cond, scale), atol=1e-12)


def test_eq_15_3():
    """In exact fractions, for both conventions."""
    for w in (Fraction(-1), Fraction(-1, 4), Fraction(0), Fraction(3, 2), Fraction(13, 2)):
        for c, u in ((Fraction(3, 8), Fraction(-5, 4)), (Fraction(-7, 2), Fraction(1, 16))):
            theirs = (1 + w) * c - w * u
            ours = guide(
                torch.tensor([[float(c)]]).double(), torch.tensor([[float(u)]]).double(), scale_from_w(float(w))
            )
            assert ours.item() == float(theirs)


@pytest.mark.parametrize("t", [20, 400, 900])
def test_eq_15_4(t):
    x = 1.5 * torch.randn(30, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    factor = -(1 - SCHEDULE.alpha_bars[t]).sqrt()
    assert torch.allclose(factor * gradient(lambda y: log_density(y, t, range(4)), x), EVERY(x, t), atol=1e-6)
    for label, which in ((0, [0, 1]), (1, [2, 3])):
        assert torch.allclose(
            factor * gradient(lambda y, w=which: log_density(y, t, w), x), EACH[label](x, t), atol=1e-6
        )

        def log_posterior(y, which=which):
            each = EVERY.component_probabilities(y, SCHEDULE.alpha_bars[t].reshape(1, 1))
            return each[:, which].sum(dim=1).log()

        close = EVERY.component_probabilities(x, SCHEDULE.alpha_bars[t].reshape(1, 1))[:, which].sum(dim=1) > 1e-3
        difference = (EACH[label](x, t) - EVERY(x, t)) / factor
        assert torch.allclose(gradient(log_posterior, x)[close], difference[close], atol=1e-5)


NEAR = [(1.0, 0.25), (-2.0, 0.5), (0.7, 0.1)]  # c, v


@pytest.mark.parametrize(("c", "v"), NEAR)
def test_eq_15_5(c, v):
    """On a grid: both forms are the same density, and it is the Gaussian p_s of equation 15.6."""
    x = np.linspace(-8, 8, 40_001)
    of_prompt = np.exp(-((x - c) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
    of_all = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    prior_of_c = math.exp(-(c**2) / (2 * (1 - v))) / math.sqrt(2 * math.pi * (1 - v))
    posterior = of_prompt * prior_of_c / of_all
    for s in (1, 2, 3.5):
        first, second = of_all * posterior**s, of_prompt * posterior ** (s - 1)
        first, second = (p / p.sum() for p in (first, second))
        assert np.allclose(first, second, atol=1e-12)
        mean = (x * first).sum()
        sharp = s - (s - 1) * v
        assert mean == pytest.approx(s * c / sharp, abs=1e-6)
        assert ((x - mean) ** 2 * first).sum() == pytest.approx(v / sharp, abs=1e-6)


class Near:
    """The exact noise for N(c, v) where told, for N(0, 1) where not."""

    prediction = "noise"

    def __init__(self, schedule, c, v):
        self.known = GaussianDenoiser(schedule, torch.tensor([c]).double(), torch.tensor([v]).double())
        self.unknown = GaussianDenoiser(schedule, torch.zeros(1).double(), torch.ones(1).double())

    def __call__(self, x_t, t, cond):
        return torch.where(cond[:, None], self.known(x_t, t), self.unknown(x_t, t))


@pytest.mark.parametrize(("c", "v"), NEAR)
@pytest.mark.parametrize("scale", [1, 2, 3.5])
def test_eq_15_6(c, v, scale):
    """1000 steps of the real sampler, which is affine here, so that three starting points tell all."""
    schedule, yes = Schedule.cosine(1000), torch.ones(3, dtype=torch.bool)
    start = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    guided = Guided(Near(schedule, c, v), null=~yes, scale=scale)
    low, middle, high = sample(guided, schedule, (3, 1), 1000, x=start, cond=yes, progress=False)[:, 0].tolist()
    integral, _ = integrate.quad(lambda r: (1 - (1 - v) * r**2) ** (-scale / 2), 0, 1)
    assert (low + high) / 2 == pytest.approx(middle, abs=1e-9)
    assert middle == pytest.approx(c * (1 + (scale - 1) * v ** (scale / 2) * integral), abs=2e-3 * abs(c) + 1e-3)
    assert ((high - low) / 2) ** 2 == pytest.approx(v**scale, rel=0.04)


@pytest.mark.parametrize("t", [20, 400, 900])
def test_eq_15_7(t):
    """The classifier's gradient by differences; its scores by torch.distributions."""

    def logits(x, steps):
        (step,) = steps.unique().tolist()
        return torch.stack([log_density(x, step, [0, 1]), log_density(x, step, [2, 3])], dim=1)

    x = torch.randn(25, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    label, steps = torch.arange(25) % 2, torch.full((25,), t)
    slope = gradient(lambda y: logits(y, steps).log_softmax(dim=1)[torch.arange(25), label], x)
    for scale in (0.5, 1.0, 4.0):
        expected = EVERY(x, t) - scale * (1 - SCHEDULE.alpha_bars[t]).sqrt() * slope
        found = ClassifierGuided(EVERY, logits, SCHEDULE, scale=scale)(x, steps, label)
        assert torch.allclose(found, expected, atol=1e-6)


def shaken(layer, seed=0):
    g = torch.Generator().manual_seed(seed)
    for weight in layer.parameters():
        weight.data = 0.4 * torch.randn(weight.shape, generator=g)
    return layer.requires_grad_(False)


def pixels_and_tokens():
    g = torch.Generator().manual_seed(1)
    x, tokens = torch.randn(3, 8, 4, 5, generator=g), torch.randn(3, 7, 6, generator=g)
    return x, tokens, torch.arange(7) < torch.tensor([[3], [7], [1]])


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_eq_15_8(heads):
    """PyTorch's own layer, with the same weights (and a mask of the opposite meaning)."""
    layer, (x, tokens, real) = shaken(CrossAttention2d(8, 6, heads, groups=4)), pixels_and_tokens()
    theirs = nn.MultiheadAttention(8, heads, kdim=6, vdim=6, batch_first=True).requires_grad_(False)
    theirs.q_proj_weight.copy_(layer.q.weight.flatten(1))
    theirs.k_proj_weight.copy_(layer.kv.weight[:8])
    theirs.v_proj_weight.copy_(layer.kv.weight[8:])
    theirs.in_proj_bias.copy_(torch.cat([layer.q.bias, layer.kv.bias]))
    theirs.out_proj.weight.copy_(layer.out.weight.flatten(1))
    theirs.out_proj.bias.copy_(layer.out.bias)
    z = layer.norm(x).flatten(2).transpose(1, 2)
    added, weights = theirs(z, tokens, tokens, key_padding_mask=~real, average_attn_weights=False)
    assert torch.allclose(layer(x, tokens, real) - x, added.transpose(1, 2).reshape(x.shape), atol=1e-5)
    assert torch.allclose(layer.weights(x, tokens, real), weights, atol=1e-6)


def test_eq_15_9():
    """Attention to both at once is a mean of attention to each, weighted with the sums of their exponentials."""
    layer, (x, tokens, real) = shaken(JointAttention2d(8, 6, 2, groups=4)), pixels_and_tokens()
    q, k, v, mask = layer._qkv(x, tokens, real)
    scores = (q @ k.transpose(2, 3) / 2).masked_fill(~mask, -torch.inf)  # √4
    sums, parts = [], []
    for part in (slice(0, 20), slice(20, 27)):
        sums.append(scores[..., part].logsumexp(dim=3, keepdim=True))
        parts.append(scores[..., part].softmax(dim=3) @ v[:, :, part])
    share = torch.sigmoid(sums[0] - sums[1])
    found = (share * parts[0] + (1 - share) * parts[1]).transpose(2, 3).reshape(3, 8, 4, 5)
    assert torch.allclose(layer(x, tokens, real) - x, layer.out(found), atol=1e-5)
    weights = layer.weights(x, tokens, real)
    assert torch.allclose(weights[..., :20].sum(dim=3, keepdim=True), share, atol=1e-5)
    assert torch.allclose(weights.sum(dim=3), torch.ones(3, 2, 20), atol=1e-5)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.7, 1.0])
def test_eq_15_10(phi):
    """The direction stays; the standard deviation (NumPy's) lies φ of the way from the guided to the conditional."""
    g = torch.Generator().manual_seed(4)
    cond, guided = torch.randn(4, 3, 6, 6, generator=g).double(), 3 * torch.randn(4, 3, 6, 6, generator=g).double()
    found = rescale(guided, cond, phi)
    for f, c, s in zip(found.flatten(1).numpy(), cond.flatten(1).numpy(), guided.flatten(1).numpy(), strict=True):
        assert f @ s == pytest.approx(np.linalg.norm(f) * np.linalg.norm(s), rel=1e-9)
        assert f.std() == pytest.approx(phi * c.std() + (1 - phi) * s.std(), rel=1e-9)


def test_eq_15_11():
    """In fractions: how much more probable a square of the object is when drawn by attention than blindly."""
    g = torch.Generator().manual_seed(5)
    maps, halves = torch.randint(0, 9, (6, 4, 4), generator=g), torch.randint(0, 3, (6, 4, 4), generator=g)
    maps[:, 0, 0], halves[:, 0, 0] = 1, 1
    found = lift(maps.double(), halves.double() / 2)
    for value, m, h in zip(found.tolist(), maps.flatten(1).tolist(), halves.flatten(1).tolist(), strict=True):
        drawn = sum(Fraction(a, sum(m)) * Fraction(b, 2) for a, b in zip(m, h, strict=True))
        blindly = sum(Fraction(1, 16) * Fraction(b, 2) for b in h)
        assert value == pytest.approx(float(drawn / blindly), rel=1e-12)
