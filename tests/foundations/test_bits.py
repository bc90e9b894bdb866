"""The bit diffusion against enumeration: every kernel from the joint table of all paths of three bits."""

import itertools

import pytest
import torch

from course_lib.foundations import bit_posterior, correlations, flip_bits, picture_posterior, reverse_bits

PICTURES = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
PRIOR = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
FLIPS = torch.tensor([0.05, 0.15, 0.3], dtype=torch.float64)
WORDS = torch.tensor(list(itertools.product([0, 1], repeat=3)), dtype=torch.bool)  # all 8 values of three bits


def transition(flip):
    """(8, 8): probability that three bits become three others when each flips with probability `flip`."""
    different = (WORDS[:, None] != WORDS[None]).sum(-1)
    return flip**different * (1 - flip) ** (3 - different)


def marginal(t):
    """Exact distribution over the 8 words after steps 0…t, and before any for t = -1, by matrix products."""
    p = torch.zeros(8, dtype=torch.float64)
    for weight, picture in zip(PRIOR, PICTURES, strict=True):
        p[int((picture == WORDS).all(-1).nonzero())] += weight
    for flip in FLIPS[: t + 1]:
        p = p @ transition(flip)
    return p


def way_back(t):
    """(8, 8) kernel P(x_{t-1} | x_t) as `reverse_bits` draws it: mixed over the pictures that Bayes' rule believes."""
    kept = correlations(FLIPS)
    beliefs = picture_posterior(PICTURES, WORDS, kept[t], PRIOR)  # (8, K)
    kernel = torch.zeros(8, 8, dtype=torch.float64)
    for k, picture in enumerate(PICTURES):
        ones = bit_posterior(WORDS, picture.expand_as(WORDS), FLIPS[t], kept[t - 1] if t else 1.0)  # (8, 3)
        each = torch.where(WORDS[None], ones[:, None], 1 - ones[:, None]).prod(-1)  # (x_t, x_{t-1})
        kernel += beliefs[:, k : k + 1] * each
    return kernel


def test_unchanged_with_half_of_one_plus_the_correlation():
    two_states = torch.eye(2, dtype=torch.float64)
    for flip, kept in zip(FLIPS, correlations(FLIPS), strict=True):
        two_states = two_states @ torch.tensor([[1 - flip, flip], [flip, 1 - flip]], dtype=torch.float64)
        assert two_states[0, 0].item() == pytest.approx((1 + kept.item()) / 2, abs=1e-15)


@pytest.mark.parametrize("t", [0, 1, 2])
def test_beliefs_from_the_joint_table(t):
    kept = correlations(FLIPS)[t]
    reach = torch.eye(8, dtype=torch.float64)
    for flip in FLIPS[: t + 1]:
        reach = reach @ transition(flip)
    rows = [int((picture == WORDS).all(-1).nonzero()) for picture in PICTURES]
    joint = PRIOR[:, None] * reach[rows]  # P(k, x_t)
    assert torch.allclose(picture_posterior(PICTURES, WORDS, kept, PRIOR), (joint / joint.sum(0)).T, atol=1e-12)


@pytest.mark.parametrize("t", [0, 1, 2])
def test_one_step_back_is_bayes_rule_on_the_chain(t):
    """P(x_{t-1} | x_t) = P(x_t | x_{t-1}) P(x_{t-1}) / P(x_t), with marginals by matrix products."""
    joint = marginal(t - 1)[:, None] * transition(FLIPS[t])  # (x_{t-1}, x_t)
    assert torch.allclose(way_back(t), (joint / joint.sum(0)).T, atol=1e-12)


def test_the_way_back_ends_at_the_data():
    p = marginal(2)
    for t in (2, 1, 0):
        p = p @ way_back(t)
    assert torch.allclose(p, marginal(-1), atol=1e-12)


def test_draws_come_out_as_often_as_the_prior_says():
    flips, n = torch.full((12,), 0.2), 20_000
    states = list(reverse_bits(PICTURES, flips, n, PRIOR, torch.Generator().manual_seed(0)))
    assert [state.t for state in states] == list(range(11, -2, -1))
    found = states[-1].beliefs.mean(0)
    assert torch.equal(found * n, (found * n).round())  # the end is one of the pictures, for sure
    assert ((found - PRIOR).abs() < 4 * (PRIOR * (1 - PRIOR) / n).sqrt()).all()
    assert (states[0].bits.double().mean(0) - 0.5).abs().max() < 4 * 0.5 / n**0.5


def test_flips_as_often_as_told_and_leaves_its_argument_alone():
    n = 100_000
    bits = torch.zeros(n, dtype=torch.bool)
    share = flip_bits(bits, 0.3, torch.Generator().manual_seed(1)).double().mean().item()
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / n) ** 0.5
    assert not bits.any()
    assert flip_bits(~bits, 0.3, torch.Generator().manual_seed(1)).double().mean().item() == pytest.approx(1 - share)


def test_thousands_of_bits_do_not_underflow():
    generator = torch.Generator().manual_seed(2)
    pictures = torch.rand(5, 20_000, generator=generator) < 0.5
    beliefs = picture_posterior(pictures, flip_bits(pictures, 0.475, generator), 0.05)
    assert torch.isfinite(beliefs).all()
    assert torch.allclose(beliefs.sum(1), torch.ones(5, dtype=torch.float64))
    assert (beliefs.argmax(1) == torch.arange(5)).all()


def test_nothing_seen_leaves_the_prior():
    assert torch.allclose(picture_posterior(PICTURES[:, :0], WORDS[:2, :0], 0.5, PRIOR), PRIOR.expand(2, 3))
    assert torch.allclose(picture_posterior(PICTURES, WORDS, 0.0, PRIOR), PRIOR.expand(8, 3))
