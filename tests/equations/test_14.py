"""Every tagged equation of lesson 14, checked by a route that does not use the formula itself."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import torch
from scipy import integrate, stats

from course_lib.evaluation import (
    cubic_kernel,
    expected_floor,
    feature_distance,
    floor,
    frechet_distance,
    kernel_distance,
    mmd_squared,
    neighbour_radius,
    precision,
    precision_recall,
)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_scipy(a, b):
    """Fréchet distance of two clouds with scipy's root of the product."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)


def test_eq_14_1():
    """The integral over the sand: from each quantile of one bell to the same quantile of the other."""
    for m_a, s_a, m_b, s_b in ((0, 1, 2, 1), (0, 1, 1, 2), (-1, 0.3, 0.5, 2.5)):
        one, other = stats.norm(m_a, s_a), stats.norm(m_b, s_b)
        cost, _ = integrate.quad(lambda u, one=one, other=other: (one.ppf(u) - other.ppf(u)) ** 2, 0, 1)
        found = frechet_distance(
            torch.tensor([m_a]), torch.tensor([[s_a**2]]), torch.tensor([m_b]), torch.tensor([[s_b**2]])
        )
        assert found == pytest.approx(cost, rel=1e-6)


def test_two_forms_with_the_same_moments_are_not_told_apart():
    """Section 1: two narrow bells and one bell, mean 0 and variance 1 both; the sand moves all the same."""
    u = (np.arange(20_000) + 0.5) / 20_000
    narrow = np.where(u < 0.5, -1, 1) * math.sqrt(0.99) + 0.1 * stats.norm.ppf((2 * u) % 1)
    assert narrow.mean() == pytest.approx(0, abs=1e-9)
    assert narrow.var() == pytest.approx(1, abs=0.01)
    assert np.mean((narrow - stats.norm.ppf(u)) ** 2) == pytest.approx(0.30, abs=0.02)


def test_eq_14_2():
    """The cheapest of all ways to couple two Gaussians, by trying all rotations and mirrorings in the plane."""
    for seed in range(5):
        left, right = draws(2, 2, 2, seed=seed)
        mean_a, mean_b = draws(2, 2, seed=seed + 50)
        cov_a, cov_b = left @ left.T, right @ right.T
        angles = torch.linspace(0, 2 * math.pi, 20_001, dtype=torch.float64)
        cos, sin = angles.cos(), angles.sin()
        turns = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
        turns = torch.cat([turns, turns * torch.tensor([1.0, -1.0])])
        # x = left z, y = right (turn z): every such pair has the right covariances
        cost = (left[None] - right @ turns).square().sum(dim=(1, 2)).min()
        wanted = (mean_a - mean_b).square().sum() + cost
        assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(wanted.item(), rel=1e-5)
    assert frechet_distance(torch.zeros(8), torch.eye(8), torch.ones(8), 4 * torch.eye(8)) == pytest.approx(16)
    assert frechet_distance(mean_a, cov_a, mean_a, cov_a) == pytest.approx(0, abs=1e-9)  # identical statistics


def test_eq_14_3():
    """Simulated with NumPy and scipy. Means: 2d/n exactly; all together d (d + 5) / 2n to first order in 1/n."""
    d, n, times = 5, 500, 400
    rng = np.random.default_rng(0)
    found, of_means = [], []
    for _ in range(times):
        a, b = rng.normal(size=(2, n, d))
        found.append(by_scipy(a, b))
        of_means.append(((a.mean(0) - b.mean(0)) ** 2).sum())
    told = d * (d + 5) / (2 * n)
    assert abs(np.mean(of_means) - 2 * d / n) < 4 * stats.sem(of_means)
    assert abs(np.mean(found) - told) < 4 * stats.sem(found) + 0.02 * told
    assert expected_floor(torch.eye(d), n) == pytest.approx(told)


def test_eq_14_4():
    """The same for long clouds that lie askew."""
    spread = np.array([3.0, 1.0, 0.5, 0.1])
    rng = np.random.default_rng(1)
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    n = 400
    found = [by_scipy(*(rng.normal(size=(2, n, 4)) * spread @ turn.T)) for _ in range(500)]
    told = expected_floor(torch.from_numpy(turn @ np.diag(spread**2) @ turn.T), n)
    assert abs(np.mean(found) - told) < 4 * stats.sem(found) + 0.02 * told


def test_the_floor_of_64_features():
    """J04: 23.4, 4.4, 1.04, 0.23 for n = 100, 500, 2000, 10000; a straight line in 1/n, above 0 for equal data."""
    x = draws(40_000, 64, seed=3)
    found = [floor(x, n, splits=2 if n > 5_000 else 8) for n in (100, 500, 2_000, 10_000)]
    assert found == pytest.approx([23.4, 4.4, 1.04, 0.23], rel=0.12)
    assert found == pytest.approx([64 * 69 / (2 * n) for n in (100, 500, 2_000, 10_000)], rel=0.07)


