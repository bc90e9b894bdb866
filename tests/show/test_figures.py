"""Figures: alternative text, no pyplot, lines and bands where they were asked for, and the slider's still picture."""

import io
import subprocess
import sys

import matplotlib.colors
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from PIL import Image

from course_lib import show
from course_lib.data import photograph


def test_alt_text_is_what_a_notebook_stores():
    figure, _ = show.subplots(alt="An empty frame")
    data, metadata = DisplayFormatter().format(figure)
    assert data["text/plain"] == "An empty frame"
    assert data["image/png"][:8] == b"\x89PNG\r\n\x1a\n"
    assert metadata["image/png"]["alt"] == "An empty frame"
    assert repr(figure) == "An empty frame"


def test_plots_take_few_bytes_and_photographs_keep_their_colours():
    """A palette of 256 colours may shift a tint of a plot by a shade; the pixels of a photograph stay as drawn."""
    x = np.arange(50)
    plot = show.curves(x, {"a": np.sin(x), "b": np.cos(x)}, xlabel="x", ylabel="y", alt="two waves")
    photo, ax = show.subplots(alt="a photograph")
    ax.imshow((photograph(96)[0].permute(1, 2, 0).numpy() + 1) / 2)
    for figure, mode, most in ((plot, "P", 12), (photo, "RGB", 0)):
        png = figure.png()
        stored = Image.open(io.BytesIO(png))
        drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
        assert stored.mode == mode
        assert np.abs(np.asarray(stored.convert("RGB")) - drawn).max() <= most
    assert len(plot.png()) < 25_000


def test_no_pyplot_state():
    code = "import sys, course_lib.show as s; s.subplots(alt='x'); print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_curves_draw_what_they_are_given():
    figure = show.curves(
        [0, 1, 2],
        {"up": [0, 1, 2], "down": [2, 1, 0]},
        xlabel="x",
        ylabel="y",
        alt="two",
        bands={"up": [0.1, 0.1, 0.2]},
    )
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines] == ["up", "down"]
    assert np.allclose(ax.lines[1].get_ydata(), [2, 1, 0])
    assert len({line.get_linestyle() for line in ax.lines}) == 2
    assert len({line.get_color() for line in ax.lines}) == 2
    low = ax.collections[0].get_paths()[0].vertices[:, 1].min()
    assert low == pytest.approx(-0.1)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")


def test_colors_are_distinct_in_grey_too():
    """The first four lines differ in lightness or in line style, so a black-and-white print keeps them apart."""
    lightness = [0.21 * r + 0.72 * g + 0.07 * b for r, g, b in map(matplotlib.colors.to_rgb, show.COLORS)]
    assert len({round(v, 2) for v in lightness[:4]}) >= 3


def drawing(value):
    figure, ax = show.subplots(alt=f"at {value}")
    ax.plot([0, value])
    return figure


def test_slider_redraws(monkeypatch):
    monkeypatch.delenv("COURSE_STATIC", raising=False)
    slider = show.slider(drawing, [1, 2, 3], name="t", start=2)
    handle, picture = slider.box.children
    first = picture.value
    handle.value = 3
    assert (handle.description, handle.options) == ("t", (1, 2, 3))
    assert picture.value == drawing(3).png() != first
    assert first[:4] == b"\x89PNG"
    data, _ = DisplayFormatter().format(slider)
    assert data["text/plain"] == "at 2"
    assert data["image/png"] == first
    assert "application/vnd.jupyter.widget-view+json" in data


def test_slider_has_a_still_picture(monkeypatch):
    monkeypatch.setenv("COURSE_STATIC", "1")
    assert repr(show.slider(drawing, [1, 2, 3], name="t", start=2)) == "at 2"
    monkeypatch.delenv("COURSE_STATIC")
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert repr(show.slider(drawing, [1, 2, 3], name="t", start=1)) == "at 1"
