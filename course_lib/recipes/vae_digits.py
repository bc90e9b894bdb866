"""Small VAEs of black-and-white digits: what lesson 12 draws, walks through and compares with its own short training.

Three kinds. `plane` has two latents, so that all it knows fits on one sheet; `digits` has 16; both see binarised
digits of 28×28. The `short` ones see 14×14 and train in seconds: five seeds at β = 1, and three at each other β, for
the curve of rate against distortion. All numbers are nats of a Bernoulli likelihood of bits.
"""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from course_lib import checkpoints, runtime
from course_lib.data.grey_sets import ImageSet, train_and_test
from course_lib.models.conv_vae import ConvVAE, ConvVAEConfig
from course_lib.models.vae import Elbo, binarise, log_likelihood_bound
from course_lib.recipes import _card
from course_lib.training import FitConfig, Fitted, VAEObjective, fit

NAME = "vae_digits"
NETWORKS = {
    "plane": ConvVAEConfig(28, widths=(16, 32), narrow=8, hidden=64, latent=2, likelihood="bernoulli"),
    "digits": ConvVAEConfig(28, widths=(16, 32), narrow=16, hidden=0, latent=16, likelihood="bernoulli"),
    "short": ConvVAEConfig(14, widths=(16,), narrow=8, hidden=64, latent=8, likelihood="bernoulli"),
}
_LONG = FitConfig(steps=2_500, batch_size=64, learning_rate=2e-3, warmup=50, ema=0.998, clip_norm=None)
CONFIGS = {
    "plane": _LONG,
    "digits": _LONG,
    "short": FitConfig(
        300, batch_size=64, learning_rate=3e-3, warmup=20, cosine=False, ema=None, clip_norm=None, evaluate_every=50
    ),
}
BETAS = (0.1, 0.3, 1.0, 3.0, 8.0, 24.5)  # 24.5 = 196 pixels / 8 latents: what two means instead of two sums amount to
SEEDS = (0, 1, 2, 3, 4)  # at β = 1; the others get the first three
EXAM_PICTURES, EXAM_DRAWS = 500, 100


