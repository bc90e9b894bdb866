"""The parts of a ControlNet: the published sizes, the encoder of control images, one block under control."""

import hashlib
import math

import pytest
import torch
from torch import nn

from course_lib.models.controlnet import (
    ControlledBlock,
    ControlNet,
    ControlNetConfig,
    condition_encoder,
    zero_conv,
)
from course_lib.models.latent_unet import LatentUNet, LatentUNetConfig
from course_lib.nn import ResidualBlock, TransformerBlock


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def fingerprint(network):
    blob = b"".join(w.detach().contiguous().numpy().tobytes() for w in network.state_dict().values())
    return hashlib.sha256(blob).hexdigest()


# --- the published one -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    with torch.device("meta"):
        return ControlNet(LatentUNet(LatentUNetConfig.stable_diffusion_v1()), ControlNetConfig())


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_published_parameters(published):
    assert count(published) == 361_279_120
    assert count(published.encoder) == 1_086_480
    assert sum(count(conv) for conv in published.zero_convs) == 11_479_680
    widths = [conv.out_channels for conv in published.zero_convs]
    assert widths == [320] * 4 + [640] * 3 + [1280] * 6
    assert sum(width * width + width for width in widths) == 11_479_680


def test_the_published_wiring(published):
    x_t, t = torch.zeros(1, 4, 64, 64, device="meta"), torch.zeros(1, dtype=torch.long, device="meta")
    from course_lib.models.conditions import TextCondition

    keep = torch.ones(1, dtype=torch.bool)
    text = TextCondition(
        torch.zeros(1, 77, 768, device="meta"), torch.ones(1, 77, dtype=torch.bool, device="meta"),
        torch.zeros(1, 768, device="meta"), keep,
    )  # fmt: skip
    hint = published.encoder(torch.zeros(1, 3, 512, 512, device="meta"))
    assert hint.shape == (1, 320, 64, 64)
    halfway = published.copy.encode(x_t, t, text, hint=hint)
    sides = [64] * 3 + [32] * 3 + [16] * 3 + [8] * 3
    assert [tuple(skip.shape) for skip in halfway.skips] == [
        (1, conv.out_channels, side, side) for conv, side in zip(published.zero_skips, sides, strict=True)
    ]
    assert halfway.middle.shape == (1, 1280, 8, 8)


# --- the encoder of control images -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "side"),
    [
        (ControlNetConfig(), 64),
        (ControlNetConfig(3, (16, 32, 64, 128), "paper", halvings=4), 32),
        (ControlNetConfig(3, (16, 32, 64, 128), "paper", halvings=3), 64),
        (ControlNetConfig(3, (16, 32, 64, 128), "paper"), 64),
    ],
)
def test_sizes_of_the_condition_encoder(config, side):
    with torch.device("meta"):
        encoder = condition_encoder(config, 320)
        assert encoder(torch.zeros(1, 3, 512, 512)).shape == (1, 320, side, side)
    assert 512 // config.factor == side


def test_the_papers_four_halvings_do_not_fit():
    with torch.device("meta"):
        features = condition_encoder(ControlNetConfig(3, (16, 32, 64, 128), "paper", halvings=4), 320)(
            torch.zeros(1, 3, 512, 512)
        )
        with pytest.raises(RuntimeError, match="64"):
            features + torch.zeros(1, 320, 64, 64)


@pytest.mark.parametrize("kind", ["published", "paper"])
def test_the_encoder_starts_at_0_in_its_last_layer_only(kind):
    torch.manual_seed(0)
    encoder = condition_encoder(ControlNetConfig(3, (8, 16, 32), kind), 12)
    image = torch.rand(2, 3, 32, 32)
    assert not encoder(image).any()
    assert encoder[:-1](image).any()
    assert isinstance(encoder[-1], nn.Conv2d)
    convs = [layer for layer in encoder[:-1] if isinstance(layer, nn.Conv2d)]
    assert all(conv.weight.any() for conv in convs)
    if kind == "paper":
        assert not any(conv.bias.any() for conv in convs)
        assert [conv.stride[0] for conv in convs] == [2, 2, 1]
        assert [conv.kernel_size[0] for conv in convs] == [4, 4, 3]
        spread = convs[2].weight.std().item()
        assert spread == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.1)


# --- one block -------------------------------------------------------------------------------------------------------


def blocks():
    torch.manual_seed(0)
    residual = ResidualBlock(8, 8, 6, groups=4)
    with torch.no_grad():
        for weight in residual.parameters():
            if not weight.any():
                weight.normal_(0, 0.2)
    maps, tokens = torch.randn(2, 8, 5, 5), torch.randn(2, 7, 8)
    return {
        "residual": (residual, maps, (torch.randn(2, 6),), False),
        "convolution": (nn.Conv2d(8, 8, 3, padding=1), maps, (), False),
        "sequence": (nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1)), maps, (), False),
        "transformer": (TransformerBlock(8, 2), tokens, (), True),
        "linear": (nn.Linear(8, 8), tokens, (), True),
    }


@pytest.mark.parametrize("name", ["residual", "convolution", "sequence", "transformer", "linear"])
def test_any_block_can_be_controlled(name):
    """Identical at the start, bit for bit; locked; the copy wakes up at the second step."""
    block, x, told, tokens = blocks()[name]
    with torch.no_grad():
        plain = block(x, *told)
    controlled = ControlledBlock(block, 8, tokens=tokens)
    control, goal = torch.randn(x.shape), torch.randn(x.shape)
    assert torch.equal(controlled(x, control, *told), plain)
    before = fingerprint(block)
    optimizer = torch.optim.SGD(controlled.parameters(), 0.1)
    found = []
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        (controlled(x, control, *told) - goal).square().mean().backward()
        parts = {"copy": controlled.copy, "zero_in": controlled.zero_in, "zero_out": controlled.zero_out}
        found.append(
            {key: any(p.grad is not None and p.grad.any() for p in m.parameters()) for key, m in parts.items()}
        )
        optimizer.step()
    assert found[0] == {"copy": False, "zero_in": False, "zero_out": True}
    assert found[1] == {"copy": True, "zero_in": True, "zero_out": True}
    assert fingerprint(block) == before
    assert controlled.locked is block
    assert not any(p.requires_grad for p in block.parameters())
    assert fingerprint(controlled.copy) != before


def test_a_zero_convolution_gives_0_and_can_learn():
    conv = zero_conv(4)
    x = torch.randn(2, 4, 3, 3, generator=fresh())
    assert conv.kernel_size == (1, 1)
    assert not conv(x).any()
    goal = torch.randn(2, 4, 3, 3, generator=fresh(1))
    x = x.requires_grad_()
    (conv(x) - goal).square().sum().backward()
    assert torch.allclose(conv.weight.grad[:, :, 0, 0], torch.einsum("nohw,nihw->oi", -2 * goal, x), atol=1e-4)
    assert torch.allclose(conv.bias.grad, (-2 * goal).sum(dim=(0, 2, 3)), atol=1e-4)
    assert not x.grad.any()
