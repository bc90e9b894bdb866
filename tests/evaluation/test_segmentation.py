"""Overlap of predicted and true classes, against SciPy."""

import pytest
import scipy.spatial.distance
import torch

from course_lib.evaluation.segmentation import class_iou


def test_class_iou_is_one_minus_jaccard_distance():
    generator = torch.Generator().manual_seed(0)
    predicted, truth = torch.randint(0, 4, (2, 3, 9, 7), generator=generator)
    found = class_iou(predicted, truth, 4)
    for k in range(4):
        distance = scipy.spatial.distance.jaccard((predicted == k).flatten().numpy(), (truth == k).flatten().numpy())
        assert found[k].item() == pytest.approx(1 - distance, abs=1e-12)


def test_ends_of_the_scale():
    truth = torch.tensor([0, 0, 1, 1])
    assert class_iou(truth, truth, 3)[:2].tolist() == [1, 1]
    assert class_iou(truth, truth, 3)[2].isnan()
    assert class_iou(1 - truth, truth, 2).tolist() == [0, 0]
    assert class_iou(torch.zeros_like(truth), truth, 2).tolist() == [0.5, 0]


def test_unknown_classes_are_refused():
    with pytest.raises(ValueError, match=r"truth holds classes 0…2; with classes=2 they must lie in 0…1"):
        class_iou(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 2]), 2)
