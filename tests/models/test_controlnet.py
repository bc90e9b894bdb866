"""ControlNet on four U-Nets: where it starts, which part wakes up when, what stays locked, how controls add up."""

import copy
import hashlib
import itertools

import pytest
import torch
import torch.nn.functional as F

from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.conditioned_unet import BodyConfig
from course_lib.models.conditions import decoder_condition, text_condition
from course_lib.models.controlnet import (
    Control,
    Controlled,
    ControlNet,
    ControlNetConfig,
    guess_factors,
)
from course_lib.models.ddpm_unet import DDPMUNet, DDPMUNetConfig
from course_lib.models.halfway import Residuals
from course_lib.models.latent_unet import LatentUNet, LatentUNetConfig
from course_lib.models.text_unet import TextUNet, TextUNetConfig
from course_lib.models.unclip import DecoderConfig, UnclipDecoder

BODY = BodyConfig(
    size=16, width=8, mults=(1, 2), blocks=1, attention=(1,), heads=2, groups=4, dropout=0.0, embedding_dim=12,
    token_dim=16, patch=2, places=True, fine=4,
)  # fmt: skip
CAPTIONS = ["a red circle", "a small blue star at the left", "rings"]
NAMES = ("ddpm", "text", "unclip", "latent")
CONTROL = {"ddpm": (1, 16), "text": (1, 16), "unclip": (1, 16), "latent": (3, 32)}  # channels, side


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def awake(network, seed=1):
    """A network in which every part has a say: what starts at 0 is drawn at random. Locked, like any base."""
    with torch.no_grad():
        for k, weight in enumerate(network.parameters()):
            if not weight.any():
                weight.copy_(0.2 * torch.randn(weight.shape, generator=fresh(seed + k)))
    return network.eval().requires_grad_(False)


def case(name):
    """A small base of this kind, a ControlNet on it, and x_t, t, condition and control image for three pictures."""
    torch.manual_seed(0)
    clip = CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1)).freeze()
    text = text_condition(clip, CAPTIONS).kept(torch.tensor([True, False, True]))
    image = F.normalize(torch.randn(3, 6), dim=1)
    base, cond, config = {
        "ddpm": lambda: (
            DDPMUNet(DDPMUNetConfig(16, 3, 8, (1, 2), blocks=1, attention=(8,), groups=4)), None, (8,)
        ),
        "text": lambda: (TextUNet(TextUNetConfig(BODY, text_width=8, text_dim=6)), text, (8, 8)),
        "unclip": lambda: (
            UnclipDecoder(DecoderConfig(BODY, image_dim=6, text_width=8)),
            decoder_condition(image, text).kept(torch.tensor([True, True, False])),
            (8, 8),
        ),
        "latent": lambda: (
            LatentUNet(
                LatentUNetConfig(8, 4, width=8, mults=(1, 2), heads=2, context_width=8, text_dim=6, groups=4)
            ),
            text,
            (8, 8, 8),
        ),
    }[name]()  # fmt: skip
    awake(base)
    channels, side = CONTROL[name]
    net = ControlNet(base, ControlNetConfig(channels, config))
    x_t = torch.randn(3, 4, 8, 8) if name == "latent" else torch.randn(3, 3, 16, 16)
    return base, net, x_t, torch.tensor([10, 500, 900]), cond, torch.rand(3, channels, side, side)


def trained(name, seed=5):
    """The same with a ControlNet whose zero layers are no longer 0."""
    base, net, *rest = case(name)
    with torch.no_grad():
        for k, weight in enumerate(net.parameters()):
            if not weight.any():
                weight.copy_(0.2 * torch.randn(weight.shape, generator=fresh(seed + k)))
    return base, net.eval(), *rest


def loss_of(base, net, x_t, t, cond, image):
    steered = Controlled(base, [Control(net, image)])
    return (steered(x_t, t, cond) - torch.randn(x_t.shape, generator=fresh(7))).square().mean()


