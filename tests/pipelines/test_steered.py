"""Steered: the shipped ControlNets obeyed, from the outside; strengths, empty prompts, and what is refused."""

from __future__ import annotations

import pytest
import torch

from course_lib.data import shapes
from course_lib.evaluation.control import edge_f1
from course_lib.pipelines import Steered


@pytest.fixture(scope="module")
def steered():
    return Steered.load("edges")


@pytest.fixture(scope="module")
def scenes():
    return shapes.make(6, seed=41)


def test_edges_are_obeyed_with_a_prompt_and_without(steered, scenes):
    for captions, least in ((scenes.captions, 0.85), ([""] * 6, 0.75)):
        drawn = steered(captions, {"edges": scenes.edges}, steps=10, progress=False)
        assert drawn.shape == (6, 3, 32, 32)
        assert -1 <= drawn.min() <= drawn.max() <= 1
        assert edge_f1(shapes.edge_map(drawn), scenes.edges).mean() > least
    alone = steered(scenes.captions, {}, steps=10, progress=False)
    assert edge_f1(shapes.edge_map(alone), scenes.edges).mean() < 0.7


def test_strength_nought_is_the_base_and_the_seed_decides(steered, scenes):
    few, edges = scenes.captions[:2], scenes.edges[:2]
    base = steered(few, {}, steps=3, progress=False)
    assert torch.equal(base, steered(few, {"edges": edges}, strength=0, steps=3, progress=False))
    assert torch.equal(base, steered(few, {"edges": edges}, strength={"edges": 0}, steps=3, progress=False))
    one = steered(few, {"edges": edges}, steps=3, progress=False)
    assert torch.equal(one, steered(few, {"edges": edges}, steps=3, progress=False))
    assert not torch.equal(one, steered(few, {"edges": edges}, steps=3, seed=1, progress=False))
    assert not torch.equal(one, base)


def test_captions_are_read_as_they_are_written(steered, scenes):
    edges = scenes.edges[:1]
    one = steered(["a small red circle at the left"], {"edges": edges}, steps=2, progress=False)
    assert torch.equal(one, steered([" A small RED circle at the left."], {"edges": edges}, steps=2, progress=False))


def test_what_does_not_fit_is_named(steered, scenes):
    caption, edges = scenes.captions[:1], scenes.edges[:1]
    with pytest.raises(ValueError, match="'depth' is not shipped; use 'edges' or 'keypoints'"):
        Steered.load("depth")
    with pytest.raises(ValueError, match="has no ControlNet here; there are: edges"):
        steered(caption, {"keypoints": edges})
    with pytest.raises(ValueError, match="holds 1 control images for 2 captions"):
        steered(caption * 2, {"edges": edges})
    with pytest.raises(ValueError, match="strength=3"):
        steered(caption, {"edges": edges}, strength=3)
    with pytest.raises(ValueError, match="guidance"):
        steered(caption, {"edges": edges}, guidance=-1)
    with pytest.raises(TypeError, match="one string"):
        steered(caption[0], {"edges": edges})
    with pytest.raises(ValueError, match=r"control images lie in\s+\[0, 1\]"):
        steered(caption, {"edges": 2 * edges - 1})
