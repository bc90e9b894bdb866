"""What a CLIP knows of shapes: every word of a caption put to the test, and the whole caption among others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib.data import shapes
from course_lib.data.shapes_scene import COLORS, POSITIONS, RELATIONS, SHAPES, SIZES, Scene, random_scenes
from course_lib.models.clip import CLIP

CAPTIONS = 64


@dataclass(frozen=True)
class Exam:
    """Shares of right answers, for scenes of one object and of two."""

    attributes: dict[int, dict[str, float]]  # objects -> word -> share, that word's alternatives being the choice
    caption: dict[int, float]  # objects -> share that finds its caption among 64 of different meaning
    n: dict[int, int]

    @property
    def mean_caption(self) -> float:
        """Mean over one and two objects of the share that finds its caption."""
        return sum(self.caption.values()) / len(self.caption)


def alternatives(scene: Scene) -> Iterator[tuple[str, list[Scene]]]:
    """For each kind of word in the caption: the scene with every word there could be in its place (first object)."""
    for name, words in (("size", SIZES), ("color", COLORS), ("shape", SHAPES)):
        for which in ("first", "second"):
            thing = getattr(scene, which)
            if thing is not None:
                yield name, [replace(scene, **{which: replace(thing, **{name: word})}) for word in words]
    place = POSITIONS if scene.second is None else RELATIONS
    yield "place", [replace(scene, place=word) for word in place]


@torch.no_grad()
def embed_scenes(clip: CLIP, scenes: list[Scene], wording: int = 0, batch: int = 500) -> Float[Tensor, "n dim"]:
    """Text embeddings of the scenes' captions, each distinct caption computed once."""
    captions = [shapes.caption(scene, wording) for scene in scenes]
    distinct = sorted(set(captions), key=lambda text: (len(text), text))
    found = torch.cat([clip.encode_captions(distinct[k : k + batch]) for k in range(0, len(distinct), batch)])
    row = {caption: i for i, caption in enumerate(distinct)}
    return found[[row[caption] for caption in captions]]


@torch.no_grad()
def embed_images(clip: CLIP, images: Float[Tensor, "n channel side side"], batch: int = 500) -> Float[Tensor, "n dim"]:
    """Image embeddings, on the model's device."""
    device = clip.log_scale.device
    return torch.cat([clip.encode_image(part.to(device)) for part in images.split(batch)])


def others(scenes: list[Scene], count: int = CAPTIONS, seed: int = 0) -> Int[Tensor, "n count"]:
    """For each scene, itself and count - 1 scenes of other, pairwise different meanings: indices into `scenes`.

    Raises ValueError where there are fewer meanings than `count`.
    """
    first: dict[Scene, int] = {}
    meaning = [first.setdefault(scene.canonical, i) for i, scene in enumerate(scenes)]
    pool = torch.tensor(sorted(first.values()))
    if len(pool) < count:
        raise ValueError(f"count={count} captions of different meaning are needed, but scenes has {len(pool)} only")
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for i, own in enumerate(meaning):
        drawn = pool[torch.randperm(len(pool), generator=generator)[:count]]
        rows.append(torch.cat([torch.tensor([i]), drawn[drawn != own][: count - 1]]))
    return torch.stack(rows)


def exam(clip: CLIP, scenes: shapes.Scenes, wording: int = 0) -> Exam:
    """Zero-shot choice of every word (the other words given), and of the caption among 64 of different meaning.

    The other captions come from these scenes and from random ones: of the pairs in `HELD_OUT` alone there are only 60.
    """
    image = embed_images(clip, scenes.images)
    attributes, caption, count = {}, {}, {}
    for objects in (1, 2):
        index = [i for i, spec in enumerate(scenes.specs) if len(spec.things) == objects]
        specs, mine = [scenes.specs[i] for i in index], image[index]
        right: dict[str, list[float]] = {}
        choices = [(i, name, options) for i, spec in enumerate(specs) for name, options in alternatives(spec)]
        text = embed_scenes(clip, [option for _, _, options in choices for option in options], wording)
        start = 0
        for i, name, options in choices:
            best = (text[start : start + len(options)] @ mine[i]).argmax().item()
            start += len(options)
            right.setdefault(name, []).append(float(options[best].canonical == specs[i].canonical))
        attributes[objects] = {name: sum(found) / len(found) for name, found in right.items()}
        pool = [*specs, *random_scenes(4 * CAPTIONS, seed=0, kind=("one", "two")[objects - 1])]  # enough, for any n
        own = embed_scenes(clip, pool, wording)
        among = own[others(pool)[: len(specs)].to(own.device)]  # (n, 64, dim)
        caption[objects] = (torch.einsum("nkd,nd->nk", among, mine).argmax(1) == 0).float().mean().item()
        count[objects] = len(specs)
    return Exam(attributes, caption, count)