def test_unequal_n_mislead():
    """The same samples, ever more of them: the distance falls though nothing got better."""
    samples, real = draws(4_000, 20, seed=1) + 0.1, draws(4_000, 20, seed=2)
    found = [feature_distance(samples[:n], real[:n]) for n in (50, 200, 1_000, 4_000)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 5 * found[-1]
    truth = 20 * 0.01
    assert truth < found[-1] < 2 * truth


def test_eq_14_5():
    """Multiplied out for two features: monomials up to the third degree, with the weights of the multinomial."""
    x, y = draws(2, 6, 2)

    def monomials(points):
        columns = []
        for i, j in itertools.product(range(4), repeat=2):
            if i + j <= 3:
                ways = math.factorial(3) / (math.factorial(i) * math.factorial(j) * math.factorial(3 - i - j))
                columns.append(math.sqrt(ways / 2 ** (i + j)) * points[:, 0] ** i * points[:, 1] ** j)
        return torch.stack(columns, 1)

    assert torch.allclose(cubic_kernel(x, y), monomials(x) @ monomials(y).T)


def test_eq_14_6():
    """All draws of two and two from a small population: their mean is the population's value exactly."""
    p, q = draws(4, 2, seed=1), draws(3, 2, seed=2) + 0.5
    truth = (cubic_kernel(p, p).mean() + cubic_kernel(q, q).mean() - 2 * cubic_kernel(p, q).mean()).item()
    found = [
        mmd_squared(p[list(i)], q[list(j)])
        for i in itertools.product(range(4), repeat=2)
        for j in itertools.product(range(3), repeat=3)
    ]
    assert np.mean(found) == pytest.approx(truth, rel=1e-9)
    assert min(found) < 0 < truth


def test_eq_14_7():
    """scipy's standard error of the mean, of the same blocks."""
    a, b = draws(60, 3, seed=1), draws(60, 3, seed=2) + 0.2
    g = torch.Generator().manual_seed(5)
    a_, b_ = a[torch.randperm(60, generator=g)], b[torch.randperm(60, generator=g)]
    values = [mmd_squared(x, y) for x, y in zip(a_.split(10), b_.split(10), strict=True)]
    found = kernel_distance(a, b, blocks=6, seed=5)
    assert found.value == pytest.approx(np.mean(values))
    assert found.standard_error == pytest.approx(stats.sem(values), rel=1e-5)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_eq_14_8(k):
    """scipy's tree of points; a point itself is its first hit."""
    points = draws(200, 5)
    gaps, _ = scipy.spatial.cKDTree(points.numpy()).query(points.numpy(), k + 1)
    np.testing.assert_allclose(neighbour_radius(points, k).numpy(), gaps[:, k], rtol=1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_eq_14_9(k):
    """Ball by ball with scipy's tree: which samples it holds."""
    samples, real = draws(150, 2, seed=4) + 0.8, draws(120, 2, seed=5)
    tree, centres = scipy.spatial.cKDTree(samples.numpy()), scipy.spatial.cKDTree(real.numpy())
    radius = centres.query(real.numpy(), k + 1)[0][:, k]
    held = set().union(*(tree.query_ball_point(c, r) for c, r in zip(real.numpy(), radius, strict=True)))
    assert precision(samples, real, k) == pytest.approx(len(held) / 150)
    assert precision_recall(samples, real, k).precision == pytest.approx(len(held) / 150)
    assert precision_recall(samples, real, k).recall == pytest.approx(precision(real, samples, k))


def test_eq_14_10():
    """Angles of 0°, 60°, 90° and 180° have cosines that everybody knows."""
    from course_lib.evaluation.clip_scores import clip_score

    def at(*degrees):
        angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        return torch.stack([angles.cos(), angles.sin()], 1)

    pictures, words = at(0, 10, 20, 30), at(0, 70, 110, 210)
    assert clip_score(pictures, words, "hessel").tolist() == pytest.approx([2.5, 1.25, 0, 0])
    assert clip_score(pictures, words, "torchmetrics").item() == pytest.approx(100 * (1 + 0.5 + 0 - 1) / 4)
    assert clip_score(pictures[2:], words[2:], "torchmetrics").item() == 0


def test_right_captions_score_above_those_of_others():
    """J03: each picture with its own caption and with another's; a paired test."""
    from course_lib.data import shapes
    from course_lib.evaluation.clip_scores import clip_score
    from course_lib.evaluation.shapes_exam import embed_images, embed_scenes
    from course_lib.recipes import clip_shapes

    clip, scenes = clip_shapes.load(), shapes.make(200, seed=99)
    pictures, captions = embed_images(clip, scenes.images).cpu(), embed_scenes(clip, scenes.specs).cpu()
    own, others = clip_score(pictures, captions), clip_score(pictures, captions.roll(1, 0))
    assert stats.ttest_rel(own.numpy(), others.numpy(), alternative="greater").pvalue < 1e-12
    assert (own > others).float().mean() > 0.9
