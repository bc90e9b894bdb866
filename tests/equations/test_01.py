"""Every tagged equation of lesson 01, checked by a route that does not use the formula itself."""

import itertools
import math
from fractions import Fraction

import pytest
import scipy.integrate
import scipy.stats
import torch

from course_lib.foundations import (
    THREE_STATES,
    bayes_rule,
    bit_posterior,
    chain_factors,
    chain_joint,
    conditional,
    correlations,
    decay_rate,
    flip_bits,
    markov_factorisation,
    n_step,
    normal_posterior,
    picture_posterior,
    reverse_bits,
    sequential_update,
    simulate,
    stationary,
)

N = 400_000  # draws; tolerances are 4 standard errors, and all seeds are fixed


def rng(seed):
    return torch.Generator().manual_seed(seed)


def table(*shape, seed):
    values = torch.rand(shape, generator=rng(seed), dtype=torch.float64) + 0.05
    return values / values.sum()


def rows(*shape, seed):
    values = table(*shape, seed=seed)
    return values / values.sum(-1, keepdim=True)


def draws_from(joint, seed):
    """N cells of a table, drawn by their probabilities: one column of indices per variable."""
    cells = torch.multinomial(joint.flatten(), N, replacement=True, generator=rng(seed))
    return torch.stack(torch.unravel_index(cells, joint.shape))


def near(share, wanted, count):
    """Is a counted share within four standard errors of a probability?"""
    return abs(float(share) - float(wanted)) < 4 * math.sqrt(float(wanted) * (1 - float(wanted)) / float(count))


def test_eq_1_1():
    """Shares counted among draws: P(b | a) P(a) and P(a | b) P(b) are both the share of the cell."""
    joint = table(3, 4, seed=1)
    a, b = draws_from(joint, seed=2)
    given_a, given_b = conditional(joint, given=(0,)), conditional(joint, given=(1,))
    for i, j in itertools.product(range(3), range(4)):
        cell = ((a == i) & (b == j)).double()
        assert near(cell.mean(), given_a[i, j] * joint[i].sum(), N)
        assert near(cell.mean(), given_b[i, j] * joint[:, j].sum(), N)
        assert near(cell[a == i].mean(), given_a[i, j], (a == i).sum())
        assert near(cell[b == j].mean(), given_b[i, j], (b == j).sum())


def test_eq_1_2():
    """Draw a hypothesis, then an observation: among the cases with that observation, count the hypotheses."""
    prior, likelihood = table(3, seed=3), rows(3, 4, seed=4)
    h = torch.multinomial(prior, N, replacement=True, generator=rng(5))
    x = torch.multinomial(likelihood[h], 1, generator=rng(6))[:, 0]
    posterior, _ = bayes_rule(prior, likelihood)
    for i, j in itertools.product(range(3), range(4)):
        assert near((h[x == j] == i).double().mean(), posterior[i, j], (x == j).sum())
    exact, _ = bayes_rule(torch.tensor([0.01, 0.99]), torch.tensor([[0.9, 0.1], [0.09, 0.91]]))
    assert exact[0, 0].item() == pytest.approx(float(Fraction(90, 981)), rel=1e-6)  # the lesson's table


def test_eq_1_3():
    """How often an observation comes at all, counted."""
    prior, likelihood = table(3, seed=7), rows(3, 4, seed=8)
    h = torch.multinomial(prior, N, replacement=True, generator=rng(9))
    x = torch.multinomial(likelihood[h], 1, generator=rng(10))[:, 0]
    _, evidence = bayes_rule(prior, likelihood)
    assert evidence.sum().item() == pytest.approx(1)
    for j in range(4):
        assert near((x == j).double().mean(), evidence[j], N)


