"""What several tests share: the checkout, a copy of it, and new environments that borrow the installed packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # small tensors: sharing them out costs more than it saves, on a busy machine far more
ROOT = Path(__file__).resolve().parent.parent
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


def run(*command: str | Path, check: bool = True, **options) -> subprocess.CompletedProcess[str]:
    """Run a command without network, with no COURSE_ choice but `env`'s, its output caught; a failure shows that."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COURSE_", "PYTHONPATH"))}
    env = {**kept, **NO_NETWORK, "PIP_NO_INDEX": "1", **options.pop("env", {})}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, **options)
    if check and done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own that sees this one's packages."""

    folder: Path

    @property
    def scripts(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    @property
    def python(self) -> Path:
        return self.scripts / ("python.exe" if os.name == "nt" else "python")

    @property
    def site(self) -> Path:
        library = "Lib" if os.name == "nt" else f"lib/python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / library / "site-packages"


def borrow(folder: Path, packages: Path | None = None) -> Environment:
    """A new environment in `folder` that finds `packages` (default: those of this Python) through a `.pth` file.

    The `.pth` files of the borrowed folder itself are not read, so the editable course does not come along.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    environment = Environment(folder)
    borrowed = packages or Path(sysconfig.get_paths()["purelib"])
    (environment.site / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    return environment


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def tree_copy(tmp_path_factory) -> Path:
    """A copy of the checkout as it stands: what git tracks, and what it does not ignore."""
    target = tmp_path_factory.mktemp("copy") / "course"
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


@pytest.fixture(scope="session")
def wheel(tmp_path_factory, tree_copy) -> Path:
    """The course as a wheel, built without network."""
    target = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target, tree_copy)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def wheel_env(tmp_path_factory, wheel) -> Environment:
    """A new environment with the wheel installed (not editable) and everything else borrowed."""
    environment = borrow(tmp_path_factory.mktemp("wheel-env") / "venv")
    run(environment.python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    return environment
