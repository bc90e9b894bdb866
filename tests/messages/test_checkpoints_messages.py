"""Bad names, cards and tensors are refused with the argument's name, and nothing is written."""

import pytest
import torch

from course_lib import checkpoints

CARD = {
    "recipe": "tiny",
    "config": {},
    "seed": 0,
    "data": "shapes",
    "commit": "abc",
    "hardware": "none",
    "minutes": 1,
    "metrics": {"loss": {"value": 0.1, "floor": None}},
}
TENSORS = {"w": torch.ones(2)}


def without(field):
    return {key: value for key, value in CARD.items() if key != field}


@pytest.mark.parametrize("field", list(checkpoints.CARD_FIELDS))
def test_a_card_without_a_field(tmp_path, field):
    with pytest.raises(ValueError, match=f"card lacks {field}; it needs recipe"):
        checkpoints.save("tiny", TENSORS, without(field), folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "tensors", "card", "error", "says"),
    [
        ("../up", TENSORS, CARD, ValueError, "name='../up'"),
        ("", TENSORS, CARD, ValueError, "name=''"),
        ("tiny", {}, CARD, ValueError, "tensors is empty"),
        ("tiny", {"w": [1.0]}, CARD, TypeError, r"tensors\['w'\] must be a torch.Tensor.*not list"),
        ("tiny", {1: torch.ones(1)}, CARD, TypeError, r"tensors\[1\]"),
        ("tiny", {"w": torch.tensor([1e6])}, CARD, ValueError, r"tensors\['w'\] reaches 1e\+06.*dtype=None"),
        ("tiny", TENSORS, {**CARD, "seed": "0"}, TypeError, r"card\['seed'\] must be a int"),
        ("tiny", TENSORS, {**CARD, "minutes": None}, TypeError, r"card\['minutes'\] must be a number"),
        (
            "tiny",
            TENSORS,
            {**CARD, "metrics": {"loss": 0.1}},
            ValueError,
            r"\['loss'\] must be a dict with 'value' and",
        ),
        ("tiny", TENSORS, {**CARD, "config": {"x": float("nan")}}, ValueError, "card cannot be written as JSON"),
        ("tiny", TENSORS, {**CARD, "config": {"x": torch.ones(1)}}, ValueError, "card cannot be written as JSON"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path, name, tensors, card, error, says):
    with pytest.raises(error, match=says):
        checkpoints.save(name, tensors, card, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(checkpoints.CheckpointError, match=r"no checkpoint at .*tiny\.safetensors; .*course train tiny"):
        checkpoints.load("tiny", folder=tmp_path)
