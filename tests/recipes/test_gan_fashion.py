"""The GAN of Fashion-MNIST: what is shipped scores what its card says, and its training can be stopped."""

import copy
from dataclasses import replace

import pytest
import torch

from course_lib import checkpoints
from course_lib.data import fashion_mnist, grey_shapes
from course_lib.data.archives import DataUnavailable
from course_lib.evaluation import distance_to_real, fashion_classifier, look
from course_lib.models.gan import GANConfig, make_gan
from course_lib.recipes import gan_fashion
from course_lib.recipes.gan_fashion import Traced, draw, load, noise
from course_lib.training import Draws, FitConfig, GANObjective, fit, state


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


@pytest.fixture(scope="module")
def shipped():
    return checkpoints.load("gan_fashion")


def recognised(images, label):
    """Share of the pictures that the fixed classifier calls what they were asked to be."""
    return (look(images).labels == label).float().mean().item()


def test_pictures_are_what_was_asked_for():
    """Any ten garments in turn; the same network with its weights shuffled fails."""
    model, (_, label) = load(), noise(200)
    images = draw(model, 200)
    assert images.shape == (200, 1, 32, 32)
    assert images.abs().max() <= 1
    assert recognised(images, label) > 0.6
    scrambled, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    for p in scrambled.parameters():
        p.copy_(p.flatten()[torch.randperm(p.numel(), generator=generator)].reshape(p.shape))
    assert recognised(draw(scrambled, 200), label) < 0.4
    assert recognised(draw(make_gan(gan_fashion.NETWORK).generator, 200), label) < 0.4


def test_card_says_what_the_pictures_score(shipped):
    """Measured again, against 4,000 real pictures in place of 8,000: less luck is averaged out, but it is quicker."""
    _, card = shipped
    try:
        test = fashion_mnist("test")
    except DataUnavailable as error:
        pytest.skip(str(error))
    metric = card["metrics"][f"Fréchet distance, GAN, n={gan_fashion.SAMPLES}"]
    real = look(test.images(slice(0, 4000))).features
    found = distance_to_real(look(draw(load(), gan_fashion.SAMPLES, seed=1)).features, real, splits=6)
    assert found == pytest.approx(metric["value"], rel=0.05, abs=0.05)
    assert metric["value"] <= 10 * metric["floor"]


def test_classes_come_in_turn_and_noise_by_seed():
    z, label = noise(23, seed=3)
    assert label.tolist() == [k % 10 for k in range(23)]
    assert torch.equal(z, noise(23, seed=3)[0])
    assert not torch.equal(z, noise(23)[0])


def test_drawing_does_not_depend_on_the_batch():
    model = load()
    together, parts = draw(model, 7), draw(model, 7, batch=3)
    assert torch.allclose(together, parts, atol=1e-4)
    assert torch.allclose(draw(model, 1), together[:1], atol=1e-4)
    assert torch.equal(draw(model, 7), together)


def test_it_is_small_and_its_curves_are_sound(shipped):
    tensors, card = shipped
    weights = sum(t.numel() for name, t in tensors.items() if name.startswith("generator."))
    assert weights == sum(p.numel() for p in load().parameters()) < 750_000
    accuracy, ratio = tensors["accuracy"].float(), tensors["ratio"].float()
    assert 0.4 < accuracy.min() < accuracy.max() <= 1
    assert accuracy[:20].max() > accuracy[-20:].mean(), "it is easier to tell apart at first"
    assert ratio.min() < ratio[0] / 10
    assert tensors["ratio.steps"][ratio.argmin()] == card["config"]["shipped_step"]
    assert len(tensors["stage.steps"]) == len(tensors["stage.images"])
    assert card["config"]["network"]["classes"] == 10


SMALL = GANConfig(8, 1, 4, 2, generator=(8, 8), discriminator=(8,), groups=4, hidden=8)


