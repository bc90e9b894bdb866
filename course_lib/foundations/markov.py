"""Markov chains: where the next state depends on the present one only.

First the three-variable chain A → B → C as a factorisation, then chains that run for many steps with one transition
matrix. Source: Norris 1997, Markov Chains, chapter 1; Cover & Thomas 2006, section 2.8.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64, Int64, Real
from torch import Tensor

from course_lib.foundations._checks import joint_table, probabilities, same_length, whole
from course_lib.foundations.bayes import conditional
from course_lib.foundations.divergence import kl_discrete

# The three states A, B, C of the course's sources; P[i, j] is the probability to go from i to j.
THREE_STATES: Float64[Tensor, "3 3"] = torch.tensor(
    [[0.3, 0.7, 0.0], [0.9, 0.1, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64
)

# --- A → B → C -----------------------------------------------------------------------------------------------------


def chain_joint(
    p_a: Real[Tensor, "A"], p_b_given_a: Real[Tensor, "A B"], p_c_given_b: Real[Tensor, "B C"]
) -> Float64[Tensor, "A B C"]:
    """P(a, b, c) = P(a) P(b | a) P(c | b): the joint table of a chain A → B → C. Rows of the conditionals sum to 1."""
    p_a = probabilities(p_a, "p_a", ("A",))
    p_b_given_a = probabilities(p_b_given_a, "p_b_given_a", ("A", "B"))
    p_c_given_b = probabilities(p_c_given_b, "p_c_given_b", ("B", "C"))
    same_length(p_a=p_a, p_b_given_a=p_b_given_a)
    if p_b_given_a.shape[1] != len(p_c_given_b):
        raise ValueError(
            f"p_c_given_b must have one row per value of B, {p_b_given_a.shape[1]} as in p_b_given_a, "
            f"got {len(p_c_given_b)}"
        )
    return p_a[:, None, None] * p_b_given_a[:, :, None] * p_c_given_b[None]


def markov_factorisation(joint: Real[Tensor, "A B C"]) -> Float64[Tensor, "A B C"]:
    """P(a) P(b | a) P(c | b) from any table: equal to `joint` exactly where A → B → C is a Markov chain."""
    joint = joint_table(joint, "joint", ("A", "B", "C"))
    return joint.sum(dim=2)[:, :, None] * conditional(joint.sum(dim=0), given=(0,))[None]


def conditional_mutual_information(joint: Real[Tensor, "A B C"]) -> Float64[Tensor, ""]:
    """I(A; C | B) in nats: what A still tells about C once B is known; 0 exactly for a Markov chain A → B → C.

    It is KL(joint ‖ markov_factorisation(joint)) (Cover & Thomas 2006, eq. 2.61).
    """
    joint = joint_table(joint, "joint", ("A", "B", "C"))
    return kl_discrete(joint.flatten(), markov_factorisation(joint).flatten())


# --- many steps with one matrix ------------------------------------------------------------------------------------


def n_step(P: Real[Tensor, "n n"], steps: int) -> Float64[Tensor, "n n"]:
    """P^steps: entry (i, j) is the probability to be in j `steps` steps after i (Chapman-Kolmogorov). 0 steps: I."""
    return torch.linalg.matrix_power(_transition(P), whole(steps, "steps", least=0))


def closed_classes(P: Real[Tensor, "n n"]) -> list[list[int]]:
    """Groups of states that reach each other and never leave: where every path ends. There is at least one."""
    reach = _reachable(_transition(P))
    mutual = reach & reach.T
    closed = (reach == mutual).all(dim=1)  # whatever the state reaches leads back to it
    return [list(group) for group in sorted({tuple(row.nonzero().flatten().tolist()) for row in mutual[closed]})]


def transient_states(P: Real[Tensor, "n n"]) -> Bool[Tensor, "n"]:
    """True for each state that is visited only finitely often: the states outside all closed classes."""
    transient = torch.ones(len(_transition(P)), dtype=torch.bool)
    for group in closed_classes(P):
        transient[group] = False
    return transient


def stationary(P: Real[Tensor, "n n"]) -> Float64[Tensor, "n"]:
    """The one distribution π with π P = π, by linear algebra; transient states get exactly 0.

    Raises ValueError where there are several (more than one closed class). A unique π is not yet a limit: a chain
    that swaps two states for ever has π = (½, ½) and never settles; `decay_rate` is 1 there.
    """
    P = _transition(P)
    groups = closed_classes(P)
    if len(groups) > 1:
        raise ValueError(
            f"the stationary distribution is not unique: P has {len(groups)} closed classes, {groups}, and where a "
            "path ends depends on where it starts. Give stationary the block of one class."
        )
    (states,) = groups
    flow = P[states][:, states].clone()  # P - I, whose rows sum to 0:
    flow.fill_diagonal_(0)
    flow -= torch.diag(flow.sum(dim=1))  # the diagonal from the rest, without the rounding of P[i, i] - 1
    equations = flow.T.clone()
    equations[-1] = 1  # π flow = 0 has one equation too many; Σ π = 1 takes its place
    found, right = P.new_zeros(len(P)), P.new_zeros(len(states))
    right[-1] = 1
    found[states] = torch.linalg.solve(equations, right)
    return found


def decay_rate(P: Real[Tensor, "n n"]) -> float:
    """|λ₂|, the second largest modulus among P's eigenvalues: the memory of the start fades like |λ₂|^steps.

    1 means that it never fades (several closed classes, or a cycle); 0 for a chain of one state.
    """
    moduli = torch.linalg.eigvals(_transition(P)).abs().sort(descending=True).values
    return float(moduli[1]) if len(moduli) > 1 else 0.0


def simulate(
    P: Real[Tensor, "n n"],
    start: int | Real[Tensor, "n"],
    steps: int,
    paths: int,
    generator: torch.Generator | None = None,
) -> Int64[Tensor, "paths steps_plus_1"]:
    """Independent random paths, (paths, steps + 1), all at once; column 0 is the start.

    start: one state 0…n-1 for all paths, or a distribution (n,) to draw it from.
    """
    P, steps, paths = _transition(P), whole(steps, "steps", least=0), whole(paths, "paths", least=1)
    if isinstance(start, int):
        if not 0 <= start < len(P):
            raise ValueError(f"start must be a state 0…{len(P) - 1}, got {start}")
        state = torch.full((paths,), start, device=P.device)
    else:
        start = probabilities(start, "start", ("n",))
        same_length(start=start, P=P)
        state = torch.multinomial(start, paths, replacement=True, generator=generator)
    walked = [state]
    for _ in range(steps):
        state = torch.multinomial(P[state], 1, generator=generator)[:, 0]
        walked.append(state)
    return torch.stack(walked, dim=1)


def _transition(P: Tensor) -> Tensor:
    P = probabilities(P, "P", ("n", "n"))
    if P.shape[0] != P.shape[1]:
        raise ValueError(f"P must be square, one row and one column per state, got {tuple(P.shape)}")
    return P


def _reachable(P: Tensor) -> Tensor:
    """(n, n) bool: j can be reached from i in 0, 1, 2 … steps. Squaring doubles the number of steps looked at."""
    reach = (P > 0) | torch.eye(len(P), dtype=torch.bool, device=P.device)
    for _ in range(len(P).bit_length()):
        reach = (reach.double() @ reach.double()) > 0
    return reach
