"""Exercises on feature maps themselves: growing one by stamping, and cutting out its middle."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.unet2015 import crop_to
from course_lib.nn import stamp

# --- 7.2 transposed convolution ------------------------------------------------------------------------------------


def _draw_stamp(generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    height, width, k = torch.randint(2, 5, (3,), generator=generator).tolist()
    stride = int(torch.randint(1, k, (), generator=generator))  # smaller than the kernel: neighbours overlap
    x, kernel = (torch.randn(shape, generator=generator) for shape in ((height, width), (k, k)))
    return x, kernel, stride


def _by_torch(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    return F.conv_transpose2d(x[None, None].double(), kernel[None, None].double(), stride=stride)[0, 0]


def _stamped(x: Tensor, kernel: Tensor, stride: int, how: str) -> Tensor:
    """Stamping with one thing bent."""
    k = len(kernel)
    out = x.new_zeros((x.shape[0] - 1) * stride + k, (x.shape[1] - 1) * stride + k)
    times = torch.zeros_like(out)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            place = slice(i * stride, i * stride + k), slice(j * stride, j * stride + k)
            print_ = kernel if how == "unweighted" else x[i, j] * kernel
            out[place] = print_ if how == "overwritten" else out[place] + print_
            times[place] += 1
    return out / times.clamp(min=1) if how == "averaged" else out


def _leaves_gaps_empty(answer, generator) -> str | None:
    x, kernel = torch.randn((3, 3), generator=generator), torch.randn((2, 2), generator=generator)
    found, right = answer(x, kernel, 3), _by_torch(x, kernel, 3)
    if found.shape == right.shape and torch.allclose(found.double(), right, atol=1e-5):
        return None
    return "is right while the stamps overlap, but wrong for stride=3 and a 2×2 kernel: between the stamps stays 0."


STAMP = Exercise(
    id="7.2",
    title="transposed convolution by stamping",
    reference=stamp,
    independent=_by_torch,
    draw=_draw_stamp,
    properties=(_leaves_gaps_empty,),
    mistakes=(
        Mistake(
            "overwritten",
            lambda x, kernel, stride: _stamped(x, kernel, stride, "overwritten"),
            "lets a stamp replace what is there. Where stamps overlap they add up: use += in place of =.",
        ),
        Mistake(
            "flipped kernel",
            lambda x, kernel, stride: _stamped(x, kernel.flip(0, 1), stride, ""),
            "stamps the kernel turned by 180°. A pixel stamps the kernel as it is; flipping belongs to writing the "
            "same thing as an ordinary convolution of a map with zeros in between.",
        ),
        Mistake(
            "kernel lying on its side",
            lambda x, kernel, stride: _stamped(x, kernel.T, stride, ""),
            "swaps rows and columns of the kernel: i and j count rows and columns in x and kernel alike.",
        ),
        Mistake(
            "pixel forgotten",
            lambda x, kernel, stride: _stamped(x, kernel, stride, "unweighted"),
            "stamps the same kernel everywhere. Each stamp is multiplied by its pixel: x[i, j] * kernel.",
        ),
        Mistake(
            "averaged",
            lambda x, kernel, stride: _stamped(x, kernel, stride, "averaged"),
            "divides by the number of stamps at each place. Transposed convolution adds them; that it does not divide "
            "is where the checkerboard comes from.",
        ),
    ),
    hints=(
        "Start from a map of zeros. Its height is (height - 1) · stride + k.",
        "Two loops over the pixels of x. Pixel (i, j) stamps the k×k square whose upper left corner is "
        "(i · stride, j · stride).",
        "out[i * stride : i * stride + k, j * stride : j * stride + k] += x[i, j] * kernel",
    ),
)

# --- 7.3 cropping --------------------------------------------------------------------------------------------------


def _draw_crop(generator: torch.Generator) -> tuple[Tensor, tuple[int, int]]:
    height, width = torch.randint(2, 7, (2,), generator=generator).tolist()
    more = (2 * torch.randint(1, 4, (2,), generator=generator)).tolist()
    x = torch.randn((2, 3, height + more[0], width + more[1]), generator=generator)
    return x, (height, width)


def _peeled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """One row off at the top and one at the bottom until the height is right, then the columns."""
    while x.shape[2] > size[0]:
        x = x.narrow(2, 1, x.shape[2] - 2)
    while x.shape[3] > size[1]:
        x = x.narrow(3, 1, x.shape[3] - 2)
    return x


def _nothing_to_crop(answer, generator) -> str | None:
    x = torch.randn((1, 2, 4, 6), generator=generator)
    for size in ((4, 6), (4, 2), (2, 6)):
        found = answer(x, size)
        if found.shape != (1, 2, *size):
            return (
                f"gives the shape {tuple(found.shape)} for 4×6 and size={size}, where an axis needs no cropping. "
                "x[d:-d] is empty for d = 0: write x[d : d + size]."
            )
        if not torch.equal(found.double(), _peeled(x, size).double()):
            return f"gives other values than the middle for a 4×6 map and size={size}."
    return None


CROP = Exercise(
    id="7.3",
    title="the middle of a map",
    reference=crop_to,
    independent=_peeled,
    draw=_draw_crop,
    properties=(_nothing_to_crop,),
    mistakes=(
        Mistake(
            "upper left corner",
            lambda x, size: x[:, :, : size[0], : size[1]],
            "keeps the upper left corner. The convolutions took the same border from all sides, so the middle fits.",
        ),
        Mistake(
            "lower right corner",
            lambda x, size: x[:, :, -size[0] :, -size[1] :],
            "keeps the lower right corner: half of what is too much must go at the top and at the left.",
        ),
        Mistake(
            "shrunk",
            lambda x, size: F.interpolate(x, size=size, mode="bilinear", align_corners=False),
            "resizes the whole map. Its pixels then lie elsewhere than those they are joined with: cut, don't shrink.",
        ),
        Mistake(
            "shrunk by picking pixels",
            lambda x, size: F.interpolate(x, size=size, mode="nearest"),
            "picks pixels from all over the map. They must be neighbours: cut out the middle, don't resize.",
        ),
        Mistake(
            "one pixel too low",
            lambda x, size: x[
                :,
                :,
                (x.shape[2] - size[0]) // 2 + 1 : (x.shape[2] + size[0]) // 2 + 1,
                (x.shape[3] - size[1]) // 2 + 1 : (x.shape[3] + size[1]) // 2 + 1,
            ],
            "is one row too low and one column too far right: skip exactly (x.shape[2] - height) // 2 rows.",
        ),
    ),
    hints=(
        "The height is x.shape[2], the width x.shape[3]; size holds the wanted ones, in this order.",
        "What is too much, (x.shape[2] - size[0]), goes in halves: top = that // 2.",
        "x[:, :, top : top + size[0], left : left + size[1]]",
    ),
)
