"""The table of GAN, VAE and diffusion: its numbers follow from what is shipped, and not from anything else."""

import json

import pytest
import torch

from course_lib import checkpoints, recipes, runtime
from course_lib.data import fashion_mnist
from course_lib.data.archives import DataUnavailable
from course_lib.evaluation import distance_to_real, floor, look
from course_lib.pixels import from_uint8
from course_lib.recipes import measured_samples
from course_lib.recipes.measured_samples import FAMILIES, FORGED, SHOWN, STEP, pack, row, sets, unpack


@pytest.fixture(scope="module")
def shipped():
    return checkpoints.load("measured_samples")


def test_what_is_shipped(shipped):
    tensors, card = shipped
    n = card["config"]["n"]
    for name in FAMILIES:
        assert tensors[f"features.{name}"].shape == (n, 128)
        assert tensors[f"pictures.{name}"].shape == (SHOWN, 1, 32, 32)
    assert tensors["features.test"].shape == (10_000, 128)
    assert len(tensors["pictures.forged"]) == FORGED
    for name, (_, recipe, calls) in FAMILIES.items():
        assert card["config"]["networks"][name] == checkpoints.verify(recipe)["sha256"], "of the model that is shipped"
        assert card["config"]["calls"][name] == calls
    assert recipes.load("measured_samples") is measured_samples


@pytest.mark.parametrize("name", ["GAN", "diffusion, 50 steps"])
def test_the_card_follows_from_the_features(shipped, name):
    tensors, card = shipped
    features, n = sets(tensors), card["config"]["n"]
    found = row(features[name], features["test"], features["reference"])
    for what, value in found.items():
        assert card["metrics"][f"{what}, {name}, n={n}"]["value"] == pytest.approx(value, rel=1e-3, abs=2e-4)
    stated = card["metrics"][f"Fréchet distance, {name}, n={n}"]
    assert stated["floor"] == pytest.approx(floor(features["test"], n), rel=1e-3)
    assert stated["value"] > 1.2 * stated["floor"]  # no model of the course is as good as real pictures
    scrambled = features[name][:, torch.randperm(128, generator=torch.Generator().manual_seed(0))]
    assert distance_to_real(scrambled, features["test"]) > 2 * stated["value"]


def test_the_features_are_those_of_the_pictures(shipped):
    tensors, _ = shipped
    for name in FAMILIES:
        stored = unpack(tensors[f"features.{name}"][:SHOWN])
        found = look(from_uint8(tensors[f"pictures.{name}"])).features
        assert (found - stored).abs().max() < 0.1  # rounding of pixels and of features
        assert (found.flip(0) - stored).abs().max() > 0.5


def test_the_gan_draws_them_again(shipped):
    tensors, _ = shipped
    module = recipes.load("gan_fashion")
    drawn = module.draw(module.load("cpu"), SHOWN, measured_samples.SEED)
    gaps = (drawn - from_uint8(tensors["pictures.GAN"])).square().mean(dim=(1, 2, 3)).sqrt()
    assert gaps.median() < 0.06  # precisions differ between machines


