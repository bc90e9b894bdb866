"""The body of the text-to-image U-Nets: its layers in order, its parameters, attention to pixels and tokens at once."""

import copy

import pytest
import torch
import torch.nn.functional as F

from course_lib.models.conditioned_unet import Body, BodyConfig, CrossStage
from course_lib.nn import Downsample, ResidualBlock, SelfAttention2d
from course_lib.nn.cross_attention import JointAttention2d, watch

SMALL = BodyConfig(
    channels=2, size=16, width=8, mults=(1, 2, 2), blocks=2, heads=2, groups=4, dropout=0.0, embedding_dim=12,
    token_dim=10,
)  # fmt: skip
SOURCES = BodyConfig(channels=1, token_dim=256)


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make()


def awake(network):
    """Weights that start at 0 drawn at random, so that every part has a say."""
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():
                weight.normal_(0, 0.2)
    return network.eval()


def given(n=3, tokens=5, config=SMALL, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, config.channels, config.size, config.size, generator=g)
    return x, torch.randn(n, config.embedding_dim, generator=g), torch.randn(n, tokens, config.token_dim, generator=g)


# --- layers ----------------------------------------------------------------------------------------------------------


def test_the_sources_layers_in_order():
    """Encoder, then bottleneck, as the course's sources list them; attention in the inner levels only."""
    with torch.device("meta"):
        body = Body(SOURCES)
    letters = "".join(letter for letter, _ in body.layers())
    down = "R R D R A R A D R A R A D R R".replace(" ", "")
    assert letters.startswith(down + "RAR"), "the last level's two blocks, then the bottleneck with its attention"
    assert letters[len(down) + 3 :] == "RR" + "U" + "RARA" + "U" + "RARA" + "U" + "RR"
    assert letters.count("D") == letters.count("U") == 3
    kinds = {"R": ResidualBlock, "D": Downsample, "A": JointAttention2d}
    assert all(type(layer) is kinds[letter] for letter, layer in body.layers() if letter in kinds)


def test_the_sources_parameters_by_hand():
    """12,550,817, counted layer by layer from what convolutions, norms and projections hold."""
    with torch.device("meta"):
        body = Body(SOURCES)

    def conv(a, b, side):
        return a * b * side**2 + b

    def block(a, b):  # norm, conv, scale and shift, norm, conv, norm, shortcut
        shortcut = conv(a, b, 1) if a != b else 0
        return 2 * a + conv(a, b, 3) + conv(128, 2 * b, 1) + 2 * b + conv(b, b, 3) + 2 * b + shortcut

    def attention(c):  # norm, q k v of pixels, k v of tokens, back
        return 2 * c + conv(c, 3 * c, 1) + conv(256, 2 * c, 1) + conv(c, c, 1)

    total, widths = conv(1, 32, 3), (32, 64, 128, 256)
    channels = 32
    for level, width in enumerate(widths):
        inner = level in (1, 2)
        total += block(channels, width) + block(width, width) + 2 * inner * attention(width)  # down
        total += 2 * block(2 * width, width) + 2 * inner * attention(width)  # up
        if level < 3:
            total += conv(width, width, 3) + conv(widths[level + 1], width, 3)  # halving, doubling
        channels = width
    total += 2 * block(256, 256) + attention(256) + 2 * 32 + conv(32, 1, 3)
    assert sum(p.numel() for p in body.parameters()) == total == 12_550_817


def test_every_block_up_gets_what_its_partner_gave():
    body = awake(seeded(lambda: Body(SMALL)))
    x, embedding, tokens = given()
    outputs, inputs = {}, {}
    blocks = {letter + str(i): layer for i, (letter, layer) in enumerate(body.layers()) if letter == "R"}
    for name, layer in blocks.items():
        layer.register_forward_hook(lambda _, args, out, name=name: outputs.update({name: out}))
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
    body(x, embedding, tokens)
    down = [name for name, layer in blocks.items() if layer in list(body.encoder)]
    up = [name for name, layer in blocks.items() if layer in list(body.decoder)]
    assert len(down) == len(up) == 6
    for a, b in zip(down, reversed(up), strict=True):
        half = inputs[b].shape[1] // 2
        assert torch.equal(inputs[b][:, half:], outputs[a])


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("ask", ["joint", "cross"])
def test_starts_at_zero_and_keeps_the_shape(ask, patch):
    config = BodyConfig(
        channels=3, size=16, width=8, mults=(1, 2), blocks=1, attention=(1,), heads=2, groups=4, embedding_dim=12,
        token_dim=10, patch=patch, fine=4 if patch > 1 else 0,
    )  # fmt: skip
    body = seeded(lambda: Body(config, ask))
    x, embedding, tokens = given(config=config)
    assert torch.equal(body(x, embedding, tokens), torch.zeros_like(x)), "an error of 1 at the start"
    wide = torch.cat([x, x], dim=3)
    assert awake(body)(wide, embedding, tokens).shape == wide.shape
    assert sum(isinstance(layer, CrossStage) for layer in body.modules()) == (0 if ask == "joint" else 2)


