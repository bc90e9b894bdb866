"""The course's VAE of Fashion-MNIST, and two ways to draw from it: from the prior, and from a density of its latents.

A Gaussian decoder with one learned variance (σ-VAE: Rybkin, Daniilidis, Levine 2021), residual blocks, 64 latents, a
moving average of the weights. After training a mixture of Gaussians is fitted to latents drawn for the training
pictures (Ghosh et al. 2020): where the encoder puts garments is not quite N(0, I). What is shown and measured is the
decoder's mean, without the noise that the model says is around it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib import checkpoints, runtime
from course_lib.data import fashion_mnist, pad_to_32
from course_lib.data.grey_sets import ImageSet
from course_lib.evaluation import Report, report
from course_lib.models.conv_vae import ConvVAE, ConvVAEConfig
from course_lib.models.latent_density import GaussianMixture, fit_mixture
from course_lib.recipes import _card
from course_lib.training import FitConfig, Fitted, VAEObjective, fit

NAME = "vae_fashion"
NETWORK = ConvVAEConfig(size=28, widths=(32, 64), narrow=32, hidden=0, latent=64, blocks=1)
CONFIG = FitConfig(
    steps=6_000, batch_size=64, learning_rate=2e-3, warmup=200, ema=0.998, clip_norm=500.0, save_every=60.0
)
COMPONENTS, ROUNDS = 40, 12  # of the mixture, and of EM
SAMPLES = 2_000  # that are measured
Source = Literal["prior", "fitted"]


@dataclasses.dataclass(frozen=True, eq=False)
class FashionVAE:
    """The shipped network, in eval mode, and the density of its latents."""

    vae: ConvVAE
    latents: GaussianMixture


@torch.no_grad()
def draw(
    model: FashionVAE, n: int, seed: int = 0, source: Source = "fitted", batch: int = 500
) -> Float[Tensor, "n 1 32 32"]:
    """n pictures, padded to 32×32: latents from the `fitted` mixture or the `prior` N(0, I), then the decoder's mean.

    Depends on the seed only, whatever the batch. ValueError for n below 1 and another source.
    """
    if n < 1:
        raise ValueError(f"n={n} must be at least 1")
    if source not in ("prior", "fitted"):
        raise ValueError(f"source={source!r} is not known; use 'prior' or 'fitted'")
    generator = runtime.generator(seed)
    if source == "fitted":
        z = model.latents.sample(n, generator)
    else:
        z = torch.randn(n, *model.vae.latent_shape, generator=generator)
    device = next(model.vae.parameters()).device
    found = torch.cat([model.vae.decode(part.to(device)) for part in z.split(batch)])
    return pad_to_32(found.clamp(-1, 1))


def load(device: torch.device | str | None = None) -> FashionVAE:
    """The shipped model, in float32. Raises CheckpointError where it is missing or damaged."""
    tensors, card = checkpoints.load(NAME, device=device or runtime.device())
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in card["config"]["network"].items()}
    vae = ConvVAE(ConvVAEConfig(**fields)).to(device or runtime.device())
    parts = {name: t.float() for name, t in tensors.items() if not name.startswith("latents.")}
    vae.load_state_dict(parts)
    weights, means, packed = (tensors[f"latents.{part}"].cpu().double() for part in ("weights", "means", "roots"))
    d = means.shape[1]
    roots = torch.zeros(len(weights), d, d, dtype=torch.float64)
    roots[:, *torch.tril_indices(d, d)] = packed
    return FashionVAE(vae.eval().requires_grad_(False), GaussianMixture(weights / weights.sum(), means, roots))


@torch.no_grad()
def latents(model: ConvVAE, images: ImageSet, seed: int = 0, batch: int = 1_000) -> Float[Tensor, "n latent"]:
    """One latent for each picture, drawn from q(z|x), on the CPU: the aggregated posterior in so many points."""
    device, generator, found = next(model.parameters()).device, runtime.generator(seed), []
    for first in range(0, len(images), batch):
        x = images.images(slice(first, first + batch)).to(device)
        found.append(model.encode(x).sample(generator=generator).cpu())
    return torch.cat(found)


@torch.no_grad()
def bound(model: ConvVAE, images: ImageSet, seed: int = 0, batch: int = 1_000) -> tuple[float, float]:
    """Mean reconstruction term and mean KL over a set of pictures, in nats; the ELBO is their difference."""
    device, generator, found = next(model.parameters()).device, runtime.generator(seed), []
    for first in range(0, len(images), batch):
        x = images.images(slice(first, first + batch)).to(device)
        noise = torch.randn(len(x), *model.latent_shape, generator=generator).to(device)
        found.append(torch.stack(model(x, noise)).cpu())
    reconstruction, kl = torch.cat(found, dim=1).double().mean(dim=1).tolist()
    return reconstruction, kl


def metrics(name: str, result: Report) -> dict[str, dict[str, float]]:
    """A report as entries of a card."""
    return {
        f"Fréchet distance, {name}, n={result.n}": {"value": round(result.frechet, 4), "floor": round(result.floor, 4)},
        f"confident, {name}, n={result.n}": {
            "value": round(result.confident, 4),
            "floor": round(result.confident_real, 4),
        },
        f"rarest class, {name}, n={result.n}": {"value": round(min(result.class_shares), 4), "floor": 0.1},
        f"nearest training picture, {name}, n={result.n}": {
            "value": round(result.nearest, 4),
            "floor": round(result.nearest_real, 4),
        },
    }


def fitted(config: FitConfig, network: ConvVAEConfig, images: ImageSet, folder: Path | None, progress: bool) -> Fitted:
    """The trained network."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = ConvVAE(network).to(memory_format=torch.channels_last)

    def batches(index: Tensor) -> Tensor:
        return images.images(index).contiguous(memory_format=torch.channels_last)

    return fit(model, VAEObjective(), batches, len(images), config, folder=folder, progress=progress)


