"""One table for the course's generators of Fashion-MNIST: GAN, VAE and diffusion, seen by the same classifier.

From each family as many samples as the yardstick likes; what is stored is what the classifier saw in them (128 features
per picture, rounded to a byte) and some pictures of each. Beside them the features of all real test pictures, so that
any distance, floor or overlap can be computed again in a moment; the distance along one walk of the diffusion model;
and pictures of noise that were bent until the classifier saw garments in them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from course_lib import checkpoints, recipes, runtime
from course_lib.data import fashion_mnist
from course_lib.diffusion import Schedule, ddim
from course_lib.evaluation import (
    distance_to_real,
    fashion_classifier,
    floor,
    kernel_distance,
    look,
    nearest,
    precision_recall,
)
from course_lib.pixels import from_uint8, to_uint8
from course_lib.recipes import _card, ddpm_fashion
from course_lib.training import state

NAME = "measured_samples"
SEED = 0
SAMPLES = 2_000
SHOWN = 48  # pictures of each family that are stored
STEP = 1 / 48  # features are stored as bytes, in this unit: up to 5.3
WALK_STEPS, WALKERS = 20, 500
FORGED, FORGE_STEPS = 400, 250
# How each family is drawn (n, folder) -> (n, 1, 32, 32), whose checkpoint it is, and calls of the network per picture.
FAMILIES: dict[str, tuple[Callable[[int, Path], Tensor], str, int]] = {
    "GAN": (lambda n, folder: _drawn("gan_fashion", n), "gan_fashion", 1),
    "VAE, prior": (lambda n, folder: _drawn("vae_fashion", n, source="prior"), "vae_fashion", 1),
    "VAE, fitted prior": (lambda n, folder: _drawn("vae_fashion", n, source="fitted"), "vae_fashion", 1),
    "diffusion, 5 steps": (lambda n, folder: _walked(n, 5, folder), ddpm_fashion.NAME, 5),
    "diffusion, 50 steps": (lambda n, folder: _walked(n, 50, folder), ddpm_fashion.NAME, 50),
}


def _drawn(recipe: str, n: int, **options: str) -> Float[Tensor, "n 1 32 32"]:
    module = recipes.load(recipe)
    return module.draw(module.load(), n, SEED, **options).float().cpu()


def _walked(n: int, steps: int, folder: Path) -> Float[Tensor, "n 1 32 32"]:
    # Pictures of other weights must not pass for those of these: each has a folder of its own.
    folder = folder / checkpoints.verify(ddpm_fashion.NAME)["sha256"][:12]
    return ddpm_fashion.draw(ddpm_fashion.load(), n, steps, SEED, folder=folder).cpu()


def pack(features: Float[Tensor, "n d"]) -> UInt8[Tensor, "n d"]:
    """Features as bytes, in units of `STEP`. Raises ValueError for values that a byte cannot hold."""
    whole = (features / STEP).round()
    if whole.min() < 0 or whole.max() > 255:
        raise ValueError(
            f"features reach from {features.min():.3g} to {features.max():.3g}; bytes hold 0 to {255 * STEP:.3g}"
        )
    return whole.to(torch.uint8)


def unpack(stored: UInt8[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """The features again, each within half of `STEP`."""
    return stored.float() * STEP


def sets(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The features by family, and three disjoint random sets of test pictures.

    "reference" is what the others are compared with, "real" as many others, "target" what the forger was shown.
    """
    found = {name.removeprefix("features."): unpack(x) for name, x in tensors.items() if name.startswith("features.")}
    n = min(len(features) for name, features in found.items() if name != "test")
    order = torch.randperm(len(found["test"]), generator=runtime.generator(SEED))
    places = {"reference": order[:n], "real": order[n : 2 * n], "target": order[2 * n : 2 * n + FORGED]}
    return found | {name: found["test"][place] for name, place in places.items()}


def row(
    samples: Float[Tensor, "n d"], test: Float[Tensor, "count d"], reference: Float[Tensor, "m d"]
) -> dict[str, float]:
    """What is measured of a family: Fréchet distance to the test set, kernel distance and overlap with `reference`."""
    kernel, overlap = kernel_distance(samples, reference), precision_recall(samples, reference)
    return {
        "Fréchet distance": distance_to_real(samples, test, SEED),
        "kernel distance": kernel.value,
        "its standard error": kernel.standard_error,
        **overlap._asdict(),
    }


@torch.no_grad()
def walk(n: int, steps: int) -> tuple[list[int], list[Tensor], list[Tensor]]:
    """One DDIM walk of n pictures: the time after each step (T first), what the classifier sees in x_t and in x̂_0."""
    model, schedule = ddpm_fashion.load(), Schedule.linear(ddpm_fashion.T)
    device = next(model.parameters()).device
    times: list[int] = []
    seen: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
    for start in torch.randn(n, 1, 32, 32, generator=runtime.generator(SEED)).split(250):
        x = start.to(device, memory_format=torch.channels_last)
        seen.setdefault(schedule.T, ([], []))[0].append(look(x).features)
        with runtime.autocast(device):
            for now in ddim(model, schedule, x.shape, steps, x=x, clip=(-1, 1)):
                states, guesses = seen.setdefault(now.t + 1, ([], []))
                states.append(look(now.x.float()).features)
                guesses.append(look(now.x_start.float()).features)
    times = sorted(seen, reverse=True)
    # The guess that belongs to time t was made from x_t: the sampler hands it out after the step.
    guesses = [torch.cat(seen[t][1]) for t in times[1:]]
    return times, [torch.cat(seen[t][0]) for t in times], guesses


