"""Who covers the ring? Eight Gaussians, learned by several kinds of model, five seeds each, and the modes counted.

Every method learns from the same points. A further method is one more line in `METHODS`: how to make its network, what
it is trained on, how, and how to draw points from it. Of seed 0 the network is shipped, so that anyone can draw again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib import checkpoints, runtime
from course_lib.data import ring
from course_lib.diffusion import Schedule, ddpm, sample
from course_lib.models.conv_vae import PointVAE
from course_lib.models.gan import GAN
from course_lib.models.points import PointDenoiser, PointDiscriminator, PointGenerator
from course_lib.recipes import _card
from course_lib.training import DiffusionObjective, FitConfig, Fitted, GANObjective, VAEObjective, fit

NAME = "ring"
SEEDS = (0, 1, 2, 3, 4)
POINTS, SAMPLES, KEPT = 20_000, 2_000, 500  # to learn from; drawn and counted; of these, shipped
SCHEDULE = Schedule.cosine(100)
CONFIG = FitConfig(steps=1_500, batch_size=128, learning_rate=3e-3, warmup=0, clip_norm=None, ema=0.99)


def _gan() -> nn.Module:
    return GAN(PointGenerator(), PointDiscriminator())


@torch.no_grad()
def _push(model: GAN, n: int, seed: int) -> Tensor:
    device = next(model.parameters()).device
    return model.generator(torch.randn(n, model.generator.latent, generator=runtime.generator(seed)).to(device))


def _decode(model: PointVAE, n: int, seed: int) -> Tensor:
    return model.sample(n, runtime.generator(seed))


@torch.no_grad()
def _denoise(model: PointDenoiser, n: int, seed: int) -> Tensor:
    device = next(model.parameters()).device
    start = torch.randn(n, 2, generator=runtime.generator(seed)).to(device)
    generator = runtime.generator(seed + 1, device)
    return sample(model, SCHEDULE, start.shape, sampler=ddpm, x=start, generator=generator, progress=False)


@dataclass(frozen=True)
class Method:
    """One way to learn the ring."""

    label: str  # what figures call it
    network: Callable[[], nn.Module]
    loss: Callable[..., Tensor]  # what `fit` takes
    config: FitConfig
    draw: Callable[[Any, int, int], Float[Tensor, "n 2"]]  # (network, n, seed) -> points


METHODS = {
    # as one would write it at first: Adam as it comes, at a cautious rate, no penalty, the last weights
    "plain_gan": Method(
        "plain GAN", _gan, GANObjective(), replace(CONFIG, learning_rate=2e-4, cosine=False, ema=None), _push
    ),
    # with what helps: R1 penalty, Adam without momentum for the mean, a rate that falls, the average of the weights
    "gan": Method("GAN with R1 and EMA", _gan, GANObjective(gamma=0.3), replace(CONFIG, betas=(0.0, 0.99)), _push),
    # the decoder's mean, without the noise around it, as for pictures
    "vae": Method(
        "VAE", lambda: PointVAE(variance=0.02), VAEObjective(),
        replace(CONFIG, steps=4_000, batch_size=256, learning_rate=5e-3), _decode,
    ),
    "ddpm": Method(
        "DDPM", PointDenoiser, DiffusionObjective(SCHEDULE), replace(CONFIG, steps=4_000, batch_size=256), _denoise
    ),
}  # fmt: skip


def points(device: torch.device | str | None = None) -> Float[Tensor, "n 2"]:
    """What every method learns from: 20,000 points of the ring."""
    return ring.sample(POINTS, seed=0).to(device or runtime.device())


def run(
    method: str,
    seed: int = 0,
    *,
    steps: int | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    every: int = 0,
    progress: bool = True,
) -> Fitted:
    """Train one of `METHODS` with this seed, asking `evaluate` after `every` steps. ValueError for another name."""
    network, how, data = _fresh(method, seed), _known(method), points()
    config = replace(how.config, steps=steps or how.config.steps, seed=seed, evaluate_every=every)
    return fit(
        network, how.loss, lambda i: data[i.to(data.device)], POINTS, config, evaluate=evaluate, progress=progress
    )


def draw(method: str, network: nn.Module, n: int = SAMPLES, seed: int = 0) -> Float[Tensor, "n 2"]:
    """n points of a network of this method, on the CPU. ValueError for another name."""
    return _known(method).draw(network, n, seed).float().cpu()


def load(method: str) -> nn.Module:
    """The shipped network of seed 0, in eval mode and float32.

    Raises ValueError for another name, CheckpointError where the checkpoint is missing or damaged.
    """
    network, prefix = _fresh(method, SEEDS[0]), f"network.{method}."
    tensors, _ = checkpoints.load(NAME)
    network.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})
    return network.to(runtime.device()).eval().requires_grad_(False)


def _fresh(method: str, seed: int) -> nn.Module:
    """Its network with the initial weights of this seed; torch's global random state stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _known(method).network()


def _known(method: str) -> Method:
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not known; use one of: {', '.join(METHODS)}")
    return METHODS[method]


def train(folder: str | None = None) -> None:
    """Train all methods with all seeds and store the checkpoint `ring`. Not resumable: it takes minutes."""
    tensors, metrics, seconds = {}, {}, 0.0
    for method, how in METHODS.items():
        covered, drawn = [], []
        for seed in SEEDS:
            fitted = run(method, seed, progress=False)
            samples = draw(method, fitted.best)
            covered.append(ring.count_modes(samples))
            drawn.append(samples[:KEPT])
            seconds += fitted.seconds
            if seed == SEEDS[0]:
                tensors |= {f"network.{method}.{name}": t for name, t in fitted.best.state_dict().items()}
            print(f"{how.label}, seed {seed}: {covered[-1].modes} modes, {covered[-1].near:.3f} near one", flush=True)
        modes, near = torch.tensor([c.modes for c in covered]), torch.tensor([c.near for c in covered])
        tensors |= {f"samples.{method}": torch.stack(drawn), f"modes.{method}": modes, f"near.{method}": near}
        full = round((modes == ring.MODES).float().mean().item(), 2)
        metrics[f"seeds with all modes, {how.label}"] = {"value": full, "floor": 1.0}
        metrics[f"near a mode, {how.label}, n={SAMPLES}"] = {"value": round(near.mean().item(), 3), "floor": 0.989}
    settings = {method: vars(how.config) for method, how in METHODS.items()}
    data = f"{POINTS} points of the ring of eight Gaussians, seed 0; {SAMPLES} samples of each network"
    card = _card.made(NAME, config=settings, seed=SEEDS[0], data=data, seconds=seconds, metrics=metrics)
    print(f"written: {checkpoints.save(NAME, tensors, card)}")
