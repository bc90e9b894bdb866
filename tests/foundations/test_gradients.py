"""Two gradient estimators: right on average within 4 standard errors, and one much less noisy than the other."""

import math

import pytest
import torch

from course_lib.foundations import (
    expect_normal,
    kl_normal,
    reparameterise,
    reparameterised_gradients,
    score_function_gradients,
)

N = 100_000
FUNCTIONS = {
    "square": (torch.square, lambda m, s: (2 * m, 2 * s)),  # E z² = m² + s²
    "exp": (torch.exp, lambda m, s: (math.exp(m + s * s / 2), s * math.exp(m + s * s / 2))),
    "sine": (torch.sin, lambda m, s: (math.cos(m) * math.exp(-s * s / 2), -s * math.sin(m) * math.exp(-s * s / 2))),
}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def check_mean(estimates, wanted):
    errors = estimates.std(dim=0) / math.sqrt(len(estimates))
    assert ((estimates.mean(dim=0) - torch.tensor(wanted, dtype=torch.float64)).abs() < 4 * errors).all()


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(("mean", "std"), [(0.7, 0.5), (-1.0, 1.2)])
def test_both_are_right_on_average(name, mean, std):
    function, exact = FUNCTIONS[name]
    through = reparameterised_gradients(function, mean, std, N, generator(0))
    score = score_function_gradients(function, mean, std, N, generator(1))
    assert through.shape == score.shape == (N, 2)
    check_mean(through, exact(mean, std))
    check_mean(score, exact(mean, std))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_exact_values_by_quadrature_and_autograd(name):
    """The formulas above, by differentiating the integral itself."""
    function, exact = FUNCTIONS[name]
    mean, std = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, 0.5))
    expect_normal(function, mean, std**2).backward()
    assert (mean.grad.item(), std.grad.item()) == pytest.approx(exact(0.7, 0.5), rel=1e-8)


def test_through_the_draw_is_less_noisy():
    through = reparameterised_gradients(torch.square, 3.0, 0.5, N, generator(2)).var(dim=0)
    score = score_function_gradients(torch.square, 3.0, 0.5, N, generator(3)).var(dim=0)
    assert through[0].item() == pytest.approx(4 * 0.25, rel=0.03)  # Var[2z] = 4 std²
    assert (score > 20 * through).all()


def test_a_baseline_takes_noise_away_and_no_bias():
    plain = score_function_gradients(torch.square, 3.0, 0.5, N, generator(4))
    better = score_function_gradients(torch.square, 3.0, 0.5, N, generator(4), baseline=9.25)
    check_mean(better, (6.0, 1.0))
    assert (better.var(dim=0) < plain.var(dim=0) / 3).all()


def test_a_jump_has_a_score_gradient_only():
    """P(Z > 0) depends on the mean, but a step has slope 0 almost everywhere: only the score estimator sees it."""
    mean, std = 0.3, 0.8
    density = math.exp(-0.5 * (mean / std) ** 2) / math.sqrt(2 * math.pi)
    score = score_function_gradients(lambda z: (z > 0).double(), mean, std, N, generator(5))
    check_mean(score, (density / std, -density * mean / std**2))
    flat = reparameterised_gradients(lambda z: (z > 0).double() + 0 * z, mean, std, N, generator(5))
    assert (flat == 0).all()


def test_same_generator_same_draws():
    first, second = (reparameterised_gradients(torch.exp, 0.0, 1.0, 5, generator(6)) for _ in range(2))
    assert torch.equal(first, second)
    noise = torch.randn(5, generator=generator(6), dtype=torch.float64)
    assert torch.allclose(first, torch.stack([noise.exp(), noise.exp() * noise], dim=1))
    with torch.no_grad():
        assert torch.equal(first, reparameterised_gradients(torch.exp, 0.0, 1.0, 5, generator(6)))


def test_a_draw_has_its_mean_and_variance_and_its_dtype():
    log_var = torch.tensor(1.4, dtype=torch.float64)
    noise = torch.randn(N, generator=generator(7), dtype=torch.float64)
    z = reparameterise(torch.tensor(-0.5, dtype=torch.float64), log_var, noise)
    variance = math.exp(1.4)
    assert abs(z.mean().item() + 0.5) < 4 * math.sqrt(variance / N)
    assert abs(z.var().item() - variance) < 4 * variance * math.sqrt(2 / N)
    for dtype in (torch.float32, torch.bfloat16):
        parts = (torch.zeros(2, 3, dtype=dtype), torch.zeros(3, dtype=dtype), torch.ones(2, 1, dtype=dtype))
        assert torch.equal(reparameterise(*parts), torch.ones(2, 3, dtype=dtype))


def test_gradients_through_draws_are_those_of_the_closed_form():
    """d/d(mean, log_var) of E z² - the only part of KL(N(mean, var) || N(0, 1)) that needs draws - within 4 s.e."""
    mean, log_var = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, -0.4))
    noise = torch.randn(N, generator=generator(8), dtype=torch.float64)
    z = reparameterise(mean, log_var, noise)
    drawn = torch.autograd.grad(0.5 * z.square().mean() - 0.5 * log_var, (mean, log_var))
    exact = torch.autograd.grad(kl_normal(mean, log_var.exp(), 0, 1), (mean, log_var))
    spreads = z.std(), (0.5 * z * torch.exp(0.5 * log_var) * noise).std()
    for found, wanted, spread in zip(drawn, exact, spreads, strict=True):
        assert abs(found - wanted).item() < 4 * spread.item() / math.sqrt(N)
