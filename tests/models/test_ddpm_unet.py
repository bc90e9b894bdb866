"""The U-Net: sizes, counts, what reaches what, and the same numbers as diffusers' network with the same weights."""

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from course_lib.models.ddpm_unet import CONFIGS, DDPMUNet, DDPMUNetConfig
from course_lib.models.diffusers_weights import from_diffusers, layer_names
from course_lib.nn import SelfAttention2d

TINY = DDPMUNetConfig(16, 2, 8, (1, 2, 3), attention=(8,), groups=4)


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def awake(config):
    """A network whose zero-initialised layers have weights."""
    model = DDPMUNet(config).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize(("name", "count"), [("cifar10", 35_746_307), ("lsun256", 113_673_219)])
def test_published_sizes(name, count):
    with torch.device("meta"):
        model = DDPMUNet(CONFIGS[name])
    assert sum(p.numel() for p in model.parameters()) == count


def test_cifar10_has_the_papers_parts():
    with torch.device("meta"):
        model = DDPMUNet(CONFIGS["cifar10"])
    kinds = [type(module).__name__ for module in model.modules()]
    assert kinds.count("ResidualBlock") == 22
    assert kinds.count("SelfAttention2d") == 6
    assert len(model.down) + 1 == 12 == len(model.up)  # conv_in counted


@pytest.mark.parametrize("name", ["grey28", "grey32", "rgb32"])
def test_starts_silent(name):
    config = CONFIGS[name].with_(width=32)
    model = DDPMUNet(config)
    x = torch.randn(2, config.channels, config.size, config.size)
    assert (model(x, torch.tensor([0, 999])) == 0).all()  # so the first loss is E‖ε‖²/d = 1
    assert model.prediction == "noise"


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    levels=st.integers(1, 4),
    mults=st.lists(st.integers(1, 4), min_size=4, max_size=4),
    blocks=st.integers(1, 3),
    unit=st.integers(1, 3),
)
def test_every_skip_finds_its_place(levels, mults, blocks, unit):
    size = unit * 2 ** (levels - 1)
    config = DDPMUNetConfig(size, 1, 4, tuple(mults[:levels]), blocks, attention=(), groups=2)
    model = awake(config)
    x = torch.randn(1, 1, size, size)
    assert model(x, torch.tensor([5])).shape == x.shape
    assert len(model.up) == levels * (blocks + 1) == len(model.down) + 1
    assert torch.equal(model(x, torch.tensor([5])), model(x, torch.tensor([5])))  # nothing is kept between calls


def test_attention_where_it_was_asked_for():
    model, seen = awake(TINY.with_(attention=(4, 16))), []
    for module in model.modules():
        if isinstance(module, SelfAttention2d):
            module.register_forward_hook(lambda _module, inputs, _out: seen.append(inputs[0].shape[2]))
    model(torch.randn(1, 2, 16, 16), torch.tensor([0]))
    assert seen == [16, 16, 4, 4, 4, 4, 4, 4, 16, 16, 16]  # the one in the middle is always there


def test_all_weights_matter():
    model = awake(TINY)
    model(torch.randn(2, 2, 16, 16), torch.tensor([3, 900])).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("embedding", ["sin_cos", "cos_sin"])
def test_time_and_picture_matter_pictures_do_not_mix(embedding):
    model = awake(TINY.with_(embedding=embedding))
    x, t = torch.randn(3, 2, 16, 16), torch.tensor([0, 10, 999])
    out = model(x, t)
    assert not torch.allclose(out, model(x, t + torch.tensor([1, 0, 0])))
    alone = torch.cat([model(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    assert torch.allclose(out, alone, atol=1e-5)


def test_other_sizes_than_it_was_made_for():
    x = torch.randn(1, 2, 24, 12)
    assert awake(TINY)(x, torch.tensor([1])).shape == x.shape


def test_recompute_gives_the_same_gradients():
    grads = []
    for recompute in (False, True):
        torch.manual_seed(3)
        model = awake(TINY.with_(recompute=recompute)).train()
        model(torch.ones(1, 2, 16, 16), torch.tensor([7])).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def peer(config):
    """diffusers' network of the same architecture."""
    diffusers = pytest.importorskip("diffusers")
    down = [
        "AttnDownBlock2D" if config.size >> k in config.attention else "DownBlock2D" for k in range(len(config.mults))
    ]
    return diffusers.UNet2DModel(
        sample_size=config.size, in_channels=config.channels, out_channels=config.channels,
        block_out_channels=tuple(config.width * m for m in config.mults), layers_per_block=config.blocks,
        down_block_types=tuple(down), up_block_types=tuple(n.replace("Down", "Up") for n in reversed(down)),
        attention_head_dim=None, norm_num_groups=config.groups, downsample_padding=0, norm_eps=1e-6,
        flip_sin_to_cos=config.embedding == "cos_sin", freq_shift=int(config.embedding == "sin_cos"),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("config", [TINY, TINY.with_(embedding="cos_sin", blocks=1), CONFIGS["cifar10"]], ids=str)
def test_diffusers_weights_give_diffusers_numbers(config):
    theirs, ours = peer(config), DDPMUNet(config).eval()
    ours.load_state_dict(from_diffusers(theirs.state_dict(), config))
    x, t = torch.randn(2, config.channels, config.size, config.size), torch.tensor([3, 900])
    with torch.no_grad():
        wanted = theirs(x, t).sample
        assert torch.allclose(ours(x, t), wanted, atol=1e-4)
    assert wanted.std() > 0.01


def test_key_mapping_needs_the_same_architecture():
    weights = peer(TINY).state_dict()
    names = [ours for ours, _, _ in layer_names(TINY)]
    assert len(set(names)) == len(names)
    with pytest.raises(KeyError, match="another architecture"):
        from_diffusers(weights, TINY.with_(blocks=3))
    with pytest.raises(ValueError, match="have no place"):
        from_diffusers(weights, TINY.with_(blocks=1))
