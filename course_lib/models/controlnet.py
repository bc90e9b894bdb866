"""ControlNet: a picture-shaped condition for a diffusion model that was trained without it, and stays as it is.

A copy of the model's encoder and middle is trained on the condition. What it makes goes through convolutions that start
at 0 and is added to what the locked encoder gives, so that training begins with exactly the model there was.

    net = ControlNet(base, ControlNetConfig(channels=1, widths=(16, 32)))
    steered = Controlled(base, [Control(net, edges, strength=1.0)])   # a model again: for any sampler, also guided
    sample(Guided(steered, null=text.null(), scale=3), schedule, shape, cond=text)

Zhang, Rao, Agrawala 2023, arXiv:2302.05543.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.models.halfway import Residuals, TwoHalves
from course_lib.nn import zeroed

STRONGEST = 2.0


def zero_conv(channels: int) -> nn.Conv2d:
    """A 1×1 convolution whose weights and bias are 0: its output is 0, the gradient of its weights is not."""
    return zeroed(nn.Conv2d(channels, channels, 1))


class ControlledBlock(nn.Module):
    """y = F(x; Θ) + Z₂(F(x + Z₁(c); Θ_c)): any block with a locked Θ, a trainable copy Θ_c, and two zero layers.

    `width`: channels of x, c and y. `tokens=True` for blocks on (batch, tokens, width) in place of feature maps.
    The block given is locked in place. Zhang et al. 2023, equation 2.
    """

    def __init__(self, block: nn.Module, width: int, *, tokens: bool = False) -> None:
        super().__init__()
        self.copy = copy.deepcopy(block).requires_grad_(True)
        self.locked = block.requires_grad_(False)
        first, second = (zeroed(nn.Linear(width, width)) if tokens else zero_conv(width) for _ in range(2))
        self.zero_in, self.zero_out = first, second

    def forward(self, x: Tensor, control: Tensor, *told: Any) -> Tensor:
        """x and a condition of the same shape to y; `told` is what the block takes besides x."""
        return self.locked(x, *told) + self.zero_out(self.copy(x + self.zero_in(control), *told))


@dataclass(frozen=True)
class ControlNetConfig:
    """What a `ControlNet` has besides its copy: the encoder of control images."""

    channels: int = 3  # of control images
    widths: tuple[int, ...] = (16, 32, 96, 256)  # of the encoder
    encoder: Literal["published", "paper"] = "published"
    halvings: int | None = None  # of the encoder; None: one less than there are widths

    def __post_init__(self) -> None:
        if self.channels < 1 or not self.widths or min(self.widths) < 1:
            raise ValueError(f"channels={self.channels}, widths={self.widths}: all must be at least 1")
        if self.encoder not in ("published", "paper"):
            raise ValueError(f"encoder={self.encoder!r} is not known; use 'published' or 'paper'")
        fits = range(len(self.widths) + 1) if self.encoder == "paper" else [len(self.widths) - 1]
        if self.halvings is not None and self.halvings not in fits:
            raise ValueError(
                f"halvings={self.halvings} does not go with {len(self.widths)} widths and encoder={self.encoder!r}; "
                f"possible: {', '.join(map(str, fits))}"
            )

    @property
    def factor(self) -> int:
        """How many times smaller the encoder's features are than the control image, in height and in width."""
        return 2 ** (len(self.widths) - 1 if self.halvings is None else self.halvings)


def condition_encoder(config: ControlNetConfig, out: int) -> nn.Sequential:
    """From control images in [0, 1] to features that start at 0.

    "published": 3×3 convolutions with SiLU, one more at each width before the one that halves (the authors' code: 16,
    32, 96, 256 channels; 512×512 becomes 64×64). "paper": section 3.2 describes four 4×4 convolutions with stride 2,
    ReLU and Gaussian weights; four halvings of 512 are 32, not 64. Here `halvings` of them have stride 2, the others
    are 3×3 with stride 1. A convolution of zeros follows in both.
    """
    widths, layers = config.widths, []
    if config.encoder == "published":
        layers += [nn.Conv2d(config.channels, widths[0], 3, padding=1), nn.SiLU()]
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Conv2d(narrow, narrow, 3, padding=1), nn.SiLU()]
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), nn.SiLU()]
        return nn.Sequential(*layers, zeroed(nn.Conv2d(widths[-1], out, 3, padding=1)))
    for number, (narrow, wide) in enumerate(zip((config.channels, *widths), widths, strict=False)):
        halving = 2**number < config.factor
        conv = nn.Conv2d(narrow, wide, 4, stride=2, padding=1) if halving else nn.Conv2d(narrow, wide, 3, padding=1)
        nn.init.normal_(conv.weight, std=math.sqrt(2 / conv.weight[0].numel()))
        nn.init.zeros_(conv.bias)
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers, zeroed(nn.Conv2d(widths[-1], out, 1)))


def trainable_half(base: nn.Module) -> nn.Module:
    """A copy of `base` without what only its decoder uses; all its parameters can be trained."""
    half = copy.deepcopy(base)
    for path in base.decoder_parts:
        *above, name = path.split(".")
        parent = half.get_submodule(".".join(above))
        if hasattr(parent, name):
            delattr(parent, name)
    return half.requires_grad_(True).train()


