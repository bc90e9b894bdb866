"""Save, verify and load tensors together with a card that says where they come from.

A checkpoint is two files: `NAME.safetensors` (numbers only: nothing in it can run code) and `NAME.json`, its card.
The card names the recipe, its configuration, seed, data, commit, hardware, minutes and metrics, and holds the SHA-256
of the other file, which every load compares. Measured curves are kept the same way, with `dtype=None`.

The pair stays whole whenever a save is stopped: the new card is first laid down as `NAME.json.next`, then the tensors
are replaced, then the card. A reader takes whichever card fits the tensors it finds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from course_lib import packing, runtime, squeezing

CARD_FIELDS = {
    "recipe": str,  # name in course_lib.recipes
    "config": dict,  # what the recipe was called with
    "seed": int,
    "data": str,  # which images, and which part of them
    "commit": str,  # of the code that made it
    "hardware": str,
    "minutes": (int, float),
    "metrics": dict,  # name -> {"value": number, "floor": number or null}
}
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or not the one its card describes. The files are left as they are."""


def _folder(folder: Path | str | None) -> Path:
    return Path(folder) if folder is not None else runtime.assets_root() / "checkpoints"


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"name={name!r} will not do; use lower-case letters, digits, '_' and '-', such as 'ddpm_shapes'"
        )
    return name


def _remedy(name: str) -> str:
    return f"install the course again, or make this checkpoint again with `course train {name}`"


# --- writing -------------------------------------------------------------------------------------------------------


def _checked_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `card`, or ValueError/TypeError naming the field that is missing or wrong."""
    missing = [field for field in CARD_FIELDS if field not in card]
    if missing:
        raise ValueError(f"card lacks {', '.join(missing)}; it needs {', '.join(CARD_FIELDS)}")
    for field, kind in CARD_FIELDS.items():
        if not isinstance(card[field], kind) or isinstance(card[field], bool):
            wanted = kind.__name__ if isinstance(kind, type) else "number"
            raise TypeError(f"card[{field!r}] must be a {wanted}, not {card[field]!r}")
    for metric, entry in card["metrics"].items():
        if not isinstance(entry, dict) or not {"value", "floor"} <= entry.keys():
            raise ValueError(
                f"card['metrics'][{metric!r}] must be a dict with 'value' and 'floor' (None where there is no floor), "
                f"not {entry!r}"
            )
    try:
        json.dumps(card, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"card cannot be written as JSON ({error}); use plain numbers, strings, lists and dicts"
        ) from None
    return dict(card)


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """`tensor` as it is written: on the CPU, contiguous, its own memory, and in `dtype` if it is floating."""
    result = tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    if dtype is None or not result.is_floating_point():
        return result
    narrowed = result.to(dtype)
    if not torch.equal(torch.isfinite(narrowed), torch.isfinite(result)):
        raise ValueError(
            f"tensors[{name!r}] reaches {result.abs().max().item():.3g}, too much for {dtype}; save with dtype=None"
        )
    return narrowed


def _without_ties(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each distinct tensor once, and `{other name: first name}` for tied ones (the very same memory, seen alike)."""
    first: dict[tuple, str] = {}
    kept: dict[str, Tensor] = {}
    ties: dict[str, str] = {}
    for name, tensor in tensors.items():
        view = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and view in first:
            ties[name] = first[view]
        else:
            first[view] = name
            kept[name] = tensor
    return kept, ties