# --- the start -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_new_one_adds_nothing(name):
    base, net, x_t, t, cond, image = case(name)
    found = net(x_t, t, cond, image)
    halfway = base.encode(x_t, t, cond)
    assert len(found.skips) == len(halfway.skips) == len(base.skip_channels)
    for more, own in zip((*found.skips, found.middle), (*halfway.skips, halfway.middle), strict=True):
        assert more.shape == own.shape
        assert not more.any()
    assert torch.equal(Controlled(base, [Control(net, image)])(x_t, t, cond), base(x_t, t, cond))
    assert base(x_t, t, cond).any()


@pytest.mark.parametrize("name", NAMES)
def test_the_copy_starts_as_the_base_and_only_three_parts_are_new(name):
    base, net, *_ = case(name)
    own = base.state_dict()
    copied = {key.removeprefix("copy."): w for key, w in net.state_dict().items() if key.startswith("copy.")}
    assert copied
    assert all(torch.equal(own[key], w) for key, w in copied.items())
    assert all(w.data_ptr() != own[key].data_ptr() for key, w in copied.items())
    left_out = {key for key in own if key not in copied}
    assert all(key.startswith(base.decoder_parts) for key in left_out)
    assert left_out
    others = {key.split(".")[0] for key in net.state_dict() if not key.startswith("copy.")}
    assert others == {"encoder", "zero_skips", "zero_middle"}
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_decoder_parts_are_what_only_the_decoder_uses(name):
    """All of the copy's weights are asked for a residual, and none that it lacks."""
    _base, net, x_t, t, cond, image = trained(name)
    found = net(x_t, t, cond, image)
    sum(r.square().sum() for r in (*found.skips, found.middle)).backward()
    assert not [key for key, p in net.named_parameters() if p.grad is None]


# --- who wakes up when -----------------------------------------------------------------------------------------------


def step_of(net, base, x_t, t, cond, image, optimizer):
    """One update; per part of the ControlNet the gradients there were, and those of the image."""
    image = image.clone().requires_grad_()
    optimizer.zero_grad(set_to_none=True)
    loss_of(base, net, x_t, t, cond, image).backward()
    found = {key: p.grad.clone() if p.grad is not None else torch.zeros(()) for key, p in net.named_parameters()}
    found["image"] = torch.zeros(()) if image.grad is None else image.grad.clone()
    optimizer.step()
    return found


