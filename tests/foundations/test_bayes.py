"""Bayes' rule on tables and Gaussians against counting and brute-force grids; the chain rule rebuilds every table."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.foundations import (
    bayes_rule,
    chain_factors,
    chain_product,
    conditional,
    normal_posterior,
    sequential_update,
)


def table(*shape, seed=0):
    """Random probabilities that sum to 1 over all axes."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values / values.sum()


def rows(*shape, seed=0):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    return values / values.sum(-1, keepdim=True)


def test_a_rare_disease():
    """By counting people: of 100,000, 1,000 are ill and 990 of them test positive, as do 4,950 healthy ones."""
    posterior, evidence = bayes_rule(torch.tensor([0.01, 0.99]), torch.tensor([[0.99, 0.01], [0.05, 0.95]]))
    assert posterior[0, 0].item() == pytest.approx(990 / (990 + 4950), abs=1e-6)
    assert evidence[0].item() == pytest.approx((990 + 4950) / 100_000, abs=1e-6)
    assert posterior.dtype == torch.float64


@pytest.mark.parametrize("seed", range(10))
def test_table_by_loops(seed):
    prior, likelihood = rows(4, seed=seed), rows(4, 6, seed=seed + 100)
    posterior, evidence = bayes_rule(prior, likelihood)
    for x in range(6):
        joint = [prior[h].item() * likelihood[h, x].item() for h in range(4)]
        assert evidence[x].item() == pytest.approx(sum(joint), rel=1e-12)
        assert posterior[:, x].tolist() == pytest.approx([j / sum(joint) for j in joint], rel=1e-12)
    assert torch.allclose(posterior.sum(0), torch.ones(6, dtype=torch.float64), atol=1e-12)
    assert evidence.sum().item() == pytest.approx(1, abs=1e-12)


def test_zero_probabilities():
    posterior, evidence = bayes_rule(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([[1.0, 0], [0.5, 0.5], [0, 1.0]]))
    assert posterior.tolist() == [[pytest.approx(2 / 3), 0], [pytest.approx(1 / 3), 1], [0, 0]]
    assert evidence.tolist() == [0.75, 0.25]


