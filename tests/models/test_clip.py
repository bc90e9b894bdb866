"""CLIP: the loss against open_clip's and against sums written out, masks that mask, freezing that freezes."""

import copy
import json
import math
import runpy
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from course_lib.models.clip import CLIP, MAX_SCALE, CLIPConfig, clip_loss

FILE = Path(__file__).parent.parent / "reference" / "clip.json"
REFERENCE = json.loads(FILE.read_text())
SMALL = CLIPConfig(dim=16, image_size=16, image_width=32, image_layers=2, text_width=32, text_layers=2)
TEXTS = ["a small red circle at the left", "a ring", "a large blue square above a small green star"]


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


@pytest.fixture
def clip():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CLIP(SMALL).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("case", REFERENCE["loss"])
def test_the_loss_is_open_clips(case):
    image, text = (torch.tensor(case[name], dtype=torch.float64) for name in ("image", "text"))
    assert clip_loss(image, text, case["scale"]).item() == pytest.approx(case["loss"], abs=1e-9)
    one_hot = torch.eye(len(image), dtype=torch.bool)
    assert clip_loss(image, text, case["scale"], one_hot).item() == pytest.approx(case["loss"], abs=1e-9)


@pytest.mark.parametrize("n", [2, 64, 128, 256])
def test_the_loss_of_a_model_that_knows_nothing(n):
    """All pictures and all texts point one way: ln N, whatever the scale, however many captions are the same."""
    same = torch.eye(n, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    one = unit(1, 8).expand(n, 8)
    for targets in (None, same):
        assert clip_loss(one, one, 14.3, targets).item() == pytest.approx(math.log(n))


def test_several_right_captions_share_the_target():
    """Against the sum written out, row by row and column by column."""
    image, text = unit(6, 4), unit(6, 4, seed=1)
    kinds = torch.tensor([0, 1, 0, 2, 2, 2])
    same = kinds[:, None] == kinds
    logits = (7.5 * image @ text.T).tolist()
    total = 0.0
    for table, partner in ((logits, same), (list(zip(*logits, strict=True)), same.T)):
        for i, row in enumerate(table):
            log_sum = math.log(sum(math.exp(value) for value in row))
            right = [log_sum - row[j] for j in range(6) if partner[i, j]]
            total += sum(right) / len(right) / 12
    assert clip_loss(image, text, 7.5, same).item() == pytest.approx(total)


def test_captions_that_mean_the_same():
    """One-hot targets push a picture away from the other wording of its own caption; `same` pulls it there."""
    image = unit(2, 8)[:1].repeat(2, 1).requires_grad_()  # two alike pictures, described in two ways
    text = unit(2, 8, seed=1)
    plain, several = (
        torch.autograd.grad(clip_loss(image, text, 10.0, same), image)[0]
        for same in (None, torch.ones(2, 2, dtype=torch.bool))
    )
    other = text.flip(0) - text
    assert ((-plain * other).sum(1) < 0).all(), "a step down the gradient leads from the other wording"
    assert ((several * other).sum(1).sum().abs() < 1e-12).all(), "no wording is better than the other"
    assert clip_loss(unit(1, 8).repeat(2, 1), text, 10.0, torch.ones(2, 2, dtype=torch.bool)) > math.log(2) - 1e-12


def test_captions_that_are_equal_letter_by_letter():
    """What one copy pushes away the other pulls back: pictures get the same gradient as with `same`."""
    image, kinds = unit(4, 8).requires_grad_(), torch.tensor([0, 0, 1, 1])
    text = unit(2, 8, seed=1)[kinds]
    plain, several = (
        torch.autograd.grad(clip_loss(image, text, 10.0, same), image)[0] for same in (None, kinds[:, None] == kinds)
    )
    torch.testing.assert_close(plain, several)


def test_only_the_shape_of_same_matters_not_its_side():
    """A caption that is right for several pictures, but not the other way round."""
    image, text = unit(3, 4), unit(3, 4, seed=1)
    same = torch.tensor([[True, True, False], [False, True, False], [False, False, True]])
    assert clip_loss(image, text, 5.0, same).item() == pytest.approx(clip_loss(text, image, 5.0, same.T).item())


def test_embeddings_have_length_one(clip, images):
    image, text = clip.encode_image(images), clip.encode_captions(TEXTS)
    assert image.shape == text.shape == (3, 16)
    for emb in (image, text):
        assert torch.allclose(emb.norm(dim=1), torch.ones(3), atol=1e-5)
    a, b, scale = clip(images, *clip.tokens(TEXTS))
    assert torch.equal(a, image)
    assert torch.equal(b, text)
    assert scale.item() == pytest.approx(1 / 0.07, rel=1e-6)


def test_the_scale_is_capped(clip):
    with torch.no_grad():
        clip.log_scale.fill_(10.0)
    assert clip.scale.item() == MAX_SCALE == 100


def test_padding_is_never_looked_at(clip):
    """Other tokens where the mask is False, more padding, other texts in the batch: the same states and embeddings."""
    ids, real = clip.tokens(TEXTS)
    changed = torch.where(real, ids, 65)
    assert torch.equal(clip.encode_text(changed, real), clip.encode_text(ids, real))
    states = clip.text.states(ids, real)
    assert torch.equal(clip.text.states(changed, real)[real], states[real])
    alone = torch.cat([clip.encode_captions([text]) for text in TEXTS])
    assert torch.allclose(alone, clip.encode_captions(TEXTS), atol=1e-5)
    shorter = int(real.sum(1).max())
    assert torch.allclose(clip.text.states(ids[:, :shorter], real[:, :shorter])[0, :5], states[0, :5], atol=1e-5)


def test_every_byte_counts(clip):
    found = clip.encode_captions(["a red ring", "a red rinh", "b red ring", "red a ring"])
    assert torch.pdist(found).min() > 1e-4


def test_gradients_reach_everything(clip, images):
    clip.train()
    clip_loss(*clip(images, *clip.tokens(TEXTS))).backward()
    for name, parameter in clip.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_frozen_means_frozen(images):
    """After `freeze`, neither `train()` nor that of a network around it brings dropout or gradients back (E15)."""
    clip = CLIP(CLIPConfig(dim=16, image_size=16, image_width=32, text_width=32, dropout=0.5))
    assert not torch.equal(clip.encode_image(images), clip.encode_image(images)), "dropout is on while training"
    clip.freeze()
    around = torch.nn.Sequential(clip, torch.nn.Dropout()).train()
    clip.train()
    assert clip.frozen
    assert around.training
    assert not any(module.training for module in clip.modules())
    assert torch.equal(clip.encode_image(images), clip.encode_image(images))
    assert not any(p.requires_grad for p in clip.parameters())
    twin = copy.deepcopy(clip).train()
    assert twin.frozen
    assert torch.equal(twin.encode_image(images), clip.encode_image(images))
    x = images.clone().requires_grad_()
    clip.encode_image(x).sum().backward()
    assert x.grad.abs().sum() > 0, "gradients still pass through"


def test_round_trips(clip, images):
    other = CLIP(SMALL).eval()
    other.load_state_dict(clip.state_dict())
    assert torch.equal(other.encode_image(images), clip.encode_image(images))
    assert CLIPConfig(**asdict(SMALL)) == SMALL
    assert clip.encode_image(images[:0]).shape == (0, 16)


def test_the_sources_configuration():
    config = CLIPConfig.sources()
    assert CLIPConfig(**asdict(config)) == config
    expected = {"patch": 4, "image_width": 256, "image_layers": 6, "image_heads": 8, "text_width": 256}
    expected |= {"text_layers": 6, "text_heads": 8, "dropout": 0.2, "mlp_ratio": 4, "bias": False, "dim": 256}
    assert {name: asdict(config)[name] for name in expected} == expected
    with torch.device("meta"):
        model = CLIP(config)
    assert len(model.image.blocks) == len(model.text.blocks) == 6
    assert model.image.blocks[0].qkv.bias is None


def test_the_other_stem(images):
    clip = CLIP(CLIPConfig(dim=16, image_size=16, image_width=32, text_width=32, stem="convolutions"))
    assert clip.encode_image(images).shape == (3, 16)
    assert clip.image.patches(images).shape == (3, 32, 4, 4)


@pytest.mark.peers
def test_reference_vectors_are_open_clips():
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    again = runpy.run_path(str(FILE.with_name("make_clip.py")))["cases"]()
    for old, new in zip(REFERENCE["loss"], again["loss"], strict=True):
        assert old["loss"] == pytest.approx(new["loss"], abs=1e-12)
        assert old["image"] == new["image"]
