"""Where the figures go."""

import io
from pathlib import Path

from PIL import Image

from course_lib.show import CourseFigure

FOLDER = Path(__file__).resolve().parent.parent.parent / "assets" / "figures"


def store(figure: CourseFigure, name: str) -> None:
    """Write a figure as NAME.png, in at most 256 colors: photographs and noise take a third of the bytes."""
    picture = Image.open(io.BytesIO(figure.png()))
    if picture.mode == "RGB":
        picture = picture.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    picture.save(FOLDER / f"{name}.png", optimize=True)
