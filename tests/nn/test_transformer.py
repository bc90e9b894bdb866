"""The transformer block against PyTorch's own layer, its mask, and the quicker attention against the fused one."""

import pytest
import torch
import torch.nn.functional as F

from course_lib.nn.attention import attention, quick_attention
from course_lib.nn.transformer import TransformerBlock, visible


@pytest.fixture
def block():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TransformerBlock(24, 3).eval()


@pytest.fixture
def x():
    return torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1))


def test_it_is_pytorchs_encoder_layer(block, x):
    theirs = torch.nn.TransformerEncoderLayer(24, 3, 96, 0.0, F.gelu, batch_first=True, norm_first=True).eval()
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(block.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(block.qkv.bias)
        theirs.self_attn.out_proj.load_state_dict(block.out.state_dict())
        theirs.norm1.load_state_dict(block.norm_attention.state_dict())
        theirs.norm2.load_state_dict(block.norm_mlp.state_dict())
        theirs.linear1.load_state_dict(block.mlp[0].state_dict())
        theirs.linear2.load_state_dict(block.mlp[2].state_dict())
    assert torch.allclose(block(x), theirs(x), atol=1e-5)
    real = torch.arange(7) < torch.tensor([[4], [7]])
    masked = theirs(x, src_key_padding_mask=~real)
    assert torch.allclose(block(x, visible(real))[real], masked[real], atol=1e-5)


def test_what_is_hidden_changes_nothing(block, x):
    real = torch.arange(7) < torch.tensor([[4], [7]])
    other = torch.where(real[..., None], x, 100.0)
    assert torch.equal(block(x, visible(real))[real], block(other, visible(real))[real])
    assert not torch.allclose(block(x)[real], block(other)[real])


def test_a_causal_mask(block, x):
    """Token 5 cannot change what earlier tokens become."""
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    other = x.clone()
    other[:, 5] += 1
    assert torch.equal(block(x, causal)[:, :5], block(other, causal)[:, :5])
    assert not torch.allclose(block(x, causal)[:, 5:], block(other, causal)[:, 5:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [True, False])
def test_both_ways_of_attention_agree(dtype, grad):
    q, k, v = torch.randn(3, 2, 4, 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    q.requires_grad_(grad)
    mask = torch.arange(6) < torch.tensor([6, 2]).view(2, 1, 1, 1)
    tolerance = 1e-6 if dtype == torch.float32 else 3e-2
    for some in (None, mask):
        expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=some)
        for found in (quick_attention(q, k, v, some), attention(q, k, v, some)):
            assert found.dtype == dtype
            assert torch.allclose(found.float(), expected, atol=tolerance)


def test_dropout_acts_in_training_only(x):
    block = TransformerBlock(24, 3, dropout=0.5)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))
