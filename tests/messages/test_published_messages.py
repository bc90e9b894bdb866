"""What users read when published weights, texts or pictures do not fit."""

from __future__ import annotations

import pytest
import torch

from course_lib.evaluation.control import edge_f1
from course_lib.evaluation.reconstruction import psnr
from course_lib.models.clip_text import CLIPTextConfig, CLIPTextTower, PublishedReader
from course_lib.models.published import load_published
from course_lib.packing import pack


def test_pictures_of_two_sizes_are_not_compared():
    with pytest.raises(ValueError, match=r"found has shape \(5, 3, 8, 8\), truth \(4, 3, 8, 8\)"):
        psnr(torch.zeros(5, 3, 8, 8), torch.zeros(4, 3, 8, 8))
    with pytest.raises(ValueError, match="they must be equal"):
        edge_f1(torch.zeros(5, 1, 8, 8), torch.zeros(4, 1, 8, 8))


def test_a_text_that_does_not_fit_the_tower():
    tower = CLIPTextTower(CLIPTextConfig(10, 5, 8, 1, 2))
    with pytest.raises(ValueError, match="reads 5 at most"):
        tower(torch.zeros(1, 6, dtype=torch.long))
    with pytest.raises(ValueError, match="ids reaches from 0 to 10; there are 0 to 9"):
        tower(torch.tensor([[0, 10]]))
    with pytest.raises(ValueError, match="tokenizer is missing"):
        PublishedReader(tower, None).condition(["a cat"])


def test_a_model_without_published_names():
    with pytest.raises(TypeError, match="model is a Linear"):
        load_published(torch.nn.Linear(2, 2), {})


@pytest.mark.parametrize("largest", [0, 128])
def test_weights_are_packed_in_one_to_eight_bits(largest):
    with pytest.raises(ValueError, match=f"largest={largest} must lie between 1 and 127"):
        pack({"w": torch.zeros(40, 100)}, largest=largest)
