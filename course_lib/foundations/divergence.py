"""How far apart two distributions are: entropy, cross-entropy, Kullback-Leibler, Jensen-Shannon, Wasserstein.

Everything is in nats (natural logarithm) but the Wasserstein distance, which is in the unit of x.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float64, Real
from torch import Tensor

from course_lib.foundations._checks import broadcast, joint_table, not_negative, probabilities, real, same_length
from course_lib.foundations.multivariate import principal_axes

# --- discrete ------------------------------------------------------------------------------------------------------


def entropy(p: Real[Tensor, "*batch n"]) -> Float64[Tensor, "*batch"]:
    """-Σ p ln p in nats along the last axis, with 0 ln 0 = 0: the shortest mean code length for draws from p."""
    p = probabilities(p, "p")
    return -torch.xlogy(p, p).sum(-1)


def cross_entropy(p: Real[Tensor, "*#batch n"], q: Real[Tensor, "*#batch n"]) -> Float64[Tensor, "..."]:
    """-Σ p ln q in nats along the last axis: mean code length for draws from p in a code made for q.

    Infinite where p gives an outcome that q calls impossible.
    """
    p, q = _pair(p, q)
    return -torch.xlogy(p, q).sum(-1)


def kl_discrete(p: Real[Tensor, "*#batch n"], q: Real[Tensor, "*#batch n"]) -> Float64[Tensor, "..."]:
    """KL(p ‖ q) = Σ p ln(p / q) in nats along the last axis, with 0 ln 0 = 0 (Kullback & Leibler 1951, eq. 2.4).

    Infinite where p gives an outcome that q calls impossible. Not symmetric: the extra nats for draws from p.
    """
    p, q = _pair(p, q)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def js_divergence(p: Real[Tensor, "*#batch n"], q: Real[Tensor, "*#batch n"]) -> Float64[Tensor, "..."]:
    """Jensen-Shannon divergence ½ KL(p ‖ m) + ½ KL(q ‖ m), m = (p + q)/2, in nats along the last axis (Lin 1991).

    Symmetric and never infinite: disjoint supports give ln 2, however far apart they lie.
    """
    p, q = _pair(p, q)
    middle = (p + q) / 2
    return (kl_discrete(p, middle) + kl_discrete(q, middle)) / 2


def mutual_information(joint: Real[Tensor, "X Y"]) -> Float64[Tensor, ""]:
    """I(X; Y) = KL(joint ‖ product of its marginals) in nats: 0 exactly for independent variables."""
    joint = joint_table(joint, "joint", ("X", "Y"))
    independent = joint.sum(dim=1, keepdim=True) * joint.sum(dim=0, keepdim=True)
    return kl_discrete(joint.flatten(), independent.flatten())


def wasserstein_1d(
    x: Real[Tensor, "n"],
    y: Real[Tensor, "m"],
    x_weights: Real[Tensor, "n"] | None = None,
    y_weights: Real[Tensor, "m"] | None = None,
) -> Float64[Tensor, ""]:
    """W₁, the mean distance that mass must travel from one distribution on a line to the other, in the unit of x.

    x, y: samples, or positions with masses `x_weights`, `y_weights`, which are divided by their sums. On a line it is
    the area between the two cumulative distribution functions, ∫ |F - G| dx (Villani 2003, section 2.2).
    """
    x, x_share = _points(x, x_weights, "x")
    y, y_share = _points(y, y_weights, "y")
    places, order = torch.cat([x, y]).sort()
    above = torch.cat([x_share, -y_share])[order].cumsum(0)  # F - G to the right of each place
    return (above[:-1].abs() * places.diff()).sum()


# --- Gaussians: the second parameter is a variance or a covariance -------------------------------------------------


def kl_normal(
    mean_p: float | int | Real[Tensor, "*#shape"],
    var_p: float | int | Real[Tensor, "*#shape"],
    mean_q: float | int | Real[Tensor, "*#shape"],
    var_q: float | int | Real[Tensor, "*#shape"],
) -> Float64[Tensor, "..."]:
    """KL(N(mean_p, var_p) ‖ N(mean_q, var_q)) in nats, element by element; shapes broadcast, gradients flow.

    ½ (ln σ_q² - ln σ_p² + (σ_p² + (μ_p - μ_q)²) / σ_q² - 1), with variances. A variance of 0 is a point mass: the
    answer is then 0 for two equal point masses and infinite for anything else.
    """
    mean_p, var_p, mean_q, var_q = broadcast(
        mean_p=real(mean_p, "mean_p"),
        var_p=not_negative(var_p, "var_p"),
        mean_q=real(mean_q, "mean_q"),
        var_q=not_negative(var_q, "var_q"),
    )
    spread = (var_p > 0) & (var_q > 0)
    same_point = (var_p == 0) & (var_q == 0) & (mean_p == mean_q)
    var_p, var_q = torch.where(spread, var_p, 1.0), torch.where(spread, var_q, 1.0)
    kl = 0.5 * (torch.log(var_q) - torch.log(var_p) + (var_p + (mean_p - mean_q) ** 2) / var_q - 1)
    return torch.where(spread, kl, torch.where(same_point, 0.0, math.inf))


def kl_diagonal(
    mean_p: float | int | Real[Tensor, "*#batch_d"],
    var_p: float | int | Real[Tensor, "*#batch_d"],
    mean_q: float | int | Real[Tensor, "*#batch_d"],
    var_q: float | int | Real[Tensor, "*#batch_d"],
) -> Float64[Tensor, "..."]:
    """KL in nats between Gaussians with diagonal covariances: `kl_normal` summed over the last axis, (…, d) -> (…).

    Independent coordinates add up; var_p and var_q hold the variance of each. Shapes broadcast.
    """
    kl = kl_normal(mean_p, var_p, mean_q, var_q)
    if kl.ndim == 0:
        raise ValueError(
            "kl_diagonal sums over the last axis, but all four arguments are single numbers: use kl_normal"
        )
    return kl.sum(-1)


def kl_multivariate(
    mean_p: Real[Tensor, "d"], cov_p: Real[Tensor, "d d"], mean_q: Real[Tensor, "d"], cov_q: Real[Tensor, "d d"]
) -> Float64[Tensor, ""]:
    """KL(N(mean_p, cov_p) ‖ N(mean_q, cov_q)) in nats, for any covariances, singular ones included.

    ½ (tr(Σ_q⁻¹ Σ_p) - d - ln(|Σ_p| / |Σ_q|) + (μ_p - μ_q)ᵀ Σ_q⁻¹ (μ_p - μ_q)). A singular covariance confines its
    Gaussian to a flat: the answer is infinite unless both fill the same flat, and then it is computed within.
    Raises ValueError for a matrix that is no covariance.
    """
    mean_p, mean_q = real(mean_p, "mean_p", ("d",)), real(mean_q, "mean_q", ("d",))
    axes_p, axes_q = principal_axes(cov_p, "cov_p"), principal_axes(cov_q, "cov_q")
    sizes = [len(mean_p), len(axes_p.scale), len(mean_q), len(axes_q.scale)]
    if len(set(sizes)) > 1:
        raise ValueError(f"mean_p, cov_p, mean_q and cov_q must have the same number of variables, got {sizes}")
    infinite = mean_p.new_tensor(math.inf)
    if len(axes_p.variances) != len(axes_q.variances):
        return infinite  # one of them fills more dimensions than the other
    spread, missed = axes_q.coordinates(axes_p.root)  # p as q sees it: q's own covariance is I there
    rounding = 1e-8 + 1e-13 / axes_p.variances  # the less p varies along a direction, the less exactly it is known
    if (missed.norm(dim=0) > rounding * (axes_p.root / axes_q.scale[:, None]).norm(dim=0)).any():
        return infinite  # two flats of different directions
    shift, missed = axes_q.coordinates((mean_p - mean_q)[:, None])
    if missed.norm() > 1e-9 * ((mean_p.abs() + mean_q.abs()) / axes_q.scale).norm():
        return infinite  # two parallel flats
    log_det = 2 * torch.linalg.slogdet(spread).logabsdet
    return 0.5 * (spread.square().sum() - len(spread) - log_det + shift.square().sum())


def _pair(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    p, q = probabilities(p, "p"), probabilities(q, "q")
    same_length(axis=-1, p=p, q=q)
    return broadcast(p=p, q=q)


def _points(x: Tensor, weights: Tensor | None, name: str) -> tuple[Tensor, Tensor]:
    x = real(x, name, ("n",))
    if not len(x):
        raise ValueError(f"{name} must hold at least one value, got none")
    if weights is None:
        return x, torch.full_like(x, 1 / len(x))
    weights = not_negative(weights, f"{name}_weights", ("n",))
    same_length(**{name: x, f"{name}_weights": weights})
    if not weights.any():
        raise ValueError(f"{name}_weights must not all be 0")
    return x, weights / weights.sum()
