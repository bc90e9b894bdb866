"""Scenes as sentences, and back: every wording can be parsed again.

All sentences are plain ASCII of at most 62 bytes, so that they fit the byte tokenizer's 64 with start and end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from course_lib.data._random import as_generator, integers
from course_lib.data.shapes_scene import (
    COLORS,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    Kind,
    Scene,
    Thing,
    random_scenes,
)

_AT = {
    "left": "at the left",
    "right": "at the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "center": "in the center",
}

# {a} and {b} are objects ("small red circle"), {at} is a position, {rel} a relation of a to b.
ONE_OBJECT_WORDINGS = (
    "a {a} {at}",
    "{at}, a {a}",
    "there is a {a} {at}",
    "a picture of a {a} {at}",
    "{at} there is a {a}",
)
TWO_OBJECT_WORDINGS = (
    "a {a} {rel} a {b}",
    "the {a} {rel} the {b}",
    "{rel} a {b}, a {a}",
    "one {a} {rel} one {b}",
    "a {a} is {rel} a {b}",
)


def _pattern(wording: str) -> re.Pattern[str]:
    def words(name: str) -> str:
        parts = {"size": SIZES, "color": COLORS, "shape": SHAPES}
        return " ".join(f"(?P<{name}{part}>{'|'.join(allowed)})" for part, allowed in parts.items())

    fields = {
        "a": words("a"),
        "b": words("b"),
        "at": f"(?P<at>{'|'.join(_AT.values())})",
        "rel": f"(?P<rel>{'|'.join(RELATIONS)})",
    }
    return re.compile(wording.format(**fields))


_PATTERNS = tuple(_pattern(wording) for wording in ONE_OBJECT_WORDINGS + TWO_OBJECT_WORDINGS)
_POSITION_OF = {words: position for position, words in _AT.items()}


def wordings(scene: Scene) -> tuple[str, ...]:
    """Every caption that means `scene`; the first is the plainest."""
    if scene.second is None:
        return tuple(w.format(a=scene.first, at=_AT[scene.place]) for w in ONE_OBJECT_WORDINGS)
    return tuple(w.format(a=scene.first, b=scene.second, rel=scene.place) for w in TWO_OBJECT_WORDINGS)


def caption(scene: Scene, wording: int = 0) -> str:
    """One sentence for `scene`; `wording` counts from 0. Raises ValueError for a wording that does not exist."""
    templates = ONE_OBJECT_WORDINGS if scene.second is None else TWO_OBJECT_WORDINGS
    if isinstance(wording, bool) or not isinstance(wording, int) or not 0 <= wording < len(templates):
        raise ValueError(f"wording={wording!r} does not exist; use a whole number from 0 to {len(templates) - 1}")
    return templates[wording].format(a=scene.first, b=scene.second, at=_AT.get(scene.place), rel=scene.place)


def captions(scenes: list[Scene], *, generator: torch.Generator | None = None, seed: int | None = None) -> list[str]:
    """One sentence per scene, the wording drawn at random."""
    rng = as_generator(generator, seed)
    # Both kinds have the same number of wordings, so one draw per scene serves either.
    drawn = integers(rng, len(ONE_OBJECT_WORDINGS), len(scenes)).tolist()
    return [caption(scene, wording) for scene, wording in zip(scenes, drawn, strict=True)]


def prompts(
    n: int, *, generator: torch.Generator | None = None, seed: int | None = None, kind: Kind = "any"
) -> list[str]:
    """n random sentences, for sampling a model; `parse_caption` tells what each one asks for."""
    rng = as_generator(generator, seed)
    return captions(random_scenes(n, generator=rng, kind=kind), generator=rng)


def plain(texts: Sequence[str]) -> list[str]:
    """Sentences about shapes as networks were taught them: small letters, single spaces, no full stop.

    Raises what `parse_caption` raises.
    """
    for text in texts:
        parse_caption(text)
    return [" ".join(text.lower().split()).removesuffix(".") for text in texts]


def parse_caption(text: str) -> Scene:
    """The scene that a caption describes: inverts every wording, whatever the case, spacing or final full stop.

    Raises TypeError for something other than text, ValueError for a sentence in no known wording.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a string, not {type(text).__name__}")
    plain = " ".join(text.lower().split()).removesuffix(".")
    for pattern in _PATTERNS:
        if found := pattern.fullmatch(plain):
            part = found.groupdict()
            first = Thing(part["asize"], part["acolor"], part["ashape"])
            if "at" in part:
                return Scene(first, _POSITION_OF[part["at"]])
            return Scene(first, part["rel"], Thing(part["bsize"], part["bcolor"], part["bshape"]))
    raise ValueError(
        f"text={text!r} is no caption of the shapes; write for example 'a small red circle at the left' or "
        f"'a large blue square above a small green star' (sizes: {', '.join(SIZES)}; colors: {', '.join(COLORS)}; "
        f"shapes: {', '.join(SHAPES)}; positions: {', '.join(POSITIONS)}; relations: {', '.join(RELATIONS)})"
    )