class ControlNet(nn.Module):
    """(x_t, t, cond, image) -> `Residuals` for the U-Net that it was made from.

    `base` is copied and not kept: its own weights are neither changed nor stored here. New, all residuals are 0.
    Raises TypeError for a base that has no two halves, ValueError for images that don't fit.
    """

    def __init__(self, base: TwoHalves, config: ControlNetConfig | None = None) -> None:
        super().__init__()
        if not hasattr(base, "decoder_parts"):
            raise TypeError(f"base is a {type(base).__name__}; a ControlNet goes on a U-Net with encode and decode")
        self.config = config or ControlNetConfig()
        self.copy = trainable_half(base)
        self.encoder = condition_encoder(self.config, base.hint_channels)
        self.zero_skips = nn.ModuleList(zero_conv(channels) for channels in base.skip_channels)
        self.zero_middle = zero_conv(base.middle_channels)

    @property
    def zero_convs(self) -> list[nn.Conv2d]:
        """Those behind the copy: one for each skip, then the middle's."""
        return [*self.zero_skips, self.zero_middle]

    def check_image(self, image: Float[Tensor, "..."]) -> None:
        """Raise TypeError or ValueError for a control image that this network does not take."""
        if not isinstance(image, Tensor) or not image.is_floating_point():
            given = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(f"image must be a float tensor in [0, 1], got {given}")
        if image.ndim != 4 or image.shape[1] != self.config.channels:
            raise ValueError(
                f"image has shape {tuple(image.shape)}; this ControlNet takes control images of "
                f"(n, {self.config.channels}, height, width)"
            )
        if image.numel() and not (image.amin() >= 0 and image.amax() <= 1):
            raise ValueError(
                f"image reaches from {image.amin().item():.3g} to {image.amax().item():.3g}; control images lie in "
                "[0, 1], unlike pictures"
            )

    def forward(
        self,
        x_t: Float[Tensor, "batch channel height width"],
        t: Int[Tensor, " batch"],
        cond: Any,
        image: Float[Tensor, "batch control tall wide"],
    ) -> Residuals:
        """What to add to the skips and the middle of the base, at its x_t, steps t and condition."""
        factor = self.config.factor
        wanted = tuple(side // self.copy.patch * factor for side in x_t.shape[2:])
        if tuple(image.shape[2:]) != wanted or len(image) != len(x_t):
            raise ValueError(
                f"image has shape {tuple(image.shape)}; for x_t of shape {tuple(x_t.shape)} it must be "
                f"({len(x_t)}, {self.config.channels}, {wanted[0]}, {wanted[1]})"
            )
        halfway = self.copy.encode(x_t, t, cond, hint=self.encoder(image.to(x_t.dtype)))
        skips = tuple(zero(skip) for zero, skip in zip(self.zero_skips, halfway.skips, strict=True))
        return Residuals(skips, self.zero_middle(halfway.middle))


@dataclass(frozen=True, eq=False)
class Control:
    """A ControlNet, the images it is shown (one per picture, in [0, 1]), and how much its word counts.

    `strength` multiplies all residuals: 0 is the base alone, 1 what was trained. Raises TypeError or ValueError for
    images that the network does not take, and for a strength that is no number from 0 to 2.
    """

    net: nn.Module  # a ControlNet
    image: Float[Tensor, "n channel height width"]
    strength: float | int = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.strength, bool) or not isinstance(self.strength, float | int):
            raise TypeError(f"strength must be a number, not {self.strength!r}")
        if not 0 <= self.strength <= STRONGEST:
            raise ValueError(f"strength={self.strength} must lie between 0 (no control) and {STRONGEST:g}")
        getattr(self.net, "module", self.net).check_image(self.image)  # .module: what several GPUs share

    def __getitem__(self, some: Any) -> Control:
        return Control(self.net, self.image[some], self.strength)


def guess_factors(count: int) -> list[float]:
    """Strengths for guessing without a prompt: from .1 for the first skip to 1 for the middle, evenly in logarithm.

    The deeper a residual enters, the more it counts. From the authors' code ("guess mode").
    """
    return torch.logspace(-1, 0, count, dtype=torch.float64).tolist()


class Controlled(nn.Module):
    """(x_t, t, cond) -> prediction: a locked U-Net with any number of controls, whose residuals add up.

    Nothing is recorded for gradients before the first residual enters, which saves the encoder's share of time and
    memory in training. Without controls, or where all strengths are 0, it is the base, bit for bit.
    """

    def __init__(self, base: TwoHalves, controls: Sequence[Control] = (), *, guess: bool = False) -> None:
        super().__init__()
        for control in controls:
            if not isinstance(control, Control):
                raise TypeError(f"controls holds a {type(control).__name__}; give Control(net, image, strength)")
        self.base, self.controls, self.guess = base, tuple(controls), guess
        self.nets = nn.ModuleList(dict.fromkeys(control.net for control in controls))  # several may share one
        self.prediction = base.prediction

    def residuals(self, x_t: Tensor, t: Tensor, cond: Any) -> Residuals | None:
        """The sum of what all controls add, or None where they add nothing."""
        total = None
        for control in self.controls:
            if control.strength == 0:
                continue
            found = control.net(x_t, t, cond, control.image)
            if self.guess:
                found = found.scaled(guess_factors(len(found.skips) + 1))
            found = found if control.strength == 1 else found.scaled(control.strength)
            total = found if total is None else total + found
        return total

    def forward(
        self, x_t: Float[Tensor, "batch channel height width"], t: Int[Tensor, " batch"], cond: Any = None
    ) -> Float[Tensor, "batch channel height width"]:
        """The base's prediction, steered."""
        with nullcontext() if x_t.requires_grad else torch.no_grad():
            halfway = self.base.encode(x_t, t, cond)
        residuals = self.residuals(x_t, t, cond)
        return self.base.decode(halfway if residuals is None else halfway.plus(residuals))
