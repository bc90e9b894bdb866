"""The yardstick and the diffusion model of Fashion-MNIST: what is shipped keeps its promises, and garbage fails."""

import json
from copy import deepcopy

import pytest
import torch

from course_lib import checkpoints, recipes, runtime
from course_lib.data import fashion_mnist, grey_shapes
from course_lib.data.archives import DataUnavailable
from course_lib.evaluation import fashion_classifier, look, report
from course_lib.models.classifier import Classifier, augmented
from course_lib.models.ddpm_unet import DDPMUNet, DDPMUNetConfig
from course_lib.recipes import ddpm_fashion
from course_lib.recipes import fashion_classifier as recipe
from course_lib.training import FitConfig


@pytest.fixture(scope="module")
def sets():
    try:
        return fashion_mnist("train"), fashion_mnist("test")
    except DataUnavailable:
        pytest.skip("Fashion-MNIST is not here")


def test_the_shipped_classifier_is_as_good_as_its_card_says(sets):
    _, test = sets
    some = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:2000]
    right = (look(test.images(some)).labels == test.labels[some]).float().mean().item()
    stated = checkpoints.verify("fashion_classifier")["metrics"]["test accuracy"]["value"]
    assert stated >= 0.93
    assert abs(right - stated) < 4 * (stated * (1 - stated) / 2000) ** 0.5


def test_an_untrained_classifier_is_not(sets):
    _, test = sets
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier().eval()
    images, labels = test.images(slice(0, 1000)), test.labels[:1000]
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).float().mean() < 0.3


def test_a_report_knows_real_from_false(sets):
    train, test = sets
    real = test.images(slice(0, 300))
    own = report(real, train, test, seed=1)
    assert 0.5 < own.ratio < 2  # real pictures are at the floor
    assert own.confident > 0.85
    assert all(0.04 < share < 0.18 for share in own.class_shares)
    assert own.nearest == pytest.approx(own.nearest_real, rel=0.05)
    g = torch.Generator().manual_seed(0)
    shuffled = real.flatten(1)[:, torch.randperm(1024, generator=g)].reshape(real.shape)  # right pixels, wrong places
    for false in (torch.randn(300, 1, 32, 32, generator=g), shuffled, real[:1].expand(300, -1, -1, -1)):
        found = report(false, train, test, seed=1)
        assert found.ratio > 8
    copied = report(train.images(slice(0, 300)), train, test, seed=1)
    assert copied.nearest == 0 < copied.nearest_real  # memorised


def test_features_are_what_the_head_sees():
    model = fashion_classifier("cpu")
    x = grey_shapes("test").images(slice(0, 8))
    features = model.features(x)
    assert features.shape == (8, 128)
    assert (features >= 0).all()
    assert torch.allclose(model(x), features @ model.head.weight.T + model.head.bias, atol=1e-5)
    assert not any(p.requires_grad for p in model.parameters())


