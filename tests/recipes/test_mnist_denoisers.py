"""Three denoisers of digits: the shipped networks do what their card says, and the U-Net is best."""

from itertools import pairwise

import pytest
import torch

from course_lib import checkpoints, recipes
from course_lib.data import mnist
from course_lib.data.archives import DataUnavailable
from course_lib.pixels import from_uint8
from course_lib.recipes import mnist_denoisers
from course_lib.recipes._exam import exam
from course_lib.recipes.mnist_denoisers import (
    CONFIG,
    EXAM_PICTURES,
    NETWORKS,
    SCHEDULE,
    SHOWN,
    T,
    draw,
    load,
    network,
    noise_level,
    sixteen_greys,
    way,
)
from course_lib.training import FitConfig


@pytest.fixture(scope="module")
def shipped():
    return checkpoints.load("mnist_denoisers")


@pytest.fixture(scope="module")
def test_set():
    try:
        return mnist("test", 28)
    except DataUnavailable:
        pytest.skip("MNIST is not here")


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


def metric(card, name, what="value"):
    (found,) = (entry for key, entry in card["metrics"].items() if key.startswith(name))
    return found[what]


def test_the_u_net_is_best(shipped):
    """F15: in the exam, in every fifth of it, and in the Fréchet distance; all are far from the floor."""
    tensors, card = shipped
    for name in ("loss on held-out pictures", "Fréchet distance"):
        two_conv, my_unet, ddpm_unet = (metric(card, f"{name}, {net}") for net in NETWORKS)
        assert ddpm_unet < my_unet < two_conv
    assert metric(card, "Fréchet distance, ddpm_unet") < 0.2 * metric(card, "Fréchet distance, my_unet")
    assert metric(card, "Fréchet distance, ddpm_unet") > metric(card, "Fréchet distance, ddpm_unet", "floor") > 0
    assert (tensors["fifths.ddpm_unet"] < tensors["fifths.my_unet"]).all()
    assert (tensors["fifths.my_unet"] < tensors["fifths.two_conv"]).all()
    sizes = [sum(p.numel() for p in network(name).parameters() if p.requires_grad) for name in NETWORKS]
    assert sizes == [53, 506_852, 267_313]
    assert metric(card, "the judge's test accuracy") > 0.98


def test_the_card_fits_the_recipe(shipped):
    tensors, card = shipped
    assert recipes.load(card["recipe"]) is mnist_denoisers
    assert card["config"]["networks"] == list(NETWORKS)
    assert card["config"]["training"]["steps"] == CONFIG.steps == len(tensors["losses.ddpm_unet"])
    assert tuple(tensors["shown"].tolist()) == SHOWN
    assert SHOWN[0] == T
    assert SHOWN[-1] == 0
    for name in NETWORKS:
        assert tensors[f"fifths.{name}"].float().mean().item() == pytest.approx(
            metric(card, f"loss on held-out pictures, {name}"), rel=4e-3
        )


@pytest.mark.parametrize("name", NETWORKS)
def test_the_shipped_weights_pass_their_exam(shipped, test_set, name):
    """In half precision on disk, with float32 here: within 2% of what the card states."""
    losses = exam(load(name), test_set.images(slice(0, EXAM_PICTURES)), SCHEDULE)
    assert losses.mean().item() == pytest.approx(metric(shipped[1], f"loss on held-out pictures, {name}"), rel=0.02)


def test_the_sheet_looks_like_digits(shipped, test_set):
    """F10: mean and spread of the U-Net's 64 samples near the data's; MyUNet's ground is anything."""
    tensors, _ = shipped
    real = test_set.images(slice(0, 1000))
    sheet = from_uint8(tensors["sheet.ddpm_unet"])
    assert sheet.shape == (64, 1, 28, 28)
    assert sheet.mean().item() == pytest.approx(real.mean().item(), abs=0.08)
    assert sheet.std().item() == pytest.approx(real.std().item(), abs=0.06)
    means = {name: from_uint8(tensors[f"sheet.{name}"]).mean(dim=(1, 2, 3)) for name in NETWORKS}
    assert means["my_unet"].std() > 5 * means["ddpm_unet"].std()


