"""Animated GIFs with a fixed range: weak noise looks weak in them, and colour stays colour."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from jaxtyping import Float
from torch import Tensor

from course_lib.runtime import replacing
from course_lib.show.tiles import tile


class Animation:
    """A GIF's bytes with alternative text: shows itself in a notebook, and `save` writes it to a file."""

    def __init__(self, data: bytes, alt: str):
        self.data, self.alt = data, alt

    def __repr__(self) -> str:
        return self.alt

    def save(self, path: str | Path) -> Path:
        """Write the GIF to `path` in one step."""
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(self.data)
        return Path(path)

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"image/gif": self.data, "text/plain": self.alt}, {"image/gif": {"alt": self.alt}}


def gif(
    states: Iterable[Float[Tensor, "n channel height width"]],
    *,
    alt: str,
    seconds: float | int = 3.0,
    hold: float | int = 1.0,
    columns: int | None = None,
    scale: int = 3,
) -> Animation:
    """An endless GIF with one frame per state; every frame shows all n images, for any n.

    states: each (n, channel, height, width) in [-1, 1], 1 or 3 channels. [-1, 1] is mapped to black…white in every
    frame alike, never stretched per image. seconds: length of one run; hold: how long the last frame stays on top
    of that. Keep it to 3×3 images and 20 frames where it is stored in a notebook.
    """
    frames = [tile(state, columns, scale).numpy() for state in states]
    if not frames:
        raise ValueError("states is empty: a GIF needs at least one frame")
    if not alt.strip():
        raise ValueError("alt must say in words what the animation shows")
    if seconds <= 0 or hold < 0:
        raise ValueError(f"seconds must be positive and hold not negative, got seconds={seconds}, hold={hold}")
    durations = [1000 * seconds / len(frames)] * len(frames)
    durations[-1] += 1000 * hold
    buffer = io.BytesIO()
    # Pillow drops a frame that equals the one before and adds its time to it, so timing survives.
    timing = durations if len(frames) > 1 else durations[0]  # Pillow takes no list for a single frame
    imageio.imwrite(buffer, np.stack(frames), extension=".gif", loop=0, duration=timing)
    return Animation(buffer.getvalue(), alt.strip())
