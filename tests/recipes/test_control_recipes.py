"""The recipes of the ControlNets: what they are shown, what stays locked, that runs repeat, how the way is measured."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from course_lib import checkpoints
from course_lib.data import shapes
from course_lib.data.shapes_control import CONTROL_CHANNELS
from course_lib.evaluation.faithfulness import trained_scenes
from course_lib.models.controlnet import ControlNetConfig
from course_lib.pixels import from_uint8, to_uint8
from course_lib.recipes import (
    _control,
    _control_exam,
    _control_run,
    clip_shapes,
    controlnet_depth,
    controlnet_edges,
    controlnet_keypoints,
    controlnet_masks,
    text_shapes,
)
from course_lib.recipes._control import BLANK, ONE_ONLY, ControlledScenes, ControlObjective, control_images, some_shown
from course_lib.training import Draws, Fitted

RECIPES = (controlnet_edges, controlnet_keypoints, controlnet_masks, controlnet_depth)


@pytest.fixture(scope="module")
def clip():
    return clip_shapes.load()


def tiny(kind: str) -> _control_run.Plan:
    fit = dataclasses.replace(controlnet_edges.PLAN.fit, steps=3, batch_size=4, warmup=1, evaluate_every=2)
    return _control_run.Plan(kind, ControlNetConfig(channels=CONTROL_CHANNELS[kind], widths=(4, 8)), fit)


def test_which_objects_are_shown():
    present = torch.tensor([[True, True], [True, False]]).repeat(10_000, 1)
    shown = some_shown(present, Draws(0, 0, 20_000, slice(0, 20_000)))
    assert not (shown & ~present).any()
    pairs, alone = shown[::2], shown[1::2]
    blank, one = 1 - shown.any(dim=1).float().mean().item(), (pairs.sum(dim=1) == 1).float().mean().item()
    assert blank == pytest.approx(BLANK, abs=4 * (BLANK * (1 - BLANK) / 20_000) ** 0.5)
    wanted = ONE_ONLY * (1 - BLANK)
    assert one == pytest.approx(wanted, abs=4 * (wanted * (1 - wanted) / 10_000) ** 0.5)
    assert pairs[pairs.sum(dim=1) == 1][:, 0].float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert alone[:, 0].float().mean().item() == pytest.approx(1 - BLANK, abs=0.015)


@pytest.mark.parametrize("kind", list(CONTROL_CHANNELS))
def test_the_data_are_the_scenes_and_their_maps(clip, kind):
    data = ControlledScenes(kind, clip, 30, seed=4)
    pixels, ids, maps, present = data(torch.arange(30))
    scenes = shapes.render(trained_scenes(30, 4), seed=4)
    assert maps.shape == (30, 2, CONTROL_CHANNELS[kind], 32, 32)
    seen = dataclasses.replace(scenes, images=from_uint8(to_uint8(scenes.images)))
    assert torch.equal(maps.amax(dim=1), control_images(kind, seen))
    assert torch.equal(present, scenes.geometry.present)
    assert len(pixels) == len(ids) == len(data) == 30


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.NAME)
def test_every_kind_trains_repeats_and_leaves_the_base_alone(tmp_path, monkeypatch, recipe):
    monkeypatch.setattr(_control_run, "WATCHED", 4)
    monkeypatch.setattr(_control_run, "WATCHED_STEPS", 2)
    plan, before = tiny(recipe.PLAN.kind), text_shapes.load().state_dict()
    assert recipe.PLAN.network.channels == CONTROL_CHANNELS[plan.kind]
    one, again = (_control_run.run(plan, tmp_path / name, 16) for name in ("one", "two"))
    for name, tensor in one.best.state_dict().items():
        assert torch.equal(tensor, again.best.state_dict()[name]), name
    moved = one.model.state_dict()
    assert moved["zero_middle.weight"].abs().max() > 0
    assert len(list((tmp_path / "one").glob("snapshot_*"))) == len(one.scores) == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in text_shapes.load().state_dict().items())


def test_half_of_the_prompts_are_withheld(clip, monkeypatch):
    kept, maps = [], []

    class Recorder(torch.nn.Module):
        prediction = "v"

        def __init__(self, base, controls):
            super().__init__()
            maps.append(controls[0].image)

        def forward(self, x_t, t, cond):
            kept.append(cond.keep)
            return torch.zeros_like(x_t)

    monkeypatch.setattr(_control, "Controlled", Recorder)
    data, net = ControlledScenes("edges", clip, 250, seed=1), _control_run.new(tiny("edges"))
    objective = ControlObjective(text_shapes.load(), text_shapes.schedule(), clip)
    for step in range(16):
        assert objective(net, data(torch.arange(250)), Draws(0, step, 250, slice(0, 250))).isfinite()
    assert torch.cat(kept).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert len(maps) == 16
    assert maps[0].shape == (250, 1, 32, 32)


def test_the_curve_tells_of_every_step(tmp_path, monkeypatch):
    monkeypatch.setattr(_control_run, "WATCHED", 4)
    monkeypatch.setattr(_control_run, "WATCHED_STEPS", 2)
    plan = tiny("edges")
    found = _control_run.run(plan, tmp_path, 16)
    real = shapes.make(140, seed=8).images
    drawn = []

    def pictures(base, schedule, text, controls, **options):
        drawn.append([float(control.image.amax()) for control in controls])
        return real[: len(text)]

    monkeypatch.setattr(_control_run, "draw", pictures)
    along = _control_run.measured_curve(plan, found, tmp_path, n=140)
    assert along["curve.steps"].tolist() == [0, 2, 3]
    assert along["curve.zero_norm"][0] == 0
    assert along["curve.zero_norm"][2] > along["curve.zero_norm"][1] > 0
    assert along["curve.frechet"].isfinite().all()
    assert [1.0] in drawn and [0.0] in drawn and [] in drawn  # noqa: PT018


def test_a_bad_kind_is_named():
    scenes = shapes.make(2, seed=0)
    with pytest.raises(ValueError, match="edges, keypoints, masks, depth"):
        control_images("sketch", scenes)
    assert "controlnet_masks" not in checkpoints.names()


def test_withheld_prompts_are_the_only_difference_of_two_trainings(monkeypatch, tmp_path):
    plans, places = [], []

    def run(plan, folder, scenes):
        plans.append(plan)
        places.append(folder)
        net = torch.nn.Identity()
        net.no_text = plan.no_text
        return Fitted(net, None, torch.zeros(1), {}, 0.0)

    monkeypatch.setattr(_control_run, "run", run)
    monkeypatch.setattr(_control_exam, "by_prompt", lambda kind, net: {"edge F1": {"value": net.no_text}})
    found = controlnet_edges.dropping(tmp_path, steps=7)
    assert found == {
        "edge F1, after 7 steps with half of the prompts withheld": {"value": 0.5},
        "edge F1, after 7 steps with none withheld": {"value": 0.0},
    }
    assert dataclasses.replace(plans[0], no_text=0.0) == plans[1]
    assert plans[0].fit.steps == 7
    assert len(set(places)) == 2


def test_the_card_says_what_withheld_prompts_bring():
    metrics = checkpoints.verify("controlnet_edges")["metrics"]
    with_, without = (
        metrics[f"edge F1, empty prompt (n = 500), after 400 steps with {told}"]
        for told in ("half of the prompts withheld", "none withheld")
    )
    assert with_["value"] - without["value"] > 3 * (with_["standard error"] + without["standard error"])
    assert metrics["edge F1, right prompt (n = 500)"]["value"] >= 0.85
    assert metrics["edge F1, empty prompt (n = 500)"]["value"] >= 0.75
