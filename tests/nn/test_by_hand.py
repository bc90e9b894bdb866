"""What is written out for the lessons (attention, GroupNorm, scale-shift), against PyTorch's own; and counting."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.models.baselines import MyUNet
from course_lib.models.ddpm_unet import CONFIGS, DDPMUNet, DDPMUNetConfig, up_channels
from course_lib.nn import Count, Upsample, attention, count_parameters, group_norm, modulate, summary


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("front", [(), (3,), (2, 4)])
def test_attention(front):
    q, k, v = normal(*front, 5, 8), normal(*front, 7, 8), normal(*front, 7, 3)
    assert torch.allclose(attention(q, k, v), F.scaled_dot_product_attention(q, k, v), atol=1e-6)
    assert torch.allclose(attention(q, k, torch.ones_like(v)), torch.ones(*front, 5, 3))  # weights sum to 1


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_group_norm(groups):
    x = 3 * normal(2, 6, 4, 5) + 2
    assert torch.allclose(group_norm(x, groups), F.group_norm(x, groups, eps=1e-6), atol=1e-5)
    assert torch.allclose(group_norm(x, groups, 0.5), F.group_norm(x, groups, eps=0.5), atol=1e-5)


@pytest.mark.parametrize("rest", [(), (9,), (4, 5), (2, 3, 4)])
def test_scale_and_shift(rest):
    x, told = normal(2, 3, *rest), normal(2, 6)
    assert torch.equal(modulate(x, torch.zeros(2, 6)), x)
    for b in range(2):
        for c in range(3):
            wanted = x[b, c] * (1 + told[b, c]) + told[b, 3 + c]
            assert torch.allclose(modulate(x, told)[b, c], wanted)


def test_channels_on_the_way_up():
    assert up_channels(8, (1, 2), 1) == [32, 24, 24, 16]
    with torch.device("meta"):
        for config in CONFIGS.values():
            built = [stage[0].conv1.in_channels for stage in DDPMUNet(config).up]
            assert up_channels(config.width, config.mults, config.blocks) == built


def test_counting():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    assert count_parameters(net) == Count(12 + 4 + 8 + 12 + 3, 8)  # the two statistics of each channel are fixed
    net[0].weight.requires_grad_(False)
    assert count_parameters(net) == Count(27, 20)
    net[2].weight = nn.Parameter(torch.zeros(3, 4))
    shared = nn.ModuleList([net[2], net[2]])
    assert count_parameters(shared).total == 15  # shared weights count once
    assert count_parameters(MyUNet()).total == 606_852
    assert count_parameters(MyUNet()) == (506_852, 100_000)
    for config in CONFIGS.values():
        with torch.device("meta"):
            model = DDPMUNet(config)
        assert count_parameters(model).learned == sum(p.numel() for p in model.parameters())


def test_summary():
    with torch.device("meta"):
        model = DDPMUNet(CONFIGS["grey32"])
        lines = summary(model, torch.empty(2, 1, 32, 32), torch.empty(2)).splitlines()
    rows = [line.split() for line in lines]
    sizes = [int(row[-1].replace(",", "")) for row in rows]
    assert sum(sizes[:-1]) == sizes[-1] == count_parameters(model).total
    assert [row[0] for row in rows] == [
        "time",
        "conv_in",
        *(f"down.{k}" for k in range(8)),
        "middle",
        *(f"up.{k}" for k in range(9)),
        "norm_out",
        "conv_out",
        "all",
    ]
    middle = next(line for line in lines if line.startswith("middle"))
    assert "ResidualBlock + SelfAttention2d + ResidualBlock" in middle
    assert "128×8×8" in middle
    assert len({len(line) for line in lines}) == 1
    assert not any(module._forward_hooks for module in model.modules())  # none left behind


def test_summary_counts_what_is_not_called():
    net = MyUNet()
    lines = summary(net, torch.zeros(1, 1, 28, 28), torch.tensor([3])).splitlines()
    assert "(others)" in lines[-2]
    assert sum(int(line.split()[-1].replace(",", "")) for line in lines[:-1]) == 606_852


def test_size_of_the_network_written_in_keras():
    """Ours of the same shape, without norms, and without the convolutions after doubling."""
    with torch.device("meta"):
        model = DDPMUNet(DDPMUNetConfig(28, 1, 96, (1, 2, 2), 2, attention=()))
    without = [m for m in model.modules() if isinstance(m, nn.GroupNorm | Upsample)]
    assert count_parameters(model).learned - sum(count_parameters(m).learned for m in without) == 13_118_785
