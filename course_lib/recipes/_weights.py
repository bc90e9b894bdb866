"""From a training run to a shipped checkpoint and back, for networks that were trained with a CLIP."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from course_lib import checkpoints, runtime
from course_lib.models.clip import CLIP
from course_lib.recipes import _card
from course_lib.training import FitConfig, Fitted, fit

Network = TypeVar("Network", bound=nn.Module)


INTO_THE_SPACE = ("image.project.weight", "text.project.weight")  # of a CLIP; stored in sixteen bits


def fingerprint(clip: CLIP) -> int:
    """A number that tells one CLIP from another: of the weights that lead into the shared space."""
    parts = [clip.get_parameter(name) for name in INTO_THE_SPACE]
    blob = b"".join(part.detach().half().cpu().contiguous().numpy().tobytes() for part in parts)
    return zlib.crc32(blob)


def load_into(
    model: Network, name: str, device: torch.device | str | None = None, without: str | None = None
) -> Network:
    """The network with the weights of checkpoint `name`, in eval mode, in float32, without gradients.

    `without`: what the names of tensors begin with that are no weights. Its `clip_fingerprint` says which CLIP it was
    trained with. Raises CheckpointError for a missing or damaged file.
    """
    tensors, card = checkpoints.load(name, device=device or runtime.device())
    model = model.to(device or runtime.device())
    try:
        model.load_state_dict(
            {key: tensor.float() for key, tensor in tensors.items() if without is None or not key.startswith(without)}
        )
    except RuntimeError as error:
        raise checkpoints.CheckpointError(
            f"checkpoint {name!r} was made by another version of its network ({error}); make it again with "
            f"`course train {name}`"
        ) from None
    model.clip_fingerprint = card["config"].get("clip")
    return model.eval().requires_grad_(False)


def take_over(model: Network, weights: dict[str, Tensor]) -> Network:
    """Copy into `model` all weights that have the name and the shape of one of its own; the others stay."""
    own = model.state_dict()
    fits = {name: weights[name] for name in own if name in weights and weights[name].shape == own[name].shape}
    model.load_state_dict(own | fits)
    return model


@dataclasses.dataclass(frozen=True)
class Round:
    """One round of training: the network's configuration, and how it is trained."""

    network: Any
    fit: FitConfig


def fit_rounds(
    rounds: Sequence[Round], new: Callable[..., nn.Module], loss: Callable, data: Any, folder: Path | str | None
) -> Fitted:
    """Train in rounds. Each begins with the moving average of the one before, as far as names and shapes agree.

    `new(seed, network)` makes an untrained network; `seconds` counts all rounds; each keeps its state in a folder.
    """
    seconds, found = 0.0, None
    for number, part in enumerate(rounds, start=1):
        model = new(part.fit.seed, part.network)
        if found is not None:
            take_over(model, found.best.state_dict())
        place = folder and Path(folder) / f"round_{number}"
        found = fit(model, loss, data, len(data), part.fit, folder=place)
        seconds += found.seconds
    return dataclasses.replace(found, seconds=seconds)


def ship(
    name: str, found: Fitted, rounds: Sequence[Round], *, clip: CLIP | None, data: str,
    measure: Callable[[], dict[str, Any]],
) -> Path:  # fmt: skip
    """Store what a run gave, in eight bits, then what `measure()` says of it as shipped; returns the file's path.

    The checkpoint is there before the minutes of measuring. `clip`: the one that it was trained with, if any.
    """
    state = found.best.state_dict()
    config = {
        "network": dataclasses.asdict(rounds[-1].network),
        "clip": None if clip is None else fingerprint(clip),
        "rounds": [dataclasses.asdict(part) for part in rounds],
    }

    def store(metrics: dict[str, Any]) -> Path:
        seed = rounds[0].fit.seed
        card = _card.made(name, config=config, seed=seed, data=data, seconds=found.seconds, metrics=metrics)
        return checkpoints.save(name, state, card, packed=True)

    store({})
    metrics = measure()
    for what, entry in metrics.items():
        print(f"{what}: {entry['value']}")
    path = store(metrics)
    print(f"written: {path}")
    return path
