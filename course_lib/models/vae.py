"""The variational autoencoder: an encoder that guesses the latent, a decoder that draws from it, one bound for both.

ln p(x) ≥ E_q ln p(x|z) - KL(q(z|x) ‖ p(z)), with p(z) = N(0, I) and q(z|x) a Gaussian with independent coordinates.
All terms are in nats for a whole example: summed over its pixels and its latents, never averaged over them.
Kingma & Welling 2013, arXiv:1312.6114; Rezende, Mohamed, Wierstra 2014, arXiv:1401.4082.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.models.gaussian_latent import DiagonalGaussian

Likelihood = Literal["bernoulli", "gaussian"]


class Elbo(NamedTuple):
    """The two terms of the bound for each example, in nats."""

    reconstruction: Float[Tensor, " batch"]  # ln p(x|z) at the one z that was drawn
    kl: Float[Tensor, " batch"]  # KL(q(z|x) ‖ N(0, I)): the rate

    @property
    def value(self) -> Float[Tensor, " batch"]:
        """The bound itself: at most ln p(x), on average over the draws of z."""
        return self.reconstruction - self.kl

    def loss(self, beta: float | int = 1.0) -> Float[Tensor, ""]:
        """-(reconstruction - β kl), mean over the batch. β = 1 is the VAE, others Higgins et al. 2017's β-VAE."""
        return (beta * self.kl - self.reconstruction).mean()


def bernoulli_log_likelihood(
    logits: Float[Tensor, "batch *shape"], bits: Float[Tensor, "batch *shape"]
) -> Float[Tensor, " batch"]:
    """Σ [x ln p + (1 - x) ln(1 - p)] in nats over the pixels of each picture, p = sigmoid(logits), every x 0 or 1.

    Raises ValueError for grey pixels: on values between 0 and 1 this is no log-likelihood of anything.
    """
    if not ((bits == 0) | (bits == 1)).all():
        found = f"{bits.min().item():.3g} … {bits.max().item():.3g}"
        raise ValueError(
            f"bits must hold 0 and 1 only, but holds other values ({found}); use `binarise(images)`, or a Gaussian "
            f"likelihood for grey pixels"
        )
    return -F.binary_cross_entropy_with_logits(logits.float(), bits.float(), reduction="none").flatten(1).sum(dim=1)


def gaussian_log_likelihood(
    mean: Float[Tensor, "batch *shape"],
    x: Float[Tensor, "batch *shape"],
    variance: float | int | Float[Tensor, ""],
) -> Float[Tensor, " batch"]:
    """ln N(x; mean, variance · I) in nats, summed over the values of each example; one variance for all of them.

    A density: the number depends on the unit of x, and may exceed 0. Raises ValueError for a variance that is not
    positive.
    """
    variance = torch.as_tensor(variance, device=mean.device)
    if not (variance > 0).all():
        raise ValueError(f"variance={variance.item():.6g} must be positive")
    squared = (x.float() - mean.float()).square().flatten(1)
    return -0.5 * (squared.sum(dim=1) / variance + squared.shape[1] * torch.log(2 * math.pi * variance))


def vae_loss(
    logits: Float[Tensor, "batch *shape"],
    bits: Float[Tensor, "batch *shape"],
    mean: Float[Tensor, "batch latent"],
    log_var: Float[Tensor, "batch latent"],
    beta: float | int = 1.0,
) -> Float[Tensor, ""]:
    """Minus the ELBO of bits, with β on its KL term, in nats: sums over pixels and latents, the mean over the batch.

    `logits` are the decoder's, mean and log_var the encoder's. Kingma & Welling 2013, eq. 10; Higgins et al. 2017.
    """
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    reconstruction = (bits * log_p + (1 - bits) * log_not_p).flatten(1).sum(dim=1)
    kl = 0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum(dim=1)
    return (beta * kl - reconstruction).mean()


def log_mean_exp(values: Float[Tensor, "draws batch"]) -> Float[Tensor, " batch"]:
    """ln of the mean of exp(values) over the first axis, without an exp that could leave the range of numbers."""
    largest = values.amax(dim=0)
    return largest + (values - largest).exp().mean(dim=0).log()


def latent_walk(
    start: Float[Tensor, " latent"], end: Float[Tensor, " latent"], steps: int
) -> Float[Tensor, "steps latent"]:
    """`steps` points on the straight line from `start` to `end`, evenly spaced, both ends included."""
    if steps < 2:
        raise ValueError(f"steps={steps} must be at least 2: a walk has two ends")
    share = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[:, None]
    return (1 - share) * start + share * end


def binarise(
    images: Float[Tensor, "*shape"], uniform: Float[Tensor, "*shape"] | None = None
) -> Float[Tensor, "*shape"]:
    """Pictures in [-1, 1] to bits, 0 or 1 as floats: bright pixels become 1.

    Without `uniform` a pixel is 1 where it is brighter than middle grey. With it, random numbers from 0 to 1, a pixel
    is 1 with a probability that is its brightness (Salakhutdinov & Murray 2008). ValueError for other ranges.
    """
    if images.numel() and (images.min() < -1 or images.max() > 1):
        found = f"{images.min().item():.3g} … {images.max().item():.3g}"
        raise ValueError(f"images must lie in [-1, 1], but reach {found}; clamp them or rescale them first")
    if uniform is None:
        return (images > 0).to(images.dtype)
    return (uniform < (images + 1) / 2).to(images.dtype)


