"""Steps against quality: the shipped Fashion-MNIST model, sampled with few steps and with many.

For each sampler and number of steps, as many pictures as the yardstick needs, and what it says; and the same few noises
turned into pictures by DDIM with 1 to 1000 steps. Lesson 10 shows both and draws one row again.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib import checkpoints, runtime
from course_lib.data import fashion_mnist
from course_lib.diffusion import Schedule, ddim, sample
from course_lib.evaluation import report
from course_lib.pixels import to_uint8
from course_lib.recipes import _card, ddpm_fashion

NAME = "sampling_steps"
STEPS = {"DDPM": (20, 50, 100), "DDIM": (5, 10, 20, 50), "DPM-Solver++": (5, 10, 20)}
STRIP, STRIP_PICTURES = (1, 2, 5, 10, 20, 50, 1000), 8
SEED = 0


@torch.no_grad()
def from_same_noise(model: nn.Module, steps: int, n: int = STRIP_PICTURES) -> Float[Tensor, "n 1 32 32"]:
    """n pictures by DDIM in `steps` steps, always from the same n noises (drawn on the CPU), clipped to [-1, 1]."""
    device = next(model.parameters()).device
    start = torch.randn(n, 1, 32, 32, generator=runtime.generator(SEED)).to(device, memory_format=torch.channels_last)
    schedule = Schedule.linear(ddpm_fashion.T)
    with runtime.autocast(device):
        return sample(model, schedule, start.shape, steps, sampler=ddim, x=start, clip=(-1, 1)).float().cpu()


def train(folder: Path | str | None = None) -> None:
    """Measure it all (resumable, pictures kept in `folder`) and store the checkpoint `sampling_steps` with its card."""
    began = time.monotonic()
    train_set, test_set = fashion_mnist("train"), fashion_mnist("test")
    card, model = checkpoints.verify(ddpm_fashion.NAME), ddpm_fashion.load()
    # Pictures of other weights must not pass for those of these: each has a folder of its own.
    folder = Path(folder or runtime.state_root() / "runs" / NAME) / card["sha256"][:12]
    n = ddpm_fashion.SAMPLES["cuda" if runtime.device().type == "cuda" else "cpu"]
    tensors: dict[str, Tensor] = {}
    for sampler, counts in STEPS.items():
        found = []
        for steps in counts:
            images = ddpm_fashion.draw(model, n, steps, SEED, folder=folder, sampler=sampler)
            found.append(report(images, train_set, test_set, SEED))
            print(f"{sampler}-{steps}: {found[-1]}")
        tensors[f"{sampler}.steps"] = torch.tensor(counts)
        for what in ("frechet", "confident"):
            tensors[f"{sampler}.{what}"] = torch.tensor([getattr(one, what) for one in found], dtype=torch.float64)
    floor = found[-1].floor
    strip = torch.stack([from_same_noise(model, steps) for steps in STRIP])
    path = checkpoints.save(
        NAME,
        tensors | {"strip.steps": torch.tensor(STRIP), "strip.pictures": to_uint8(strip)},
        {
            "recipe": NAME,
            "config": {
                "n": n,
                "floor": floor,
                "network": card["sha256"],
                "steps": {k: list(v) for k, v in STEPS.items()},
            },
            "seed": SEED,
            "data": "Fashion-MNIST, padded to 32x32, its test images",
            "commit": _card.commit(),
            "hardware": _card.hardware(),
            "minutes": round((time.monotonic() - began) / 60, 1),
            "metrics": {
                f"Fréchet distance, {sampler}-{steps}, n={n}": {"value": round(value, 4), "floor": round(floor, 4)}
                for sampler, counts in STEPS.items()
                for steps, value in zip(counts, tensors[f"{sampler}.frechet"].tolist(), strict=True)
            },
        },
        dtype=None,
    )
    print(f"written: {path}")
