"""Grey image sets: Fashion-MNIST, MNIST, and grey shapes where neither is to be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from course_lib.data import shapes
from course_lib.data._random import as_generator, integers
from course_lib.data.archives import SOURCES, DataUnavailable, load
from course_lib.data.images import pad_to_32
from course_lib.pixels import from_uint8, to_uint8
from course_lib.runtime import data_root

GARMENTS = (
    "a t-shirt",
    "a pair of trousers",
    "a pullover",
    "a dress",
    "a coat",
    "a sandal",
    "a shirt",
    "a sneaker",
    "a bag",
    "an ankle boot",
)
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS = tuple(f"the digit {word}" for word in _NUMBERS)
WORDINGS = ("{it}", "a photo of {it}", "a picture of {it}", "a small grey image of {it}", "{it} on a black background")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """n labelled grey pictures, held as bytes on one device."""

    name: str  # "fashion_mnist", "mnist" or "shapes"
    split: str  # "train" or "test"
    pixels: UInt8[Tensor, "n 1 side side"]
    labels: Int64[Tensor, " n"]  # index into class_names
    class_names: tuple[str, ...]
    phrases: tuple[str, ...]  # what captions call each class: "an ankle boot"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on another device."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def _index(self, index: slice | Tensor | None) -> slice | Tensor:
        if index is None:
            return slice(None)
        if isinstance(index, slice):
            return index
        if not isinstance(index, Tensor) or index.is_floating_point() or index.is_complex() or index.ndim != 1:
            given = (
                f"a {index.dtype} tensor of shape {tuple(index.shape)}" if isinstance(index, Tensor) else repr(index)
            )
            raise TypeError(f"index must be a slice, a 1-D tensor of whole numbers or None for all, not {given}")
        # On a GPU the check would stop and wait for it at every batch.
        if index.device.type == "cpu" and index.dtype != torch.bool and index.numel():
            low, high = int(index.min()), int(index.max())
            if low < -len(self) or high >= len(self):
                raise IndexError(f"index reaches from {low} to {high}, but the set has {len(self)} images")
        return index.to(self.device)

    def images(self, index: slice | Tensor | None = None) -> Float[Tensor, "m 1 side side"]:
        """Pictures as float32 in [-1, 1], on its device. `index`: a slice, a 1-D int or bool tensor, None = all."""
        return from_uint8(self.pixels[self._index(index)])

    def captions(
        self,
        index: slice | Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        seed: int | None = None,
        wording: int | None = None,
    ) -> list[str]:
        """One sentence per picture: in one wording (a number from 0), or in wordings drawn at random.

        Raises ValueError unless exactly one of generator, seed and wording is given.
        """
        labels = self.labels[self._index(index)].tolist()
        if wording is None:
            drawn = integers(as_generator(generator, seed), len(WORDINGS), len(labels)).tolist()
        elif generator is not None or seed is not None:
            raise ValueError("give either a wording or a generator or seed that draws one, not both")
        elif isinstance(wording, bool) or not isinstance(wording, int) or not 0 <= wording < len(WORDINGS):
            raise ValueError(f"wording={wording!r} does not exist; use a whole number from 0 to {len(WORDINGS) - 1}")
        else:
            drawn = [wording] * len(labels)
        return [WORDINGS[k].format(it=self.phrases[label]) for k, label in zip(drawn, labels, strict=True)]


def _check(name: str, value: object, allowed: Sequence[object]) -> None:
    # `True in (1, …)` holds in Python; sizes and names are compared together with their type.
    if not any(type(value) is type(a) and value == a for a in allowed):
        raise ValueError(f"{name}={value!r} is not known; use one of: {', '.join(map(str, allowed))}")


def _grey_set(name: str, split: str, size: int, root: Path | str | None) -> ImageSet:
    _check("split", split, ("train", "test"))
    _check("size", size, (32, 28))
    folder = data_root() if root is None else Path(root).expanduser()
    pixels, labels = load(name, split, folder)
    pixels = pixels[:, None] if size == 28 else pad_to_32(pixels[:, None])
    from torchvision import datasets

    names = tuple(getattr(datasets, SOURCES[name].folder).classes)
    return ImageSet(name, split, pixels, labels, names, GARMENTS if name == "fashion_mnist" else DIGITS)


def fashion_mnist(split: str = "train", size: int = 32, root: Path | str | None = None) -> ImageSet:
    """Fashion-MNIST: 60,000 (train) or 10,000 (test) grey garments in ten classes.

    `size` 32 pads the 28×28 pictures with two black pixels on every side. `root` is the data folder (default:
    `runtime.data_root()`); what is missing there is downloaded. Every file is verified by MD5 before it is read.
    Raises DataUnavailable (no copy, no network), DamagedArchive (wrong MD5; the file is left alone), ValueError.
    Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747.
    """
    return _grey_set("fashion_mnist", split, size, root)


def mnist(split: str = "train", size: int = 32, root: Path | str | None = None) -> ImageSet:
    """MNIST: 60,000 (train) or 10,000 (test) handwritten digits; the arguments and errors of `fashion_mnist`."""
    return _grey_set("mnist", split, size, root)


def grey_shapes(split: str = "train", size: int = 32) -> ImageSet:
    """Shapes without their colors: 10,000 (train) or 2,000 (test) pictures of one object, labelled by its shape."""
    _check("split", split, ("train", "test"))
    _check("size", size, (32, 28))
    scenes = shapes.make(10_000 if split == "train" else 2_000, seed=0 if split == "train" else 1, kind="one")
    # The brightest channel carries the shape; the background becomes −1, as in the other grey sets.
    background = scenes.geometry.background[:, None, None, None]
    grey = (scenes.images.amax(1, keepdim=True) - background) / (1 - background) * 2 - 1
    if size == 28:
        grey = F.interpolate(grey, size=(28, 28), mode="bilinear", antialias=True, align_corners=False)
    labels = torch.tensor([shapes.SHAPES.index(spec.first.shape) for spec in scenes.specs])
    phrases = tuple(f"a {shape}" for shape in shapes.SHAPES)
    return ImageSet("shapes", split, to_uint8(grey), labels, shapes.SHAPES, phrases)


def image_set(
    name: str = "fashion_mnist", split: str = "train", size: int = 32, root: Path | str | None = None
) -> ImageSet:
    """The set called `name` ("fashion_mnist", "mnist", "shapes"), or grey shapes where it is not to be had.

    For lessons: without network and copy it prints one line and the lesson goes on; `.name` tells which set it is.
    A damaged file is not passed over: DamagedArchive is raised. ValueError for an unknown name, split or size.
    """
    _check("name", name, (*SOURCES, "shapes"))
    if name == "shapes":
        return grey_shapes(split, size)
    try:
        return _grey_set(name, split, size, root)
    except DataUnavailable:
        instead = grey_shapes(split, size)
        print(
            f"{SOURCES[name].title} is not here and could not be downloaded: this lesson goes on with shapes "
            f"({len(instead):,} grey pictures: {', '.join(shapes.SHAPES)})."
        )
        return instead


def train_and_test(
    name: str = "fashion_mnist", size: int = 32, root: Path | str | None = None
) -> tuple[ImageSet, ImageSet]:
    """Both splits of one set, as `image_set` gives them: both of `name`, or both shapes, said on one line."""
    train = image_set(name, "train", size, root)
    if train.name != name:
        return train, grey_shapes("test", size)
    return train, image_set(name, "test", size, root)
