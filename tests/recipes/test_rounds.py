"""Training in rounds: what is taken over, what a stopped run goes on from, and what the card says of it."""

import dataclasses

import pytest
import torch
from torch import nn

from course_lib import checkpoints
from course_lib.recipes._weights import Round, fingerprint, fit_rounds, load_into, ship, take_over
from course_lib.training import FitConfig


@dataclasses.dataclass(frozen=True)
class Width:
    hidden: int


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first, self.last = nn.Linear(3, width.hidden), nn.Linear(width.hidden, 3)

    def forward(self, x):
        return self.last(self.first(x).relu())


def new(seed, width):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(width)


class Data:
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return 64

    def __call__(self, index):
        return self.x[index]


def loss(model, x, draws):
    return (model(x) - 2 * x).square().mean()


FIT = FitConfig(steps=5, batch_size=8, warmup=1, ema=0.5)


def test_take_over_copies_what_has_the_name_and_the_shape():
    small, large = new(0, Width(4)), new(1, Width(6))
    before = {name: value.clone() for name, value in large.state_dict().items()}
    take_over(large, small.state_dict())
    after = large.state_dict()
    assert torch.equal(after["last.bias"], small.last.bias)
    assert all(torch.equal(after[name], before[name]) for name in before if name != "last.bias")


def test_a_round_begins_with_the_average_of_the_one_before(tmp_path):
    first = fit_rounds([Round(Width(4), FIT)], new, loss, Data(), tmp_path / "one")
    slow = dataclasses.replace(FIT, steps=1, learning_rate=1e-12)
    both = fit_rounds([Round(Width(4), FIT), Round(Width(4), slow)], new, loss, Data(), tmp_path / "two")
    for name, value in first.best.state_dict().items():
        torch.testing.assert_close(both.best.state_dict()[name], value, rtol=0, atol=1e-6)


def test_a_finished_round_is_not_trained_again(tmp_path):
    rounds = [Round(Width(4), FIT)]
    found = fit_rounds(rounds, new, loss, Data(), tmp_path)

    def never(model, x, draws):
        raise AssertionError("asked to train a round that was finished")

    again = fit_rounds(rounds, new, never, Data(), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(found.best.parameters(), again.best.parameters(), strict=True))


def test_what_is_shipped_says_how_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr("course_lib.runtime.assets_root", lambda: tmp_path)
    rounds = [Round(Width(4), FIT), Round(Width(4), FIT)]
    found = fit_rounds(rounds, new, loss, Data(), None)
    entry = {"value": 0.5, "floor": 0.1}
    (tmp_path / "checkpoints").mkdir()
    ship("a_net", found, rounds, clip=None, data="three numbers", measure=lambda: {"share": entry})
    _, card = checkpoints.load("a_net")
    assert card["metrics"] == {"share": entry}
    assert [part["fit"]["steps"] for part in card["config"]["rounds"]] == [5, 5]
    assert card["config"]["network"] == {"hidden": 4}
    back = load_into(new(9, Width(4)), "a_net", "cpu")
    for name, value in found.best.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, rtol=1e-2, atol=1e-3)
    assert not back.training
    assert not any(p.requires_grad for p in back.parameters())
    with pytest.raises(checkpoints.CheckpointError, match="course train a_net"):
        load_into(new(9, Width(5)), "a_net", "cpu")


def test_a_fingerprint_tells_clips_apart():
    from course_lib.models.clip import CLIP, CLIPConfig

    small = CLIPConfig(dim=16, image_width=16, text_width=16, image_layers=1, text_layers=1)
    clips = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        clips.append(CLIP(small))
    assert fingerprint(clips[0]) == fingerprint(clips[0].half().float()) != fingerprint(clips[1])