def test_the_noise_falls_along_the_columns(shipped):
    """F11: as the theory has it, sample by sample in the stored pictures too; the last column is the sheet."""
    tensors, _ = shipped
    noise, grid = tensors["noise.ddpm_unet"].float(), tensors["grid.ddpm_unet"]
    theory = torch.tensor([SCHEDULE.noise_std[t - 1] if t else 0.0 for t in SHOWN])
    assert (noise - theory).abs().max() < 0.04
    assert (noise[6:].diff() < 0).all()
    assert grid.shape == (16, 16, 1, 28, 28)
    assert torch.equal(grid[:, -1], tensors["sheet.ddpm_unet"][:16])
    for row in from_uint8(grid):
        levels = [noise_level(x[None]) for x in row]
        assert all(a > b for a, b in pairwise(levels[9:]))


def test_coarse_shape_first(test_set):
    """E17 on images: on the way back the guess has its coarse part before its detail."""
    from course_lib.diffusion import ddim

    begin = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(7))
    guesses = {s.t + 1: s.x_start for s in ddim(load("ddpm_unet"), SCHEDULE, begin.shape, 20, x=begin, clip=(-1, 1))}

    def missing(t):
        found = []
        for coarse in (True, False):
            parts = []
            for x in (guesses[t], guesses[0]):
                rough = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(x, 7), scale_factor=7)
                parts.append(rough if coarse else x - rough)
            found.append(((parts[0] - parts[1]).square().mean() / parts[1].var()).item())
        return found

    for t in (350, 250, 200, 150):
        coarse, detail = missing(t)
        assert coarse < 0.6 * detail


def test_without_fresh_noise_all_samples_are_one():
    """E13 on images: variety falls to a fraction; with the variance for its root it falls too."""
    from course_lib.diffusion import ddpm_step, timesteps

    model, visited = load("ddpm_unet"), timesteps(T, 50)

    def variety(power, share):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(8, 1, 28, 28, generator=g)
        for t, t_prev in zip(visited, [*visited[1:], -1], strict=True):
            bar, bar_prev = SCHEDULE.alpha_bars[t], SCHEDULE.alpha_bars[t_prev] if t_prev >= 0 else 1.0
            prediction = model(x, torch.full((8,), t))
            mean, _ = ddpm_step(SCHEDULE, x, prediction, t, t_prev, torch.zeros_like(x), clip=(-1, 1))
            spread = ((1 - bar_prev) / (1 - bar) * (1 - bar / bar_prev)) ** power
            x = mean + share * float(spread) * torch.randn(x.shape, generator=g)
        return x.std(dim=0).mean().item()

    right = variety(0.5, 1)
    assert variety(0.5, 0) < 0.4 * right
    assert variety(1.0, 1) < 0.9 * right


def test_sixteen_greys():
    x = torch.linspace(-1.2, 1.2, 500)
    found = sixteen_greys(x)
    assert found.unique().tolist() == list(range(0, 256, 17))
    assert (from_uint8(found) - x.clamp(-1, 1)).abs().max() <= 1 / 15 + 0.005


def test_the_way_and_the_samples():
    model = network("two_conv").eval()
    sheet, grid, noise = way(model)
    assert sheet.shape == (64, 1, 28, 28)
    assert grid.shape == (16, 16, 1, 28, 28)
    assert noise[0] == pytest.approx(1, abs=0.03)
    assert torch.equal(grid[:, -1], sheet[:16])
    assert draw(model, 3, steps=2, batch=2).shape == (3, 1, 28, 28)


@pytest.mark.slow
def test_it_trains_measures_and_stores(test_set, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_folder", lambda folder: tmp_path)
    monkeypatch.setattr(mnist_denoisers, "NETWORKS", {"two_conv": NETWORKS["two_conv"]})
    monkeypatch.setattr(mnist_denoisers, "JUDGE", FitConfig(steps=2, batch_size=32))
    mnist_denoisers.train(tmp_path / "runs", FitConfig(steps=4, batch_size=16, evaluate_every=2), measured=200)
    assert checkpoints.verify("mnist_denoisers", folder=tmp_path)["config"]["networks"] == ["two_conv"]