def test_accuracy_is_noted_and_survives_a_stop(tmp_path):
    images, label = torch.rand(12, 1, 8, 8) * 2 - 1, torch.arange(12) % 2
    config = FitConfig(steps=6, batch_size=4, betas=(0.0, 0.99), clip_norm=None, save_every=0)

    class Stop(Exception):
        pass

    def objective(model, batch, draws):
        if draws.step == stop:
            raise Stop
        return GANObjective(gamma=1.0, every=2)(model, batch, draws)

    def go(folder):
        gan = Traced(make_gan(SMALL), config.steps)
        fit(gan, objective, lambda i: (images[i], label[i]), 12, config, folder=folder, progress=False)
        return gan

    stop = -1
    whole = go(None)
    assert whole.accuracy.isfinite().all()
    assert int(whole.seen) == 6
    stop = 4
    with pytest.raises(Stop):
        go(tmp_path)
    stop = -1
    again = go(tmp_path)
    assert torch.equal(again.accuracy, whole.accuracy)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))


def test_training_ships_what_it_measured(tmp_path, monkeypatch):
    """The whole recipe in small, on grey shapes, into a folder of its own; called again, it has nothing left to do."""
    fashion_classifier(torch.device("cpu"))  # read before the folder is another; it is kept
    monkeypatch.setattr(gan_fashion.runtime, "assets_root", lambda: tmp_path / "assets")
    monkeypatch.setattr(gan_fashion, "fashion_mnist", lambda split: replace_first(grey_shapes(split), 640))
    small = GANConfig(classes=10, generator=(8, 8, 8, 8), discriminator=(8, 8, 8), groups=4, hidden=8)
    config = FitConfig(steps=2 * gan_fashion.BIN, batch_size=4, betas=(0.0, 0.99), clip_norm=None, evaluate_every=20)
    for _ in range(2):
        gan_fashion.train(tmp_path / "run", small, config, GANObjective(gamma=1.0, every=2), samples=150)
    tensors, card = checkpoints.load("gan_fashion", folder=tmp_path / "assets" / "checkpoints")
    assert tensors["accuracy"].shape == (2,)
    assert tensors["ratio.steps"].tolist() == tensors["stage.steps"].tolist() == [20, 40]
    assert card["metrics"]["Fréchet distance, GAN, n=150"]["value"] > 0
    assert card["config"]["objective"]["gamma"] == 1.0
    best = tensors["ratio.steps"][tensors["ratio"].argmin()]
    assert card["config"]["shipped_step"] == best
    kept, _ = state.read(tmp_path / "run" / "best.safetensors")
    for name, tensor in kept.items():
        if name.startswith("generator."):
            assert torch.equal(tensors[name], tensor.half()), name


def replace_first(images, n):
    """The first n pictures of a set."""
    return replace(images, pixels=images.pixels[:n], labels=images.labels[:n] % 10)


def test_accuracy_is_the_share_told_apart():
    gan = Traced(make_gan(SMALL), 2)
    images, label = torch.rand(4, 1, 8, 8), torch.arange(4) % 2
    losses = gan(images, Draws(0, 0, 4, slice(0, 4)).normal(4), label)
    right = (losses.real > 0).sum() + (losses.fake < 0).sum()
    assert gan.accuracy[0].item() == pytest.approx(right.item() / 8)
    gan.eval()
    gan(images, torch.zeros(4, 4), label)
    assert int(gan.seen) == 1, "only training steps are noted"


def test_watching_measures_and_keeps_pictures(tmp_path):
    test = grey_shapes("test")
    gan = Traced(make_gan(gan_fashion.NETWORK), 4)
    watch = gan_fashion.Watch(gan, test, tmp_path, n=200)
    assert watch(gan) > 5, "an untrained generator is far from any pictures"
    found = watch.stages()
    assert found["stage.steps"].tolist() == [0]
    assert found["stage.images"].shape == (1, 10, 1, 32, 32)