def test_eq_1_4():
    """All clues at once, as one observation with 4³ outcomes, in exact fractions."""
    prior = [Fraction(1, 5), Fraction(3, 10), Fraction(1, 2)]
    likelihood = [[Fraction(k + h + 1, 10 + 4 * h) for k in range(4)] for h in range(3)]
    assert all(sum(row) == 1 for row in likelihood)
    for clues in itertools.product(range(4), repeat=3):
        joint = [p * math.prod(row[x] for x in clues) for p, row in zip(prior, likelihood, strict=True)]
        wanted = [float(j / sum(joint)) for j in joint]
        as_tensors = torch.tensor([[float(v) for v in row] for row in likelihood], dtype=torch.float64)
        beliefs = sequential_update(
            torch.tensor([float(p) for p in prior], dtype=torch.float64), as_tensors, torch.tensor(clues)
        )
        assert beliefs[-1].tolist() == pytest.approx(wanted, rel=1e-12)


def brute_force(prior_mean, prior_var, observations, noise_var):
    """Mean and variance of the posterior by adaptive quadrature of prior times likelihood."""
    prior = scipy.stats.norm(prior_mean, math.sqrt(prior_var))

    def joint(h):
        return prior.pdf(h) * math.prod(scipy.stats.norm.pdf(x, h, math.sqrt(noise_var)) for x in observations)

    bounds = prior_mean - 12 * math.sqrt(prior_var), prior_mean + 12 * math.sqrt(prior_var)
    points = [sum(observations) / len(observations)]

    def integral(f):
        return scipy.integrate.quad(f, *bounds, points=points, epsabs=0, epsrel=1e-11, limit=200)[0]

    evidence = integral(joint)
    mean = integral(lambda h: h * joint(h)) / evidence
    return mean, integral(lambda h: (h - mean) ** 2 * joint(h)) / evidence


CASES = [(-0.3, 0.2, [0.4], 0.5), (1.0, 4.0, [2.0, -1.0, 0.5], 0.3), (0.0, 0.05, [3.0, 3.5], 2.0)]


def test_eq_1_5():
    """Draw (h, x) pairs and keep those whose x is close to the observed one: their h follow the posterior."""
    prior_mean, prior_var, (x,), noise_var = CASES[0]
    h = prior_mean + math.sqrt(prior_var) * torch.randn(20 * N, generator=rng(11), dtype=torch.float64)
    seen = h + math.sqrt(noise_var) * torch.randn(20 * N, generator=rng(12), dtype=torch.float64)
    kept = h[(seen - x).abs() < 0.01]
    mean, variance = brute_force(prior_mean, prior_var, [x], noise_var)
    assert abs(kept.mean().item() - mean) < 4 * math.sqrt(variance / len(kept))
    assert abs(kept.var().item() - variance) < 4 * variance * math.sqrt(2 / len(kept))


