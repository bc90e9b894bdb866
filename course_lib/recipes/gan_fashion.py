"""The course's GAN of Fashion-MNIST: told the class, held in check by the R1 penalty, sampled from a moving average.

One `fit` trains both players at once; what it takes from the years since 2014 is the non-saturating loss, R1 in every
fourth step, Adam without momentum for the mean (betas 0 and 0.99), and the average of the generator's weights. The
distance to real pictures is measured on the way with the yardstick of `fashion_classifier`; what is shipped are the
weights of the smallest distance, measured once more with other noise. About 40 minutes on one free CPU core with
bfloat16.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib import checkpoints, runtime
from course_lib.data import ImageSet, fashion_mnist
from course_lib.evaluation import distance_to_real, floor, look, report
from course_lib.models.gan import GAN, GANConfig, Generator, Losses, make_gan
from course_lib.pixels import to_uint8
from course_lib.recipes import _card
from course_lib.recipes.ddpm_fashion import metrics
from course_lib.training import FitConfig, GANObjective, fit, state

NAME = "gan_fashion"
SAMPLES = 2_000  # that are measured, with the noise of seed 0 on the way and of seed 1 at the end
NETWORK = GANConfig(classes=10)
CONFIG = FitConfig(
    steps=8_000, batch_size=64, learning_rate=8e-4, warmup=100, betas=(0.0, 0.99), clip_norm=None, ema=0.999,
    evaluate_every=400, save_every=120.0,
)  # fmt: skip
OBJECTIVE = GANObjective(gamma=2.0, every=4)
BIN = 20  # steps that share a point of the stored curve


class Traced(GAN):
    """A GAN that notes at each training step which share of the batch, half real and half made, D told apart."""

    def __init__(self, gan: GAN, steps: int) -> None:
        super().__init__(gan.generator, gan.discriminator)
        self.register_buffer("accuracy", torch.full((steps,), torch.nan))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))  # steps so far; as buffers, both are resumed

    def forward(self, *given, **options) -> Losses:
        losses = super().forward(*given, **options)
        if self.training:
            right = (losses.real > 0).float().mean() + (losses.fake < 0).float().mean()
            self.accuracy[self.seen] = right / 2
            self.seen += 1
        return losses


def noise(n: int, seed: int = 0) -> tuple[Float[Tensor, "n latent"], Int[Tensor, " n"]]:
    """Noise and classes of n pictures: the classes in turn, 0 … 9, 0 …, so that each is as frequent as it is."""
    return torch.randn(n, NETWORK.latent, generator=runtime.generator(seed)), torch.arange(n) % NETWORK.classes


@torch.no_grad()
def draw(model: nn.Module, n: int, seed: int = 0, batch: int = 250) -> Float[Tensor, "n 1 32 32"]:
    """n pictures in [-1, 1] of a generator, classes in turn: one call of the network for each, with noise of `seed`.

    Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    device = next(model.parameters()).device
    parts = zip(*(part.to(device).split(batch) for part in noise(n, seed)), strict=True)
    with runtime.autocast(device):
        return torch.cat([model(z, label).float() for z, label in parts])


def load(device: torch.device | str | None = None) -> Generator:
    """The shipped generator, in eval mode and float32. Raises CheckpointError where it is missing or damaged."""
    device = device or runtime.device()
    tensors, card = checkpoints.load(NAME, device=device)
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in card["config"]["network"].items()}
    model = Generator(GANConfig(**fields)).to(device, memory_format=torch.channels_last)
    own = {name.removeprefix("generator."): t.float() for name, t in tensors.items() if name.startswith("generator.")}
    model.load_state_dict(own)
    return model.eval().requires_grad_(False)


class Watch:
    """What `fit` asks after every few steps: the distance over its floor, and ten pictures of the same noise, kept."""

    def __init__(self, gan: Traced, test: ImageSet, folder: Path, n: int = SAMPLES) -> None:
        self.gan, self.folder, self.n = gan, folder, n
        order = torch.randperm(len(test), generator=runtime.generator(0))
        self.real = look(test.images(order[: 4 * n])).features
        self.floor = floor(self.real, n)

    def __call__(self, network: GAN) -> float:
        step = int(self.gan.seen)
        state.write(self.folder / f"stage_{step:06}.safetensors", {"images": to_uint8(draw(network.generator, 10))}, {})
        ratio = distance_to_real(look(draw(network.generator, self.n)).features, self.real) / self.floor
        recent = self.gan.accuracy[max(0, step - 100) : step].mean().item()
        print(f"step {step}: distance over floor {ratio:.2f}, accuracy of the last steps {recent:.3f}", flush=True)
        return ratio

    def stages(self) -> dict[str, Tensor]:
        """All that was kept: steps done, and pictures (stages, 10, 1, 32, 32)."""
        paths = sorted(self.folder.glob("stage_*.safetensors"))
        steps = torch.tensor([int(path.stem.removeprefix("stage_")) for path in paths])
        return {"stage.steps": steps, "stage.images": torch.stack([state.read(path)[0]["images"] for path in paths])}


def train(
    folder: Path | str | None = None,
    network: GANConfig = NETWORK,
    config: FitConfig = CONFIG,
    objective: GANObjective = OBJECTIVE,
    samples: int = SAMPLES,
) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint `gan_fashion` with its card.

    `samples` pictures are measured, on the way and at the end.
    """
    train_set, test_set = (fashion_mnist(split).to(runtime.device()) for split in ("train", "test"))
    folder = Path(folder or runtime.state_root() / "runs" / NAME)
    gan = Traced(make_gan(network, config.seed), config.steps).to(runtime.device(), memory_format=torch.channels_last)
    watch = Watch(gan, test_set, folder, samples)

    def batches(index: Tensor) -> tuple[Tensor, Tensor]:
        images = train_set.images(index).contiguous(memory_format=torch.channels_last)
        return images, train_set.labels[index.to(train_set.device)]

    run = fit(gan, objective, batches, len(train_set), config, folder=folder, evaluate=watch)
    weights, kept = state.read(folder / "best.safetensors")
    accuracy = gan.accuracy.cpu()[: config.steps // BIN * BIN].reshape(-1, BIN).mean(dim=1)
    tensors = {name: tensor for name, tensor in weights.items() if name.startswith("generator.")}
    tensors |= {"accuracy": accuracy, "ratio.steps": torch.tensor(list(run.scores))}
    tensors |= {"ratio": torch.tensor(list(run.scores.values()))} | watch.stages()

    def store(found: dict) -> Path:
        card = _card.of_run(
            NAME, config, run, "Fashion-MNIST, padded to 32x32, its 60,000 training images and their classes", found,
            network=dataclasses.asdict(network), objective=dataclasses.asdict(objective), shipped_step=kept["step"],
        )  # fmt: skip
        return checkpoints.save(NAME, tensors, card)

    store({})
    result = report(draw(load(), samples, seed=1), train_set, test_set)  # of what is shipped, with noise unseen so far
    print(f"GAN: {result}")
    print(f"written: {store(metrics('GAN', result))}")
