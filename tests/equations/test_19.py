"""Every tagged equation of lesson 19, checked by a route that does not use the formula itself."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.data import shapes
from course_lib.diffusion import Schedule, q_sample, target
from course_lib.evaluation.control import edge_f1
from course_lib.lesson.exercises.lesson_19 import controlled_block, one_by_one_gradients
from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.conditioned_unet import BodyConfig
from course_lib.models.controlnet import (
    Control,
    Controlled,
    ControlledBlock,
    ControlNet,
    ControlNetConfig,
    condition_encoder,
    guess_factors,
)
from course_lib.models.text_unet import TextUNet, TextUNetConfig
from course_lib.recipes import _control
from course_lib.recipes._shape_captions import one_wording
from course_lib.training import Draws

SCHEDULE = Schedule.cosine(1000)
BODY = BodyConfig(
    size=32, width=8, mults=(1, 2), blocks=1, attention=(1,), heads=2, groups=4, dropout=0.0, embedding_dim=12,
    token_dim=16, patch=4,
)  # fmt: skip


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def open_up(network, seed=5):
    """Draw what is 0 at random, so that every part has a say."""
    with torch.no_grad():
        for k, weight in enumerate(network.parameters()):
            if not weight.any():
                weight.copy_(0.2 * torch.randn(weight.shape, generator=fresh(seed + k)))
    return network


def toy_block():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(6, 9, 3, padding=1), nn.SiLU(), nn.Conv2d(9, 6, 1))


def small(seed=0):
    torch.manual_seed(seed)
    clip = CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1)).freeze()
    base = open_up(TextUNet(TextUNetConfig(BODY, text_width=8, text_dim=6, prediction="v"))).eval()
    base.requires_grad_(False)
    return clip, base, open_up(ControlNet(base, ControlNetConfig(1, (8, 8, 8)))).eval()


def _control_text(clip):
    from course_lib.models.conditions import text_condition

    return text_condition(clip, ["a red circle", "a blue star"])


def test_eq_19_1():
    """Shares by looking at all pairs of pixels, and the harmonic mean as one over the mean of one-overs."""
    scenes = shapes.make(12, seed=4)
    found, asked = scenes.edges.roll(1, dims=0), scenes.edges
    found[:, :, 3] = 1
    scores = edge_f1(found, asked)
    for k in range(12):
        a, b = (edges[k, 0].nonzero().float() for edges in (found, asked))
        near = torch.cdist(a, b) <= 1.001
        precision, recall = near.any(dim=1).double().mean(), near.any(dim=0).double().mean()
        f1 = 0.0 if precision == 0 else (1 / ((1 / precision + 1 / recall) / 2)).item()
        assert scores[k].item() == pytest.approx(f1, abs=1e-6)


def test_eq_19_2():
    """A block under a control that it doesn't hear yet is the block: same x, same Θ, same y."""
    block, x = toy_block(), torch.randn(2, 6, 5, 5, generator=fresh())
    weights = {name: w.clone() for name, w in block.named_parameters()}
    y = block(x)
    controlled = ControlledBlock(block, 6)
    for control in (torch.zeros_like(x), torch.ones_like(x), 100 * torch.randn(x.shape, generator=fresh(1))):
        assert torch.equal(controlled(x, control), y)
    assert torch.equal(torch.func.functional_call(controlled.locked, weights, x), y), "Θ is all that decides"
    other = {name: w + 0.1 for name, w in weights.items()}
    assert not torch.allclose(torch.func.functional_call(controlled.locked, other, x), y)


def test_eq_19_3():
    """Each Z as the plain sums that a 1×1 convolution is, the copy as a second network."""
    block, x, c = toy_block(), *torch.randn(2, 2, 6, 4, 4, generator=fresh())
    controlled = open_up(ControlledBlock(block, 6))
    with torch.no_grad():
        for k, weight in enumerate(controlled.copy.parameters()):
            weight.add_(0.1 * torch.randn(weight.shape, generator=fresh(k)))

        def at_each_position(layer, features):
            found = torch.empty_like(features)
            for n in range(2):
                for row in range(4):
                    for column in range(4):
                        found[n, :, row, column] = layer.weight[:, :, 0, 0] @ features[n, :, row, column] + layer.bias
            return found

        asked = x + at_each_position(controlled.zero_in, c)
        by_hand = block(x) + at_each_position(controlled.zero_out, controlled.copy(asked))
        assert torch.allclose(controlled(x, c), by_hand, atol=1e-5)
        parts = (controlled.locked, controlled.copy, x, c, controlled.zero_in, controlled.zero_out)
        assert torch.allclose(controlled(x, c), controlled_block(*parts), atol=1e-6)


