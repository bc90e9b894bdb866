"""How many numbers a network holds, and where."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.utils.hooks
from torch import Tensor, nn


class Count(NamedTuple):
    """Numbers that training changes, and numbers that stay: parameters without gradient, and buffers (tables)."""

    learned: int
    fixed: int

    @property
    def total(self) -> int:
        return self.learned + self.fixed


def count_parameters(module: nn.Module) -> Count:
    """How many numbers `module` holds. Shared ones count once, BatchNorm's counters and other integers do not."""
    parameters = list(module.parameters())
    learned = sum(p.numel() for p in parameters if p.requires_grad)
    buffers = sum(b.numel() for b in module.buffers() if b.is_floating_point())
    return Count(learned, sum(p.numel() for p in parameters) - learned + buffers)


@torch.no_grad()
def summary(module: nn.Module, *inputs: Tensor) -> str:
    """A table of `module(*inputs)`: its parts in the order in which they are called, what shape comes out, their size.

    Lists of parts are opened. Works on the meta device, where nothing is computed. What is never called, or belongs to
    no part, is counted in the line before the last.
    """
    rows: list[tuple[str, str, str, int]] = []

    def watch(part: nn.Module, name: str) -> torch.utils.hooks.RemovableHandle:
        def note(_part: nn.Module, _inputs: object, output: Tensor) -> None:
            rows.append((name, _kind(part), "×".join(map(str, output.shape[1:])), count_parameters(part).total))

        return part.register_forward_hook(note)

    handles = [watch(part, name) for name, part in _parts(module)]
    try:
        module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    total = count_parameters(module).total
    left = total - sum({name: size for name, _, _, size in rows}.values())
    rows += [("(others)", "", "", left)] if left else []
    rows.append(("all", type(module).__name__, "", total))
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    lines = (f"{n:{widths[0]}}  {kind:{widths[1]}}  {shape:>{widths[2]}}  {size:>11,}" for n, kind, shape, size in rows)
    return "\n".join(lines)


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, part in module.named_children():
        if isinstance(part, nn.ModuleList):
            yield from ((f"{name}.{inner}", found) for inner, found in _parts(part))
        else:
            yield name, part


def _kind(part: nn.Module) -> str:
    """`ResidualBlock + Upsample` for a sequence that has no name of its own, else the type's name."""
    plain = type(part).__name__ in ("Sequential", "TimestepSequential")
    return " + ".join(_kind(child) for child in part) if plain else type(part).__name__
