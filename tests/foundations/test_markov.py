"""Markov chains: the factorisation, and long-run behaviour against powers, exact fractions and simulation."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.diffusion import Schedule
from course_lib.foundations import (
    THREE_STATES,
    chain_joint,
    closed_classes,
    conditional_mutual_information,
    decay_rate,
    entropy,
    markov_factorisation,
    n_step,
    simulate,
    stationary,
    transient_states,
)

SWAP = torch.tensor([[0.0, 1.0], [1.0, 0.0]])


def rows(*shape, seed=0):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    return values / values.sum(-1, keepdim=True)


# --- A → B → C


@pytest.mark.parametrize("seed", range(5))
def test_a_chain_factorises_and_any_other_table_does_not(seed):
    chain = chain_joint(rows(3, seed=seed), rows(3, 4, seed=seed + 50), rows(4, 2, seed=seed + 90))
    assert chain.sum().item() == pytest.approx(1, abs=1e-12)
    assert torch.allclose(markov_factorisation(chain), chain, atol=1e-12)
    assert abs(conditional_mutual_information(chain).item()) < 1e-12
    other = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    other = other / other.sum()
    assert (markov_factorisation(other) - other).abs().max() > 1e-3
    assert conditional_mutual_information(other).item() > 1e-3


def test_chain_joint_by_loops():
    p_a, p_b, p_c = rows(2, seed=1), rows(2, 3, seed=2), rows(3, 4, seed=3)
    joint = chain_joint(p_a, p_b, p_c)
    for a in range(2):
        for b in range(3):
            for c in range(4):
                assert joint[a, b, c].item() == pytest.approx((p_a[a] * p_b[a, b] * p_c[b, c]).item(), rel=1e-12)


def test_conditional_mutual_information_from_four_entropies():
    for seed in range(10):
        joint = torch.rand(3, 2, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        joint = joint / joint.sum()
        h_ab, h_bc = entropy(joint.sum(2).flatten()), entropy(joint.sum(0).flatten())
        wanted = h_ab + h_bc - entropy(joint.sum((0, 2))) - entropy(joint.flatten())
        assert conditional_mutual_information(joint).item() == pytest.approx(wanted.item(), abs=1e-12)


def test_copied_bit_is_not_markov():
    """C = A, with B a coin of its own: B hides nothing of what A tells about C, one whole bit."""
    joint = torch.zeros(2, 2, 2)
    joint[0, :, 0] = joint[1, :, 1] = 0.25
    assert conditional_mutual_information(joint).item() == pytest.approx(math.log(2), abs=1e-12)


def test_zero_rows_do_not_harm():
    joint = chain_joint(torch.tensor([1.0, 0.0]), torch.eye(2), torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    assert conditional_mutual_information(joint).item() == 0


# --- one matrix, many steps


def test_the_three_states():
    assert torch.allclose(THREE_STATES.sum(1), torch.ones(3, dtype=torch.float64))
    assert stationary(THREE_STATES).tolist() == pytest.approx([0.5625, 0.4375, 0], abs=1e-12)
    assert stationary(THREE_STATES)[2] == 0
    assert transient_states(THREE_STATES).tolist() == [False, False, True]
    assert closed_classes(THREE_STATES) == [[0, 1]]
    assert decay_rate(THREE_STATES) == pytest.approx(0.6, abs=1e-12)
    assert torch.allclose(n_step(THREE_STATES, 200), stationary(THREE_STATES).expand(3, 3), atol=1e-12)


def test_n_step_by_walking():
    P = rows(4, 4, seed=1)
    power = torch.eye(4, dtype=torch.float64)
    for k in range(6):
        assert torch.allclose(n_step(P, k), power, atol=1e-12)
        power = power @ P


def test_decay_rate_predicts_the_error():
    """The distance to the stationary distribution shrinks by |λ₂| at every step."""
    distances = [(n_step(THREE_STATES, k)[0] - stationary(THREE_STATES)).abs().sum().item() for k in range(1, 15)]
    ratios = [b / a for a, b in itertools.pairwise(distances)]
    assert ratios == pytest.approx([0.6] * 13, rel=1e-9)
    assert decay_rate(SWAP) == pytest.approx(1)
    assert decay_rate(torch.ones(1, 1)) == 0
    assert decay_rate(torch.full((4, 4), 0.25)) == pytest.approx(0, abs=1e-7)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_stationary_stays(n, seed):
    P = rows(n, n, seed=seed)
    P[0.5 / n > P] = 0  # sparse: some states may become transient, or classes may split
    P = P + torch.eye(n, dtype=torch.float64) * (P.sum(1) == 0)
    P = P / P.sum(1, keepdim=True)
    if len(closed_classes(P)) > 1:
        with pytest.raises(ValueError, match="not unique"):
            stationary(P)
        return
    pi = stationary(P)
    assert torch.allclose(pi @ P, pi, atol=1e-12)
    assert pi.sum().item() == pytest.approx(1, abs=1e-12)
    assert (pi >= 0).all()
    assert torch.equal(pi == 0, transient_states(P))


def test_stationary_in_exact_fractions():
    """Two states that hardly ever change: π ∝ (1/leaving rate), even where 1 - P[i, i] has lost its digits."""
    out_0, out_1 = 1e-13, 3e-13
    P = torch.tensor([[1 - out_0, out_0], [out_1, 1 - out_1]], dtype=torch.float64)
    wanted = Fraction(out_1) / (Fraction(out_0) + Fraction(out_1))
    assert stationary(P)[0].item() == pytest.approx(float(wanted), rel=1e-9)


def test_a_cycle_has_a_stationary_distribution_but_no_limit():
    assert stationary(SWAP).tolist() == [0.5, 0.5]
    assert n_step(SWAP, 101).tolist() == [[0, 1], [1, 0]]


def test_several_closed_classes():
    P = torch.tensor([[1.0, 0, 0, 0], [0.2, 0.3, 0.5, 0], [0, 0, 0.1, 0.9], [0, 0, 0.6, 0.4]])
    assert closed_classes(P) == [[0], [2, 3]]
    assert transient_states(P).tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match=r"not unique: P has 2 closed classes, \[\[0\], \[2, 3\]\]"):
        stationary(P)


def test_long_line_is_searched_to_its_end():
    """Every state leads to the next one only; the last keeps its visitors: 40 steps away from the first."""
    P = torch.diag(torch.ones(40), 1)
    P[40, 40] = 1
    assert closed_classes(P) == [[40]]
    assert transient_states(P).sum() == 40
    assert stationary(P)[40] == 1


def test_paths_follow_the_matrix():
    paths = simulate(THREE_STATES, 2, 12, 20_000, torch.Generator().manual_seed(0))
    assert paths.shape == (20_000, 13)
    assert (paths[:, 0] == 2).all()
    for step in (1, 2, 5, 12):
        expected = n_step(THREE_STATES, step)[2]
        for state in range(3):
            p = expected[state].item()
            found = (paths[:, step] == state).double().mean().item()
            assert abs(found - p) <= 4 * math.sqrt(p * (1 - p) / 20_000)
    again = simulate(THREE_STATES, 2, 12, 20_000, torch.Generator().manual_seed(0))
    assert torch.equal(paths, again)


def test_paths_are_markov():
    """Transitions counted with two past states: the older one does not matter, within 4 standard errors."""
    paths = simulate(THREE_STATES, torch.tensor([0.5, 0.5, 0.0]), 20, 20_000, torch.Generator().manual_seed(1))
    before, now, after = (paths[:, k : 19 + k].flatten() for k in range(3))
    for old in (0, 1):
        for state in (0, 1):
            chosen = after[(before == old) & (now == state)]
            p = THREE_STATES[state, 0].item()
            assert abs((chosen == 0).double().mean().item() - p) < 4 * math.sqrt(p * (1 - p) / len(chosen))
    first = paths[:, 0].double().mean().item()
    assert abs(first - 0.5) < 4 * 0.5 / math.sqrt(20_000)


def test_diffusion_is_not_homogeneous():
    """A05: one matrix for all times here; in diffusion the kernel widens from step to step."""
    schedule = Schedule.linear(1000)
    assert schedule.betas[0].item() == pytest.approx(1e-4)
    assert schedule.betas[-1].item() == pytest.approx(0.02)
    assert torch.allclose(n_step(THREE_STATES, 3) @ n_step(THREE_STATES, 4), n_step(THREE_STATES, 7), atol=1e-14)
