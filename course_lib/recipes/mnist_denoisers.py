"""Three denoisers of handwritten digits, trained alike and measured alike: T = 500, 28×28, same batches, same noise.

Two convolutions with a shortcut, MyUNet, and a small DDPM U-Net, each with its sheet of samples, its way from noise to
digits, its loss on held-out pictures, and the Fréchet distance of its samples as a small classifier of digits sees it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from course_lib import checkpoints, runtime
from course_lib.data import mnist
from course_lib.data.grey_sets import ImageSet
from course_lib.diffusion import Schedule, ddim, ddpm, sample
from course_lib.evaluation import feature_distance, floor
from course_lib.models.baselines import MyUNet, TwoConvResNet
from course_lib.models.classifier import Classifier
from course_lib.models.ddpm_unet import DDPMUNet, DDPMUNetConfig
from course_lib.pixels import to_uint8
from course_lib.recipes import _card, fashion_classifier
from course_lib.recipes._exam import exam
from course_lib.training import DiffusionObjective, Draws, FitConfig, Fitted, fit

NAME = "mnist_denoisers"
T = 500
SCHEDULE = Schedule.linear(T)
UNET = DDPMUNetConfig(28, 1, 16, (1, 2, 2), 1, attention=(), groups=8)
NETWORKS = {
    "two_conv": lambda: TwoConvResNet(),
    "my_unet": lambda: MyUNet(T),
    "ddpm_unet": lambda: DDPMUNet(UNET),
}
CONFIG = FitConfig(steps=1_500, batch_size=64, learning_rate=3e-3, warmup=100, ema=0.99, evaluate_every=250)
JUDGE = FitConfig(steps=400, batch_size=128, learning_rate=2e-3, warmup=50, weight_decay=0.02, ema=0.98)
EXAM_PICTURES = 1_000  # held-out pictures whose steps and noise never change
SHEET, ROWS = 64, 16  # pictures on the sheet of samples, and those of them that are shown on their way
SHOWN = tuple(round(T * (15 - k) / 15) for k in range(16))  # the times of the columns: T, …, 0
MEASURED = 1_000  # samples for the Fréchet distance, drawn with DDIM in 50 steps


def network(name: str, seed: int = 0) -> nn.Module:
    """One of `NETWORKS`, with the initial weights of this seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[name]()


def noise_level(x: Float[Tensor, "n 1 height width"]) -> float:
    """Standard deviation of the noise in pictures, estimated from the pictures alone.

    Each pixel is compared with a plane through its neighbours. The mask has the norm 6, so noise of standard deviation
    s gives s·6; the median takes no notice of the few pixels at edges (Immerkær 1996; Donoho & Johnstone 1994).
    """
    mask = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]], device=x.device)
    return (F.conv2d(x, mask[None, None]).abs().median() / (6 * 0.6745)).item()


