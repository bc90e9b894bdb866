"""A ControlNet for edges on lesson 15's text-to-image model: where the contours go is drawn, the rest is said.

The base is locked. Every so many steps the network is asked to draw unseen scenes, so that the moment shows at which it
begins to obey.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib import runtime
from course_lib.models.controlnet import ControlNet
from course_lib.recipes import _control_exam, _control_run
from course_lib.recipes._control import NO_TEXT, SCENES
from course_lib.recipes._control_run import Plan, plan_for

NAME = "controlnet_edges"
PLAN = plan_for("edges")


def load(device: torch.device | str | None = None) -> ControlNet:
    """The shipped ControlNet, in eval mode. Raises CheckpointError where it is missing or damaged."""
    return _control_run.load(NAME, PLAN, device)


def curve() -> dict[str, Float[Tensor, " points"]]:
    """What was measured while it was trained, see `_control_run.curve`."""
    return _control_run.curve(NAME)


def dropping(folder: Path | None, steps: int = 400, scenes: int = SCENES) -> dict[str, Any]:
    """Two short trainings that differ in the share of withheld prompts only: edge F1 by an empty prompt after each."""
    found = {}
    for share, told in ((NO_TEXT, "half of the prompts withheld"), (0.0, "none withheld")):
        short = dataclasses.replace(PLAN, fit=dataclasses.replace(PLAN.fit, steps=steps), no_text=share)
        net = _control_run.run(short, folder and folder / f"withheld_{share}", scenes).best
        for name, entry in _control_exam.by_prompt(PLAN.kind, net).items():
            found[f"{name}, after {steps} steps with {told}"] = entry
    return found


def train(folder: Path | str | None = None, plan: Plan = PLAN) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint with its card."""
    place = Path(folder or runtime.state_root() / "runs" / NAME)
    _control_run.train(NAME, plan, place, also=lambda net: dropping(place))
