"""Lesson 07, the U-Net of 2015: exercises 7.1 to 7.5 with the mistakes that are usually made in them.

The two on maps themselves, 7.2 and 7.3, stand in `maps`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from course_lib.lesson.exercises.maps import CROP, STAMP
from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.unet2015 import output_size
from course_lib.nn import Layer, conv_output_size, receptive_field

# --- 7.1 size after a convolution ----------------------------------------------------------------------------------


def _draw_conv(generator: torch.Generator) -> tuple[int, int, int, int, int]:
    kernel, dilation = torch.randint(2, 6, (), generator=generator), torch.randint(1, 4, (), generator=generator)
    stride, padding = torch.randint(1, 4, (), generator=generator), torch.randint(0, 4, (), generator=generator)
    size = torch.randint(1 + int(dilation * (kernel - 1)), 40, (), generator=generator)
    return int(size), int(kernel), int(stride), int(padding), int(dilation)


def _places(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Lay the kernel down, place by place, until its last pixel would hang over the edge."""
    first, count = -padding, 0
    while first + dilation * (kernel - 1) < size + padding:
        first, count = first + stride, count + 1
    return count


def _refuses_what_does_not_fit(answer, generator) -> str | None:
    if answer(28, 3) != 26:
        return (
            f"gives {answer(28, 3)} for a map of 28 and a kernel of 3: give stride, padding, dilation their defaults."
        )
    for size, kernel, stride, padding, dilation in ((3, 5, 1, 0, 1), (4, 3, 2, 0, 2), (2, 7, 3, 2, 1)):
        try:
            found = answer(size, kernel, stride, padding, dilation)
        except ValueError:
            continue
        return (
            f"gives {found} for size={size}, kernel={kernel}, padding={padding}, dilation={dilation}, where the kernel "
            "does not fit even once: raise ValueError."
        )
    return None


CONV_SIZE = Exercise(
    id="7.1",
    title="size after a convolution",
    reference=conv_output_size,
    independent=_places,
    draw=_draw_conv,
    properties=(_refuses_what_does_not_fit,),
    mistakes=(
        Mistake(
            "no floor",
            lambda i, k, s=1, p=0, d=1: (i + 2 * p - d * (k - 1) - 1) / s + 1,
            "leaves out the floor, so a map can come out 3.5 pixels wide. Where the last step does not fit whole, it "
            "is not made: use // in place of /.",
        ),
        Mistake(
            "as many texts print it",
            lambda i, k, s=1, p=0, d=1: (i - k + 2 * p) / s + 1,
            "is the formula that many texts print. It lacks the floor (use // in place of /), and the dilation, with "
            "which the kernel spans dilation · (kernel - 1) + 1.",
        ),
        Mistake(
            "rounded up",
            lambda i, k, s=1, p=0, d=1: math.ceil((i + 2 * p - d * (k - 1) - 1) / s) + 1,
            "rounds up: it counts a last place where the kernel hangs over the edge. Round down.",
        ),
        Mistake(
            "padding at one side",
            lambda i, k, s=1, p=0, d=1: (i + p - d * (k - 1) - 1) // s + 1,
            "adds the padding once. It is put on both sides: 2 · padding.",
        ),
        Mistake(
            "dilation forgotten",
            lambda i, k, s=1, p=0, d=1: (i + 2 * p - k) // s + 1,
            "does not use the dilation. The kernel's pixels lie `dilation` apart, so it spans "
            "dilation · (kernel - 1) + 1.",
        ),
        Mistake(
            "dilated kernel too large",
            lambda i, k, s=1, p=0, d=1: (i + 2 * p - d * k) // s + 1,
            "takes the dilated kernel to be dilation · kernel wide. There is one gap fewer than pixels: "
            "dilation · (kernel - 1) + 1.",
        ),
        Mistake(
            "one place short",
            lambda i, k, s=1, p=0, d=1: (i + 2 * p - d * (k - 1) - 1) // s,
            "counts the steps between the places, which is one fewer than the places: add 1.",
        ),
    ),
    hints=(
        "How far can the kernel move? The padded map is size + 2 · padding wide, the kernel "
        "dilation · (kernel - 1) + 1.",
        "It moves in whole steps of `stride`: divide the room it has by the stride and round down with //.",
        "room = size + 2 * padding - dilation * (kernel - 1) - 1; if it is negative, raise ValueError; else "
        "room // stride + 1.",
    ),
)