def test_augmentation_pixel_by_pixel():
    images = torch.rand(3, 1, 5, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mirror, shift = torch.tensor([False, True, False]), torch.tensor([[0, 0], [1, -2], [-2, 1]])
    found = augmented(images, mirror, shift)
    assert torch.equal(found[0], images[0])
    for k in (1, 2):
        source = images[k, 0].flip(1) if mirror[k] else images[k, 0]
        down, right = shift[k].tolist()
        for row in range(5):
            for column in range(6):
                y, x = row - down, column - right
                wanted = source[y, x].item() if 0 <= y < 5 and 0 <= x < 6 else -1.0
                assert found[k, 0, row, column].item() == wanted


TINY = DDPMUNetConfig(32, 1, 8, (1, 2), blocks=1, attention=(), groups=4)


def test_drawing_pictures(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DDPMUNet(TINY).eval()
    some = ddpm_fashion.draw(model, 5, steps=3, batch=2, progress=False)
    assert some.shape == (5, 1, 32, 32)
    assert torch.isfinite(some).all()
    assert torch.equal(some, ddpm_fashion.draw(model, 5, steps=3, batch=2, progress=False))
    assert not torch.equal(some, ddpm_fashion.draw(model, 5, steps=3, batch=2, seed=1, progress=False))


def test_pictures_drawn_before_are_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DDPMUNet(TINY).eval()
    first = ddpm_fashion.draw(model, 3, steps=2, batch=2, progress=False, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert (first - ddpm_fashion.draw(model, 3, steps=2, batch=2, progress=False)).abs().max() <= 1.001 / 255
    monkeypatch.setattr(ddpm_fashion, "sample", None)  # nothing is drawn any more
    assert torch.equal(first, ddpm_fashion.draw(model, 3, steps=2, batch=2, progress=False, folder=tmp_path))


def test_the_recipe_makes_a_checkpoint_that_loads(sets, tmp_path, monkeypatch):
    """All of it in small: two steps of training, 200 pictures in place of a thousand, a card, the weights back."""
    shipped = runtime.assets_root() / "checkpoints"
    for file in shipped.glob("fashion_classifier.*"):
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(runtime, "assets_root", lambda: tmp_path)
    monkeypatch.setattr(ddpm_fashion, "T", 25)
    monkeypatch.setattr(ddpm_fashion, "SAMPLES", {"cpu": 200, "cuda": 200})
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    settings = TINY, (FitConfig(steps=2, batch_size=8), FitConfig(steps=1, batch_size=8))
    ddpm_fashion.train(tmp_path / "run", settings)
    card = json.loads((tmp_path / "checkpoints" / "ddpm_fashion.json").read_text())
    assert card["metrics"]["Fréchet distance, DDPM-25, n=200"]["floor"] > 0
    assert [one["steps"] for one in card["config"]["rounds"]] == [2, 1]
    assert sorted(path.name for path in (tmp_path / "run").glob("round_*")) == ["round_1", "round_2"]
    model = ddpm_fashion.load("cpu")
    assert model.config == TINY
    assert model(torch.zeros(1, 1, 32, 32), torch.tensor([0])).shape == (1, 1, 32, 32)


def scrambled(model):
    """A copy whose weights stand in another order: the same numbers, and nothing learned."""
    copy, generator = deepcopy(model), torch.Generator().manual_seed(0)
    for weight in copy.parameters():
        order = torch.randperm(weight.numel(), generator=generator)
        weight.copy_(weight.flatten()[order].reshape(weight.shape))
    return copy


def untrained(model):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DDPMUNet(model.config).eval().requires_grad_(False)


@pytest.mark.parametrize(("change", "good"), [(None, True), (scrambled, False), (untrained, False)])
def test_the_shipped_model_draws_garments_and_others_do_not(sets, change, good):
    """At n = 140 the floor is high and noisy: the limits are wide, and what is false is far beyond them."""
    model = ddpm_fashion.load("cpu")
    found = report(ddpm_fashion.draw(change(model) if change else model, 140, 10, progress=False), *sets)
    checks = (
        found.ratio < 4,
        found.confident > 0.55,
        max(found.class_shares) < 0.3,
        found.nearest > 0.5 * found.nearest_real,
    )
    assert all(checks) if good else sum(checks) <= 2, found


def test_the_card_keeps_the_promises(sets):
    metrics = checkpoints.verify("ddpm_fashion")["metrics"]
    for name, entry in metrics.items():
        value, floor = entry["value"], entry["floor"]
        if name.startswith("Fréchet"):
            assert floor < value < 8 * floor  # trained on a CPU: 7.2 with DDIM-50
        elif name.startswith("confident"):
            assert value > 0.7
        elif "class" in name:
            assert 0.05 <= value <= 0.16
        else:
            assert 0.8 * floor < value < 1.3 * floor  # as far from the training pictures as test pictures are
    assert any("DDIM-50" in name for name in metrics)


def test_names():
    for name in ("fashion_classifier", "ddpm_fashion"):
        assert name in recipes.names()
        assert callable(recipes.load(name).train)
    assert callable(recipe.accuracy)
