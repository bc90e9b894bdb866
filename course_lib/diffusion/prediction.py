"""What a network may predict: the noise, the clean image or the velocity. Each follows from any other and x_t.

noise    ε                                        x_t = √ᾱ x_start + √(1-ᾱ) ε
x_start  (x_t - √(1-ᾱ) ε) / √ᾱ
v        √ᾱ ε - √(1-ᾱ) x_start                    Salimans & Ho 2022 (arXiv 2202.00512), appendix D
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from course_lib.diffusion.schedule import Schedule, gather

KINDS = ("noise", "x_start", "v")
Clip = tuple[float | int, float | int] | None  # (lowest, highest) of the data, or None


def convert(
    schedule: Schedule,
    x_t: Float[Tensor, "batch *shape"],
    t: Int[Tensor, "..."] | int,
    value: Float[Tensor, "batch *shape"],
    source: str,
    target: str,
) -> Float[Tensor, "batch *shape"]:
    """Rewrite a prediction `value` of kind `source` as kind `target`; each is "noise", "x_start" or "v".

    t: (batch,) or one whole number, 0…T-1. Converting to noise divides by √(1-ᾱ_t) and to x_start by √ᾱ_t, so errors
    of the prediction grow by that much: by 1/0.01 at the first step of the linear schedule, 1/0.0064 at the last.
    """
    check_kind(source, "source")
    check_kind(target, "target")
    same_shape(x_t, value=value)
    if source == target:
        return value
    value = value.to(x_t.dtype)
    signal, noise_std = gather(schedule.sqrt_alpha_bars, t, x_t), gather(schedule.noise_std, t, x_t)
    match source, target:
        case "noise", "x_start":
            return gather(schedule.recip_sqrt_alpha_bars, t, x_t) * x_t - (
                gather(schedule.recipm1_sqrt_alpha_bars, t, x_t) * value
            )
        case "x_start", "noise":
            return (x_t - signal * value) / noise_std
        case "v", "x_start":
            return signal * x_t - noise_std * value
        case "v", "noise":
            return noise_std * x_t + signal * value
        case "noise", "v":
            return (value - noise_std * x_t) / signal
        case _:  # "x_start", "v"
            return (signal * x_t - value) / noise_std


def x_start_and_noise(
    schedule: Schedule,
    x_t: Float[Tensor, "batch *shape"],
    t: Int[Tensor, "..."] | int,
    prediction: Float[Tensor, "batch *shape"],
    kind: str,
    clip: Clip = None,
) -> tuple[Float[Tensor, "batch *shape"], Float[Tensor, "batch *shape"]]:
    """Both readings of one prediction: the clean image it implies, and the noise.

    clip=(lowest, highest) clips x_start to the range of the data and derives the noise again from the clipped image:
    the two must belong to the same x_t, or the step goes to a place that neither of them means.
    """
    check_kind(kind, "kind")
    x_start = convert(schedule, x_t, t, prediction, kind, "x_start")
    if clip is None:
        return x_start, convert(schedule, x_t, t, prediction, kind, "noise")
    x_start = x_start.clamp(*checked_clip(clip))
    return x_start, convert(schedule, x_t, t, x_start, "x_start", "noise")


def prediction_kind(model: object, kind: str | None) -> str:
    """What `model` predicts: `kind`, or else the model's own attribute `prediction`. Declared, never guessed."""
    declared = getattr(model, "prediction", None)
    if kind is None and declared is None:
        raise ValueError(
            f"{type(model).__name__} does not say what it predicts: give it an attribute prediction = 'noise', "
            "'x_start' or 'v', or pass kind='noise' …"
        )
    if kind is not None and declared is not None and kind != declared:
        raise ValueError(f"kind={kind!r} contradicts the model, whose prediction is {declared!r}; leave kind out")
    return check_kind(kind or declared, "kind")


def check_kind(kind: object, name: str) -> str:
    """`kind` itself. Raises ValueError unless it is one of the three."""
    if kind not in KINDS:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
    return kind


def checked_clip(clip: object) -> tuple[float, float]:
    """`clip` itself. Raises ValueError unless it is a pair (lowest, highest)."""
    if not isinstance(clip, tuple | list) or len(clip) != 2 or not clip[0] < clip[1]:
        raise ValueError(f"clip must be None or a pair (lowest, highest), such as (-1, 1) for images; got {clip!r}")
    return float(clip[0]), float(clip[1])


def same_shape(x_t: Tensor, **others: Tensor) -> None:
    """TypeError unless `x_t` is a float tensor, ValueError unless the others are tensors of its shape."""
    if not isinstance(x_t, Tensor) or not x_t.is_floating_point():
        raise TypeError(
            f"x_t must be a float tensor, got {x_t.dtype if isinstance(x_t, Tensor) else type(x_t).__name__}"
        )
    for name, value in others.items():
        if not isinstance(value, Tensor) or value.shape != x_t.shape:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name} must have the shape of x_t, {tuple(x_t.shape)}, got {given}")
