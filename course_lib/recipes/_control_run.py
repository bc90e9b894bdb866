"""Training a ControlNet on the shipped text-to-image model, while watching when it begins to obey."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib import checkpoints, runtime
from course_lib.data import shapes
from course_lib.data.shapes_control import CONTROL_CHANNELS
from course_lib.evaluation import feature_distance
from course_lib.evaluation.control import edge_f1, placed_as_asked
from course_lib.evaluation.faithfulness import unseen_prompts
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.models.clip import CLIP
from course_lib.models.conditions import text_condition
from course_lib.models.controlnet import Control, ControlNet, ControlNetConfig
from course_lib.recipes import _card, _control_exam, clip_shapes, text_shapes
from course_lib.recipes._control import DATA, NO_TEXT, SCENES, ControlledScenes, ControlObjective, control_images, draw
from course_lib.recipes._weights import fingerprint, load_into
from course_lib.training import FitConfig, Fitted, fit, state

WATCHED = 48  # unseen scenes that are drawn to see how far training is
WATCHED_STEPS = 10
LARGEST = 31  # six bits for a weight: the measured networks are the rounded ones
CURVE = "curve."  # what the names of the curve's tensors begin with, in the checkpoint


@dataclass(frozen=True)
class Plan:
    """One ControlNet: the kind of its control images, its encoder of them, and how it is trained."""

    kind: str
    network: ControlNetConfig
    fit: FitConfig
    no_text: float = NO_TEXT


def plan_for(kind: str) -> Plan:
    """How the course trains the ControlNet for control images of this kind."""
    training = FitConfig(
        steps=1_200, batch_size=64, learning_rate=7e-4, warmup=50, ema=0.99, evaluate_every=20, save_every=120.0
    )
    return Plan(kind, ControlNetConfig(channels=CONTROL_CHANNELS[kind], widths=(16, 32)), training)


def new(plan: Plan) -> ControlNet:
    """An untrained ControlNet on the shipped text-to-image model."""
    base = text_shapes.new()
    base.load_state_dict(text_shapes.load("cpu").state_dict())
    with torch.random.fork_rng():
        torch.manual_seed(plan.fit.seed)
        return ControlNet(base, plan.network).to(memory_format=torch.channels_last)


def load(name: str, plan: Plan, device: torch.device | str | None = None) -> ControlNet:
    """The shipped ControlNet, in eval mode. Raises CheckpointError where it is missing or damaged."""
    return load_into(ControlNet(text_shapes.new(), plan.network), name, device, without=CURVE)


def curve(name: str) -> dict[str, Float[Tensor, " points"]]:
    """What was measured on the way: `steps`, and for each of them `score`, `frechet`, `frechet_blank`, `zero_norm`."""
    tensors, _ = checkpoints.load(name)
    return {key.removeprefix(CURVE): value.float() for key, value in tensors.items() if key.startswith(CURVE)}


@dataclass(frozen=True, eq=False)
class Watch:
    """How well unseen scenes are drawn as asked, with their prompts: called while training, which keeps snapshots."""

    plan: Plan
    base: nn.Module
    clip: CLIP
    folder: Path | None = None

    def __call__(self, net: ControlNet) -> float:
        """Minus the share that obeys (edge F1, or objects where the keypoints are): lower is better."""
        scenes = shapes.render(unseen_prompts(WATCHED, 10**7), seed=10**7)
        text = text_condition(self.clip, [shapes.caption(spec) for spec in scenes.specs])
        control = Control(net, control_images(self.plan.kind, scenes).to(text.embedding.device))
        drawn = draw(self.base, text_shapes.schedule(), text, [control], scale=1, steps=WATCHED_STEPS, progress=False)
        if self.folder is not None:
            number = len(list(self.folder.glob("snapshot_*.safetensors")))
            state.write(self.folder / f"snapshot_{number:03}.safetensors", net.state_dict(), {})
        if self.plan.kind == "keypoints":
            return -placed_as_asked(shapes.read(drawn), scenes).float().mean().item()
        return -edge_f1(shapes.edge_map(drawn), scenes.edges).mean().item()


def run(plan: Plan, folder: Path | None, scenes: int) -> Fitted:
    """Train it."""
    clip, base = clip_shapes.load(), text_shapes.load()
    data = ControlledScenes(plan.kind, clip, scenes, plan.fit.seed)
    objective = ControlObjective(base, text_shapes.schedule(), clip, plan.no_text)
    watch = Watch(plan, base, clip, folder)
    return fit(new(plan), objective, data, len(data), plan.fit, folder=folder, evaluate=watch)


def measured_curve(plan: Plan, found: Fitted, folder: Path, n: int = 500) -> dict[str, Tensor]:
    """Along the way of training: how many scenes obey, how good the pictures are, with control and with a blank map.

    Fréchet distances are those of CLIP embeddings of n pictures to n real scenes, for a few of the steps, NaN for the
    others; the first of all is the base alone. `zero_norm` is the length of all weights of the zero convolutions.
    """
    clip, base, steps = clip_shapes.load(), text_shapes.load(), sorted(found.scores)
    prompts, seed = unseen_prompts(n, 10**6), 10**6
    scenes = shapes.render(prompts, seed=seed)
    real = embed_images(clip, shapes.render(unseen_prompts(n, 2 * 10**6), seed=2 * seed).images)
    text = text_condition(clip, [shapes.caption(spec) for spec in prompts])
    maps = control_images(plan.kind, scenes).to(text.embedding.device)

    def distance(controls: list[Control]) -> float:
        drawn = draw(base, text_shapes.schedule(), text, controls, scale=1, steps=WATCHED_STEPS)
        return feature_distance(embed_images(clip, drawn.clamp(-1, 1)), real)

    net = new(plan).to(text.embedding.device).eval()
    watch = Watch(plan, base, clip)
    rows = [(0, -watch(net), *[distance([])] * 2, 0.0)]
    chosen = {step for step in steps if step <= 120} | {steps[len(steps) // 3], steps[-1]}
    for number, step in enumerate(steps):
        weights, _ = state.read(folder / f"snapshot_{number:03}.safetensors")
        net.load_state_dict(weights)
        norm = sum(p.square().sum() for conv in net.zero_convs for p in conv.parameters()).sqrt().item()
        both = (distance([Control(net, m)]) for m in (maps, torch.zeros_like(maps)))
        rows.append((step, -found.scores[step], *(both if step in chosen else (math.nan, math.nan)), norm))
        print(rows[-1], flush=True)
    names = ("steps", "score", "frechet", "frechet_blank", "zero_norm")
    return {f"{CURVE}{name}": torch.tensor(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def train(
    name: str,
    plan: Plan,
    folder: Path | str | None = None,
    scenes: int = SCENES,
    also: Callable[[ControlNet], dict[str, Any]] | None = None,
) -> None:
    """Train it (resumable, state in `folder`), measure it, `also` otherwise, and store it with its card."""
    folder = Path(folder or runtime.state_root() / "runs" / name)
    found = run(plan, folder, scenes)
    along = measured_curve(plan, found, folder)
    settings = {"network": dataclasses.asdict(plan.network), "kind": plan.kind, "base": text_shapes.NAME}

    def store(metrics: dict[str, Any]) -> None:
        card = _card.of_run(name, plan.fit, found, DATA, metrics, clip=fingerprint(clip_shapes.load()), **settings)
        checkpoints.save(name, found.best.state_dict() | along, card, packed=True, largest=LARGEST)

    store({})
    shipped = load(name, plan)
    metrics = _control_exam.measure(plan.kind, shipped) | (also(shipped) if also else {})
    for what, entry in metrics.items():
        print(f"{what}: {entry['value']}")
    store(metrics)
