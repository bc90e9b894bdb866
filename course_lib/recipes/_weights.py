"""From a training run to a shipped checkpoint and back, for networks that were trained with a CLIP."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from course_lib import checkpoints, runtime
from course_lib.models.clip import CLIP
from course_lib.recipes import _card
from course_lib.training import FitConfig, Fitted

Network = TypeVar("Network", bound=nn.Module)


def fingerprint(clip: CLIP) -> int:
    """A number that tells one CLIP from another: of the weights that lead into the shared space."""
    parts = (clip.image.project.weight, clip.text.project.weight)
    blob = b"".join(part.detach().half().cpu().contiguous().numpy().tobytes() for part in parts)
    return zlib.crc32(blob)


def load_into(model: Network, name: str, device: torch.device | str | None = None) -> Network:
    """The network with the weights of checkpoint `name`, in eval mode, in float32, without gradients.

    Its `clip_fingerprint` says which CLIP it was trained with. Raises CheckpointError for a missing or damaged file.
    """
    tensors, card = checkpoints.load(name, device=device or runtime.device())
    model = model.to(device or runtime.device())
    model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})
    model.clip_fingerprint = card["config"].get("clip")
    return model.eval().requires_grad_(False)


def ship(
    name: str, found: Fitted, config: FitConfig, *, network: Any, clip: CLIP, data: str,
    measure: Callable[[], dict[str, Any]],
) -> Path:  # fmt: skip
    """Store what a run gave, in eight bits, then what `measure()` says of it as shipped; returns the file's path.

    `network` is its configuration, a dataclass. The checkpoint is there before the minutes of measuring.
    """
    state = found.best.state_dict()
    settings = {"network": dataclasses.asdict(network), "clip": fingerprint(clip)}

    def store(metrics: dict[str, Any]) -> Path:
        card = _card.of_run(name, config, found, data=data, metrics=metrics, **settings)
        return checkpoints.save(name, state, card, packed=True)

    store({})
    metrics = measure()
    for what, entry in metrics.items():
        print(f"{what}: {entry['value']}")
    path = store(metrics)
    print(f"written: {path}")
    return path
