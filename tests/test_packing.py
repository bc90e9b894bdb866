"""Weights in eight bits: how far they may be off, what stays as it was, and the way through a file."""

import pytest
import torch

from course_lib import checkpoints
from course_lib.packing import LARGEST, SCALE, SMALLEST, pack, unpack


def weights(*shape, seed=0, spread=1.0):
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64, 32), (40, 10, 3, 3), (2, 2000), (3, 5, 7, 11)])
@pytest.mark.parametrize("spread", [1e-4, 1.0, 300.0])
def test_every_number_comes_back_within_half_a_scale_of_its_row(shape, spread):
    tensor = weights(*shape, spread=spread)
    packed = pack({"w": tensor})
    assert packed["w"].dtype == torch.int8
    assert packed["w"].shape == tensor.shape
    assert packed["w"].abs().max() <= LARGEST
    scale = packed["w" + SCALE]
    assert scale.shape == shape[:1]
    found = unpack(packed)
    assert set(found) == {"w"}
    off = (found["w"] - tensor).flatten(1).abs().amax(dim=1)
    assert (off <= 0.5001 * scale).all()
    assert torch.equal(scale, scale.half().float()), "a checkpoint keeps it in float16: nothing more is lost there"


@pytest.mark.parametrize("largest", [127, 31, 7])
def test_fewer_bits_are_coarser_by_as_much(largest):
    tensor = weights(50, 400)
    packed = pack({"w": tensor}, largest=largest)
    assert packed["w"].abs().max() == largest
    off = (unpack(packed)["w"] - tensor).abs().amax(dim=1)
    longest = tensor.abs().amax(dim=1)
    assert (off <= 0.501 * 1.001 * longest / largest).all()
    assert (off > 0.4 * longest / largest).all()


def test_each_row_has_its_own_scale():
    tensor = weights(2, 1000)
    tensor[1] *= 1000
    found = unpack(pack({"w": tensor}))["w"]
    assert (found[0] - tensor[0]).abs().max() < 0.02, "the large row does not coarsen the small one"


def test_small_and_other_tensors_are_untouched():
    kept = {
        "bias": weights(5000),
        "small": weights(31, 33),
        "whole": torch.arange(4000).reshape(40, 100),
        "flags": torch.ones(40, 100, dtype=torch.bool),
        "one": torch.tensor(3.0),
    }
    assert kept["small"].numel() < SMALLEST
    packed = pack(kept)
    assert set(packed) == set(kept)
    assert all(packed[name] is kept[name] for name in kept)
    assert all(unpack(packed)[name] is kept[name] for name in kept)


def test_zeros_stay_zero():
    tensor = torch.cat([torch.zeros(1, 2000), weights(1, 2000)])
    found = unpack(pack({"w": tensor}))["w"]
    assert not found[0].any()
    assert torch.isfinite(found).all()


def test_packing_what_was_packed_changes_nothing_more():
    once = unpack(pack({"w": weights(50, 60)}))
    twice = unpack(pack(once))
    assert (twice["w"] - once["w"]).abs().max() < 1e-5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad):
    tensor = weights(50, 60)
    tensor[3, 4] = bad
    with pytest.raises(ValueError, match=r"tensors\['net.w'\] holds numbers that are not finite"):
        pack({"net.w": tensor})


def test_through_a_file(tmp_path):
    tensors = {"w": weights(100, 300), "b": weights(100), "n": torch.tensor([3])}
    card = {
        "recipe": "ring", "config": {}, "seed": 0, "data": "none", "commit": "0", "hardware": "none", "minutes": 0,
        "metrics": {},
    }  # fmt: skip
    plain = checkpoints.save("plain", tensors, card, folder=tmp_path)
    packed = checkpoints.save("packed", tensors, card, packed=True, folder=tmp_path)
    assert packed.stat().st_size < 0.56 * plain.stat().st_size, "eight bits in place of sixteen"
    found, _ = checkpoints.load("packed", folder=tmp_path)
    assert set(found) == set(tensors)
    assert found["w"].dtype == torch.float32
    expected = unpack(pack(tensors))
    assert torch.allclose(found["w"], expected["w"], rtol=1e-6, atol=0), "scales survive float16"
    assert torch.equal(found["b"], tensors["b"].half())
    assert torch.equal(found["n"], tensors["n"])
    again = checkpoints.save("again", found, card, packed=True, folder=tmp_path)
    assert abs(again.stat().st_size - packed.stat().st_size) < 64


def test_what_is_to_stay_exact_stays_in_sixteen_bits(tmp_path):
    tensors = {"head": weights(64, 64), "w": weights(64, 64, seed=1)}
    card = {
        "recipe": "ring", "config": {}, "seed": 0, "data": "none", "commit": "0", "hardware": "none", "minutes": 0,
        "metrics": {},
    }  # fmt: skip
    checkpoints.save("exact", tensors, card, packed=True, exact=("head",), folder=tmp_path)
    found, _ = checkpoints.load("exact", folder=tmp_path)
    assert torch.equal(found["head"].float(), tensors["head"].half().float())
    assert not torch.equal(found["w"].float(), tensors["w"].half().float())
    with pytest.raises(ValueError, match="exact names tensors that are not there: had"):
        checkpoints.save("typo", tensors, card, packed=True, exact=("had",), folder=tmp_path)


def test_tied_tensors_stay_tied_when_packed(tmp_path):
    shared = weights(64, 64)
    card = {
        "recipe": "ring", "config": {}, "seed": 0, "data": "none", "commit": "0", "hardware": "none", "minutes": 0,
        "metrics": {},
    }  # fmt: skip
    checkpoints.save("tied", {"a": shared, "b": shared}, card, packed=True, folder=tmp_path)
    found, _ = checkpoints.load("tied", folder=tmp_path)
    assert found["a"] is found["b"]
