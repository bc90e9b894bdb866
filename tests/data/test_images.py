"""Padding is padding, and the photograph is there without a download."""

import subprocess
import sys

import pytest
import torch

from course_lib.data import from_uint8, pad_to_32, photograph, to_uint8


def test_every_byte_survives_the_round_trip():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    images = from_uint8(pixels)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (-1, 1)
    assert torch.equal(to_uint8(images), pixels)


def test_padding_adds_background_only():
    pixels = torch.randint(1, 256, (3, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    padded = pad_to_32(pixels)
    assert padded.shape == (3, 1, 32, 32)
    assert padded.dtype == torch.uint8
    assert torch.equal(padded[..., 2:30, 2:30], pixels)
    assert int((padded == 0).sum()) == 3 * (32 * 32 - 28 * 28)
    assert torch.equal(pad_to_32(from_uint8(pixels)), from_uint8(padded))
    assert pad_to_32(pixels[0, 0]).shape == (32, 32)


def test_the_photograph():
    full = photograph()
    assert full.shape == (1, 3, 600, 512)
    assert full.dtype == torch.float32
    assert full.min() >= -1
    assert full.max() <= 1
    assert full.std() > 0.3
    assert torch.equal(from_uint8(to_uint8(full)), full)


@pytest.mark.parametrize("size", [16, 32, 64, 512])
def test_a_smaller_photograph(size):
    small = photograph(size)
    assert small.shape == (1, 3, size, size)
    assert small.abs().max() <= 1
    # Antialiasing keeps the mean brightness of the square it was cut from.
    assert small.mean().item() == pytest.approx(photograph()[..., 44:556, :].mean().item(), abs=0.02)


def test_importing_the_package_does_not_import_torchvision():
    code = "import sys, course_lib.data; print('torchvision' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
