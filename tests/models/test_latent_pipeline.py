"""Latent diffusion as a whole: a space of size 1, three parts that can be swapped, pictures that start from others."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import nn

from course_lib.diffusion import Schedule, ddim, ddpm
from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.conditions import TextCondition, text_condition
from course_lib.models.kl_autoencoder import KLAutoencoder, KLAutoencoderConfig
from course_lib.models.latent_pipeline import LatentDiffusion
from course_lib.models.latent_space import LatentSpace
from course_lib.models.latent_unet import LatentUNet, LatentUNetConfig

SMALL = LatentUNetConfig(width=8, heads=2, groups=4, context_width=8, text_dim=6)
CAPTIONS = ["a red circle", "a small blue star at the left", "rings"]


def autoencoder(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return KLAutoencoder(KLAutoencoderConfig(width=8, mults=(1, 1, 2), groups=4)).eval()


def unet(seed=1, config=SMALL):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = LatentUNet(config)
        with torch.no_grad():
            for weight in network.parameters():
                if not weight.any():
                    weight.normal_(0, 0.1)
    return network.eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def _exactly(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    clip = CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1)).freeze()
    return LatentDiffusion(clip, unet(), LatentSpace.fitted(autoencoder(), pictures(20)), Schedule.cosine(1000))


def pictures(n=3, seed=0):
    """Smooth pictures in [-1, 1]."""
    g = torch.Generator().manual_seed(seed)
    return nn.functional.interpolate(2 * torch.rand(n, 3, 4, 4, generator=g) - 1, size=32, mode="bilinear")


class Still(nn.Module):
    """Predicts v of latents that are all 0: any sampler without fresh noise ends at 0."""

    prediction = "v"

    def __init__(self):
        super().__init__()
        self.config, self.weight, self.seen = SMALL, nn.Parameter(torch.zeros(())), []

    def forward(self, x_t, t, cond):
        self.seen.append((x_t.clone(), t.clone(), cond))
        bar = Schedule.cosine(1000).alpha_bars[t].to(x_t)[:, None, None, None]
        return x_t * (bar / (1 - bar)).sqrt()


class Large(Still):
    """Means latents of 3 everywhere, wherever it stands."""

    def forward(self, x_t, t, cond):
        bar = Schedule.cosine(1000).alpha_bars[t].to(x_t)[:, None, None, None]
        return (x_t * bar.sqrt() - 3) / (1 - bar).sqrt()


# --- the space -------------------------------------------------------------------------------------------------------


def test_fitted_gives_standard_deviation_1():
    model, images = autoencoder(), pictures(40)
    space = LatentSpace.fitted(model, images)
    drawn = space.encode(images, torch.Generator().manual_seed(0))
    assert drawn.std().item() == pytest.approx(1, abs=0.01)
    raw = model.encode(images).sample(generator=torch.Generator().manual_seed(0))
    assert space.scale.item() == pytest.approx(1 / raw.double().std().item(), rel=1e-6)
    model.quant_conv.weight.data[:4] *= 5.49
    model.quant_conv.bias.data[:4] *= 5.49
    model.quant_conv.bias.data[4:] += 2 * torch.tensor(5.49).log()  # log variances
    louder = LatentSpace.fitted(model, images)
    assert louder.scale.item() == pytest.approx(space.scale.item() / 5.49, rel=1e-4), (
        "latents that are 5.49 times as large"
    )


def test_encode_multiplies_and_decode_divides():
    model, images = autoencoder(), pictures()
    space, plain = LatentSpace(model, 0.25), LatentSpace(model)
    latents = space.encode(images)
    assert torch.equal(latents, 0.25 * model.encode(images).mode)
    assert torch.allclose(space.decode(latents), model.decode(model.encode(images).mode), atol=1e-5)
    assert torch.equal(space.decode(latents), plain.decode(plain.encode(images)))
    assert not torch.allclose(space.decode(plain.encode(images)), plain.decode(plain.encode(images)), atol=1e-3)
    assert space.latent_shape == latents.shape[1:] == (4, 8, 8)


def test_the_space_is_frozen_and_keeps_its_scale():
    space = LatentSpace(autoencoder(), 0.25)
    assert not any(weight.requires_grad for weight in space.parameters())
    assert not space.train().autoencoder.training
    other = LatentSpace(autoencoder(seed=5))
    other.load_state_dict(space.state_dict())
    assert other.scale.item() == 0.25
    assert torch.equal(other.encode(pictures()), space.encode(pictures()))


def test_draws_differ_and_have_the_posteriors_spread():
    space = LatentSpace(autoencoder(), 0.25)
    posterior = space.autoencoder.encode(pictures(1))
    draws = torch.cat([space.encode(pictures(1), torch.Generator().manual_seed(k)) for k in range(300)])
    assert torch.allclose(draws.mean(dim=0), 0.25 * posterior.mean[0], atol=4 * 0.25 * posterior.std.max() / 300**0.5)
    assert draws.std(dim=0).mean().item() == pytest.approx(0.25 * posterior.std.mean().item(), rel=0.05)


# --- the whole -------------------------------------------------------------------------------------------------------


def test_the_call_is_its_parts_one_after_the_other(pipe):
    found = pipe(CAPTIONS, seed=0, steps=4, scale=2)
    text = text_condition(pipe.text, CAPTIONS)
    model, x = pipe.model(text.null(), 2), torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for state in ddim(model, pipe.schedule, (3, 4, 8, 8), 4, cond=text, x=x):
        last = state.x
    assert torch.allclose(found, pipe.space.decode(last).clamp(-1, 1), atol=1e-4)
    assert found.shape == (3, 3, 32, 32)
    assert found.abs().max() <= 1


def test_seeds_decide_and_nothing_else_does(pipe):
    torch.manual_seed(1)
    first = pipe(CAPTIONS, seed=3, steps=3)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert torch.equal(pipe(CAPTIONS, seed=3, steps=3), first)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    assert not torch.allclose(pipe(CAPTIONS, seed=4, steps=3), first, atol=1e-3)
    assert not torch.allclose(pipe([CAPTIONS[0]] * 2, steps=3)[0], pipe([CAPTIONS[0]] * 2, steps=3)[1], atol=1e-3)


def test_every_batch_draws_its_own_noise(pipe):
    whole = pipe([CAPTIONS[0]] * 4, steps=2, batch=2)
    assert torch.allclose(whole[:2], pipe([CAPTIONS[0]] * 2, steps=2), atol=1e-5)
    assert not torch.allclose(whole[2:], whole[:2], atol=1e-3)


def test_states_are_latents_and_unclipped(pipe):
    still = Still()
    states = list(pipe.with_(unet=still).states(CAPTIONS, steps=5, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(still.seen[0][0], torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert still.seen[0][1].tolist() == [999] * 3, "it begins with noise alone"
    assert len(states) == 5
    assert states[-1].t == -1
    large = pipe.with_(unet=Large())
    (last,) = list(large.states(CAPTIONS, steps=1, generator=torch.Generator().manual_seed(0)))
    assert last.x.abs().max() > 2, "latents have no range to be clipped to"


def test_the_same_network_is_called_in_every_step_with_guidance_twice(pipe):
    still = Still()
    fixed = pipe.with_(unet=still)
    fixed(CAPTIONS, steps=4, scale=3)
    assert len(still.seen) == 2 * 4
    assert [t[0].item() for _, t, _ in still.seen[::2]] == [t[0].item() for _, t, _ in still.seen[1::2]]
    assert all(cond.keep.all() for _, _, cond in still.seen[::2])
    assert not any(cond.keep.any() for _, _, cond in still.seen[1::2])
    still.seen.clear()
    fixed(CAPTIONS, steps=4, scale=1)
    assert len(still.seen) == 4


def test_with_swaps_one_part_and_leaves_the_rest(pipe):
    other = LatentSpace.fitted(autoencoder(seed=9), pictures(20))
    swapped = pipe.with_(space=other)
    assert (swapped.text, swapped.unet, swapped.schedule) == (pipe.text, pipe.unet, pipe.schedule)
    assert pipe.space is not other
    latents = [
        list(p.states(CAPTIONS, steps=3, generator=torch.Generator().manual_seed(0)))[-1].x for p in (pipe, swapped)
    ]
    assert torch.equal(*latents), "the U-Net never sees the autoencoder"
    assert not torch.allclose(pipe(CAPTIONS, steps=3), swapped(CAPTIONS, steps=3), atol=1e-3)
    assert not torch.allclose(pipe.with_(unet=unet(seed=7))(CAPTIONS, steps=3), pipe(CAPTIONS, steps=3), atol=1e-3)
    quick = pipe.with_(schedule=Schedule.linear(1000))
    assert not torch.allclose(quick(CAPTIONS, steps=3), pipe(CAPTIONS, steps=3), atol=1e-3)
    with pytest.raises(FrozenInstanceError):
        pipe.unet = unet()


def test_another_text_encoder_can_take_the_place(pipe):
    """What is no CLIP of the course tells the U-Net through `condition`, and nothing through `nothing`."""

    class Reader:
        def condition(self, captions):
            n = len(captions)
            tokens = torch.tensor([[len(c)] for c in captions])[..., None].expand(n, 1, 8) / 10
            ones = torch.ones(n, 1, dtype=torch.bool)
            return TextCondition(tokens, ones, torch.zeros(n, 6), ones[:, 0])

        def nothing(self, cond):
            return self.condition([""] * len(cond))

    still = Still()
    pipe.with_(text=Reader(), unet=still)(CAPTIONS, steps=2, scale=3)
    told, null = still.seen[0][2], still.seen[1][2]
    assert told.tokens[:, 0, 0].tolist() == pytest.approx([len(c) / 10 for c in CAPTIONS])
    assert not null.tokens.any()
    assert null.keep.all()


# --- starting from a picture -----------------------------------------------------------------------------------------


def test_full_strength_forgets_the_picture_and_little_strength_hardly_changes_it(pipe):
    """With a network that always says 0: everything is forgotten; with one that knows the picture, little changes."""
    images, still = pictures(), pipe.with_(unet=Still())
    zero = pipe.space.decode(torch.zeros(1, 4, 8, 8)).clamp(-1, 1)
    assert torch.allclose(still.img2img(CAPTIONS, images, 1, steps=10), zero.expand(3, -1, -1, -1), atol=1e-4)
    full = pipe.img2img(CAPTIONS, images, 1, steps=10)
    other = pipe.img2img(CAPTIONS, images.flip(0), 1, steps=10)
    assert (full - other).abs().max() < 0.05, "ᾱ is about 0 there: next to nothing of the picture is left"
    back = pipe.space.decode(pipe.space.encode(images)).clamp(-1, 1)
    gaps = [
        (pipe.img2img(CAPTIONS, images, strength, steps=50) - back).abs().mean().item() for strength in (0.02, 0.3, 1)
    ]
    assert gaps == sorted(gaps)
    assert gaps[0] < 0.25 * gaps[2]


def test_strength_is_the_share_of_steps_that_is_run(pipe):
    for strength, runs in ((0.01, 1), (0.3, 3), (0.5, 5), (1, 10)):
        still = Still()
        pipe.with_(unet=still).img2img(CAPTIONS, pictures(), strength, scale=1, steps=10)
        assert len(still.seen) == runs
        x_t, t, _ = still.seen[0]
        bar = pipe.schedule.alpha_bars[t[0]]
        noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        expected = bar.sqrt() * pipe.space.encode(pictures()).double() + (1 - bar).sqrt() * noise.double()
        assert torch.allclose(x_t.double(), expected, atol=1e-5), "the latents are noised, not the pixels"


def test_inpainting_keeps_kept_pixels_exactly(pipe):
    images, keep = pictures(), torch.ones(3, 1, 32, 32, dtype=torch.bool)
    keep[:, :, 5:14, 18:30] = False
    found = pipe.inpaint(CAPTIONS, images, keep, steps=4, resample=1)
    at = keep.expand(-1, 3, -1, -1)
    assert torch.equal(found[at], images[at])
    assert (found[~at] - images[~at]).abs().max() > 0.05
    assert torch.equal(pipe.inpaint(CAPTIONS, images, keep | True, steps=4, resample=1), images)
    nothing = pipe.inpaint(CAPTIONS, images, keep & False, steps=4, resample=1)
    assert not torch.allclose(nothing, images, atol=0.1)


def test_a_latent_is_kept_only_where_all_its_pixels_are(pipe, monkeypatch):
    """Pixels 5 to 13 and 18 to 29 are to be invented: rows 1 to 3 and columns 4 to 7 of the latents, seam included."""
    from course_lib.models import latent_pipeline

    seen, real = [], latent_pipeline.editing.inpaint

    def listening(model, schedule, image, keep, *args, **options):
        seen.append(keep)
        return real(model, schedule, image, keep, *args, **options)

    monkeypatch.setattr(latent_pipeline.editing, "inpaint", listening)
    keep = torch.ones(3, 1, 32, 32, dtype=torch.bool)
    keep[:, :, 5:14, 18:30] = False
    pipe.inpaint(CAPTIONS, pictures(), keep, steps=2, resample=1)
    expected = torch.ones(3, 4, 8, 8, dtype=torch.bool)
    expected[:, :, 1:4, 4:8] = False
    assert torch.equal(seen[0], expected)


@pytest.mark.parametrize("sampler", [ddim, ddpm])
def test_editing_is_repeatable_with_either_sampler(pipe, sampler):
    images, keep = pictures(), torch.rand(3, 1, 32, 32) < 0.5
    for edit in (
        lambda seed: pipe.img2img(CAPTIONS, images, 0.5, steps=4, seed=seed, sampler=sampler),
        lambda seed: pipe.inpaint(CAPTIONS, images, keep, steps=3, resample=2, seed=seed, sampler=sampler),
    ):
        assert torch.equal(edit(0), edit(0))
        assert not torch.allclose(edit(0), edit(1), atol=1e-3)


def test_given_pictures_and_masks_are_not_changed(pipe):
    images, keep = pictures(), torch.rand(3, 1, 32, 32) < 0.5
    before = images.clone(), keep.clone()
    pipe.img2img(CAPTIONS, images, 0.5, steps=2)
    pipe.inpaint(CAPTIONS, images, keep, steps=2, resample=1)
    assert torch.equal(images, before[0])
    assert torch.equal(keep, before[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_pictures_come_back_to_the_cpu(pipe):
    clip, unet_, space = (part.to("cuda") for part in (pipe.text, pipe.unet, pipe.space))
    moved = replace(pipe, text=clip, unet=unet_, space=space)
    try:
        images, keep = pictures(), torch.rand(3, 1, 32, 32) < 0.5
        assert moved(CAPTIONS, steps=2).device.type == "cpu"
        assert moved.img2img(CAPTIONS, images, 0.5, steps=2).device.type == "cpu"
        assert torch.equal(moved(CAPTIONS, steps=2), moved(CAPTIONS, steps=2))
        found = moved.inpaint(CAPTIONS, images, keep, steps=2, resample=1)
        assert torch.equal(found[keep.expand_as(found)], images[keep.expand_as(images)])
    finally:
        for part in (pipe.text, pipe.unet, pipe.space):
            part.to("cpu")
