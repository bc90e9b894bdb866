"""The CLIPs: what they are trained on, and that the shipped ones can do what their cards say."""

from dataclasses import replace

import pytest
import torch

from course_lib import checkpoints, recipes
from course_lib.data import fashion_mnist, shapes
from course_lib.data.archives import DataUnavailable
from course_lib.data.fashion_captions import UNSEEN_FRAMES, plain_looks
from course_lib.data.shapes_scene import OPPOSITE, POSITIONS, Scene, random_scenes
from course_lib.evaluation.shapes_exam import exam
from course_lib.recipes import clip_fashion, clip_shapes
from course_lib.training import Draws


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


def difference(a: Scene, b: Scene) -> int:
    """How many words differ."""
    things = [(one, two) for one, two in zip(a.things, b.things, strict=True)]
    words = [getattr(one, w) != getattr(two, w) for one, two in things for w in ("size", "color", "shape")]
    return sum(words) + (a.place != b.place)


def words(scene: Scene) -> list[str]:
    """The words of all objects, sorted."""
    return sorted(word for thing in scene.things for word in str(thing).split())


def test_families_differ_in_little():
    scenes = clip_shapes.training_scenes(300)
    assert len(scenes) == 1200
    assert not any(scene.held_out for scene in scenes), "pairs of HELD_OUT are kept back"
    two = [scene.second is not None for scene in scenes[::4]]
    assert 0.3 < sum(two) / 300 < 0.6
    for k in range(0, 1200, 4):
        base, *near = scenes[k : k + 4]
        assert all(difference(base, other) <= 2 for other in near)
    for k in range(0, 1200, 4):
        base, _, opposite, exchanged = scenes[k : k + 4]
        if base.second is not None:
            assert opposite == replace(base, place=OPPOSITE[base.place])
            assert opposite.canonical != base.canonical
            assert exchanged.place == base.place
            assert words(exchanged) == words(base), "only who is what differs"
    changed = [other.canonical != scenes[k].canonical for k in range(0, 1200, 4) for other in scenes[k + 1 : k + 4]]
    assert sum(changed) / len(changed) > 0.7
    assert scenes == clip_shapes.training_scenes(300)
    assert scenes != clip_shapes.training_scenes(300, seed=1)


