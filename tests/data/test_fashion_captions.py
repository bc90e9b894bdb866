"""Captions of garments: what they say is what the picture shows, and every sentence fits the tokenizer."""

from dataclasses import fields, replace
from itertools import product

import pytest
import torch

from course_lib.data import ByteTokenizer, fashion_mnist
from course_lib.data.archives import DataUnavailable
from course_lib.data.fashion_captions import (
    FRAMES,
    LONGEST,
    SHOES,
    UNSAID,
    UNSEEN_FRAMES,
    Looks,
    arrange,
    plain_looks,
    sentence,
    spoken,
    tone_and_fill,
    write,
)
from course_lib.data.grey_sets import GARMENTS
from course_lib.data.images import moved
from course_lib.data.shapes_scene import POSITIONS


def drawn(n, seed=0):
    """Random looks, as a training step draws them."""
    generator = torch.Generator().manual_seed(seed)
    number = lambda high: torch.randint(high, (n,), generator=generator)  # noqa: E731
    small, garment = number(2), number(10)
    place = torch.where(small == 1, number(5), POSITIONS.index("center"))
    mirrored = number(2) * torch.isin(garment, torch.tensor(SHOES))
    return Looks(garment, number(3), number(2), small, place, mirrored)


def boxes(level, side=28):
    """Pictures of one bright box, 16 wide and 20 high, on black."""
    x = torch.full((1, 1, side, side), -1.0)
    x[..., 4:24, 6:22] = level
    return x


def test_tone_is_the_brightness_of_the_cloth():
    levels = torch.cat(
        [boxes(level) for level in (-0.5, -0.1, 0.1, 0.39, 0.41, 1.0)]
    )  # .25 .45 .55 .695 .705 1 of white
    tone, fill = tone_and_fill(levels)
    assert tone.tolist() == [0, 0, 1, 1, 2, 2]
    assert fill.tolist() == [0] * 6
    assert tone_and_fill(boxes(-1.0))[0].tolist() == [0], "an empty picture is no error"


def test_stripes_are_a_pattern_and_an_outline_is_none():
    striped = boxes(0.5)
    striped[..., 4:24:2, 6:22] = 0.9  # neighbouring rows differ by .2 of white, across nothing: .1 on average
    striped[..., 4:24, 6:22:2] -= 0.1
    assert tone_and_fill(torch.cat([boxes(0.5), striped]))[1].tolist() == [0, 1]


def test_pictures_are_where_their_captions_say():
    """The box's centre and size, for every place, at both sizes."""
    for small, (k, place) in product((0, 1), enumerate(POSITIONS)):
        one = torch.tensor([1])
        looks = Looks(one, one, one, one * small, one * k, one * 0)
        (mask,) = arrange(boxes(1.0), looks)[0] > 0
        rows, columns = mask.nonzero().T
        height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
        assert (height, width) == ((20, 16) if not small else (14, 12)), (place, small)
        off = {"left": (0, -6), "right": (0, 6), "top": (-6, 0), "bottom": (6, 0), "center": (0, 0)}[place]
        off = off if small else (0, 0)
        middle = (rows.max() + rows.min() + 1) / 2 - 16, (columns.max() + columns.min() + 1) / 2 - 16
        assert abs(middle[0] - off[0]) <= 0.5
        assert abs(middle[1] - off[1]) <= 0.5


def test_an_untouched_picture_is_the_padded_one():
    x = torch.rand(3, 1, 28, 28) * 2 - 1
    looks = plain_looks(x, torch.tensor([0, 5, 9]))
    assert torch.equal(arrange(x, looks), torch.nn.functional.pad(x, (2, 2, 2, 2), value=-1))
    mirrored = replace(looks, mirrored=torch.ones(3, dtype=torch.long))
    assert torch.equal(arrange(x, mirrored), arrange(x, looks).flip(3))
    shift = torch.tensor([[1, -2], [0, 0], [-1, 1]])
    assert torch.equal(arrange(x, looks, shift)[0, :, 1:, :-2], arrange(x, looks)[0, :, :-1, 2:])


