"""The short trainings of lesson 09: fair, repeatable, and what the shipped curves say."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from course_lib import checkpoints, recipes
from course_lib.data import grey_shapes
from course_lib.models.baselines import MyUNet
from course_lib.models.ddpm_unet import DDPMUNet
from course_lib.pixels import from_uint8
from course_lib.recipes import short_runs
from course_lib.recipes.block_ablations import ToldNothing
from course_lib.recipes.short_runs import CONFIG, NETWORK, SCHEDULE, SWEEP, VARIANTS, Objective, draw, network, run
from course_lib.training import DiffusionObjective, Draws, FitConfig, fit, improvements, state


@pytest.fixture(scope="module")
def data():
    train, test = grey_shapes("train", 28), grey_shapes("test", 28)
    return short_runs.pictures(train, slice(0, 400)), short_runs.pictures(test, slice(0, 100))


@pytest.fixture(scope="module")
def shipped():
    return checkpoints.load("short_runs")


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


def times(variant, steps):
    objective = Objective(variant, steps)
    return torch.stack([objective.t(Draws(0, step, 64, slice(0, 64))) for step in range(steps)])


def test_pictures_are_halved(data):
    assert data[0].shape == (400, 1, 14, 14)
    whole = grey_shapes("train", 28).images(slice(0, 1))
    assert torch.allclose(data[0][0, 0, 3, 5], whole[0, 0, 6:8, 10:12].mean())


def test_which_times_each_variant_sees():
    for variant in ("random", "blind"):
        t = times(variant, 40)
        assert t.min() >= 0
        assert t.max() < 500
        assert (t.amax(dim=1) - t.amin(dim=1) > 350).all(), "every batch is spread over all times"
    ascending = times("ascending", 100)
    assert (ascending[1:].amin(dim=1) > ascending[:-1].amax(dim=1)).all(), "one pass, upwards"
    assert ascending.min() < 5
    assert ascending.max() == 499
    sweeps = times("sweeps", 3 * SWEEP)
    assert (sweeps[1:SWEEP].amin(dim=1) > sweeps[: SWEEP - 1].amin(dim=1)).all()
    assert sweeps[SWEEP].max() < sweeps[1].max() + 1, "and again from the start"
    assert sweeps.max() > 490


def test_random_is_the_objective_of_the_course(data):
    draws = [Draws(3, 5, 16, slice(0, 16)) for _ in range(2)]
    model = network("random", 1)
    ours, theirs = (
        Objective("random")(model, data[0][:16], draws[0]),
        DiffusionObjective(SCHEDULE)(model, data[0][:16], draws[1]),
    )
    assert torch.equal(ours, theirs)


def test_the_blind_network_hears_no_time(data):
    x, model = data[0][:2], network("blind")
    assert isinstance(model, ToldNothing)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    assert torch.equal(model(x, torch.tensor([3, 3])), model(x, torch.tensor([400, 7])))
    told = model.network
    assert not torch.equal(told(x, torch.tensor([3, 3])), told(x, torch.tensor([400, 7])))


def test_the_same_seed_gives_the_same_run_and_a_lower_loss(data):
    one, two = (run("random", 0, data, steps=25, progress=False) for _ in range(2))
    assert torch.equal(one.losses, two.losses)
    assert one.scores == two.scores
    assert one.losses[0] == pytest.approx(1, abs=0.1)
    assert one.losses[-1] < 0.5
    samples = draw(one.best, 4)
    assert samples.shape == (4, 1, 14, 14)
    assert samples.abs().max() <= 1
    assert torch.equal(samples, draw(two.best, 4))


def test_the_curves_fit_the_card(shipped):
    curves, card = shipped
    assert card["config"]["variants"] == list(VARIANTS)
    assert card["config"]["training"]["steps"] == CONFIG.steps == curves["steps"][-1]
    assert recipes.load(card["recipe"]) is short_runs
    for variant in VARIANTS:
        scores, fifths = curves[f"scores.{variant}"], curves[f"fifths.{variant}"]
        assert scores.shape == (5 if variant == "random" else 3, len(curves["steps"]))
        assert torch.allclose(fifths.mean(dim=1), scores[:, -1], atol=1e-3)
        stated = card["metrics"][f"loss of the exam, {variant}"]["value"]
        assert stated == pytest.approx(scores[:, -1].mean().item(), abs=1e-4)


def test_training_ends_low(shipped):
    """F05: below 0.1, from 1; and five seeds lie close together."""
    curves, _ = shipped
    assert curves["losses.random"][:, 0].sub(1).abs().max() < 0.05
    assert curves["scores.random"][:, -1].max() < 0.1
    assert curves["scores.random"][:, -1].std() < 0.02 * curves["scores.random"][:, -1].mean()


def test_images_need_the_time(shipped):
    """E17: blind, every seed is worse than every seed that is told, and the samples are too bright."""
    curves, card = shipped
    mean, _ = card["config"]["data"]
    assert curves["scores.blind"][:, -1].min() > curves["scores.random"][:, -1].max()
    told, blind = (curves[f"samples.{name}"][:, 0] for name in ("random", "blind"))
    assert (told - mean).abs().max() < (blind - mean).abs().min()
    assert blind.mean() - mean > 2 * (told.mean() - mean)


def test_images_need_random_times(shipped):
    """E18: sweeps are worse in every fifth, one pass in all but the one that it saw last."""
    curves, _ = shipped
    random = curves["fifths.random"].mean(dim=0)
    assert (curves["fifths.sweeps"].mean(dim=0) > random).all()
    assert (curves["fifths.ascending"].mean(dim=0)[:4] > random[:4]).all()
    assert curves["scores.ascending"][:, -1].min() > 3 * curves["scores.random"][:, -1].max()
    spread = from_uint8(curves["sheet.random"]).std(), from_uint8(curves["sheet.ascending"]).std()
    assert spread[1] < 0.8 * spread[0]


def test_weights_do_not_grow_with_the_number_of_steps():
    """E19 on images: nothing in the network depends on T; MyUNet's table does, but it is not learned."""
    assert "T" not in DDPMUNet.__init__.__code__.co_varnames
    learned = [sum(p.numel() for p in MyUNet(T).parameters() if p.requires_grad) for T in (500, 1000)]
    assert learned[0] == learned[1] == 506_852


