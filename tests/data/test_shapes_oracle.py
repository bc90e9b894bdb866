"""The oracle is right about clean and noisy scenes, refuses wrong prompts, and takes nothing else for a scene."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from course_lib.data import shapes
from course_lib.data.shapes_scene import ALL_THINGS
from course_lib.runtime import generator

N = 2000


def share(right):
    return right.double().mean().item()


def noisy(images, sigma, seed):
    return images + sigma * torch.randn(images.shape, generator=generator(seed))


@pytest.fixture(scope="module")
def scenes():
    return shapes.make(N, seed=1234)


@pytest.fixture(scope="module")
def reading(scenes):
    return shapes.read(scenes.images)


@pytest.fixture(scope="module")
def noisy_reading(scenes):
    return shapes.read(noisy(scenes.images, 0.1, seed=99))


def other(word, words, rng):
    rest = [w for w in words if w != word]
    return rest[int(torch.randint(len(rest), (), generator=rng))]


ATTRIBUTES = {"shape": shapes.SHAPES, "color": shapes.COLORS, "size": shapes.SIZES}


def altered(scene, attribute, which, rng):
    """The scene with one word changed: an attribute of one object, or the place."""
    if attribute == "place":
        words = shapes.POSITIONS if scene.second is None else shapes.RELATIONS
        return dataclasses.replace(scene, place=other(scene.place, words, rng))
    name = "first" if which == 0 or scene.second is None else "second"
    thing = getattr(scene, name)
    word = other(getattr(thing, attribute), ATTRIBUTES[attribute], rng)
    return dataclasses.replace(scene, **{name: dataclasses.replace(thing, **{attribute: word})})


def test_clean_scenes_obey_their_captions(scenes, reading):
    assert share(shapes.score(reading, scenes.captions).correct) >= 0.995


def test_noisy_scenes_obey_their_captions(scenes, noisy_reading):
    assert share(shapes.score(noisy_reading, scenes.captions).correct) >= 0.97


@pytest.mark.parametrize("attribute", ["shape", "color", "size", "place"])
@pytest.mark.parametrize("which", [0, 1])
def test_one_wrong_word_is_noticed(scenes, reading, noisy_reading, attribute, which):
    rng = generator(5 + which)
    wrong = [altered(scene, attribute, which, rng) for scene in scenes.specs]
    for seen in (reading, noisy_reading):
        score = shapes.score(seen, wrong)
        assert share(score.correct) <= 0.005
        # The oracle also says which word is wrong, and holds nothing against the others.
        for name in ("shape", "color", "size", "place"):
            right = getattr(score, name)
            if name == "place":
                assert share(right) <= 0.005 if attribute == "place" else share(right) >= 0.97
            elif name != attribute and attribute != "place":
                assert share(right[score.asked]) >= 0.95
        if attribute in ATTRIBUTES and which == 1:
            two = score.asked[:, 1]
            assert share(getattr(score, attribute)[two].all(1)) <= 0.005


def test_other_prompts_are_refused(scenes, reading):
    prompts = shapes.random_scenes(N, seed=777)
    same = torch.tensor([a == b for a, b in zip(prompts, scenes.specs, strict=True)])
    assert share(shapes.score(reading, prompts).correct[~same]) <= 0.005


def test_swapped_objects_are_refused_and_the_inverse_relation_is_not():
    scenes = shapes.make(500, seed=8, kind="two")
    seen = shapes.read(scenes.images)
    swapped = [shapes.Scene(s.second, s.place, s.first) for s in scenes.specs]
    assert share(shapes.score(seen, swapped).correct) <= 0.005
    inverse = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    turned = [shapes.Scene(s.second, inverse[s.place], s.first) for s in scenes.specs]
    assert share(shapes.score(seen, turned).correct) >= 0.995


def test_two_objects_do_not_satisfy_a_prompt_for_one_nor_the_reverse():
    two, one = shapes.make(300, seed=11, kind="two"), shapes.make(300, seed=12, kind="one")
    seen_two, seen_one = shapes.read(two.images), shapes.read(one.images)
    for place in shapes.POSITIONS:
        for thing in ("first", "second"):
            wanted = [shapes.Scene(getattr(s, thing), place) for s in two.specs]
            assert not shapes.score(seen_two, wanted).correct.any()
    for place in shapes.RELATIONS:
        wanted = [shapes.Scene(s.first, place, ALL_THINGS[i % len(ALL_THINGS)]) for i, s in enumerate(one.specs)]
        assert not shapes.score(seen_one, wanted).correct.any()
        twice = [shapes.Scene(s.first, place, s.first) for s in one.specs]
        assert not shapes.score(seen_one, twice).correct.any()


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_two_objects_of_one_color(sigma):
    specs = []
    for scene in shapes.random_scenes(300, seed=21, kind="two"):
        second = dataclasses.replace(scene.second, color=scene.first.color)
        specs.append(dataclasses.replace(scene, second=second))
    images = noisy(shapes.render(specs, seed=3).images, sigma, seed=4)
    assert share(shapes.score(images, specs).correct) >= 0.97


@pytest.mark.parametrize("clamped", [False, True])
@pytest.mark.parametrize("level", [0.0, -0.9])
def test_noise_is_no_scene(clamped, level):
    prompts = shapes.prompts(80, seed=31)
    rng = generator(32)
    for sigma in (0.1, 0.2, 0.5, 1.0, 3.0):
        images = level + sigma * torch.randn(80, 3, 32, 32, generator=rng)
        seen = shapes.read(images.clamp(-1, 1) if clamped else images)
        assert not seen.clean.any()
        assert not shapes.score(seen, prompts).correct.any()


def test_uniform_noise_is_no_scene():
    assert not shapes.read(torch.rand(100, 3, 32, 32, generator=generator(33)) * 2 - 1).clean.any()


def test_a_blank_picture_is_no_scene():
    levels = [(v, v, v) for v in (-1.0, -0.9, -0.5, 0.0, 0.5, 1.0)]
    colors = torch.tensor([*shapes.PALETTE.values(), *levels])
    score = shapes.score(colors[:, :, None, None].expand(-1, -1, 32, 32), shapes.prompts(len(colors), seed=34))
    assert not score.clean.any()
    assert not score.correct.any()


def test_stripes_and_halves_are_no_scene():
    rng = generator(35)
    color = torch.tensor(list(shapes.PALETTE.values()))[torch.randint(7, (80,), generator=rng)][:, :, None, None]
    wave = torch.rand(80, 1, 1, 1, generator=rng) * 2 + 0.1
    line = torch.arange(32.0).expand(80, 1, 32, 32)
    for field in (line, line.mT, line + line.mT):
        assert not shapes.read(torch.where((field * wave).sin() > 0, color, torch.tensor(-0.95))).clean.any()
        assert not shapes.read(torch.where(field > 20, color, torch.tensor(-0.95))).clean.any()


@pytest.mark.parametrize("sigma", [1.5, 2, 3, 4, 5])
def test_a_soft_blob_is_no_circle(sigma):
    rng = generator(36)
    x, y = torch.rand(2, 80, 1, 1, 1, generator=rng) * 20 + 6
    line = torch.arange(32.0)
    bump = (-((line - x) ** 2 + (line[:, None] - y) ** 2) / (2 * sigma**2)).exp()
    color = torch.tensor(list(shapes.PALETTE.values()))[torch.randint(7, (80,), generator=rng)][:, :, None, None]
    assert not shapes.read(-0.95 + bump * (color + 0.95)).clean.any()


def test_smooth_random_color_is_no_scene():
    coarse = torch.randn(100, 3, 4, 4, generator=generator(37))
    for level in (0.0, -0.9):
        assert not shapes.read(level + F.interpolate(coarse, size=32, mode="bilinear")).clean.any()


def test_something_extra_is_noticed(scenes):
    images = scenes.images[:300].clone()
    images[:, :, 1:6, 1:6] = 0.5
    assert share(shapes.score(images, scenes.specs[:300]).correct) <= 0.02


def test_a_slightly_blurred_scene_still_counts():
    scenes = shapes.make(300, seed=41)
    kernel = torch.tensor([[1.0, 6.0, 1.0]]) / 8
    kernel = (kernel.T @ kernel).expand(3, 1, 3, 3)
    images = F.conv2d(F.pad(scenes.images, (1,) * 4, mode="replicate"), kernel, groups=3)
    assert share(shapes.score(images, scenes.captions).correct) >= 0.97


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_float_type(scenes, dtype):
    assert share(shapes.score(scenes.images[:100].to(dtype), scenes.captions[:100]).correct) >= 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_pictures_on_a_gpu(scenes):
    score = shapes.score(scenes.images[:100].cuda(), scenes.captions[:100])
    assert score.correct.device.type == "cpu"
    assert share(score.correct) >= 0.99


def test_pictures_that_are_not_finite_are_no_scene(scenes):
    images = scenes.images[:3].clone()
    images[0, 0, 0, 0], images[1, 1, 5, 5] = float("nan"), float("inf")
    assert shapes.score(images, scenes.captions[:3]).correct.tolist() == [False, False, True]


def test_the_answer_does_not_depend_on_the_batch(scenes, reading):
    alone = shapes.read(scenes.images[7:8])
    assert alone.clean[0] == reading.clean[7]
    assert alone.shape[0].tolist() == reading.shape[7].tolist()


def test_no_pictures_at_all():
    score = shapes.score(torch.zeros(0, 3, 32, 32), [])
    assert len(score) == 0
    assert score.correct.shape == (0,)


def test_rates_name_every_attribute(scenes, reading):
    rates = shapes.score(reading, scenes.captions).rates()
    assert list(rates) == ["shape", "color", "size", "place", "count", "clean", "correct"]
    assert all(rate >= 0.995 for rate in rates.values())