def test_moving_brings_black_in():
    x = torch.ones(2, 3, 4, 5)
    found = moved(x, torch.tensor([[1, 0], [0, -2]]))
    assert (found[0, :, 0] == -1).all()
    assert (found[0, :, 1:] == 1).all()
    assert (found[1, :, :, 3:] == -1).all()
    assert (found[1, :, :, :3] == 1).all()
    assert torch.equal(moved(x, torch.zeros(2, 2, dtype=torch.long)), x)


def test_what_a_caption_says_fits_its_picture():
    """Every caption fits its own picture; it fits another one just when nothing it says is wrong there."""
    looks = drawn(300)
    said = spoken(looks, torch.rand(300, 2, generator=torch.Generator().manual_seed(1)))
    fit = looks.fit(said)
    assert fit.diagonal().all()
    for i, j in torch.randint(300, (400, 2), generator=torch.Generator().manual_seed(2)).tolist():
        agree = all(getattr(said, f.name)[j] in (UNSAID, getattr(looks, f.name)[i]) for f in fields(Looks))
        assert fit[i, j].item() is agree
    assert 0 < (said.tone == UNSAID).float().mean() < 1
    assert not (torch.stack([said.small, said.place, said.mirrored]) == UNSAID).any()


def test_a_size_a_place_and_a_direction_are_always_said():
    """So a caption that is silent about them means a picture as the data set has it."""
    assert sentence(9) == "an ankle boot"
    assert sentence(1, tone=0) == "a dark pair of trousers"
    assert sentence(8, 2, 1, small=1, place=0) == "a small bright patterned bag at the left"
    assert sentence(7, small=1, place=4, mirrored=1) == "a small sneaker in the center, facing right"
    assert sentence(9, frame="a photo of {it}") == "a photo of an ankle boot"
    plain = plain_looks(torch.zeros(1, 1, 28, 28), torch.tensor([9]))
    small = replace(plain, small=torch.tensor([1]))
    assert not small.fit(spoken(plain, torch.ones(1, 2))).any()


def test_every_sentence_fits_the_tokenizer():
    looks = drawn(4000)
    said = spoken(looks, torch.zeros(4000, 2))
    for noise in (True, False):
        texts = write(said, torch.arange(4000), noise=noise)
        assert max(map(len, texts)) <= LONGEST
        ByteTokenizer(64).encode(texts)
        assert all(text.isascii() for text in texts)
    assert texts == write(said, torch.arange(4000), noise=False), "the same numbers, the same sentences"
    for text, row in zip(texts, said.rows(), strict=True):
        assert sentence(*row).removeprefix("an ").removeprefix("a ") in text, "no word is cut off"


def test_noise_keeps_the_sentence():
    said = spoken(drawn(500), torch.zeros(500, 2))
    for text, row in zip(write(said, torch.arange(500)), said.rows(), strict=True):
        assert sentence(*row) in text.lower()


def test_unseen_wordings_are_unseen():
    assert not set(FRAMES) & set(UNSEEN_FRAMES)
    for frame, k in product(UNSEEN_FRAMES, range(10)):
        assert GARMENTS[k] in sentence(k, frame=frame)


@pytest.fixture(scope="module")
def garments():
    try:
        return fashion_mnist("train", 28)
    except DataUnavailable:
        pytest.skip("Fashion-MNIST is not here")


def test_all_words_occur_in_the_real_pictures(garments):
    looks = plain_looks(garments.images(slice(0, 5000)), garments.labels[:5000])
    assert torch.bincount(looks.tone).min() > 500
    assert torch.bincount(looks.fill).min() > 500


def test_shoes_point_to_the_left(garments):
    """The heel is where the cloth is: on the right in nearly all boots and sneakers."""
    x = garments.images(slice(0, 5000)) / 2 + 0.5
    left, right = x[..., :14].sum((1, 2, 3)), x[..., 14:].sum((1, 2, 3))
    for shoe in (7, 9):
        of = garments.labels[:5000] == shoe
        assert (right > left)[of].float().mean() > 0.97
