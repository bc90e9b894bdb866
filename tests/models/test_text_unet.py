"""The U-Net that reads sentences: it listens, it hears no padding, and withheld sentences leave no trace."""

import copy
from dataclasses import replace

import pytest
import torch

from course_lib.data import ByteTokenizer
from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.conditioned_unet import BodyConfig
from course_lib.models.conditions import text_condition
from course_lib.models.text_unet import TextUNet, TextUNetConfig, Withheld
from course_lib.recipes import text_shapes
from course_lib.training import Draws

BODY = BodyConfig(
    size=16, width=8, mults=(1, 2), blocks=1, attention=(1,), heads=2, groups=4, dropout=0.0, embedding_dim=12,
    token_dim=10,
)  # fmt: skip


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1)).freeze()


@pytest.fixture
def model():
    torch.manual_seed(1)
    network = TextUNet(TextUNetConfig(BODY, text_width=8, text_dim=6))
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():
                weight.normal_(0, 0.2)
    return network.eval()


def given(n=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 16, 16, generator=g), torch.randint(0, 1000, (n,), generator=g)


CAPTIONS = ["a red circle", "a small blue star at the left", "rings"]


def test_other_sentences_other_answers(clip, model):
    x, t = given()
    found = model(x, t, text_condition(clip, CAPTIONS))
    other = model(x, t, text_condition(clip, ["a red circle", "a small blue star at the top", "rings"]))
    assert torch.equal(found[0], other[0])
    assert (found[1] - other[1]).abs().max() > 1e-4
    assert not torch.equal(found[2], model(x, (t + 500) % 1000, text_condition(clip, CAPTIONS))[2])


def test_padding_is_never_heard(clip, model):
    x, t = given()
    text = text_condition(clip, CAPTIONS)
    found = model(x, t, text)
    noisy = torch.where(text.real[..., None], text.tokens, 100.0)
    assert torch.equal(model(x, t, replace(text, tokens=noisy)), found)
    assert torch.allclose(model(x[:1], t[:1], text_condition(clip, CAPTIONS[:1])), found[:1], atol=1e-5)


def test_a_withheld_sentence_leaves_no_trace(clip, model):
    """Bit for bit: whatever the sentence was, and however long."""
    x, t = given()
    silent = model(x, t, text_condition(clip, CAPTIONS).null())
    others = text_condition(clip, ["x" * 60, "something else", "a"]).null()
    assert torch.allclose(model(x, t, others), silent, atol=1e-6)
    same_length = text_condition(clip, ["b red square", "a large cyan ring at the left", "stars"]).null()
    assert torch.equal(model(x, t, same_length), silent)
    mixed = model(x, t, text_condition(clip, CAPTIONS).kept(torch.tensor([True, False, True])))
    assert torch.allclose(mixed[1], silent[1], atol=1e-6)
    assert not torch.allclose(mixed[0], silent[0], atol=1e-4)


def test_what_stands_for_nothing_is_learned(clip, model):
    x, t = given()
    text = text_condition(clip, CAPTIONS)
    model(x, t, text).square().mean().backward()
    assert not model.no_sentence.instead.grad.any()
    assert not model.no_token.instead.grad.any(), "nothing was withheld"
    model(x, t, text.null()).square().mean().backward()
    assert model.no_sentence.instead.grad.abs().min() > 0
    assert model.no_token.instead.grad.abs().min() > 0


def test_withheld_leaves_one_token():
    nothing = Withheld(4)
    real = torch.tensor([[True, True, False], [True, False, False]])
    tokens, mask = nothing.tokens(torch.zeros(2, 3, 4), real, torch.tensor([True, False]))
    assert mask.tolist() == [[True, True, False], [True, False, False]]
    assert torch.equal(tokens[1, 0], nothing.instead)
    assert not tokens[0].any()


def test_a_tenth_of_the_sentences_is_withheld(clip):
    seen = []

    class Listens(TextUNet):
        def forward(self, x_t, t, cond):
            seen.append(cond.keep)
            return torch.zeros_like(x_t)

    ids = ByteTokenizer(64).encode(["a ring"] * 2000)[0][:, None].short()
    batch = (torch.zeros(2000, 3, 4, 4, dtype=torch.uint8), ids)
    model = Listens(TextUNetConfig(BODY, text_width=8, text_dim=6))
    text_shapes.TextObjective(clip)(model, batch, Draws(0, 0, 2000, slice(0, 2000)))
    assert (~seen[0]).float().mean().item() == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / 2000) ** 0.5)


def test_copies_and_calls_are_identical(clip, model):
    x, t = given()
    text = text_condition(clip, CAPTIONS)
    first = model(x, t, text)
    assert torch.equal(model(x, t, text), first)
    assert torch.equal(copy.deepcopy(model)(x, t, text), first)
    other = TextUNet(model.config).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x, t, text), first)


def test_the_shipped_size():
    """The network of lesson 15: 3 channels, 16×16 positions inside, a last touch at full size."""
    with torch.device("meta"):
        network = TextUNet(text_shapes.NETWORK)
    assert network.config.body.unit == 4
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in text_shapes.new().parameters())
