"""Choices of device, precision, profile, seeds and folders."""

import ctypes
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from course_lib import runtime


def test_profile_and_steps(monkeypatch):
    monkeypatch.delenv("COURSE_PROFILE", raising=False)
    monkeypatch.delenv("COURSE_STEPS", raising=False)
    assert (runtime.profile(), runtime.steps(9)) == ("quick", 9)
    monkeypatch.setenv("COURSE_PROFILE", "full")
    monkeypatch.setenv("COURSE_STEPS", "3")
    assert (runtime.profile(), runtime.steps(9)) == ("full", 3)


def test_device_is_the_named_one(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert runtime.device() == torch.device("cpu")


def test_the_best_device_comes_first(monkeypatch):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    for cuda, mps, best in [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert runtime.device().type == best


@pytest.mark.parametrize(("name", "dtype"), list(runtime.PRECISIONS.items()))
def test_precision_is_the_named_one(monkeypatch, name, dtype):
    monkeypatch.setenv("COURSE_PRECISION", name)
    assert runtime.precision("cpu") == dtype


@pytest.mark.parametrize(
    ("kind", "capability", "cpu_has_it", "dtype"),
    [
        ("cuda", (8, 0), False, torch.bfloat16),
        ("cuda", (7, 5), True, torch.float16),  # a T4
        ("cpu", None, True, torch.bfloat16),
        ("cpu", None, False, torch.float32),
        ("mps", None, True, torch.float32),
    ],
)
def test_automatic_precision_follows_the_hardware(monkeypatch, kind, capability, cpu_has_it, dtype):
    monkeypatch.setenv("COURSE_PRECISION", "auto")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(runtime, "_cpu_has_bfloat16", lambda: cpu_has_it)
    assert runtime.precision(kind) == dtype


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_autocast_computes_in_the_precision(monkeypatch, name):
    monkeypatch.setenv("COURSE_PRECISION", name)
    a = torch.ones(2, 2)
    with runtime.autocast("cpu"):
        assert (a @ a).dtype == runtime.PRECISIONS[name]
    assert (a @ a).dtype == torch.float32


def test_generators_repeat_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    first = torch.randn(3, generator=runtime.generator(5))
    assert torch.equal(first, torch.randn(3, generator=runtime.generator(5)))
    assert torch.equal(before, torch.get_rng_state())


def test_seed_everything_seeds_all_three():
    def draw():
        return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002  # the global one is meant

    given = runtime.seed_everything(3)
    first = draw()
    assert torch.equal(torch.randn(2, generator=given), torch.randn(2, generator=runtime.generator(3)))
    runtime.seed_everything(3)
    assert draw() == first


def test_folders_in_the_checkout_and_by_variable(monkeypatch, root, tmp_path):
    for name in ("COURSE_DATA", "COURSE_STATE"):
        monkeypatch.delenv(name, raising=False)
    assert runtime.checkout() == root
    assert (runtime.data_root(), runtime.state_root()) == (root / "data", root / ".course")
    assert (runtime.assets_root(), runtime.notebooks_root()) == (root / "assets", root / "notebooks")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    assert runtime.data_root() == tmp_path


def test_replacing_takes_the_whole_file_or_nothing(tmp_path):
    path = tmp_path / "folder" / "file"
    with runtime.replacing(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()

    def stopped_half_way():
        with runtime.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stopped_half_way()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


MAPPED = """
import ctypes, torch
from course_lib import runtime
if KEEP: assert runtime.keep_memory()
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = type("MallInfo", (ctypes.Structure,), {"_fields_": [
    (name, ctypes.c_size_t)
    for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
]})
before = libc.mallinfo2().hblkhd
x = torch.zeros(4 << 20)
mapped = libc.mallinfo2().hblkhd - before
del x
print(mapped, libc.mallinfo2().fordblks)
"""


GLIBC = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "mallinfo2")


@pytest.mark.skipif(not GLIBC, reason="glibc 2.33 and later")
@pytest.mark.parametrize("keep", [True, False])
def test_memory_is_kept(keep):
    """An array of 16 MB: a mapping of its own, which goes back to the system, or a part of the heap, which stays."""
    found = subprocess.run([sys.executable, "-c", MAPPED.replace("KEEP", str(keep))], capture_output=True, check=True)
    mapped, free = map(int, found.stdout.split())
    assert (mapped < 1 << 20) is keep
    assert (free > 16 << 20) is keep


def test_memory_is_left_alone_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert runtime.keep_memory() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())  # a C library without mallopt
    assert runtime.keep_memory() is False
