"""Checkpoints: what is saved comes back, and what is damaged is refused and left alone."""

import hashlib
import json

import pytest
import torch

from course_lib import checkpoints, runtime
from course_lib.checkpoints import CheckpointError

CARD = {
    "recipe": "tiny",
    "config": {"width": 4},
    "seed": 0,
    "data": "shapes, 100 scenes",
    "commit": "abc",
    "hardware": "2 threads",
    "minutes": 0.5,
    "metrics": {"loss": {"value": 0.1, "floor": 0.05}},
}


def tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"weight": torch.randn(3, 4, generator=generator), "steps": torch.tensor([7])}


def test_round_trip_in_half_precision(tmp_path):
    path = checkpoints.save("tiny", tensors(), CARD, folder=tmp_path)
    assert path == tmp_path / "tiny.safetensors"
    found, card = checkpoints.load("tiny", folder=tmp_path)
    assert torch.equal(found["weight"], tensors()["weight"].half())
    assert torch.equal(found["steps"], tensors()["steps"])
    assert {key: card[key] for key in CARD} == CARD
    assert checkpoints.names(folder=tmp_path) == ["tiny"]
    assert checkpoints.verify_all(folder=tmp_path) == {"tiny": None}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_none_keeps_every_bit(tmp_path, dtype):
    curve = {"x": torch.linspace(0, 1, 11, dtype=dtype), "seen": torch.tensor([True, False])}
    checkpoints.save("curve", curve, CARD, dtype=None, folder=tmp_path)
    found, _ = checkpoints.load("curve", folder=tmp_path)
    assert all(torch.equal(found[key], curve[key]) and found[key].dtype == curve[key].dtype for key in curve)


def test_tied_tensors_are_stored_once_and_come_back_tied(tmp_path):
    weight = torch.randn(200, 200)
    path = checkpoints.save("tied", {"a": weight, "b": weight, "view": weight[:2]}, CARD, folder=tmp_path)
    assert path.stat().st_size < 1.1 * 2 * (weight.numel() + 400)
    found, _ = checkpoints.load("tied", folder=tmp_path)
    assert found["a"].data_ptr() == found["b"].data_ptr() != found["view"].data_ptr()
    assert torch.equal(found["view"], weight[:2].half())


def test_tied_parameters_of_a_model_reload(tmp_path):
    model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False))
    model[1].weight = model[0].weight
    checkpoints.save("model", model.state_dict(), CARD, dtype=None, folder=tmp_path)
    other = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5, bias=False))
    other.load_state_dict(checkpoints.load("model", folder=tmp_path)[0])
    assert torch.equal(other[1].weight, model[0].weight)


def test_transposed_strided_and_empty_tensors(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    odd = {"t": base.T, "s": base[::2, ::3], "e": torch.empty(0, 3), "e2": torch.empty(0, 3), "z": torch.tensor(1.5)}
    checkpoints.save("odd", odd, CARD, dtype=None, folder=tmp_path)
    found, _ = checkpoints.load("odd", folder=tmp_path)
    assert all(torch.equal(found[key], odd[key]) for key in odd)


@pytest.mark.parametrize("harm", ["truncate", "flip", "card", "no card", "no file", "no hash", "other card"])
def test_damage_is_named_with_its_remedy_and_left_alone(tmp_path, harm):
    path = checkpoints.save("tiny", tensors(), CARD, folder=tmp_path)
    card = path.with_suffix(".json")
    blob = path.read_bytes()
    if harm == "truncate":
        path.write_bytes(blob[:-3])
    elif harm == "flip":
        path.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
    elif harm == "card":
        card.write_text("{", encoding="utf-8")
    elif harm == "no card":
        card.unlink()
    elif harm == "no file":
        path.unlink()
    elif harm == "no hash":
        card.write_text(json.dumps(CARD), encoding="utf-8")
    else:
        card.write_text(card.read_text().replace('"sha256": "', '"sha256": "0'), encoding="utf-8")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=r"tiny\.(safetensors|json).*course train tiny"):
        checkpoints.load("tiny", folder=tmp_path)
    assert isinstance(checkpoints.verify_all(folder=tmp_path)["tiny"], CheckpointError)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_file_that_is_no_safetensors_but_fits_its_card(tmp_path):
    path = checkpoints.save("tiny", tensors(), CARD, folder=tmp_path)
    path.write_bytes(b"not tensors")
    card = json.loads(path.with_suffix(".json").read_text())
    card["sha256"] = hashlib.sha256(b"not tensors").hexdigest()
    path.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"tiny\.safetensors is damaged"):
        checkpoints.load("tiny", folder=tmp_path)


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_a_save_stopped_anywhere_leaves_a_whole_pair(tmp_path, monkeypatch, stop_after):
    """Stop the second save before its first, second or third rename: the old pair or the new one, never a mixture."""
    checkpoints.save("tiny", tensors(0), {**CARD, "seed": 0}, folder=tmp_path)
    renames = 0

    def counted(original):
        def rename(*arguments):
            nonlocal renames
            renames += 1
            if renames > stop_after:
                raise KeyboardInterrupt
            return original(*arguments)

        return rename

    with monkeypatch.context() as patch:
        patch.setattr(runtime.os, "replace", counted(runtime.os.replace))
        patch.setattr(checkpoints.Path, "replace", counted(checkpoints.Path.replace))
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save("tiny", tensors(1), {**CARD, "seed": 1}, folder=tmp_path)
    found, card = checkpoints.load("tiny", folder=tmp_path)
    assert torch.equal(found["weight"], tensors(card["seed"])["weight"].half())
    assert card["seed"] == (1 if stop_after == 2 else 0)
    checkpoints.save("tiny", tensors(2), {**CARD, "seed": 2}, folder=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_the_shipped_checkpoints_are_in_order():
    assert not [str(error) for error in checkpoints.verify_all().values() if error]


def test_every_asset_is_within_its_budget(root):
    assets = root / "assets"
    rows = {}
    for line in (assets / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip(" `") for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[1].replace(",", "").isdigit():
            rows[cells[0]] = int(cells[1].replace(",", ""))
    files = {path.relative_to(assets).as_posix(): path.stat().st_size for path in assets.rglob("*") if path.is_file()}
    del files["README.md"]
    assert files.keys() == rows.keys(), "assets/README.md needs one row for each file, and no other"
    assert not {name: size for name, size in files.items() if size > 1000 * rows[name]}
    assert sum(rows.values()) <= 30_000
