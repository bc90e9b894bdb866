"""PSNR against its definition and known values."""

from __future__ import annotations

import math

import pytest
import torch

from course_lib.evaluation.reconstruction import psnr


def test_known_values():
    truth = torch.zeros(3, 3, 8, 8)
    off = torch.stack([truth[0] + 2, truth[1] + 0.2, truth[2]])
    found = psnr(off, truth)
    assert found[:2].tolist() == pytest.approx([0.0, 20.0], abs=1e-4)  # an error as wide as the range; a tenth of it
    assert math.isinf(found[2])


def test_against_scikit_style_definition_picture_by_picture():
    torch.manual_seed(0)
    a, b = torch.rand(5, 3, 8, 8) * 2 - 1, torch.rand(5, 3, 8, 8) * 2 - 1
    for k, value in enumerate(psnr(a, b).tolist()):
        error = sum((x - y) ** 2 for x, y in zip(a[k].flatten().tolist(), b[k].flatten().tolist(), strict=True)) / 192
        assert value == pytest.approx(20 * math.log10(2) - 10 * math.log10(error), abs=1e-4)
    assert psnr(a, b).tolist() == pytest.approx(psnr(b, a).tolist())
