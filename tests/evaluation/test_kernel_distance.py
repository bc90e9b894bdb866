"""The kernel distance: by loops, by explicit features of the kernel, without bias, with an honest standard error."""

import itertools
import math
import sys

import pytest
import torch

from course_lib.evaluation.kernel_distance import cubic_kernel, kernel_distance, mmd_squared


def clouds(n, m, d=3, seed=0, apart=0.0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g), torch.randn(m, d, generator=g) * 1.2 + apart


def test_by_loops():
    a, b = clouds(7, 5)

    def k(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / 3 + 1) ** 3

    a_, b_ = a.double().tolist(), b.double().tolist()
    within = [sum(k(x, y) for x, y in itertools.permutations(z, 2)) / (len(z) * (len(z) - 1)) for z in (a_, b_)]
    across = sum(k(x, y) for x in a_ for y in b_) / 35
    assert mmd_squared(a, b) == pytest.approx(sum(within) - 2 * across, rel=1e-12)
    assert cubic_kernel(a, b)[4, 2] == pytest.approx(k(a_[4], b_[2]), rel=1e-12)
    assert mmd_squared(b, a) == pytest.approx(mmd_squared(a, b), rel=1e-12)


def test_the_kernel_compares_all_moments_up_to_the_third():
    """(x y + 1)³ is the scalar product of (1, √3 x, √3 x², x³): in one dimension MMD² is known by moments."""
    a, b = torch.tensor([[1.0], [2.0], [4.0], [-1.0]]), torch.tensor([[0.5], [3.0], [3.5]])

    def lift(x):
        x = x.double()
        return torch.cat([torch.ones_like(x), math.sqrt(3) * x, math.sqrt(3) * x**2, x**3], dim=1)

    assert torch.allclose(cubic_kernel(a, b), lift(a) @ lift(b).T)
    biased = (lift(a).mean(0) - lift(b).mean(0)).square().sum().item()  # the same points may meet themselves
    own = [(lift(x) ** 2).sum(1) for x in (a, b)]
    excess = [(o.mean() - (lift(x).mean(0) ** 2).sum()) / (len(x) - 1) for o, x in zip(own, (a, b), strict=True)]
    assert mmd_squared(a, b) == pytest.approx(biased - sum(excess).item(), rel=1e-9)


def test_chunks_do_not_matter(monkeypatch):
    a, b = clouds(50, 33)
    whole = mmd_squared(a, b)
    monkeypatch.setattr(sys.modules[mmd_squared.__module__], "CHUNK", 7)
    assert mmd_squared(a, b) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 50), (40, 40)])
def test_without_bias(n, m):
    """Same distribution: 0 on average at any n and m, below 0 about as often as above. The truth for others."""
    g = torch.Generator().manual_seed(n)
    found = torch.tensor(
        [mmd_squared(torch.randn(n, 4, generator=g), torch.randn(m, 4, generator=g)) for _ in range(2000)]
    )
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(2000)
    assert 0.3 < (found < 0).float().mean() < 0.8
    # In one dimension for N(0, 1) and N(1, 1): Σ weight (difference of moments)² with weights 3, 3, 1.
    truth = 3 * 1**2 + 3 * (2 - 1) ** 2 + (4 - 0) ** 2
    x = [mmd_squared(torch.randn(n, 1, generator=g), torch.randn(m, 1, generator=g) + 1) for _ in range(4000)]
    x = torch.tensor(x)
    assert abs(x.mean() - truth) < 4 * x.std() / math.sqrt(4000)


def test_blocks_and_their_standard_error():
    """Blocks share nothing; the stated error is what the values of many repetitions really scatter by."""
    found = [kernel_distance(*clouds(200, 200, seed=seed, apart=0.3), blocks=10, seed=seed) for seed in range(300)]
    values, errors = (torch.tensor([getattr(f, name) for f in found]) for name in ("value", "standard_error"))
    assert errors.square().mean().sqrt() == pytest.approx(values.std().item(), rel=0.15)
    assert found[0].blocks == 10
    assert found[0].size == 20
    one_outlier = torch.zeros(40, 1)
    one_outlier[3] = 1e3  # it stands in one block of four only
    parts = kernel_distance(one_outlier, torch.zeros(40, 1), blocks=4)
    assert parts.standard_error == pytest.approx(abs(parts.value), rel=1e-9)  # mean v/4, std v/2, over √4


def test_left_over_pictures_unequal_sets_and_seeds():
    a, b = clouds(103, 57)
    found = kernel_distance(a, b, blocks=5)
    assert found.size == 11
    assert found == kernel_distance(a, b, blocks=5)
    assert found != kernel_distance(a, b, blocks=5, seed=1)
    assert kernel_distance(a.half(), b.half(), blocks=5).value == pytest.approx(found.value, rel=0.02, abs=0.02)
    before = a.clone()
    kernel_distance(a, b)
    assert torch.equal(a, before)
