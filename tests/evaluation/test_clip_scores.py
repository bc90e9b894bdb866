"""Scores of pictures and sentences: by hand on small cases, and an exam of models that know all or nothing."""

import math

import pytest
import torch
import torch.nn.functional as F

from course_lib.data import shapes
from course_lib.data.shapes_scene import Scene, Thing, random_scenes
from course_lib.evaluation.clip_scores import above_shuffled, clip_score, retrieval_at_k, zero_shot
from course_lib.evaluation.shapes_exam import alternatives, exam, others
from course_lib.models.clip import CLIP, CLIPConfig

ANGLES = torch.tensor([0.0, 90.0, 120.0, 180.0])


def arrows(degrees):
    radians = degrees * math.pi / 180
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def test_the_three_scalings():
    image, text = arrows(torch.zeros(4)), arrows(ANGLES)
    cosine = torch.tensor([1.0, 0.0, -0.5, -1.0])
    assert torch.allclose(clip_score(image, text), cosine, atol=1e-6)
    assert torch.allclose(clip_score(image, text, "hessel"), torch.tensor([2.5, 0, 0, 0]), atol=1e-6)
    assert clip_score(image, text, "torchmetrics").item() == 0, "the mean, -.125, is cut off, not each pair"
    assert clip_score(image[:3], text[:3], "torchmetrics").item() == pytest.approx(100 * 0.5 / 3)


def test_zero_shot_picks_the_nearest_class():
    assert zero_shot(arrows(torch.tensor([10.0, 80.0, 170.0])), arrows(ANGLES)).tolist() == [0, 1, 3]


def test_retrieval_by_hand():
    image, text = arrows(torch.tensor([0.0, 50.0, 100.0])), arrows(torch.tensor([0.0, 95.0, 90.0]))
    # picture 1 (50) finds text 2 (90) before its own (95), picture 2 (100) text 1 (95); text 1 finds picture 2
    assert retrieval_at_k(image, text, 1) == pytest.approx((1 / 3, 2 / 3))
    assert retrieval_at_k(image, text, 2) == (1.0, 1.0)
    assert retrieval_at_k(image, text, 3) == (1.0, 1.0)
    same = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 1, 1]]).bool()
    assert retrieval_at_k(image, text, 1, same) == (1.0, 1.0)


def test_right_against_shuffled():
    image = arrows(torch.tensor([0.0, 90.0, 180.0]))
    text = arrows(torch.tensor([20.0, 170.0, 100.0]))
    assert above_shuffled(image, text) == pytest.approx(2 / 3)  # 90 is nearer to the next one's 100 than to its 170
    same = torch.eye(3, dtype=torch.bool)
    same[1, 2] = True
    assert above_shuffled(image, text, same=same) == 1
    assert above_shuffled(image, text, shift=2) == pytest.approx(1 / 3)


class Knowing(CLIP):
    """Embeds pictures and captions by what they mean: a random arrow for each meaning. `noise` spoils the pictures."""

    def __init__(self, scenes, noise=0.0):
        super().__init__(CLIPConfig(image_width=8, image_layers=1, text_width=8, text_layers=1))
        self.scenes, self.noise, self.seen = scenes, noise, 0
        self.arrows = {}

    def arrow(self, scene):
        seed = len(self.arrows)
        return self.arrows.setdefault(
            scene.canonical, F.normalize(torch.randn(64, generator=torch.Generator().manual_seed(seed)), dim=0)
        )

    def encode_image(self, images):
        found = torch.stack([self.arrow(spec) for spec in self.scenes.specs[self.seen : self.seen + len(images)]])
        self.seen += len(images)
        noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(self.seen))
        return F.normalize(found + self.noise * noise, dim=1)

    def encode_captions(self, captions):
        return torch.stack([self.arrow(shapes.parse_caption(text)) for text in captions])


@pytest.fixture(scope="module")
def scenes():
    return shapes.make(300, seed=5)


def test_who_knows_passes_the_exam_and_who_guesses_does_not(scenes):
    found = exam(Knowing(scenes), scenes)
    assert set(found.caption.values()) == {1.0}
    assert found.mean_caption == 1
    for objects in (1, 2):
        assert set(found.attributes[objects]) == {"size", "color", "shape", "place"}
        assert set(found.attributes[objects].values()) == {1.0}
    assert sum(found.n.values()) == 300
    lost = exam(Knowing(scenes, noise=1000.0), scenes)
    for objects, n in lost.n.items():
        assert lost.caption[objects] < 1 / 64 + 4 * (1 / 64 / n) ** 0.5
        chance = 1 / 7
        assert abs(lost.attributes[objects]["color"] - chance) < 4 * (chance * (1 - chance) / n) ** 0.5 + 1 / 7 / 7


def test_the_alternatives_of_a_scene():
    scene = Scene(Thing("small", "red", "ring"), "above", Thing("large", "blue", "star"))
    found = list(alternatives(scene))
    assert [name for name, _ in found] == ["size", "size", "color", "color", "shape", "shape", "place"]
    assert [len(options) for _, options in found] == [2, 2, 7, 7, 6, 6, 4]
    assert all(options.count(scene) == 1 for _, options in found)
    assert len(list(alternatives(Scene(Thing("small", "red", "ring"), "top")))) == 4


def test_the_other_captions_mean_something_else():
    specs = random_scenes(400, seed=3, kind="one")
    found = others(specs)
    assert found.shape == (400, 64)
    assert torch.equal(found[:, 0], torch.arange(400))
    for row in found[:50].tolist():
        assert len({specs[i].canonical for i in row}) == 64
    assert torch.equal(found, others(specs))


def test_equal_meanings():
    a, b = Thing("small", "red", "ring"), Thing("large", "blue", "star")
    assert Scene(a, "right of", b).canonical == Scene(b, "left of", a)
    assert Scene(a, "below", b).canonical == Scene(b, "above", a)
    assert Scene(a, "left of", b).canonical == Scene(a, "left of", b)
    assert Scene(a, "right").canonical == Scene(a, "right")
    assert Scene(Thing("small", "cyan", "circle"), "top").held_out
    assert Scene(a, "above", Thing("small", "red", "star")).held_out
    assert not Scene(a, "above", b).held_out
