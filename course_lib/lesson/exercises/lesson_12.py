"""Lesson 12, the variational autoencoder: exercises 12.1 to 12.5 with the mistakes that are usually made in them.

The mean of many draws and the walk, 12.1 and 12.5, stand in `latents`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from course_lib.lesson.exercises.latents import LATENT_WALK, LOG_MEAN_EXP
from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.gaussian_latent import kl_to_standard
from course_lib.models.vae import gaussian_log_likelihood, vae_loss


def _n(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))


# --- 12.2 the KL of the encoder --------------------------------------------------------------------------------------


def _draw_latents(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    shape = (_n(2, 6, generator), _n(2, 5, generator))
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def _kl_by_distributions(mean: Tensor, log_var: Tensor) -> Tensor:
    q = Normal(mean.double(), (log_var.double() / 2).exp())
    return kl_divergence(q, Normal(torch.zeros(()).double(), torch.ones(()).double())).sum(dim=1)


def _none_at_the_prior(answer, generator) -> str | None:
    if answer(torch.zeros(2, 3), torch.zeros(2, 3)).abs().max() < 1e-6:
        return None
    return "is not 0 where q is N(0, I) itself, at mean 0 and log_var 0; a distribution is at no distance from itself."


KL_TO_STANDARD = Exercise(
    id="12.2",
    title="KL from the encoder's Gaussian to N(0, I)",
    reference=kl_to_standard,
    independent=_kl_by_distributions,
    draw=_draw_latents,
    properties=(_none_at_the_prior,),
    mistakes=(
        Mistake(
            "mean over the latents",
            lambda mean, log_var: kl_to_standard(mean, log_var) / mean.shape[1],
            "averages over the latents. KLs of independent coordinates add up: sum, or 16 latents cost what one does.",
        ),
        Mistake(
            "log_var read as the variance",
            lambda mean, log_var: 0.5 * (log_var + mean**2 - 1 - log_var.log()).sum(dim=1),
            "uses log_var as if it were the variance. The encoder gives the ln of the variance: σ² = exp(log_var).",
        ),
        Mistake(
            "log_var read as ln of the standard deviation",
            lambda mean, log_var: kl_to_standard(mean, 2 * log_var),
            "treats log_var as ln σ. It is ln σ²: exp(log_var) is the variance already.",
        ),
        Mistake(
            "other direction",
            lambda mean, log_var: 0.5 * ((-log_var).exp() * (1 + mean**2) - 1 + log_var).sum(dim=1),
            "computes KL(N(0, I) ‖ q). The bound has q first: the average is over what the encoder proposes.",
        ),
        Mistake(
            "no half",
            lambda mean, log_var: 2 * kl_to_standard(mean, log_var),
            "is twice too large: the ½ of the Gaussian's exponent is missing.",
        ),
        Mistake(
            "sign",
            lambda mean, log_var: -kl_to_standard(mean, log_var),
            "has the wrong sign. Many programs write -½ Σ (1 + ln σ² - μ² - σ²): with that minus in front.",
        ),
        Mistake(
            "no log term",
            lambda mean, log_var: 0.5 * (log_var.exp() + mean**2 - 1).sum(dim=1),
            "lacks - ln σ². Without it a variance of 0 would cost least, and the encoder would name single points.",
        ),
    ),
    hints=(
        "Equation 12.8, with σ² = exp(log_var) and ln σ² = log_var.",
        "First the term of every latent, shape (batch, latent); then the sum over the last axis.",
        "terms = 0.5 * (log_var.exp() + mean**2 - 1 - log_var); return terms.sum(dim=1)",
    ),
)

# --- 12.3 the Gaussian decoder ---------------------------------------------------------------------------------------


def _draw_reconstruction(generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    shape = (_n(2, 5, generator), 1, _n(2, 5, generator), _n(2, 5, generator))
    mean, x = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    return mean, x, (0.3, 0.05, 2.0)[_n(0, 3, generator)]


def _density_by_distributions(mean: Tensor, x: Tensor, variance: float) -> Tensor:
    return Normal(mean.double(), variance**0.5).log_prob(x.double()).flatten(1).sum(dim=1)


def _gaussian(mean, x, variance, *, power=2, norm=1.0, half=0.5, scale=1.0, reduce=torch.sum):
    """The formula, with one thing bent."""
    terms = half * (x - mean).abs() ** power / variance + norm * 0.5 * math.log(2 * math.pi * variance)
    return -scale * reduce(terms.flatten(1), dim=1)


GAUSSIAN = Exercise(
    id="12.3",
    title="log-likelihood of a picture under a Gaussian decoder",
    reference=gaussian_log_likelihood,
    independent=_density_by_distributions,
    draw=_draw_reconstruction,
    mistakes=(
        Mistake(
            "distance not squared",
            lambda mean, x, variance: _gaussian(mean, x, variance, power=1),
            "uses the distance, not its square. A Gaussian falls like exp(-distance²/2σ²): 0.5 nats at distance 1 with "
            "variance 1, and 2 at distance 2.",
        ),
        Mistake(
            "no normalising term",
            lambda mean, x, variance: _gaussian(mean, x, variance, norm=0.0),
            "lacks ½ ln(2πσ²) for each pixel. Without it a larger variance always looks better.",
        ),
        Mistake(
            "normalising term once",
            lambda mean, x, variance: _gaussian(mean, x, variance, norm=1 / x[0].numel()),
            "counts ½ ln(2πσ²) once per picture. Every pixel has a density of its own: once per pixel.",
        ),
        Mistake(
            "variance as a standard deviation",
            lambda mean, x, variance: _gaussian(mean, x, variance**2),
            "squares the variance. `variance` is σ² already: divide by it as it is. (torch's Normal wants its root.)",
        ),
        Mistake(
            "mean over the pixels",
            lambda mean, x, variance: _gaussian(mean, x, variance, reduce=torch.mean),
            "averages over the pixels. ln of a product of densities is a sum; with the mean, the KL would weigh far "
            "too much.",
        ),
        Mistake(
            "no half at the distance",
            lambda mean, x, variance: _gaussian(mean, x, variance, half=1.0),
            "lacks the ½ in front of the squared distance.",
        ),
        Mistake(
            "sign",
            lambda mean, x, variance: _gaussian(mean, x, variance, scale=-1.0),
            "has the wrong sign: this is the loss, minus the log-likelihood.",
        ),
    ),
    hints=(
        "ln of a product is a sum of ln: compute equation 12.10 for every pixel, then add up over each picture.",
        "(x - mean) ** 2 / variance + math.log(2 * math.pi * variance) for every pixel, and -½ in front of the sum.",
        "flatten(1) puts all pixels of a picture in a row, .sum(dim=1) adds them: shape (batch,).",
    ),
)

# --- 12.4 the loss ---------------------------------------------------------------------------------------------------


def _draw_loss(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    batch, side, latent = _n(2, 5, generator), _n(3, 6, generator), _n(2, 5, generator)
    logits = 2 * torch.randn(batch, 1, side, side, generator=generator)
    bits = (torch.rand(batch, 1, side, side, generator=generator) < 0.4).float()
    mean, log_var = (torch.randn(batch, latent, generator=generator) for _ in range(2))
    return logits, bits, mean, log_var, (1.0, 0.5, 3.0)[_n(0, 3, generator)]


def _loss_by_distributions(logits: Tensor, bits: Tensor, mean: Tensor, log_var: Tensor, beta: float) -> Tensor:
    rows = []
    for row in range(len(bits)):
        likelihood = Bernoulli(logits=logits[row].double()).log_prob(bits[row].double()).sum()
        rows.append(beta * _kl_by_distributions(mean[row : row + 1], log_var[row : row + 1])[0] - likelihood)
    return torch.stack(rows).mean()


def _loss(logits, bits, mean, log_var, beta, *, pixels=1.0, latents=1.0, beta_at="kl", sign=1.0, batch="mean"):
    """The loss, with one thing bent."""
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, bits, reduction="none")
    reconstruction, kl = pixels * cross_entropy.flatten(1).sum(1), latents * kl_to_standard(mean, log_var)
    weights = {"kl": (1.0, beta), "reconstruction": (beta, 1.0), "both": (beta, beta), "none": (1.0, 1.0)}[beta_at]
    found = weights[0] * reconstruction + sign * weights[1] * kl
    return found.mean() if batch == "mean" else found.sum()


def _survives_certainty(answer, generator) -> str | None:
    logits, bits, latent = torch.full((2, 1, 2, 2), 200.0), torch.zeros(2, 1, 2, 2), torch.zeros(2, 1)
    found = answer(logits, bits, latent, latent, 1.0)
    if torch.isfinite(found).all() and abs(found.item() - 800) < 1:
        return None
    return (
        f"gives {found.item():.5g} where the decoder is certain and wrong (logits of 200, bits of 0); 800 is right. "
        "sigmoid rounds to 1 there, and ln(1 - 1) is -∞: use F.binary_cross_entropy_with_logits, or F.logsigmoid."
    )


VAE_LOSS = Exercise(
    id="12.4",
    title="the loss of a VAE",
    reference=vae_loss,
    independent=_loss_by_distributions,
    draw=_draw_loss,
    properties=(_survives_certainty,),
    mistakes=(
        Mistake(
            "mean over pixels and over latents",
            lambda lo, x, m, v, b: _loss(lo, x, m, v, b, pixels=1 / x[0].numel(), latents=1 / m.shape[1]),
            "averages over the pixels and over the latents. The two means divide by different numbers, so the KL "
            "weighs pixels/latents times as much as it should: another β. Sum both.",
        ),
        Mistake(
            "mean over pixels",
            lambda lo, x, m, v, b: _loss(lo, x, m, v, b, pixels=1 / x[0].numel()),
            "averages over the pixels but sums over the latents: the KL weighs as many times too much as there are "
            "pixels. Sum both.",
        ),
        Mistake(
            "mean over latents",
            lambda lo, x, m, v, b: _loss(lo, x, m, v, b, latents=1 / m.shape[1]),
            "averages the KL over the latents. Independent coordinates add up: sum.",
        ),
        Mistake(
            "β on the reconstruction",
            lambda lo, x, m, v, b: _loss(lo, x, m, v, b, beta_at="reconstruction"),
            "multiplies the reconstruction by β. β is the price of a nat of KL.",
        ),
        Mistake(
            "β on both",
            lambda lo, x, m, v, b: _loss(lo, x, m, v, b, beta_at="both"),
            "multiplies everything by β, which changes nothing about the best network. It belongs to the KL alone.",
        ),
        Mistake(
            "β forgotten",
            lambda lo, x, m, v, b: _loss(lo, x, m, v, b, beta_at="none"),
            "takes no notice of β; multiply the KL by it.",
        ),
        Mistake(
            "KL rewarded",
            lambda lo, x, m, v, b: _loss(lo, x, m, v, b, sign=-1.0),
            "subtracts the KL from the cross-entropy: training would drive q as far from the prior as it can. The "
            "bound has the minus, its loss a plus.",
        ),
        Mistake(
            "sum over the batch",
            lambda lo, x, m, v, b: _loss(lo, x, m, v, b, batch="sum"),
            "adds up the pictures of the batch, so that twice the batch is twice the loss. Average over pictures only.",
        ),
    ),
    hints=(
        "Two numbers per picture, each of shape (batch,): cross-entropy of its bits, and the KL. The mean comes last.",
        "F.binary_cross_entropy_with_logits(logits, bits, reduction='none') has the shape of bits: .flatten(1).sum(1).",
        "return (cross_entropy + beta * kl).mean(), with kl of exercise 12.2.",
    ),
)

EXERCISES = (LOG_MEAN_EXP, KL_TO_STANDARD, GAUSSIAN, VAE_LOSS, LATENT_WALK)
