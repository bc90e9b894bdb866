"""Which steps are visited, and where the random numbers come from."""

from itertools import pairwise

import pytest
import torch

from course_lib.diffusion import randn, timesteps
from course_lib.runtime import generator

SPACINGS = ("trailing", "leading", "linspace")


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("T", [1, 2, 50, 999, 1000])
def test_any_number_of_steps(T, spacing):
    for steps in range(1, T + 1):
        ts = timesteps(T, steps, spacing)
        assert len(ts) == steps
        assert all(a > b for a, b in pairwise(ts))
        assert T > ts[0] >= ts[-1] >= 0
        if spacing != "leading" or steps in (1, T):
            assert ts[0] == T - 1, "sampling starts in pure noise"


def test_known_lists():
    assert timesteps(1000, 10) == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert timesteps(1000, 10, "leading") == [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    assert timesteps(1000, 10, "linspace") == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]
    assert timesteps(1000, 4, "linspace") == [999, 666, 333, 0]
    assert timesteps(1000, 7) == [999, 856, 713, 570, 428, 285, 142]
    for spacing in SPACINGS:
        assert timesteps(1000, 1, spacing) == [999]
        assert timesteps(7, 7, spacing) == [6, 5, 4, 3, 2, 1, 0]


def test_one_generator_or_one_per_image():
    together = randn((3, 2, 4), [generator(seed) for seed in (5, 6, 7)])
    for i, seed in enumerate((5, 6, 7)):
        assert torch.equal(together[i], torch.randn(1, 2, 4, generator=generator(seed))[0])
    assert torch.equal(randn((3, 2), generator(1)), torch.randn(3, 2, generator=generator(1)))
    assert randn((2, 3), generator(1), dtype=torch.float64).dtype == torch.float64
    torch.manual_seed(0)
    free = randn((2, 2))
    torch.manual_seed(0)
    assert torch.equal(free, torch.randn(2, 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_cpu_generator_gives_a_gpu_the_same_numbers():
    assert torch.equal(randn((4, 4), generator(1), "cuda").cpu(), randn((4, 4), generator(1)))
