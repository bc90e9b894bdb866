"""What a reader is told who builds an impossible schedule or hands over the wrong tensors."""

import math

import pytest
import torch

from course_lib.diffusion import Schedule, gather, q_sample, q_step, unrolled_weights
from course_lib.foundations import Mixture

S = Schedule.linear(100)
X = torch.zeros(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Schedule(torch.tensor([0.1, 0.0, 0.2])), ValueError, r"betas\[1\] = 0 "),
        (lambda: Schedule(torch.tensor([0.1, 1.0])), ValueError, r"betas\[1\] = 1 "),
        (lambda: Schedule(torch.tensor([-0.1])), ValueError, "strictly between 0 and 1"),
        (lambda: Schedule(torch.tensor([0.1, math.nan])), ValueError, r"betas\[1\] = nan"),
        (lambda: Schedule(torch.zeros(0)), ValueError, r"shape \(T,\)"),
        (lambda: Schedule(torch.zeros(2, 2)), ValueError, r"got shape \(2, 2\)"),
        (lambda: Schedule([0.1]), ValueError, "got list"),
        (lambda: Schedule.linear(20), ValueError, "T=20 is too small .* Use T > 20"),
        (lambda: Schedule.linear(0), ValueError, "T must be a whole number of steps, at least 1, got 0"),
        (lambda: Schedule.cosine(10.0), ValueError, "T must be a whole number"),
        (lambda: Schedule.scaled_linear(True), ValueError, "T must be a whole number"),
        (lambda: Schedule.cosine(100, s=-0.1), ValueError, r"s must lie in \[0, 1\)"),
        (lambda: gather(S.betas, -1, X), ValueError, r"t must lie in 0…99"),
        (lambda: gather(S.betas, 100, X), ValueError, r"t must lie in 0…99"),
        (lambda: gather(S.betas, torch.tensor([0, 100]), X), ValueError, r"got \[0, 100\]"),
        (lambda: gather(S.betas, torch.tensor([0, 1, 2]), X), ValueError, r"shape \(2,\).*got \(3,\)"),
        (lambda: gather(S.betas, torch.tensor([[0], [1]]), X), ValueError, r"got \(2, 1\)"),
        (lambda: gather(S.betas, 0.5, X), TypeError, "t must be a whole number .* got float"),
        (lambda: gather(S.betas, torch.tensor([0.0, 1.0]), X), TypeError, "got torch.float32"),
        (lambda: q_sample(S, X, 5, torch.zeros(2, 1, 4)), ValueError, "noise must have x_start's shape"),
        (lambda: q_sample(S, X.to(torch.uint8), 5, X), TypeError, "x_start must be a float tensor, got torch.uint8"),
        (lambda: q_step(S, X, 5, torch.zeros(1, 1, 4, 4)), ValueError, "noise must have x_prev's shape"),
        (lambda: unrolled_weights(S, 100), ValueError, "t must lie in 0…99"),
        (lambda: Mixture(torch.tensor([0.5]), torch.zeros(1), torch.ones(1)), ValueError, "weights must be positive"),
        (lambda: Mixture(torch.ones(1), torch.zeros(1), torch.zeros(1)), ValueError, "variances must be positive"),
        (lambda: Mixture(torch.ones(1), torch.zeros(2), torch.ones(1)), ValueError, "must share one shape"),
    ],
)
def test_message(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_the_warning_points_at_the_callers_line():
    for build in (lambda: Schedule(torch.full((3,), 0.1)), lambda: Schedule.linear(200, rescale=False)):
        with pytest.warns(UserWarning, match="x_T is not noise") as caught:
            build()
        assert caught[0].filename == __file__
