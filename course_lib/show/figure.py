"""Figures that say in words what they show: a matplotlib Figure with alternative text.

In a notebook such a figure is a picture whose plain-text form is its alt text, so a screen reader, a diff and
`pytest --nbval` all read the same sentence. Nothing here touches pyplot: there is no "current figure" to trip over.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

DPI = 100
PLOT_COLORS = 1500  # smooth edges of lines make some hundred tints; photographs in colour have thousands
# Okabe & Ito's colours, told apart with every common kind of colour blindness; line styles repeat the message.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
Numbers = Sequence[float] | Sequence[int] | Tensor | np.ndarray
LINES = ("-", "--", "-.", ":")


class CourseFigure(Figure):
    """A matplotlib Figure with `alt`, a sentence or two that say what to see in it."""

    def __init__(self, *args, alt: str, **kwargs):
        super().__init__(*args, **kwargs)
        if not isinstance(alt, str) or not alt.strip():
            raise ValueError("alt must say in words what the figure shows: some readers get nothing else")
        self.alt = alt.strip()
        FigureCanvasAgg(self)

    def __repr__(self) -> str:
        return self.alt

    def png(self) -> bytes:
        """The figure as a PNG file's bytes, exactly as large as it was laid out; grey figures as grey pictures.

        Plots (lines and flat areas: few colours) go into a palette of 256, which is less than half the bytes.
        """
        self.canvas.draw()
        pixels = np.asarray(self.canvas.buffer_rgba())[..., :3]
        if (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0]  # noise does not compress: one channel is a third of the bytes
        picture = Image.fromarray(pixels)
        if self.axes and pixels.ndim == 3 and picture.getcolors(PLOT_COLORS):
            picture = picture.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        picture.save(buffer, "png", optimize=True)
        return buffer.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/png": self.png(), "text/plain": self.alt}, {"image/png": {"alt": self.alt}}


def subplots(rows: int = 1, columns: int = 1, *, size: tuple[float | int, float | int] = (7, 3), alt: str, **kwargs):
    """A CourseFigure and its axes, as `matplotlib.pyplot.subplots` would give them.

    size: width and height in inches (100 pixels each). Axes come without upper and right frame lines.
    """
    figure = CourseFigure(figsize=size, dpi=DPI, layout="constrained", alt=alt)
    axes = figure.subplots(rows, columns, **kwargs)
    for ax in axes.flat if rows * columns > 1 else [axes]:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def curves(
    x: Numbers,
    ys: dict[str, Numbers],
    *,
    xlabel: str,
    ylabel: str,
    alt: str = "",
    bands: dict[str, Numbers] | None = None,
    title: str = "",
    ax: Axes | None = None,
) -> CourseFigure:
    """One line per entry of `ys` against `x`, told apart by colour and by line style.

    bands: half-width of a shaded band around a line (one standard deviation, say), by the same names.
    ax: draw into these axes of an existing figure, which has its own alt text. Raises ValueError where lengths differ.
    """
    x = [float(v) for v in x]
    for name, y in {**ys, **{f"bands[{k!r}]": v for k, v in (bands or {}).items()}}.items():
        if len(y) != len(x):
            raise ValueError(f"{name} has {len(y)} values but x has {len(x)}: one per point is needed")
    unknown = set(bands or {}) - set(ys)
    if unknown:
        raise ValueError(f"bands names {sorted(unknown)}, but there are only lines {sorted(ys)}")
    figure = ax.figure if ax is not None else None
    if ax is None:
        figure, ax = subplots(alt=alt)
    for k, (name, y) in enumerate(ys.items()):
        y = [float(v) for v in y]
        color, line = COLORS[k % len(COLORS)], LINES[k % len(LINES)]
        ax.plot(x, y, line, color=color, label=name, linewidth=1.8)
        if bands and name in bands:
            half = [float(v) for v in bands[name]]
            low, high = [a - b for a, b in zip(y, half, strict=True)], [a + b for a, b in zip(y, half, strict=True)]
            ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if len(ys) > 1:
        ax.legend(frameon=False)
    return figure
