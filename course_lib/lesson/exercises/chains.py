"""Exercises on Markov chains: the factorisation, the stationary distribution, and one step of a chain undone."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.foundations import bit_posterior, markov_factorisation, stationary
from course_lib.lesson.tasks import Exercise, Mistake

# --- 1.3 the Markov factorisation ----------------------------------------------------------------------------------


def _draw_joint(generator: torch.Generator) -> tuple[Tensor]:
    shape = torch.randint(2, 5, (3,), generator=generator).tolist()
    table = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.02
    return (table / table.sum(),)


def _factorise_by_loops(joint: Tensor) -> Tensor:
    A, B, C = joint.shape
    found = torch.zeros_like(joint)
    for b in range(B):
        with_b = sum(float(joint[a, b, c]) for a in range(A) for c in range(C))
        for a in range(A):
            a_and_b = sum(float(joint[a, b, c]) for c in range(C))
            for c in range(C):
                b_and_c = sum(float(joint[i, b, c]) for i in range(A))
                found[a, b, c] = a_and_b * b_and_c / with_b
    return found


MARKOV_FACTORISATION = Exercise(
    id="1.3",
    title="the Markov factorisation",
    reference=markov_factorisation,
    independent=_factorise_by_loops,
    draw=_draw_joint,
    atol=1e-7,
    mistakes=(
        Mistake(
            "nothing left out",
            lambda j: j,
            "returns the joint table itself: that is the chain rule, with P(c | a, b). In a Markov chain the last "
            "factor looks at b alone, P(c | b).",
        ),
        Mistake(
            "c from a",
            lambda j: j.sum(2)[:, :, None] * (j.sum(1) / j.sum((1, 2))[:, None])[:, None],
            "takes c from a, P(c | a). The chain goes A → B → C: the last link is P(c | b).",
        ),
        Mistake(
            "all independent",
            lambda j: j.sum((1, 2))[:, None, None] * j.sum((0, 2))[None, :, None] * j.sum((0, 1))[None, None],
            "multiplies P(a) P(b) P(c), as if the three had nothing to do with each other. Two links are left: "
            "P(b | a) and P(c | b).",
        ),
        Mistake(
            "joint for conditional",
            lambda j: j.sum(2)[:, :, None] * j.sum(0)[None],
            "multiplies P(a, b) by P(b, c) and so counts b twice. The second factor is the conditional: "
            "P(c | b) = P(b, c) / P(b).",
        ),
        Mistake(
            "b from c",
            lambda j: j.sum(2)[:, :, None] * (j.sum(0) / j.sum((0, 1)))[None],
            "divides P(b, c) by P(c), which gives P(b | c). What stands behind the bar "
            "divides: P(c | b) = P(b, c) / P(b).",
        ),
        Mistake(
            "divided by P(a)",
            lambda j: j.sum(2)[:, :, None] * j.sum(0)[None] / j.sum((1, 2))[:, None, None],
            "divides by P(a). For P(c | b) the table P(b, c) is divided by what stands behind the bar, P(b).",
        ),
    ),
    hints=(
        "P(a) P(b | a) is simply P(a, b): the table summed over c.",
        "P(c | b) is P(b, c), the table summed over a, divided by P(b): p_bc / p_bc.sum(dim=1, keepdim=True).",
        "Now multiply P(a, b) as (A, B, 1) with P(c | b) as (1, B, C): p_ab[:, :, None] * p_c_given_b[None].",
    ),
)

# --- 1.4 the stationary distribution -------------------------------------------------------------------------------


def _draw_transition(generator: torch.Generator) -> tuple[Tensor]:
    n = int(torch.randint(2, 6, (), generator=generator))
    P = torch.rand((n, n), generator=generator, dtype=torch.float64) + 0.1
    if n > 2 and torch.rand((), generator=generator) < 0.3:
        P[:, -1] = 0  # a state that nobody returns to
    return (P / P.sum(1, keepdim=True),)


def _walk_for_long(P: Tensor) -> Tensor:
    for _ in range(12):
        P = P @ P  # 2, 4, 8, …, 4096 steps
        P = P / P.sum(1, keepdim=True)
    return P[0]


def _eigenvector(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eig(matrix)
    return vectors[:, values.real.argmax()].real


STATIONARY = Exercise(
    id="1.4",
    title="the stationary distribution",
    reference=stationary,
    independent=_walk_for_long,
    draw=_draw_transition,
    mistakes=(
        Mistake(
            "columns for rows",
            lambda P: torch.ones(len(P), dtype=P.dtype) / len(P),
            "gives every state the same share. That solves P π = π, and any matrix whose rows sum to 1 has it. The "
            "distribution is a row and stands on the left: π P = π (with eigenvectors: those of P.T).",
        ),
        Mistake(
            "length 1 instead of sum 1",
            lambda P: stationary(P) / stationary(P).norm(),
            "points the right way but has length 1, as eigenvectors do. Probabilities sum to 1: divide by the sum.",
        ),
        Mistake(
            "eigenvector of P instead of P.T",
            lambda P: _eigenvector(P),
            "gives every state the same number: an eigenvector of P itself, and any matrix whose rows sum to 1 has it. "
            "The distribution stands on the left of P: take P.T, and divide the eigenvector by its sum.",
        ),
        Mistake(
            "eigenvector as the solver left it",
            lambda P: _eigenvector(P.T),
            "is the right eigenvector as the solver left it: of length 1, and sometimes negative. Divide it by its "
            "sum: that mends both.",
        ),
        Mistake(
            "one step only",
            lambda P: P.mean(0),
            "takes one step from the even distribution. Keep stepping, or solve π P = π.",
        ),
        Mistake(
            "two steps only",
            lambda P: P.mean(0) @ P,
            "takes two steps. Keep stepping until nothing changes, or solve π P = π.",
        ),
    ),
    hints=(
        "Simplest way: start anywhere and walk for long. Every row of P to the power of a thousand is the answer.",
        "torch.linalg.matrix_power(P, 1000) has the same row again and again. Take one.",
        "Or exactly: π (P - I) = 0 and Σπ = 1 are n + 1 linear equations: replace one of the n by the sum and solve.",
    ),
)

# --- 1.5 one step of a chain undone --------------------------------------------------------------------------------


def _draw_bits(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, d = torch.randint(2, 6, (2,), generator=generator).tolist()
    x_start = torch.rand((n, d), generator=generator) < 0.5
    x_start.view(-1)[:4] = torch.tensor([True, True, False, False])  # all four cases occur
    x_t = torch.rand((n, d), generator=generator) < 0.5
    x_t.view(-1)[:4] = torch.tensor([True, False, True, False])
    flip, kept = torch.rand(2, generator=generator, dtype=torch.float64)
    return x_t, x_start, 0.05 + 0.35 * flip, 0.1 + 0.8 * kept


def _from_the_joint_table(x_t: Tensor, x_start: Tensor, flip: Tensor, correlation_before: Tensor) -> Tensor:
    f, c = float(flip), float(correlation_before)
    found = torch.zeros(x_t.shape, dtype=torch.float64)
    for index in torch.cartesian_prod(*map(torch.arange, x_t.shape)).tolist():
        start, now = bool(x_start[tuple(index)]), bool(x_t[tuple(index)])
        weight = {}
        for before in (False, True):
            weight[before] = (0.5 + c / 2 if before == start else 0.5 - c / 2) * (1 - f if before == now else f)
        found[tuple(index)] = weight[True] / (weight[True] + weight[False])
    return found


def _first_step_leads_to_the_start(answer, generator) -> str | None:
    x_t, x_start, flip, _ = _draw_bits(generator)
    found = answer(x_t, x_start, flip, torch.ones((), dtype=torch.float64))
    if torch.equal(found.double(), x_start.double()):
        return None
    return "must give x_start itself where correlation_before is 1: before the first step nothing has flipped."


def _same(c: Tensor) -> Tensor:
    return (1 + c) / 2


BIT_POSTERIOR = Exercise(
    id="1.5",
    title="one step undone",
    reference=bit_posterior,
    independent=_from_the_joint_table,
    draw=_draw_bits,
    properties=(_first_step_leads_to_the_start,),
    mistakes=(
        Mistake(
            "start ignored",
            lambda x_t, x_0, f, c: torch.where(x_t, 1 - f, f),
            "looks at x_t alone and forgets where the chain began. That is the likelihood; multiply it by the prior, "
            "what x_start says about x_{t-1}.",
        ),
        Mistake(
            "x_t ignored",
            lambda x_t, x_0, f, c: torch.where(x_0, _same(c), 1 - _same(c)),
            "looks at x_start alone: that is the prior. Multiply it by the likelihood, the probability of x_t given "
            "that x_{t-1} was 1.",
        ),
        Mistake(
            "not divided by the evidence",
            lambda x_t, x_0, f, c: torch.where(x_t, 1 - f, f) * torch.where(x_0, _same(c), 1 - _same(c)),
            "multiplies likelihood and prior for x_{t-1} = 1 but does not divide by the evidence: the same product for "
            "x_{t-1} = 0, added to it.",
        ),
        Mistake(
            "correlation taken for a probability",
            lambda x_t, x_0, f, c: (
                torch.where(x_t, 1 - f, f)
                * torch.where(x_0, c, 1 - c)
                / (
                    torch.where(x_t, 1 - f, f) * torch.where(x_0, c, 1 - c)
                    + torch.where(x_t, f, 1 - f) * torch.where(x_0, 1 - c, c)
                )
            ),
            "uses the correlation c as the probability that a bit is unchanged. That probability is (1 + c)/2.",
        ),
        Mistake(
            "probability of 0",
            lambda x_t, x_0, f, c: 1 - bit_posterior(x_t, x_0, f, c),
            "gives the probability that x_{t-1} is 0. Wanted is that it is 1.",
        ),
        Mistake(
            "probability of the start",
            lambda x_t, x_0, f, c: torch.where(x_0, bit_posterior(x_t, x_0, f, c), 1 - bit_posterior(x_t, x_0, f, c)),
            "gives the probability that x_{t-1} equals x_start. Wanted is that it is 1: turn it round "
            "where x_start is 0.",
        ),
        Mistake(
            "flip turned round",
            lambda x_t, x_0, f, c: bit_posterior(~x_t, x_0, f, c),
            "swaps flipped and unchanged in the likelihood: from x_{t-1} = 1, x_t = 1 has the probability 1 - flip.",
        ),
    ),
    hints=(
        "Bayes' rule for two hypotheses: x_{t-1} is 1, or x_{t-1} is 0. Work out likelihood times prior for both.",
        "For the hypothesis 1 the likelihood is torch.where(x_t, 1 - flip, flip). The prior is made in the same "
        "way from x_start, with the probability of equation 1.17.",
        "For the hypothesis 0 the two values in each `where` change places. The answer is one / (one + nought), each "
        "of them likelihood times prior.",
    ),
)
