"""The first training of a prior: its guess from the sentence alone, by maximum likelihood, without any diffusion.

A small network, trained on pairs of embeddings in a minute or two; then all of the prior is trained from there. Its
variance shrinks by that. Kept as it was fitted, the draws of `prior_shapes` had 1.66 times the variance they should.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from course_lib.models.prior import FirstGuess, Prior
from course_lib.training import Draws, FitConfig, fit

GUESS = FitConfig(steps=6_000, batch_size=512, learning_rate=1e-3, warmup=100, weight_decay=0.01, ema=0.999)


def guess_loss(first: FirstGuess, batch: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
    """Minus the log-likelihood of image embeddings given the sentences', both of length 1: nats per number."""
    sentence, image = (part.float() * part.shape[1] ** 0.5 for part in batch)
    mean, variance = first(sentence)
    return F.gaussian_nll_loss(mean, image, variance)


def fit_guess(
    prior: Prior, sentences: Tensor, images: Tensor, folder: Path | str | None, config: FitConfig = GUESS
) -> float:
    """Train the prior's first guess in place on pairs of embeddings (n, dim); returns the seconds it took."""

    def batches(index: Tensor) -> tuple[Tensor, Tensor]:
        return sentences[index], images[index]

    place = folder and Path(folder) / "first_guess"
    found = fit(prior.first, guess_loss, batches, len(images), config, folder=place)
    prior.first.load_state_dict(found.best.state_dict())
    return found.seconds
