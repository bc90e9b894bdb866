"""Fashion-MNIST and MNIST as files: found, downloaded, unpacked and verified before a byte of them is used.

torchvision knows the mirrors, the checksums of the archives and the file format. What it does not do is added here:
it reads unpacked files unchecked, downloads over a damaged archive, and waits for ever without a network.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from jaxtyping import Int64, UInt8
from torch import Tensor

TIMEOUT = 10.0  # seconds without an answer before a mirror is given up


class DataUnavailable(OSError):
    """An image set is neither here nor to be had: no copy, and no network or no room to write."""


class DamagedArchive(ValueError):
    """A file of an image set is not what it should be; it has been left as it is."""


@dataclass(frozen=True)
class Source:
    """Where torchvision keeps an image set, and the MD5 of each of its files once unpacked."""

    title: str
    folder: str  # also the name of the class in torchvision.datasets
    unpacked_md5: dict[str, str]


SOURCES = {
    "fashion_mnist": Source(
        "Fashion-MNIST",
        "FashionMNIST",
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
    "mnist": Source(
        "MNIST",
        "MNIST",
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
}


def _packed_md5(source: Source) -> dict[str, str]:
    """MD5 of each archive, from torchvision's own list."""
    from torchvision import datasets

    return dict(getattr(datasets, source.folder).resources)


def _check(path: Path, expected: str) -> None:
    found = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    if found.hexdigest() != expected:
        raise DamagedArchive(
            f"{path} is damaged: its MD5 should be {expected} and is {found.hexdigest()}; "
            "delete it and run again (it has been left as it is)"
        )


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Network calls give up after TIMEOUT seconds; the setting is global to Python, so it is put back."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _download(source: Source, archive: Path) -> None:
    """Fetch an archive from the first mirror that has it whole. It appears in its place complete or not at all."""
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    known = getattr(datasets, source.folder)
    md5, reasons = dict(known.resources)[archive.name], []
    remedy = (
        f"connect to the network and run again, or copy the .gz files of {source.title} to {archive.parent} "
        "(COURSE_DATA names another folder)"
    )
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=archive.parent, prefix=".download-", ignore_cleanup_errors=True)
    except OSError as error:
        raise DataUnavailable(
            f"{source.title} is not in {archive.parent} and nothing can be written there ({error.strerror}): "
            "set COURSE_DATA to a folder that holds it or can be written to"
        ) from error
    with folder as temporary, _impatient():
        for mirror in known.mirrors:
            try:
                download_url(mirror + archive.name, temporary, archive.name, md5)
                os.replace(Path(temporary, archive.name), archive)
                return
            except (OSError, RuntimeError, HTTPException) as error:  # RuntimeError: torchvision's "corrupted"
                reasons.append(" ".join(str(error).split()) or type(error).__name__)
    raise DataUnavailable(
        f"{source.title} is not in {archive.parent} and could not be downloaded ({'; '.join(reasons)}): {remedy}"
    )


def _unpack(archive: Path, target: Path) -> None:
    """Unpack beside the target, then move into place in one step: two processes may do so at the same time."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-", ignore_cleanup_errors=True) as temporary:
        whole = Path(temporary, target.name)
        with gzip.open(archive, "rb") as packed, whole.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
        os.replace(whole, target)


def _ready(source: Source, name: str, raw: Path, spare: Path) -> Path:
    """Path of the verified unpacked file `name`; in `spare` where the data folder cannot be written to."""
    unpacked, archive = raw / name, raw / f"{name}.gz"
    if not unpacked.is_file() and not archive.is_file():
        _download(source, archive)
    if archive.is_file():  # also where it is unpacked already: a damaged file is named before it does harm elsewhere
        _check(archive, _packed_md5(source)[archive.name])
    if not unpacked.is_file():
        try:
            _unpack(archive, unpacked)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:  # the right MD5, yet no archive: a wrong table
            raise DamagedArchive(f"{archive} cannot be unpacked ({error}); delete it and run again") from error
        except OSError:
            unpacked = spare / name
            _unpack(archive, unpacked)
    _check(unpacked, source.unpacked_md5[name])
    return unpacked


def complete(name: str, root: Path) -> bool:
    """Are all files of the set there, packed or unpacked? Raises DamagedArchive for one whose MD5 is wrong."""
    source, whole = SOURCES[name], True
    raw, packed_md5 = root / source.folder / "raw", _packed_md5(source)
    for file, md5 in source.unpacked_md5.items():
        unpacked, archive = raw / file, raw / f"{file}.gz"
        whole = whole and (unpacked.is_file() or archive.is_file())
        if archive.is_file():
            _check(archive, packed_md5[archive.name])
        if unpacked.is_file():
            _check(unpacked, md5)
    return whole


def load(name: str, split: str, root: Path) -> tuple[UInt8[Tensor, "n height width"], Int64[Tensor, " n"]]:
    """Pixels and labels of one split, from `root`, downloading and unpacking what is missing.

    Raises DataUnavailable when the set is neither there nor to be downloaded, DamagedArchive when a file there has
    the wrong MD5, whether packed or unpacked.
    """
    from torchvision.datasets.mnist import read_image_file, read_label_file

    source = SOURCES[name]
    raw = root / source.folder / "raw"
    part = {"train": "train", "test": "t10k"}[split]
    with tempfile.TemporaryDirectory() as spare:
        images = _ready(source, f"{part}-images-idx3-ubyte", raw, Path(spare))
        labels = _ready(source, f"{part}-labels-idx1-ubyte", raw, Path(spare))
        return read_image_file(str(images)), read_label_file(str(labels))