def train(folder: Path | str | None = None, settings: tuple[ConvVAEConfig, FitConfig] = (NETWORK, CONFIG)) -> None:
    """Train it (resumable, state in `folder`), fit the mixture, measure both ways to draw, store `vae_fashion`."""
    network, config = settings
    small, test_small = (fashion_mnist(split, 28).to(runtime.device()) for split in ("train", "test"))
    folder = Path(folder or runtime.state_root() / "runs" / NAME)
    run = fitted(config, network, small, folder, progress=True)
    mixture = fit_mixture(latents(run.best, small), COMPONENTS, rounds=ROUNDS, seed=config.seed)
    tensors = dict(run.best.state_dict())
    packed = mixture.roots[:, *torch.tril_indices(*mixture.roots.shape[1:])]  # the upper triangle is zero
    tensors |= {"latents.weights": mixture.weights, "latents.means": mixture.means, "latents.roots": packed}
    found: dict[str, dict[str, float | None]] = {}

    def store() -> Path:
        more = {"network": dataclasses.asdict(network), "mixture": {"components": COMPONENTS, "rounds": ROUNDS}}
        data = "Fashion-MNIST, its 60,000 training images of 28x28; compared with its test images, padded to 32x32"
        return checkpoints.save(NAME, tensors, _card.of_run(NAME, config, run, data, found, **more))

    store()
    shipped = load()  # what is measured is what is shipped, rounding and all
    reconstruction, kl = bound(shipped.vae, test_small)
    found["ELBO, nats per test image of 28x28 in [-1, 1], a density"] = {
        "value": round(reconstruction - kl, 2),
        "floor": None,
    }
    found["KL, nats per test image"] = {"value": round(kl, 2), "floor": None}
    found["variance of a pixel"] = {"value": round(shipped.vae.variance.item(), 5), "floor": None}
    train_set, test_set = fashion_mnist("train"), fashion_mnist("test")
    for source in ("prior", "fitted"):
        result = report(draw(shipped, SAMPLES, source=source), train_set, test_set)
        print(f"{source}: {result}")
        found |= metrics(f"z from the {source}", result)
    print(f"written: {store()}")
