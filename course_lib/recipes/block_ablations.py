"""What the parts of a block are worth: one tiny U-Net in several variants, three seeds each, on grey shapes of 16×16.

All variants see the same pictures, steps and noise in the same order, and sit the same exam: test pictures with noise
that was drawn once. Lesson 08 shows the curves and measures one of their points again. Small networks after a few
hundred steps tell what learns faster at this size; they do not settle what is best for large ones.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from course_lib import checkpoints, runtime
from course_lib.data import grey_shapes
from course_lib.diffusion import Schedule
from course_lib.models.baselines import TwoConvResNet
from course_lib.models.ddpm_unet import DDPMUNet, DDPMUNetConfig
from course_lib.nn import timestep_embedding
from course_lib.recipes import _card
from course_lib.recipes._exam import exam
from course_lib.training import DiffusionObjective, FitConfig, Fitted, fit

NAME = "block_ablations"
SEEDS = (0, 1, 2)
BASE = DDPMUNetConfig(16, 1, 16, (1, 2, 2), 1, attention=(), groups=8)
CONFIG = FitConfig(steps=500, batch_size=32, learning_rate=2e-3, warmup=50, cosine=False, ema=0.95, evaluate_every=25)
SCHEDULE = Schedule.linear(1000)
EXAM_PICTURES, FIFTHS = 500, 5
VARIANTS = {  # what differs from BASE; None: no U-Net at all
    "add": {},
    "scale_shift": {"scale_shift": True},
    "pyramid": {"order": "pyramid"},
    "batch_norm": {"norm": "batch"},
    "no_time": {},
    "no_skips": {},
    "two_conv": None,
}


class ToldNothing(nn.Module):
    """A network that is told the same step, whatever the step is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.prediction = network, network.prediction

    def forward(self, x_t: Tensor, t: Tensor, cond: None = None) -> Tensor:
        return self.network(x_t, torch.zeros_like(t), cond)


class NoSkips(DDPMUNet):
    """A U-Net that is no U: on the way up it gets zeros in place of what was put aside on the way down."""

    def forward(self, x_t: Tensor, t: Tensor, cond: None = None) -> Tensor:
        embedding = self.time(timestep_embedding(t, self.config.width, self.config.embedding).to(x_t.dtype))
        h = self.conv_in(x_t)
        put_aside = [h.shape[1]]
        for layers in self.down:
            h = layers(h, embedding)
            put_aside.append(h.shape[1])
        h = self.middle(h, embedding)
        for layers in self.up:
            h = layers(F.pad(h, (0, 0, 0, 0, 0, put_aside.pop())), embedding)
        return self.conv_out(F.silu(self.norm_out(h)))


def network(variant: str, seed: int) -> nn.Module:
    """The variant with the initial weights of this seed."""
    changes = VARIANTS[variant]
    kind = NoSkips if variant == "no_skips" else DDPMUNet
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = TwoConvResNet(width=BASE.width) if changes is None else kind(BASE.with_(**changes))
    return ToldNothing(found) if variant == "no_time" else found


def pictures(split: str) -> Float[Tensor, "n 1 16 16"]:
    """Grey shapes of one split, halved: each pixel the mean of four."""
    found = grey_shapes(split)
    return F.avg_pool2d(found.images(torch.arange(len(found))), 2)


def run(
    variant: str,
    seed: int,
    data: tuple[Tensor, Tensor],
    *,
    steps: int = CONFIG.steps,
    folder: Path | None = None,
    progress: bool = True,
) -> Fitted:
    """Train one variant on (training, test) pictures; `scores` of the result: steps done -> mean loss of the exam.

    The first steps of a long run are those of a short one: nothing in `CONFIG` looks ahead.
    """
    train_set, test_set = data
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small are not worth sharing out, and one thread is the same everywhere
    try:
        return fit(
            network(variant, seed),
            DiffusionObjective(SCHEDULE),
            lambda index: train_set[index],
            len(train_set),
            replace(CONFIG, steps=steps, seed=seed),
            folder=folder,
            evaluate=lambda model: exam(model, test_set[:EXAM_PICTURES], SCHEDULE).mean().item(),
            progress=progress,
        )
    finally:
        torch.set_num_threads(threads)


def train(folder: str | None = None) -> None:
    """Train all variants with all seeds (resumable, states in `folder`) and store the checkpoint `block_ablations`."""
    root = Path(folder) if folder else runtime.state_root() / "runs" / NAME
    data = pictures("train"), pictures("test")
    points = list(range(CONFIG.evaluate_every, CONFIG.steps + 1, CONFIG.evaluate_every))
    loss = torch.zeros(len(VARIANTS), len(SEEDS), len(points), dtype=torch.float64)
    by_time = torch.zeros(len(VARIANTS), len(SEEDS), FIFTHS, dtype=torch.float64)
    seconds = 0.0
    for i, variant in enumerate(VARIANTS):
        for k, seed in enumerate(SEEDS):
            found = run(variant, seed, data, folder=root / f"{variant}-{seed}")
            loss[i, k] = torch.tensor([found.scores[step] for step in points])
            by_time[i, k] = exam(found.best, data[1][:EXAM_PICTURES], SCHEDULE).reshape(FIFTHS, -1).mean(dim=1)
            seconds += found.seconds
            print(f"{variant}, seed {seed}: {loss[i, k, -1]:.4f}", flush=True)
    final = loss[:, :, -1].mean(dim=1)
    path = checkpoints.save(
        NAME,
        {"steps": torch.tensor(points), "loss": loss, "by_time": by_time},
        _card.made(
            NAME,
            config={
                "variants": list(VARIANTS),
                "seeds": list(SEEDS),
                "network": vars(BASE),
                "training": vars(CONFIG),
            },
            seed=SEEDS[0],
            data=f"shapes, grey, 16x16; measured on {EXAM_PICTURES} pictures of its test set with noise drawn once",
            seconds=seconds,
            metrics={
                f"loss of the exam, {name}": {"value": round(value, 4), "floor": 1.0}
                for name, value in zip(VARIANTS, final.tolist(), strict=True)
            },
        ),
        dtype=None,
    )
    print(f"written: {path}")
