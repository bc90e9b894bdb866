"""Residual blocks, attention, halving and doubling: each against its definition."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.nn import DOWN, UP, Downsample, ResidualBlock, SelfAttention2d, Upsample, normalisation, stamp


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def wake(module):
    """Give zero-initialised weights a value, as training does."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return module.double()


X, E = torch.randn(3, 8, 6, 6, dtype=torch.float64), torch.randn(3, 16, dtype=torch.float64)


@pytest.mark.parametrize("order", ["classic", "pyramid"])
@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize("out", [8, 12])
def test_block_written_out(order, scale_shift, out):
    block = wake(ResidualBlock(8, out, 16, groups=4, scale_shift=scale_shift, order=order))
    h = F.group_norm(X, 4, block.norm1.weight, block.norm1.bias, 1e-6)
    h = block.conv1(h * torch.sigmoid(h) if order == "classic" else h)
    told = ((E * torch.sigmoid(E)) @ block.time.weight.T + block.time.bias)[:, :, None, None]
    if scale_shift:
        h = F.group_norm(h, 4, block.norm2.weight, block.norm2.bias, 1e-6) * (1 + told[:, :out]) + told[:, out:]
    else:
        h = F.group_norm(h + told, 4, block.norm2.weight, block.norm2.bias, 1e-6)
    h = block.conv2(h * torch.sigmoid(h))
    if order == "pyramid":
        h = F.group_norm(h, 4, block.norm3.weight, block.norm3.bias, 1e-6)
    shortcut = X if out == 8 else F.conv2d(X, block.shortcut.weight, block.shortcut.bias)
    assert torch.allclose(block(X, E), shortcut + h, atol=1e-10)


@pytest.mark.parametrize("order", ["classic", "pyramid"])
def test_a_new_block_passes_on(order):
    block = ResidualBlock(8, 8, 16, groups=4, order=order).double()
    assert torch.equal(block(X, E), X)
    assert isinstance(block.shortcut, nn.Identity)
    assert isinstance(ResidualBlock(8, 12, 16, groups=4).shortcut, nn.Conv2d)


@pytest.mark.parametrize("scale_shift", [False, True])
def test_the_time_matters_through_its_linear_only(scale_shift):
    block = wake(ResidualBlock(8, 8, 16, groups=4, scale_shift=scale_shift))
    assert not torch.allclose(block(X, E), block(X, E + 1))
    nn.init.zeros_(block.time.weight)
    nn.init.zeros_(block.time.bias)
    assert torch.equal(block(X, E), block(X, E + 1))
    plain = wake(ResidualBlock(8, 8, 16, groups=4))
    plain.load_state_dict({k: v for k, v in block.state_dict().items() if "time" not in k}, strict=False)
    nn.init.zeros_(plain.time.weight)
    nn.init.zeros_(plain.time.bias)
    assert torch.allclose(block(X, E), plain(X, E))  # a scale of 0 means times 1


