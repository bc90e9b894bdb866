"""A ControlNet for keypoints on lesson 15's text-to-image model: five spots per object, each in a channel of its own.

What thing it is, and its color, is said. The spots also tell a square, whose corners they mark, from a circle.
"""

from __future__ import annotations

from pathlib import Path

import torch

from course_lib.models.controlnet import ControlNet
from course_lib.recipes import _control_exam, _control_run, controlnet_edges
from course_lib.recipes._control_run import Plan, plan_for

NAME = "controlnet_keypoints"
PLAN = plan_for("keypoints")


def load(device: torch.device | str | None = None) -> ControlNet:
    """The trained ControlNet, in eval mode. Raises CheckpointError where it is missing or damaged."""
    return _control_run.load(NAME, PLAN, device)


def train(folder: Path | str | None = None, plan: Plan = PLAN) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint with its card."""
    _control_run.train(NAME, plan, folder, also=lambda net: _control_exam.measure_both(controlnet_edges.load(), net))
