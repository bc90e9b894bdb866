"""The unCLIP prior of the shapes: from a sentence to a CLIP image embedding.

The loss is that of x_start, each term over the variance that is left once x_t is seen: the steps near the end, which
decide how much pictures of one caption differ, count as much as the first ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_lib import runtime
from course_lib.data import ByteTokenizer, shapes
from course_lib.diffusion import q_sample
from course_lib.evaluation.faithfulness import unseen_prompts
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.models.clip import CLIP
from course_lib.models.conditions import text_condition
from course_lib.models.prior import Prior, PriorConfig, draw_embeddings
from course_lib.recipes import clip_shapes
from course_lib.recipes._first_guess import GUESS, fit_guess
from course_lib.recipes._shape_captions import DATA, SCENES, EmbeddedShapes, one_wording
from course_lib.recipes._weights import Round, fit_rounds, load_into, ship, take_over
from course_lib.training import Draws, FitConfig, Fitted

NAME = "prior_shapes"
DROPPED = 0.1
NETWORK = PriorConfig()
ROUNDS = (
    Round(NETWORK, FitConfig(steps=1_800, batch_size=128, learning_rate=1e-3, warmup=200, ema=0.998, save_every=120.0)),
)


def new(seed: int = 0, config: PriorConfig = NETWORK) -> Prior:
    """An untrained network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Prior(config)


def prior_loss(prior: Prior, embeddings: Tensor, text: Any, draws: Draws, dropped: float = DROPPED) -> Tensor:
    """The mean weighed loss for image embeddings of length 1 and their sentences, a share `dropped` withheld."""
    text = text.kept(draws.uniform() >= dropped)
    plain = getattr(prior, "module", prior)  # .module: what several GPUs share
    x_start = plain.config.dim**0.5 * embeddings.float()
    t, noise = draws.integers(plain.config.T), draws.normal(x_start.shape[1])
    errors = (prior(q_sample(plain.schedule, x_start, t, noise), t, text).float() - x_start) ** 2
    with torch.no_grad():
        left = plain.left(t, plain.guess(text)[1])
    return (errors / left).mean()


def load(device: torch.device | str | None = None) -> Prior:
    """The shipped prior, frozen, in float32. Raises CheckpointError where it is missing or damaged."""
    return load_into(new(), NAME, device).freeze()


def spread_ratio(drawn: Tensor, real: Tensor) -> float:
    """Total variance of drawn embeddings of one caption over that of real ones; both (n, dim)."""
    return (drawn.var(dim=0).sum() / real.var(dim=0).sum()).item()


@torch.no_grad()
def measure(
    prior: Prior, clip: CLIP, n: int = 200, captions: int = 12, each: int = 60, seed: int = 10**6
) -> dict[str, Any]:
    """The card's metrics: nearness to the true embedding, one draw against two, and the spread within a caption."""
    specs, metrics = unseen_prompts(n, seed), {}
    real = embed_images(clip, shapes.render(specs, seed=seed).images)
    text = text_condition(clip, [shapes.caption(spec) for spec in specs])
    generator = runtime.generator(seed, real.device)
    one, two = (draw_embeddings(prior, text, draws=k, generator=generator) for k in (1, 2))
    shuffled = (text.embedding.roll(1, dims=0) * real).sum(1).mean().item()

    def told(name: str, value: float, floor: float | None) -> None:
        metrics[name] = {"value": round(value, 4), "floor": None if floor is None else round(floor, 4)}

    to_text = (text.embedding * real).sum(1).mean().item()
    told(f"cosine of the text embedding to the true image embedding (n = {n})", to_text, shuffled)
    told(f"cosine of a prior sample to the true image embedding (n = {n})", (two * real).sum(1).mean().item(), to_text)
    for name, found in (("one draw", one), ("the closer of two draws", two)):
        told(f"score with the text, {name} (n = {n})", (found * text.embedding).sum(1).mean().item(), None)
    told("score with the text, real embeddings", to_text, None)
    for steps, name in ((25, "drawn in 25 steps"), (1, "guessed in one step")):
        ratios = []
        for k, spec in enumerate(specs[:captions]):
            same = text_condition(clip, [shapes.caption(spec)] * each)
            drawn = draw_embeddings(prior, same, draws=1, steps=steps, generator=generator)
            there = embed_images(clip, shapes.render([spec] * each, seed=seed + k).images)
            ratios.append(spread_ratio(drawn, there))
        mean = sum(ratios) / len(ratios)
        told(f"variance within a caption over the real one, {name}, mean of {captions}", mean, 1.0)
        told(f"the same, smallest, {name}", min(ratios), 1.0)
        told(f"the same, largest, {name}", max(ratios), 1.0)
    return metrics


@torch.no_grad()
def sentences(clip: CLIP, data: EmbeddedShapes, seed: int, batch: int = 1000) -> Tensor:
    """One embedding (n, dim) per scene, of a wording drawn for it."""
    wording = torch.randint(data.ids.shape[1], (len(data),), generator=runtime.generator(seed))
    ids = data.ids[torch.arange(len(data)), wording].long()
    with runtime.autocast(clip.log_scale.device):
        parts = [part.to(clip.log_scale.device) for part in ids.split(batch)]
        return torch.cat([clip.encode_text(part, part != ByteTokenizer.pad).float().cpu() for part in parts])


def run(rounds: Sequence[Round] = ROUNDS, folder: Any = None, scenes: int = SCENES, guess: FitConfig = GUESS) -> Fitted:
    """Train it: the first guess alone, then all of it."""
    clip = clip_shapes.load()
    data = EmbeddedShapes(clip, scenes, rounds[0].fit.seed)

    def loss(prior: Prior, batch: tuple[Tensor, Tensor, Tensor], draws: Draws) -> Tensor:
        _, ids, embeddings = batch
        return prior_loss(prior, embeddings, one_wording(clip, ids, draws), draws)

    guessing = new(rounds[0].fit.seed)
    seconds = fit_guess(guessing, sentences(clip, data, rounds[0].fit.seed), data.embeddings, folder, guess)

    def first(seed: int, network: PriorConfig) -> Prior:
        return take_over(new(seed, network), guessing.state_dict())

    found = fit_rounds(rounds, first, loss, data, folder)
    return dataclasses.replace(found, seconds=found.seconds + seconds)


def train(folder: Path | str | None = None, rounds: Sequence[Round] = ROUNDS) -> None:
    """Train it (resumable, state in `folder`), measure it, and store the checkpoint `prior_shapes` with its card."""
    found, clip = run(rounds, Path(folder or runtime.state_root() / "runs" / NAME)), clip_shapes.load()
    ship(NAME, found, rounds, clip=clip, data=DATA, measure=lambda: measure(load(), clip))