def test_every_weight_learns():
    body = awake(seeded(lambda: Body(SMALL)))
    body(*given()).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in body.parameters())


# --- pixels and tokens in one attention ------------------------------------------------------------------------------


@pytest.fixture
def attention():
    return awake(seeded(lambda: JointAttention2d(8, 6, heads=2, groups=4)))


def features(n=2, tokens=5, seed=3):
    g = torch.Generator().manual_seed(seed)
    real = torch.arange(tokens) < torch.tensor([3, tokens])[:n, None]
    return torch.randn(n, 8, 4, 4, generator=g), torch.randn(n, tokens, 6, generator=g), real


def test_without_tokens_it_is_self_attention(attention):
    x, _, _ = features()
    alone = SelfAttention2d(8, heads=2, groups=4)
    alone.load_state_dict({name: value for name, value in attention.state_dict().items() if not name.startswith("kv")})
    assert torch.allclose(attention(x), alone(x), atol=1e-6)


def test_weights_over_pixels_and_tokens_add_up_to_1_and_are_those_that_it_uses(attention):
    x, tokens, real = features()
    weights = attention.weights(x, tokens, real)
    assert weights.shape == (2, 2, 16, 16 + 5)
    assert torch.allclose(weights.sum(dim=3), torch.ones(2, 2, 16), atol=1e-6)
    assert (weights[..., 16:].sum(dim=3)[1] > 0.01).all(), "tokens have a share in it"
    assert not weights[0, :, :, 16 + 3 :].any(), "padding has none"
    _, _, v, _ = attention._qkv(x, tokens, real)
    by_hand = x.clone()
    for picture in range(2):
        for head in range(2):
            mixed = (weights[picture, head] @ v[picture, head]).T.reshape(-1, 4, 4)
            rows = attention.out.weight[:, 4 * head : 4 * head + 4, 0, 0]
            by_hand[picture] += torch.einsum("oc,chw->ohw", rows, mixed)
    by_hand += attention.out.bias[:, None, None]
    assert torch.allclose(attention(x, tokens, real), by_hand, atol=1e-5)


def test_padding_is_as_if_it_were_cut_away(attention):
    x, tokens, real = features()
    found = attention(x, tokens, real)
    assert torch.equal(found[:1], attention(x[:1], tokens[:1].index_fill(1, torch.tensor([3, 4]), 1e3), real[:1]))
    assert torch.allclose(found[:1], attention(x[:1], tokens[:1, :3]), atol=1e-6)
    assert not torch.allclose(found[:1], attention(x[:1], tokens[:1]), atol=1e-3), "without the mask it is looked at"


def test_order_of_tokens_makes_no_difference(attention):
    x, tokens, _ = features()
    assert torch.allclose(attention(x, tokens), attention(x, tokens.flip(1)), atol=1e-5)


def test_watching_changes_nothing_and_says_who_looks_where():
    body = awake(seeded(lambda: Body(SMALL)))
    x, embedding, tokens = given()
    plain = body(x, embedding, tokens)
    with watch(body) as maps:
        assert torch.equal(body(x, embedding, tokens), plain)
    assert len(maps.weights) == sum(letter == "A" for letter, _ in body.layers()) == 5
    words = maps.of_words(8, 5)
    assert words.shape == (3, 5, 8, 8)
    assert torch.allclose(words.sum(dim=1), torch.ones(3, 8, 8), atol=1e-5)


# --- the block -------------------------------------------------------------------------------------------------------


def test_the_blocks_order_in_the_body():
    """norm, conv, (time), norm, SiLU, dropout, conv, norm: what is called, in the order of the calls."""
    block = next(layer for letter, layer in Body(SOURCES).layers() if letter == "R")
    called = []
    for name, layer in block.named_children():
        layer.register_forward_hook(lambda *_, name=name: called.append(name))
    block(torch.randn(1, 32, 8, 8), torch.randn(1, 128))
    called = [name for name in called if name != "shortcut"]
    assert called == ["norm1", "conv1", "time", "norm2", "dropout", "conv2", "norm3"]
    g = torch.Generator().manual_seed(0)
    x, told = torch.randn(2, 32, 8, 8, generator=g), torch.randn(2, 128, generator=g)
    block = awake(block)
    scale, shift = F.linear(F.silu(told), block.time.weight, block.time.bias).chunk(2, dim=1)
    h = block.norm2(block.conv1(block.norm1(x))) * (1 + scale[..., None, None]) + shift[..., None, None]
    assert torch.allclose(block(x, told), x + block.norm3(block.conv2(F.silu(h))), atol=1e-5)


def test_back_to_back_copies_and_state(tmp_path):
    body = awake(seeded(lambda: Body(SMALL)))
    x, embedding, tokens = given()
    first = body(x, embedding, tokens)
    assert torch.equal(body(x, embedding, tokens), first)
    assert torch.equal(copy.deepcopy(body)(x, embedding, tokens), first)
    other = Body(SMALL).eval()
    other.load_state_dict(body.state_dict())
    assert torch.equal(other(x, embedding, tokens), first)