# --- 7.4 size after a U-Net ----------------------------------------------------------------------------------------


def _draw_size(generator: torch.Generator) -> tuple[int, int]:
    depth, more = int(torch.randint(1, 5, (), generator=generator)), int(torch.randint(1, 6, (), generator=generator))
    return 12 * 2**depth - 4 + more * 2**depth, depth


def _by_shapes(size: int, depth: int = 4) -> int:
    """Poolings and copies of a tensor without numbers, which knows only its size."""
    x = torch.empty(1, 1, size, size, device="meta")
    for level in range(depth + 1):
        x = F.avg_pool2d(F.avg_pool2d(F.max_pool2d(x, 2) if level else x, 3, 1), 3, 1)
    for _ in range(depth):
        x = F.avg_pool2d(F.avg_pool2d(F.interpolate(x, scale_factor=2), 3, 1), 3, 1)
    return x.shape[2]


def _refuses_odd_maps(answer, generator) -> str | None:
    if answer(572) != 388:
        return f"gives {answer(572)} for 572 without a depth: give depth its default, 4."
    for size, depth, why in (
        (512, 4, "its third pooling would have to halve 121"),
        (574, 4, "its second pooling would have to halve 281"),
        (73, 2, "its first pooling would have to halve 69"),
        (40, 2, "nothing would be left"),
        (12, 4, "nothing would be left"),
    ):
        try:
            found = answer(size, depth)
        except ValueError:
            continue
        return f"gives {found} for size={size} and depth={depth}, but {why}: raise ValueError."
    return None


def _walk(size: int, depth: int, lost: int = 4, at_bottom: int = 4, lost_up: int = 4) -> int:
    """The sizes through the network, with one number bent."""
    for _ in range(depth):
        size = (size - lost) // 2
    size -= at_bottom
    for _ in range(depth):
        size = 2 * size - lost_up
    return size


UNET_SIZE = Exercise(
    id="7.4",
    title="which sizes a U-Net takes",
    reference=output_size,
    independent=_by_shapes,
    draw=_draw_size,
    properties=(_refuses_odd_maps,),
    mistakes=(
        Mistake(
            "padded convolutions",
            lambda size, depth=4: _walk(size, depth, 0, 0, 0),
            "returns the size of the picture. That holds for padded convolutions; here each 3×3 takes 2 pixels away.",
        ),
        Mistake(
            "one convolution per level",
            lambda size, depth=4: _walk(size, depth, 2, 2, 2),
            "takes 2 pixels away at each level. There are two convolutions at each, and both take 2.",
        ),
        Mistake(
            "bottom forgotten",
            lambda size, depth=4: _walk(size, depth, at_bottom=0),
            "leaves out the two convolutions at the bottom, after the last pooling.",
        ),
        Mistake(
            "way up forgotten",
            lambda size, depth=4: _walk(size, depth, lost_up=0),
            "only doubles on the way up. Two convolutions follow each doubling and take 4 pixels away.",
        ),
        Mistake(
            "two pixels for two convolutions on the way up",
            lambda size, depth=4: _walk(size, depth, lost_up=2),
            "takes 2 pixels away after each doubling. There are two 3×3 convolutions there too: 4.",
        ),
        Mistake(
            "half of the way",
            lambda size, depth=4: _walk(size, depth) // 2**depth,
            "is too small by 2^depth: the way up doubles as often as the way down halves.",
        ),
    ),
    hints=(
        "Follow the side of one map: -4, halve, -4, halve, …, -4 at the bottom, then double, -4, double, -4, …",
        "Before each halving ask whether the side is even; if not, raise ValueError. At the end it must be at least 1.",
        "for _ in range(depth): size -= 4; if size % 2: raise ValueError(…); size //= 2. Then size -= 4, and a second "
        "loop with size = 2 * size - 4.",
    ),
)