def sixteen_greys(x: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Images in [-1, 1] as bytes 0, 17, …, 255: noise in 16 greys takes half the room in a file."""
    return (to_uint8(x.cpu()).float() / 17).round().to(torch.uint8) * 17


def run(name: str, train_set: ImageSet, test: Tensor, folder: Path | None = None, config: FitConfig = CONFIG) -> Fitted:
    """Train one of the networks; `scores` of the result: steps done -> mean loss of the exam."""
    return fit(
        network(name, config.seed),
        DiffusionObjective(SCHEDULE),
        train_set.images,
        len(train_set),
        config,
        folder=folder,
        evaluate=lambda model: exam(model, test, SCHEDULE).mean().item(),
    )


@torch.no_grad()
def way(model: nn.Module, seed: int = 0) -> tuple[UInt8[Tensor, "64 1 h w"], UInt8[Tensor, "16 16 1 h w"], list[float]]:
    """One run of DDPM over all T steps: the samples, the first 16 of them at the times `SHOWN`, the noise at these."""
    device = next(model.parameters()).device
    start = torch.randn(SHEET, 1, 28, 28, generator=runtime.generator(seed)).to(device)
    seen = {T: start}
    with runtime.autocast(device):
        walk = ddpm(
            model, SCHEDULE, start.shape, x=start, clip=(-1, 1), generator=torch.Generator(device).manual_seed(seed + 1)
        )
        for state in walk:
            if state.t + 1 in SHOWN:
                seen[state.t + 1] = state.x.float()
    states = [seen[t] for t in SHOWN]
    return (
        sixteen_greys(states[-1]),
        sixteen_greys(torch.stack([x[:ROWS] for x in states], dim=1)),
        [noise_level(x) for x in states],
    )


@torch.no_grad()
def draw(model: nn.Module, n: int, steps: int = 50, seed: int = 0, batch: int = 250) -> Float[Tensor, "n 1 28 28"]:
    """n pictures with DDIM, the guess clipped to [-1, 1]."""
    device = next(model.parameters()).device
    parts = []
    with runtime.autocast(device):
        for k, first in enumerate(range(0, n, batch)):
            shape = (min(batch, n - first), 1, 28, 28)
            start = torch.randn(shape, generator=runtime.generator(seed * 1_000_003 + k)).to(device)
            parts.append(sample(model, SCHEDULE, shape, steps, sampler=ddim, x=start, clip=(-1, 1)).float().cpu())
    return torch.cat(parts)


@torch.no_grad()
def load(name: str, device: torch.device | str | None = None) -> nn.Module:
    """One of the shipped networks, in eval mode and float32. Raises CheckpointError where it is missing or damaged."""
    tensors, _ = checkpoints.load(NAME)
    model = network(name)
    for key, parameter in model.named_parameters():
        parameter.copy_(tensors[f"{name}.{key}"])
    return model.to(device or runtime.device()).eval().requires_grad_(False)


def judge(train_set: ImageSet, folder: Path | None = None, config: FitConfig = JUDGE) -> Classifier:
    """A classifier of digits whose features the Fréchet distance is measured in: trained first, fixed since."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = Classifier()

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def batches(index: Tensor) -> tuple[Tensor, Tensor]:
        return train_set.images(index), train_set.labels[index.to(train_set.device)]

    return fit(model, loss, batches, len(train_set), config, folder=folder).best


@torch.no_grad()
def features(model: Classifier, images: Float[Tensor, "n 1 28 28"]) -> Float[Tensor, "n 128"]:
    """What the classifier sees in pictures, in float32."""
    device = next(model.parameters()).device
    return torch.cat([model.features(part.to(device).clamp(-1, 1)).cpu() for part in images.split(250)])


def train(folder: Path | str | None = None, config: FitConfig = CONFIG, measured: int = MEASURED) -> None:
    """Train the three (resumable, states in `folder`), measure them, and store the checkpoint `mnist_denoisers`."""
    root = Path(folder) if folder else runtime.state_root() / "runs" / NAME
    train_set, test_set = (mnist(split, 28).to(runtime.device()) for split in ("train", "test"))
    test = test_set.images(slice(0, EXAM_PICTURES)).cpu()
    critic = judge(train_set, root / "judge")
    real = features(critic, test_set.images(slice(EXAM_PICTURES, EXAM_PICTURES + 2 * measured)))
    right = fashion_classifier.accuracy(critic, test_set)
    metrics = {"the judge's test accuracy": {"value": round(right, 4), "floor": 0.1}}
    tensors, seconds = {"shown": torch.tensor(SHOWN)}, 0.0
    for name in NETWORKS:
        found = run(name, train_set, test, root / name, config)
        model = found.best
        seconds += found.seconds
        samples = draw(model, measured)
        distance = feature_distance(features(critic, samples), real[:measured])
        sheet, grid, noise = way(model)
        losses = exam(model, test, SCHEDULE)
        tensors |= {f"{name}.{key}": value for key, value in model.named_parameters()}
        tensors |= {f"sheet.{name}": sheet, f"grid.{name}": grid, f"noise.{name}": torch.tensor(noise)}
        tensors |= {f"losses.{name}": found.losses, f"scores.{name}": torch.tensor(list(found.scores.values()))}
        tensors[f"fifths.{name}"] = losses.reshape(5, -1).mean(dim=1)
        metrics |= {
            f"loss on held-out pictures, {name}": {"value": round(losses.mean().item(), 4), "floor": 1.0},
            f"Fréchet distance, {name}, n={measured}": {
                "value": round(distance, 4),
                "floor": round(floor(real, measured), 4),
            },
        }
        print(f"{name}: exam {losses.mean():.4f}, Fréchet distance {distance:.3f}", flush=True)
    path = checkpoints.save(
        NAME,
        tensors,
        _card.made(
            NAME,
            config={
                "networks": list(NETWORKS),
                "T": T,
                "unet": vars(UNET),
                "training": vars(config),
                "judge": vars(JUDGE),
                "sampler": "DDIM, 50 steps, for the distance; DDPM, all steps, for the sheets; clipped to [-1, 1]",
            },
            seed=config.seed,
            data=f"MNIST, 28x28, 60,000 training pictures; exam on the first {EXAM_PICTURES} test pictures, the "
            "Fréchet distance against later ones",
            seconds=seconds,
            metrics=metrics,
        ),
    )
    print(f"written: {path}")
