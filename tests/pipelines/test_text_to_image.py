"""From a sentence to a picture, with small untrained parts: what goes where, and that it can be repeated."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from course_lib.diffusion import ddpm
from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.conditioned_unet import BodyConfig
from course_lib.models.prior import Prior, PriorConfig
from course_lib.models.unclip import DecoderConfig, UnclipDecoder
from course_lib.pipelines import TextToImage
from course_lib.recipes._weights import fingerprint

BODY = BodyConfig(
    width=8, mults=(1, 2), blocks=1, attention=(1,), heads=2, groups=4, dropout=0.0, embedding_dim=12, token_dim=8,
    patch=4, fine=4,
)  # fmt: skip
SENTENCES = ["a small red circle at the left", "a large blue square above a small green star"]


@pytest.fixture(autouse=True)
def _float32_on_the_cpu(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


def awake(network):
    """Weights that start at 0 drawn at random, so that every part has a say."""
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():
                weight.normal_(0, 0.1)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pipeline():
    torch.manual_seed(0)
    clip = CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1)).freeze()
    prior = awake(Prior(PriorConfig(dim=6, text_width=8, width=8, layers=1, heads=2)))
    decoder = awake(UnclipDecoder(DecoderConfig(BODY, image_dim=6, text_width=8)))
    return TextToImage(clip, prior.freeze(), decoder, kind="shapes")


def test_end_to_end(pipeline):
    images = pipeline(SENTENCES, steps=3, progress=False)
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.float32
    assert images.device.type == "cpu"
    assert images.abs().max() <= 1


def test_identical_calls_are_identical_and_other_seeds_differ(pipeline):
    state = torch.get_rng_state()
    first = pipeline(SENTENCES, steps=3, progress=False)
    assert torch.equal(pipeline(SENTENCES, steps=3, progress=False), first)
    assert not torch.equal(pipeline(SENTENCES, steps=3, seed=1, progress=False), first)
    assert torch.equal(torch.get_rng_state(), state), "nobody's dice are thrown"


def test_the_whole_is_its_stages_one_after_the_other(pipeline):
    """Each can be called alone: sentences to embeddings, embeddings to pictures."""
    embeddings = pipeline.embed(SENTENCES, seed=5)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(2), atol=1e-5)
    painted = pipeline.paint(embeddings, SENTENCES, seed=5, steps=3, progress=False)
    assert torch.equal(painted, pipeline(SENTENCES, seed=5, steps=3, progress=False))
    assert not torch.equal(pipeline.embed(SENTENCES, seed=6), embeddings)
    assert not torch.equal(pipeline.paint(embeddings.flip(0), SENTENCES, seed=5, steps=3, progress=False), painted)


def test_one_prior_draw_per_picture(pipeline):
    """The prior works before the decoder and never again: the decoder's chain has one and the same embedding."""
    calls, heard = [], []
    handles = [
        pipeline.prior.register_forward_hook(lambda *_: calls.append(len(heard))),
        pipeline.decoder.register_forward_hook(lambda _, args, out: heard.append(args[2].image)),
    ]
    pipeline(SENTENCES, steps=4, progress=False)
    for handle in handles:
        handle.remove()
    assert calls
    assert set(calls) == {0}, "no prior call after the decoder's first"
    assert len(heard) == 8, "four steps of two calls"
    assert all(torch.equal(image, heard[0]) for image in heard)


def test_embeddings_of_any_length_will_do(pipeline):
    embeddings = pipeline.embed(SENTENCES)
    one, two = (
        pipeline.paint(k * embeddings, steps=2, progress=False) for k in (1, 4)
    )  # a power of two: the same bits
    assert torch.allclose(one, two, atol=1e-4)


def test_without_captions_the_embedding_alone_speaks(pipeline):
    embeddings = pipeline.embed(SENTENCES)
    silent = pipeline.paint(embeddings, steps=2, progress=False)
    assert not torch.equal(silent, pipeline.paint(embeddings, SENTENCES, steps=2, progress=False))
    cond = []
    handle = pipeline.decoder.register_forward_hook(lambda _, args, out: cond.append(args[2]))
    pipeline.paint(embeddings, steps=1, guidance=1, progress=False)
    handle.remove()
    assert not cond[0].text.keep.any()
    assert cond[0].keep.all()