# --- 7.5 receptive field -------------------------------------------------------------------------------------------


def _draw_layers(generator: torch.Generator) -> tuple[list[Layer]]:
    layers = [Layer(3, 2, 1, 2), Layer(2, 3)]  # all four numbers matter, and the order does
    for _ in range(int(torch.randint(1, 5, (), generator=generator))):
        kernel, stride, padding, dilation = (
            int(torch.randint(low, high, (), generator=generator)) for low, high in ((1, 6), (1, 4), (0, 3), (1, 4))
        )
        layers.insert(int(torch.randint(0, len(layers) + 1, (), generator=generator)),
                      Layer(kernel, stride, padding, dilation))  # fmt: skip
    return (layers,)


def _trace_back(layers: list[Layer]) -> int:
    """Start at one output pixel and collect, layer by layer towards the input, all pixels it was computed from."""
    seen = {0}
    for kernel, stride, _, dilation in reversed(layers):
        seen = {pixel * stride + dilation * k for pixel in seen for k in range(kernel)}
    return max(seen) - min(seen) + 1


def _field(layers, use_stride=True, use_dilation=True, own_stride_first=False, less=1) -> int:
    """The sum, with one thing bent."""
    field, jump = 1, 1
    for kernel, stride, _, dilation in layers:
        jump *= stride if own_stride_first and use_stride else 1
        field += (kernel - less) * (dilation if use_dilation else 1) * jump
        jump *= stride if use_stride and not own_stride_first else 1
    return field


RECEPTIVE_FIELD = Exercise(
    id="7.5",
    title="receptive field",
    reference=receptive_field,
    independent=_trace_back,
    draw=_draw_layers,
    mistakes=(
        Mistake(
            "strides ignored",
            lambda layers: _field(layers, use_stride=False),
            "adds up the kernels as if all maps had the same size. After a stride of 2, neighbouring pixels lie two "
            "input pixels apart, so a kernel reaches twice as far.",
        ),
        Mistake(
            "kernels added up",
            lambda layers: _field(layers, use_stride=False, use_dilation=False),
            "only adds up the kernels. What a kernel reaches over depends on the strides of the layers before it, and "
            "on its own dilation.",
        ),
        Mistake(
            "own stride counted first",
            lambda layers: _field(layers, own_stride_first=True),
            "multiplies by a layer's own stride before adding its kernel. The kernel lies on the layer's input; the "
            "stride matters only for the layers that follow.",
        ),
        Mistake(
            "dilation ignored",
            lambda layers: _field(layers, use_dilation=False),
            "does not use the dilation: the kernel's pixels lie `dilation` apart.",
        ),
        Mistake(
            "kernel in place of kernel - 1",
            lambda layers: _field(layers, less=0),
            "adds the whole kernel for each layer. One of its pixels was there before: add kernel - 1.",
        ),
        Mistake(
            "last layer first",
            lambda layers: _field(layers[::-1]),
            "goes through the layers from the last to the first. The distance between pixels grows from the input on.",
        ),
        Mistake(
            "starts at 0",
            lambda layers: _field(layers) - 1,
            "is one too small: without any layer, a pixel sees 1 pixel, itself.",
        ),
    ),
    hints=(
        "Keep two numbers: the field so far, and `jump`, the distance in input pixels between neighbours of this map.",
        "Both start at 1. A layer adds (kernel - 1) · dilation · jump to the field …",
        "… and then multiplies jump by its stride, for the layers that follow.",
    ),
)

EXERCISES = (CONV_SIZE, STAMP, CROP, UNET_SIZE, RECEPTIVE_FIELD)
