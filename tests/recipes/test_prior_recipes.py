"""The recipe of the priors: its loss, its two parts, and that it can be repeated."""

import dataclasses

import pytest
import torch

from course_lib.data import shapes
from course_lib.models.conditions import text_condition
from course_lib.models.prior import Prior, PriorConfig
from course_lib.recipes import clip_fashion, clip_shapes, prior_fashion, prior_shapes
from course_lib.recipes._first_guess import fit_guess
from course_lib.recipes._garments import Garments
from course_lib.recipes._shape_captions import EmbeddedShapes
from course_lib.recipes._weights import Round
from course_lib.recipes.prior_shapes import prior_loss
from course_lib.training import Draws, FitConfig


@pytest.fixture(scope="module")
def clip():
    return clip_shapes.load()


TINY = PriorConfig(width=16, layers=1, heads=2)


def test_the_loss_withholds_its_share_and_learns(clip):
    data = EmbeddedShapes(clip, 200, seed=5)
    _, _, arrows = data(torch.arange(200))
    specs = shapes.random_scenes(200, seed=5)
    text = text_condition(clip, [shapes.caption(spec) for spec in specs])
    kept = []

    class Watched(Prior):
        def forward(self, x_t, t, cond):
            kept.append(cond.keep)
            return super().forward(x_t, t, cond)

    prior = Watched(TINY)
    for step in range(20):
        found = prior_loss(prior, arrows, text, Draws(0, step, 200, slice(0, 200)))
        assert found.ndim == 0
        assert found.isfinite()
    share = torch.cat(kept).float().mean().item()
    assert share == pytest.approx(0.9, abs=4 * (0.09 / 4000) ** 0.5)
    one, again = (prior_loss(prior, arrows, text, Draws(0, 3, 200, slice(0, 200))) for _ in range(2))
    assert torch.equal(one, again)


def test_the_guess_is_trained_first_and_the_recipe_repeats(tmp_path, clip):
    guess = FitConfig(steps=4, batch_size=16, learning_rate=1e-3, warmup=1, ema=0.9)
    one_round = (Round(TINY, FitConfig(steps=5, batch_size=16, learning_rate=1e-3, warmup=1, ema=0.9)),)
    one = prior_shapes.run(one_round, scenes=64, guess=guess)
    assert one.losses.isfinite().all()
    again = prior_shapes.run(one_round, folder=tmp_path, scenes=64, guess=guess)
    for name, tensor in one.best.state_dict().items():
        assert torch.equal(tensor, again.best.state_dict()[name]), name
    start = prior_shapes.new(config=TINY)
    assert not torch.equal(one.best.state_dict()["first.line.weight"], start.first.line.weight)
    longer = prior_shapes.run(one_round, scenes=64, guess=dataclasses.replace(guess, steps=8))
    assert not torch.equal(one.losses, longer.losses)


class FewGarments(Garments):
    """The first 64 of them."""

    def __len__(self):
        return 64


def test_the_prior_of_garments_starts_from_a_guess_too_and_repeats(tmp_path, monkeypatch):
    monkeypatch.setattr(prior_fashion, "Garments", FewGarments)
    guess = FitConfig(steps=4, batch_size=16, learning_rate=1e-3, warmup=1, ema=0.9)
    tiny = dataclasses.replace(prior_fashion.NETWORK, width=16, layers=1, heads=2)
    one_round = (Round(tiny, FitConfig(steps=3, batch_size=16, learning_rate=1e-3, warmup=1, ema=0.9)),)
    one, again = (prior_fashion.run(one_round, folder, times=2, guess=guess) for folder in (None, tmp_path))
    assert one.losses.isfinite().all()
    for name, tensor in one.best.state_dict().items():
        assert torch.equal(tensor, again.best.state_dict()[name]), name
    start = prior_shapes.new(config=tiny)
    assert not torch.equal(one.best.state_dict()["first.line.weight"], start.first.line.weight)


def test_pairs_of_garments_are_arranged_anew_each_time():
    data, clip = FewGarments(), clip_fashion.load()
    sentences, images = prior_fashion.pairs(clip, data, times=2, batch=32)
    assert sentences.shape == images.shape == (128, clip.config.dim)
    once, twice = images[:64], images[64:]
    assert not torch.equal(once, twice)
    own = (sentences * images).sum(1).mean()
    assert own > (sentences.roll(1, 0) * images).sum(1).mean() + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_the_guess_learns_mean_and_variance_of_pairs(seed):
    """Pairs drawn from a known Gaussian around a turned sentence: what it learns is what they were drawn from."""
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(0)
    sentence = torch.nn.functional.normalize(torch.randn(2000, 8, generator=g), dim=1)
    turned = sentence.flip(1)
    image = turned + torch.tensor([0.02, 0.2] * 4) * torch.randn(2000, 8, generator=g)
    prior = Prior(PriorConfig(dim=8, text_width=8, width=8, layers=1, heads=2, guess_width=32))
    config = FitConfig(steps=900, batch_size=200, learning_rate=5e-3, warmup=10, ema=0.9)
    seconds = fit_guess(prior, sentence, image, None, config)
    assert seconds > 0
    mean, variance = prior.first(8**0.5 * sentence)
    assert torch.nn.functional.cosine_similarity(mean, turned).mean() > 0.95
    assert variance[:, ::2].mean().item() == pytest.approx(8 * 0.02**2, rel=0.8)
    assert variance[:, 1::2].mean().item() == pytest.approx(8 * 0.2**2, rel=0.2)
