"""A slider that redraws a figure, with a still picture where there are no sliders."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from course_lib.show.figure import CourseFigure


class Slider:
    """A live slider with its picture, and a still picture for readers that know no widgets (GitHub, nbviewer)."""

    def __init__(self, draw: Callable[[object], CourseFigure], values: Sequence, name: str, start: object):
        import ipywidgets

        self.still = draw(start)
        self.picture = ipywidgets.Image(value=self.still.png(), format="png", layout={"align_self": "flex-start"})
        self.handle = ipywidgets.SelectionSlider(
            options=list(values), value=start, description=name, layout={"width": "480px"}
        )
        self.handle.observe(self._redraw, names="value")
        self.draw = draw
        self.box = ipywidgets.VBox([self.handle, self.picture])

    def _redraw(self, change) -> None:
        self.picture.value = self.draw(change["new"]).png()

    def _repr_mimebundle_(self, include=None, exclude=None):
        data, metadata = self.still._repr_mimebundle_()
        return {**self.box._repr_mimebundle_(), **data}, metadata


def slider(draw: Callable[[object], CourseFigure], values: Sequence, *, name: str, start) -> Slider | CourseFigure:
    """A slider over `values`, called `name`, that shows `draw(value)`; first at `start`.

    Without ipywidgets, or with `COURSE_STATIC=1` (as the stored notebooks are made), it is the figure at `start`.
    """
    if start not in values:
        raise ValueError(f"start={start!r} is not among the values {list(values)!r}")
    try:
        import ipywidgets  # noqa: F401
    except ImportError:
        return draw(start)
    return draw(start) if os.environ.get("COURSE_STATIC") == "1" else Slider(draw, values, name, start)
