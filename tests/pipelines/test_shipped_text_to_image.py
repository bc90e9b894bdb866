"""The shipped parts together: what their cards promise, one of the numbers again, variations, and whose CLIP it was."""

import pytest
import torch

from course_lib import checkpoints
from course_lib.data import fashion_mnist
from course_lib.data.grey_sets import GARMENTS
from course_lib.evaluation.faithfulness import faithfulness, unseen_prompts, wilson
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.evaluation.yardstick import look
from course_lib.pipelines import TextToImage
from course_lib.recipes import decoder_shapes
from course_lib.recipes._garments import source_captions


@pytest.fixture(autouse=True)
def _float32_on_the_cpu(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


@pytest.fixture(scope="module")
def pipeline():
    return TextToImage.load("shapes")


@pytest.fixture(scope="module")
def card():
    return checkpoints.load("decoder_shapes")[1]


def told(card, kind, source, more="", n=500):
    return card["metrics"][f"all words right, {kind}{more}, {source} embedding (n = {n})"]


def test_one_object_and_two(card):
    one, two = told(card, "one object", "prior's"), told(card, "two objects", "prior's")
    assert one["value"] >= 0.75
    assert two["value"] >= 0.40
    for entry in (one, two):
        assert entry["floor"] < 0.05, "held against other prompts: chance"
        low, high = wilson(round(entry["value"] * 500), 500)
        assert entry["interval"] == pytest.approx([low, high], abs=2e-4)


def test_pairs_never_trained_on_stand_beside_seen_ones(card):
    for kind in ("one object", "two objects"):
        unseen = told(card, kind, "prior's", ", pairs never trained on")
        assert unseen["value"] > 10 * max(unseen["floor"], 0.002)


def test_without_the_prior_it_is_worse_and_with_the_true_embedding_best(card):
    """Told the embedding alone: that of the sentence is no substitute for one of a picture."""
    text, prior, own = (
        card["metrics"][f"all words right, one object, {source} embedding alone (n = 250)"]
        for source in ("sentence's", "prior's", "true")
    )
    assert text["interval"][1] < prior["interval"][0], "the intervals lie apart"
    assert prior["value"] <= own["value"] + 0.05


def test_a_number_of_the_card_again(pipeline, card):
    parts, prompts = (pipeline.clip, pipeline.prior, pipeline.decoder), unseen_prompts(40, 10**6, kind="one")
    found = faithfulness(decoder_shapes.asked(parts, prompts, steps=15, progress=False), prompts)
    assert found.share > told(card, "one object", "prior's")["value"] - 0.2
    assert found.shuffled <= 4


def test_a_variation_is_more_like_its_picture_than_another_of_its_caption():
    """Pixel by pixel, the mean picture taken away: what training on the picture's own embedding is for."""
    dresser, test = TextToImage.load("fashion"), fashion_mnist("test")
    originals, names = test.images(slice(0, 24)), [source_captions()[k] for k in test.labels[:24].tolist()]
    how = {"steps": 10, "guidance": 1, "progress": False}
    varied = dresser.paint(embed_images(dresser.clip, originals), **how)
    drawn = dresser.paint(dresser.embed(names, seed=4), **how)
    middle = originals.mean(dim=0)
    alike, other = (
        torch.nn.functional.cosine_similarity((x - middle).flatten(1), (originals - middle).flatten(1)).mean()
        for x in (varied, drawn)
    )
    assert alike > other + 0.05


def test_garments_as_asked():
    card = checkpoints.load("decoder_fashion")[1]
    entry = card["metrics"]["garment as asked, the ten captions of the sources (n = 1000)"]
    assert entry["value"] >= 0.80
    assert card["metrics"]["garment as asked, wordings never trained on (n = 1000)"]["value"] >= 0.80
    images = TextToImage.load("fashion")(
        [text for text in source_captions() for _ in range(3)], steps=12, progress=False
    )
    right = look(images).labels == torch.arange(len(GARMENTS)).repeat_interleave(3)
    assert right.float().mean() > entry["value"] - 0.25


def test_the_parts_know_their_clip(pipeline):
    other = TextToImage.load("fashion")
    for name in ("prior", "decoder"):
        assert getattr(pipeline, name).clip_fingerprint is not None
        with pytest.raises(ValueError, match=f"{name} was trained with another CLIP"):
            TextToImage(
                pipeline.clip,
                other.prior if name == "prior" else pipeline.prior,
                other.decoder if name == "decoder" else pipeline.decoder,
            )
