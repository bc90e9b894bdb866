"""What every function of this package asks of its arguments, so that one wrong number is named and not carried on.

All of them return float64: on the argument's own device, or on the CPU where that device has none (Apple's MPS).
"""

from __future__ import annotations

import torch
from torch import Tensor

SUM_TOLERANCE = 1e-6  # probabilities made in float32 miss 1 in the seventh digit


def real(value: object, name: str, axes: tuple[str, ...] | None = None) -> Tensor:
    """A finite float64 tensor; `axes` names the axes it must have, () for a single number."""
    if isinstance(value, Tensor):
        if value.dtype == torch.bool or value.is_complex():
            raise TypeError(f"{name} must hold real numbers, got {value.dtype}")
        device = "cpu" if value.device.type == "mps" else value.device
        tensor = value.to(device, torch.float64)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        tensor = torch.tensor(value, dtype=torch.float64)
    else:
        raise TypeError(f"{name} must be a tensor or a number, got {type(value).__name__}; torch.tensor(…) makes one")
    if axes is not None and tensor.ndim != len(axes):
        wanted = f"have shape ({', '.join(axes)}{',' * (len(axes) == 1)})" if axes else "be a single number"
        raise ValueError(f"{name} must {wanted}, got shape {tuple(tensor.shape)}")
    refuse(~torch.isfinite(tensor), tensor, name, "be finite")
    return tensor


def refuse(wrong: Tensor, tensor: Tensor, name: str, must: str) -> None:
    """Raise ValueError about the first entry of `tensor` where `wrong` holds."""
    if not wrong.any():
        return
    index = tuple(wrong.nonzero()[0].tolist())
    where = f"{name}[{', '.join(map(str, index))}] = " if index else ""
    raise ValueError(f"{name} must {must}, got {where}{tensor[index].item():.6g}")


def positive(value: object, name: str, axes: tuple[str, ...] | None = None) -> Tensor:
    """Numbers above 0."""
    tensor = real(value, name, axes)
    refuse(tensor <= 0, tensor, name, "be positive")
    return tensor


def not_negative(value: object, name: str, axes: tuple[str, ...] | None = None) -> Tensor:
    """Numbers of at least 0."""
    tensor = real(value, name, axes)
    refuse(tensor < 0, tensor, name, "not be negative")
    return tensor


def probabilities(value: object, name: str, axes: tuple[str, ...] | None = None) -> Tensor:
    """Distributions along the last axis. Sums within 1e-6 of 1 are accepted, and then made exactly 1."""
    tensor = not_negative(value, name, axes)
    if tensor.ndim == 0 or tensor.numel() == 0:
        raise ValueError(f"{name} must have at least one outcome, got shape {tuple(tensor.shape)}")
    totals = tensor.sum(-1, keepdim=True)
    wrong = (totals[..., 0] - 1).abs() > SUM_TOLERANCE
    if wrong.any():
        index = tuple(wrong.nonzero()[0].tolist())
        where, axis = (f"{name}[{', '.join(map(str, index))}]", " along its last axis") if index else ("it", "")
        raise ValueError(
            f"{name} must sum to 1{axis}, but {where} sums to {totals[index].item():.6g}: divide by the sum"
        )
    return tensor / totals


def joint_table(value: object, name: str, axes: tuple[str, ...] | None = None) -> Tensor:
    """A table of probabilities that sum to 1 over all its axes together."""
    tensor = real(value, name, axes)
    return probabilities(tensor.flatten(), name).reshape(tensor.shape)


def whole(value: object, name: str, least: int) -> int:
    """A whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {type(value).__name__} {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return value


def broadcast(**tensors: Tensor) -> tuple[Tensor, ...]:
    """All of them in one common shape; ValueError with every shape where there is none."""
    try:
        return tuple(torch.broadcast_tensors(*tensors.values()))
    except RuntimeError:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"these shapes do not fit together: {shapes}") from None


def same_length(axis: int = 0, **tensors: Tensor) -> None:
    """ValueError unless all have the same size along `axis`."""
    if len({tensor.shape[axis] for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"these must have the same length: {shapes}")
