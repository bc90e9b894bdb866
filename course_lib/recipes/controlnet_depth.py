"""A ControlNet for depth on lesson 15's text-to-image model: what is near, what is behind it, what is ground.

Not shipped: `course train controlnet_depth` makes it.
"""

from __future__ import annotations

from pathlib import Path

import torch

from course_lib.models.controlnet import ControlNet
from course_lib.recipes import _control_run
from course_lib.recipes._control_run import Plan, plan_for

NAME = "controlnet_depth"
PLAN = plan_for("depth")


def load(device: torch.device | str | None = None) -> ControlNet:
    """The trained ControlNet, in eval mode. Raises CheckpointError where it is missing or damaged."""
    return _control_run.load(NAME, PLAN, device)


def train(folder: Path | str | None = None, plan: Plan = PLAN) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint with its card."""
    _control_run.train(NAME, plan, folder)
