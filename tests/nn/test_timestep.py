"""Embeddings of the time: formulas written out, tables, and who is told."""

import math

import pytest
import torch
from torch import nn

from course_lib.nn import (
    SinusoidalTable,
    TimeMLP,
    TimestepBlock,
    TimestepSequential,
    sinusoidal_table,
    timestep_embedding,
    unsqueeze_to,
)

T = torch.arange(1000)


@pytest.mark.parametrize("dim", [4, 7, 32, 100, 129])
@pytest.mark.parametrize(("convention", "less"), [("cos_sin", 0), ("sin_cos", 1)])
def test_entry_by_entry(dim, convention, less):
    rows = timestep_embedding(T, dim, convention)
    half = dim // 2
    for t in (0, 1, 17, 999):
        for i in range(half):
            angle = t * 10_000 ** (-i / (half - less))
            pair = (math.cos(angle), math.sin(angle))
            first, second = pair if convention == "cos_sin" else pair[::-1]
            assert rows[t, i].item() == pytest.approx(first, abs=1e-4)
            assert rows[t, half + i].item() == pytest.approx(second, abs=1e-4)
    assert rows.shape == (1000, dim)
    assert (rows[:, 2 * half :] == 0).all()


@pytest.mark.parametrize("convention", ["cos_sin", "sin_cos"])
def test_unit_circles_and_distinct_rows(convention):
    rows = timestep_embedding(T, 32, convention)
    assert torch.allclose(rows[:, :16] ** 2 + rows[:, 16:] ** 2, torch.ones(1000, 16), atol=1e-5)
    gaps = torch.cdist(rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist")
    gaps.fill_diagonal_(torch.inf)
    assert gaps.min() > 0.1  # of neighbours: mostly the fastest wave, which turns by one radian


def test_fractional_times_lie_between():
    low, middle, high = timestep_embedding(torch.tensor([10.0, 10.5, 11.0]), 64)
    slow = slice(8, 32)  # the slow cosines are monotone here
    assert ((low[slow] - middle[slow]) * (middle[slow] - high[slow]) >= 0).all()


def test_peers_conventions():
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    for convention, flip, shift in (("cos_sin", True, 0), ("sin_cos", False, 1)):
        theirs = embeddings.get_timestep_embedding(T, 128, flip_sin_to_cos=flip, downscale_freq_shift=shift)
        assert torch.allclose(timestep_embedding(T, 128, convention), theirs, atol=1e-4)


@pytest.mark.parametrize("dim", [6, 32, 100])
def test_table_is_the_embedding_in_another_order(dim):
    table = sinusoidal_table(1000, dim)
    rows = timestep_embedding(T, dim)
    assert torch.allclose(table[:, 0::2], rows[:, dim // 2 :], atol=2e-4)  # sines
    assert torch.allclose(table[:, 1::2], rows[:, : dim // 2], atol=2e-4)  # cosines
    slowest = math.asin(table[1, dim - 2].item())
    assert slowest == pytest.approx(10_000 ** (-(dim - 2) / dim), rel=1e-3)


def test_odd_table():
    assert torch.equal(sinusoidal_table(50, 5)[:, 4], torch.sin(torch.arange(50.0).double() * 1e4 ** (-4 / 5)).float())


def test_lookup_is_never_trained_and_travels_with_the_model():
    table = SinusoidalTable(100, 16)
    assert list(table.parameters()) == []
    assert list(table.state_dict()) == ["table"]
    rows = table(torch.tensor([0, 99, 5]))
    assert torch.equal(rows, sinusoidal_table(100, 16)[[0, 99, 5]])
    assert not rows.requires_grad
    with pytest.raises(IndexError):
        table(torch.tensor([100]))


def test_time_mlp_tells_times_apart():
    torch.manual_seed(0)
    told = TimeMLP(32, 128)(timestep_embedding(T, 32))
    assert told.shape == (1000, 128)
    gaps = torch.cdist(told, told)
    gaps.fill_diagonal_(torch.inf)
    assert gaps.min() > 1e-3


def test_sequence_tells_only_those_who_ask():
    class Asks(TimestepBlock):
        def forward(self, x, embedding):
            return x + unsqueeze_to(embedding, x)

    layers = TimestepSequential(nn.Conv2d(3, 4, 1), Asks(), nn.Conv2d(4, 5, 1))
    x, embedding = torch.randn(2, 3, 6, 6), torch.randn(2, 4)
    wanted = layers[2](layers[0](x) + embedding[:, :, None, None])
    assert torch.equal(layers(x, embedding), wanted)
    with pytest.raises(TypeError):
        Asks()(x)


def test_unsqueeze_to_any_rank():
    embedding = torch.randn(2, 4)
    for shape in ((2, 4), (2, 4, 9), (2, 4, 5, 7), (2, 4, 2, 3, 4)):
        features = torch.randn(shape)
        assert (features + unsqueeze_to(embedding, features)).shape == shape
        assert unsqueeze_to(embedding, features).flatten().equal(embedding.flatten())
