"""Every tagged equation of lesson 08, checked by a route that does not use the formula itself."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import nn

from course_lib.models.baselines import LayerNormBlock
from course_lib.models.ddpm_unet import DDPMUNet, DDPMUNetConfig, up_channels
from course_lib.nn import (
    ResidualBlock,
    SelfAttention2d,
    TimeMLP,
    attention,
    group_norm,
    modulate,
    sinusoidal_table,
    timestep_embedding,
)


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def wake(module):
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return module.double()


def hands(steps, dim):
    """Hands of clocks that turn by their speed with every step: complex numbers, multiplied once per step."""
    half = dim // 2
    turn = np.exp(1j * np.geomspace(1, 1e4, half, endpoint=False) ** -1.0)
    found, now = [], np.ones(half, dtype=complex)
    for _ in range(steps):
        found.append(now)
        now = now * turn
    return np.stack(found)


@pytest.mark.parametrize("dim", [8, 64])
def test_eq_8_1(dim):
    clock = hands(1000, dim)
    rows = timestep_embedding(torch.arange(1000), dim).numpy()
    assert np.allclose(rows[:, : dim // 2], clock.real, atol=1e-4)
    assert np.allclose(rows[:, dim // 2 :], clock.imag, atol=1e-4)


def test_eq_8_2():
    """Turning both clocks by the same number of steps leaves their likeness as it was; it is that of s - t and 0."""
    rows = timestep_embedding(torch.arange(1000), 64).double()
    for distance in (0, 3, 250):
        products = (rows[distance:] * rows[: 1000 - distance]).sum(dim=1)
        assert torch.allclose(products, products[:1].expand_as(products), atol=2e-3)
        assert products[0].item() == pytest.approx(float((hands(1000, 64)[distance]).real.sum()), abs=2e-3)


def test_eq_8_3():
    clock = hands(500, 32)
    table = sinusoidal_table(500, 32).numpy()
    assert np.allclose(table[:, 0::2], clock.imag, atol=1e-5)
    assert np.allclose(table[:, 1::2], clock.real, atol=1e-5)


def test_eq_8_4():
    """Number by number, in plain Python."""
    mlp, e = TimeMLP(3, 2).double(), normal(3)
    (w1, b1), (w2, b2) = ((layer.weight.tolist(), layer.bias.tolist()) for layer in (mlp[0], mlp[2]))
    hidden = [sum(w * x for w, x in zip(row, e.tolist(), strict=True)) + b for row, b in zip(w1, b1, strict=True)]
    bent = [h * float(expit(h)) for h in hidden]
    told = [sum(w * x for w, x in zip(row, bent, strict=True)) + b for row, b in zip(w2, b2, strict=True)]
    assert mlp(e).tolist() == pytest.approx(told, abs=1e-12)


def test_eq_8_5():
    """The slope integrates to the value; the lowest point is where 1 + x σ(-x) = 0, found by bisection."""
    x = torch.linspace(-30, 4, 200_001, dtype=torch.float64, requires_grad=True)
    value = x / (1 + torch.exp(-x))
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert torch.trapezoid(slope, x.detach()).item() == pytest.approx(4 * float(expit(4)), abs=1e-8)
    assert torch.allclose(value, F.silu(x))
    low, high = -3.0, 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 + middle * float(expit(-middle)) < 0 else (low, middle)
    lowest = value.detach().min().item()
    assert low == pytest.approx(-1.278, abs=5e-4)
    assert lowest == pytest.approx(low * float(expit(low)), abs=1e-8)
    assert lowest == pytest.approx(-0.278, abs=5e-4)


def test_eq_8_6():
    """What comes out has mean 0 and variance 1 in each group, and is a rising straight line of what went in."""
    x = 3 * normal(2, 6, 4, 5) + normal(2, 6, 1, 1, seed=2)
    for groups in (1, 2, 6):
        found, given = (v.reshape(2, groups, -1).numpy() for v in (group_norm(x, groups, 0.0), x))
        assert np.allclose(found.mean(axis=2), 0, atol=1e-12)
        assert np.allclose(found.var(axis=2), 1)
        for b in range(2):
            for g in range(groups):
                assert np.corrcoef(found[b, g], given[b, g])[0, 1] == pytest.approx(1, abs=1e-12)
        assert torch.allclose(group_norm(x, groups), nn.GroupNorm(groups, 6, eps=1e-6).double()(x))


def test_eq_8_7():
    """Without its last convolution nothing but the shortcut is left; and the output is linear in that convolution."""
    block, x, told = wake(ResidualBlock(8, 12, 16, groups=4)), normal(2, 8, 4, 4), normal(2, 16)
    outs = []
    weight, bias = block.conv2.weight.detach().clone(), block.conv2.bias.detach().clone()
    for times in (0, 1, 2):
        with torch.no_grad():
            block.conv2.weight.copy_(times * weight)
            block.conv2.bias.copy_(times * bias)
        outs.append(block(x, told))
    channels = torch.einsum("bchw,oc->bohw", x, block.shortcut.weight[:, :, 0, 0]) + block.shortcut.bias[:, None, None]
    assert torch.allclose(outs[0], channels)
    assert torch.allclose(outs[2] - outs[1], outs[1] - outs[0])


def test_eq_8_8():
    """Caught between the first convolution and the second norm: the difference is one number per channel."""
    block, x, told, caught = wake(ResidualBlock(8, 8, 16, groups=4)), normal(2, 8, 4, 4), normal(2, 16), {}
    block.conv1.register_forward_hook(lambda _m, _i, out: caught.update(before=out))
    block.norm2.register_forward_hook(lambda _m, given, _o: caught.update(after=given[0]))
    block(x, told)
    added = caught["after"] - caught["before"]
    assert torch.allclose(added, added[:, :, :1, :1].expand_as(added))
    for b in range(2):
        bent = [v * float(expit(v)) for v in told[b].tolist()]
        wanted = block.time.weight.detach().numpy() @ np.array(bent) + block.time.bias.detach().numpy()
        assert np.allclose(added[b, :, 0, 0].detach().numpy(), wanted)


def test_eq_8_9():
    """Mean and spread of a normalised channel say what it was told."""
    features = group_norm(normal(3, 5, 40, 40), 5, 0.0)  # each channel: mean 0, variance 1
    told = 0.4 * normal(3, 10, seed=2)
    found = modulate(features, told)
    assert torch.allclose(found.mean(dim=(2, 3)), told[:, 5:], atol=1e-12)
    assert torch.allclose(found.std(dim=(2, 3), correction=0), (1 + told[:, :5]).abs(), atol=1e-9)
    upright = (found * features).mean(dim=(2, 3))
    assert torch.allclose(upright, 1 + told[:, :5], atol=1e-9)  # the sign too


def test_eq_8_10():
    """A lottery: draw keys with odds exp(q·k/√d), and average the values that are drawn."""
    q, k, v = normal(4), normal(6, 4, seed=2), normal(6, 3, seed=3)
    odds = np.exp(k.numpy() @ q.numpy() / math.sqrt(4))
    n = 200_000
    drawn = np.random.default_rng(0).choice(6, size=n, p=odds / odds.sum())
    values = v.numpy()[drawn]
    error = 4 * values.std(axis=0) / math.sqrt(n)
    assert (np.abs(values.mean(axis=0) - attention(q[None], k, v)[0].numpy()) < error).all()
    assert torch.allclose(attention(q[None], k, v), F.scaled_dot_product_attention(q[None], k, v))


def test_eq_8_11():
    q, k, v = normal(3, 2, 9, 4).unbind(0)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    moved = attention(q[:, order], k[:, order], v[:, order])
    assert torch.allclose(moved, attention(q, k, v)[:, order])
    layer, x = wake(SelfAttention2d(8, 2, groups=4)), normal(2, 8, 3, 3)
    moved = x.flatten(2)[:, :, order].reshape(x.shape)
    assert torch.allclose(layer(moved).flatten(2), layer(x).flatten(2)[:, :, order])


@pytest.mark.parametrize(("mults", "blocks"), [((1,), 1), ((1, 2, 2, 2), 2), ((2, 1, 3), 3), ((1, 1, 2, 4), 1)])
def test_eq_8_12(mults, blocks):
    """What really arrives at each block, against the list."""
    config = DDPMUNetConfig(8 * 2 ** (len(mults) - 1), 1, 4, mults, blocks, attention=(), groups=2)
    with torch.device("meta"):
        net, arrived, gave = DDPMUNet(config), [], [4 * mults[-1]]
        for stage in net.up:
            stage[0].register_forward_hook(lambda _m, given, _o: arrived.append(given[0].shape[1]))
            stage.register_forward_hook(lambda _m, _i, out: gave.append(out.shape[1]))
        pushed = []
        net.conv_in.register_forward_hook(lambda _m, _i, out: pushed.append(out.shape[1]))
        for stage in net.down:
            stage.register_forward_hook(lambda _m, _i, out: pushed.append(out.shape[1]))
        net(torch.empty(1, 1, config.size, config.size), torch.empty(1))
    assert arrived == up_channels(4, mults, blocks)
    assert arrived == [below + skip for below, skip in zip(gave[:-1], reversed(pushed), strict=True)]


def test_eq_8_13():
    """Whatever is added to all pixels, or multiplies them, is gone; a negative factor turns the sign."""
    norm = nn.LayerNorm((1, 6, 6), eps=0).double()
    x = normal(2, 1, 6, 6)
    for a, b in ((1, 5), (3, 7), (0.2, -4)):
        assert torch.allclose(norm(a * x + b), norm(x))
    assert torch.allclose(norm(-x), -norm(x))
    block = LayerNormBlock(6, 1, 3).double()
    assert torch.allclose(block(3 * x + 7), block(x), atol=1e-4)
    assert not torch.allclose(block(x, torch.ones(2, 1).double()), block(x))  # told after the norm: heard
