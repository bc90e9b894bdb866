"""A slider that redraws a figure, with a still picture wherever sliders do not work."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from course_lib.show.figure import CourseFigure


def slider(draw: Callable[[object], CourseFigure], values: Sequence, *, name: str, start):
    """A slider over `values`, called `name`, that shows `draw(value)`; first at `start`.

    Without ipywidgets, or with `COURSE_STATIC=1` (as the stored notebooks are made), it is the figure at `start`.
    """
    if start not in values:
        raise ValueError(f"start={start!r} is not among the values {list(values)!r}")
    figure = draw(start)
    if os.environ.get("COURSE_STATIC") == "1":
        return figure
    try:
        import ipywidgets
    except ImportError:
        return figure
    picture = ipywidgets.Image(value=figure.png(), format="png", layout={"object_fit": "none"})
    handle = ipywidgets.SelectionSlider(options=list(values), value=start, description=name)
    handle.observe(lambda change: setattr(picture, "value", draw(change["new"]).png()), names="value")
    return ipywidgets.VBox([handle, picture])