def awake_parts(found, last):
    """For each part: None of its tensors has a gradient (0), some (.5), all (1)."""

    def share(chosen):
        flags = [bool(found[key].any()) for key in chosen]
        return 0 if not any(flags) else 1 if all(flags) else 0.5

    encoder = [key for key in found if key.startswith("encoder.")]
    return {
        "zero convolutions": share([key for key in found if key.startswith("zero_")]),
        "copy": share([key for key in found if key.startswith("copy.")]),
        "last hint layer": share([key for key in encoder if key.startswith(last)]),
        "earlier hint layers": share([key for key in encoder if not key.startswith(last)]),
        "image": share(["image"]),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_the_order_in_which_parts_wake_up(name, kind):
    base, net, x_t, t, cond, image = case(name)
    optimizer = torch.optim.SGD(net.parameters(), 0.5) if kind == "sgd" else torch.optim.AdamW(net.parameters(), 1e-2)
    last = f"encoder.{len(net.encoder) - 1}."
    steps = [awake_parts(step_of(net, base, x_t, t, cond, image, optimizer), last) for _ in range(3)]
    assert steps[0] == {
        "zero convolutions": 1, "copy": 0, "last hint layer": 0, "earlier hint layers": 0, "image": 0,
    }  # fmt: skip
    assert steps[1]["zero convolutions"] == 1
    assert steps[1]["copy"] > 0
    assert steps[1]["last hint layer"] == 1
    assert steps[1]["earlier hint layers"] == steps[1]["image"] == 0
    assert steps[2]["earlier hint layers"] == steps[2]["image"] == 1
    assert all(p.grad is None for p in base.parameters())


def test_at_the_start_nothing_reaches_x_through_the_controlnet():
    _base, net, x_t, t, cond, image = case("text")
    x_t = x_t.requires_grad_()
    found = net(x_t, t, cond, image)
    sum(r.sum() for r in (*found.skips, found.middle)).backward()
    assert not x_t.grad.any()


def test_the_image_counts_after_two_updates():
    """The first update opens the zero convolutions, the second the last hint layer: then the image is heard."""
    base, net, x_t, t, cond, image = case("latent")
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    heard = []
    for _ in range(3):
        with torch.no_grad():
            heard.append(not torch.equal(net(x_t, t, cond, image).middle, net(x_t, t, cond, 1 - image).middle))
        step_of(net, base, x_t, t, cond, image, optimizer)
    assert heard == [False, False, True]


# --- what stays locked -----------------------------------------------------------------------------------------------


def fingerprint(network):
    blob = b"".join(w.detach().contiguous().numpy().tobytes() for w in network.state_dict().values())
    return hashlib.sha256(blob).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_training_leaves_the_base_as_it_was(name):
    base, net, x_t, t, cond, image = case(name)
    before, copied = fingerprint(base), fingerprint(net.copy)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(base, net, x_t, t, cond, image).backward()
        optimizer.step()
    assert fingerprint(base) == before
    assert fingerprint(net.copy) != copied
    assert all(p.grad is None for p in base.parameters())
    locked = {p.data_ptr() for p in base.parameters()}
    assert not any(p.data_ptr() in locked for p in optimizer.state)
    assert {id(p) for p in optimizer.state} == {id(p) for p in net.parameters()}


def test_a_base_that_is_not_locked_learns_only_in_its_decoder():
    """`Controlled` records nothing before the first residual: no gradient reaches the encoder in any case."""
    base, net, x_t, t, cond, image = case("ddpm")
    base.requires_grad_(True)
    loss_of(base, net, x_t, t, cond, image).backward()
    touched = {key.split(".")[0] for key, p in base.named_parameters() if p.grad is not None}
    assert touched == {"up", "norm_out", "conv_out"}


def kept_bytes(loss, networks):
    """What autograd keeps for the way back, in bytes: activations only, each once."""
    weights = {p.untyped_storage().data_ptr() for network in networks for p in network.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), storage)  # the storage is kept, so no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss()
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_kept_for_the_way_back_through_the_locked_encoder(name):
    """A count, not a clock: with the controls, less than with a base that records everything beside the copy."""
    base, net, x_t, t, cond, image = trained(name)
    plain = copy.deepcopy(base).requires_grad_(True)
    noise = torch.randn(x_t.shape, generator=fresh(7))
    of_base = kept_bytes(lambda: (plain(x_t, t, cond) - noise).square().mean(), [plain])
    steered = kept_bytes(lambda: loss_of(base, net, x_t, t, cond, image), [base, net])
    encoder = kept_bytes(lambda: plain.encode(x_t, t, cond), [plain])
    careless = kept_bytes(
        lambda: base.decode(
            plain.encode(x_t, t, cond).plus(net(x_t, t, cond, image))
        ),
        [base, plain, net],
    )  # fmt: skip
    assert steered < 1.5 * of_base
    assert careless - steered > 0.8 * encoder


# --- adding up -------------------------------------------------------------------------------------------------------


