"""Pictures for the lessons: image grids, strips through time, GIFs, curves and sliders, each with alternative text."""

from course_lib.show.animation import Animation, gif
from course_lib.show.figure import COLORS, CourseFigure, curves, subplots
from course_lib.show.images import grid, strip
from course_lib.show.tiles import tile
from course_lib.show.widgets import slider

__all__ = ["COLORS", "Animation", "CourseFigure", "curves", "gif", "grid", "slider", "strip", "subplots", "tile"]
