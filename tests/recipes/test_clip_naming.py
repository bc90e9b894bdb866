"""Naming: the right answers, what a perfect namer scores, and that an encoder alone learns to say who is where."""

import math
from dataclasses import replace

import pytest
import torch

from course_lib.data import shapes
from course_lib.data.shapes_scene import OPPOSITE, Scene, Thing, random_scenes
from course_lib.recipes import clip_naming, clip_shapes
from course_lib.training import Draws, state

RING, STAR = Thing("small", "red", "ring"), Thing("large", "blue", "star")


def test_answers_name_the_left_or_upper_thing_first():
    for scene in (Scene(RING, "left of", STAR), Scene(STAR, "right of", RING)):
        words = [q[i] for q, i in zip(clip_naming.QUESTIONS, clip_naming.answers([scene])[0].tolist(), strict=True)]
        assert words == ["left of", "small", "red", "ring", "large", "blue", "star"]
    below = [
        q[i] for q, i in zip(clip_naming.QUESTIONS, clip_naming.answers([Scene(RING, "below", STAR)])[0], strict=True)
    ]
    assert below == ["above", "large", "blue", "star", "small", "red", "ring"]


def test_equal_meanings_have_equal_answers_and_others_do_not():
    scenes = random_scenes(50, seed=3, kind="two")
    turned = [Scene(s.second, OPPOSITE[s.place], s.first) for s in scenes]
    opposite = [replace(s, place=OPPOSITE[s.place]) for s in scenes]
    right = clip_naming.answers(scenes)
    assert torch.equal(right, clip_naming.answers(turned))
    assert (right != clip_naming.answers(opposite)).any(dim=1).all(), "the opposite is another scene"


def test_loss_and_share_of_guesses_that_are_known():
    right = clip_naming.answers(random_scenes(40, seed=4, kind="two"))
    sizes = [len(q) for q in clip_naming.QUESTIONS]
    clueless = [torch.zeros(40, n) for n in sizes]
    assert clip_naming.naming_loss(clueless, right).item() == pytest.approx(sum(map(math.log, sizes)), rel=1e-6)
    perfect = [torch.nn.functional.one_hot(right[:, q], n) * 100.0 for q, n in enumerate(sizes)]
    assert clip_naming.naming_loss(perfect, right).item() == pytest.approx(0, abs=1e-6)
    assert clip_naming.all_right(perfect, right) == 1
    perfect[3] = perfect[3].roll(1, dims=1)  # one question of seven wrong: no scene is all right
    assert clip_naming.all_right(perfect, right) == 0


@pytest.mark.parametrize("which", ["captions", "pictures"])
def test_an_encoder_is_trained_alone(which):
    """A batch of families gives a loss near that of knowing nothing; only this encoder and the layer get gradients."""
    scenes = random_scenes(8, seed=5, kind="two")
    model, pairs = clip_shapes.new(), clip_shapes.Pairs(scenes)
    pixels, ids, _ = pairs(torch.arange(2))
    batch = (pixels, ids, clip_naming.answers(scenes).unflatten(0, (2, 4)))
    loss = clip_naming.name_captions if which == "captions" else clip_naming.name_pictures
    encoder, other = (model.text, model.image) if which == "captions" else (model.image, model.text)
    alone = clip_naming.namer(encoder, clip_shapes.NETWORK.dim)
    value = loss(alone, batch, Draws(0, 0, 2, slice(0, 2)))
    assert 8 < value.item() < 18  # knowing nothing: 9.6; an untrained layer is a little surer than that
    value.backward()
    assert all(p.grad is not None for p in alone.head.parameters())
    assert sum(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters()) > 10
    assert all(p.grad is None for p in other.parameters())


def test_padding_does_not_matter_to_naming():
    """Captions are cut to the longest of the batch; the encoder's answer is that of the whole row."""
    model = clip_shapes.new().eval()
    alone = clip_naming.namer(model.text, clip_shapes.NETWORK.dim).eval()
    ids, real = model.tokens([shapes.caption(scene) for scene in random_scenes(6, seed=6, kind="two")])
    longest = int(real.sum(dim=1).amax())
    assert longest < ids.shape[1]
    with torch.no_grad():
        for a, b in zip(alone(ids, real), alone(ids[:, :longest], real[:, :longest]), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_the_whole_recipe_in_small(tmp_path):
    """Four rounds of two steps, stopped and called again: the same weights, and nothing is trained twice."""
    rounds = {
        name: replace(config, steps=2, batch_size=4, evaluate_every=0) for name, config in clip_shapes.ROUNDS.items()
    }
    rounds["again"] = replace(rounds["again"], learning_rate=1e-12)
    one, known = clip_shapes.run(rounds, families=40, folder=tmp_path, watched=40)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "captions", "contrast", "pictures"]
    again, known_again = clip_shapes.run(rounds, families=40, folder=tmp_path, watched=40)
    for name, tensor in one.best.state_dict().items():
        assert torch.equal(tensor, again.best.state_dict()[name]), name
    assert again.seconds == one.seconds
    assert known_again == known
    # The last round hardly moves, so what differs from the weights after contrast was changed by naming.
    stored, _ = state.read(tmp_path / "contrast" / "last.safetensors")
    prefix = "ema.module."
    contrast = {name.removeprefix(prefix): t for name, t in stored.items() if name.startswith(prefix)}
    moved = {name.split(".")[0]: 0.0 for name in contrast}
    for name, tensor in one.model.state_dict().items():
        distance = (tensor - contrast[name]).abs().amax().item()
        moved[name.split(".")[0]] = max(moved[name.split(".")[0]], distance)
    assert moved["text"] > 1e-6
    assert moved["image"] > 1e-6
    assert moved["log_scale"] < 1e-9, "naming has nothing to say about the scale"
