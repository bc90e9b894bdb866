"""The ablations: fair (all variants see the same), honest (the card fits the curves), and repeatable."""

import pytest
import torch
import torch.nn.functional as F

from course_lib import checkpoints, recipes
from course_lib.diffusion import q_sample
from course_lib.models.ddpm_unet import DDPMUNet
from course_lib.recipes._exam import exam
from course_lib.recipes.block_ablations import (
    BASE,
    CONFIG,
    EXAM_PICTURES,
    FIFTHS,
    SCHEDULE,
    SEEDS,
    VARIANTS,
    NoSkips,
    ToldNothing,
    network,
    pictures,
    run,
)


@pytest.fixture(scope="module")
def data():
    return pictures("train")[:400], pictures("test")


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


def test_pictures_are_halved(data):
    train, test = data
    assert train.shape == (400, 1, 16, 16)
    assert test.shape == (2000, 1, 16, 16)
    assert -1 <= train.min() < train.max() <= 1
    assert not any(torch.equal(picture, other) for picture in test[:50] for other in train[:50])


def test_the_exam_is_the_loss_of_noise_drawn_once(data):
    """Whoever knows the noise has loss 0, whoever says nothing about 1; and it is the same on every call."""

    class Knows(torch.nn.Module):
        prediction = "noise"

        def __init__(self, clean):
            super().__init__()
            self.clean, self.weight, self.seen = clean, torch.nn.Parameter(torch.ones(())), 0
            self.times = []

        def forward(self, x_t, t, cond=None):
            clean = self.clean[self.seen : self.seen + len(t)]
            self.seen += len(t)
            self.times += t.tolist()
            zero = q_sample(SCHEDULE, clean, t, torch.zeros_like(clean))
            one = q_sample(SCHEDULE, torch.zeros_like(clean), t, torch.ones_like(clean))
            return self.weight * (x_t - zero) / one

    knows = Knows(data[1])
    assert exam(knows, data[1][:EXAM_PICTURES], SCHEDULE).max() < 1e-6
    assert knows.times == list(range(0, 1000, 2))
    silent = network("add", 0)  # its last layer starts at 0
    scores = exam(silent, data[1][:EXAM_PICTURES], SCHEDULE)
    assert abs(scores.mean().item() - 1) < 4 * (2 / (500 * 256)) ** 0.5
    assert torch.equal(scores, exam(silent, data[1][:EXAM_PICTURES], SCHEDULE))


def test_variants_differ_in_what_they_are_called_for():
    found = {name: network(name, 0) for name in VARIANTS}
    assert isinstance(found["no_time"], ToldNothing)
    assert isinstance(found["no_skips"], NoSkips)
    x, t = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([10, 900])
    for name, net in found.items():
        for parameter in net.parameters():
            if not parameter.any():
                torch.nn.init.constant_(parameter, 0.05)
        net.eval()
        assert torch.equal(net(x, t), net(x, 0 * t)) == (name == "no_time")
        assert net.prediction == "noise"
    assert {k for k, v in found["add"].state_dict().items() if not torch.equal(v, network("add", 0).state_dict()[k])}
    assert all(
        torch.equal(a, b)
        for a, b in zip(network("add", 1).parameters(), network("no_skips", 1).parameters(), strict=True)
    )


def test_without_skips_the_way_up_gets_zeros():
    """As many channels as in the U-Net itself, and nothing in those of the skips."""
    ours, theirs = NoSkips(BASE), DDPMUNet(BASE)
    caught = []
    for stage in ours.up:
        stage.register_forward_pre_hook(lambda _m, given: caught.append(given[0]))
    ours(torch.randn(1, 1, 16, 16), torch.tensor([5]))
    below = BASE.width * BASE.mults[-1]
    for stage, given in zip(theirs.up, caught, strict=True):
        assert given.shape[1] == stage[0].conv1.in_channels
        assert not given[:, below:].any()
        assert given[:, :below].any()
        below = stage[0].conv2.out_channels


def test_a_short_run_is_the_start_of_a_long_one(data, tmp_path):
    """As the lesson needs it; and a run that was finished is read, not repeated."""
    short = run("add", 0, data, steps=25, progress=False)
    threads = torch.get_num_threads()
    long = run("add", 0, data, steps=50, progress=False, folder=tmp_path)
    assert torch.get_num_threads() == threads
    assert short.scores[25] == pytest.approx(long.scores[25], rel=1e-4)
    assert torch.allclose(short.losses, long.losses[:25], rtol=1e-4)
    again = run("add", 0, data, steps=50, progress=False, folder=tmp_path)
    assert again.scores == long.scores
    assert torch.equal(again.losses, long.losses)
    assert long.scores[50] < long.scores[25] < 1
    assert not torch.allclose(run("add", 1, data, steps=2, progress=False).losses, short.losses[:2])


def test_shipped_curves_and_card():
    tensors, card = checkpoints.load("block_ablations")
    variants, seeds, points = tensors["loss"].shape
    assert card["config"]["variants"] == list(VARIANTS)
    assert (variants, seeds) == (len(VARIANTS), len(SEEDS))
    assert tensors["steps"].tolist() == list(range(CONFIG.evaluate_every, CONFIG.steps + 1, CONFIG.evaluate_every))
    assert points == len(tensors["steps"])
    assert tensors["by_time"].shape == (variants, seeds, FIFTHS)
    assert torch.allclose(tensors["by_time"].mean(dim=2), tensors["loss"][:, :, -1], rtol=1e-4)
    final = dict(zip(VARIANTS, tensors["loss"][:, :, -1], strict=True))
    for name, values in final.items():
        stored = card["metrics"][f"loss of the exam, {name}"]["value"]
        assert stored == pytest.approx(values.mean().item(), abs=1e-4)
    assert final["add"].max() < final["no_time"].min()  # what the lesson concludes
    assert final["no_time"].max() < final["two_conv"].min()
    assert final["no_skips"].mean() > 5 * final["add"].mean()
    assert (final["scale_shift"] < final["add"]).all()
    assert final["scale_shift"].max() > final["add"].min()
    assert "test set" in card["data"]


def test_names():
    assert "block_ablations" in recipes.names()
    assert callable(recipes.load("block_ablations").train)


def test_halving_is_the_mean_of_four(data):
    from course_lib.data import grey_shapes

    full = grey_shapes("test").images(torch.arange(3))
    assert torch.allclose(data[1][:3], F.interpolate(full, scale_factor=0.5, mode="area"))