def test_work_grows_with_the_pixels():
    """E20 on images: four times the pixels, four times the work and a little more, for attention."""

    def work(pixels):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            DDPMUNet(NETWORK)(torch.zeros(1, 1, pixels, pixels), torch.tensor([0]))
        return counter.get_total_flops()

    assert 4 <= work(28) / work(14) < 4.3
    assert work(56) / work(28) > work(28) / work(14)


def test_the_best_is_kept_and_comes_back(data, tmp_path):
    """F06: the file is written at improvements only, and its weights get the score that stands in it."""
    config = FitConfig(
        steps=16, batch_size=16, learning_rate=0.02, warmup=0, cosine=False, ema=None, evaluate_every=2, clip_norm=None
    )
    written = []

    def score(model):
        value = short_runs.exam(model, data[1], SCHEDULE).mean().item()
        written.append(state.read(tmp_path / "best.safetensors")[1]["step"] if written else None)
        return value

    found = fit(
        network(),
        DiffusionObjective(SCHEDULE),
        lambda i: data[0][i],
        400,
        config,
        folder=tmp_path,
        evaluate=score,
        progress=False,
    )
    kept = improvements(list(found.scores.values()))
    assert 0 < sum(kept) < len(kept), "a bumpy way, or nothing is tested"
    last = None
    for step, better, before in zip(found.scores, kept, written, strict=True):
        assert before == last
        last = step if better else last
    weights, facts = state.read(tmp_path / "best.safetensors")
    again = network().eval()
    again.load_state_dict(weights)
    assert facts["step"] == last
    assert short_runs.exam(again, data[1], SCHEDULE).mean().item() == pytest.approx(facts["score"], rel=1e-5)


def test_a_score_that_is_no_number_is_never_kept(data, tmp_path):
    """The first evaluation fails; what comes after it is better than nothing."""
    scores = iter([math.nan, 0.5, 0.6])
    config = FitConfig(steps=3, batch_size=16, warmup=0, ema=None, evaluate_every=1)
    fit(
        network(), DiffusionObjective(SCHEDULE), lambda i: data[0][i], 400, config, folder=tmp_path,
        evaluate=lambda model: next(scores), progress=False,
    )  # fmt: skip
    assert state.read(tmp_path / "best.safetensors")[1] == {"step": 2, "score": 0.5}
