"""A ControlNet for depth on lesson 15's text-to-image model: what is near, what is behind it, what is ground.

Not shipped: `course train controlnet_depth` makes it.
"""

from __future__ import annotations

from pathlib import Path

import torch

from course_lib.data.shapes_control import CONTROL_CHANNELS
from course_lib.models.controlnet import ControlNet, ControlNetConfig
from course_lib.recipes import _control_run
from course_lib.recipes._control_run import Plan
from course_lib.training import FitConfig

NAME = "controlnet_depth"
PLAN = Plan(
    kind="depth",
    network=ControlNetConfig(channels=CONTROL_CHANNELS["depth"], widths=(16, 32)),
    fit=FitConfig(
        steps=1_200, batch_size=64, learning_rate=7e-4, warmup=50, ema=0.99, evaluate_every=20, save_every=120.0
    ),
)


def load(device: torch.device | str | None = None) -> ControlNet:
    """The trained ControlNet, in eval mode. Raises CheckpointError where it is missing or damaged."""
    return _control_run.load(NAME, PLAN, device)


def train(folder: Path | str | None = None, plan: Plan = PLAN) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint with its card."""
    _control_run.train(NAME, plan, folder)
