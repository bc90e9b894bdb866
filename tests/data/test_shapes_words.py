"""Captions as words: every caption can be read, and nothing else."""

import pytest
import torch

from course_lib.data import shapes
from course_lib.data.shapes_scene import random_scenes
from course_lib.data.shapes_words import LONGEST, PADDING, VOCABULARY, split, word_ids


def test_every_wording_of_every_kind_of_scene_can_be_read():
    scenes = random_scenes(300, seed=0)
    texts = [text for scene in scenes for text in shapes.wordings(scene)]
    ids, real = word_ids(texts)
    assert ids.shape[1] <= LONGEST
    for text, row, mask in zip(texts, ids.tolist(), real.tolist(), strict=True):
        words = split(text)
        assert [VOCABULARY[i] for i in row[: len(words)]] == words
        assert mask == [k < len(words) for k in range(len(row))]
        assert all(i == PADDING for i in row[len(words) :])
    assert max(map(len, map(split, texts))) == ids.shape[1]


def test_words_are_different_and_commas_do_not_count():
    assert len(set(VOCABULARY)) == len(VOCABULARY)
    texts = ("at the left, a small red ring", "at the left a small red ring")
    with_comma, without = (word_ids([text])[0] for text in texts)
    assert torch.equal(with_comma, without)


@pytest.mark.parametrize(
    ("captions", "error", "told"),
    [
        ("a small red circle", TypeError, "list"),
        ([], ValueError, "captions is empty"),
        (["a small pink circle at the left"], ValueError, "'pink'"),
        ([""], ValueError, "is empty"),
        (["the " * 13], ValueError, "13 words"),
    ],
)
def test_what_cannot_be_read_is_refused(captions, error, told):
    with pytest.raises(error, match=told):
        word_ids(captions)
