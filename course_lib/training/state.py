"""The state of a training run in one file: written in one step, read back only if it is whole and fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from course_lib import runtime


class RunError(RuntimeError):
    """A stored training run is damaged or is not the run that was asked for. The file is left as it is."""


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts (anything JSON can hold) into one safetensors file that replaces `path` in one step."""
    blob = to_safetensors(
        {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()},
        metadata={"facts": json.dumps(facts, sort_keys=True)},
    )
    with runtime.replacing(path) as temporary:
        temporary.write_bytes(blob)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`(tensors, facts)` as `write` stored them. Raises RunError, which names the file, if it is not such a file."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(
            f"{path} is damaged or is no training state ({error}); move it away to start this run from the beginning"
        ) from None


def copy_into(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str, path: Path) -> None:
    """Load `tensors` named `prefix…` into `module`. Raises RunError where names or shapes differ."""
    stored = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    own = module.state_dict()
    if stored.keys() != own.keys() or any(stored[name].shape != own[name].shape for name in own):
        differing = sorted(stored.keys() ^ own.keys()) or [n for n in own if stored[n].shape != own[n].shape]
        raise RunError(
            f"{path} holds a network of another architecture (it differs in {', '.join(differing[:3])}"
            f"{' …' if len(differing) > 3 else ''}); use another folder for this run"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """The optimiser's memory, flat: `prefix` + number of the parameter + name of the quantity."""
    return {
        f"{prefix}{number}.{name}": value
        for number, entries in optimizer.state_dict()["state"].items()
        for name, value in entries.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(prefix):
            number, name = key.removeprefix(prefix).split(".")
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
