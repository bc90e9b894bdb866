"""Guidance: lean towards what a condition asks for, at the price of variety.

A guided model is a model: hand it to any sampler. One convention holds everywhere in the course, that of Stable
Diffusion: `scale` 0 is unconditional, 1 conditional, more exaggerates. The other one in use, w = scale - 1 of Ho &
Salimans, is converted by `scale_from_w`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib.diffusion.prediction import convert, prediction_kind
from course_lib.diffusion.schedule import Schedule, gather


def guide(
    conditional: Float[Tensor, "batch ..."], unconditional: Float[Tensor, "batch ..."], scale: float | int
) -> Float[Tensor, "batch ..."]:
    """unconditional + scale · (conditional - unconditional), for predictions of any one kind.

    Scale 1 gives `conditional` and 0 `unconditional`, bit for bit. Raises ValueError for a negative scale, or shapes
    that differ. Ho & Salimans 2022, arXiv:2207.12598, equation 6, with scale = 1 + w.
    """
    check_scale(scale)
    if conditional.shape != unconditional.shape:
        raise ValueError(
            f"conditional has shape {tuple(conditional.shape)}, unconditional {tuple(unconditional.shape)}; "
            "both must be predictions for the same x_t"
        )
    if scale in (0, 1):
        return conditional if scale else unconditional
    return unconditional + scale * (conditional - unconditional)


def rescale(
    guided: Float[Tensor, "batch ..."], conditional: Float[Tensor, "batch ..."], strength: float | int
) -> Float[Tensor, "batch ..."]:
    """Bring the standard deviation of each guided clean picture back to that of the conditional one.

    `strength` from 0 (leave it) to 1 (all the way). Large scales otherwise drive pictures into the ends of the range.
    For predictions of x_start: done to the noise, it would take away less noise than there is. `Guided` converts.
    Raises ValueError for a strength outside. Lin et al. 2024, arXiv:2305.08891, section 3.4.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"rescale={strength} must lie between 0 and 1")
    axes = tuple(range(1, guided.ndim))
    ratio = conditional.std(dim=axes, keepdim=True) / guided.std(dim=axes, keepdim=True)
    return strength * guided * ratio + (1 - strength) * guided


def scale_from_w(w: float | int) -> float:
    """The course's scale for the w of Ho & Salimans, whose 0 is conditional and -1 unconditional: 1 + w."""
    return check_scale(1 + w)


def check_scale(scale: object, name: str = "scale") -> float:
    """`scale` itself. Raises TypeError for something other than a number, ValueError unless it is finite and ≥ 0."""
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise TypeError(f"{name} must be a number, not {scale!r}")
    if not math.isfinite(scale) or scale < 0:
        raise ValueError(f"{name}={scale} must be at least 0: 0 ignores the condition, 1 obeys it, more exaggerates")
    return float(scale)


class Guided(nn.Module):
    """Classifier-free guidance around a conditional model: two calls of it per prediction, or one at scale 0 and 1.

        guided = Guided(model, null=nothing, scale=3)
        sample(guided, schedule, shape, cond=condition)

    `null` is the condition that says nothing, in whatever form the model takes it; it is never guessed. Its batch must
    be that of `cond`. `rescale` is the strength of the function of that name, which acts on x_start whatever the model
    predicts, and so needs the `schedule`. `calls` counts the calls of the model since the start.
    """

    def __init__(
        self, model: Callable, *, null: Any, scale: float | int, rescale: float | int = 0.0,
        schedule: Schedule | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.scale, self.null, self.strength, self.schedule = check_scale(scale), null, rescale, schedule
        if not 0 <= rescale <= 1:
            raise ValueError(f"rescale={rescale} must lie between 0 and 1")
        if rescale and schedule is None:
            raise ValueError(f"rescale={rescale} acts on x_start, so it needs the schedule: give schedule=…")
        self.model, self.calls = model, 0
        self.prediction = prediction_kind(model, None)

    def _ask(self, x_t: Tensor, t: Tensor, cond: Any) -> Tensor:
        self.calls += 1
        return self.model(x_t, t, cond)

    def forward(self, x_t: Float[Tensor, "batch ..."], t: Int[Tensor, " batch"], cond: Any = None) -> Tensor:
        """The guided prediction, of the model's own kind."""
        if self.scale == 0:
            return self._ask(x_t, t, self.null)
        conditional = self._ask(x_t, t, cond)
        if self.scale == 1:
            return conditional
        guided = guide(conditional, self._ask(x_t, t, self.null), self.scale)
        if not self.strength:
            return guided
        both = (convert(self.schedule, x_t, t, part, self.prediction, "x_start") for part in (guided, conditional))
        return convert(self.schedule, x_t, t, rescale(*both, self.strength), "x_start", self.prediction)


class ClassifierGuided(nn.Module):
    """Classifier guidance: a model that knows no condition, pushed by the gradient of a classifier that reads noise.

    `classifier(x_t, t)` gives logits; the condition is the label of each example. The noise prediction becomes
    ε - scale · √(1-ᾱ) ∇ log p(label | x_t). A classifier that was trained on clean pictures only misleads it.
    Dhariwal & Nichol 2021, arXiv:2105.05233, algorithm 2.
    """

    prediction = "noise"

    def __init__(self, model: Callable, classifier: Callable, schedule: Schedule, *, scale: float | int) -> None:
        super().__init__()
        self.model, self.classifier, self.schedule = model, classifier, schedule
        self.scale, self.kind = check_scale(scale), prediction_kind(model, None)

    def forward(
        self, x_t: Float[Tensor, "batch ..."], t: Int[Tensor, " batch"], label: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch ..."]:
        """The guided noise prediction. Raises ValueError for labels that are not one whole number per example."""
        if not isinstance(label, Tensor) or label.shape != t.shape or label.is_floating_point():
            raise ValueError(f"label must hold one class number for each of the {len(x_t)} examples")
        with torch.no_grad():
            noise = convert(self.schedule, x_t, t, self.model(x_t, t, None), self.kind, "noise")
        if self.scale == 0:
            return noise
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            chosen = self.classifier(x, t).log_softmax(dim=1).gather(1, label[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, x)
        return noise - self.scale * gather(self.schedule.noise_std, t, x_t) * gradient