def save(
    name: str,
    tensors: Mapping[str, Tensor],
    card: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = torch.float16,
    packed: bool = False,
    exact: Collection[str] = (),
    largest: int = packing.LARGEST,
    folder: Path | str | None = None,
) -> Path:
    """Write `tensors` and their `card` under `name`; returns the path of the `.safetensors` file.

    Floating tensors are stored in `dtype` (None keeps each as it is); others always as they are. `packed` stores large
    ones in eight bits, or fewer (`packing.pack`: `exact`, `largest`), and `load` unpacks them. All are then
    compressed without loss (`course_lib.squeezing`). Tied tensors are stored once and come back tied. Raises
    ValueError/TypeError for a bad name, tensor or card (`CARD_FIELDS`), or for a value that `dtype` cannot hold.
    """
    _checked_name(name)
    card = _checked_card(card)
    if not tensors:
        raise ValueError("tensors is empty; give at least one tensor")
    for key, tensor in tensors.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise TypeError(f"tensors[{key!r}] must be a torch.Tensor under a string, not {type(tensor).__name__}")
    kept, ties = _without_ties(tensors)
    kept = packing.pack(kept, exact, largest) if packed else kept
    stored = {key: _stored(key, tensor, dtype) for key, tensor in kept.items()}
    blob = to_safetensors(squeezing.squeeze(stored))
    card["ties"] = ties
    card["sha256"] = hashlib.sha256(blob).hexdigest()
    text = json.dumps(card, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    weights = _folder(folder) / f"{name}.safetensors"
    final, pending = weights.with_suffix(".json"), weights.with_suffix(".json.next")
    with runtime.replacing(pending) as temporary:
        temporary.write_text(text, encoding="utf-8")
    with runtime.replacing(weights) as temporary:
        temporary.write_bytes(blob)
    pending.replace(final)
    return weights


# --- reading -------------------------------------------------------------------------------------------------------


def _read(name: str, folder: Path | str | None) -> tuple[bytes, dict[str, Any]]:
    """The file's bytes and the card that fits them, or CheckpointError."""
    weights = _folder(folder) / f"{_checked_name(name)}.safetensors"
    try:
        blob = weights.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"no checkpoint at {weights}; {_remedy(name)}") from None
    digest = hashlib.sha256(blob).hexdigest()
    card_path = weights.with_suffix(".json")
    damage = f"{weights} has no card at {card_path.name}"
    for path in (card_path, weights.with_suffix(".json.next")):  # the second: a save that stopped before its last step
        try:
            card = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except ValueError as error:
            damage = f"{path} is damaged: not JSON ({error})"
            continue
        if not isinstance(card, dict) or not isinstance(card.get("sha256"), str):
            damage = f"{path} is damaged: it holds no SHA-256"
        elif card["sha256"] != digest:
            damage = f"{weights} is damaged: its SHA-256 is not the one on its card"
        else:
            return blob, card
    raise CheckpointError(f"{damage}; {_remedy(name)}")


def load(
    name: str, *, folder: Path | str | None = None, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """`(tensors, card)` of checkpoint `name`, checked against its SHA-256; tensors as stored, packed ones in float32.

    Raises CheckpointError, which names the file and the remedy, when anything is missing or damaged.
    """
    blob, card = _read(name, folder)
    try:
        tensors = packing.unpack(squeezing.expand(parse_safetensors(blob)))
        tensors = {key: tensor.to(device) for key, tensor in tensors.items()}
        tensors.update({other: tensors[first] for other, first in card.get("ties", {}).items()})
    except (SafetensorError, KeyError, ValueError) as error:
        path = _folder(folder) / f"{name}.safetensors"
        raise CheckpointError(f"{path} is damaged: {error}; {_remedy(name)}") from None
    return tensors, card


def verify(name: str, *, folder: Path | str | None = None) -> dict[str, Any]:
    """The card of checkpoint `name` if its file, hash and card fields are in order; else CheckpointError."""
    _, card = load(name, folder=folder)
    try:
        return _checked_card(card)
    except (TypeError, ValueError) as error:
        path = _folder(folder) / f"{name}.json"
        raise CheckpointError(f"{path}: {error}; {_remedy(name)}") from None


def names(*, folder: Path | str | None = None) -> list[str]:
    """Names of the checkpoints in `folder` (default: the shipped ones), half-present ones included, sorted."""
    found = _folder(folder)
    return sorted({path.stem for pattern in ("*.safetensors", "*.json") for path in found.glob(pattern)})


def verify_all(*, folder: Path | str | None = None) -> dict[str, CheckpointError | None]:
    """What is wrong with each checkpoint in `folder`: `{name: error, or None where all is well}`."""
    result: dict[str, CheckpointError | None] = {}
    for name in names(folder=folder):
        try:
            verify(name, folder=folder)
            result[name] = None
        except (CheckpointError, ValueError) as error:  # ValueError: a file whose name no save would have given
            result[name] = error if isinstance(error, CheckpointError) else CheckpointError(str(error))
    return result
