"""The short trainings of lesson 17: what each variant is told, that it can be told, and that runs repeat."""

from dataclasses import replace

import pytest
import torch

from course_lib import checkpoints
from course_lib.data import ByteTokenizer, shapes
from course_lib.evaluation.faithfulness import reserved
from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.recipes import decoder_ablations as runs
from course_lib.recipes.decoder_ablations import BASE, MEANINGS, SEEDS, WAYS


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


@pytest.fixture(scope="module")
def clip():
    """An untrained one, of the shipped one's widths: what is tested here is the way of the numbers."""
    torch.manual_seed(0)
    config = CLIPConfig(dim=BASE.image_dim, image_width=8, image_layers=1, text_width=BASE.text_width, text_layers=1)
    return CLIP(config).freeze()


@pytest.fixture(scope="module")
def found(clip):
    return runs.pictures(clip, 70, 0), runs.pictures(clip, 12, 1, asked=True)


def test_meanings_of_the_exam_are_not_trained_on(found):
    train_set, test = found
    assert len(MEANINGS) == 7 * 6 * 5 == len(set(MEANINGS))
    seen = {MEANINGS[k] for k in train_set.meaning.tolist()}
    asked = {MEANINGS[k] for k in test.meaning.tolist()}
    assert not any(scene.held_out or reserved(scene) for scene in seen)
    assert all(reserved(scene) and not scene.held_out for scene in asked)


def test_pictures_show_what_they_are_said_to(found):
    """Halved and enlarged again, the oracle still reads them."""
    _, test = found
    assert test.images.shape == (12, 3, 16, 16)
    scenes = [MEANINGS[k] for k in test.meaning.tolist()]
    assert shapes.score(runs.enlarged(test.images), scenes).correct.all()


@pytest.mark.parametrize("variant", SEEDS)
def test_every_variant_hears_its_condition(variant, clip, found):
    text, model = runs.readings(variant, clip), runs.network(variant, 0)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(0, 0.1)
    test = found[1]
    cond = runs.condition(text, test.embeddings, test.meaning, torch.zeros(12, dtype=torch.long))
    x, t = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.full((12,), 500)
    with torch.no_grad():
        told = model.eval()(x, t, cond)
        assert not torch.equal(told, model(x, t, cond.kept(False, True)))
        if text is not None:
            assert not torch.equal(told, model(x, t, cond.kept(True, False)))
            row = 5 * int(test.meaning[3]) + 2
            other = runs.condition(text, test.embeddings, test.meaning, torch.full((12,), 2))
            assert torch.equal(other.text.tokens[3], text.tokens[row])


def test_letters_are_counted_in_any_order(clip):
    text = runs.readings("letters", clip)
    captions = [caption for scene in MEANINGS for caption in shapes.wordings(scene)]
    assert text.tokens.shape == (len(captions), 1, ByteTokenizer.vocabulary)
    assert text.real.all()
    for row in (0, 333, 1049):
        counts = text.tokens[row, 0]
        assert counts.sum() == len(captions[row]) + 2
        assert counts[ord("e")] == captions[row].count("e")
    first, second = captions.index("a large red circle at the left"), captions.index("at the left, a large red circle")
    letters = torch.arange(ord("a"), ord("z") + 1)
    assert torch.equal(text.tokens[first, 0, letters], text.tokens[second, 0, letters]), "same letters, another order"


def test_own_reads_bytes_and_clip_states(clip):
    own, states = runs.readings("own", clip), runs.readings("clip", clip)
    assert own.tokens.dtype == torch.long
    assert torch.equal(own.real, own.tokens != ByteTokenizer.pad)
    assert states.tokens.shape[2] == BASE.text_width
    assert runs.readings("no_captions", clip) is None


def test_the_larger_network_is_larger_and_the_readers_are_small():
    count = {variant: sum(p.numel() for p in runs.network(variant, 0).parameters()) for variant in SEEDS}
    assert count["letters_wide"] > 3 * count["letters"]
    assert max(count[v] for v in ("no_captions", "letters", "clip", "own")) < 1.3 * count["no_captions"]
    assert sum(map(len, SEEDS.values())) == 8


def test_a_run_repeats_and_a_short_one_begins_like_a_long_one(clip, found, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CONFIG", replace(runs.CONFIG, batch_size=8, evaluate_every=1))
    short = runs.run("clip", 0, clip, found, steps=2, progress=False)
    long = runs.run("clip", 0, clip, found, steps=3, progress=False)
    assert list(short.scores) == [1, 2]
    assert [long.scores[k] for k in (1, 2)] == [short.scores[k] for k in (1, 2)]
    other = runs.run("clip", 1, clip, found, steps=2, progress=False)
    assert other.scores != short.scores


def test_the_whole_recipe_in_small(clip, found, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CONFIG", replace(runs.CONFIG, batch_size=8, evaluate_every=1))
    monkeypatch.setattr(runs, "data", lambda clip: found)
    monkeypatch.setattr(runs.clip_shapes, "load", lambda: clip)
    monkeypatch.setattr(runs, "STEPS", 1)
    monkeypatch.setattr(runs, "ASKED", 4)
    monkeypatch.setattr(runs, "SEEDS", {"no_captions": (0,), "letters": (0, 1)})
    runs.train(tmp_path / "runs", steps=1, into=tmp_path)
    tensors, card = checkpoints.load("decoder_ablations", folder=tmp_path)
    assert tensors["loss.letters"].shape == (2, 1)
    assert tensors["exam.letters"].shape == tensors["right.letters"].shape == (2, len(WAYS))
    assert tensors["words.letters"].shape == (2, len(WAYS), 3)
    missing = tensors["words.no_captions"].isnan().all(dim=2)[0].tolist()
    assert missing == [True, False, True], "without captions there is one way to be told"
    assert not tensors["words.letters"].isnan().any()
    assert len(card["metrics"]) == 1 + 3
    assert checkpoints.verify("decoder_ablations", folder=tmp_path)
