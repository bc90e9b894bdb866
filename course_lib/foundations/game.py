"""The game behind a GAN, on tables of probabilities: its value, the best discriminator, what is left then.

Goodfellow et al. 2014, arXiv:1406.2661, sections 3 and 4. Everything in nats.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64, Real
from torch import Tensor

from course_lib.foundations._checks import broadcast, not_negative, probabilities, real, same_length


def game_value(
    p_data: Real[Tensor, "*#batch n"], p_model: Real[Tensor, "*#batch n"], d: Real[Tensor, "..."] | float | int
) -> Float64[Tensor, "..."]:
    """V(G, D) = Σ p_data ln D + Σ p_model ln(1 - D) along the last axis, in nats (eq. 1).

    d, from 0 to 1, is the probability of "real" that the discriminator gives each outcome, or one number for all. The
    discriminator wants V high, the generator wants it low. -inf where the discriminator is sure and wrong; 0 ln 0 = 0.
    Raises ValueError for tables that are no probabilities.
    """
    p_data, p_model = probabilities(p_data, "p_data"), probabilities(p_model, "p_model")
    d = real(d, "d")
    if not ((d >= 0) & (d <= 1)).all():
        raise ValueError("d must lie between 0 and 1: give probabilities of 'real', which are the sigmoid of a score")
    same_length(-1, p_data=p_data, p_model=p_model)
    p_data, p_model, d = broadcast(p_data=p_data, p_model=p_model, d=d)
    return torch.xlogy(p_data, d).sum(-1) + torch.xlogy(p_model, 1 - d).sum(-1)


def optimal_discriminator(p_data: Real[Tensor, "*#batch"], p_model: Real[Tensor, "*#batch"]) -> Float64[Tensor, "..."]:
    """D* = p_data / (p_data + p_model): the discriminator that makes V largest (proposition 1). Shapes broadcast.

    Of probabilities or of densities, each at the same places. Where both are 0, nothing is ever seen, and it says ½.
    With it V is 2 JS(p_data, p_model) - ln 4, and only with it.
    """
    p_data, p_model = broadcast(p_data=not_negative(p_data, "p_data"), p_model=not_negative(p_model, "p_model"))
    total = p_data + p_model
    return torch.where(total > 0, p_data / torch.where(total > 0, total, 1.0), 0.5)
