"""Every tagged equation of lesson 07, checked by a route that does not use the formula itself."""

import itertools

import numpy as np
import pytest
import scipy.ndimage
import scipy.spatial.distance
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.evaluation import class_iou
from course_lib.models.unet2015 import UNet2015, output_size
from course_lib.nn import Layer, conv_multiplications, conv_output_size, receptive_field, transposed_output_size


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_eq_7_1():
    """SciPy's Dice distance d counts 2 |P ∩ Y| / (|P| + |Y|) = 1 - d; then IoU = (1 - d) / (1 + d)."""
    predicted, truth = torch.randint(0, 3, (2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    found = class_iou(predicted, truth, 3)
    for k in range(3):
        d = scipy.spatial.distance.dice((predicted == k).flatten().numpy(), (truth == k).flatten().numpy())
        assert found[k].item() == pytest.approx((1 - d) / (1 + d))
    floor = class_iou(torch.zeros_like(truth), truth, 3)
    assert floor[0].item() == pytest.approx((truth == 0).double().mean().item())  # all of it is the union
    assert floor[1:].tolist() == [0, 0]


def test_eq_7_2():
    """Count the places of the window in a real array, and ask the layers for the lesson's own example."""
    for size, kernel, stride, padding, dilation in itertools.product((5, 8, 13), (1, 2, 3), (1, 2, 3), (0, 1), (1, 2)):
        padded = np.zeros(size + 2 * padding)
        places = np.lib.stride_tricks.sliding_window_view(padded, dilation * (kernel - 1) + 1)[::stride]
        assert conv_output_size(size, kernel, stride, padding, dilation) == len(places)
    assert conv_output_size(7, 4, 2, 1) == nn.Conv2d(1, 1, 4, 2, 1)(torch.zeros(1, 1, 7, 7)).shape[3] == 3
    assert (7 - 4 + 2 * 1) / 2 + 1 == 3.5  # as printed without the floor


def test_eq_7_3():
    """Try every large size: which ones does the convolution shrink to the small one? The first and last of them."""
    for size, kernel, stride, padding in itertools.product((1, 3, 6), (2, 3, 4), (1, 2, 3), (0, 1)):
        found = transposed_output_size(size, kernel, stride, padding)
        if found < 1:
            continue  # one pixel and more padding than there is room for
        conv = nn.Conv1d(1, 1, kernel, stride, padding)
        sizes = range(max(1, kernel - 2 * padding), 40)
        leads_here = [s for s in sizes if conv(torch.zeros(1, 1, s)).shape[2] == size]
        assert found == leads_here[0]
        assert transposed_output_size(size, kernel, stride, padding, stride - 1) == leads_here[-1]


def test_eq_7_4():
    """SciPy's "same" convolution keeps the size and gives the values of padding k // 2, for every odd kernel."""
    x = normal(9, 12, seed=2)
    for kernel in (1, 3, 5, 7):
        weight = normal(kernel, kernel, seed=kernel)
        wanted = scipy.ndimage.correlate(x.numpy(), weight.numpy(), mode="constant")
        found = F.conv2d(x[None, None], weight[None, None], padding=kernel // 2)[0, 0]
        assert np.allclose(found, wanted)
        assert conv_output_size(12, kernel, padding=kernel // 2) == 12
    for kernel in (2, 4, 6):  # an even kernel has no middle
        assert conv_output_size(12, kernel, padding=kernel // 2) == 13
        assert conv_output_size(12, kernel, padding=kernel // 2 - 1) == 11


def test_eq_7_5():
    """NumPy's means of blocks; a box convolution gives the same, and the mean of the map is kept."""
    x = normal(2, 3, 6, 8, seed=3)
    found = F.avg_pool2d(x, 2)
    for i, j in itertools.product(range(3), range(4)):
        block = x.numpy()[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(2, 3, 4)
        assert np.allclose(found[:, :, i, j], np.mean(block, axis=2))
    assert torch.allclose(found, F.conv2d(x, torch.full((3, 1, 2, 2), 0.25, dtype=torch.float64), stride=2, groups=3))
    assert torch.allclose(found.mean(dim=(2, 3)), x.mean(dim=(2, 3)))


def test_eq_7_6():
    """Back-propagation: the gradient of <Ax, y> is Aᵀy, and torch's transposed convolution computes it."""
    for k, stride, padding, size in ((3, 2, 1, 8), (4, 2, 1, 8), (2, 2, 0, 6), (3, 1, 0, 7)):
        weight = normal(5, 3, k, k, seed=k)
        x = normal(1, 3, size, size, seed=10).requires_grad_()
        y_shape = F.conv2d(x, weight, stride=stride, padding=padding).shape
        y = normal(*y_shape, seed=11)
        product = (F.conv2d(x, weight, stride=stride, padding=padding) * y).sum()
        (gradient,) = torch.autograd.grad(product, x)
        extra = size - transposed_output_size(y_shape[3], k, stride, padding)
        back = F.conv_transpose2d(y, weight, stride=stride, padding=padding, output_padding=extra)
        assert torch.allclose(back, gradient)
        assert (x * back).sum().item() == pytest.approx(product.item())


def test_eq_7_7():
    """Every number of a labelled map lands where the equation says; nothing is lost on the way."""
    x = torch.arange(2 * 8 * 3 * 4).reshape(2, 8, 3, 4)
    y = nn.PixelShuffle(2)(x.double()).long()
    assert y.shape == (2, 2, 6, 8)
    for n, channel, i, j in itertools.product(range(2), range(8), range(3), range(4)):
        c, rest = divmod(channel, 4)
        a, b = divmod(rest, 2)
        _, where_c, row, column = (y == x[n, channel, i, j]).nonzero()[0].tolist()
        assert (where_c, row, column) == (c, 2 * i + a, 2 * j + b)
    assert torch.equal(y.flatten().sort().values, x.flatten())


def test_eq_7_8():
    """The network itself, on the meta device: which sizes it takes, and what comes out."""
    for depth in (1, 2, 3, 4):
        sides = []
        with torch.device("meta"):
            net = UNet2015(1, 2, width=1, depth=depth)
        for part in net.down:
            part.register_forward_hook(lambda _m, _i, out, sides=sides: sides.append(out.shape[2]))
        for size in [*range(1, 90), 187, 188, 203, 204, 512, 556, 572]:
            fits = (size + 4) % 2**depth == 0 and size - 12 * 2**depth + 8 > 0
            sides.clear()
            try:
                out = net(torch.empty(1, 1, size, size, device="meta"))
                assert fits
                assert out.shape[2] == size - 12 * 2**depth + 8 == output_size(size, depth)
                assert all(side % 2 == 0 for side in sides[:-1])
            except ValueError:
                assert not fits


def test_eq_7_9():
    """Poke each input pixel in turn: how far apart are the outermost ones that change the middle output pixel?"""
    double, pool = [Layer(3), Layer(3)], [Layer(2, 2)]
    for layers in (double + pool + double, [Layer(3, 2), Layer(3, 1, 0, 3), Layer(2, 3)], [Layer(5, 3), Layer(3, 2)]):
        x = torch.eye(120, dtype=torch.float64)[:, None]
        for layer in layers:
            x = F.conv1d(x, torch.ones(1, 1, layer.kernel, dtype=torch.float64), None, *layer[1:])
        touched = x[:, 0, x.shape[2] // 2].nonzero()
        assert receptive_field(layers) == (touched.max() - touched.min() + 1).item()


@pytest.mark.parametrize(("depth", "bottom", "top"), [(1, 14, 18), (2, 32, 44)])
def test_what_an_output_pixel_has_seen(depth, bottom, top):
    """By poking whole columns of the picture, made so bright that they win every max pooling that they take part in."""
    double, pool = [Layer(3), Layer(3)], [Layer(2, 2)]
    assert receptive_field((double + pool) * depth + double) == bottom
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet2015(1, 1, width=2, depth=depth).double()
    size = 16 * 2**depth - 4
    base = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    column, seen = output_size(size, depth) // 2, []
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(0.1 if p.ndim > 1 else 0.0)  # positive: no ReLU cuts anything off
        plain = net(base)[..., column]
        for j in range(size):
            poked = base.clone()
            poked[..., j] += 10
            if not torch.equal(net(poked)[..., column], plain):
                seen.append(j)
    assert max(seen) - min(seen) + 1 == top


def test_eq_7_10():
    """torch's own counter of floating-point operations, two for each multiplication with its addition."""
    for a, b, k, side in ((1, 64, 3, 20), (16, 32, 3, 9), (8, 4, 1, 7), (4, 4, 5, 11)):
        conv = nn.Conv2d(a, b, k, padding=k // 2, bias=False)
        with FlopCounterMode(display=False) as counter:
            conv(torch.zeros(1, a, side, side))
        assert 2 * conv_multiplications(a, b, k, side, side) == counter.get_total_flops()
    halved = conv_multiplications(128, 128, 3, 32, 32)
    assert halved == conv_multiplications(64, 64, 3, 64, 64)  # half the side, twice the channels: the same cost


def test_list_of_pixels_round_trip():
    """(B, C, H, W) <-> (B, H·W, C): exact, row by row, and the 1×1 convolution is a linear layer on the list."""
    x = normal(2, 6, 4, 5, seed=5)
    pixels = x.flatten(2).transpose(1, 2)
    for i, j in itertools.product(range(4), range(5)):
        assert torch.equal(pixels[:, i * 5 + j], x[:, :, i, j])
    assert torch.equal(pixels.transpose(1, 2).reshape(x.shape), x)
    assert not torch.equal(x.reshape(2, 20, 6), pixels)  # the shape alone proves nothing
    conv = nn.Conv2d(6, 3, 1).double()
    linear = F.linear(pixels, conv.weight[:, :, 0, 0], conv.bias)
    assert torch.allclose(linear.transpose(1, 2).reshape(2, 3, 4, 5), conv(x))
