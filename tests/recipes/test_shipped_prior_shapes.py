"""The shipped prior of shapes: its card, measured again on fewer captions."""

import pytest
import torch

from course_lib import checkpoints
from course_lib.data import shapes
from course_lib.evaluation.faithfulness import unseen_prompts
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.models.conditions import text_condition
from course_lib.models.prior import draw_embeddings
from course_lib.recipes import clip_shapes, prior_shapes
from course_lib.recipes.prior_shapes import spread_ratio

STEPS = 20


@pytest.fixture(scope="module")
def clip():
    return clip_shapes.load()


@pytest.fixture(scope="module")
def prior():
    return prior_shapes.load()


@pytest.fixture(scope="module")
def metrics():
    return checkpoints.load("prior_shapes")[1]["metrics"]


def named(metrics, start):
    found = [entry for name, entry in metrics.items() if name.startswith(start)]
    assert len(found) == 1, f"{start}: {list(metrics)}"
    return found[0]


def test_the_card_says_what_was_promised(metrics):
    text = named(metrics, "cosine of the text embedding")
    sample = named(metrics, "cosine of a prior sample")
    assert sample["value"] > text["value"] > text["floor"] + 0.5
    assert sample["floor"] == text["value"]
    one, two = named(metrics, "score with the text, one draw"), named(metrics, "score with the text, the closer")
    assert two["value"] > one["value"]
    assert 0.8 < named(metrics, "variance within a caption over the real one, drawn")["value"] < 1.2
    assert named(metrics, "variance within a caption over the real one, guessed")["value"] < 0.1


@pytest.fixture(scope="module")
def measured(clip, prior):
    """48 captions that were not trained on: real arrows, the text's, one draw each, the closer of two."""
    specs = unseen_prompts(48, seed=77)
    text = text_condition(clip, [shapes.caption(spec) for spec in specs])
    real = embed_images(clip, shapes.render(specs, seed=77).images)
    drawn = {
        draws: draw_embeddings(prior, text, draws=draws, steps=STEPS, generator=torch.Generator().manual_seed(draws))
        for draws in (1, 2)
    }
    return real, text.embedding, drawn


def test_a_draw_is_nearer_than_the_sentence(measured, metrics):
    real, text, drawn = measured
    cosine = (drawn[2] * real).sum(dim=1)
    to_text = (text * real).sum(dim=1)
    gain = cosine - to_text
    assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5
    assert cosine.mean().item() == pytest.approx(named(metrics, "cosine of a prior sample")["value"], abs=0.03)
    assert to_text.mean().item() == pytest.approx(named(metrics, "cosine of the text embedding")["value"], abs=0.03)
    assert (drawn[2] * real.roll(1, dims=0)).sum(dim=1).mean() < 0.5, "another caption's picture is far"


def test_two_draws_raise_the_score(measured):
    _, text, drawn = measured
    gain = ((drawn[2] - drawn[1]) * text).sum(dim=1)
    assert gain.mean() > 2 * gain.std() / len(gain) ** 0.5
    assert gain.mean() > 0


def test_the_spread_is_that_of_pictures_and_one_call_has_none(clip, prior):
    """Six captions, 40 draws of each: the mean ratio, with what so few draws may miss it by."""
    ratios, once = [], []
    for k, spec in enumerate(unseen_prompts(40, seed=78)[:6]):
        same = text_condition(clip, [shapes.caption(spec)] * 40)
        real = embed_images(clip, shapes.render([spec] * 40, seed=k).images)
        generator = torch.Generator().manual_seed(k)
        ratios.append(spread_ratio(draw_embeddings(prior, same, draws=1, steps=STEPS, generator=generator), real))
        once.append(spread_ratio(draw_embeddings(prior, same, draws=1, steps=1, generator=generator), real))
    assert 0.7 < sum(ratios) / len(ratios) < 1.35, ratios
    assert max(once) < 0.1 * min(ratios), once


def test_the_shipped_prior_is_frozen(prior):
    assert prior.frozen
    assert not prior.train().training
    assert not any(weight.requires_grad for weight in prior.parameters())
    assert prior.config == prior_shapes.NETWORK
