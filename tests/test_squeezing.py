"""Tensors in fewer bytes: the same bits come back, and what cannot be right is refused."""

from __future__ import annotations

import pytest
import torch

from course_lib.squeezing import SMALLEST, expand, squeeze

KINDS = [torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.uint8, torch.int64]


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize("shape", [(3000,), (40, 30, 3, 3), (1, 5000), (5000, 1)], ids=str)
def test_every_bit_comes_back(dtype, shape):
    torch.manual_seed(0)
    given = {"a.weight": (20 * torch.randn(shape)).to(dtype), "a.bias": torch.randn(3), "number": torch.tensor(7.0)}
    squeezed = squeeze(given)
    assert "a.weight" not in squeezed
    assert any(name.startswith("a.weight.deflated.") for name in squeezed)
    assert torch.equal(squeezed["a.bias"], given["a.bias"])
    back = expand(squeezed)
    assert back.keys() == given.keys()
    for name, tensor in given.items():
        assert back[name].dtype == tensor.dtype, name
        assert torch.equal(back[name], tensor), name


def test_special_numbers_come_back_bit_for_bit():
    given = torch.tensor([float("nan"), float("inf"), -0.0, 1e-40] * 600)
    back = expand(squeeze({"x": given}))["x"]
    assert torch.equal(back.view(torch.int32), given.view(torch.int32))


def test_it_saves_what_there_is_to_save():
    torch.manual_seed(0)
    size = {
        name: sum(part.numel() * part.element_size() for part in squeeze({name: tensor}).values())
        for name, tensor in {
            "flat": torch.zeros(100_000, dtype=torch.uint8),
            "bell": torch.randn(100_000).half(),
            "noise": torch.randint(0, 256, (100_000,), dtype=torch.uint8),
        }.items()
    }
    assert size["flat"] < 500
    assert size["bell"] < 0.92 * 200_000
    assert size["noise"] == 100_000  # no name is changed where nothing is gained
    small = {"x": torch.zeros(SMALLEST - 1, dtype=torch.uint8)}
    assert squeeze(small).keys() == {"x"}


def test_a_strided_tensor_and_an_empty_one():
    tensor = torch.arange(6000.0).reshape(60, 100).T
    back = expand(squeeze({"x": tensor, "empty": torch.zeros(0, 3)}))
    assert torch.equal(back["x"], tensor)
    assert back["empty"].shape == (0, 3)


def test_damage_and_reserved_names_are_errors():
    name, blob = next(iter(squeeze({"x": torch.zeros(5000)}).items()))
    broken = blob.clone()
    broken[len(broken) // 2 :] = 17
    with pytest.raises(ValueError, match="cannot be unpacked"):
        expand({name: broken})
    with pytest.raises(ValueError, match="does not hold what its name says"):
        expand({name.replace("5000", "4999"): blob})
    with pytest.raises(ValueError, match="does not hold what its name says"):
        expand({name.replace("float32", "nn"): blob})
    with pytest.raises(ValueError, match="use another name"):
        squeeze({name: blob})
