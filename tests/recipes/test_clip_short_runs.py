"""The short trainings of lesson 13: what they see, what they change, and what the shipped curves say."""

import math
from dataclasses import replace

import pytest
import torch

from course_lib import checkpoints
from course_lib.data import shapes
from course_lib.models.clip import clip_loss
from course_lib.recipes import clip_short_runs as runs
from course_lib.recipes.clip_short_runs import CAPTIONS, CONFIG, VARIANTS, Objective, Pictures, mistakes, network
from course_lib.training import Draws


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


@pytest.fixture(scope="module")
def data():
    return runs.pictures(900, 0, trained_on=True), runs.pictures(300, 10**6)


def test_pictures_and_captions_belong_together(data):
    train_set, exam = data
    assert train_set.images.shape[1:] == (3, 16, 16)
    assert not train_set.held_out.any()
    assert len(train_set) < 900
    names = {f"a {color} {shape}" for color, shape in shapes.HELD_OUT}
    assert {CAPTIONS[k] for k in exam.caption[exam.held_out].tolist()} == names
    assert not names & {CAPTIONS[k] for k in train_set.caption.tolist()}
    for image, k in zip(exam.images[:60], exam.caption[:60].tolist(), strict=True):
        off_ground = (image - image[:, :1, :1]).abs().sum(dim=0).flatten().argmax()
        pixel = image.flatten(1)[:, off_ground]  # the one least like the corner lies on the object
        nearest = min(shapes.PALETTE, key=lambda color: math.dist(shapes.PALETTE[color], pixel.tolist()))
        assert nearest == CAPTIONS[k].split()[1]
    assert torch.equal(runs.pictures(40, 3).images, runs.pictures(40, 3).images)


def test_each_variant_changes_one_thing(data):
    model, (train_set, _) = network(), data
    images, caption = train_set.images[:32], train_set.caption[:32]
    draws = Draws(0, 0, 32, slice(0, 32))
    found = {variant: Objective(variant)(model, (images, caption), draws).item() for variant in VARIANTS}
    with torch.no_grad():
        u, v = model.encode_image(images), model.encode_captions([CAPTIONS[k] for k in caption.tolist()])
    same = caption[:, None] == caption
    assert found["both_ways"] == pytest.approx(clip_loss(u, v, model.scale, same).item(), rel=1e-4)
    assert found["scale_1"] == pytest.approx(clip_loss(u, v, 1.0, same).item(), rel=1e-4)
    logs = (model.scale * u @ v.T).log_softmax(dim=1)
    one_way = -torch.stack([row[flags].mean() for row, flags in zip(logs, same, strict=True)]).mean()
    assert found["one_way"] == pytest.approx(one_way.item(), rel=1e-4)
    with pytest.raises(ValueError, match="both_ways, scale_1, one_way"):
        Objective("backwards")


def test_an_untrained_one_guesses(data):
    assert mistakes(network(), data[1]) > 0.9
    assert torch.equal(network(1).image.project.weight, network(1).image.project.weight)
    assert not torch.equal(network(1).image.project.weight, network(2).image.project.weight)


def test_a_short_training_connects_words_and_pictures(data, monkeypatch):
    """From ln N downwards; after some steps colours are known, and a batch's captions are found."""
    monkeypatch.setattr(runs, "CONFIG", replace(CONFIG, warmup=5, evaluate_every=0))
    found = runs.run("both_ways", 0, data, steps=30, progress=False)
    assert found.losses[0] > math.log(64) - 0.3
    assert found.losses[-5:].mean() < math.log(64) - 1.2
    exam = data[1]
    seen = Pictures(*(part[~exam.held_out][:64] for part in (exam.images, exam.caption, exam.held_out)))
    chosen = runs.answers(found.best, seen)
    assert (chosen // 6 == seen.caption // 6).float().mean() > 0.7, "colours, of which there are seven"
    with torch.no_grad():
        u, v = found.best.encode_image(seen.images), found.best.encode_captions([CAPTIONS[k] for k in seen.caption])
    same = seen.caption[:, None] == seen.caption
    hit = same[torch.arange(64), (u @ v.T).argmax(dim=1)].float().mean()
    assert hit > 3 * same.float().mean(), "far above guessing"


def test_what_the_card_says_is_what_is_shipped():
    tensors, card = checkpoints.load("clip_short_runs")
    assert card["recipe"] == "clip_short_runs"
    assert tensors["steps"].tolist() == [20, 40, 60, 80, 100]
    assert card["config"]["training"]["steps"] == CONFIG.steps == 100
    for variant in VARIANTS:
        scores = tensors[f"scores.{variant}"]
        assert scores.shape == (5 if variant == "both_ways" else 3, 5)
        entry = card["metrics"][f"share of wrong captions out of 42, {variant}"]
        assert entry["value"] == pytest.approx(scores[:, -1].mean().item(), abs=1e-4)
        assert entry["floor"] == pytest.approx(41 / 42, abs=1e-4)
    both = tensors["scores.both_ways"]
    assert (both[:, -1] < 0.5).all()
    assert (tensors["scores.scale_1"][:, -1] > both[:3, -1]).all(), "without a scale each seed is worse"
