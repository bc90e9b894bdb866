"""k-means: each half step is the best there is, the value never rises, and scipy agrees."""

import itertools

import numpy as np
import pytest
import scipy.cluster.vq
import torch

from course_lib.foundations import kmeans, nearest_centre


def points(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(4))
def test_same_as_scipy(seed):
    x = points(200, 3, seed)
    *_, last = kmeans(x, x[:5])
    centres, assignment = scipy.cluster.vq.kmeans2(x.numpy(), x[:5].numpy().copy(), iter=100, minit="matrix")
    assert np.allclose(last.centres.numpy(), centres, atol=1e-12)
    assert last.assignment.tolist() == assignment.tolist()


def test_both_halves_are_best_and_nothing_rises():
    x = points(60, 2, 9)
    states = list(kmeans(x, x[:4]))
    assert [s.moved for s in states[:4]] == ["assignment", "centres"] * 2
    assert states[-1].moved == "assignment"
    for before, after in itertools.pairwise(states):
        assert after.value <= before.value + 1e-12
    generator = torch.Generator().manual_seed(1)
    for s in states:
        value = sum(float((p - s.centres[k]).square().sum()) for p, k in zip(x, s.assignment.tolist(), strict=True))
        assert s.value == pytest.approx(value, rel=1e-12)
        for _ in range(20):  # no other choice for the block that has just moved is lower
            if s.moved == "assignment":
                other = torch.randint(4, (60,), generator=generator)
                rival = (x - s.centres[other]).square().sum()
            else:
                moved = s.centres + 0.1 * torch.randn(4, 2, generator=generator, dtype=torch.float64)
                rival = (x - moved[s.assignment]).square().sum()
            assert float(rival) >= s.value


def test_two_starts_two_ends():
    """Four corners of a flat rectangle, two centres: left and right is best, above and below is a trap."""
    x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [4.0, 0.0], [4.0, 1.0]])
    ends = []
    for start in ([[0.0, 0.5], [4.0, 0.5]], [[2.0, 0.0], [2.0, 1.0]]):
        *_, last = kmeans(x, torch.tensor(start))
        ends.append(last.value)
    assert ends == [1.0, 16.0]


def test_a_centre_without_points_stays():
    *_, last = kmeans(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [50.0]]))
    assert last.centres.flatten().tolist() == [0.5, 50.0]
    assert last.assignment.tolist() == [0, 0]


def test_start_is_left_alone_and_rounds_are_counted():
    x, start = points(50, 2, 3), points(3, 2, 4)
    before = start.clone()
    assert len(list(kmeans(x, start, max_rounds=2))) == 4
    assert torch.equal(start, before)


def test_nearest_takes_the_first_of_equals():
    assert nearest_centre(torch.tensor([[0.0]]), torch.tensor([[1.0], [-1.0]])).tolist() == [0]