@pytest.mark.parametrize("case", CASES)
def test_eq_1_6(case):
    """The posterior's variance against quadrature."""
    prior_mean, prior_var, x, noise_var = case
    _, variance = normal_posterior(prior_mean, prior_var, torch.tensor(x, dtype=torch.float64), noise_var)
    assert variance.item() == pytest.approx(brute_force(*case)[1], abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_eq_1_7(case):
    """The posterior's mean against quadrature."""
    prior_mean, prior_var, x, noise_var = case
    mean, _ = normal_posterior(prior_mean, prior_var, torch.tensor(x, dtype=torch.float64), noise_var)
    assert mean.item() == pytest.approx(brute_force(*case)[0], abs=1e-6)


def test_eq_1_8():
    """Each factor is a share counted among draws, and their product is the joint table."""
    joint = table(2, 3, 2, seed=13)
    a, b, c = draws_from(joint, seed=14)
    p_a, p_b, p_c = chain_factors(joint)
    for i, j, k in itertools.product(range(2), range(3), range(2)):
        in_a, in_ab = a == i, (a == i) & (b == j)
        assert near(in_a.double().mean(), p_a[i], N)
        assert near((b[in_a] == j).double().mean(), p_b[i, j], in_a.sum())
        assert near((c[in_ab] == k).double().mean(), p_c[i, j, k], in_ab.sum())
        assert (p_a[i] * p_b[i, j] * p_c[i, j, k]).item() == pytest.approx(joint[i, j, k].item(), abs=1e-12)


def test_eq_1_9():
    """The pair (b, c) counted within each a."""
    joint = table(2, 3, 2, seed=15)
    a, b, c = draws_from(joint, seed=16)
    _, p_b, p_c = chain_factors(joint)
    for i, j, k in itertools.product(range(2), range(3), range(2)):
        in_a = a == i
        assert near(((b == j) & (c == k))[in_a].double().mean(), p_b[i, j] * p_c[i, j, k], in_a.sum())


def walked_chain(seed):
    """N walks A → B → C: each step looks at the state before it only."""
    p_a, p_b, p_c = table(2, seed=seed), rows(2, 3, seed=seed + 1), rows(3, 2, seed=seed + 2)
    a = torch.multinomial(p_a, N, replacement=True, generator=rng(seed))
    b = torch.multinomial(p_b[a], 1, generator=rng(seed + 1))[:, 0]
    c = torch.multinomial(p_c[b], 1, generator=rng(seed + 2))[:, 0]
    return (p_a, p_b, p_c), (a, b, c)


def test_eq_1_10():
    """Walks counted against the product of small tables, which the factorisation leaves as it is."""
    parts, (a, b, c) = walked_chain(20)
    joint = chain_joint(*parts)
    assert torch.allclose(markov_factorisation(joint), joint, atol=1e-12)
    for i, j, k in itertools.product(range(2), range(3), range(2)):
        assert near(((a == i) & (b == j) & (c == k)).double().mean(), joint[i, j, k], N)


def test_eq_1_11():
    """Among walks that start in a, the pair (b, c); and c given (a, b) does not depend on a."""
    (_, p_b, p_c), (a, b, c) = walked_chain(30)
    for i, j, k in itertools.product(range(2), range(3), range(2)):
        in_a, in_ab = a == i, (a == i) & (b == j)
        assert near(((b == j) & (c == k))[in_a].double().mean(), p_b[i, j] * p_c[j, k], in_a.sum())
        assert near((c[in_ab] == k).double().mean(), p_c[j, k], in_ab.sum())


def test_eq_1_12():
    """One step from an uneven start, counted among simulated paths."""
    start = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    paths = simulate(THREE_STATES, start, 1, N, rng(40))
    for state, wanted in enumerate((start @ THREE_STATES).tolist()):
        counted = (paths[:, 1] == state).double().mean()
        assert near(counted, wanted, N) if wanted else counted == 0


def test_eq_1_13():
    """t steps as the sum over every path, in exact fractions."""
    P = [[Fraction(3, 10), Fraction(7, 10), 0], [Fraction(9, 10), Fraction(1, 10), 0], [Fraction(1, 2)] * 2 + [0]]
    for t in (1, 2, 4):
        for start, end in itertools.product(range(3), range(3)):
            total = Fraction(0)
            for between in itertools.product(range(3), repeat=t - 1):
                path = (start, *between, end)
                total += math.prod((P[i][j] for i, j in itertools.pairwise(path)), start=Fraction(1))
            assert n_step(THREE_STATES, t)[start, end].item() == pytest.approx(float(total), abs=1e-15)


def test_eq_1_14():
    """The share of time that one long path spends in each state, and exact fractions for the three states."""
    P = rows(4, 4, seed=50)
    pi = stationary(P)
    paths = simulate(P, 0, 400, 2000, rng(51))[:, 100:]
    share = torch.stack([(paths == state).double().mean(1) for state in range(4)])  # per path: paths are independent
    assert ((share.mean(1) - pi).abs() < 4 * share.std(1) / math.sqrt(2000)).all()
    exact = [Fraction(9, 16), Fraction(7, 16), Fraction(0)]
    assert stationary(THREE_STATES).tolist() == pytest.approx([float(x) for x in exact], abs=1e-15)
    assert exact[0] * Fraction(3, 10) + exact[1] * Fraction(9, 10) == exact[0]


def test_eq_1_15():
    """The distance to the end, computed by walking the distribution, falls by the same factor at every late step."""
    for P in (THREE_STATES, rows(4, 4, seed=60)):
        p, distances = torch.eye(len(P), dtype=torch.float64)[0], []
        for _ in range(16):
            distances.append((p - stationary(P)).abs().max().item())
            p = p @ P
        falls = math.exp((math.log(distances[14]) - math.log(distances[4])) / 10)
        assert falls == pytest.approx(decay_rate(P), rel=0.05)
    assert decay_rate(THREE_STATES) == pytest.approx(0.6, abs=1e-12)


def test_eq_1_16():
    """Different matrices one after the other: walks counted against the product in that order."""
    steps = [rows(3, 3, seed=70 + k) for k in range(3)]
    state = torch.zeros(N, dtype=torch.long)
    for k, P in enumerate(steps):
        state = torch.multinomial(P[state], 1, generator=rng(75 + k))[:, 0]
    product = torch.linalg.multi_dot(steps)[0]
    for j in range(3):
        assert near((state == j).double().mean(), product[j], N)
    assert (product - torch.linalg.multi_dot(steps[::-1])[0]).abs().max() > 1e-3  # the order matters


def test_eq_1_17():
    """Bits that are as they were after t steps: an even number of flips, summed over all patterns of flips."""
    flips = [0.05, 0.3, 0.12, 0.45]
    for t in range(1, 5):
        even = 0.0
        for pattern in itertools.product([0, 1], repeat=t):
            chance = math.prod(f if turned else 1 - f for turned, f in zip(pattern, flips, strict=False))
            even += chance * (sum(pattern) % 2 == 0)
        kept = correlations(torch.tensor(flips))[t - 1].item()
        assert (1 + kept) / 2 == pytest.approx(even, abs=1e-7)
    bits = torch.zeros(N, dtype=torch.bool)
    for k, f in enumerate(flips):
        bits = flip_bits(bits, f, rng(80 + k))
    assert near((~bits).double().mean(), even, N)


def test_eq_1_18():
    """Walk bits forwards, keep those that end as x_t, and count what they were one step before."""
    flips = [0.1, 0.2, 0.15]
    kept = correlations(torch.tensor(flips))
    for start in (False, True):
        path = [torch.full((N,), start)]
        for k, f in enumerate(flips):
            path.append(flip_bits(path[-1], f, rng(90 + k)))
        for end in (False, True):
            chosen = path[3] == end
            wanted = bit_posterior(torch.tensor(end), torch.tensor(start), flips[2], kept[1])
            assert near(path[2][chosen].double().mean(), wanted, chosen.sum())


def test_eq_1_19():
    """Pictures of three bits: P(x_{t-1} | x_t) from the table of all paths, and the way back ends at the prior."""
    pictures = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
    prior, flips = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64), torch.tensor([0.1, 0.25, 0.3])
    words = torch.tensor(list(itertools.product([0, 1], repeat=3)), dtype=torch.bool)
    which = torch.multinomial(prior, N, replacement=True, generator=rng(100))
    before = flip_bits(flip_bits(pictures[which], 0.1, rng(101)), 0.25, rng(102))
    after = flip_bits(before, 0.3, rng(103))
    kept = correlations(flips)
    for word in words:
        beliefs = picture_posterior(pictures, word[None], kept[2], prior)[0]
        chosen = (after == word).all(1)
        for k in range(3):
            assert near((which[chosen] == k).double().mean(), beliefs[k], chosen.sum())
        ones = torch.stack([bit_posterior(word, picture, 0.3, kept[1]) for picture in pictures])  # (k, bit)
        for earlier in words:
            wanted = beliefs @ torch.where(earlier, ones, 1 - ones).prod(1)
            assert near((before[chosen] == earlier).all(1).double().mean(), wanted, chosen.sum())
    *_, end = reverse_bits(pictures, torch.full((15,), 0.2), 20_000, prior, rng(104))
    for k in range(3):
        assert near((end.bits == pictures[k]).all(1).double().mean(), prior[k], 20_000)
