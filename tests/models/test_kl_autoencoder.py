"""The autoencoder of latent diffusion: its published size, the numbers of diffusers' network, and that it learns."""

import copy

import pytest
import torch
from torch import nn

from course_lib.data import shapes
from course_lib.models.kl_autoencoder import CONFIGS, KLAutoencoder, KLAutoencoderConfig
from course_lib.nn import ResidualBlock, SelfAttention2d, count_parameters

SMALL = KLAutoencoderConfig(size=16, width=8, mults=(1, 2, 2), groups=4)


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_stable_diffusions_size():
    with torch.device("meta"):
        model = KLAutoencoder(CONFIGS["sd"])
    parts = [model.encoder, model.decoder, model.quant_conv, model.post_quant_conv]
    assert [count_parameters(part).learned for part in parts] == [34_163_592, 49_490_179, 72, 20]
    assert count_parameters(model).learned == 83_653_863


def test_shapes_become_4_by_8_by_8():
    model, x = KLAutoencoder().eval(), shapes.make(3, seed=0).images
    q = model.encode(x)
    assert q.mean.shape == q.log_var.shape == (3, 4, 8, 8)
    assert model.decode(q.sample(generator=torch.Generator().manual_seed(0))).shape == x.shape
    assert model.latent_shape == (4, 8, 8)
    assert model(x, torch.randn(3, 4, 8, 8)).kl.shape == (3,)
    assert model.sample(2, torch.Generator().manual_seed(1)).shape == (2, 3, 32, 32)
    assert count_parameters(model).total < 1_200_000


@pytest.mark.parametrize("height", [4, 20])
def test_other_sizes_one_picture_and_copies(height):
    model = KLAutoencoder(SMALL).eval()
    x = torch.rand(1, 3, height, 8) * 2 - 1
    z = model.encode(x).mode
    assert z.shape == (1, 4, height // 4, 2)
    again = KLAutoencoder(SMALL).eval()
    again.load_state_dict(model.state_dict())
    for other in (copy.deepcopy(model), again):
        assert torch.equal(other.decode(other.encode(x).mode), model.decode(z))


def test_log_variance_is_clamped():
    model = KLAutoencoder(SMALL)
    model.quant_conv.weight.data *= 1e6
    q = model.encode(torch.rand(2, 3, 16, 16))
    assert q.log_var.min() == -30
    assert q.log_var.max() == 20
    assert torch.isfinite(q.sample()).all()


def test_posterior_can_have_no_attention():
    model = KLAutoencoder(SMALL.with_(attention=False))
    assert not any(isinstance(m, SelfAttention2d) for m in model.modules())
    assert model.encode(torch.rand(1, 3, 16, 16)).mean.shape == (1, 4, 4, 4)


def test_a_few_steps_lower_the_loss():
    model, images = KLAutoencoder(SMALL.with_(size=32)), shapes.make(64, seed=1).images
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=3e-3), torch.Generator().manual_seed(0)
    losses = []
    for k in range(40):
        x = images[16 * (k % 4) :][:16]
        loss = model(x, torch.randn(16, 4, 8, 8, generator=generator)).loss(beta=0.01)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def twin(theirs: nn.Module, config: KLAutoencoderConfig) -> KLAutoencoder:
    """Our network with the weights of diffusers' AutoencoderKL: block by block, in the order in which they are run."""

    def stages(side):
        blocks = side.down_blocks if hasattr(side, "down_blocks") else side.up_blocks
        middle = [side.mid_block.resnets[0], *side.mid_block.attentions, side.mid_block.resnets[1]]
        levels = []
        for block in blocks:
            levels += block.resnets
            resize = getattr(block, "downsamplers", None) or getattr(block, "upsamplers", None)
            levels += [resize[0].conv] if resize else []
        body = [*levels, *middle] if hasattr(side, "down_blocks") else [*middle, *levels]
        return [side.conv_in, *body, side.conv_norm_out, side.conv_out]

    ours = KLAutoencoder(config).eval()
    for mine, other in ((ours.encoder, stages(theirs.encoder)), (ours.decoder, stages(theirs.decoder))):
        for layer, source in zip([layer for layer in mine if list(layer.parameters())], other, strict=True):
            weights = source.state_dict()
            if isinstance(layer, ResidualBlock):
                weights = {name.replace("conv_shortcut", "shortcut"): value for name, value in weights.items()}
            elif isinstance(layer, SelfAttention2d):
                weights = {
                    f"{new}.{kind}": torch.cat([weights[f"{old}.{kind}"] for old in parts])
                    for new, parts in (
                        ("norm", ["group_norm"]),
                        ("qkv", ["to_q", "to_k", "to_v"]),
                        ("out", ["to_out.0"]),
                    )
                    for kind in ("weight", "bias")
                }
            own = layer.state_dict()
            layer.load_state_dict(
                {n: v.reshape(o.shape) for (n, o), v in zip(own.items(), weights.values(), strict=True)}
            )
    ours.quant_conv.load_state_dict(theirs.quant_conv.state_dict())
    ours.post_quant_conv.load_state_dict(theirs.post_quant_conv.state_dict())
    return ours


@pytest.mark.peers
def test_the_same_numbers_as_diffusers():
    from diffusers import AutoencoderKL

    theirs = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    ).eval()
    ours, x = twin(theirs, SMALL), torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        other = theirs.encode(x).latent_dist
        mine = ours.encode(x)
        torch.testing.assert_close(mine.mean, other.mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.log_var, other.logvar, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.kl(), other.kl(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.decode(mine.mode), theirs.decode(other.mode()).sample, rtol=1e-4, atol=1e-5)
