"""The call in every lesson's set-up cell. Standard library only until the dependencies are known to be there."""

from __future__ import annotations

import platform
import sys


def setup() -> None:
    """Make the lesson ready to run and say on one line which profile, device and precision are in use.

    On Colab and Kaggle it first fetches what is missing, and never replaces torch or numpy.
    """
    from course_lib.lesson import dependencies

    dependencies.ensure()

    import torch

    from course_lib import __version__, runtime

    device = runtime.device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    precision = str(runtime.precision(device)).removeprefix("torch.")
    print(
        f"course {__version__} · profile {runtime.profile()} · device {device.type} ({name}) · precision {precision} · "
        f"torch {torch.__version__} · Python {platform.python_version()}"
    )
    sys.stdout.flush()
