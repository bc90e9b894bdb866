"""What a card says about the machine and the code that made a checkpoint."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
from typing import Any

import torch

from course_lib import runtime
from course_lib.training import FitConfig, Fitted


def hardware() -> str:
    """Processor, threads and GPU, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = torch.cpu.get_capabilities().get("cpu_name", "") if hasattr(torch.cpu, "get_capabilities") else ""
    return f"{name or platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, no GPU"


def commit() -> str:
    """The checkout's commit, with `+changes` where files differ from it; "unknown" outside a checkout."""
    root = runtime.checkout()
    try:
        found = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD"], cwd=root, capture_output=True)
    except OSError:
        return "unknown"
    if root is None or found.returncode:
        return "unknown"
    return found.stdout.strip() + ("+changes" if changed.returncode else "")


def made(
    name: str, *, config: dict[str, Any], seed: int, data: str, seconds: float, metrics: dict[str, Any]
) -> dict[str, Any]:
    """The card of what a recipe has made, here and now: code, hardware and precision are looked up."""
    return {
        "recipe": name,
        "config": {**config, "precision": str(runtime.precision())},
        "seed": seed,
        "data": data,
        "commit": commit(),
        "hardware": hardware(),
        "minutes": round(seconds / 60, 1),
        "metrics": metrics,
    }


def of_run(
    name: str, config: FitConfig, run: Fitted, data: str, metrics: dict[str, Any], **more: Any
) -> dict[str, Any]:
    """The card of a network that `fit` trained; `more` goes into its configuration (the network's own, say)."""
    settings = {**more, "training": dataclasses.asdict(config)}
    return made(name, config=settings, seed=config.seed, data=data, seconds=run.seconds, metrics=metrics)
