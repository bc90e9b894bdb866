"""The sources' unCLIP: its numbers, its learning rates, and its five tokens."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch

from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.conditions import TextCondition, text_condition
from course_lib.models.prior import PriorConfig
from course_lib.models.sources_unclip import (
    SOURCES,
    FashionMNIST,
    FiveTokens,
    Standardize,
    Training,
    learning_rates,
    optimizer,
    raw_caption,
)
from course_lib.training import FitConfig, fit

SMALL = PriorConfig(dim=6, text_width=8, width=16, layers=2, heads=2)


def parameters():
    return [torch.nn.Parameter(torch.zeros(2))]


def curve(warmup, epochs, highest=5e-4, lowest=1e-5):
    one = optimizer(parameters(), highest)
    rates, found = learning_rates(one, epochs, warmup, lowest), []
    for _ in range(epochs):
        found.append(one.param_groups[0]["lr"])
        one.step()
        rates.step()
    return found


def test_the_numbers_of_the_three():
    told = {
        name: (part.batch_size, part.epochs, part.augment)
        for name, part in (("clip", SOURCES.clip), ("prior", SOURCES.prior), ("decoder", SOURCES.decoder))
    }
    assert told == {"clip": (128, 200, True), "prior": (128, 150, False), "decoder": (32, 100, False)}
    for part in (SOURCES.clip, SOURCES.prior, SOURCES.decoder):
        shared = (part.learning_rate, part.lowest_rate, part.weight_decay, part.warmup_epochs, part.clip_norm)
        assert shared == (5e-4, 1e-5, 1e-4, 5, 1.0)
    prior = SOURCES.prior.network
    assert (prior.T, prior.width, prior.layers, prior.heads, prior.dropout, prior.bias) == (1000, 256, 6, 8, 0.2, False)
    decoder = SOURCES.decoder.network
    body = decoder.body
    assert (body.width, body.mults, body.blocks, body.groups, body.dropout) == (32, (1, 2, 4, 8), 2, 8, 0.1)
    assert (body.embedding_dim, body.heads, decoder.text_layers, decoder.image_tokens) == (128, 8, 4, 4)
    clip = SOURCES.clip.network
    assert clip == CLIPConfig.sources()
    assert (clip.patch, clip.image_layers, clip.text_layers, clip.image_heads, clip.dropout) == (4, 6, 6, 8, 0.2)
    assert (SOURCES.dim, SOURCES.side, SOURCES.vocabulary, SOURCES.text_length) == (256, 32, 256, 64)
    assert SOURCES.dim == clip.dim == prior.dim == decoder.image_dim
    assert sum(SOURCES.split) == 60_000


def test_no_two_share_anything():
    one, other = FashionMNIST(), FashionMNIST()
    assert one == other
    for name in ("clip", "prior", "decoder", "pixels"):
        assert getattr(one, name) is not getattr(other, name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.prior.epochs = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.dim = 1
    changed = dataclasses.replace(one, prior=dataclasses.replace(one.prior, epochs=1))
    assert (changed.prior.epochs, one.prior.epochs, other.prior.epochs) == (1, 150, 150)
    assert hash(one) == hash(other)  # nothing in it is a list


def test_adamw_where_there_is_weight_decay():
    assert type(optimizer(parameters(), 1e-3)) is torch.optim.Adam
    with_decay = optimizer(parameters(), 1e-3, 0.1)
    assert type(with_decay) is torch.optim.AdamW
    assert with_decay.param_groups[0]["weight_decay"] == 0.1
    ours = SOURCES.prior.optimizer(parameters())
    assert type(ours) is torch.optim.AdamW
    assert ours.param_groups[0]["lr"] == 5e-4
    assert type(Training(SMALL, 8, 1, weight_decay=0.0).optimizer(parameters())) is torch.optim.Adam
    with pytest.raises(ValueError, match="weight_decay=-1"):
        optimizer(parameters(), 1e-3, -1)


def test_the_rate_climbs_five_epochs_then_falls():
    rates = curve(5, 150)
    assert rates[:5] == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4, 5e-4])
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[4:]))
    assert rates[-1] == pytest.approx(1e-5)
    for epoch in (4, 40, 100, 149):
        wave = (1 + math.cos(math.pi * (epoch - 4) / 145)) / 2
        assert rates[epoch] == pytest.approx(1e-5 + 4.9e-4 * wave, rel=1e-6)


@pytest.mark.parametrize(("warmup", "epochs"), [(0, 4), (1, 4), (2, 4), (3, 4), (0, 1), (1, 2)])
def test_short_trainings(warmup, epochs):
    rates = curve(warmup, epochs)
    assert max(rates) == pytest.approx(5e-4)
    assert rates.index(max(rates)) == max(warmup - 1, 0)
    if epochs > max(warmup, 1):
        assert rates[-1] == pytest.approx(1e-5)


def test_a_warmup_longer_than_the_training():
    for warmup, epochs in ((5, 5), (-1, 5)):
        with pytest.raises(ValueError, match="warmup_epochs"):
            learning_rates(optimizer(parameters(), 1e-3), epochs, warmup)


def test_standardised_pictures_and_back():
    pixels = SOURCES.pixels
    assert pixels.range == pytest.approx((-0.844, 2.111), abs=5e-4)
    grey = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(pixels.inverse(pixels(grey)), grey, atol=1e-6)
    assert pixels(torch.tensor([0.0, 1.0])).tolist() == pytest.approx(pixels.range)
    own = Standardize(grey.mean().item(), grey.std().item())(grey)
    assert own.mean().item() == pytest.approx(0, abs=1e-5)
    assert own.std().item() == pytest.approx(1, abs=1e-5)


def test_raw_captions_are_cut_or_filled():
    ids = torch.arange(1, 65).expand(2, -1)
    assert torch.equal(raw_caption(ids, 70)[0], torch.tensor([*range(1, 65), *[0] * 6]).float())
    assert torch.equal(raw_caption(ids, 10)[1], torch.arange(1, 11).float())


def condition(n=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    embedding = torch.nn.functional.normalize(torch.randn(n, 6, generator=g), dim=1)
    real = torch.arange(7) < torch.tensor([7, 4, 3])[:n, None]
    return TextCondition(torch.randn(n, 7, 8, generator=g), real, embedding, torch.ones(n, dtype=torch.bool))


@pytest.fixture
def five():
    torch.manual_seed(0)
    return FiveTokens(SMALL).eval()


def test_five_tokens_and_all_of_them_tell(five):
    x_t, t, cond = torch.randn(2, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 800]), condition()
    tokens = five.tokens(x_t, t, cond)
    assert tokens.shape == (2, 5, 16)
    answer = five(x_t, t, cond)
    assert answer.shape == (2, 6)
    others = {
        0: five.tokens(x_t, t, dataclasses.replace(cond, tokens=cond.tokens + 1)),
        1: five.tokens(x_t, t, dataclasses.replace(cond, embedding=cond.embedding.flip(1))),
        2: five.tokens(x_t, t - 2, cond),
        3: five.tokens(x_t + 1, t, cond),
    }
    for k, other in others.items():
        moved = (other - tokens).abs().amax(dim=(0, 2)) > 1e-6
        assert moved.tolist() == [j == k for j in range(5)]
    for k in range(5):
        changed = tokens.clone()
        changed[:, k, ::2] += 1
        five.tokens = lambda *_, changed=changed: changed
        assert (five(x_t, t, cond) - answer).abs().max() > 1e-4
        del five.tokens


def test_padding_of_the_caption_is_not_read(five):
    x_t, t, cond = torch.randn(2, 6), torch.tensor([3, 800]), condition()
    noisy = torch.where(cond.real[..., None], cond.tokens, 9.0)
    assert torch.equal(five(x_t, t, cond), five(x_t, t, dataclasses.replace(cond, tokens=noisy)))


def test_the_query_learns_and_nothing_is_shared(five):
    five(torch.randn(2, 6), torch.tensor([3, 800]), condition()).square().sum().backward()
    assert five.query.grad.norm() > 0
    twin = copy.deepcopy(five)
    twin.load_state_dict(five.state_dict())
    x_t, t, cond = torch.randn(2, 6), torch.tensor([3, 800]), condition()
    assert torch.equal(five(x_t, t, cond), twin(x_t, t, cond))


def test_the_sources_size_reads_their_clip():
    torch.manual_seed(0)
    clip = CLIP(SOURCES.clip.network).eval()
    five = FiveTokens().eval()
    cond = text_condition(clip, ["a dress", "a coat"])
    with torch.no_grad():
        assert five.tokens(torch.randn(2, 256), torch.tensor([0, 999]), cond).shape == (2, 5, 256)
        assert five(torch.randn(2, 256), torch.tensor([0, 999]), cond).shape == (2, 256)
    assert sum(weight.numel() for weight in five.parameters()) > 4_000_000


def test_gradients_longer_than_1_are_cut(monkeypatch):
    lengths, step = [], torch.optim.AdamW.step

    def watched(self, *args, **kwargs):
        gradients = [p.grad.norm() for group in self.param_groups for p in group["params"]]
        lengths.append(torch.stack(gradients).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    def loss(model, batch, draws):
        return 1e6 * model(batch).square().mean()

    fit(torch.nn.Linear(3, 1), loss, lambda index: x[index], 8, FitConfig(steps=3, batch_size=4), progress=False)
    assert lengths == pytest.approx([1.0] * 3, abs=1e-4)


def test_a_convolution_makes_several_tokens_of_one_embedding():
    cut = torch.nn.Conv1d(1, 5, kernel_size=16, stride=16)
    embedding = torch.randn(2, 128, generator=torch.Generator().manual_seed(0))
    other = embedding.clone()
    other[:, 16:32] += 1
    before, after = (cut(x[:, None]).transpose(1, 2) for x in (embedding, other))
    assert before.shape == (2, 8, 5)
    changed = (before != after).any(dim=2).any(dim=0)
    assert changed.tolist() == [False, True] + [False] * 6
