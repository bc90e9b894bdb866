"""Which bytes are a word, which squares an object covers, and what a map's lift is in cases that can be counted."""

import pytest
import torch

from course_lib.data import ByteTokenizer, shapes
from course_lib.evaluation.word_maps import coverage, lift, word_places


def test_the_places_of_a_word_hold_its_bytes():
    for line in (
        "a small red circle at the left",
        "at the top, a large cyan ring",
        "right of a small red star, a small blue cross",
    ):
        ids, _ = ByteTokenizer(64).encode([line])
        for word in dict.fromkeys(line.replace(",", "").split()):
            for occurrence in range(line.replace(",", "").split().count(word)):
                found = ids[0, word_places(line, word, occurrence)].tolist()
                assert bytes(found).decode() == word
    assert word_places("a red star left of a red ring", "red", 0) == slice(3, 6)
    assert word_places("a red star left of a red ring", "red", 1) == slice(22, 25)


def test_words_that_are_not_there():
    with pytest.raises(ValueError, match="stands 0 times"):
        word_places("a red star", "blue")
    for occurrence in (1, -1):
        with pytest.raises(ValueError, match=f"stands 1 times.*occurrence={occurrence}"):
            word_places("a red star", "red", occurrence)


def test_coverage_counts_pixels():
    masks = shapes.make(3, seed=0, kind="two").masks
    found = coverage(masks, 8)
    assert found.shape == (3, 2, 8, 8)
    assert found[1, 0, 4, 2] == masks[1, 0, 16:20, 8:12].float().mean()
    assert torch.allclose(found.mean(dim=(2, 3)), masks.float().mean(dim=(2, 3)))
    assert torch.equal(coverage(masks, 32), masks.float())
    for side in (0, 5, 64):
        with pytest.raises(ValueError, match=f"side={side} must divide"):
            coverage(masks, side)


def test_lift_in_cases_that_can_be_counted():
    mask = torch.zeros(4, 5, 5)
    mask[:, 1, 1:3] = 1  # 2 of 25 squares
    everywhere, inside, outside, half = torch.ones(5, 5), mask[0], 1 - mask[0], mask[0] / 2 + (1 - mask[0]) / 23 / 1
    maps = torch.stack([everywhere, inside, outside, half])
    assert lift(maps, mask).tolist() == pytest.approx([1, 12.5, 0, 6.25])
    assert torch.allclose(lift(7 * maps, mask), lift(maps, mask))
