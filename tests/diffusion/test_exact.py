"""Exact denoisers against the plainest route there is: Bayes' rule on a fine grid, and sums over the points."""

import math

import pytest
import torch

from course_lib.diffusion import FiniteDenoiser, GaussianDenoiser, MixtureDenoiser, Schedule, convert
from course_lib.foundations import Mixture

S = Schedule.linear(1000)
WEIGHTS, MEANS, VARIANCES = torch.tensor([0.7, 0.3]), torch.tensor([-1.0, 0.8]), torch.tensor([0.04, 0.25])
GRID = torch.linspace(-6, 6, 240_001, dtype=torch.float64)


def mean_on_a_grid(density: torch.Tensor, x_t: float, bar: float) -> float:
    """E[x_start | x_t] by summing prior times likelihood over the grid."""
    likelihood = torch.exp(-((x_t - math.sqrt(bar) * GRID) ** 2) / (2 * (1 - bar)))
    weights = density * likelihood
    return float((GRID * weights).sum() / weights.sum())


@pytest.mark.parametrize("t", [0, 1, 50, 400, 999])
def test_mixture_and_gaussian_equal_bayes_rule_on_a_grid(t):
    bar = float(S.alpha_bars[t])
    mixture = MixtureDenoiser(S, WEIGHTS, MEANS[:, None], VARIANCES, "x_start")
    single = GaussianDenoiser(S, torch.tensor([0.4]), torch.tensor([0.3]), "x_start")
    x_t = torch.tensor([[-1.3], [-0.2], [0.1], [0.9]], dtype=torch.float64)
    mixed = Mixture(WEIGHTS, MEANS, VARIANCES).density(GRID)
    normal = torch.distributions.Normal(0.4, math.sqrt(0.3)).log_prob(GRID).exp()
    for denoiser, density in ((mixture, mixed), (single, normal)):
        wanted = torch.tensor([[mean_on_a_grid(density, float(x), bar)] for x in x_t], dtype=torch.float64)
        torch.testing.assert_close(denoiser(x_t, t), wanted, rtol=0, atol=1e-6)


def test_gaussian_with_correlated_coordinates_is_linear_regression():
    """The best affine guess of x_start from x_t, from simulation alone (4 standard errors at n = 400 000)."""
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    mean = torch.tensor([0.3, -1.0], dtype=torch.float64)
    t, n = 300, 400_000
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
    x_start = mean + noise[0] @ torch.linalg.cholesky(covariance).T
    x_t = S.alpha_bars[t].sqrt() * x_start + (1 - S.alpha_bars[t]).sqrt() * noise[1]
    error = x_start - GaussianDenoiser(S, mean, covariance, "x_start")(x_t, t)
    # the error of the best guess has mean 0 and is uncorrelated with what was seen
    assert (error.mean(0).abs() < 4 * error.std(0) / math.sqrt(n)).all()
    products = error[:, :, None] * (x_t - x_t.mean(0))[:, None, :]
    assert (products.mean(0).abs() < 4 * products.std(0) / math.sqrt(n)).all()


def test_finite_data_is_an_average_over_its_points():
    points = torch.randn(7, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_t = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = 300
    bar = S.alpha_bars[t]
    wanted = []
    for x in x_t:
        shares = [math.exp(-float(((x - bar.sqrt() * point) ** 2).sum()) / (2 * float(1 - bar))) for point in points]
        wanted.append(sum(share * point for share, point in zip(shares, points, strict=True)) / sum(shares))
    torch.testing.assert_close(FiniteDenoiser(S, points, "x_start")(x_t, t), torch.stack(wanted))


def test_a_nearly_clean_image_is_recognised():
    points = torch.randn(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    noisy = S.alpha_bars[20].sqrt().float() * points + 0.05 * torch.randn(
        points.shape, generator=torch.Generator().manual_seed(1)
    )
    torch.testing.assert_close(FiniteDenoiser(S, points, "x_start")(noisy, 20), points, rtol=0, atol=1e-5)


def test_every_prediction_is_the_same_knowledge():
    x_t = torch.randn(5, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    answers = {kind: MixtureDenoiser(S, WEIGHTS, MEANS[:, None], VARIANCES, kind) for kind in ("noise", "x_start", "v")}
    for kind, denoiser in answers.items():
        assert denoiser.prediction == kind
        back = convert(S, x_t, 600, denoiser(x_t, 600, "ignored"), kind, "x_start")
        torch.testing.assert_close(back, answers["x_start"](x_t, 600))


def test_each_image_may_stand_at_its_own_step():
    t = torch.tensor([0, 500, 999])
    for denoiser in (
        MixtureDenoiser(S, WEIGHTS, MEANS[:, None], VARIANCES),
        GaussianDenoiser(S, torch.tensor([0.4]), torch.tensor([0.3])),
        FiniteDenoiser(S, MEANS[:, None]),
    ):
        x_t = torch.tensor([[0.2], [-0.5], [1.0]])
        together = denoiser(x_t, t)
        alone = torch.cat([denoiser(x_t[i : i + 1], int(t[i])) for i in range(3)])
        torch.testing.assert_close(together, alone)
        assert together.dtype == x_t.dtype


def test_variances_and_covariance_say_the_same():
    mean, variances = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 1.0, 2.0])
    x_t = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    a, b = GaussianDenoiser(S, mean, variances), GaussianDenoiser(S, mean, torch.diag(variances))
    torch.testing.assert_close(a(x_t, 300), b(x_t, 300))


def test_a_mixture_of_one_is_a_gaussian():
    mean = torch.tensor([0.1, -0.4])
    x_t = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    mixture = MixtureDenoiser(S, torch.ones(1), mean[None], torch.tensor([0.3]))
    gaussian = GaussianDenoiser(S, mean, torch.tensor([0.3, 0.3]))
    torch.testing.assert_close(mixture(x_t, 700), gaussian(x_t, 700))
