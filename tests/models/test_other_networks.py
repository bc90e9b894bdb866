"""The 2015 U-Net and the two small baselines."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.models.baselines import MyUNet, TwoConvResNet
from course_lib.models.unet2015 import UNet2015, crop_to, output_size, predict_tiled, smallest_size


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_published_network():
    with torch.device("meta"):
        model = UNet2015()
        sizes = []
        for module in [*model.down, *model.merge]:
            module.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[2]))
        out = model(torch.empty(1, 1, 572, 572))
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert sum(p.numel() for p in model.parameters()) == 31_030_658
    assert len(convs) == 23
    assert out.shape == (1, 2, 388, 388)
    assert sizes == [568, 280, 136, 64, 28, 52, 100, 196, 388]
    assert model.down[-1][-2].out_channels == 1024


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_which_sizes_fit(depth):
    """Against the network itself, with channels of width 1: it either runs or the maps don't match."""

    def runs(size):
        x, sides = torch.zeros(1, 1, size, size), []
        for level in range(depth + 1):
            if level and x.shape[2] % 2:
                return None
            x = F.max_pool2d(x, 2) if level else x
            if x.shape[2] < 5:
                return None
            x = F.avg_pool2d(F.avg_pool2d(x, 3, 1), 3, 1)
            sides.append(x.shape[2])
        side = sides[-1]
        for _ in range(depth):
            side = 2 * side - 4
        return side if side > 0 else None

    fits = {size: runs(size) for size in range(1, 260) if runs(size)}
    assert min(fits) == smallest_size(depth)
    assert all(size % 2**depth == min(fits) % 2**depth for size in fits)
    for size in range(1, 260):
        if size in fits:
            assert output_size(size, depth) == fits[size]
        else:
            with pytest.raises(ValueError, match=f"size={size}"):
                output_size(size, depth)


def test_sizes_of_the_paper():
    assert [s for s in range(530, 600) if s in (540, 556, 572, 588)] == [
        s for s in range(530, 600) if not _raises(output_size, s)
    ]
    with pytest.raises(ValueError, match="508, 524"):
        output_size(512)


def _raises(function, *args):
    try:
        function(*args)
    except ValueError:
        return True
    return False


def test_crop_is_the_middle():
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    assert torch.equal(crop_to(x, (2, 4)), x[:, :, 2:4, 1:5])


@pytest.mark.parametrize(("height", "width", "tile"), [(70, 53, 60), (33, 90, 44), (16, 20, 60)])
def test_tiles_equal_the_whole(height, width, tile):
    model = UNet2015(1, 3, width=4, depth=2).double().eval()
    image = torch.randn(2, 1, height, width, dtype=torch.float64)
    tiles = predict_tiled(model, image, tile)
    assert tiles.shape == (2, 3, height, width)
    border = (tile - output_size(tile, 2)) // 2
    whole = next(s for s in range(max(height, width) + 2 * border, 400) if not _raises(output_size, s, 2))
    mirrored = image
    for axis, side in ((2, height), (3, width)):  # by NumPy's rule for mirroring, which knows no limit
        import numpy as np

        pads = [(0, 0)] * 4
        pads[axis] = (border, whole - side - border)
        mirrored = torch.from_numpy(np.pad(mirrored.numpy(), pads, mode="reflect"))
    assert torch.allclose(tiles, model(mirrored)[:, :, :height, :width], atol=1e-10)


def test_my_unet():
    model = MyUNet(1000)
    learned = sum(p.numel() for p in model.parameters())
    assert (learned, learned + sum(b.numel() for b in model.buffers())) == (506_852, 606_852)
    sizes = []
    for level in model.levels:
        level[-1].register_forward_hook(lambda _m, _i, out: sizes.append(tuple(out.shape[1:])))
    x, t = torch.randn(2, 1, 28, 28), torch.tensor([0, 999])
    out = model(x, t)
    assert out.shape == x.shape
    assert [s[1] for s in sizes] == [28, 14, 7, 3, 7, 14, 28]
    out.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())
    for k, mlp in enumerate(model.time):  # the time reaches every level
        before = mlp[2].bias.detach().clone()
        with torch.no_grad():
            mlp[2].bias += 1
            assert not torch.allclose(model(x, t), out), k
            mlp[2].bias.copy_(before)


def test_two_convolutions():
    model = TwoConvResNet()
    assert sum(p.numel() for name, p in model.named_parameters() if "conv" in name) == 20
    x = torch.randn(2, 1, 28, 28)
    out = model(x, torch.tensor([0, 0]))
    assert not torch.allclose(out, model(x, torch.tensor([500, 500])))  # it knows the time
    poked = x.clone()
    poked[:, :, 14, 14] += 1
    changed = (model(poked, torch.tensor([0, 0])) - out).abs().amax(dim=(0, 1)) > 1e-7
    rows, columns = changed.nonzero(as_tuple=True)
    assert rows.max() - rows.min() <= 4
    assert columns.max() - columns.min() <= 4