def test_eq_19_4():
    """The slopes by moving one number at a time, and for a layer of zeros by autograd."""
    x, above = (torch.randn(2, c, 3, 4, generator=fresh(c), dtype=torch.float64) for c in (3, 5))
    weight, bias = (torch.randn(*s, generator=fresh(9), dtype=torch.float64) for s in ((5, 3), (5,)))

    def loss(w, b, z):  # its slope in y is `above` everywhere
        return (above * (torch.einsum("oi,nihw->nohw", w, z) + b[:, None, None])).sum()

    found = one_by_one_gradients(x, weight, above)
    for place, given in enumerate((weight, bias, x)):
        for index in ((0,) * given.ndim, tuple(s - 1 for s in given.shape)):
            moved = given.clone()
            moved[index] += 1e-4
            args = [weight, bias, x]
            args[place] = moved
            slope = (loss(*args) - loss(weight, bias, x)) / 1e-4
            assert found[place][index].item() == pytest.approx(slope.item(), rel=1e-6)
    zero, nothing, x = torch.zeros_like(weight).requires_grad_(), torch.zeros_like(bias).requires_grad_(), x.clone()
    loss(zero, nothing, x.requires_grad_()).backward()
    at_zero = one_by_one_gradients(x.detach(), torch.zeros_like(weight), above)
    for mine, theirs in zip(at_zero, (zero.grad, nothing.grad, x.grad), strict=True):
        assert torch.allclose(mine, theirs)
    assert zero.grad.all()
    assert nothing.grad.all()
    assert not x.grad.any()


@torch.no_grad()
def test_eq_19_5():
    """The copy's skips by hooks in a whole U-Net with its weights, each position through its zero layer by hand."""
    clip, base, net = small()
    whole = copy.deepcopy(base)
    whole.load_state_dict(net.copy.state_dict(), strict=False)
    x_t, t = torch.randn(2, 3, 32, 32, generator=fresh()), torch.tensor([3, 800])
    image, text = torch.rand(2, 1, 32, 32, generator=fresh(1)), _control_text(clip)
    own = []
    whole.body.conv_in.register_forward_hook(lambda _, args, out: out + net.encoder(image))
    for layer in whole.body.encoder:
        if type(layer).__name__ == "ResidualBlock":
            layer.register_forward_hook(lambda _, args, out: own.append(out))
    whole.body.bottleneck[-1].register_forward_hook(lambda _, args, out: own.append(out))
    whole(x_t, t, text)
    found = net(x_t, t, text, image)
    for zero, mine, residual in zip(net.zero_convs, own, (*found.skips, found.middle), strict=True):
        rows = mine.permute(0, 2, 3, 1) @ zero.weight[:, :, 0, 0].T + zero.bias
        assert torch.allclose(residual, rows.permute(0, 3, 1, 2), atol=1e-4)
        assert residual.any()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["published", "paper"])
def test_eq_19_6(kind):
    """A feature knows its own neighbourhood of the image, and lies where that is: shift one, the other shifts."""
    torch.manual_seed(0)
    encoder = open_up(condition_encoder(ControlNetConfig(1, (4, 6, 8), kind), 5))
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 30:34, 30:34] = 1
    features = encoder(image)
    assert features.shape == (1, 5, 16, 16)
    moved = encoder(image.roll((4, -4), dims=(2, 3)))
    inside = slice(5, 11)
    assert torch.allclose(
        moved.roll((-1, 1), dims=(2, 3))[..., inside, inside], features[..., inside, inside], atol=1e-5
    )
    blank = encoder(torch.zeros_like(image))
    changed = (features - blank).abs().amax(dim=1)[0] > 1e-6
    assert changed[7:9, 7:9].all()
    assert not changed[:3].any()
    assert not changed[:, 13:].any()