def test_guidance_0_knows_nothing_of_the_sentence(pipeline):
    found = pipeline(SENTENCES, guidance=0, steps=2, progress=False)
    other = pipeline(["a large red ring at the top"] * 2, guidance=0, steps=2, progress=False)
    assert torch.allclose(found, other, atol=1e-5)
    default = pipeline(SENTENCES, steps=2, progress=False)
    assert torch.equal(default, pipeline(SENTENCES, guidance=pipeline.guidance, steps=2, progress=False))
    assert not torch.equal(default, pipeline(SENTENCES, guidance=5, steps=2, progress=False))


def test_variations_have_the_pictures_embedding(pipeline):
    g = torch.Generator().manual_seed(0)
    image = torch.rand(3, 32, 32, generator=g) * 2 - 1
    heard = []
    handle = pipeline.decoder.register_forward_hook(lambda _, args, out: heard.append(args[2]))
    found = pipeline.variations(image, 3, steps=2, progress=False)
    handle.remove()
    assert found.shape == (3, 3, 32, 32)
    own = F.normalize(pipeline.clip.encode_image(image[None]), dim=1)
    assert torch.allclose(heard[0].image, own.expand(3, -1), atol=1e-6)
    assert not torch.equal(found[0], found[1]), "other noise, another picture"


def test_another_sampler(pipeline):
    found = pipeline(SENTENCES, steps=3, sampler=ddpm, progress=False)
    assert found.shape == (2, 3, 32, 32)
    assert not torch.equal(found, pipeline(SENTENCES, steps=3, progress=False))


def test_capitals_and_a_full_stop_are_read_as_taught(pipeline):
    typed = ["A small  red circle at the LEFT.", SENTENCES[1]]
    assert pipeline.check(typed) == SENTENCES
    assert torch.equal(pipeline(typed, steps=2, progress=False), pipeline(SENTENCES, steps=2, progress=False))


def test_what_it_cannot_read_is_refused_before_any_work(pipeline):
    """Empty, over-long, not ASCII, words it does not know, no list, guidance below 0: and no network is called."""
    calls = []
    handles = [
        part.register_forward_hook(lambda *_: calls.append(1))
        for part in (pipeline.clip.text, pipeline.prior, pipeline.decoder)
    ]
    for bad, options in (
        ([""], {}),
        (["a small red circle at the left" * 3], {}),
        (["a small röd circle at the left"], {}),
        (["a small pink circle at the left"], {}),
        (["a photo of a cat"], {}),
        ([], {}),
        (SENTENCES, {"guidance": -1}),
        (SENTENCES, {"guidance": float("nan")}),
    ):
        with pytest.raises(ValueError, match=r"\w"):
            pipeline(bad, **options)
    with pytest.raises(TypeError, match=r"\[text\]"):
        pipeline("a small red circle at the left")
    for handle in handles:
        handle.remove()
    assert not calls


def test_parts_of_another_clip_are_refused(pipeline):
    torch.manual_seed(1)
    other = CLIP(pipeline.clip.config).freeze()
    assert fingerprint(other) != fingerprint(pipeline.clip)
    for name in ("prior", "decoder"):
        part = copy.deepcopy(getattr(pipeline, name))
        part.clip_fingerprint = fingerprint(pipeline.clip)
        assert replace(pipeline, **{name: part}).clip is pipeline.clip, "belongs together"
        part.clip_fingerprint = fingerprint(other)
        with pytest.raises(ValueError, match=f"{name} was trained with another CLIP"):
            replace(pipeline, **{name: part})


def test_drawing_changes_no_weight_and_wakes_nobody(pipeline):
    before = {
        name: [value.clone() for value in getattr(pipeline, name).state_dict().values()]
        for name in ("clip", "prior", "decoder")
    }
    pipeline(SENTENCES, steps=2, progress=False)
    for name, values in before.items():
        part = getattr(pipeline, name)
        assert all(torch.equal(a, b) for a, b in zip(values, part.state_dict().values(), strict=True))
        assert not part.training
    assert torch.equal(
        copy.deepcopy(pipeline)(SENTENCES, steps=2, progress=False), pipeline(SENTENCES, steps=2, progress=False)
    )
