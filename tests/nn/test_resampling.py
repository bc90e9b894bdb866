"""The catalogue of lesson 07, with the numbers it shows: what each way of shrinking and growing does, and breaks."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.nn import Downsample, Upsample, conv_output_size, stamp


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LADDER = torch.arange(16.0).reshape(1, 1, 4, 4)


def test_max_pooling():
    assert Downsample(1, "max")(LADDER).flatten().tolist() == [5, 7, 13, 15]


def test_average_pooling_keeps_the_mean():
    x = normal(2, 3, 8, 6)
    small = Downsample(3, "average")(x)
    assert torch.allclose(small.mean(dim=(2, 3)), x.mean(dim=(2, 3)))
    assert torch.allclose(small, F.conv2d(x, torch.full((3, 1, 2, 2), 0.25).double(), stride=2, groups=3))


def test_global_pooling():
    x = normal(2, 3, 5, 7)
    whole = F.adaptive_avg_pool2d(x, 1)
    assert whole.shape == (2, 3, 1, 1)
    assert torch.allclose(whole.flatten(1), x.flatten(2).mean(dim=2))


def test_strided_convolution():
    for kernel, padding, from_28, from_7 in ((3, 1, 14, 4), (4, 1, 14, 3), (3, 0, 13, 3)):
        for size, wanted in ((28, from_28), (7, from_7)):
            made = nn.Conv2d(1, 1, kernel, 2, padding)(torch.zeros(1, 1, size, size)).shape[2]
            assert made == conv_output_size(size, kernel, 2, padding) == wanted
    for method in ("conv", "conv4"):
        assert Downsample(2, method)(torch.zeros(1, 2, 28, 28)).shape == (1, 2, 14, 14)


def test_shrinking_stripes_needs_averaging():
    stripes = torch.zeros(1, 1, 32, 32)
    stripes[..., ::3] = 1.0
    assert stripes.mean().item() == pytest.approx(0.344, abs=5e-4)
    plain, averaged = (F.interpolate(stripes, scale_factor=0.25, mode="bilinear", antialias=a) for a in (False, True))
    assert plain.std().item() == pytest.approx(0.244, abs=1e-3)
    assert averaged.std().item() < 0.02
    assert averaged.mean().item() == pytest.approx(stripes.mean().item(), abs=0.01)
    layer = Downsample(1, "bilinear")  # the library's way averages
    assert torch.allclose(layer(stripes), F.interpolate(stripes, scale_factor=0.5, mode="bilinear", antialias=True))
    assert layer(stripes).std() < 0.5 * F.interpolate(stripes, scale_factor=0.5, mode="bilinear").std()


def test_nearest_copies():
    x = normal(1, 2, 3, 4)
    assert torch.equal(Upsample(2, "nearest")(x), x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


def test_bilinear_keeps_ramps():
    i, j = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    ramp = (2 * i + j)[None, None]
    corners = ramp[..., ::3, ::3]  # the 2×2 map of its corners
    assert torch.allclose(F.interpolate(corners, size=(4, 4), mode="bilinear", align_corners=True), ramp)
    inside = Upsample(1, "bilinear")(ramp)[..., 1:-1, 1:-1]  # edges aligned: straight but for the outermost pixels
    assert torch.allclose(inside.diff(dim=3), torch.full((1, 1, 6, 5), 0.5))
    assert torch.allclose(inside.diff(dim=2), torch.full((1, 1, 5, 6), 1.0))


def test_bicubic_draws_parabolas_with_antialias_only_and_overshoots_at_edges():
    """torch's constant is -0.75, which is sharper than the -0.5 (Keys 1981) that `antialias=True` uses."""
    t, places = torch.arange(20.0).double(), (torch.arange(80.0).double() + 0.5) / 4 - 0.5

    def error(curve, mode, antialias=False):
        image = curve(t).expand(20, 20)[None, None]
        grown = F.interpolate(image, scale_factor=4, mode=mode, antialias=antialias)[0, 0, 40]
        return (grown - curve(places))[12:-12].abs().mean().item()

    for curve in (torch.sin, lambda t: torch.sin(0.3 * t), lambda t: t**2 / 100, lambda t: ((t - 9.5) / 9.5) ** 3):
        good, linear, nearest = error(curve, "bicubic", True), error(curve, "bilinear"), error(curve, "nearest")
        assert good < linear / 3 < nearest / 3
    assert error(lambda t: t**2, "bicubic", True) < 1e-9
    assert error(torch.sin, "bicubic") < error(torch.sin, "bilinear") / 2
    assert error(lambda t: t**2, "bicubic") > error(lambda t: t**2, "bilinear")
    edge = (torch.arange(12) >= 6).double().expand(12, 12)[None, None]
    for mode, low, high in (("bilinear", 0, 1), ("bicubic", -0.11, 1.11)):
        grown = F.interpolate(edge, scale_factor=4, mode=mode)
        assert grown.min().item() == pytest.approx(low, abs=2e-3)
        assert grown.max().item() == pytest.approx(high, abs=2e-3)


