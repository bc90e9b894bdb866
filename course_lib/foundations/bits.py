"""A diffusion model of black-and-white pictures in which Bayes' rule is all there is: no network and no Gaussian.

Forwards, every bit flips with a small probability per step, until all are coin tosses. Backwards, Bayes' rule tells
which picture may lie behind the noise, and how one step is undone. The chain is exact for a finite set of pictures,
so it returns those pictures only. Source: Sohl-Dickstein et al. 2015 (arXiv 1503.03585), the binomial case of
appendix B.1; Austin et al. 2021 (arXiv 2107.03006), eqs. 3-4.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float64, Real
from torch import Tensor

from course_lib.foundations._checks import probabilities, real, refuse, same_length, whole


class BitState(NamedTuple):
    """Where the way back stands."""

    t: int  # index of the step whose result `bits` are: T-1 at the start (pure noise), -1 at the end (clean)
    bits: Bool[Tensor, "n d"]
    beliefs: Float64[Tensor, "n K"]  # P(picture | bits)


def correlations(flips: Real[Tensor, "T"]) -> Float64[Tensor, "T"]:
    """c_t = Π_{s≤t} (1 - 2 f_s): how much the bits after step t still tell of the first ones.

    A bit is then unchanged with probability (1 + c_t)/2. flips: (T,), each strictly between 0 and 1.
    """
    return torch.cumprod(1 - 2 * _flips(flips, "flips", ("T",)), dim=0)


def flip_bits(
    bits: Bool[Tensor, "*shape"], flip: float | int | Real[Tensor, ""], generator: torch.Generator | None = None
) -> Bool[Tensor, "*shape"]:
    """Each bit turned over with probability `flip`, independently of all others."""
    bits, flip = _bits(bits, "bits"), float(_flips(flip, "flip", ()))
    return bits ^ (torch.rand(bits.shape, generator=generator, dtype=torch.float64) < flip)


def picture_posterior(
    pictures: Bool[Tensor, "K d"],
    bits: Bool[Tensor, "n d"],
    correlation: float | int | Real[Tensor, ""],
    prior: Real[Tensor, "K"] | None = None,
) -> Float64[Tensor, "n K"]:
    """P(picture k | bits): Bayes' rule over K pictures of d bits, of which each has flipped with chance (1 - c)/2.

    correlation: c, between -1 and 1. prior: (K,), all alike by default. Computed with logarithms: the likelihood of a
    thousand bits is too small for a number. Raises ValueError where no picture can have become these bits (|c| = 1).
    """
    pictures, bits = _bits(pictures, "pictures", ("K", "d")), _bits(bits, "bits", ("n", "d"))
    same_length(axis=1, pictures=pictures, bits=bits)
    same = (1 + _correlation(correlation, "correlation")) / 2
    prior = torch.ones(len(pictures)) / len(pictures) if prior is None else prior
    prior = probabilities(prior, "prior", ("K",))
    same_length(prior=prior, pictures=pictures)
    agreeing = _signs(bits) @ _signs(pictures).T / 2 + bits.shape[1] / 2  # how many bits are equal, (n, K)
    log_likelihood = torch.xlogy(agreeing, same) + torch.xlogy(bits.shape[1] - agreeing, 1 - same)
    log_joint = prior.log() + log_likelihood
    impossible = torch.isneginf(log_joint).all(dim=1)
    if impossible.any():
        raise ValueError(
            f"bits[{int(impossible.nonzero()[0])}] cannot have come from any picture with this correlation"
        )
    return torch.softmax(log_joint, dim=1)


def bit_posterior(
    x_t: Bool[Tensor, "*shape"],
    x_start: Bool[Tensor, "*shape"],
    flip: float | int | Real[Tensor, ""],
    correlation_before: float | int | Real[Tensor, ""],
) -> Float64[Tensor, "*shape"]:
    """P(x_{t-1} = 1 | x_t, x_start) for every bit: Bayes' rule for one step back, when the first bits are known.

    Likelihood: from x_{t-1} to x_t the bit flips with probability `flip`, strictly between 0 and 1. Prior: x_{t-1}
    still equals x_start with probability (1 + correlation_before)/2.
    """
    x_t, x_start = _bits(x_t, "x_t"), _bits(x_start, "x_start")
    flip, same = _flips(flip, "flip", ()), (1 + _correlation(correlation_before, "correlation_before")) / 2
    one = torch.where(x_t, 1 - flip, flip) * torch.where(x_start, same, 1 - same)  # P(x_t | 1) P(1 | x_start)
    nought = torch.where(x_t, flip, 1 - flip) * torch.where(x_start, 1 - same, same)  # P(x_t | 0) P(0 | x_start)
    return one / (one + nought)


def reverse_bits(
    pictures: Bool[Tensor, "K d"],
    flips: Real[Tensor, "T"],
    n: int,
    prior: Real[Tensor, "K"] | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[BitState]:
    """From n rows of coin tosses back to pictures, step by step: yields T + 1 states, t = T-1, …, 0, -1.

    One step back draws a picture from what Bayes' rule believes, then x_{t-1} given x_t and that picture: this draws
    from P(x_{t-1} | x_t) exactly. The pictures come out as often as `prior` says, as far as c_T is near 0.
    """
    pictures, flips = _bits(pictures, "pictures", ("K", "d")), _flips(flips, "flips", ("T",))
    kept = correlations(flips)
    bits = torch.rand((whole(n, "n", least=1), pictures.shape[1]), generator=generator) < 0.5
    for t in range(len(flips) - 1, -1, -1):
        beliefs = picture_posterior(pictures, bits, kept[t], prior)
        yield BitState(t, bits, beliefs)
        guess = pictures[torch.multinomial(beliefs, 1, generator=generator)[:, 0]]
        before = kept[t - 1] if t > 0 else 1.0
        ones = bit_posterior(bits, guess, flips[t], before)
        bits = torch.rand(bits.shape, generator=generator, dtype=torch.float64) < ones
    yield BitState(-1, bits, picture_posterior(pictures, bits, 1.0, prior))


def _signs(bits: Tensor) -> Tensor:
    return bits.double() * 2 - 1


def _bits(value: object, name: str, axes: tuple[str, ...] | None = None) -> Tensor:
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a tensor of booleans, got {kind}; x > 0.5 makes one")
    if axes is not None and value.ndim != len(axes):
        raise ValueError(f"{name} must have shape ({', '.join(axes)}), got {tuple(value.shape)}")
    return value


def _flips(value: object, name: str, axes: tuple[str, ...]) -> Tensor:
    flips = real(value, name, axes)
    refuse((flips <= 0) | (flips >= 1), flips, name, "lie strictly between 0 and 1")
    return flips


def _correlation(value: object, name: str) -> Tensor:
    correlation = real(value, name, ())
    refuse(correlation.abs() > 1, correlation, name, "lie between -1 and 1")
    return correlation
