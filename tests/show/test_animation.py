"""GIFs, read back from their bytes."""

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from course_lib import show


def frames_of(animation):
    return imageio.imread(animation.data, index=None, extension=".gif")


@pytest.mark.parametrize("n", [1, 2, 5, 7, 9, 10])
def test_every_frame_shows_every_image(n):
    levels = torch.linspace(-1, 1, n).view(n, 1, 1, 1).expand(n, 1, 4, 4)
    states = [levels * k / 3 for k in range(1, 4)]
    frames = frames_of(show.gif(states, alt="levels", scale=2))
    assert frames.dtype == np.uint8
    assert len(frames) == 3
    for frame, state in zip(frames, states, strict=True):
        assert np.array_equal(frame, show.tile(state, None, 2).numpy())


def test_colour_stays_colour():
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    frames = frames_of(show.gif([red, -red], alt="red, then cyan"))
    assert frames.shape[1:] == (24, 24, 3)
    assert (frames[0] == [255, 0, 0]).all()
    assert (frames[1] == [0, 255, 255]).all()


def test_range_is_fixed():
    """Noise of std 0.01 is grey, its sign is black and white; a constant image is just that."""
    noise = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    weak, strong, flat = frames_of(show.gif([noise * 0.01, noise.sign(), noise * 0], alt="three"))
    assert 120 < weak.min() <= weak.max() < 136
    assert set(np.unique(strong)) == {0, 255}
    assert len(np.unique(flat)) == 1


def test_the_last_frame_is_held(tmp_path):
    states = [torch.full((1, 1, 4, 4), v) for v in (-1.0, 0.0, 1.0)]
    path = show.gif(states, alt="three", seconds=0.3, hold=2).save(tmp_path / "out" / "a.gif")
    durations = [imageio.immeta(path, index=k)["duration"] for k in range(3)]
    assert durations == [100, 100, 2100]
    assert [p.name for p in path.parent.iterdir()] == ["a.gif"]


def test_alt_text_and_bundle():
    animation = show.gif([torch.zeros(1, 1, 4, 4)], alt=" grey ")
    data, metadata = animation._repr_mimebundle_()
    assert repr(animation) == data["text/plain"] == metadata["image/gif"]["alt"] == "grey"
    assert data["image/gif"][:6] == b"GIF89a"