def bits(split: ImageSet, side: int = 28) -> Float[Tensor, "n 1 side side"]:
    """The pictures of 28×28 as bits; for 14×14 each pixel is the mean of four before it is one or the other."""
    images = split.images()
    return binarise(torch.nn.functional.avg_pool2d(images, 28 // side))


def network(kind: str, seed: int = 0) -> ConvVAE:
    """A network of `NETWORKS` with the initial weights of this seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ConvVAE(NETWORKS[kind])


@torch.no_grad()
def exam(model: ConvVAE, test: Float[Tensor, "n 1 side side"]) -> Elbo:
    """Both terms of the bound for each of these held-out pictures, with noise that was drawn once."""
    noise = torch.randn(len(test), *model.latent_shape, generator=runtime.generator(0))
    device = next(model.parameters()).device
    parts = [model(x.to(device), e.to(device)) for x, e in zip(test.split(250), noise.split(250), strict=True)]
    return Elbo(*(torch.cat(column).float().cpu() for column in zip(*parts, strict=True)))


def run(
    kind: str,
    data: tuple[Tensor, Tensor],
    seed: int = 0,
    beta: float | int = 1.0,
    *,
    steps: int | None = None,
    progress: bool = True,
) -> Fitted:
    """Train one network on (training, test) bits; `scores` of the result: steps done -> minus the mean ELBO in nats."""
    train_set, test = data
    config = CONFIGS[kind]
    return fit(
        network(kind, seed),
        VAEObjective(beta),
        lambda index: train_set[index],
        len(train_set),
        dataclasses.replace(config, seed=seed, steps=steps or config.steps),
        evaluate=lambda model: -exam(model, test[:EXAM_PICTURES]).value.mean().item(),
        progress=progress,
    )


def load(kind: str, device: torch.device | str | None = None) -> ConvVAE:
    """The shipped network "plane" or "digits", in eval mode and float32. ValueError for another name."""
    if kind not in ("plane", "digits"):
        raise ValueError(f"kind={kind!r} is not shipped; use 'plane' or 'digits'")
    tensors, _ = checkpoints.load(NAME, device=device or runtime.device())
    model = ConvVAE(NETWORKS[kind]).to(device or runtime.device())
    prefix = f"{kind}."
    model.load_state_dict({n.removeprefix(prefix): t.float() for n, t in tensors.items() if n.startswith(prefix)})
    return model.eval().requires_grad_(False)


@torch.no_grad()
def kl_of_each_latent(model: ConvVAE, test: Float[Tensor, "n 1 side side"]) -> Float[Tensor, " latent"]:
    """Mean KL to N(0, 1) of each latent, in nats: one that carries nothing has 0."""
    q = model.encode(test.to(next(model.parameters()).device))
    return (0.5 * (torch.expm1(q.log_var) - q.log_var + q.mean.square())).mean(dim=0).cpu()


def train(folder: str | None = None) -> None:
    """Train all of them and store the checkpoint `vae_digits`. Not resumable: it takes minutes."""
    sets = train_and_test("mnist", 28)
    tensors, metrics, seconds = {}, {}, 0.0
    large = bits(sets[0]), bits(sets[1])
    for kind in ("plane", "digits"):
        found = run(kind, large, progress=False)
        seconds += found.seconds
        tensors |= {f"{kind}.{name}": t for name, t in found.best.state_dict().items()}
        checked = network(kind)
        checked.load_state_dict({name: t.half().float() for name, t in found.best.state_dict().items()})
        terms, test = exam(checked.eval(), large[1]), large[1][:EXAM_PICTURES]
        device = next(checked.parameters()).device
        tight = log_likelihood_bound(checked, test.to(device), EXAM_DRAWS, runtime.generator(1)).mean().item()
        for name, value in (
            ("ELBO", terms.value.mean()),
            ("KL", terms.kl.mean()),
            (f"bound of {EXAM_DRAWS} draws", tight),
        ):
            metrics[f"{name}, {kind}, nats per test picture"] = {"value": round(float(value), 2), "floor": None}
        print(kind, metrics, flush=True)
    small = bits(sets[0], 14), bits(sets[1], 14)
    points = range(CONFIGS["short"].evaluate_every, CONFIGS["short"].steps + 1, CONFIGS["short"].evaluate_every)
    rates, distortions, used = [], [], []
    for beta in BETAS:
        row: list[tuple[float, float, Tensor]] = []
        curves = []
        for seed in SEEDS if beta == 1 else SEEDS[:3]:
            found = run("short", small, seed, beta, progress=False)
            seconds += found.seconds
            terms = exam(found.best, small[1][:EXAM_PICTURES])
            row.append(
                (
                    terms.kl.mean().item(),
                    -terms.reconstruction.mean().item(),
                    kl_of_each_latent(found.best, small[1][:EXAM_PICTURES]),
                )
            )
            curves.append([found.scores[step] for step in points])
        if beta == 1:
            tensors["curves"] = torch.tensor(curves)
            metrics["minus ELBO of the exam, short, five seeds"] = {
                "value": round(tensors["curves"][:, -1].mean().item(), 2),
                "floor": None,
            }
        rates.append([r[0] for r in row[:3]])
        distortions.append([r[1] for r in row[:3]])
        used.append(torch.stack([r[2] for r in row[:3]]))
        print(f"β = {beta}: rates {rates[-1]}, distortions {distortions[-1]}", flush=True)
    tensors |= {
        "steps": torch.tensor(list(points)),
        "rates": torch.tensor(rates),
        "distortions": torch.tensor(distortions),
        "kl_of_each_latent": torch.stack(used),
    }
    config = {
        "networks": {name: dataclasses.asdict(c) for name, c in NETWORKS.items()},
        "training": {name: dataclasses.asdict(c) for name, c in CONFIGS.items()},
        "betas": list(BETAS),
        "seeds": list(SEEDS),
    }
    data = (
        f"{sets[0].name}, binarised at middle grey; the short runs' exam is on the first {EXAM_PICTURES} test pictures"
    )
    card = _card.made(NAME, config=config, seed=SEEDS[0], data=data, seconds=seconds, metrics=metrics)
    print(f"written: {checkpoints.save(NAME, tensors, card)}")
