"""Is the picture what was asked for: prompts kept apart, intervals that cover, the oracle's count and its floor."""

import math
from collections import Counter

import pytest
import torch
from scipy import stats

from course_lib.data import shapes
from course_lib.data.shapes_scene import OPPOSITE, Scene, Thing, random_scenes
from course_lib.evaluation.faithfulness import (
    Faithfulness,
    faithfulness,
    reserved,
    trained_scenes,
    unseen_prompts,
    wilson,
)


def test_about_a_tenth_of_the_meanings_is_reserved():
    meanings = {scene.canonical for scene in random_scenes(4000, seed=0)}
    share = sum(map(reserved, meanings)) / len(meanings)
    assert share == pytest.approx(0.1, abs=0.025)


def test_the_same_meaning_in_other_words_is_reserved_with_it():
    for scene in random_scenes(200, seed=1, kind="two"):
        turned = Scene(scene.second, OPPOSITE[scene.place], scene.first)
        assert reserved(scene) == reserved(turned)


def test_the_split_is_the_same_everywhere():
    """Pinned: should this change, no shipped text-to-image model would have its own exam any more."""
    assert sum(map(reserved, random_scenes(2000, seed=5))) == 153
    one = [Scene(Thing("small", color, shape), "left") for color in shapes.COLORS for shape in shapes.SHAPES]
    assert [k for k, scene in enumerate(one) if reserved(scene)] == [18, 22, 28, 30]


def test_training_and_exam_never_meet():
    trained = trained_scenes(1500, seed=0)
    assert len(trained) == 1500
    assert not any(scene.held_out or reserved(scene) for scene in trained)
    assert sum(scene.second is not None for scene in trained) == round(0.7 * 1500)
    assert {scene.second is None for scene in trained[:40]} == {True, False}, "mixed, not one kind after the other"
    exam, pairs = unseen_prompts(300, seed=0), unseen_prompts(300, seed=0, held_out=True)
    assert len(exam) == len(pairs) == 300
    assert all(reserved(scene) and not scene.held_out for scene in exam)
    assert all(scene.held_out for scene in pairs)
    assert not {scene.canonical for scene in trained} & {scene.canonical for scene in exam + pairs}


@pytest.mark.parametrize("kind", ["one", "two"])
def test_prompts_of_one_kind_and_again_the_same(kind):
    found = unseen_prompts(40, seed=3, kind=kind)
    assert all((scene.second is None) == (kind == "one") for scene in found)
    assert found == unseen_prompts(40, seed=3, kind=kind)
    assert found != unseen_prompts(40, seed=4, kind=kind)


def test_trained_scenes_repeat():
    assert trained_scenes(60, seed=2) == trained_scenes(60, seed=2)
    counts = Counter(trained_scenes(60, seed=2, two=0.0))
    assert all(scene.second is None for scene in counts)


# --- the interval ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (450, 500), (500, 500), (1, 1)])
def test_the_interval_solves_its_equation(right, n):
    """Its ends are the shares from which `right` is 1.96 standard deviations away."""
    for end in wilson(right, n):
        assert 0 - 1e-9 <= end <= 1 + 1e-9
        assert (right / n - end) ** 2 == pytest.approx(1.96**2 * end * (1 - end) / n, abs=1e-12)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.97])
def test_it_covers_the_truth_in_about_95_of_100_cases(share):
    n = 500
    chance = stats.binom.pmf(range(n + 1), n, share)
    covered = sum(p for k, p in enumerate(chance) if wilson(k, n)[0] <= share <= wilson(k, n)[1])
    assert 0.93 < covered < 0.97


# --- the count -------------------------------------------------------------------------------------------------------


def test_true_pictures_are_right_and_shuffled_ones_are_not():
    scenes = unseen_prompts(60, seed=0)
    images = shapes.render(scenes, seed=1).images
    found = faithfulness(images, scenes)
    assert found.share > 0.95
    assert found.shuffled <= 4
    assert all(share > 0.95 for share in found.words.values())
    low, high = found.interval
    assert low < found.share <= high + 1e-9
    entry = found.entry()
    assert entry["n"] == 60
    assert entry["value"] == round(found.share, 4)
    assert entry["floor"] == round(found.shuffled / 60, 4)
    assert "of 60 all right" in str(found)
    wrong = faithfulness(images.roll(1, dims=0), scenes)
    assert wrong.share < 0.1


def test_noise_is_never_right():
    scenes = unseen_prompts(20, seed=0)
    g = torch.Generator().manual_seed(0)
    assert faithfulness(torch.rand(20, 3, 32, 32, generator=g) * 2 - 1, scenes).right == 0


def test_one_wrong_word_is_enough():
    """Half of the pictures get another color: they are wrong as a whole, and right in every other word."""
    scenes = unseen_prompts(40, seed=2, kind="one")
    other = {color: shapes.COLORS[(k + 1) % 7] for k, color in enumerate(shapes.COLORS)}
    drawn = [
        Scene(Thing(s.first.size, other[s.first.color], s.first.shape), s.place) if k % 2 else s
        for k, s in enumerate(scenes)
    ]
    found = faithfulness(shapes.render(drawn, seed=3).images, scenes)
    assert found.share == pytest.approx(0.5, abs=0.03)
    assert found.words["color"] == pytest.approx(0.5, abs=0.03)
    assert min(share for name, share in found.words.items() if name not in ("color", "correct")) > 0.95


def test_words_of_a_result():
    assert Faithfulness(4, 3, 1, {}).share == 0.75


@pytest.mark.parametrize("n", range(1, 400, 7))
def test_the_ends_of_an_interval_are_shares(n):
    """None and all right: rounding must not push an end below 0 (which prints as -0.0%) or above 1."""
    assert math.copysign(1, wilson(0, n)[0]) == 1
    assert wilson(0, n)[0] == pytest.approx(0, abs=1e-12)
    assert 1 - 1e-12 <= wilson(n, n)[1] <= 1