def test_the_pairs_of_a_batch():
    scenes = clip_shapes.training_scenes(20)
    pairs = clip_shapes.Pairs(scenes)
    pixels, ids, meaning = pairs(torch.tensor([3, 7]))
    assert pixels.shape == (2, 4, 3, 32, 32)
    assert ids.shape == (2, 4, 5, 64)
    texts = shapes.wordings(scenes[13])
    assert clip_shapes.ByteTokenizer(64).decode(ids[0, 1].long()) == list(texts)
    for i in range(8):
        for j in range(8):
            a, b = (scenes[4 * (3, 7)[k // 4] + k % 4] for k in (i, j))
            assert (meaning.flatten()[i] == meaning.flatten()[j]).item() is (a.canonical == b.canonical)


def test_a_batch_of_families_gives_a_loss():
    pairs = clip_shapes.Pairs(clip_shapes.training_scenes(8))
    model = clip_shapes.new()
    values = [clip_shapes.loss(model, pairs(torch.arange(8)), Draws(0, step, 8, slice(0, 8))) for step in (0, 0, 1)]
    assert values[0] == values[1], "keyed by seed and step"
    assert values[0] != values[2], "other wordings"
    assert 3 < values[0] < 4.5  # ln 32 = 3.47 for a model that knows nothing


def test_dressed_garments():
    n = 3000
    garment = torch.arange(n) % 10
    looks = plain_looks(torch.zeros(n, 1, 28, 28), garment)
    found, shift = clip_fashion.dressed(looks, Draws(0, 0, n, slice(0, n)))
    assert 0.3 < found.small.float().mean() < 0.4
    assert (found.place[found.small == 0] == POSITIONS.index("center")).all()
    assert torch.bincount(found.place[found.small == 1], minlength=5).min() > 100
    assert set(garment[found.mirrored == 1].tolist()) == {5, 7, 9}
    assert shift[found.small == 0].abs().max() == 2
    assert shift[found.small == 1].abs().max() == 1
    assert torch.equal(found.garment, garment)


def metric(card, *words):
    """The only entry of the card whose name has all these words."""
    (found,) = (entry for name, entry in card["metrics"].items() if all(word in name for word in words))
    return found["value"]


@pytest.fixture(scope="module")
def shipped_shapes():
    return checkpoints.load(clip_shapes.NAME)


def test_the_shapes_card(shipped_shapes):
    """What the course promises of this CLIP, on scenes it never saw."""
    _, card = shipped_shapes
    assert recipes.load(card["recipe"]) is clip_shapes
    for word in ("size", "color", "shape", "place"):
        assert metric(card, f"{word}, one object (") >= 0.97
    assert metric(card, "caption among 64, one object (") >= 0.90
    assert metric(card, "caption among 64, two objects (") >= 0.75
    assert metric(card, "caption among 64, one object, pairs never") >= 0.80
    assert metric(card, "above a shuffled") >= 0.99


def test_the_shipped_clip_passes_its_exam():
    """On 400 scenes of its own seed; with the last layer of its picture encoder scrambled it fails."""
    model = clip_shapes.load()
    assert model.frozen
    seen, held = clip_shapes.unseen_scenes(400, seed=77)
    assert not any(spec.held_out for spec in seen.specs)
    assert all(spec.held_out for spec in held.specs)
    found = exam(model, seen)
    assert min(found.attributes[1].values()) >= 0.95
    assert found.caption[1] >= 0.88
    assert found.caption[2] >= 0.72
    scrambled = clip_shapes.new().freeze()
    scrambled.load_state_dict(model.state_dict())
    with torch.no_grad():
        weight = scrambled.image.project.weight
        order = torch.randperm(weight.numel(), generator=torch.Generator().manual_seed(0))
        weight.copy_(weight.flatten()[order].view_as(weight))
    assert exam(scrambled, seen).mean_caption < 0.2


@pytest.fixture(scope="module")
def test_set():
    try:
        return fashion_mnist("test", 28)
    except DataUnavailable:
        pytest.skip("Fashion-MNIST is not here")


def test_the_fashion_card():
    _, card = checkpoints.load(clip_fashion.NAME)
    assert recipes.load(card["recipe"]) is clip_fashion
    assert metric(card, "garment, mean over 13 wordings trained on") >= 0.88
    assert metric(card, "garment, mean over 5 wordings never trained on") >= 0.80
    assert metric(card, "above a shuffled") >= 0.99


def test_the_shipped_fashion_clip_names_garments(test_set):
    model = clip_fashion.load()
    some = replace(test_set, pixels=test_set.pixels[:1000], labels=test_set.labels[:1000])
    embedded = clip_fashion.embedded(model, some)
    assert clip_fashion.class_accuracy(model, *embedded) > 0.85
    for frame in UNSEEN_FRAMES:
        assert clip_fashion.class_accuracy(model, *embedded, frame) > 0.75
    untrained = clip_fashion.new().freeze()
    assert clip_fashion.class_accuracy(untrained, *clip_fashion.embedded(untrained, some)) < 0.3


def test_prompts_in_other_words(shipped_shapes):
    """Every wording of a caption leads to the same pictures."""
    model = clip_shapes.load()
    specs = list(dict.fromkeys(random_scenes(80, seed=5, kind="one")))[:60]  # all different
    first = model.encode_captions([shapes.caption(spec, 0) for spec in specs])
    for wording in range(1, 5):
        other = model.encode_captions([shapes.caption(spec, wording) for spec in specs])
        assert ((first @ other.T).argmax(1) == torch.arange(60)).float().mean() > 0.9
