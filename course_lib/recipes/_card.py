"""What a card says about the machine and the code that made a checkpoint."""

from __future__ import annotations

import platform
import subprocess

import torch

from course_lib import runtime


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