def test_recomputing_changes_nothing_but_memory():
    results = []
    for recompute in (False, True):
        torch.manual_seed(1)
        block = wake(ResidualBlock(8, 8, 16, groups=4, recompute=recompute))
        x = X.clone().requires_grad_()
        out = block(x, E)
        out.square().sum().backward()
        results.append([out, x.grad, *(p.grad for p in block.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_dropout_only_in_training():
    block = wake(ResidualBlock(8, 8, 16, groups=4, dropout=0.5))
    assert not torch.equal(block(X, E), block(X, E))
    block.eval()
    assert torch.equal(block(X, E), block(X, E))


def test_group_norm_knows_one_picture_batch_norm_all():
    group, batch = normalisation(8, 4).double(), normalisation(8, kind="batch").double()
    other = torch.cat([X[:1], 5 * X[1:]])
    assert torch.equal(group(X)[0], group(other)[0])
    assert not torch.allclose(batch(X)[0], batch(other)[0])


@pytest.mark.parametrize("heads", [1, 2, 8])
def test_attention_written_out(heads):
    layer = wake(SelfAttention2d(8, heads, groups=4))
    q, k, v = layer.qkv(layer.norm(X)).flatten(2).chunk(3, dim=1)  # (batch, channel, pixel)
    d, found = 8 // heads, []
    for head in range(heads):
        rows = slice(head * d, (head + 1) * d)
        scores = torch.einsum("bci,bcj->bij", q[:, rows] / d**0.25, k[:, rows] / d**0.25)
        found.append(torch.einsum("bij,bcj->bci", scores.softmax(dim=2), v[:, rows]))
    wanted = X + layer.out(torch.cat(found, dim=1).reshape(X.shape))
    assert torch.allclose(layer(X), wanted, atol=1e-10)


def test_attention_knows_no_places():
    layer = wake(SelfAttention2d(8, 2, groups=4))
    order = torch.randperm(36)
    shuffled = X.flatten(2)[:, :, order].reshape(X.shape)
    assert torch.allclose(layer(shuffled).flatten(2), layer(X).flatten(2)[:, :, order])
    assert torch.equal(SelfAttention2d(8, groups=4).double()(X), X)  # a new one passes on


@pytest.mark.parametrize("method", DOWN)
def test_halves(method):
    layer = Downsample(8, method).double()
    for height, width in ((6, 6), (4, 10), (2, 2)):
        assert layer(torch.randn(2, 8, height, width, dtype=torch.float64)).shape == (2, 8, height // 2, width // 2)
    assert bool(list(layer.parameters())) == (method in ("conv", "conv4"))


@pytest.mark.parametrize("method", UP)
def test_doubles(method):
    layer = Upsample(8, method).double()
    for height, width in ((3, 3), (4, 5)):
        assert layer(torch.randn(2, 8, height, width, dtype=torch.float64)).shape == (2, 8, 2 * height, 2 * width)
    assert bool(list(layer.parameters())) == (method in ("conv", "transposed", "sub_pixel"))


def test_the_usual_pair_written_out():
    down, up = Downsample(8).double(), Upsample(8).double()
    conv = down.layer[1]
    padded = torch.zeros(3, 8, 7, 7, dtype=torch.float64)
    padded[:, :, :6, :6] = X  # zeros below and at the right only
    assert torch.allclose(down(X), F.conv2d(padded, conv.weight, conv.bias, stride=2))
    doubled = X.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.allclose(up(X), F.conv2d(doubled, up.layer[1].weight, up.layer[1].bias, padding=1))


def test_stamping_is_transposed_convolution():
    for size, k, stride in ((5, 3, 2), (4, 4, 2), (3, 2, 2), (6, 3, 1), (2, 2, 3)):
        x = torch.randn(size, size + 1, dtype=torch.float64)
        kernel = torch.randn(k, k, dtype=torch.float64)
        wanted = F.conv_transpose2d(x[None, None], kernel[None, None], stride=stride)[0, 0]
        assert torch.allclose(stamp(x, kernel, stride), wanted)


def test_a_block_without_time_is_the_block_deaf_to_it():
    """With time_dim=None the block is the one whose Linear of the time is 0, without that layer's weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        told, deaf = ResidualBlock(8, 12, 4, groups=4), ResidualBlock(8, 12, None, groups=4)
        for parameter in told.parameters():
            nn.init.normal_(parameter, std=0.3)
        x = torch.randn(2, 8, 5, 6)
    nn.init.zeros_(told.time.weight)
    nn.init.zeros_(told.time.bias)
    deaf.load_state_dict({name: value for name, value in told.state_dict().items() if not name.startswith("time.")})
    assert torch.equal(deaf(x), told(x, torch.ones(2, 4)))
    again = ResidualBlock(8, 12, None, groups=4, recompute=True)
    again.load_state_dict(deaf.state_dict())
    assert torch.equal(again(x), deaf(x))