def forge(target: Float[Tensor, "n d"], steps: int, seed: int = SEED) -> UInt8[Tensor, "n 1 32 32"]:
    """Pictures, begun as noise, in which the classifier sees these features: Adam on their pixels, nothing else."""
    model, device = fashion_classifier(), runtime.device()
    made = []
    for k, wanted in enumerate(target.split(100)):
        x = 0.3 * torch.randn(len(wanted), 1, 32, 32, generator=runtime.generator(seed + k))
        x = x.to(device, memory_format=torch.channels_last).requires_grad_()
        optimizer = torch.optim.Adam([x], lr=0.05)
        wanted = wanted.to(device)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * (1 - step / steps)
            loss = (model.features(x.clamp(-1, 1)) - wanted).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        made.append(to_uint8(x.detach()).cpu())
        print(f"forged {sum(map(len, made))}: squared distance {loss.item() / len(wanted):.3f}", flush=True)
    return torch.cat(made).contiguous()


def train(folder: Path | str | None = None) -> None:
    """Draw, look, measure (resumable: pictures are kept in `folder`); store `measured_samples` with its card."""
    began = time.monotonic()
    folder = Path(folder or runtime.state_root() / "runs" / NAME)
    train_set, test_set = fashion_mnist("train"), fashion_mnist("test")
    real = pack(look(test_set.images().to(runtime.device())).features)
    tensors: dict[str, Tensor] = {"features.test": real}
    near: dict[str, float] = {}
    for name, (draw, _, _) in FAMILIES.items():
        images = draw(SAMPLES, folder)
        tensors |= {f"features.{name}": pack(look(images.to(runtime.device())).features)}
        tensors |= {f"pictures.{name}": to_uint8(images[:SHOWN])}
        near[name] = nearest(images[:500], train_set.pixels).distance.median().item()
    near["real"] = nearest(test_set.images(slice(0, 500)), train_set.pixels).distance.median().item()
    tensors |= {"pictures.forged": forged(folder, sets(tensors)["target"])} | walk_curves(folder, unpack(real))
    path = checkpoints.save(NAME, tensors, card(tensors, near, time.monotonic() - began), dtype=None)
    print(f"written: {path}")


def forged(folder: Path, target: Float[Tensor, "n d"]) -> UInt8[Tensor, "n 1 32 32"]:
    """The forged pictures that `folder` keeps, or new ones."""
    path = folder / f"forged_{FORGED}_{FORGE_STEPS}.safetensors"
    if not path.exists():
        state.write(path, {"images": forge(target, FORGE_STEPS)}, {})
    return state.read(path)[0]["images"]


def walk_curves(folder: Path, real: Tensor) -> dict[str, Tensor]:
    """Fréchet distance and kernel distance of x_t and of x̂_0 along the walk, at n = WALKERS."""
    path = folder / f"walk_{checkpoints.verify(ddpm_fashion.NAME)['sha256'][:12]}_{WALK_STEPS}_{WALKERS}.safetensors"
    if not path.exists():
        times, states, guesses = walk(WALKERS, WALK_STEPS)
        curves = {"walk.t": torch.tensor(times)}
        for what, seen in (("state", states), ("guess", guesses)):
            curves[f"walk.{what}"] = torch.tensor([distance_to_real(x, real, SEED, 4) for x in seen])
            curves[f"walk.{what}.kernel"] = torch.tensor([kernel_distance(x, real[:WALKERS]).value for x in seen])
        state.write(path, curves, {})
    return state.read(path)[0]


def card(tensors: dict[str, Tensor], near: dict[str, float], seconds: float) -> dict[str, Any]:
    """The table, computed from what is stored, each number beside what real pictures get."""
    features = sets(tensors)
    test, reference, n = features["test"], features["reference"], len(features["reference"])
    rows = {name: row(features[name], test, reference) for name in (*FAMILIES, "real")}
    floors = {**rows.pop("real"), "Fréchet distance": floor(test, n, SEED)}
    metrics: dict[str, Any] = {}
    for name, found in rows.items():
        for what, value in found.items():
            metrics[f"{what}, {name}, n={n}"] = {"value": round(value, 4), "floor": round(floors[what], 4)}
        metrics[f"nearest training picture, {name}, n=500"] = {
            "value": round(near[name], 4),
            "floor": round(near["real"], 4),
        }
        print(f"{name}: { ({what: round(value, 3) for what, value in found.items()}) }")
    seen, count = look(from_uint8(tensors["pictures.forged"]).to(runtime.device())), len(tensors["pictures.forged"])
    metrics[f"Fréchet distance, forged, n={count}"] = {
        "value": round(distance_to_real(seen.features, test, SEED), 4),
        "floor": round(floor(test, count, SEED), 4),
    }
    print(f"real: { ({what: round(value, 3) for what, value in floors.items()}) }")
    sources = {name: checkpoints.verify(recipe)["sha256"] for name, (_, recipe, _) in FAMILIES.items()}
    return _card.made(
        NAME,
        config={
            "n": n,
            "walk": {"n": WALKERS, "steps": WALK_STEPS},
            "forged": {"n": FORGED, "steps": FORGE_STEPS},
            "feature_step": STEP,
            "networks": sources,
            "calls": {name: calls for name, (_, _, calls) in FAMILIES.items()},
        },
        seed=SEED,
        data="samples of the course's own models; Fashion-MNIST, padded to 32x32, its test images",
        seconds=seconds,
        metrics=metrics,
    )
