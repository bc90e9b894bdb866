"""Image sheets, checked pixel by pixel on what is really drawn."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import show
from course_lib.pixels import to_uint8
from course_lib.show.tiles import GAP


def rendered(figure):
    """The figure as an RGB array, as a reader sees it."""
    return np.asarray(Image.open(io.BytesIO(figure.png())).convert("RGB"))


def flat(n, channels=1, side=4):
    """n images of one grey level each, all different."""
    levels = torch.linspace(-0.9, 0.9, n)
    return levels.view(n, 1, 1, 1).expand(n, channels, side, side).contiguous()


@pytest.mark.parametrize("n", range(1, 21))
def test_every_image_is_there_for_any_n(n):
    images = flat(n)
    sheet = show.tile(images)
    levels = set(to_uint8(images[:, 0, 0, 0]).tolist())
    seen = {int(v) for v in sheet.unique() if (sheet == v).all(dim=2).sum() >= 16}
    assert levels <= seen
    drawn = rendered(show.grid(images, alt="levels", scale=3))
    for level in levels:
        assert ((drawn == level).all(axis=2)).sum() == 4 * 4 * 3 * 3


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_where_they_belong(columns, channels):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(7, channels, 5, 6, generator=generator) * 2 - 1
    scale = 2
    drawn = rendered(show.grid(images, alt="random", columns=columns, scale=scale))
    used = min(columns, 7)
    rows = math.ceil(7 / used)
    assert drawn.shape == (rows * (10 + GAP) - GAP, used * (12 + GAP) - GAP, 3)
    for k in range(7):
        top, left = (k // used) * (10 + GAP), (k % used) * (12 + GAP)
        wanted = to_uint8(images[k]).expand(3, 5, 6).permute(1, 2, 0).numpy().repeat(2, axis=0).repeat(2, axis=1)
        assert np.array_equal(drawn[top : top + 10, left : left + 12], wanted)


def test_titles_make_room_and_leave_the_pixels_alone():
    images = flat(6)
    bare = rendered(show.grid(images, alt="a", columns=3, scale=8))
    titled = show.grid(
        images,
        [f"n {k}" for k in range(6)],
        alt="a",
        columns=3,
        scale=8,
        row_titles=["one", "two"],
        column_titles=["a", "b\nb", "c"],
    )
    drawn = rendered(titled)
    assert drawn.shape[0] > bare.shape[0]
    assert drawn.shape[1] > bare.shape[1]
    for level in to_uint8(images[:, 0, 0, 0]).tolist():
        assert ((drawn == level).all(axis=2)).sum() >= 32 * 32
    assert {text.get_text() for text in titled.texts} == {*(f"n {k}" for k in range(6)), "one", "two", "a", "b\nb", "c"}


def test_nothing_is_stretched():
    """Weak noise stays weak: a grey image with a ripple of ±0.01 has a handful of grey levels."""
    image = 0.01 * torch.sin(torch.arange(256.0)).view(1, 1, 16, 16)
    assert len(show.tile(image).unique()) <= 4
    assert show.tile(image * 1000).unique().tolist()[0] == 0


def test_strip_has_a_row_per_image_and_a_column_per_state():
    images = flat(2)
    states = [images, images * 0.5, images * 0]
    drawn = rendered(show.strip(states, ["t = 0", "t = 1", "t = 2"], alt="fade", scale=10))
    bottom = drawn[-(2 * 40 + GAP) :]
    for r in range(2):
        for c in range(3):
            wanted = int(to_uint8(states[c][r, 0, 0, 0]))
            assert (bottom[r * (40 + GAP) + 20, c * (40 + GAP) + 20] == wanted).all()


def test_a_gpu_tensor_with_gradient_is_fine():
    assert show.tile(flat(3).requires_grad_()).shape[2] == 3