def test_real_pictures_are_at_the_floor_and_sets_are_disjoint(shipped):
    tensors, _ = shipped
    features = sets(tensors)
    n = len(features["reference"])
    found = row(features["real"], features["test"], features["reference"])
    assert abs(found["kernel distance"]) < 4 * found["its standard error"]
    assert found["precision"] > 0.8
    assert found["recall"] > 0.8
    marked = {**tensors, "features.test": torch.arange(10_000)[:, None].remainder(256).to(torch.uint8)}
    marked["features.test"] = torch.cat(
        [marked["features.test"], (torch.arange(10_000) // 256)[:, None].to(torch.uint8)], 1
    )
    numbers = {name: {tuple(r) for r in sets(marked)[name].tolist()} for name in ("reference", "real", "target")}
    assert [len(s) for s in numbers.values()] == [n, n, FORGED]
    assert len(set.union(*numbers.values())) == 2 * n + FORGED


def test_forged_pictures_deceive_the_distance_and_look_like_noise(shipped):
    tensors, card = shipped
    test = unpack(tensors["features.test"])
    images = from_uint8(tensors["pictures.forged"])
    found = distance_to_real(look(images).features, test)
    assert card["metrics"][f"Fréchet distance, forged, n={FORGED}"]["value"] == pytest.approx(found, rel=0.02)
    best = min(distance_to_real(unpack(tensors[f"features.{name}"][:FORGED]), test) for name in FAMILIES)
    assert found < best
    smooth = (images[:, :, 1:] - images[:, :, :-1]).square().mean() / images.var()
    assert smooth > 1.5  # neighbours have nothing to do with each other: 2 for noise, far less for pictures
    noise = torch.randn(FORGED, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert distance_to_real(look(noise).features, test) > 10 * found


def test_the_walk(shipped):
    tensors, _ = shipped
    t, states, guesses = (tensors[f"walk.{what}"] for what in ("t", "state", "guess"))
    assert t[0] == 1000
    assert t[-1] == 0
    assert (t.diff() < 0).all()
    assert len(states) == len(t) == len(guesses) + 1
    assert (guesses < states[:-1]).all()  # the guess is ahead
    assert states[0] > 10 * states[-1]
    assert guesses[-1] == pytest.approx(states[-1].item(), rel=0.05)  # the last step goes to the guess


def test_bytes_hold_features():
    x = torch.rand(50, 7, generator=torch.Generator().manual_seed(0)) * 5
    assert (unpack(pack(x)) - x).abs().max() <= STEP / 2 + 1e-6
    with pytest.raises(ValueError, match=r"bytes hold 0 to 5\.31"):
        pack(x + 1)
    with pytest.raises(ValueError, match="reach from -"):
        pack(x - 1)


def test_the_recipe_in_small(tmp_path, monkeypatch):
    try:
        test = fashion_mnist("test")
    except DataUnavailable:
        pytest.skip("Fashion-MNIST is not here")
    (tmp_path / "checkpoints").mkdir()
    for name in ("fashion_classifier", "ddpm_fashion"):
        for file in (runtime.assets_root() / "checkpoints").glob(f"{name}.*"):
            (tmp_path / "checkpoints" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(runtime, "assets_root", lambda: tmp_path)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    small = {"SAMPLES": 140, "SHOWN": 3, "FORGED": 130, "FORGE_STEPS": 2, "WALKERS": 130, "WALK_STEPS": 1}
    for name, value in small.items():
        monkeypatch.setattr(measured_samples, name, value)
    few = fashion_mnist("test")
    object.__setattr__(few, "pixels", test.pixels[:600])
    object.__setattr__(few, "labels", test.labels[:600])
    monkeypatch.setattr(measured_samples, "fashion_mnist", lambda split: few)
    pictures = test.images(slice(1000, 1140))
    families = {
        "GAN": (lambda n, folder: pictures[:n], "ddpm_fashion", 1),
        "VAE": (lambda n, folder: pictures[:n].roll(1, 3), "ddpm_fashion", 1),
    }
    monkeypatch.setattr(measured_samples, "FAMILIES", families)
    measured_samples.train(tmp_path / "run")
    made = json.loads((tmp_path / "checkpoints" / "measured_samples.json").read_text())
    for name in families:
        assert f"Fréchet distance, {name}, n=140" in made["metrics"]
        assert f"nearest training picture, {name}, n=500" in made["metrics"]
    assert made["metrics"]["Fréchet distance, GAN, n=140"]["value"] < 8
    kept = sorted(path.name for path in (tmp_path / "run").glob("*"))
    assert [name.split("_")[0] for name in kept] == ["forged", "walk"]
    again = checkpoints.load("measured_samples")[0]
    measured_samples.train(tmp_path / "run")  # nothing is drawn or forged again
    now = checkpoints.load("measured_samples")[0]
    assert all(torch.equal(now[name], again[name]) for name in again)
