"""The spatial transformer: by hand and against torch's own attention, the gate, residuals that start as nothing."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.nn.cross_attention import watch
from course_lib.nn.spatial_transformer import (
    GEGLU,
    SequenceAttention,
    SequenceCrossAttention,
    SpatialTransformer,
    TransformerLayer,
)


def filled(layer, seed=0):
    """The layer with random numbers for all its weights: as it is made, its last convolution is 0."""
    g = torch.Generator().manual_seed(seed)
    for weight in layer.parameters():
        weight.data = 0.4 * torch.randn(weight.shape, generator=g)
    return layer.requires_grad_(False)


def things(batch=2, n=12, width=8, tokens=7, context_width=6, seed=1):
    g = torch.Generator().manual_seed(seed)
    real = torch.arange(tokens) < torch.tensor([4, tokens])[:batch, None]
    return torch.randn(batch, n, width, generator=g), torch.randn(batch, tokens, context_width, generator=g), real


# --- attention over sequences ----------------------------------------------------------------------------------------


def with_torch(layer, x, context, real=None):
    """The same weights in `nn.MultiheadAttention`, whose mask is True for what is hidden."""
    width = x.shape[2]
    theirs = nn.MultiheadAttention(
        width, layer.heads, bias=True, kdim=context.shape[2], vdim=context.shape[2], batch_first=True
    )
    with torch.no_grad():
        if theirs.in_proj_weight is None:
            for weight, mine in zip(
                (theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight), (layer.q, layer.k, layer.v),
                strict=True,
            ):  # fmt: skip
                weight.copy_(mine.weight)
        else:
            theirs.in_proj_weight.copy_(torch.cat([layer.q.weight, layer.k.weight, layer.v.weight]))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(layer.out.weight)
        theirs.out_proj.bias.copy_(layer.out.bias)
        return theirs(x, context, context, None if real is None else ~real, average_attn_weights=False)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_torchs(heads):
    x, context, real = things()
    own = filled(SequenceAttention(8, 8, heads))
    assert torch.allclose(own(x), with_torch(own, x, x)[0], atol=1e-5)
    asks = filled(SequenceCrossAttention(8, 6, heads))
    for mask in (None, real):
        found, weights = with_torch(asks, x, context, mask)
        assert torch.allclose(asks(x, context, mask), found, atol=1e-5)
        assert torch.allclose(asks.weights(x, context, mask), weights, atol=1e-6)


def test_attention_by_hand():
    """Pixel by pixel and token by token, with plain numbers; q, k and v have no bias, the way out has one."""
    x, context, real = things()
    layer = filled(SequenceCrossAttention(8, 6, heads=2))
    assert layer.q.bias is layer.k.bias is layer.v.bias is None
    assert layer.out.bias is not None
    found = layer(x, context, real)
    for b in range(2):
        tokens = context[b][real[b]]
        for i, pixel in enumerate(x[b]):
            q, parts = layer.q.weight @ pixel, []
            for head in (slice(0, 4), slice(4, 8)):
                shares = [math.exp(float(q[head] @ (layer.k.weight @ y)[head]) / 2) for y in tokens]  # √4 = 2
                values = [(layer.v.weight @ y)[head] for y in tokens]
                parts.append(sum(s / sum(shares) * v for s, v in zip(shares, values, strict=True)))
            assert torch.allclose(found[b, i], layer.out.weight @ torch.cat(parts) + layer.out.bias, atol=1e-5)


def test_padding_is_never_attended():
    x, context, real = things()
    layer = filled(SequenceCrossAttention(8, 6, heads=2))
    noisy = torch.where(real[..., None], context, 1e3)
    assert torch.equal(layer(x, noisy, real), layer(x, context, real))
    assert not torch.allclose(layer(x, noisy), layer(x, context))
    assert (layer.weights(x, context, real)[0, :, :, 4:] == 0).all()


@pytest.mark.parametrize("tokens", [1, 3, 20])
def test_as_many_answers_as_questions(tokens):
    x, context, _ = things(tokens=tokens)
    assert filled(SequenceCrossAttention(8, 6, heads=2))(x, context).shape == x.shape


@pytest.mark.parametrize("heads", [3, 0, -1])
def test_heads_must_divide_the_width(heads):
    with pytest.raises(ValueError, match=f"heads={heads} must divide width=8"):
        SequenceAttention(8, 8, heads)


# --- the gate --------------------------------------------------------------------------------------------------------


def test_geglu_number_by_number():
    layer, (x, _, _) = filled(GEGLU(8, 5)), things()
    found, both = layer(x), x @ layer.both.weight.T + layer.both.bias
    assert found.shape == (2, 12, 5)
    for b in range(2):
        for i in range(12):
            for k in range(5):
                gate = float(both[b, i, 5 + k])
                share = 0.5 * (1 + math.erf(gate / math.sqrt(2)))  # P(N(0, 1) < gate)
                assert float(found[b, i, k]) == pytest.approx(float(both[b, i, k]) * gate * share, abs=1e-5)


# --- layers and the whole --------------------------------------------------------------------------------------------


def test_a_layer_is_three_steps_with_norms_before():
    x, context, real = things()
    layer = filled(TransformerLayer(8, 6, heads=2))

    def norm(part, h):
        return F.layer_norm(h, (8,), part.weight, part.bias)

    h = x + with_torch(layer.pixels, norm(layer.norm_pixels, x), norm(layer.norm_pixels, x))[0]
    h = h + with_torch(layer.words, norm(layer.norm_words, h), context, real)[0]
    value, gate = layer.mlp[0].both(norm(layer.norm_mlp, h)).chunk(2, dim=-1)
    assert value.shape == (2, 12, 32), "four times the width"
    h = h + layer.mlp[1](value * F.gelu(gate))
    assert torch.allclose(layer(x, context, real), h, atol=1e-4)


@pytest.mark.parametrize("context_width", [6, None])
def test_residual_starts_as_the_identity(context_width):
    x = torch.randn(2, 8, 3, 5)
    context = None if context_width is None else torch.randn(2, 7, 6)
    layer = SpatialTransformer(8, context_width, heads=2, depth=2, groups=4)
    assert torch.equal(layer(x, context), x)
    assert not torch.allclose(filled(layer)(x, context), x)


def test_pixels_in_another_order_give_answers_in_that_order():
    """Pixels become a sequence and come back to their places: the layer knows no positions."""
    x, (_, context, real) = torch.randn(2, 8, 3, 5), things()
    layer = filled(SpatialTransformer(8, 6, heads=2, groups=4))
    order = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    turned = layer(x.flatten(2)[:, :, order].unflatten(2, (3, 5)), context, real)
    assert torch.allclose(turned.flatten(2), layer(x, context, real).flatten(2)[:, :, order], atol=1e-4)


def test_without_a_condition_it_keeps_self_attention_and_has_no_cross_attention():
    layer = filled(SpatialTransformer(8, None, heads=2, groups=4))
    kinds = [type(part) for part in layer.modules()]
    assert SequenceAttention in kinds
    assert SequenceCrossAttention not in kinds
    x = torch.randn(1, 8, 3, 5)
    other = x.clone()
    other[0, :, 0, 0] += 1
    moved = (layer(other) - layer(x)).abs().amax(dim=1)[0]
    assert moved.min() > 1e-6, "a pixel is heard everywhere"


def test_watch_records_rows_that_sum_to_1():
    x, (_, context, real) = torch.randn(2, 8, 4, 4), things()
    layer = filled(SpatialTransformer(8, 6, heads=2, depth=3, groups=4))
    before = layer(x, context, real)
    with watch(layer) as maps:
        assert torch.equal(layer(x, context, real), before)
    assert maps.layers == [f"layers.{k}.words" for k in range(3)]
    for weights in maps.weights:
        assert weights.shape == (2, 2, 16, 7)
        assert torch.allclose(weights.sum(dim=3), torch.ones(2, 2, 16), atol=1e-5)
        assert (weights[0, :, :, 4:] == 0).all()
    assert maps.of_words(4, 7).shape == (2, 7, 4, 4)


def test_gradients_reach_pixels_and_real_tokens_only():
    x, (_, context, real) = torch.randn(2, 8, 3, 4).requires_grad_(), things()
    context.requires_grad_()
    filled(SpatialTransformer(8, 6, heads=2, groups=4))(x, context, real).square().sum().backward()
    assert x.grad.abs().min() > 0
    assert (context.grad[~real] == 0).all()
    assert (context.grad[real].abs().amax(dim=1) > 0).all()


@pytest.mark.parametrize(
    "context", [None, torch.zeros(2, 7, 5), torch.zeros(1, 7, 6)], ids=["nothing", "too narrow", "too few"]
)
def test_tokens_that_do_not_fit(context):
    layer = SpatialTransformer(8, 6, heads=2, groups=4)
    with pytest.raises((ValueError, TypeError), match="context"):  # the run-time check of shapes may come first
        layer(torch.zeros(2, 8, 3, 5), context)
