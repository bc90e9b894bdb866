"""What a minute of training gives, and what goes wrong: tiny U-Nets on digits of 14×14, with several seeds each.

Lesson 09 runs `random` with seed 0 live, and draws the shipped curves of five seeds behind it. The other variants get
the same pictures and noise but choose the step t otherwise, or never tell the network.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from course_lib import checkpoints, runtime
from course_lib.data.grey_sets import ImageSet, train_and_test
from course_lib.diffusion import Schedule, ddpm, diffusion_loss, sample
from course_lib.models.ddpm_unet import DDPMUNet, DDPMUNetConfig
from course_lib.pixels import to_uint8
from course_lib.recipes import _card
from course_lib.recipes._exam import exam
from course_lib.recipes.block_ablations import ToldNothing
from course_lib.training import Draws, FitConfig, Fitted, fit

NAME = "short_runs"
SEEDS = (0, 1, 2, 3, 4)  # of `random`; the others get the first three
NETWORK = DDPMUNetConfig(14, 1, 16, (1, 2), 1, attention=(), groups=8)
CONFIG = FitConfig(steps=150, batch_size=64, learning_rate=3e-3, warmup=20, ema=None, evaluate_every=25)
SCHEDULE = Schedule.linear(500)
EXAM_PICTURES, FIFTHS = 500, 5
SWEEP = 15  # steps of training that one sweep of `sweeps` takes
SAMPLES, SAMPLER_STEPS = 128, 100
VARIANTS = ("random", "blind", "ascending", "sweeps")


def pictures(split: ImageSet, index: slice | Tensor | None = None) -> Float[Tensor, "n 1 14 14"]:
    """Pictures of 28×28, halved: each pixel the mean of four."""
    return F.avg_pool2d(split.images(index), 2)


def network(variant: str = "random", seed: int = 0) -> nn.Module:
    """The tiny U-Net with the initial weights of this seed; `blind` is always told the same step."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = DDPMUNet(NETWORK)
    return ToldNothing(found) if variant == "blind" else found


class Objective:
    """The simple loss, for pictures noised to steps that are random, or ascend once, or again and again."""

    def __init__(self, variant: str, steps: int = CONFIG.steps) -> None:
        self.variant, self.steps = variant, steps

    def t(self, draws: Draws) -> Tensor:
        """The step of each picture of this batch."""
        random = draws.integers(SCHEDULE.T)
        length = {"ascending": self.steps, "sweeps": SWEEP}.get(self.variant)
        if length is None:
            return random
        first = draws.step % length * SCHEDULE.T // length  # the whole batch lies in one narrow stretch of time
        return first + random * (SCHEDULE.T // length) // SCHEDULE.T

    def __call__(self, model: nn.Module, x_start: Tensor, draws: Draws) -> Tensor:
        t, noise = self.t(draws), draws.normal(*x_start.shape[1:])
        return diffusion_loss(getattr(model, "module", model), SCHEDULE, x_start, t, noise).mean()


def run(
    variant: str,
    seed: int,
    data: tuple[Tensor, Tensor],
    *,
    steps: int = CONFIG.steps,
    progress: bool = True,
) -> Fitted:
    """Train one variant on (training, test) pictures; `scores` of the result: steps done -> mean loss of the exam."""
    train_set, test = data
    return fit(
        network(variant, seed),
        Objective(variant, steps),
        lambda index: train_set[index],
        len(train_set),
        replace(CONFIG, steps=steps, seed=seed),
        evaluate=lambda model: exam(model, test[:EXAM_PICTURES], SCHEDULE).mean().item(),
        progress=progress,
    )


@torch.no_grad()
def draw(model: nn.Module, n: int = SAMPLES, seed: int = 0) -> Float[Tensor, "n 1 14 14"]:
    """n pictures with DDPM in 100 steps, the guess clipped to [-1, 1]."""
    device = next(model.parameters()).device
    start = torch.randn(n, 1, 14, 14, generator=runtime.generator(seed)).to(device)
    generator = torch.Generator(device).manual_seed(seed + 1)
    how = {"sampler": ddpm, "x": start, "clip": (-1, 1), "generator": generator, "progress": False}
    return sample(model, SCHEDULE, start.shape, SAMPLER_STEPS, **how).cpu()


def train(folder: str | None = None) -> None:
    """Train all variants with their seeds and store the checkpoint `short_runs`. Not resumable: it takes minutes."""
    train_set, test_set = train_and_test("mnist", 28)
    data = pictures(train_set), pictures(test_set, slice(0, EXAM_PICTURES))
    points = list(range(CONFIG.evaluate_every, CONFIG.steps + 1, CONFIG.evaluate_every))
    tensors, metrics, seconds = {"steps": torch.tensor(points)}, {}, 0.0
    for variant in VARIANTS:
        seeds = SEEDS if variant == "random" else SEEDS[:3]
        scores, losses, fifths, spread = [], [], [], []
        for seed in seeds:
            found = run(variant, seed, data, progress=False)
            samples = draw(found.best)
            scores.append([found.scores[step] for step in points])
            losses.append(found.losses)
            fifths.append(exam(found.best, data[1], SCHEDULE).reshape(FIFTHS, -1).mean(dim=1))
            spread.append([samples.mean().item(), samples.std().item()])
            seconds += found.seconds
            if seed == SEEDS[0]:
                tensors[f"sheet.{variant}"] = to_uint8(samples[:16])
            print(f"{variant}, seed {seed}: {scores[-1][-1]:.4f}, mean and std of samples {spread[-1]}", flush=True)
        tensors |= {
            f"scores.{variant}": torch.tensor(scores),
            f"losses.{variant}": torch.stack(losses),
            f"fifths.{variant}": torch.stack(fifths),
            f"samples.{variant}": torch.tensor(spread),
        }
        metrics[f"loss of the exam, {variant}"] = {
            "value": round(tensors[f"scores.{variant}"][:, -1].mean().item(), 4),
            "floor": 1.0,
        }
    path = checkpoints.save(
        NAME,
        tensors,
        _card.made(
            NAME,
            config={
                "variants": list(VARIANTS),
                "seeds": list(SEEDS),
                "network": vars(NETWORK),
                "training": vars(CONFIG),
                "T": SCHEDULE.T,
                "data": [data[0].mean().item(), data[0].std().item()],
            },
            seed=SEEDS[0],
            data=f"{train_set.name}, 14x14; exam on the first {EXAM_PICTURES} test pictures with noise drawn once",
            seconds=seconds,
            metrics=metrics,
        ),
        dtype=None,
    )
    print(f"written: {path}")
