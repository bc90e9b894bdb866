"""Where the course runs and how: device, precision, profile, seeds and folders.

Every choice has a default that works on a laptop and an environment variable that overrides it:

=================== ============================================ ===========================
variable            values                                       default
=================== ============================================ ===========================
`COURSE_PROFILE`    `quick`, `full`                              `quick`
`COURSE_DEVICE`     `cpu`, `cuda`, `cuda:1`, `mps` …             best one found
`COURSE_PRECISION`  `auto`, `float32`, `bfloat16`, `float16`     `auto`
`COURSE_STEPS`      a positive whole number                      the lesson's own table
`COURSE_DATA`       folder for downloaded images                 `data/` in the checkout
`COURSE_STATE`      folder for exercise progress                 `.course/` in the checkout
=================== ============================================ ===========================

Variables are read at each call, never cached: a notebook may set one and carry on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PACKAGE = Path(__file__).resolve().parent


def _choice(variable: str, allowed: tuple[str, ...], default: str) -> str:
    value = os.environ.get(variable, "").strip() or default
    if value not in allowed:
        raise ValueError(f"{variable}={value!r} is not known; set it to one of: {', '.join(allowed)}")
    return value


def profile() -> Literal["quick", "full"]:
    """`quick` (sizes for two CPU cores) or `full` (sizes for a GPU). Raises ValueError for anything else."""
    return _choice("COURSE_PROFILE", ("quick", "full"), "quick")


def steps(default: int) -> int:
    """Number of training or measuring steps: `default`, unless `COURSE_STEPS` says otherwise."""
    value = os.environ.get("COURSE_STEPS", "").strip()
    if not value:
        return default
    if not value.isdigit() or int(value) < 1:
        raise ValueError(f"COURSE_STEPS={value!r} must be a whole number of at least 1")
    return int(value)


def device() -> torch.device:
    """The device to compute on: `COURSE_DEVICE` if set, else cuda, mps or cpu, in that order."""
    name = os.environ.get("COURSE_DEVICE", "").strip()
    if name:
        try:
            chosen = torch.device(name)
        except RuntimeError:
            raise ValueError(f"COURSE_DEVICE={name!r} is no device name; try cpu, cuda or mps") from None
        missing = (chosen.type == "cuda" and not torch.cuda.is_available()) or (
            chosen.type == "mps" and not torch.backends.mps.is_available()
        )
        if missing:
            raise ValueError(f"COURSE_DEVICE={name!r} is not available on this machine; unset it or use cpu")
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _cpu_has_bfloat16() -> bool:
    """Does this processor multiply bfloat16 matrices in hardware (AVX512-BF16, AMX, or Arm's BF16)?"""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:  # macOS and Windows: no such file; float32 is the safe answer there
        return False
    if platform.machine() in ("aarch64", "arm64"):
        return " bf16" in flags
    return "avx512_bf16" in flags or "amx_bf16" in flags


def precision(on: torch.device | str | None = None) -> torch.dtype:
    """The dtype for networks on device `on` (default: `device()`).

    `auto` means bfloat16 where the hardware multiplies it, float16 on older GPUs (a T4: use loss scaling),
    float32 elsewhere. Closed forms stay in float64 and schedules on the CPU whatever this says.
    """
    name = _choice("COURSE_PRECISION", ("auto", *PRECISIONS), "auto")
    if name != "auto":
        return PRECISIONS[name]
    kind = torch.device(on).type if on is not None else device().type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    if kind == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def autocast(on: torch.device | str | None = None) -> torch.autocast:
    """A context in which networks on device `on` compute in `precision(on)`; a no-op for float32."""
    kind = torch.device(on).type if on is not None else device().type
    dtype = precision(on)
    return torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32)


def keep_memory() -> bool:
    """Ask the C library to keep freed memory for the next array instead of handing it back: True where that is known.

    glibc returns every array above 128 kB to the system, which has to clear its pages when the next layer of a network
    asks for them again: a large part of the time of a training step on a CPU. Holds for the rest of the process.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # names and numbers of malloc.h
    wanted = {mmap_threshold: 32 << 20, trim_threshold: 2**31 - 1, top_pad: 64 << 20}  # 32 MB is the most it takes
    return all(mallopt(option, value) == 1 for option, value in wanted.items())


def generator(seed: int, on: torch.device | str = "cpu") -> torch.Generator:
    """A fresh random generator: the same seed gives the same numbers, whatever ran before."""
    return torch.Generator(on).manual_seed(seed)


def seed_everything(seed: int) -> torch.Generator:
    """Seed Python's, NumPy's and torch's global generators (all devices); returns a CPU generator with the same seed.

    The library itself never draws from the global state: pass the generator on. Other people's code may.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the old global state is exactly what is meant
    torch.manual_seed(seed)
    return generator(seed)


# --- folders -------------------------------------------------------------------------------------------------------


def checkout() -> Path | None:
    """The repository this package runs from, or None where it was installed as a wheel."""
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "notebooks").is_dir() else None


def _folder(variable: str, in_checkout: str, elsewhere: str) -> Path:
    chosen = os.environ.get(variable, "").strip()
    if chosen:
        return Path(chosen).expanduser().resolve()
    root = checkout()
    return root / in_checkout if root else Path.home() / elsewhere


def data_root() -> Path:
    """Folder that holds the downloaded image sets (`COURSE_DATA`)."""
    return _folder("COURSE_DATA", "data", ".cache/generative-image-models")


def state_root() -> Path:
    """Folder that holds the learner's progress (`COURSE_STATE`)."""
    return _folder("COURSE_STATE", ".course", ".generative-image-models")


def _shipped(name: str) -> Path:
    root = checkout()
    return root / name if root else _PACKAGE / "_shipped" / name


def assets_root() -> Path:
    """Folder with `checkpoints/` and `figures/`: in the checkout, or inside the installed package."""
    return _shipped("assets")


def notebooks_root() -> Path:
    """Folder with the lessons as shipped: in the checkout, or inside the installed package."""
    return _shipped("notebooks")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path` in one step, on failure it vanishes.

    So a half-written file never takes the place of a good one, whenever the program is stopped.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
