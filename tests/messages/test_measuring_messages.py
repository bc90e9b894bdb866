"""What a reader is told whose features, covariances or block sizes cannot be measured with."""

import pytest
import torch

from course_lib.evaluation import (
    distance_to_real,
    expected_floor,
    feature_distance,
    floor,
    frechet_distance,
    kernel_distance,
    mean_over_pairs,
    mmd_squared,
    moments,
    neighbour_radius,
    precision,
    precision_recall,
)

ZERO, ONE = torch.zeros(2), torch.eye(2)
SOME = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
NAN = torch.full((5, 2), torch.nan)


@pytest.mark.parametrize(
    ("what", "build"),
    [
        (r"n ≥ 2 and d ≥ 1, not \(1, 4\)", lambda: moments(torch.zeros(1, 4))),
        (r"not \(30, 2, 1\)", lambda: moments(SOME[..., None])),
        ("not finite; look at the pictures", lambda: moments(NAN)),
        ("n=20 samples need as many", lambda: distance_to_real(SOME[:20], SOME[:19])),
        ("needs 20 real pictures .* there are 19", lambda: floor(SOME[:19], 10)),
        ("needs 40 real pictures .* there are 30", lambda: mean_over_pairs(SOME, 20, [torch.arange(30)])),
        ("n=1 pictures have no covariance", lambda: floor(SOME, 1)),
        ("at least one permutation", lambda: mean_over_pairs(SOME, 10, [])),
        (r"mean_a must have shape \(d,\) with d ≥ 1, not \(\)", lambda: frechet_distance(ZERO[0], ONE, ZERO, ONE)),
        (r"d ≥ 1, not \(0,\)", lambda: frechet_distance(ZERO[:0], ONE[:0, :0], ZERO[:0], ONE[:0, :0])),
        ("splits=0 must be at least 1", lambda: distance_to_real(SOME, SOME, splits=0)),
        ("orders is empty", lambda: floor(SOME, 10, splits=0)),
        (r"cov_b has shape \(3, 3\).*: \(2, 2\) fits", lambda: frechet_distance(ZERO, ONE, ZERO, torch.eye(3))),
        ("cov_a is not symmetric", lambda: frechet_distance(ZERO, torch.tensor([[1.0, 2], [0, 1]]), ZERO, ONE)),
        ("cov_a has the negative eigenvalue -1", lambda: frechet_distance(ZERO, -ONE, ZERO, ONE)),
        ("cov_b has the negative eigenvalue", lambda: frechet_distance(ZERO, ONE, ZERO, ONE - 2 * ONE.flip(0))),
        ("mean_b holds values that are not finite", lambda: frechet_distance(ZERO, ONE, ZERO / 0, ONE)),
        ("cov_a holds values that are not finite", lambda: frechet_distance(ZERO, ONE * torch.inf, ZERO, ONE)),
        ("mean_b has shape", lambda: feature_distance(torch.randn(9, 2), torch.randn(9, 3))),
        ("n=1 pictures have no covariance", lambda: expected_floor(ONE, 1)),
        (r"covariance must have shape \(d, d\), not \(2,\)", lambda: expected_floor(ZERO, 10)),
        ("covariance has the negative eigenvalue", lambda: expected_floor(-ONE, 10)),
        (r"a must have shape \(n, d\) .* not \(1, 2\)", lambda: mmd_squared(SOME[:1], SOME)),
        ("a has 2 features and b has 3; take both from the same network", lambda: mmd_squared(SOME, torch.zeros(5, 3))),
        ("b holds values that are not finite", lambda: kernel_distance(SOME, NAN)),
        ("blocks=1 does not suit", lambda: kernel_distance(SOME, SOME, blocks=1)),
        ("blocks=0 does not suit", lambda: kernel_distance(SOME, SOME, blocks=0)),
        ("blocks=16 does not suit n=30 and m=30", lambda: kernel_distance(SOME, SOME, blocks=16)),
        ("k=30 neighbours need more than k points.* points has n=30", lambda: neighbour_radius(SOME, 30)),
        ("k=0 neighbours", lambda: neighbour_radius(SOME, 0)),
        ("k=3 neighbours .* real has n=3", lambda: precision_recall(SOME, SOME[:3])),
        ("k=3 neighbours .* samples has n=2", lambda: precision_recall(SOME[:2], SOME)),
        ("k=3 neighbours .* real has n=3", lambda: precision(SOME, SOME[:3])),
        ("samples has 2 features and real has 3", lambda: precision_recall(SOME, torch.zeros(9, 3))),
        ("real holds values that are not finite", lambda: precision_recall(SOME, NAN)),
        (r"points must have shape \(n, d\)", lambda: neighbour_radius(SOME[:, 0])),
    ],
)  # fmt: skip
def test_says_what_is_wrong(what, build):
    with pytest.raises(ValueError, match=what):
        build()


def test_complex_covariances_are_of_the_wrong_kind():
    with pytest.raises(TypeError, match="cov_b is complex"):
        frechet_distance(ZERO, ONE, ZERO, ONE.to(torch.complex64))


def test_too_few_pictures_are_a_warning_with_the_number():
    with pytest.warns(UserWarning, match=r"n=128 rows and d=128 columns.* halves are [0-9.]+ apart. Take more than d"):
        moments(torch.randn(128, 128, generator=torch.Generator().manual_seed(0)))