def pairs_of(a, b):
    return zip((*a.skips, a.middle), (*b.skips, b.middle), strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_residuals_add_up(name):
    base, net, x_t, t, cond, image = trained(name)
    other = copy.deepcopy(net)
    with torch.no_grad():
        for k, weight in enumerate(other.parameters()):
            weight.add_(0.05 * torch.randn(weight.shape, generator=fresh(k)))
        one, two = net(x_t, t, cond, image), other(x_t, t, cond, 1 - image)
        both = Controlled(base, [Control(net, image, 0.5), Control(other, 1 - image, 1.5)])
        for found, wanted in pairs_of(both.residuals(x_t, t, cond), one.scaled(0.5) + two.scaled(1.5)):
            assert torch.equal(found, wanted)
        steered = both(x_t, t, cond)
        by_hand = base.decode(base.encode(x_t, t, cond).plus(one.scaled(0.5)).plus(two.scaled(1.5)))
        assert torch.allclose(steered, by_hand, atol=1e-5)
        assert not torch.allclose(steered, base(x_t, t, cond), atol=1e-3)


@pytest.mark.parametrize("strength", [0.25, 1, 1.7, 2.0])
def test_residuals_are_linear_in_the_strength(strength):
    base, net, x_t, t, cond, image = trained("text")
    with torch.no_grad():
        whole = Controlled(base, [Control(net, image)]).residuals(x_t, t, cond)
        part = Controlled(base, [Control(net, image, strength)]).residuals(x_t, t, cond)
        for found, full in pairs_of(part, whole):
            assert torch.allclose(found, strength * full, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_strength_0_is_the_base_bit_for_bit_and_leaves_the_other_alone(name):
    base, net, x_t, t, cond, image = trained(name)
    other = copy.deepcopy(net)
    with torch.no_grad():
        assert torch.equal(Controlled(base, [Control(net, image, 0)])(x_t, t, cond), base(x_t, t, cond))
        assert torch.equal(Controlled(base)(x_t, t, cond), base(x_t, t, cond))
        alone = Controlled(base, [Control(net, image)])(x_t, t, cond)
        beside_none = Controlled(base, [Control(net, image), Control(other, 1 - image, 0.0)])(x_t, t, cond)
        assert torch.equal(alone, beside_none)
        assert not torch.equal(alone, base(x_t, t, cond))


def test_guess_factors():
    found = guess_factors(13)
    assert found == pytest.approx(torch.logspace(-1, 0, 13).tolist(), rel=1e-6)
    assert found[0] == pytest.approx(0.1)
    assert found[-1] == 1
    assert all(b / a == pytest.approx(10 ** (1 / 12)) for a, b in itertools.pairwise(found))


def test_guess_mode_multiplies_each_place_by_its_factor():
    base, net, x_t, t, cond, image = trained("latent")
    with torch.no_grad():
        plain = Controlled(base, [Control(net, image)]).residuals(x_t, t, cond)
        guessed = Controlled(base, [Control(net, image)], guess=True).residuals(x_t, t, cond)
    factors = guess_factors(len(plain.skips) + 1)
    for factor, (found, full) in zip(factors, pairs_of(guessed, plain), strict=True):
        assert torch.allclose(found, factor * full, atol=1e-6)
    assert torch.equal(guessed.middle, plain.middle)


def test_one_list_of_controls_serves_twice():
    base, net, x_t, t, cond, image = trained("unclip")
    controls = [Control(net, image), Control(net, 1 - image, 0.5)]
    with torch.no_grad():
        first = Controlled(base, controls)
        assert torch.equal(first(x_t, t, cond), first(x_t, t, cond))
        assert torch.equal(first(x_t, t, cond), Controlled(base, controls)(x_t, t, cond))
    assert len(controls) == 2
    assert len(first.nets) == 1, "one network, shown two images, is held once"


def test_rows_of_a_control():
    base, net, x_t, t, cond, image = trained("text")
    with torch.no_grad():
        whole = Controlled(base, [Control(net, image, 0.7)])(x_t, t, cond)
        rows = slice(1, 3)
        some = Controlled(base, [Control(net, image, 0.7)[rows]])(x_t[rows], t[rows], cond[rows])
    assert torch.allclose(whole[rows], some, atol=1e-5)


def test_residuals_want_a_factor_for_each_place():
    found = Residuals((torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1)), torch.ones(1, 1, 1, 1))
    with pytest.raises(ValueError, match="zip"):
        found.scaled([1.0, 2.0])
    assert found.scaled([1.0, 2.0, 3.0]).middle.item() == 3
