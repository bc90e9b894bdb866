"""Attention to tokens, both ways: by hand with loops, masks that mask, and a recorder that changes nothing."""

import copy
import math

import pytest
import torch
from torch import nn

from course_lib.models.conditioned_unet import Body, BodyConfig
from course_lib.nn import SelfAttention2d
from course_lib.nn.cross_attention import CrossAttention2d, JointAttention2d, attention_weights, watch

KINDS = [CrossAttention2d, JointAttention2d]


def layer(kind, channels=8, token_dim=6, heads=2, groups=4, seed=0):
    """A layer with random weights everywhere: as it is made, its last convolution is 0."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = kind(channels, token_dim, heads, groups)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.4)
    return made.requires_grad_(False)


def things(batch=2, channels=8, height=3, width=5, tokens=7, token_dim=6, seed=1):
    g = torch.Generator().manual_seed(seed)
    x, given = (
        torch.randn(batch, channels, height, width, generator=g),
        torch.randn(batch, tokens, token_dim, generator=g),
    )
    real = torch.arange(tokens) < torch.tensor([4, tokens])[:batch, None]
    return x, given, real


def by_hand(made, x, tokens, real):
    """Pixel by pixel, head by head, token by token, with plain numbers."""
    joint = isinstance(made, JointAttention2d)
    normed, out = made.norm(x), x.clone()
    channels, size = x.shape[1], x.shape[1] // made.heads
    matrix = (made.qkv if joint else made.q).weight.flatten(1)
    bias = (made.qkv if joint else made.q).bias
    for b in range(len(x)):
        pixels = [matrix @ normed[b, :, i, j] + bias for i in range(x.shape[2]) for j in range(x.shape[3])]
        asked = [(pixel[channels : 2 * channels], pixel[2 * channels :]) for pixel in pixels] if joint else []
        for token, flag in zip(tokens[b], real[b].tolist(), strict=True):
            if flag:
                key_value = made.kv.weight @ token + made.kv.bias
                asked.append((key_value[:channels], key_value[channels:]))
        for p, pixel in enumerate(pixels):
            found = []
            for head in range(made.heads):
                part = slice(head * size, (head + 1) * size)
                scores = [math.exp(float(pixel[:channels][part] @ key[part]) / math.sqrt(size)) for key, _ in asked]
                found.append(sum(s / sum(scores) * value[part] for s, (_, value) in zip(scores, asked, strict=True)))
            at = (b, slice(None), p // x.shape[3], p % x.shape[3])
            out[at] += made.out.weight.flatten(1) @ torch.cat(found) + made.out.bias
    return out


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_loop(kind, heads):
    made, (x, tokens, real) = layer(kind, heads=heads), things()
    assert torch.allclose(made(x, tokens, real), by_hand(made, x, tokens, real), atol=1e-5)
    everything = torch.ones_like(real)
    assert torch.allclose(made(x, tokens), by_hand(made, x, tokens, everything), atol=1e-5)
    assert torch.allclose(made(x, tokens), made(x, tokens, everything), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_never_attended(kind):
    """Randomised, made enormous, or cut away: with a mask, padding changes nothing; without one it does."""
    made, (x, tokens, real) = layer(kind), things()
    expected = made(x, tokens, real)
    for other in (torch.randn(tokens.shape), 1e4 * torch.ones_like(tokens), torch.zeros_like(tokens)):
        changed = torch.where(real[..., None], tokens, other)
        assert torch.equal(made(x, changed, real), expected)
        assert (made(x, changed) - made(x, tokens)).abs().max() > 0.01
    assert torch.allclose(made(x[:1], tokens[:1, :4]), expected[:1], atol=1e-6), "as if the padding were not there"


@pytest.mark.parametrize("tokens", [1, 3, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_the_output_has_the_shape_of_the_pixels(kind, tokens):
    x, given, _ = things(tokens=tokens)
    assert layer(kind)(x, given).shape == x.shape


@pytest.mark.parametrize("kind", KINDS)
def test_starts_as_the_identity(kind):
    x, tokens, real = things()
    assert torch.equal(kind(8, 6, 2, 4)(x, tokens, real), x)


def test_zeroed_tokens_leave_the_bias_path():
    """All keys are alike, so all values are, and every pixel gets the very same thing added, whatever it asks."""
    made, (x, tokens, real) = layer(CrossAttention2d), things()
    added = made(x, torch.zeros_like(tokens), real) - x
    constant = made.out(made.kv.bias[8:, None, None]).expand_as(added)
    assert torch.allclose(added, constant, atol=1e-6)
    assert torch.allclose(made.weights(x, torch.zeros_like(tokens)), torch.tensor(1 / 7), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_tokens_and_pixels_is_theirs(kind):
    """Tokens in another order, with their flags: the same answer. Pixels in another order: answers in that order."""
    made, (x, tokens, real) = layer(kind), things()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(made(x, tokens[:, order], real[:, order]), made(x, tokens, real), atol=1e-5)
    turned = made(x.flip(2, 3), tokens, real)
    assert torch.allclose(turned.flip(2, 3), made(x, tokens, real), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_sum_to_1_and_columns_do_not(kind):
    made, (x, tokens, real) = layer(kind), things()
    weights = made.weights(x, tokens, real)
    pixels = 0 if kind is CrossAttention2d else 15
    assert weights.shape == (2, 2, 15, pixels + 7)
    assert torch.allclose(weights.sum(dim=3), torch.ones(2, 2, 15), atol=1e-5)
    assert (weights[0, :, :, pixels + 4 :] == 0).all()
    assert (weights[0, :, :, : pixels + 4] > 0).all()
    assert (weights.sum(dim=2) - weights.sum(dim=2).mean()).abs().max() > 0.1


def test_the_weights_by_the_formula():
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 1, 4, 3, generator=g), torch.randn(1, 1, 5, 3, generator=g)
    mask = torch.tensor([True, True, False, True, False])
    found = attention_weights(q, k, mask)
    for i in range(4):
        scores = [math.exp(float(q[0, 0, i] @ k[0, 0, j]) / math.sqrt(3)) if mask[j] else 0.0 for j in range(5)]
        assert found[0, 0, i].tolist() == pytest.approx([s / sum(scores) for s in scores], abs=1e-6)


def test_joint_without_tokens_is_self_attention():
    made, x = layer(JointAttention2d), things()[0]
    plain = SelfAttention2d(8, 2, 4)
    plain.load_state_dict({name: value for name, value in made.state_dict().items() if not name.startswith("kv.")})
    with torch.no_grad():
        assert torch.allclose(made(x), plain(x), atol=1e-6)
    tokens = torch.randn(2, 3, 6)
    hidden = torch.zeros(2, 3, dtype=torch.bool)
    assert torch.allclose(made(x, tokens, hidden), made(x), atol=1e-6), "all tokens hidden: the pixels are left"


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_pixels_and_real_tokens_only(kind):
    made, (x, tokens, real) = layer(kind), things()
    x.requires_grad_()
    tokens.requires_grad_()
    made(x, tokens, real).square().sum().backward()
    assert x.grad.abs().amax(dim=1).min() > 0
    assert (tokens.grad[~real] == 0).all()
    assert (tokens.grad[real].abs().amax(dim=1) > 0).all()


# --- watching --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["cross", "joint"])
def network(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BodyConfig(size=16, width=8, mults=(1, 2, 2), heads=2, groups=4, dropout=0.0, token_dim=6)
        body = Body(config, ask=request.param)
        for parameter in body.parameters():
            nn.init.normal_(parameter, std=0.1)
    return body.eval().requires_grad_(False)


def asked(network, seed=0):
    g = torch.Generator().manual_seed(seed)
    tokens, real = torch.randn(2, 7, 6, generator=g), torch.arange(7) < torch.tensor([[4], [7]])
    return network(torch.randn(2, 3, 16, 16, generator=g), torch.randn(2, 128, generator=g), tokens, real)


def test_watching_changes_no_bit_and_leaves_nothing_behind(network):
    before, state = asked(network), copy.deepcopy(network.state_dict())
    with watch(network) as maps:
        assert torch.equal(asked(network), before)
    assert torch.equal(asked(network), before)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    attention = [name for name, module in network.named_modules() if isinstance(module, tuple(KINDS))]
    assert maps.layers == attention
    assert len(maps.weights) == len(attention) == 5
    assert not any(module._forward_hooks for module in network.modules())


def test_an_error_inside_takes_the_hooks_away(network):
    with pytest.raises(RuntimeError, match="stop"), watch(network):
        raise RuntimeError("stop")
    assert not any(module._forward_hooks for module in network.modules())


def test_maps_of_words(network):
    """Averaged over heads, layers of that size and calls; what is left over the tokens sums to 1 at each pixel."""
    with watch(network) as maps:
        asked(network)
        asked(network, seed=1)
    assert len(maps.weights) == 2 * 5
    of_words = maps.of_words(8, 7)
    assert of_words.shape == (2, 7, 8, 8)
    assert torch.allclose(of_words.sum(dim=1), torch.ones(2, 8, 8), atol=1e-5)
    assert (of_words[0, 4:] == 0).all()
    mine = [weights[..., -7:].mean(dim=1) for weights in maps.weights if weights.shape[2] == 64]
    assert len(mine) == 2 * 4
    expected = sum(m / m.sum(dim=2, keepdim=True) for m in mine) / len(mine)
    assert torch.allclose(of_words.flatten(2).transpose(1, 2), expected, atol=1e-6)
    assert maps.of_words(4, 7).shape == (2, 7, 4, 4)
    with pytest.raises(ValueError, match=r"side=16 was not recorded.*\[4, 8\]"):
        maps.of_words(16, 7)


def test_maps_of_one_head(network):
    with watch(network) as maps:
        asked(network)
    layer = next(name for name, weights in zip(maps.layers, maps.weights, strict=True) if weights.shape[2] == 64)
    weights = maps.weights[maps.layers.index(layer)]
    for head in range(weights.shape[1]):
        mine = weights[:, head, :, -7:]
        expected = mine / mine.sum(dim=2, keepdim=True)
        found = maps.of_words(8, 7, (layer, head)).flatten(2).transpose(1, 2)
        assert torch.allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"nowhere.*was not recorded at side=8"):
        maps.of_words(8, 7, ("nowhere", 0))


# --- what doesn't go together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_heads_must_divide_the_channels(kind):
    for heads in (3, 0, -1):
        with pytest.raises(ValueError, match="must divide channels=8"):
            kind(8, 6, heads, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_that_do_not_go_together(kind):
    made, (x, tokens, real) = layer(kind), things()
    for wrong in (tokens[:1], tokens[..., :5]):  # the run-time check of shapes raises a TypeError before ours
        with pytest.raises((ValueError, TypeError), match="tokens"):
            made(x, wrong)
    with pytest.raises((ValueError, TypeError), match="real"):
        made(x, tokens, real[:, :5])