class VAE(nn.Module):
    """An encoder x -> (batch, 2 · latent), a decoder z -> x's shape, and what the decoder's numbers mean.

    `likelihood`: "bernoulli" for bits, the decoder gives logits; "gaussian" for numbers, it gives their means, and
    one variance for all of them, `variance`, is learned as `log_variance` (the σ-VAE: Rybkin, Daniilidis, Levine 2021,
    arXiv:2006.13202), or stays as it is with `learn_variance=False`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        latent: int,
        likelihood: Likelihood = "gaussian",
        *,
        variance: float | int = 0.1,
        learn_variance: bool = True,
    ) -> None:
        super().__init__()
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"likelihood={likelihood!r} is not known; use 'bernoulli' or 'gaussian'")
        if latent < 1:
            raise ValueError(f"latent={latent} must be at least 1")
        if not variance > 0:
            raise ValueError(f"variance={variance} must be positive")
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.latent_shape = (latent,)
        if likelihood == "gaussian":
            log_variance = torch.tensor(math.log(variance))
            if learn_variance:
                self.log_variance = nn.Parameter(log_variance)
            else:
                self.register_buffer("log_variance", log_variance)

    @property
    def variance(self) -> Float[Tensor, ""]:
        """The variance of every value around its mean. AttributeError for bits, which have none of their own."""
        return self.log_variance.exp()

    def encode(self, x: Float[Tensor, "batch ..."]) -> DiagonalGaussian:
        """q(z|x): where the latent of each example lies, as far as the encoder can say."""
        mean, log_var = self.encoder(x).float().chunk(2, dim=1)
        return DiagonalGaussian(mean, log_var)

    def raw(self, z: Float[Tensor, "batch *latent"]) -> Float[Tensor, "batch ..."]:
        """The decoder's own numbers: logits of bits, or means."""
        if z.shape[1:] != self.latent_shape:
            raise ValueError(
                f"z has shape {tuple(z.shape)}; it needs (batch, {', '.join(map(str, self.latent_shape))})"
            )
        return self.decoder(z)

    def decode(self, z: Float[Tensor, "batch *latent"]) -> Float[Tensor, "batch ..."]:
        """The mean of p(x|z): for bits the probability of a 1; what is shown as "the" picture, without its noise."""
        raw = self.raw(z).float()
        return raw.sigmoid() if self.likelihood == "bernoulli" else raw

    def log_likelihood(
        self, x: Float[Tensor, "batch ..."], z: Float[Tensor, "batch *latent"]
    ) -> Float[Tensor, " batch"]:
        """ln p(x|z) in nats, for each example."""
        raw = self.raw(z)
        if raw.shape != x.shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, but the decoder gives {tuple(raw.shape)}")
        if self.likelihood == "bernoulli":
            return bernoulli_log_likelihood(raw, x)
        return gaussian_log_likelihood(raw, x, self.variance)

    def forward(self, x: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch *latent"]) -> Elbo:
        """Both terms of the bound, with the one latent z = mean + std · noise for each example."""
        posterior = self.encode(x)
        return Elbo(self.log_likelihood(x, posterior.sample(noise)), posterior.kl())

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, *, noisy: bool = False
    ) -> Float[Tensor, "n ..."]:
        """n examples: z from the prior N(0, I), then the mean of p(x|z), which is what people show of a VAE.

        `noisy=True` draws x from p(x|z), as the model means it: bits, or the mean with its noise.
        """
        where = next(self.parameters()).device
        source = generator.device if generator is not None else where
        z = torch.randn(n, *self.latent_shape, generator=generator, device=source)
        mean = self.decode(z.to(where))
        if not noisy:
            return mean
        if self.likelihood == "bernoulli":
            return (torch.rand(mean.shape, generator=generator, device=source).to(where) < mean).to(mean.dtype)
        noise = torch.randn(mean.shape, generator=generator, device=source).to(where)
        return mean + self.variance.sqrt() * noise


def log_likelihood_bound(
    model: VAE, x: Float[Tensor, "batch ..."], draws: int, generator: torch.Generator | None = None
) -> Float[Tensor, " batch"]:
    """ln (1/K) Σ p(x|z_k) p(z_k) / q(z_k|x), K = `draws`, z_k ~ q: a tighter bound on ln p(x), in nats.

    K = 1 is the ELBO; the mean grows with K towards ln p(x). Burda, Grosse, Salakhutdinov 2016, arXiv:1509.00519.
    """
    if draws < 1:
        raise ValueError(f"draws={draws} must be at least 1")
    with torch.no_grad():
        posterior, found = model.encode(x), []
        for _ in range(draws):
            noise = torch.randn(posterior.mean.shape, generator=generator).to(x.device)
            z = posterior.sample(noise)
            log_ratio = 0.5 * (noise.square() + posterior.log_var - z.square()).flatten(1).sum(
                dim=1
            )  # ln p(z) - ln q(z|x)
            found.append(model.log_likelihood(x, z) + log_ratio)
    return log_mean_exp(torch.stack(found))