def test_table_agrees_with_draws():
    prior, likelihood = rows(3, seed=1), rows(3, 4, seed=2)
    n, generator = 200_000, torch.Generator().manual_seed(0)
    h = torch.multinomial(prior, n, replacement=True, generator=generator)
    x = torch.multinomial(likelihood[h], 1, generator=generator)[:, 0]
    posterior, evidence = bayes_rule(prior, likelihood)
    for outcome in range(4):
        seen = h[x == outcome]
        for hypothesis in range(3):
            p = posterior[hypothesis, outcome].item()
            error = 4 * math.sqrt(p * (1 - p) / len(seen))
            assert abs((seen == hypothesis).double().mean().item() - p) < error
        p = evidence[outcome].item()
        assert abs(len(seen) / n - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_one_by_one_equals_all_at_once():
    prior, likelihood = rows(3, seed=3), rows(3, 5, seed=4)
    observations = torch.tensor([0, 4, 4, 2, 1, 0, 3])
    beliefs = sequential_update(prior, likelihood, observations)
    assert beliefs.shape == (8, 3)
    belief = prior
    for k, x in enumerate(observations.tolist()):
        assert torch.allclose(beliefs[k], belief, atol=1e-12)
        belief = bayes_rule(belief, likelihood)[0][:, x]  # yesterday's posterior is today's prior
    at_once = prior * math.prod(likelihood[:, x] for x in observations.tolist())
    assert torch.allclose(beliefs[-1], at_once / at_once.sum(), atol=1e-12)
    assert torch.allclose(beliefs[-1], sequential_update(prior, likelihood, observations.flip(0))[-1], atol=1e-12)


def test_beliefs_recover_from_below_the_smallest_number():
    likelihood = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    swing = torch.tensor([0] * 600 + [1] * 600)  # after 600, one of the beliefs is 9^-600 = 1e-572
    beliefs = sequential_update(torch.tensor([0.5, 0.5]), likelihood, swing)
    assert beliefs[600].tolist() == [1.0, 0.0]
    assert beliefs[-1].tolist() == pytest.approx([0.5, 0.5], abs=1e-9)


def test_no_observations_leave_the_prior():
    prior = torch.tensor([0.25, 0.75])
    beliefs = sequential_update(prior, torch.tensor([[0.5, 0.5], [0.2, 0.8]]), torch.zeros(0, dtype=torch.long))
    assert beliefs.tolist() == [[pytest.approx(0.25), pytest.approx(0.75)]]
    mean, variance = normal_posterior(1.5, 4.0, torch.zeros(0), 2.0)
    assert (mean.item(), variance.item()) == pytest.approx((1.5, 4.0))


@pytest.mark.parametrize("n", [1, 3, 40])
def test_conjugate_gaussian_equals_a_brute_force_grid(n):
    data = 2.5 + 1.3 * torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    mean, variance = normal_posterior(-1.0, 4.0, data, 1.69)
    grid = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    log_p = torch.distributions.Normal(-1.0, 2.0).log_prob(grid)
    for x in data:
        log_p = log_p + torch.distributions.Normal(grid, 1.3).log_prob(x)
    p = torch.softmax(log_p, 0)
    assert mean.item() == pytest.approx((p @ grid).item(), abs=1e-6)
    assert variance.item() == pytest.approx((p @ (grid - mean) ** 2).item(), abs=1e-6)
    density = torch.distributions.Normal(mean, variance.sqrt()).log_prob(grid).exp()
    assert torch.allclose(density, p / (grid[1] - grid[0]), atol=1e-6)


def test_gaussian_updates_chain():
    data = torch.tensor([0.3, -2.0, 5.0])
    belief = (torch.tensor(0.5), torch.tensor(3.0))
    for x in data:
        belief = normal_posterior(*belief, x[None], 0.7)
    at_once = normal_posterior(0.5, 3.0, data, 0.7)
    assert torch.allclose(torch.stack(belief), torch.stack(at_once), atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.floats(-50, 50), st.floats(1e-3, 1e3), st.floats(-50, 50), st.floats(1e-3, 1e3))
def test_posterior_lies_between_and_is_surer(prior_mean, prior_var, x, noise_var):
    mean, variance = normal_posterior(prior_mean, prior_var, torch.tensor([x], dtype=torch.float64), noise_var)
    assert min(prior_mean, x) - 1e-9 <= mean.item() <= max(prior_mean, x) + 1e-9
    assert variance.item() < min(prior_var, noise_var) * (1 + 1e-12)


# --- the chain rule


def test_chain_rule_by_definition():
    """P(a, b, c) = P(a) P(b | a) P(c | a, b), each factor by loops over the table."""
    joint = table(2, 3, 4, seed=1)
    p_a, p_b, p_c = chain_factors(joint)
    for a, b, c in itertools.product(range(2), range(3), range(4)):
        assert p_a[a].item() == pytest.approx(joint[a].sum().item(), rel=1e-12)
        assert p_b[a, b].item() == pytest.approx((joint[a, b].sum() / joint[a].sum()).item(), rel=1e-12)
        assert p_c[a, b, c].item() == pytest.approx((joint[a, b, c] / joint[a, b].sum()).item(), rel=1e-12)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_any_order_rebuilds_the_joint(order):
    joint = table(2, 3, 4, seed=2).permute(order)
    assert torch.allclose(chain_product(chain_factors(joint)), joint, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.integers(0, 10**6))
def test_rebuilds_with_impossible_rows(shape, seed):
    joint = table(*shape, seed=seed)
    joint[joint < joint.median()] = 0
    joint = joint / joint.sum()
    factors = chain_factors(joint)
    assert torch.allclose(chain_product(factors), joint, atol=1e-12)
    for factor in factors:
        sums = factor.sum(-1)
        assert ((sums - 1).abs().lt(1e-12) | (sums == 0)).all()


def test_conditional_on_one_of_three():
    """P(b, c | a) = P(b | a) P(c | a, b), and the zero rows are where P(a) = 0."""
    joint = table(2, 3, 4, seed=3)
    _, p_b, p_c = chain_factors(joint)
    assert torch.allclose(conditional(joint, (0,)), p_b[:, :, None] * p_c, atol=1e-12)
    assert torch.allclose(conditional(joint, ()), joint, atol=1e-12)
    joint[0] = 0
    given_a = conditional(joint / joint.sum(), (0,))
    assert (given_a[0] == 0).all()
    assert given_a[1].sum().item() == pytest.approx(1)
