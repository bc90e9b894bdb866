"""The exam of the ControlNets: unseen scenes, drawn by prompt and control, by control alone, and by prompt alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from course_lib.data import shapes
from course_lib.evaluation.control import edge_f1, edge_recall, placed_as_asked
from course_lib.evaluation.faithfulness import faithfulness, unseen_prompts, wilson
from course_lib.models.conditions import text_condition
from course_lib.models.controlnet import Control, ControlNet
from course_lib.recipes import clip_shapes, text_shapes
from course_lib.recipes._control import control_images, draw

N, SEED = 500, 10**6
SCALE = 3
OBEYED = 0.9  # share of the asked edges that must be there


def _share(hits: Tensor) -> dict[str, Any]:
    right, n = int(hits.sum()), len(hits)
    return {"value": round(right / n, 4), "interval": [round(end, 4) for end in wilson(right, n)], "n": n}


def _mean(values: Tensor, chance: Tensor) -> dict[str, Any]:
    error = values.std().item() / len(values) ** 0.5
    return {
        "value": round(values.mean().item(), 4), "floor": round(chance.mean().item(), 4),
        "standard error": round(error, 4), "n": len(values),
    }  # fmt: skip


def obeyed(kind: str, drawn: Tensor, scenes: shapes.Scenes) -> dict[str, Any]:
    """How far pictures obey the control images of scenes; the floor is how far they obey those of other scenes."""
    if kind == "keypoints":
        reading = shapes.read(drawn)
        others = shapes.render([*scenes.specs[1:], scenes.specs[0]], seed=SEED)
        chance = placed_as_asked(reading, others).float().mean().item()
        return _share(placed_as_asked(reading, scenes)) | {"floor": round(chance, 4)}
    edges = shapes.edge_map(drawn)
    return _mean(edge_f1(edges, scenes.edges), edge_f1(edges, scenes.edges.roll(1, 0)))


def drawn(scenes: shapes.Scenes, controls: list[Control], told: bool = True) -> Tensor:
    """Pictures for the scenes' prompts, or for empty ones, under these controls."""
    clip, base = clip_shapes.load(), text_shapes.load()
    text = text_condition(clip, [shapes.caption(spec) for spec in scenes.specs])
    text = text if told else text.null()
    return draw(base, text_shapes.schedule(), text, controls, scale=SCALE if told else 1)


def by_prompt(kind: str, net: ControlNet, n: int = N) -> dict[str, dict[str, Any]]:
    """How far scenes are obeyed with the right prompt, and with an empty one."""
    scenes = shapes.render(unseen_prompts(n, SEED), seed=SEED)
    control = Control(net, control_images(kind, scenes).to(next(net.parameters()).device))
    return {
        f"edge F1, {name} prompt (n = {n})": obeyed(kind, drawn(scenes, [control], told), scenes)
        for name, told in (("right", True), ("empty", False))
    }


@torch.no_grad()
def measure(kind: str, net: ControlNet, n: int = N) -> dict[str, Any]:
    """The card's metrics: obedience with the right prompt, an empty one, and without control; the words beside it.

    For keypoints the share of pictures whose objects are where they should be; for other kinds edge F1.
    """
    what = "objects where the keypoints are" if kind == "keypoints" else "edge F1"
    metrics: dict[str, Any] = {}

    def note(name: str, entry: dict[str, Any]) -> None:
        metrics[name] = {"floor": None} | entry
        print(f"{name}: {metrics[name]}", flush=True)

    scenes = shapes.render(unseen_prompts(n, SEED), seed=SEED)
    control = Control(net, control_images(kind, scenes).to(next(net.parameters()).device))
    steered, alone = drawn(scenes, [control]), drawn(scenes, [])
    note(f"{what}, right prompt (n = {n})", obeyed(kind, steered, scenes))
    note(f"{what}, empty prompt (n = {n})", obeyed(kind, drawn(scenes, [control], told=False), scenes))
    note(f"{what}, right prompt, no control (n = {n})", obeyed(kind, alone, scenes))
    again = shapes.render(scenes.specs, seed=SEED + 1).images
    note(f"{what}, real scenes of the right prompts (n = {n})", obeyed(kind, again, scenes))
    note(f"{what}, empty prompt, no control (n = {n})", obeyed(kind, drawn(scenes, [], told=False), scenes))
    for name, pictures in (("with control", steered), ("without control", alone)):
        found = faithfulness(pictures, scenes.specs)
        note(f"all words right, {name} (n = {n})", found.entry())
        note(f"color words right, {name} (n = {n})", {"value": round(found.words["color"], 4), "n": n})
    return metrics


@torch.no_grad()
def measure_both(edges: ControlNet, keypoints: ControlNet, n: int = 300, strength: float = 1.0) -> dict[str, Any]:
    """Two controls at once: the edges of the first object, the keypoints of the second, and a prompt about both.

    Obeyed: nine tenths of the asked edges are there; the second object is where its keypoints are.
    """
    clip, base = clip_shapes.load(), text_shapes.load()
    scenes = shapes.render(unseen_prompts(n, SEED, kind="two"), seed=SEED)
    text = text_condition(clip, [shapes.caption(spec) for spec in scenes.specs])
    first = torch.tensor([True, False]).expand(n, 2)
    asked = control_images("edges", scenes, first)
    controls = [
        Control(edges, asked.to(text.embedding.device), strength),
        Control(keypoints, control_images("keypoints", scenes, ~first).to(text.embedding.device), strength),
    ]
    metrics = {}
    ways = {"both": controls, "edges only": controls[:1], "keypoints only": controls[1:], "none": []}
    for name, chosen in ways.items():
        drawn = draw(base, text_shapes.schedule(), text, chosen, scale=SCALE)
        there = edge_recall(shapes.edge_map(drawn), asked) >= OBEYED
        placed = placed_as_asked(shapes.read(drawn), scenes, ~first)
        for what, hits in (("both obeyed", there & placed), ("edges", there), ("keypoints", placed)):
            metrics[f"two controls, given {name}: {what} (n = {n})"] = {"floor": None} | _share(hits)
        metrics[f"two controls, given {name}: all words right (n = {n})"] = faithfulness(drawn, scenes.specs).entry()
        print(name, {k: v["value"] for k, v in metrics.items() if f"given {name}:" in k}, flush=True)
    return metrics
