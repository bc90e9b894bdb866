"""The ring learned by several methods: what is shipped says what the card says, and training is what it claims."""

import copy

import pytest
import torch

from course_lib import checkpoints
from course_lib.data import ring
from course_lib.recipes import ring as recipe

SHIPPED = tuple(method for method in recipe.METHODS)


@pytest.fixture(scope="module")
def shipped():
    return checkpoints.load("ring")


@pytest.fixture(autouse=True)
def _cpu(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


def test_plain_gan_loses_modes_and_the_others_do_not(shipped):
    tensors, _ = shipped
    assert tensors["modes.gan"].tolist() == [8] * 5
    assert tensors["modes.ddpm"].tolist() == [8] * 5
    assert tensors["modes.plain_gan"].max() < 8
    assert tensors["near.gan"].min() > 0.5
    assert tensors["near.plain_gan"].max() < 0.5


@pytest.mark.parametrize("method", SHIPPED)
def test_shipped_points_say_what_the_card_says(shipped, method):
    tensors, card = shipped
    label = recipe.METHODS[method].label
    modes, near = tensors[f"modes.{method}"], tensors[f"near.{method}"].float()
    value = card["metrics"][f"near a mode, {label}, n={recipe.SAMPLES}"]["value"]
    assert near.mean().item() == pytest.approx(value, abs=1e-3)
    full = card["metrics"][f"seeds with all modes, {label}"]["value"]
    assert (modes == 8).float().mean().item() == pytest.approx(full, abs=0.01)
    points = tensors[f"samples.{method}"].float()
    assert points.shape == (5, recipe.KEPT, 2)
    for seed in range(5):  # 500 of the 2,000 points that were counted
        assert ring.count_modes(points[seed]).near == pytest.approx(near[seed].item(), abs=0.09)


@pytest.mark.parametrize("method", SHIPPED)
def test_shipped_network_draws_the_shipped_points(shipped, method):
    """The weights were rounded to half precision after the points were drawn."""
    tensors, _ = shipped
    points = recipe.draw(method, recipe.load(method))
    assert points.shape == (recipe.SAMPLES, 2)
    assert torch.equal(points, recipe.draw(method, recipe.load(method)))
    assert ring.count_modes(points).near == pytest.approx(tensors[f"near.{method}"][0].item(), abs=0.05)
    if method in ("gan", "ddpm"):
        assert ring.count_modes(points).modes == 8
        scrambled = copy.deepcopy(recipe.load(method))
        generator = torch.Generator().manual_seed(0)
        for p in scrambled.parameters():
            p.copy_(p.flatten()[torch.randperm(p.numel(), generator=generator)].reshape(p.shape))
        assert ring.count_modes(recipe.draw(method, scrambled)).near < 0.3, "other weights fail this check"


@pytest.mark.parametrize("method", SHIPPED)
def test_a_short_run_repeats_itself(method):
    one, two, other = (recipe.run(method, seed, steps=3, progress=False) for seed in (0, 0, 1))
    assert torch.equal(one.losses, two.losses)
    assert not torch.equal(one.losses, other.losses)
    assert torch.equal(recipe.draw(method, one.best, 10), recipe.draw(method, two.best, 10))
    assert recipe.draw(method, one.best, 1).shape == (1, 2)


def test_everyone_learns_from_the_ring():
    points = recipe.points()
    assert points.shape == (recipe.POINTS, 2)
    assert ring.count_modes(points).modes == 8


def test_the_cure_works_in_a_fraction_of_the_time():
    """What lesson 11 trains live."""
    found = recipe.run("gan", 0, steps=400, progress=False)
    assert ring.count_modes(recipe.draw("gan", found.best)).modes == 8
