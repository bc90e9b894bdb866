"""Make sure that the packages a lesson needs are there, without ever moving one that is.

On Colab and Kaggle the set-up cell fetches the course alone (`pip install --no-deps`); `ensure()` then installs what is
missing, under a constraints file that freezes every distribution already installed, so torch and numpy stay as they
are. Elsewhere it installs nothing: it says what is missing and how to get it. Standard library only, because it runs
before anything else is known to be installed.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

DISTRIBUTION = "generative-image-models"
IN_NOTEBOOKS = {"ipywidgets"}  # of the `lab` extra, what a notebook itself uses: progress bars and sliders
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(?P<range>[^;]*?)\s*(;\s*(?P<marker>.*))?")


def hosted() -> bool:
    """Is this notebook on Colab or Kaggle, where nobody but the set-up cell can install things?"""
    if "google.colab" in sys.modules or os.environ.get("KAGGLE_KERNEL_RUN_TYPE"):
        return True
    try:
        return importlib.util.find_spec("google.colab") is not None
    except ModuleNotFoundError:  # there is no `google` package at all
        return False


def requirements() -> dict[str, str]:
    """`{distribution: version range}` of what a lesson needs, from the installed course's own metadata."""
    needed = {}
    for line in metadata.requires(DISTRIBUTION) or []:
        found = _REQUIREMENT.fullmatch(line)
        name, extra = found["name"], found["marker"]
        if not extra or name in IN_NOTEBOOKS:
            needed[name] = found["range"]
    return needed


def _numbers(version: str) -> list[int]:
    """`2.6.0+cpu` -> `[2, 6, 0]`; enough to compare releases."""
    return [int(part) for part in re.match(r"[0-9]+(\.[0-9]+)*", version)[0].split(".")]


def survey() -> tuple[dict[str, str], list[str]]:
    """The requirements that are not installed, and one line for each that is older than the course was tested with."""
    missing, old = {}, []
    for name, wanted in requirements().items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            missing[name] = wanted
            continue
        lowest = re.search(r">=\s*([0-9][0-9.]*)", wanted)
        if lowest and _numbers(version) < _numbers(lowest[1]):
            old.append(f"{name} {version} is older than {lowest[1]}, the oldest that the course is tested with")
    return missing, old


def _install(missing: dict[str, str]) -> None:
    """Install `missing` with pip while every distribution already here keeps its version."""
    here: dict[str, str] = {}
    for found in metadata.distributions():  # the first of two of a name is the one that gets imported
        here.setdefault((found.name or "").lower(), found.version or "")
    pins = [f"{name}=={version}" for name, version in sorted(here.items()) if name and version[:1].isdigit()]
    with tempfile.TemporaryDirectory() as folder:
        frozen = Path(folder) / "frozen.txt"
        frozen.write_text("\n".join(pins) + "\n", encoding="utf-8")
        wanted = [name + wanted for name, wanted in missing.items()]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(frozen)]
        run = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if run.returncode:
        raise ImportError(f"pip could not install {', '.join(wanted)}:\n{run.stderr.strip()[-2000:]}")
    importlib.invalidate_caches()


def ensure() -> None:
    """Return when all that a lesson needs is installed; install it on Colab, Kaggle or with `COURSE_INSTALL=1`.

    Raises ImportError, naming what is missing and the remedy, when it may not or cannot install it.
    """
    missing, old = survey()
    for line in old:
        print(f"note: {line}; it is left as it is")
    if not missing:
        return
    if not hosted() and os.environ.get("COURSE_INSTALL", "").strip() != "1":
        raise ImportError(
            f"this Python ({sys.executable}) lacks {', '.join(missing)}; run `make lab`, or choose the course's kernel "
            "in JupyterLab's Kernel menu"
        )
    _install(missing)
