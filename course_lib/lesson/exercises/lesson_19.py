"""Lesson 19, ControlNet: exercises 19.1 to 19.4 with the mistakes that are usually made in them.

The first and the last, on holding edges against edges and on adding controls up, stand in `steering`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.lesson.exercises.steering import COMBINED, EDGE_F1
from course_lib.lesson.tasks import Exercise, Mistake

# --- 19.2 a block under control --------------------------------------------------------------------------------------


class _Block:
    """tanh(A x), then B: a small block whose numbers another route can use."""

    def __init__(self, generator: torch.Generator, width: int, linear: bool = False) -> None:
        self.inner = torch.randn(width, width, generator=generator)
        self.outer = torch.randn(width, width, generator=generator)
        self.linear = linear

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.inner.T if self.linear else (x @ self.inner.T).tanh() @ self.outer.T

    def slowly(self, row: list[float]) -> list[float]:
        """The same for one row of numbers."""

        def times(matrix: Tensor, numbers: list[float]) -> list[float]:
            return [math.fsum(a * b for a, b in zip(line, numbers, strict=True)) for line in matrix.tolist()]

        inner = times(self.inner, row)
        return inner if self.linear else times(self.outer, [math.tanh(v) for v in inner])


def controlled_block(
    block: Callable, trained_copy: Callable, x: Tensor, control: Tensor, zero_in: Callable, zero_out: Callable
) -> Tensor:
    """y = F(x; Θ) + Z₂(F(x + Z₁(c); Θ_c))."""
    return block(x) + zero_out(trained_copy(x + zero_in(control)))


def _draw_block(generator: torch.Generator) -> tuple:
    width = int(torch.randint(3, 6, (), generator=generator))
    x, control = torch.randn(2, int(torch.randint(2, 5, (), generator=generator)), width, generator=generator)
    blocks = [_Block(generator, width) for _ in range(2)]
    layers = [_Block(generator, width, linear=True) for _ in range(2)]
    return *blocks, x, control, *layers


def _row_by_row(block, trained_copy, x, control, zero_in, zero_out) -> Tensor:
    rows = []
    for one, told in zip(x.tolist(), control.tolist(), strict=True):
        asked = [a + b for a, b in zip(one, zero_in.slowly(told), strict=True)]
        more = zero_out.slowly(trained_copy.slowly(asked))
        rows.append([a + b for a, b in zip(block.slowly(one), more, strict=True)])
    return torch.tensor(rows, dtype=torch.float64)


def _starts_as_the_block(answer: Callable, generator: torch.Generator) -> str | None:
    block, _, x, control, _, _ = _draw_block(generator)
    if torch.equal(answer(block, block, x, control, torch.zeros_like, torch.zeros_like), block(x)):
        return None
    return "changes the block's answer although both zero layers still give 0."


CONTROLLED = Exercise(
    id="19.2",
    title="a block under control",
    reference=controlled_block,
    independent=_row_by_row,
    draw=_draw_block,
    properties=(_starts_as_the_block,),
    mistakes=(
        Mistake(
            "control behind the copy",
            lambda block, trained_copy, x, control, zero_in, zero_out: (
                block(x) + zero_out(trained_copy(x) + zero_in(control))
            ),
            "adds the control to what the copy gives. It goes in before: the copy is there to work on it.",
        ),
        Mistake(
            "no layer before the copy",
            lambda block, trained_copy, x, control, zero_in, zero_out: block(x) + zero_out(trained_copy(x + control)),
            "adds the control as it is. It goes through zero_in first, so that the copy begins with what it knows, x.",
        ),
        Mistake(
            "no layer behind the copy",
            lambda block, trained_copy, x, control, zero_in, zero_out: block(x) + trained_copy(x + zero_in(control)),
            "adds the copy's answer as it is: at the start that doubles the block. It goes through zero_out first.",
        ),
        Mistake(
            "the locked block twice",
            lambda block, trained_copy, x, control, zero_in, zero_out: block(x) + zero_out(block(x + zero_in(control))),
            "asks the locked block twice. What hears the control is the copy, which is trained.",
        ),
        Mistake(
            "the copy doesn't see x",
            lambda block, trained_copy, x, control, zero_in, zero_out: (
                block(x) + zero_out(trained_copy(zero_in(control)))
            ),
            "gives the copy the control alone. It gets x, and the control added to it.",
        ),
        Mistake(
            "locked block left out",
            lambda block, trained_copy, x, control, zero_in, zero_out: zero_out(trained_copy(x + zero_in(control))),
            "leaves out the locked block, whose answer everything is added to.",
        ),
    ),
    hints=(
        "Read equation 19.3 from the inside out: first Z₁ of the control, added to x.",
        "Then the copy, then Z₂ of what it gives. The locked block sees x alone.",
        "block(x) + zero_out(trained_copy(x + zero_in(control)))",
    ),
)

# --- 19.3 the gradients of a 1×1 convolution -------------------------------------------------------------------------


def one_by_one_gradients(x: Tensor, weight: Tensor, above: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of y = W x + b at every position: ∂L/∂W, ∂L/∂b and ∂L/∂x, given `above`, which is ∂L/∂y."""
    of_weight = torch.einsum("nohw,nihw->oi", above, x)
    of_bias = above.sum(dim=(0, 2, 3))
    of_x = torch.einsum("nohw,oi->nihw", above, weight)
    return of_weight, of_bias, of_x


