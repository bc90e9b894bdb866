"""The records that tell a network what to draw."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.conditions import TextCondition, decoder_condition, encoded, text_condition

SMALL = CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1, text_length=20)


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return CLIP(SMALL).freeze()


@pytest.fixture
def text(clip):
    return text_condition(clip, ["a red star", "blue", "a cat"])


def test_sentences_as_clip_sees_them(clip, text):
    assert len(text) == 3
    assert text.tokens.shape == (3, 12, 8)  # ten letters, a start and an end: the longest
    assert text.real.sum(dim=1).tolist() == [12, 6, 7]
    assert text.keep.all()
    assert torch.allclose(text.embedding, clip.encode_captions(["a red star", "blue", "a cat"]), atol=1e-6)
    assert torch.allclose(text.embedding.norm(dim=1), torch.ones(3), atol=1e-5)
    assert not text.tokens.requires_grad


def test_other_sentences_in_the_batch_change_nothing(clip, text):
    alone = text_condition(clip, ["blue"])
    assert alone.tokens.shape == (1, 6, 8)
    assert torch.allclose(alone.embedding, text.embedding[1:2], atol=1e-5)
    assert torch.allclose(alone.tokens, text.tokens[1:2, :6], atol=1e-5)


def test_tokens_may_come_ready_made(clip, text):
    ids, real = clip.tokens(["a red star", "blue", "a cat"])
    again = encoded(clip, ids, real)
    for name in ("tokens", "real", "embedding", "keep"):
        assert torch.equal(getattr(again, name), getattr(text, name))


@pytest.mark.parametrize(("bad", "error"), [("a star", TypeError), ([3], TypeError), (["x" * 30], ValueError)])
def test_what_clip_refuses_is_refused(clip, bad, error):
    with pytest.raises(error):
        text_condition(clip, bad)


def test_withholding(text):
    some = text.kept(torch.tensor([True, False, True]))
    assert some.keep.tolist() == [True, False, True]
    assert text.keep.all(), "the old one is as it was"
    assert not text.null().keep.any()
    assert text.kept(True).keep.all()
    assert some.null().kept(True).keep.all()
    assert torch.equal(some.tokens, text.tokens)


def test_rows_can_be_picked(text):
    picked = text[torch.tensor([2, 0, 0])]
    assert len(picked) == 3
    assert torch.equal(picked.embedding, text.embedding[[2, 0, 0]])
    assert torch.equal(picked.real, text.real[[2, 0, 0]])
    assert len(text[1:]) == 2
    assert text.null()[:2].keep.tolist() == [False, False]


def test_a_condition_is_never_changed_in_place(text):
    with pytest.raises(dataclasses.FrozenInstanceError):
        text.keep = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        decoder_condition(text.embedding).image = None


def test_images_with_and_without_captions(text):
    image = F.normalize(torch.randn(3, 6, generator=torch.Generator().manual_seed(0)), dim=1)
    plain, both = decoder_condition(image), decoder_condition(image, text)
    assert len(plain) == len(both) == 3
    assert plain.keep.all()
    assert plain.text is None
    partly = both.kept(torch.tensor([True, False, True]), torch.tensor([False, False, True]))
    assert partly.keep.tolist() == [True, False, True]
    assert partly.text.keep.tolist() == [False, False, True]
    assert both.text.keep.all()
    null = both.null()
    assert not null.keep.any()
    assert not null.text.keep.any()
    assert plain.null().text is None
    picked = both[torch.tensor([1])]
    assert len(picked) == 1
    assert torch.equal(picked.text.tokens, text.tokens[1:2])


def test_bytes_may_stand_for_tokens(text):
    ids = torch.zeros(3, 12, dtype=torch.long)
    assert TextCondition(ids, text.real, text.embedding, text.keep).tokens.ndim == 2