@pytest.mark.parametrize(("kernel", "counts"), [(3, {1.0, 2.0, 4.0}), (4, {4.0}), (2, {1.0})])
def test_checkerboard(kernel, counts):
    """How many stamps cover each inner pixel."""
    found = stamp(torch.ones(6, 6), torch.ones(kernel, kernel), 2)
    inner = found[kernel - 1 : -(kernel - 1), kernel - 1 : -(kernel - 1)]
    assert set(inner.flatten().tolist()) == counts


def test_transposed_convolution_is_the_adjoint_and_no_inverse():
    weight, x, y = normal(1, 1, 3, 3), normal(1, 1, 8, 8, seed=1), normal(1, 1, 4, 4, seed=2)
    A = F.conv2d(torch.eye(64).double().reshape(64, 1, 8, 8), weight, stride=2, padding=1).flatten(1).T
    back = F.conv_transpose2d(y, weight, stride=2, padding=1, output_padding=1)
    assert torch.allclose(A.T @ y.flatten(), back.flatten())
    assert torch.linalg.matrix_rank(A) == 16
    for scale in torch.linspace(0.01, 1, 100).double():  # not even with the best factor
        assert ((scale * A.T @ A @ x.flatten()) - x.flatten()).norm() > 0.5 * x.norm()


def test_sub_pixel_convolution():
    x = normal(1, 8, 3, 3)
    assert torch.equal(F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2), x)
    with pytest.raises(RuntimeError, match="divisible by the square"):
        F.pixel_shuffle(normal(1, 1, 3, 3), 2)
    layer = Upsample(5, "sub_pixel").layer
    assert layer[0].out_channels == 20  # four channels for each


def test_unpooling_puts_the_maxima_back():
    x = normal(1, 2, 6, 8)
    pooled, where = F.max_pool2d(x, 2, return_indices=True)
    restored = F.max_unpool2d(pooled, where, 2)
    assert (restored != 0).sum() == pooled.numel()
    assert torch.equal(restored[restored != 0], x[restored != 0])
    blocks = restored.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert torch.equal(blocks.sum(dim=4), pooled)  # one in each block


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_growing_adds_no_information(mode):
    grown = Upsample(1, mode)(normal(1, 1, 32, 32))[0, 0]
    assert torch.linalg.matrix_rank(grown) == 32
    fine = torch.fft.fftfreq(64).abs() > 0.25
    fine = fine[:, None] | fine[None, :]
    share = {}
    for name, y in (("grown", grown), ("fresh", normal(64, 64, seed=3))):
        energy = torch.fft.fft2(y).abs() ** 2
        share[name] = (energy[fine].sum() / energy.sum()).item()
    assert share["fresh"] == pytest.approx(0.73, abs=0.04)
    assert share["grown"] < (0.35 if mode == "nearest" else 0.1)
