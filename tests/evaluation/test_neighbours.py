"""The nearest training picture, against a plain loop."""

import torch

from course_lib.evaluation.neighbours import nearest
from course_lib.pixels import from_uint8


def test_against_a_loop():
    g = torch.Generator().manual_seed(0)
    train = torch.randint(0, 256, (101, 1, 5, 4), generator=g, dtype=torch.uint8)
    images = torch.rand(7, 1, 5, 4, generator=g) * 2 - 1
    found = nearest(images, train, block=10)
    for k, image in enumerate(images):
        rounded = ((image + 1) * 127.5).round() / 127.5 - 1
        gaps = [(rounded - from_uint8(other)).square().mean().sqrt().item() for other in train]
        assert gaps[found.index[k]] == min(gaps)
        assert abs(found.distance[k].item() - min(gaps)) < 1e-6


def test_a_copy_is_found_at_distance_zero():
    train = torch.randint(0, 256, (50, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    index, distance = nearest(from_uint8(train[[3, 44]]), train)
    assert index.tolist() == [3, 44]
    assert (distance == 0).all()
