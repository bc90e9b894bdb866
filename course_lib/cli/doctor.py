"""`course doctor`: one line for each thing the course stands on, `ok` or what to do about it."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

GB = 1e9
OLDEST_PYTHON = (3, 11)
REINSTALL = "run `make lab` (without make: the pip commands in README.md)"


@dataclass(frozen=True)
class Finding:
    """`ok`; `note`: the course runs, but could run better; `stop`: it does not run until this is mended."""

    verdict: Literal["ok", "note", "stop"]
    text: str


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        return Finding("stop", f"{version} is too old; make the environment with Python 3.11 or newer")
    return Finding("ok", f"{version} ({sys.executable})")


def _torch() -> Finding:
    import torch

    try:
        import torchvision
        from torchvision.ops import nms  # noqa: F401  # fails where torch and torchvision are of different builds
    except (ImportError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = "install both together: pip install --force-reinstall torch torchvision -c constraints.txt"
        return Finding("stop", f"torchvision does not fit torch {torch.__version__} ({first}); {remedy}")
    return Finding("ok", f"{torch.__version__}, torchvision {torchvision.__version__}")


def _packages() -> Finding:
    from course_lib import __version__
    from course_lib.lesson.dependencies import survey

    missing, old = survey()
    if missing:
        return Finding("stop", f"missing: {', '.join(missing)}; {REINSTALL}")
    if old:
        return Finding("note", f"{'; '.join(old)}; {REINSTALL}")
    from course_lib import runtime  # not before: it needs torch

    where = runtime.checkout()
    return Finding("ok", f"course {__version__} ({f'checkout {where}' if where else 'installed package'})")


def _device() -> Finding:
    import torch

    from course_lib import runtime

    device = runtime.device()
    if device.type == "cuda":
        return Finding("ok", f"{device}: {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
    if device.type == "mps":
        return Finding("ok", "mps (Apple GPU)")
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        remedy = "`nvidia-smi` tells the driver's version, PyTorch's 'Get started' page a build that fits it"
        return Finding("note", f"cpu: an NVIDIA driver is here, but this torch cannot use it; {remedy}")
    return Finding("ok", f"cpu, {torch.get_num_threads()} threads (no lesson needs a GPU)")


def _precision() -> Finding:
    from course_lib import runtime

    name = str(runtime.precision()).removeprefix("torch.")
    return Finding("ok", f"{name} for networks")


def _profile() -> Finding:
    from course_lib import runtime

    return Finding("ok", runtime.profile())


def _total_memory() -> float | None:
    """Bytes of main memory, or None where the system does not say."""
    if sys.platform == "win32":

        class Status(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
                (field, ctypes.c_ulonglong) for field in ("total", "free", "c", "d", "e", "f", "g")
            ]

        status = Status(length=ctypes.sizeof(Status))
        return status.total if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _memory() -> Finding:
    import torch

    from course_lib import runtime

    total = _total_memory()
    text = f"{total / GB:.0f} GB" if total else "the system does not say how much"
    device = runtime.device()
    if device.type == "cuda":
        free, all_of_it = torch.cuda.mem_get_info(device)
        text += f"; GPU {free / GB:.0f} of {all_of_it / GB:.0f} GB free"
    if total and total < 4 * GB:
        return Finding("note", f"{text}; close other programs, 4 GB are comfortable")
    return Finding("ok", text)


def _disk() -> Finding:
    from course_lib import runtime

    place = runtime.data_root()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < 0.5 * GB:
        return Finding("note", f"{free / GB:.1f} GB free at {place}; the images need 0.3 GB (COURSE_DATA moves them)")
    return Finding("ok", f"{free / GB:.0f} GB free at {place}")


def _data() -> Finding:
    from course_lib import runtime
    from course_lib.data.archives import SOURCES, DamagedArchive, complete

    root = runtime.data_root()
    try:
        absent = [source.folder for name, source in SOURCES.items() if not complete(name, root)]
    except DamagedArchive as error:
        return Finding("stop", str(error))
    if absent:
        remedy = "fetched at first use, and without network the lessons use shapes"
        return Finding("note", f"{' and '.join(absent)} not yet in {root}; {remedy}")
    return Finding("ok", f"FashionMNIST and MNIST in {root}, checksums right")


def _checkpoints() -> Finding:
    from course_lib import checkpoints

    results = checkpoints.verify_all()
    wrong = [str(error) for error in results.values() if error]
    if wrong:
        return Finding("stop", "; ".join(wrong))
    return Finding("ok", f"{len(results)} verified" if results else "none shipped yet, none needed")


def _lessons() -> Finding:
    from course_lib import runtime

    found = sorted(Path(runtime.notebooks_root()).glob("[0-9][0-9]_*.ipynb"))
    return Finding("ok", f"{len(found)} shipped") if found else Finding("stop", f"none found; {REINSTALL}")


def _kernel() -> Finding:
    try:
        import jupyterlab  # noqa: F401
        from jupyter_client.manager import start_new_kernel
    except ImportError as error:
        return Finding("stop", f"{error}; {REINSTALL}")
    lines: list[str] = []
    manager, client = start_new_kernel(kernel_name="python3", startup_timeout=60, stderr=subprocess.DEVNULL)
    try:
        client.execute_interactive(
            "import sys, course_lib; print(sys.prefix)",
            timeout=60,
            output_hook=lambda message: lines.append(
                str(message["content"].get("text") or message["content"].get("evalue"))
            ),
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    said = next((line.strip() for line in lines if line.strip() not in ("", "None")), "no answer")
    if Path(said) != Path(sys.prefix):
        remedy = "`python -m ipykernel install --sys-prefix` mends it"
        return Finding("stop", f"the python3 kernel is not this environment's ({said}); {remedy}")
    return Finding("ok", "python3 starts and finds the course")


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": _python,
    "packages": _packages,
    "torch": _torch,
    "device": _device,
    "precision": _precision,
    "profile": _profile,
    "memory": _memory,
    "disk": _disk,
    "lessons": _lessons,
    "data": _data,
    "checkpoints": _checkpoints,
    "kernel": _kernel,
}


def run() -> int:
    """Print one line per check; returns 1 if something stops the course, else 0."""
    stops = 0
    for name, check in CHECKS.items():
        try:
            finding = check()
        except Exception as error:  # whatever is broken on this machine, the other lines are still wanted
            finding = Finding("stop", f"{type(error).__name__}: {error}")
        stops += finding.verdict == "stop"
        print(
            f"{name:<12} {finding.verdict if finding.verdict == 'ok' else finding.verdict.upper():<5} {finding.text}",
            flush=True,
        )
    print("all that the course needs is here" if not stops else f"{stops} to mend before the course runs")
    return 1 if stops else 0
