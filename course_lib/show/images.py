"""Grids of images and strips through time, as figures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib.show.figure import DPI, CourseFigure
from course_lib.show.tiles import GAP, check_images, default_columns, tile

LINE = 14  # screen pixels that a line of small print takes
LETTER = 6  # and about what a letter takes
PRINT = {"fontsize": 8, "va": "center"}


def grid(
    images: Float[Tensor, "n channel height width"],
    titles: Sequence[str] | None = None,
    *,
    alt: str,
    columns: int | None = None,
    scale: int | None = None,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
) -> CourseFigure:
    """Every image of a batch, whatever n is, at a whole number of screen pixels per image pixel.

    images: float in [-1, 1], 1 or 3 channels. titles: one per image, written above it; row_titles, column_titles:
    one per row, one per column. scale: screen pixels per image pixel; the default makes an image about 96 pixels wide.
    Raises ValueError where a number of titles does not fit.
    """
    check_images(images)
    n, _, height, width = images.shape
    columns = min(n, default_columns(n) if columns is None else columns)
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    rows = math.ceil(n / columns)
    scale = max(1, round(96 / max(height, width))) if scale is None else scale
    for name, given, wanted in (
        ("titles", titles, n),
        ("row_titles", row_titles, rows),
        ("column_titles", column_titles, columns),
    ):
        if given is not None and len(given) != wanted:
            raise ValueError(f"{name} must have {wanted} entries, got {len(given)}")

    # The layout, in screen pixels from the upper left corner.
    cell_width, cell_height = width * scale, height * scale
    top, above, left = _lines(column_titles) * LINE, _lines(titles) * LINE, _width(row_titles)
    full_width = left + columns * (cell_width + GAP) - GAP
    full_height = top + rows * (above + cell_height + GAP) - GAP
    inches = ((full_width + 0.001) / DPI, (full_height + 0.001) / DPI)  # matplotlib cuts 11.999… pixels down to 11
    figure = CourseFigure(figsize=inches, dpi=DPI, alt=alt)

    def write(x: float | int, y: float | int, text: object, **style) -> None:
        figure.text(x / full_width, 1 - y / full_height, str(text), **PRINT, **style)

    for c, text in enumerate(column_titles or ()):
        write(left + c * (cell_width + GAP) + cell_width / 2, top / 2, text, ha="center")
    for r in range(rows):  # one picture per row, so that print fits between rows
        row = images[r * columns : (r + 1) * columns]
        y = top + r * (above + cell_height + GAP)
        sheet = tile(row, columns, scale).numpy()
        figure.figimage(sheet, left, full_height - y - above - cell_height, origin="upper")  # exact: never resampled
        if row_titles is not None:
            write(2, y + above + cell_height / 2, row_titles[r], ha="left")
        for c in range(len(row) if titles is not None else 0):
            write(left + c * (cell_width + GAP) + cell_width / 2, y + above / 2, titles[r * columns + c], ha="center")
    return figure


def strip(
    states: Iterable[Float[Tensor, "n channel height width"]],
    labels: Sequence[str],
    *,
    alt: str,
    scale: int | None = None,
    row_titles: Sequence[str] | None = None,
) -> CourseFigure:
    """Images on their way through time: one row per image, one column per state, the state's label on top.

    states: x at each shown time, each (n, channel, height, width) in [-1, 1]. labels: one per state ("t = 250").
    """
    states = list(states)
    if len(states) == 0 or len(states) != len(labels):
        raise ValueError(f"labels must have one entry per state: {len(labels)} labels for {len(states)} states")
    images = torch.stack(states, dim=1).flatten(0, 1)  # image after image, each with all its states
    return grid(images, alt=alt, columns=len(labels), scale=scale, row_titles=row_titles, column_titles=labels)


def _lines(titles: Sequence[str] | None) -> int:
    """Lines of print that the tallest title needs; 0 without titles."""
    return 0 if titles is None else 1 + max(str(t).count("\n") for t in titles)


def _width(titles: Sequence[str] | None) -> int:
    """Pixels that the widest title needs; 0 without titles."""
    return 0 if titles is None else 10 + LETTER * max(len(line) for t in titles for line in str(t).split("\n"))
