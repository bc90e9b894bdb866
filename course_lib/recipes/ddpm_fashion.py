"""The course's diffusion model of Fashion-MNIST: a DDPM U-Net, trained as Ho et al. 2020 describe, smaller.

On a GPU it takes minutes, on two CPU cores a smaller network takes hours. Training has rounds, in each of which the
learning rate climbs and falls to 0. The first has the simple loss; any other goes on from the moving average and
weighs the times by min-SNR (Hang et al. 2023, arXiv:2303.09556), so that nearly clean pictures dominate less. What the
samples are worth is measured with the yardstick that was fixed before (`fashion_classifier`), and stands on the card
beside its floor.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_lib import checkpoints, runtime
from course_lib.data import fashion_mnist
from course_lib.diffusion import Schedule, ddim, ddpm, dpm_solver_pp_2m, min_snr_weights, sample
from course_lib.evaluation import Report, report
from course_lib.models.ddpm_unet import DDPMUNet, DDPMUNetConfig
from course_lib.pixels import from_uint8, to_uint8
from course_lib.recipes import _card
from course_lib.training import DiffusionObjective, FitConfig, fit, state

NAME = "ddpm_fashion"
T = 1000
SAMPLERS = {"DDPM": ddpm, "DDIM": ddim, "DPM-Solver++": dpm_solver_pp_2m}
SAMPLES = {"cpu": 1_000, "cuda": 5_000}  # that are measured; DDPM takes T calls of the network for each
GPU = (
    DDPMUNetConfig(width=96, attention=(16, 8), dropout=0.1),
    (FitConfig(steps=40_000, batch_size=256, learning_rate=4e-4, warmup=1_000, ema=0.9995),),
)
CPU = (
    DDPMUNetConfig(width=32, attention=(8,), groups=8),
    (FitConfig(steps=6_000, batch_size=64, learning_rate=1e-3, warmup=200, ema=0.999, save_every=120.0),),
)


@torch.no_grad()
def draw(
    model: DDPMUNet,
    n: int,
    steps: int | None = None,
    seed: int = 0,
    batch: int = 250,
    progress: bool = True,
    folder: Path | None = None,
    sampler: str = "DDIM",
) -> Tensor:
    """n pictures in `steps` steps of a sampler of `SAMPLERS`, or in DDPM's T (None), the guess clipped to [-1, 1].

    The first noise depends on `seed` and `batch` only, so that the same place in (n, 1, 32, 32) shows the same noise's
    picture whatever the sampler. With a `folder`, each batch is kept there as bytes, and read instead of drawn when it
    is there already: a thousand pictures in a thousand steps take an hour or more on a CPU.
    """
    sampler, steps = ("DDPM", T) if steps is None else (sampler, steps)
    device = next(model.parameters()).device
    config, schedule, parts = model.config, Schedule.linear(T), []
    for k, first in enumerate(range(0, n, batch)):
        path = folder and folder / f"{sampler}-{steps}_seed-{seed}_{first}.safetensors"
        if path and path.exists():
            parts.append(from_uint8(state.read(path)[0]["images"].to(device)))
            continue
        shape = (min(batch, n - first), config.channels, config.size, config.size)
        generator = torch.Generator(device).manual_seed(seed * 1_000_003 + k)
        start = torch.randn(shape, generator=generator, device=device).contiguous(memory_format=torch.channels_last)
        how = {"sampler": SAMPLERS[sampler], "clip": (-1, 1), "generator": generator}
        with runtime.autocast(device):
            images = sample(model, schedule, shape, steps, x=start, progress=progress, **how).float()
        if path:
            images = from_uint8(to_uint8(images))  # the same whether drawn now or read later
            state.write(path, {"images": to_uint8(images)}, {})
        parts.append(images)
    return torch.cat(parts)


def load(device: torch.device | str | None = None) -> DDPMUNet:
    """The shipped model, in eval mode and float32. Raises CheckpointError where it is missing or damaged."""
    tensors, card = checkpoints.load(NAME, device=device or runtime.device())
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in card["config"]["network"].items()}
    model = DDPMUNet(DDPMUNetConfig(**fields)).to(device or runtime.device(), memory_format=torch.channels_last)
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval().requires_grad_(False)


def metrics(name: str, result: Report) -> dict[str, dict[str, Any]]:
    """A report as entries of a card."""
    real, low, high = result.confident_real, min(result.class_shares), max(result.class_shares)
    return {
        f"Fréchet distance, {name}, n={result.n}": {"value": round(result.frechet, 4), "floor": round(result.floor, 4)},
        f"confident, {name}, n={result.n}": {"value": round(result.confident, 4), "floor": round(real, 4)},
        f"rarest class, {name}, n={result.n}": {"value": round(low, 4), "floor": 0.1},
        f"commonest class, {name}, n={result.n}": {"value": round(high, 4), "floor": 0.1},
        f"nearest training picture, {name}, n={result.n}": {
            "value": round(result.nearest, 4),
            "floor": round(result.nearest_real, 4),
        },
    }


def train(
    folder: Path | str | None = None, settings: tuple[DDPMUNetConfig, tuple[FitConfig, ...]] | None = None
) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint `ddpm_fashion` with its card.

    The checkpoint is there as soon as training has ended; what is measured joins its card one sampler after the other.
    """
    gpu = runtime.device().type == "cuda"
    network, rounds = settings or (GPU if gpu else CPU)
    train_set, test_set = (fashion_mnist(split).to(runtime.device()) for split in ("train", "test"))
    folder, schedule = Path(folder or runtime.state_root() / "runs" / NAME), Schedule.linear(T)
    with torch.random.fork_rng():
        torch.manual_seed(rounds[0].seed)
        model = DDPMUNet(network).to(memory_format=torch.channels_last)

    def batches(index: Tensor) -> Tensor:
        return train_set.images(index).contiguous(memory_format=torch.channels_last)

    seconds = 0.0
    for k, config in enumerate(rounds, 1):
        objective = DiffusionObjective(schedule, weights=min_snr_weights(schedule) if k > 1 else None)
        run = fit(model, objective, batches, len(train_set), config, folder=folder / f"round_{k}")
        model.load_state_dict(run.best.state_dict())
        seconds += run.seconds
    run, found = dataclasses.replace(run, seconds=seconds), {}

    def store() -> Path:
        return checkpoints.save(
            NAME,
            run.best.state_dict(),
            _card.of_run(
                NAME,
                rounds[-1],
                run,
                data="Fashion-MNIST, padded to 32x32, its 60,000 training images; compared with its test images",
                metrics=found,
                network=dataclasses.asdict(network),
                rounds=[dataclasses.asdict(config) for config in rounds],
            ),
        )

    path = store()  # before the hours of measuring
    shipped = load()  # what is measured is what is shipped, rounding and all
    for steps in (min(50, T), None):  # the quick one first
        name = f"DDIM-{steps}" if steps else f"DDPM-{T}"
        result = report(draw(shipped, SAMPLES["cuda" if gpu else "cpu"], steps, folder=folder), train_set, test_set)
        print(f"{name}: {result}")
        found |= metrics(name, result)
        path = store()
    print(f"written: {path}")
