"""Bayes' rule on tables and on Gaussians, and the chain rule that cuts a joint distribution into conditionals.

Source: Bishop 2006, Pattern Recognition and Machine Learning, sections 1.2 and 2.3.6.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int, Real
from torch import Tensor

from course_lib.foundations._checks import joint_table, positive, probabilities, real, same_length


def bayes_rule(
    prior: Real[Tensor, "H"], likelihood: Real[Tensor, "H X"]
) -> tuple[Float64[Tensor, "H X"], Float64[Tensor, "X"]]:
    """Posterior P(h | x), one column per outcome x, and evidence P(x), from P(h) and P(x | h).

    prior: (H,), sums to 1. likelihood: (H, X), each row sums to 1. Every column of the posterior sums to 1.
    Raises ValueError where an outcome has evidence 0: it cannot happen, so it has no posterior.
    """
    prior, likelihood = probabilities(prior, "prior", ("H",)), probabilities(likelihood, "likelihood", ("H", "X"))
    same_length(prior=prior, likelihood=likelihood)
    joint = prior[:, None] * likelihood  # P(h, x)
    evidence = joint.sum(dim=0)  # P(x)
    _check_evidence(evidence)
    return joint / evidence, evidence


def sequential_update(
    prior: Real[Tensor, "H"], likelihood: Real[Tensor, "H X"], observations: Int[Tensor, "n"]
) -> Float64[Tensor, "n_plus_1 H"]:
    """Beliefs after 0, 1, …, n independent observations: each posterior is the prior of the next. (n + 1, H).

    observations: (n,) outcomes 0…X-1. Computed with logarithms, so that a belief may fall below 1e-308 and recover.
    Raises ValueError where an observation is impossible under every hypothesis that is left.
    """
    prior, likelihood = probabilities(prior, "prior", ("H",)), probabilities(likelihood, "likelihood", ("H", "X"))
    same_length(prior=prior, likelihood=likelihood)
    _check_outcomes(observations, likelihood.shape[1])
    per_observation = torch.log(likelihood[:, observations]).T  # (n, H)
    log_joint = torch.cat([torch.log(prior)[None], per_observation]).cumsum(dim=0)
    impossible = torch.isneginf(log_joint).all(dim=1)
    if impossible.any():
        first = int(impossible.nonzero()[0]) - 1
        raise ValueError(
            f"observations[{first}] = {int(observations[first])} has evidence 0: no hypothesis that is left can "
            "produce it. Give every hypothesis that may be true a prior above 0."
        )
    return torch.softmax(log_joint, dim=1)


def normal_posterior(
    prior_mean: float | int | Real[Tensor, ""],
    prior_var: float | int | Real[Tensor, ""],
    observations: Real[Tensor, "n"],
    noise_var: float | int | Real[Tensor, ""],
) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Posterior mean and variance of an unknown mean, seen n times through Gaussian noise of known variance.

    Prior N(prior_mean, prior_var); each observation ~ N(mean, noise_var). Precisions (1/variance) add up, and the
    posterior mean weighs prior and data by theirs (Bishop 2006, eq. 2.141-2.142). Both variances must be positive.
    """
    prior_mean, prior_var = real(prior_mean, "prior_mean", ()), positive(prior_var, "prior_var", ())
    observations, noise_var = real(observations, "observations", ("n",)), positive(noise_var, "noise_var", ())
    precision = 1 / prior_var + len(observations) / noise_var
    mean = (prior_mean / prior_var + observations.sum() / noise_var) / precision
    return mean, 1 / precision


# --- the chain rule ------------------------------------------------------------------------------------------------


def conditional(joint: Real[Tensor, "..."], given: Sequence[int]) -> Float64[Tensor, "..."]:
    """P(all other axes | the axes in `given`), in the shape of `joint`, from a table with one axis per variable.

    Where the condition has probability 0 the conditional is not defined; the table holds zeros there.
    """
    joint = joint_table(joint, "joint")
    given = [_axis(axis, joint.ndim) for axis in given]
    others = [axis for axis in range(joint.ndim) if axis not in given]
    if not others:
        raise ValueError(f"given names all {joint.ndim} axes of joint, so nothing is left to have a distribution")
    condition = joint.sum(dim=others, keepdim=True)
    return torch.where(condition > 0, joint / torch.where(condition > 0, condition, 1.0), 0.0)


def chain_factors(joint: Real[Tensor, "..."]) -> list[Float64[Tensor, "..."]]:
    """[P(a), P(b | a), P(c | a, b), …]: factor k has the first k + 1 axes of `joint`.

    Another order of the variables: `chain_factors(joint.permute(…))`. Rows whose condition has probability 0 are 0.
    """
    joint = joint_table(joint, "joint")
    leading = [joint.sum(dim=list(range(k, joint.ndim))) for k in range(1, joint.ndim)]  # P(a), P(a, b), …
    return [conditional(table, range(k)) for k, table in enumerate([*leading, joint])]


def chain_product(factors: Sequence[Real[Tensor, "..."]]) -> Float64[Tensor, "..."]:
    """The joint table P(a) P(b | a) P(c | a, b) … from the factors that `chain_factors` makes."""
    if not factors:
        raise ValueError("factors must hold at least P(a), got none")
    joint = torch.ones((), dtype=torch.float64)
    for k, factor in enumerate(factors):
        factor = real(factor, f"factors[{k}]")
        if factor.ndim != k + 1 or factor.shape[:-1] != joint.shape:
            wanted = ", ".join([*map(str, joint.shape), "any size"])
            raise ValueError(f"factors[{k}] must have shape ({wanted}), got {tuple(factor.shape)}")
        joint = joint[..., None] * factor
    return joint


# --- checks --------------------------------------------------------------------------------------------------------


def _axis(axis: int, ndim: int) -> int:
    if not 0 <= axis < ndim:
        raise ValueError(f"given must name axes 0…{ndim - 1} of joint, got {axis}")
    return axis


def _check_evidence(evidence: Tensor) -> None:
    if not evidence.all():
        outcome = int((evidence == 0).nonzero()[0])
        raise ValueError(
            f"likelihood gives outcome {outcome} evidence 0: no hypothesis with a prior above 0 can produce it, so "
            "P(h | x) is 0/0 there. Leave that column out, or give the hypothesis that explains it some prior."
        )


def _check_outcomes(observations: Tensor, count: int) -> None:
    if not isinstance(observations, Tensor) or observations.dtype not in (torch.int64, torch.int32, torch.uint8):
        kind = observations.dtype if isinstance(observations, Tensor) else type(observations).__name__
        raise TypeError(f"observations must be a tensor of whole numbers, got {kind}")
    if observations.ndim != 1:
        raise ValueError(f"observations must have shape (n,), got {tuple(observations.shape)}")
    if len(observations) and not 0 <= int(observations.min()) <= int(observations.max()) < count:
        raise ValueError(f"observations must lie in 0…{count - 1}, got {observations.tolist()}")