def _draw_convolution(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    n, channels, out, height, width = (
        int(torch.randint(*span, (), generator=generator)) for span in ((2, 4), (2, 4), (4, 6), (2, 4), (4, 6))
    )
    x, above = (torch.randn(n, c, height, width, generator=generator) for c in (channels, out))
    return x, torch.randn(out, channels, generator=generator), above


def _position_by_position(x: Tensor, weight: Tensor, above: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n, channels, height, width = x.shape
    of_weight = torch.zeros(weight.shape, dtype=torch.float64)
    of_bias, of_x = torch.zeros(len(weight), dtype=torch.float64), torch.zeros(x.shape, dtype=torch.float64)
    for b in range(n):
        for row in range(height):
            for column in range(width):
                pixel, slope = x[b, :, row, column].tolist(), above[b, :, row, column].tolist()
                for o, g in enumerate(slope):
                    of_bias[o] += g
                    for i, value in enumerate(pixel):
                        of_weight[o, i] += g * value
                for i in range(channels):
                    of_x[b, i, row, column] = math.fsum(g * weight[o, i].item() for o, g in enumerate(slope))
    return of_weight, of_bias, of_x


def _a_zero_layer_can_learn(answer: Callable, generator: torch.Generator) -> str | None:
    x, weight, above = _draw_convolution(generator)
    of_weight, of_bias, of_x = answer(x, 0 * weight, above)
    if not of_weight.any() or not of_bias.any():
        return "gives a layer of zeros no gradient. What a weight of 0 is multiplied by is x, and x is not 0."
    return "lets a gradient through a layer of zeros to x." if of_x.any() else None


def _changed(place: int, change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable:
    """The right answer but for one of its three values."""

    def answer(x: Tensor, weight: Tensor, above: Tensor) -> tuple[Tensor, ...]:
        found = list(one_by_one_gradients(x, weight, above))
        found[place] = change(x, weight, above)
        return tuple(found)

    return answer


ONE_BY_ONE = Exercise(
    id="19.3",
    title="the gradients of a 1×1 convolution",
    reference=one_by_one_gradients,
    independent=_position_by_position,
    draw=_draw_convolution,
    properties=(_a_zero_layer_can_learn,),
    mistakes=(
        Mistake(
            "weight as a factor",
            _changed(0, lambda x, weight, above: weight * torch.einsum("nohw,nihw->oi", above, x)),
            "multiplies the gradient of W by W itself. y is W times x: its slope in W is x, without any W. Only so can "
            "a layer of zeros learn.",
        ),
        Mistake(
            "mean over positions",
            _changed(0, lambda x, weight, above: torch.einsum("nohw,nihw->oi", above, x) / above[:, 0].numel()),
            "takes the mean over pictures and positions in the gradient of W. The same W acts everywhere, and what it "
            "does everywhere adds up.",
        ),
        Mistake(
            "bias times x",
            _changed(1, lambda x, weight, above: torch.einsum("nohw,nihw->o", above, x)),
            "multiplies by x in the gradient of b. b is added as it is: its slope is 1.",
        ),
        Mistake(
            "x of the layer for x",
            _changed(2, lambda x, weight, above: above.sum(dim=1, keepdim=True) * x),
            "multiplies by x where the gradient of x is asked. The slope of W x in x is W: by it x hears of the loss.",
        ),
        Mistake(
            "summed before the weights",
            _changed(2, lambda x, weight, above: torch.einsum("nohw,pi->nihw", above, weight)),
            "sums ∂L/∂y and W over the outputs one by one. Each output goes with its own row of W.",
        ),
    ),
    hints=(
        "At one position, y_o = Σ_i W_oi x_i + b_o. By the chain rule ∂L/∂W_oi is ∂L/∂y_o times x_i, summed over "
        "pictures and positions.",
        'torch.einsum("nohw,nihw->oi", above, x) multiplies and sums over n, h and w. The gradient of b is '
        "above.sum(dim=(0, 2, 3)).",
        'The gradient of x at a position is Wᵀ times that of y there: torch.einsum("nohw,oi->nihw", above, weight).',
    ),
)

EXERCISES = (EDGE_F1, CONTROLLED, ONE_BY_ONE, COMBINED)
