"""The shipped VAEs: what their cards say is measured again, and scrambled weights fail the same check."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from course_lib import checkpoints, runtime
from course_lib.data import fashion_mnist, mnist
from course_lib.data.archives import DataUnavailable
from course_lib.data.grey_sets import grey_shapes
from course_lib.evaluation import Report, feature_distance, look
from course_lib.models.conv_vae import ConvVAE, ConvVAEConfig
from course_lib.models.latent_density import GaussianMixture
from course_lib.recipes import vae_digits, vae_fashion
from course_lib.training import FitConfig


@pytest.fixture(autouse=True)
def _cpu(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    monkeypatch.setenv("COURSE_PRECISION", "float32")


@pytest.fixture(scope="module")
def garments():
    try:
        return fashion_mnist("test", 28)
    except DataUnavailable:
        pytest.skip("Fashion-MNIST is not here")


@pytest.fixture(scope="module")
def digits():
    try:
        return vae_digits.bits(mnist("test", 28))
    except DataUnavailable:
        pytest.skip("MNIST is not here")


def scrambled(model):
    """The same weights in another order."""
    other = deepcopy(model)
    g = torch.Generator().manual_seed(0)
    for parameter in other.parameters():
        parameter.data = parameter.flatten()[torch.randperm(parameter.numel(), generator=g)].reshape(parameter.shape)
    return other


# --- vae_fashion -----------------------------------------------------------------------------------------------------


def test_the_card_keeps_its_promise():
    metrics = checkpoints.verify("vae_fashion")["metrics"]
    fitted, prior = (metrics[f"Fréchet distance, z from the {source}, n=2000"] for source in ("fitted", "prior"))
    assert fitted["value"] / fitted["floor"] <= 30
    assert prior["value"] > 2 * fitted["value"]  # both are told, and they are not the same


def test_the_bound_of_the_card_is_the_shipped_networks(garments):
    metrics, model = checkpoints.verify("vae_fashion")["metrics"], vae_fashion.load()
    stated = metrics["ELBO, nats per test image of 28x28 in [-1, 1], a density"]["value"]
    some = replace(garments, pixels=garments.pixels[:1000], labels=garments.labels[:1000])
    reconstruction, kl = vae_fashion.bound(model.vae, some)
    assert abs(kl - metrics["KL, nats per test image"]["value"]) < 4
    assert abs(reconstruction - kl - stated) < 40  # pictures differ: 1000 of them, standard deviation about 250
    wrong = vae_fashion.bound(scrambled(model.vae), some)
    assert wrong[0] - wrong[1] < stated - 400


def test_fitted_latents_come_closer_than_the_priors(garments):
    model = vae_fashion.load()
    real = look(vae_fashion.pad_to_32(garments.images(slice(0, 400)))).features
    at = {
        s: feature_distance(look(vae_fashion.draw(model, 400, seed=5, source=s)).features, real)
        for s in ("prior", "fitted")
    }
    assert at["fitted"] < 7
    assert at["prior"] > 1.5 * at["fitted"]
    garbage = vae_fashion.FashionVAE(scrambled(model.vae), model.latents)
    assert feature_distance(look(vae_fashion.draw(garbage, 400, seed=5)).features, real) > 3 * at["fitted"]


def test_drawing_depends_on_the_seed_only():
    model = vae_fashion.load()
    for source in ("prior", "fitted"):
        found = vae_fashion.draw(model, 7, seed=3, source=source)
        assert found.shape == (7, 1, 32, 32)
        assert found.min() >= -1
        assert found.max() <= 1
        torch.testing.assert_close(found, vae_fashion.draw(model, 7, seed=3, source=source, batch=2), rtol=0, atol=1e-4)
        assert not torch.equal(found, vae_fashion.draw(model, 7, seed=4, source=source))
    assert vae_fashion.draw(model, 1).shape == (1, 1, 32, 32)
    root = model.latents.roots
    assert torch.equal(root, root.tril())
    assert (root.diagonal(dim1=1, dim2=2) > 0).all()


def made_up(n):
    return Report(n, 2.0, 1.0, 0.5, 0.9, (0.1, 0.9), 0.2, 0.3)


def test_a_tiny_training_goes_all_the_way(tmp_path, monkeypatch):
    """The whole recipe, a few steps of it, on grey shapes: what it stores can be loaded and drawn from."""
    monkeypatch.setattr(runtime, "assets_root", lambda: tmp_path)
    small = {split: grey_shapes(split, 28) for split in ("train", "test")}
    monkeypatch.setattr(vae_fashion, "fashion_mnist", lambda split, size=32: small[split])
    monkeypatch.setattr(vae_fashion, "COMPONENTS", 2)
    monkeypatch.setattr(vae_fashion, "ROUNDS", 1)
    monkeypatch.setattr(vae_fashion, "report", lambda images, train, test: made_up(len(images)))
    network = ConvVAEConfig(28, widths=(4, 4), hidden=0, latent=2)
    settings = network, FitConfig(steps=3, batch_size=8, clip_norm=None, ema=0.9)
    vae_fashion.train(tmp_path / "run", settings)
    model = vae_fashion.load()
    assert isinstance(model.vae, ConvVAE)
    assert isinstance(model.latents, GaussianMixture)
    assert vae_fashion.draw(model, 3).shape == (3, 1, 32, 32)
    card = checkpoints.verify("vae_fashion")
    assert card["metrics"]["Fréchet distance, z from the prior, n=2000"]["value"] == 2
    assert card["config"]["mixture"]["components"] == 2


# --- vae_digits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plane", "digits"])
def test_digits_bounds_are_those_of_the_card(digits, kind):
    metrics, model = checkpoints.verify("vae_digits")["metrics"], vae_digits.load(kind)
    found = vae_digits.exam(model, digits)
    assert found.value.mean().item() == pytest.approx(metrics[f"ELBO, {kind}, nats per test picture"]["value"], abs=0.3)
    assert found.kl.mean().item() == pytest.approx(metrics[f"KL, {kind}, nats per test picture"]["value"], abs=0.1)
    tight = metrics[f"bound of 100 draws, {kind}, nats per test picture"]["value"]
    assert found.value[: vae_digits.EXAM_PICTURES].mean().item() < tight
    assert found.kl.mean() > 2  # no collapse
    assert vae_digits.exam(scrambled(model), digits[:500]).value.mean() < tight - 50


def test_rate_and_distortion():
    """The ELBO is best at β = 1, the rate falls with β, and the mean/mean mistake (β = 196/8) silenced everything."""
    tensors, card = checkpoints.load("vae_digits")
    betas, rates, distortions = card["config"]["betas"], tensors["rates"].float(), tensors["distortions"].float()
    assert betas[-1] == 14 * 14 / vae_digits.NETWORKS["short"].latent
    assert (rates.mean(1).diff() < 0.05).all()
    assert (rates + distortions).mean(1).argmin() == betas.index(1.0)
    assert rates[-1].max() < 0.1
    torch.testing.assert_close(tensors["kl_of_each_latent"].float().sum(2), rates, rtol=0.02, atol=0.02)


def test_fifty_steps_again():
    """One point of the shipped curves, here: seed 0 after 50 steps."""
    try:
        sets = vae_digits.train_and_test("mnist", 28)
    except DataUnavailable:
        pytest.skip("MNIST is not here")
    if sets[0].name != "mnist":
        pytest.skip("MNIST is not here")
    tensors, _ = checkpoints.load("vae_digits")
    data = vae_digits.bits(sets[0], 14), vae_digits.bits(sets[1], 14)
    found = vae_digits.run("short", data, 0, steps=50, progress=False)
    assert found.scores[50] == pytest.approx(tensors["curves"][0, 0].item(), rel=0.05)
    silent = vae_digits.exam(vae_digits.network("short", 1), data[1][:500])
    assert -silent.value.mean() > 1.5 * found.scores[50]


def test_bits_of_both_sizes():
    images = grey_shapes("test", 28)
    large, small = vae_digits.bits(images), vae_digits.bits(images, 14)
    assert large.shape[1:] == (1, 28, 28)
    assert small.shape[1:] == (1, 14, 14)
    assert set(large.unique().tolist()) == set(small.unique().tolist()) == {0.0, 1.0}
