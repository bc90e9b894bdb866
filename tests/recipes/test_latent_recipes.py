"""The recipes of latent diffusion: what the networks are shown, that runs repeat, what is shipped and measured."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from course_lib import checkpoints
from course_lib.data import shapes
from course_lib.evaluation.faithfulness import reserved, unseen_prompts
from course_lib.evaluation.reconstruction import psnr
from course_lib.models.latent_space import LatentSpace
from course_lib.models.latent_unet import LatentUNet
from course_lib.pixels import from_uint8
from course_lib.recipes import autoencoder_shapes, clip_shapes, latent_shapes
from course_lib.recipes._shape_captions import CaptionedShapes
from course_lib.recipes._weights import Round
from course_lib.training import Draws, FitConfig


@pytest.fixture(scope="module")
def clip():
    return clip_shapes.load()


@pytest.fixture(scope="module")
def space():
    return autoencoder_shapes.load()


def test_the_shipped_autoencoder_reconstructs_scenes_it_never_saw(space):
    images = shapes.make(64, seed=77).images
    found = space.decode(space.encode(images)).clamp(-1, 1)
    assert psnr(found, images).mean() > 36
    assert space.encode(images).shape == (64, *space.latent_shape) == (64, 4, 8, 8)
    assert 0.85 < space.encode(images).std() < 1.15
    metrics = checkpoints.verify("autoencoder_shapes")["metrics"]
    quality = metrics["PSNR in dB, mean of unseen scenes (n = 1000)"]
    assert quality["value"] >= 28
    assert quality["value"] > quality["floor"] + 10


def test_training_scenes_are_none_of_the_reserved():
    pixels = autoencoder_shapes.scenes(40, 3)
    assert pixels.shape == (40, 3, 32, 32)
    assert torch.equal(pixels, autoencoder_shapes.scenes(40, 3))
    assert not torch.equal(pixels, autoencoder_shapes.scenes(40, 4))
    assert all(reserved(spec) for spec in unseen_prompts(40, 3))


def test_the_autoencoder_repeats_and_its_space_has_unit_variance(tmp_path):
    config = FitConfig(steps=4, batch_size=8, learning_rate=1e-3, warmup=1, ema=0.9, clip_norm=2000.0)
    one, again = (autoencoder_shapes.run(config, folder, n=32) for folder in (None, tmp_path))
    for name, tensor in one.best.state_dict().items():
        assert torch.equal(tensor, again.best.state_dict()[name]), name
    images = from_uint8(autoencoder_shapes.scenes(100, 1))
    space = LatentSpace.fitted(one.best, images)
    assert space.encode(images, torch.Generator().manual_seed(0)).std().item() == pytest.approx(1, abs=0.01)


def test_latents_are_what_the_autoencoder_says_of_the_scenes(clip, space):
    data = latent_shapes.LatentShapes(clip, space, 24, seed=5)
    captioned = CaptionedShapes(clip, 24, seed=5)
    means, stds, ids = data(torch.arange(24))
    posterior = space.autoencoder.encode(from_uint8(captioned.pixels))
    assert (means.float() - space.scale * posterior.mean).abs().max() < 0.06  # bfloat16 where the machine has it
    assert (stds.float() / (space.scale * posterior.std) - 1).abs().median() < 0.05
    assert torch.equal(ids, captioned.ids)
    assert len(data) == 24


def test_the_objective_draws_latents_and_withholds_its_share(clip, space):
    data, seen = latent_shapes.LatentShapes(clip, space, 200, seed=5), []

    class Watched(LatentUNet):
        def forward(self, x_t, t, cond):
            seen.append(cond.keep)
            return super().forward(x_t, t, cond)

    model = Watched(dataclasses.replace(latent_shapes.NETWORK, width=16))
    objective, batch = latent_shapes.LatentObjective(clip), data(torch.arange(200))
    losses = [objective(model, batch, Draws(0, step, 200, slice(0, 200))) for step in range(10)]
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses)
    share = torch.cat(seen).float().mean().item()
    assert share == pytest.approx(0.9, abs=4 * (0.09 / 2000) ** 0.5)
    assert torch.equal(losses[0], objective(model, batch, Draws(0, 0, 200, slice(0, 200))))
    narrow = objective(model, (batch[0], 0 * batch[1], batch[2]), Draws(0, 0, 200, slice(0, 200)))
    assert not torch.equal(losses[0], narrow), "latents are drawn, not taken at their means"


def test_the_latent_model_repeats(tmp_path):
    tiny = dataclasses.replace(latent_shapes.NETWORK, width=16)
    rounds = (Round(tiny, FitConfig(steps=3, batch_size=8, learning_rate=1e-3, warmup=1, ema=0.9)),)
    one, again = (latent_shapes.run(rounds, folder, scenes=32) for folder in (None, tmp_path))
    assert one.losses.isfinite().all()
    for name, tensor in one.best.state_dict().items():
        assert torch.equal(tensor, again.best.state_dict()[name]), name
