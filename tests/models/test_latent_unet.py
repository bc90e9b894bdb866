"""The U-Net of Stable Diffusion: its published blocks, who is told what, what is withheld, and what doesn't fit."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from course_lib.models.conditions import TextCondition
from course_lib.models.latent_unet import Concatenated, LatentUNet, LatentUNetConfig, Routed
from course_lib.nn import ResidualBlock, Upsample, count_parameters
from course_lib.nn.cross_attention import watch
from course_lib.nn.spatial_transformer import SequenceAttention, SequenceCrossAttention, SpatialTransformer

SMALL = LatentUNetConfig(width=8, heads=2, groups=4, context_width=6, text_dim=5)


def woken(config=SMALL, seed=1):
    """A network whose layers that start at 0 are drawn at random."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = LatentUNet(config)
        with torch.no_grad():
            for weight in network.parameters():
                if not weight.any():
                    weight.normal_(0, 0.2)
    return network.eval()


def text(n=3, tokens=7, width=6, dim=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    real = torch.arange(tokens) < torch.tensor([4, tokens, 2])[:n, None]
    embedding = nn.functional.normalize(torch.randn(n, dim, generator=g), dim=1)
    return TextCondition(torch.randn(n, tokens, width, generator=g), real, embedding, torch.ones(n, dtype=torch.bool))


def given(n=3, channels=4, side=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, side, side, generator=g), torch.randint(0, 1000, (n,), generator=g)


def published():
    with torch.device("meta"):
        return LatentUNet(LatentUNetConfig.stable_diffusion_v1())


def asked_published(model, side=64):
    told = torch.ones(1, dtype=torch.bool)  # a number that is looked at, so not on the meta device
    with torch.device("meta"):
        cond = TextCondition(torch.zeros(1, 77, 768), torch.ones(1, 77, dtype=torch.bool), torch.zeros(1, 0), told)
        return model.encode(torch.zeros(1, 4, side, side), torch.zeros(1, dtype=torch.long), cond)


# --- the published blocks --------------------------------------------------------------------------------------------


def test_the_parts_of_the_published_network_have_its_sizes():
    model = published()
    parts = {
        "conv_in": model.encoder[0],
        "time": model.time,
        "down": nn.ModuleList(model.encoder[1:]),
        "mid": model.middle,
        "up": model.decoder,
        "out": nn.ModuleList([model.norm_out, model.conv_out]),
    }
    sizes = {name: count_parameters(part).learned for name, part in parts.items()}
    assert sizes == {
        "conv_in": 11_840, "time": 2_050_560, "down": 249_612_480, "mid": 97_038_080, "up": 510_795_840, "out": 12_164,
    }  # fmt: skip
    assert count_parameters(model).learned == sum(sizes.values()) == 859_520_964


def test_twelve_one_twelve_and_three_per_resolution():
    model = published()
    assert (len(model.encoder), len(model.decoder)) == (12, 12)
    assert isinstance(model.middle, Routed)
    seen = {"down": [], "up": []}
    for name, blocks in (("down", model.encoder), ("up", model.decoder)):
        for block in blocks:
            block[0].register_forward_hook(lambda _, __, out, name=name: seen[name].append(tuple(out.shape[1:])))
    middle = []
    model.middle.register_forward_hook(lambda _, __, out: middle.append(tuple(out.shape[1:])))
    halfway = asked_published(model)
    assert model.decode(halfway).shape == (1, 4, 64, 64)
    assert seen["down"] == [
        (320, 64, 64), (320, 64, 64), (320, 64, 64), (320, 32, 32), (640, 32, 32), (640, 32, 32),
        (640, 16, 16), (1280, 16, 16), (1280, 16, 16), (1280, 8, 8), (1280, 8, 8), (1280, 8, 8),
    ]  # fmt: skip
    assert seen["up"] == [
        *[(1280, 8, 8)] * 3, *[(1280, 16, 16)] * 3, *[(640, 32, 32)] * 3, *[(320, 64, 64)] * 3
    ]  # fmt: skip
    assert middle == [(1280, 8, 8)]
    for shapes in seen.values():
        assert {side: sum(s[1] == side for s in shapes) for side in (64, 32, 16, 8)} == {64: 3, 32: 3, 16: 3, 8: 3}
    assert [tuple(skip.shape[1:]) for skip in halfway.skips] == seen["down"], "what is put aside"


def test_no_block_has_more_than_one_of_each():
    model = published()
    kinds = [[type(layer) for layer in block] for block in (*model.encoder, *model.decoder)]
    assert max(kind.count(ResidualBlock) for kind in kinds) == 1
    assert max(kind.count(SpatialTransformer) for kind in kinds) == 1
    assert [len(block) for block in model.encoder] == [1, 2, 2, 1, 2, 2, 1, 2, 2, 1, 1, 1]
    assert [type(layer) for layer in model.middle] == [ResidualBlock, SpatialTransformer, ResidualBlock]
    halvings = [k for k, block in enumerate(model.encoder) if isinstance(block[0], nn.Conv2d) and k > 0]
    doublings = [k for k, block in enumerate(model.decoder) if isinstance(block[-1], Upsample)]
    assert (halvings, doublings) == ([3, 6, 9], [2, 5, 8])
    count = {kind: sum(isinstance(m, kind) for m in model.modules()) for kind in (ResidualBlock, SpatialTransformer)}
    assert count == {ResidualBlock: 22, SpatialTransformer: 16}


def test_channels_into_the_blocks_up():
    channels = [block[0].conv1.in_channels for block in published().decoder]
    assert channels == [2560, 2560, 2560, 2560, 2560, 1920, 1920, 1280, 960, 960, 640, 640]


# --- who is told what ------------------------------------------------------------------------------------------------


def test_who_is_told_what():
    """Residual blocks get the time and no text, spatial transformers the text and no time, all others features only."""
    model, (x, t), cond, seen = woken(), given(), text(), []
    routed = [module for module in model.modules() if isinstance(module, Routed)]
    inside = {part: kind for block in routed for part in block for kind in [type(part)]}
    for part, kind in inside.items():
        part.register_forward_hook(lambda _, inputs, __, kind=kind: seen.append((kind, inputs[1:])))
    embedding, tokens, real = model.encode(x, t, cond).told
    seen.clear()
    model(x, t, cond)
    assert len(seen) == len(inside)
    assert {kind for kind, _ in seen} == {nn.Conv2d, ResidualBlock, SpatialTransformer, Upsample}
    for kind, told in seen:
        if kind is ResidualBlock:
            assert len(told) == 1
            assert torch.equal(told[0], embedding)
        elif kind is SpatialTransformer:
            assert len(told) == 2
            assert torch.equal(told[0], tokens)
            assert torch.equal(told[1], real)
        else:
            assert told == ()


def test_without_transformers_tokens_have_no_way_in():
    """Only the spatial transformers hear tokens: with theirs silenced, other tokens change nothing, other times do."""
    model, (x, t), cond = woken(SMALL.with_(text_dim=0)), given(), text()
    cond = replace(cond, embedding=torch.zeros(3, 0))
    other = replace(cond, tokens=cond.tokens.flip(0))
    assert not torch.allclose(model(x, t, cond), model(x, t, other), atol=1e-4)
    for part in model.modules():
        if isinstance(part, SequenceCrossAttention):
            nn.init.zeros_(part.out.weight)
    assert torch.equal(model(x, t, cond), model(x, t, other))
    assert not torch.allclose(model(x, t, cond), model(x, (t + 500) % 1000, cond), atol=1e-4)


def test_forward_is_encode_then_decode_with_hint_and_skips():
    model, (x, t), cond = woken(), given(), text()
    halfway = model.encode(x, t, cond)
    assert torch.equal(model.decode(halfway), model(x, t, cond))
    assert [skip.shape[1] for skip in halfway.skips] == model.skip_channels
    assert halfway.middle.shape[1] == model.middle_channels
    zero = torch.zeros(3, model.hint_channels, 8, 8)
    assert torch.equal(model.encode(x, t, cond, zero).middle, halfway.middle)
    assert torch.allclose(model.encode(x, t, cond, zero + 1).skips[0], halfway.skips[0] + 1, atol=1e-6)
    swapped = replace(halfway, skips=(halfway.skips[0], halfway.skips[1].flip(0), *halfway.skips[2:]))
    assert not torch.allclose(model.decode(swapped), model.decode(halfway), atol=1e-4), "every skip is used"


def test_decoder_parts_are_what_only_decode_uses():
    model, (x, t), cond = woken(), given(), text()
    called = set()
    for name, part in model.named_modules():
        part.register_forward_hook(lambda *_, name=name: called.add(name.split(".")[0]))
    halfway = model.encode(x, t, cond)
    assert not called & set(model.decoder_parts)
    called.clear()
    model.decode(halfway)
    assert called - {""} == set(model.decoder_parts)


# --- text, withheld or absent ----------------------------------------------------------------------------------------


def test_padding_is_never_heard():
    model, (x, t), cond = woken(), given(), text()
    noisy = torch.where(cond.real[..., None], cond.tokens, 100.0)
    assert torch.equal(model(x, t, replace(cond, tokens=noisy)), model(x, t, cond))


def test_a_withheld_sentence_leaves_no_trace():
    model, (x, t), cond = woken(), given(), text()
    silent = model(x, t, cond.null())
    assert torch.allclose(model(x, t, text(seed=5).null()), silent, atol=1e-6)
    mixed = model(x, t, cond.kept(torch.tensor([True, False, True])))
    assert torch.allclose(mixed[1], silent[1], atol=1e-6)
    assert not torch.allclose(mixed[0], silent[0], atol=1e-4)


def test_with_empty_sentences_nothing_can_be_withheld():
    model, (x, t) = woken(SMALL.with_(withheld="empty", text_dim=0)), given()
    cond = replace(text(), embedding=torch.zeros(3, 0))
    assert not hasattr(model, "no_token")
    assert model(x, t, cond).shape == x.shape
    with pytest.raises(ValueError, match="cond withholds sentences"):
        model(x, t, cond.kept(torch.tensor([True, False, True])))


def test_told_nothing_it_keeps_self_attention():
    model, (x, t) = woken(SMALL.with_(context_width=None, text_dim=0)), given()
    kinds = [type(part) for part in model.modules()]
    assert kinds.count(SequenceAttention) == kinds.count(SpatialTransformer) == 7
    assert SequenceCrossAttention not in kinds
    assert model(x, t, None).shape == x.shape
    with watch(model) as maps:
        model(x, t, None)
    assert maps.layers == [], "no words, no maps of words"
    with pytest.raises(ValueError, match="told nothing"):
        model(x, t, text())
    with torch.device("meta"):
        config = LatentUNetConfig.stable_diffusion_v1()
        told, untold = LatentUNet(config), LatentUNet(config.with_(context_width=None))
    of_words = sum(
        count_parameters(part).learned
        for name, part in told.named_modules()
        if name.endswith((".words", ".norm_words"))
    )
    assert count_parameters(told).learned - count_parameters(untold).learned == of_words > 40_000_000


# --- maps beside x_t -------------------------------------------------------------------------------------------------


def test_concatenated_maps_are_seen_and_stay_beside():
    config = SMALL.with_(more_channels=5)
    model, (x, t), cond, maps = woken(config), given(), text(), torch.randn(3, 5, 8, 8)
    beside = Concatenated(model, maps)
    assert beside.prediction == model.prediction
    assert torch.equal(beside(x, t, cond), model(torch.cat([x, maps], dim=1), t, cond))
    assert beside(x, t, cond).shape == x.shape
    assert not torch.allclose(Concatenated(model, maps.flip(0))(x, t, cond), beside(x, t, cond), atol=1e-4)
    first = model.encoder[0][0]
    plain = LatentUNet(SMALL)
    more = count_parameters(model).learned - count_parameters(plain).learned
    assert more == 5 * first.out_channels * 9, "the first convolution alone is wider"
    with pytest.raises(ValueError, match="maps has shape"):
        Concatenated(model, maps[:, :4])


# --- the start, copies, what doesn't fit -----------------------------------------------------------------------------


def test_starts_at_0_and_copies_agree():
    (x, t), cond = given(), text()
    assert not LatentUNet(SMALL)(x, t, cond).any()
    model = woken()
    first = model(x, t, cond)
    other = LatentUNet(SMALL).eval()
    other.load_state_dict(model.state_dict())
    for again in (model, copy.deepcopy(model), other):
        assert torch.equal(again(x, t, cond), first)
    assert torch.allclose(model(x[:1], t[:1], cond[:1]), first[:1], atol=1e-5), "examples do not mix"


def test_other_sizes_where_positions_are_not_learned():
    model, cond = woken(SMALL.with_(places=False)), text()
    for high, wide in ((8, 8), (4, 12)):
        x = torch.randn(3, 4, high, wide)
        assert model(x, given()[1], cond).shape == x.shape


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"width": 0}, "width=0"),
        ({"blocks": 0}, "blocks=0"),
        ({"mults": ()}, "mults"),
        ({"mults": (1, 0)}, "mults"),
        ({"size": 9}, "size=9 must be a multiple of 2"),
        ({"attention": (2,)}, r"attention=\(2,\)"),
        ({"withheld": "zeros"}, "withheld"),  # the run-time check of types comes first
        ({"prediction": "score"}, "prediction"),
    ],
)
def test_configurations_that_make_no_sense(wrong, says):
    with pytest.raises((ValueError, TypeError), match=says):
        LatentUNetConfig(**wrong)


def test_inputs_that_do_not_fit():
    model, (x, t), cond = woken(), given(), text()
    for wrong in (x[:, :3], x[:, :, :7, :7], torch.zeros(3, 4, 4, 4)):
        with pytest.raises(ValueError, match="x_t has shape"):
            model(wrong, t, cond)
    with pytest.raises(TypeError, match="cond must be a TextCondition"):
        model(x, t, None)
    with pytest.raises(ValueError, match="cond holds 2"):
        model(x, t, cond[:2])
    for other in (text(width=7), text(dim=4)):
        with pytest.raises(ValueError, match="give it the text encoder it was trained with"):
            model(x, t, other)
