"""GroupNorm for channels-last pictures on a CPU: torch's own numbers, forwards and backwards."""

import pytest
import torch
from torch import nn

from course_lib.nn.norm import GroupNorm, _ChannelsLast

SHAPES = [(3, 12, 5, 7, 4), (2, 8, 4, 4, 8), (1, 6, 3, 2, 1)]  # batch, channels, height, width, groups


def pair(channels, groups):
    """torch's and ours, with the same weights, none of them 0 or 1."""
    theirs, ours = nn.GroupNorm(groups, channels, eps=1e-6), GroupNorm(groups, channels, eps=1e-6)
    g = torch.Generator().manual_seed(1)
    nn.init.normal_(theirs.weight, generator=g)
    nn.init.normal_(theirs.bias, generator=g)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def gradients(norm, x, weights, last):
    norm.zero_grad()
    x = x.clone(memory_format=torch.channels_last if last else torch.contiguous_format).requires_grad_()
    y = norm(x)
    (y * weights).sum().backward()
    return y.detach(), x.grad, norm.weight.grad.clone(), norm.bias.grad.clone()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("mean", [0.0, 5.0])
def test_equals_torchs(shape, dtype, tolerance, mean):
    *sizes, groups = shape
    theirs, ours = (norm.to(dtype) for norm in pair(sizes[1], groups))
    g = torch.Generator().manual_seed(0)
    x, weights = torch.randn(sizes, generator=g).to(dtype) * 2 + mean, torch.randn(sizes, generator=g).to(dtype)
    for wanted, found in zip(gradients(theirs, x, weights, False), gradients(ours, x, weights, True), strict=True):
        assert torch.allclose(found, wanted, rtol=tolerance, atol=tolerance)
    assert gradients(ours, x, weights, True)[1].is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_is_no_less_exact_than_torchs():
    theirs, ours = pair(16, 4)
    g = torch.Generator().manual_seed(0)
    x, weights = (torch.randn(8, 16, 8, 8, generator=g).bfloat16().float() for _ in range(2))
    x = (x + 3).bfloat16().float()
    exact = gradients(theirs, x, weights, False)
    rough = [gradients(norm, x.bfloat16(), weights, True) for norm in (theirs.bfloat16(), ours.bfloat16())]
    for wanted, of_theirs, of_ours in zip(exact, *rough, strict=True):
        error = [(wanted - found.float()).norm().item() for found in (of_theirs, of_ours)]
        assert error[1] < 1.5 * error[0] + 1e-6


def test_numerical_gradient():
    _, ours = pair(4, 2)
    g = torch.Generator().manual_seed(0)
    x = (
        torch.randn(2, 4, 3, 3, generator=g, dtype=torch.float64)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
    )
    assert torch.autograd.gradcheck(lambda x, w, b: _run(ours, x, w, b), (x, *(p.double() for p in ours.parameters())))


def _run(norm, x, weight, bias):
    return _ChannelsLast.apply(x, weight, bias, norm.num_groups, norm.eps)


def test_without_gradients_and_in_the_other_order_it_is_torchs_to_the_bit():
    theirs, ours = pair(8, 4)
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))
    last = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(ours(last), theirs(last))
    assert torch.equal(ours(last), theirs(last))  # its forward pass is torch's too
