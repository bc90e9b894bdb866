"""Every tagged equation of lesson 11, by a route that does not use the formula itself."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment, minimize_scalar
from scipy.spatial.distance import jensenshannon
from torch.func import jacrev, vmap

from course_lib.foundations import game_value, optimal_discriminator, wasserstein_1d
from course_lib.models.gan import discriminator_loss, generator_loss, r1_penalty
from course_lib.models.points import PointDiscriminator


def tables(seed, n=4):
    x = torch.rand(2, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    return x / x.sum(1, keepdim=True)


def test_eq_11_1():
    """The best of all pairings, found by an assignment solver, costs what the sorted one costs."""
    generator = torch.Generator().manual_seed(0)
    for n in (1, 2, 7, 40):
        x, y = torch.randn(n, generator=generator).double(), 2 * torch.randn(n, generator=generator).double() - 1
        cost = (x[:, None] - y).abs().numpy()
        best = cost[linear_sum_assignment(cost)].mean()
        assert wasserstein_1d(x, y).item() == pytest.approx(best)
        assert (x.sort().values - y.sort().values).abs().mean().item() == pytest.approx(best)


def test_eq_11_2():
    """By drawing: the mean of ln D over real and of ln(1 - D) over made outcomes, within 4 standard errors."""
    (p, q), n = tables(1), 200_000
    d = torch.tensor([0.2, 0.5, 0.7, 0.9], dtype=torch.float64)
    cuts = torch.rand(2, n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    real, made = (torch.searchsorted(t.cumsum(0)[:-1].contiguous(), u) for t, u in zip((p, q), cuts, strict=True))
    terms = d[real].log(), (1 - d[made]).log()
    error = math.sqrt(sum(t.var().item() / n for t in terms))
    assert game_value(p, q, d).item() == pytest.approx(sum(t.mean().item() for t in terms), abs=4 * error)


def test_eq_11_3():
    """A one-dimensional search for each outcome finds the same answers; and so does counting who showed it."""
    p, q = tables(3)
    for a, b, best in zip(p.tolist(), q.tolist(), optimal_discriminator(p, q).tolist(), strict=True):
        found = minimize_scalar(
            lambda d, a=a, b=b: -a * math.log(d) - b * math.log(1 - d), bounds=(1e-6, 1 - 1e-6), method="bounded"
        )
        assert best == pytest.approx(found.x, abs=1e-4)
    n = 400_000
    cuts = torch.rand(2, n, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    real, made = (
        torch.bincount(torch.searchsorted(t.cumsum(0)[:-1].contiguous(), u), minlength=4)
        for t, u in zip((p, q), cuts, strict=True)
    )
    assert torch.allclose((real / (real + made)).double(), optimal_discriminator(p, q), atol=0.01)


def test_eq_11_4():
    """scipy's Jensen-Shannon distance (a root); the example of the lesson; the highest V of a search over all D."""
    for seed in range(10):
        p, q = tables(seed)
        js = jensenshannon(p.numpy(), q.numpy()) ** 2
        assert game_value(p, q, optimal_discriminator(p, q)).item() == pytest.approx(2 * js - math.log(4))
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.0, 1.0])
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    highest = max(game_value(p, q, torch.stack([torch.tensor(1.0).double(), d])).item() for d in grid)
    assert highest == pytest.approx(-0.95477, abs=1e-5)
    assert game_value(p, q, 0.5).item() == pytest.approx(-math.log(4))


def test_eq_11_5():
    """torch's own cross-entropy of two classes, by its softmax over the scores (score, 0)."""
    generator = torch.Generator().manual_seed(5)
    real, fake = 3 * torch.randn(7, generator=generator), 3 * torch.randn(5, generator=generator)

    def entropy(score, target):
        both = torch.stack([score, torch.zeros_like(score)], dim=1)
        return torch.nn.functional.cross_entropy(both, torch.full((len(score),), target))

    assert discriminator_loss(real, fake).item() == pytest.approx(
        (entropy(real, 0) + entropy(fake, 1)).item(), rel=1e-5
    )


def test_eq_11_6():
    """Differences of the losses themselves."""
    h = 1e-4
    for score in (-6.0, -1.0, 0.0, 2.0, 6.0):
        sigma = 1 / (1 + math.exp(-score))
        for kind, slope in (("saturating", -sigma), ("non_saturating", sigma - 1)):
            up, down = (
                generator_loss(torch.tensor([score + s * h], dtype=torch.float64), kind).item() for s in (1, -1)
            )
            assert (up - down) / (2 * h) == pytest.approx(slope, abs=1e-6)


def test_eq_11_7():
    """The slopes by forward differences of a network in float64, and by another part of torch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PointDiscriminator(3, 8, 2).double()
    x, h = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)).double(), 1e-6
    slopes = torch.stack([(network(x + h * e) - network(x - h * e)) / (2 * h) for e in torch.eye(3).double()])
    expected = slopes.square().sum(0).mean()
    assert r1_penalty(network, x).item() == pytest.approx(expected.item(), rel=1e-5)
    rows = vmap(jacrev(lambda row: network.body(row)[0]))(x)
    assert rows.square().sum(1).mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_eq_11_8():
    """On the arc each number stays a standard Gaussian one, and the mean square length 64; on the line it is halved."""
    a, b = torch.randn(2, 20_000, 64, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    for u in (0.0, 0.25, 0.5, 0.9, 1.0):
        z = math.cos(math.pi / 2 * u) * a + math.sin(math.pi / 2 * u) * b
        count = z.numel()
        assert z.mean().item() == pytest.approx(0, abs=4 / math.sqrt(count))
        assert z.var().item() == pytest.approx(1, abs=4 * math.sqrt(2 / count))
        assert (z**4).mean().item() == pytest.approx(3, abs=4 * math.sqrt(96 / count))
        assert ((a + b) / 2).square().mean().item() == pytest.approx(0.5, abs=0.01)
