"""The kernel distance of two sets of pictures: unbiased, so that sets of different size may be compared."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

CHUNK = 1_000  # rows of the kernel matrix in memory at once


class KernelDistance(NamedTuple):
    """The mean of `blocks` independent estimates, each from two sets of `size` pictures, and its standard error."""

    value: float
    standard_error: float
    blocks: int
    size: int


def cubic_kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    """(x·y / d + 1)³ for each x and each y. Bińkowski et al. 2018, arXiv:1801.01401, eq. 3."""
    return (x.double() @ y.double().T / x.shape[1] + 1) ** 3


def mmd_squared(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """The unbiased estimate of MMD², the squared distance of two distributions in the cubic kernel's space.

    Mean of k(a_i, a_j) over i ≠ j, plus that of k(b_i, b_j), less twice that of k(a_i, b_j). Its mean over many
    pairs of sets is the true value whatever n and m are, so near 0 it is negative half of the time. Gretton et al.
    2012, lemma 6; with this kernel Bińkowski et al. 2018, arXiv:1801.01401. Raises ValueError for sets that do not fit.
    """
    _check(a, b)
    a, b = a.cpu(), b.cpu()
    n, m = len(a), len(b)
    within_a = (_kernel_sum(a, a) - _own_kernels(a)) / (n * (n - 1))
    within_b = (_kernel_sum(b, b) - _own_kernels(b)) / (m * (m - 1))
    return within_a + within_b - 2 * _kernel_sum(a, b) / (n * m)


def kernel_distance(
    a: Float[Tensor, "n d"], b: Float[Tensor, "m d"], blocks: int = 10, seed: int = 0
) -> KernelDistance:
    """Kernel distance (KID) of two sets of feature vectors with a standard error, n and m need not be equal.

    Both sets are shuffled by `seed` and dealt out to `blocks` pairs of blocks that share no picture; what is left over
    is not used. Each pair gives one unbiased estimate of MMD². They are independent, so the standard error of their
    mean is their standard deviation over √blocks. (Other code draws overlapping blocks and reports the standard
    deviation of a single one.) Raises ValueError for fewer than 2 blocks, or fewer than 2 pictures in one.
    """
    _check(a, b)
    size = min(len(a), len(b)) // blocks if blocks > 0 else 0
    if blocks < 2 or size < 2:
        raise ValueError(
            f"blocks={blocks} does not suit n={len(a)} and m={len(b)}: it takes at least 2 blocks, for the standard "
            "error, of at least 2 pictures"
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = [x[torch.randperm(len(x), generator=generator).to(x.device)][: blocks * size] for x in (a, b)]
    pairs = zip(*(x.split(size) for x in shuffled), strict=True)
    found = torch.tensor([mmd_squared(x, y) for x, y in pairs], dtype=torch.float64)
    return KernelDistance(found.mean().item(), found.std().item() / math.sqrt(blocks), blocks, size)


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    return sum(cubic_kernel(rows, y).sum().item() for rows in x.split(CHUNK))


def _own_kernels(x: Tensor) -> float:
    """Sum of k(x_i, x_i)."""
    return ((x.double().square().sum(dim=1) / x.shape[1] + 1) ** 3).sum().item()


def _check(a: Tensor, b: Tensor) -> None:
    for name, x in (("a", a), ("b", b)):
        if x.ndim != 2 or len(x) < 2 or x.shape[1] < 1:
            raise ValueError(f"{name} must have shape (n, d) with n ≥ 2 and d ≥ 1, not {tuple(x.shape)}")
        if not torch.isfinite(x).all():
            raise ValueError(f"{name} holds values that are not finite; look at the pictures they came from")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a has {a.shape[1]} features and b has {b.shape[1]}; take both from the same network")
