"""The game behind a GAN, on tables: against brute force, scipy and exact fractions."""

import math
from fractions import Fraction

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from course_lib.foundations import game_value, js_divergence, optimal_discriminator


def table(generator, n=5):
    """Random probabilities."""
    x = -torch.rand(n, generator=generator, dtype=torch.float64).log()
    return x / x.sum()


def test_best_discriminator_is_best():
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    for _ in range(20):
        p, q = table(generator), table(generator)
        best = optimal_discriminator(p, q)
        value = game_value(p, q, best)
        for k in range(5):  # changing one entry never helps
            tried = best.repeat(999, 1)
            tried[:, k] = grid
            values = game_value(p, q, tried)
            assert values.max() <= value + 1e-12
            assert grid[values.argmax()] == pytest.approx(best[k].item(), abs=1e-3)


def test_value_at_the_best_is_twice_js_less_ln_4():
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        p, q = table(generator), table(generator)
        js = jensenshannon(p.numpy(), q.numpy()) ** 2  # scipy gives the root
        found = game_value(p, q, optimal_discriminator(p, q)).item()
        assert found == pytest.approx(2 * js - math.log(4), abs=1e-9)
        assert game_value(p, q, 0.5).item() == pytest.approx(-math.log(4))


def test_example_in_fractions():
    p, q = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 4)], [Fraction(1, 5), Fraction(1, 5), Fraction(3, 5)]
    best = [a / (a + b) for a, b in zip(p, q, strict=True)]
    found = optimal_discriminator(torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64))
    assert found.tolist() == pytest.approx([float(b) for b in best])


def test_disjoint_tables_and_impossible_outcomes():
    p, q = torch.tensor([0.5, 0.5, 0, 0, 0]), torch.tensor([0, 0, 0.3, 0.7, 0])
    best = optimal_discriminator(p, q)
    assert best.tolist() == [1, 1, 0, 0, 0.5]
    assert game_value(p, q, best) == 0, "0 = 2 ln 2 - ln 4, the most there is"
    assert js_divergence(p, q).item() == pytest.approx(math.log(2))
    assert game_value(p, q, 1 - best) == -math.inf, "sure and wrong"


def test_densities_batches_and_numbers():
    line = torch.linspace(-3, 3, 7)
    p, q = torch.exp(-(line**2)), torch.exp(-((line - 1) ** 2))
    assert optimal_discriminator(p, q)[3:5].sum().item() == pytest.approx(1), "symmetric about 0.5"
    both = game_value(torch.tensor([[0.5, 0.5], [0.1, 0.9]]), torch.tensor([0.5, 0.5]), 0.5)
    assert both.tolist() == pytest.approx([-math.log(4)] * 2)
    assert game_value(torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5])).ndim == 0
