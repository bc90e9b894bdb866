"""Steps against quality: what is shipped for lesson 10, and how it is made."""

import json

import pytest
import torch

from course_lib import checkpoints, recipes, runtime
from course_lib.data import fashion_mnist
from course_lib.data.archives import DataUnavailable
from course_lib.models.ddpm_unet import DDPMUNet, DDPMUNetConfig
from course_lib.pixels import from_uint8
from course_lib.recipes import ddpm_fashion, sampling_steps
from course_lib.recipes.sampling_steps import STEPS, STRIP, STRIP_PICTURES, from_same_noise

TINY = DDPMUNetConfig(32, 1, 8, (1, 2), blocks=1, attention=(), groups=4)


def test_shipped_curves_and_card():
    tensors, card = checkpoints.load("sampling_steps")
    for sampler, counts in STEPS.items():
        assert tensors[f"{sampler}.steps"].tolist() == list(counts)
        distance = tensors[f"{sampler}.frechet"]
        assert len(distance) == len(tensors[f"{sampler}.confident"]) == len(counts)
        assert (distance > 0.8 * card["config"]["floor"]).all()  # nobody is better than real pictures
        assert distance[0] > distance[-1]  # few steps are worse than many
        for steps, value in zip(counts, distance.tolist(), strict=True):
            (entry,) = [v for name, v in card["metrics"].items() if f"{sampler}-{steps}," in name]
            assert entry == {"value": round(value, 4), "floor": round(card["config"]["floor"], 4)}
    assert card["config"]["network"] == checkpoints.verify("ddpm_fashion")["sha256"]  # of the model that is shipped
    assert tensors["strip.pictures"].shape == (len(STRIP), STRIP_PICTURES, 1, 32, 32)
    few, many = (from_uint8(tensors["strip.pictures"][STRIP.index(k)]) for k in (2, 50))
    last = from_uint8(tensors["strip.pictures"][-1])
    assert (few - last).square().mean() > 2 * (many - last).square().mean()


def test_the_model_draws_the_shipped_pictures_again():
    tensors, _ = checkpoints.load("sampling_steps")
    shipped = from_uint8(tensors["strip.pictures"][STRIP.index(5)][:3])
    found = from_same_noise(ddpm_fashion.load("cpu"), 5, 3)
    assert (found - shipped).square().mean().sqrt() < 0.06  # precisions differ between machines


def test_the_first_pictures_do_not_depend_on_how_many():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DDPMUNet(TINY).eval()
    assert torch.equal(from_same_noise(model, 1, 4)[:2], from_same_noise(model, 1, 2))


def test_the_recipe_in_small(tmp_path, monkeypatch):
    try:
        fashion_mnist("test")
    except DataUnavailable:
        pytest.skip("Fashion-MNIST is not here")
    (tmp_path / "checkpoints").mkdir()
    for file in (runtime.assets_root() / "checkpoints").glob("fashion_classifier.*"):
        (tmp_path / "checkpoints" / file.name).write_bytes(file.read_bytes())
    card = checkpoints.verify("ddpm_fashion")
    monkeypatch.setattr(runtime, "assets_root", lambda: tmp_path)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    monkeypatch.setattr(ddpm_fashion, "SAMPLES", {"cpu": 140})
    monkeypatch.setattr(sampling_steps, "STEPS", {"DDIM": (1, 2), "DDPM": (2,)})
    monkeypatch.setattr(sampling_steps, "STRIP", (1, 2))
    model, network = DDPMUNet(TINY), card["config"]["network"]
    changes = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(TINY).items()}
    card["config"] = {**card["config"], "network": {**network, **changes}}
    card = {name: value for name, value in card.items() if name not in ("sha256", "ties")}
    checkpoints.save("ddpm_fashion", model.state_dict(), card)
    sampling_steps.train(tmp_path / "run")
    made = json.loads((tmp_path / "checkpoints" / "sampling_steps.json").read_text())
    assert set(made["metrics"]) == {f"Fréchet distance, {name}, n=140" for name in ("DDIM-1", "DDIM-2", "DDPM-2")}
    assert len(list((tmp_path / "run").rglob("*.safetensors"))) == 3


def test_names():
    assert "sampling_steps" in recipes.names()