def test_eq_19_7():
    """One number of the objective, rebuilt picture by picture from the lesson's own words."""
    clip, base, net = small()
    data, n = _control.ControlledScenes("edges", clip, 12, seed=1), 12
    batch = data(torch.arange(n))
    with torch.no_grad():
        found = _control.ControlObjective(base, SCHEDULE, clip)(net, batch, Draws(3, 4, n, slice(0, n)))
        draws = Draws(3, 4, n, slice(0, n))
        text = one_wording(clip, batch[1], draws)
        told = draws.uniform() >= 0.5
        shown = _control.some_shown(batch[3], draws)
        t, noise = draws.integers(1000), draws.normal(3, 32, 32)
        total = 0.0
        for i in range(n):
            image = batch[0][i : i + 1].float() / 127.5 - 1
            control = Control(net, (batch[2][i] * shown[i, :, None, None, None]).amax(dim=0)[None])
            steered = Controlled(base, [control])
            x_t = q_sample(SCHEDULE, image, t[i : i + 1], noise[i : i + 1])
            goal = target(SCHEDULE, image, t[i : i + 1], noise[i : i + 1], "v")
            cond = text[i : i + 1].kept(told[i : i + 1])
            total += ((steered(x_t, t[i : i + 1], cond) - goal) ** 2).mean().item()
    assert found.item() == pytest.approx(total / n, rel=1e-3)


def test_the_noise_is_a_vector_of_many_independent_numbers():
    """ε ~ N(0, I): each number has variance 1, and none tells of another."""
    noise = Draws(0, 0, 4000, slice(0, 4000)).normal(3, 2, 2).flatten(1)
    assert torch.allclose(noise.mean(dim=0), torch.zeros(12), atol=0.08)
    assert torch.allclose(torch.cov(noise.T), torch.eye(12), atol=0.1)


@torch.no_grad()
def test_eq_19_8():
    """Two controls with strengths and factors, added to the skips by hooks on the decoder of the untouched base."""
    clip, base, net = small()
    other = copy.deepcopy(net)
    for k, weight in enumerate(other.parameters()):
        weight.add_(0.05 * torch.randn(weight.shape, generator=fresh(k)))
    x_t, t = torch.randn(2, 3, 32, 32, generator=fresh()), torch.tensor([3, 800])
    text = _control_text(clip)
    images = torch.rand(2, 2, 1, 32, 32, generator=fresh(1))
    strengths, factors = (0.6, 1.4), guess_factors(3)
    maps = [n(x_t, t, text, image) for n, image in zip((net, other), images, strict=True)]
    added = [
        factors[k] * (strengths[0] * a + strengths[1] * b)
        for k, (a, b) in enumerate(zip(*[(*m.skips, m.middle) for m in maps], strict=True))
    ]
    blocks = [layer for layer in base.body.decoder if type(layer).__name__ == "ResidualBlock"]
    for number, block in enumerate(blocks):  # each sees what comes from below, then a skip, the last one first
        half = added[1 - number].shape[1]

        def more(_, args, number=number, half=half):
            joined = args[0].clone()
            joined[:, -half:] += added[1 - number]
            if number == 0:
                joined[:, :-half] += added[2]
            return (joined, *args[1:])

        block.register_forward_pre_hook(more)
    steered_by_hooks = base(x_t, t, text)
    for block in blocks:
        block._forward_pre_hooks.clear()
    controls = [Control(n, image, s) for n, image, s in zip((net, other), images, strengths, strict=True)]
    found = Controlled(base, controls, guess=True)(x_t, t, text)
    assert torch.allclose(found, steered_by_hooks, atol=1e-5)
    assert not torch.allclose(found, base(x_t, t, text), atol=1e-3)


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_ordinary_convolutions_in_place_of_zero_ones_change_the_base_at_once():
    clip, base, _ = small()
    x_t, t, text = torch.randn(2, 3, 32, 32, generator=fresh()), torch.tensor([3, 800]), _control_text(clip)
    image = torch.rand(2, 1, 32, 32, generator=fresh(1))
    new = ControlNet(base, ControlNetConfig(1, (8, 8, 8)))
    with torch.no_grad():
        plain = base(x_t, t, text)
        assert torch.equal(Controlled(base, [Control(new, image)])(x_t, t, text), plain)
        for conv in new.zero_convs:
            conv.reset_parameters()
        moved = Controlled(base, [Control(new, image)])(x_t, t, text) - plain
    assert moved.square().mean() > 0.01 * plain.square().mean()


def test_four_halvings_of_512_are_32():
    sizes, kernel = [512], torch.zeros(1, 1, 4, 3)
    for _ in range(4):
        sizes.append(F.conv2d(torch.zeros(1, 1, sizes[-1], 1), kernel, stride=(2, 1), padding=1).shape[2])
    assert sizes == [512, 256, 128, 64, 32]
