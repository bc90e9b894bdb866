"""What a user reads after a mistake with `course_lib.foundations`: the argument, what was given, and what would do."""

import math

import pytest
import torch

from course_lib.foundations import (
    THREE_STATES,
    Corner,
    Lasso,
    Mixture,
    Quadratic,
    affine_multivariate,
    affine_normal,
    bayes_rule,
    bit_posterior,
    chain_factors,
    chain_joint,
    chain_product,
    closed_classes,
    complete_square,
    conditional,
    conditional_mutual_information,
    conditional_normal,
    coordinate_descent,
    correlations,
    cross_entropy,
    entropy,
    fit_likelihood,
    fit_reverse,
    flip_bits,
    forward_kl,
    gauss_seidel,
    js_divergence,
    kl_diagonal,
    kl_discrete,
    kl_multivariate,
    kl_normal,
    kmeans,
    lasso_residual,
    lasso_step,
    marginal_normal,
    mass_moments,
    mean_log_likelihood,
    mixed_moment,
    moment_about,
    mutual_information,
    n_step,
    nearest_centre,
    normal_log_density,
    normal_posterior,
    picture_posterior,
    principal_axes,
    product_normal,
    quadratic_step,
    raw_moment,
    reparameterise,
    reparameterised_gradients,
    reverse_bits,
    score_function_gradients,
    sequential_update,
    simulate,
    soft_threshold,
    solve_lasso,
    stationary,
    sum_normal,
    wasserstein_1d,
)

T = torch.tensor
PRIOR, LIKELIHOOD = T([0.5, 0.5]), T([[0.9, 0.1], [0.2, 0.8]])
EYE, ZEROS = torch.eye(2), torch.zeros(2)
MIX = Mixture(T([0.5, 0.5]), T([-2.0, 2.0]), T([0.25, 0.25]))

BAYES = [
    (lambda: bayes_rule([0.5, 0.5], LIKELIHOOD), TypeError, r"prior must be a tensor .* got list; torch.tensor"),
    (lambda: bayes_rule(T([0.5, 0.6]), LIKELIHOOD), ValueError, r"prior must sum to 1, but it sums to 1\.1: divide"),
    (lambda: bayes_rule(T([1.5, -0.5]), LIKELIHOOD), ValueError, r"prior must not be negative, got prior\[1\] = -0\.5"),
    (lambda: bayes_rule(T([0.5, math.nan]), LIKELIHOOD), ValueError, r"prior must be finite, got prior\[1\] = nan"),
    (
        lambda: bayes_rule(PRIOR, LIKELIHOOD * 2),
        ValueError,
        r"likelihood must sum to 1 along its last axis, but likelihood\[0\] sums to 2",
    ),
    (lambda: bayes_rule(PRIOR, LIKELIHOOD[0]), ValueError, r"likelihood must have shape \(H, X\), got shape \(2,\)"),
    (lambda: bayes_rule(T([1.0]), LIKELIHOOD), ValueError, r"same length: prior \(1,\), likelihood \(2, 2\)"),
    (
        lambda: bayes_rule(T([1.0, 0]), EYE),
        ValueError,
        "gives outcome 1 evidence 0: no hypothesis with a prior above 0",
    ),
    (lambda: bayes_rule(torch.zeros(0), torch.zeros(0, 2)), ValueError, "prior must have at least one outcome"),
    (lambda: bayes_rule(T([True, False]), LIKELIHOOD), TypeError, "prior must hold real numbers, got torch.bool"),
    (
        lambda: sequential_update(T([1.0, 0]), EYE, T([0, 0, 1])),
        ValueError,
        r"observations\[2\] = 1 has evidence 0: no hypothesis that is left",
    ),
    (
        lambda: sequential_update(PRIOR, LIKELIHOOD, T([0, 2])),
        ValueError,
        r"observations must lie in 0…1, got \[0, 2\]",
    ),
    (lambda: sequential_update(PRIOR, LIKELIHOOD, T([-1])), ValueError, "observations must lie in 0…1"),
    (lambda: sequential_update(PRIOR, LIKELIHOOD, T([0.0])), TypeError, "whole numbers, got torch.float32"),
    (lambda: sequential_update(PRIOR, LIKELIHOOD, 1), TypeError, "whole numbers, got int"),
    (lambda: sequential_update(PRIOR, LIKELIHOOD, T(1)), ValueError, r"observations must have shape \(n,\)"),
    (lambda: normal_posterior(0.0, 0.0, ZEROS, 1.0), ValueError, "prior_var must be positive, got 0"),
    (lambda: normal_posterior(0.0, 1.0, ZEROS, -1.0), ValueError, "noise_var must be positive, got -1"),
    (lambda: normal_posterior(0.0, 1.0, 3.0, 1.0), ValueError, r"observations must have shape \(n,\), got shape \(\)"),
    (lambda: normal_posterior(ZEROS, 1.0, ZEROS, 1.0), ValueError, "prior_mean must be a single number"),
    (lambda: conditional(EYE / 2, (2,)), ValueError, r"given must name axes 0…1 of joint, got 2"),
    (lambda: conditional(EYE / 2, (0, 1)), ValueError, "given names all 2 axes of joint"),
    (lambda: chain_factors(EYE), ValueError, "joint must sum to 1, but it sums to 2"),
    (lambda: chain_product([]), ValueError, r"factors must hold at least P\(a\)"),
    (
        lambda: chain_product([PRIOR, T([0.5, 0.5])]),
        ValueError,
        r"factors\[1\] must have shape \(2, any size\), got \(2,\)",
    ),
]
MARKOV = [
    (lambda: chain_joint(PRIOR, LIKELIHOOD, torch.ones(3, 1)), ValueError, "one row per value of B, 2 .* got 3"),
    (lambda: chain_joint(T([1.0]), LIKELIHOOD, LIKELIHOOD), ValueError, r"same length: p_a \(1,\)"),
    (
        lambda: conditional_mutual_information(EYE / 2),
        ValueError,
        r"joint must have shape \(A, B, C\), got shape \(2, 2\)",
    ),
    (lambda: n_step(THREE_STATES, -1), ValueError, "steps must be at least 0, got -1"),
    (lambda: n_step(THREE_STATES, 1.5), TypeError, "steps must be a whole number, got float 1.5"),
    (lambda: n_step(THREE_STATES.T, 2), ValueError, r"P must sum to 1 along its last axis, but P\[0\] sums to 1\.7"),
    (lambda: n_step(LIKELIHOOD[:1], 2), ValueError, r"P must be square, .* got \(1, 2\)"),
    (lambda: closed_classes(PRIOR), ValueError, r"P must have shape \(n, n\)"),
    (lambda: stationary(EYE), ValueError, r"not unique: P has 2 closed classes, \[\[0\], \[1\]\]"),
    (lambda: simulate(THREE_STATES, 3, 5, 5), ValueError, "start must be a state 0…2, got 3"),
    (lambda: simulate(THREE_STATES, PRIOR, 5, 5), ValueError, r"same length: start \(2,\), P \(3, 3\)"),
    (lambda: simulate(THREE_STATES, 0, 5, 0), ValueError, "paths must be at least 1, got 0"),
]
GAUSSIANS = [
    (lambda: normal_log_density(0.0, 0.0, 0.0), ValueError, "variance must be positive, got 0"),
    (lambda: normal_log_density(torch.zeros(3), ZEROS, 1), ValueError, r"do not fit together: x \(3,\), mean \(2,\)"),
    (lambda: normal_log_density("0", 0.0, 1.0), TypeError, "x must be a tensor or a number, got str"),
    (lambda: complete_square(0.0, 1.0), ValueError, "a must be positive, or exp.* has no finite area, got 0"),
    (lambda: complete_square(T([1.0, -2.0]), 1.0), ValueError, r"got a\[1\] = -2"),
    (lambda: affine_normal(0.0, -1.0, 2.0), ValueError, "variance must not be negative, got -1"),
    (
        lambda: sum_normal(0, 1, 0, 4, covariance=-2.1),
        ValueError,
        r"covariance must not exceed √\(var_x var_y\), got -2\.1",
    ),
    (lambda: product_normal(0, 1, 0, 0), ValueError, "var_2 must be positive, got 0"),
    (lambda: product_normal(0, math.inf, 0, 1), ValueError, "var_1 must be finite, got inf"),
    (lambda: principal_axes(T([[1.0, 0.5], [0.2, 1.0]])), ValueError, r"covariance must be symmetric; \(covariance"),
    (lambda: principal_axes(T([[1.0, 2], [2, 1]])), ValueError, "covariance larger than the root of the two variances"),
    (
        lambda: principal_axes(T([[1.0, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]])),
        ValueError,
        r"covariance must have no negative eigenvalue, got -0\.8",
    ),
    (lambda: principal_axes(-EYE), ValueError, r"the diagonal of covariance must not be negative, got .* = -1"),
    (lambda: principal_axes(torch.zeros(2, 3)), ValueError, r"covariance must be square, got \(2, 3\)"),
    (lambda: principal_axes([[1.0]]), TypeError, "covariance must be a tensor .* got list"),
    (lambda: marginal_normal(ZEROS, EYE, [2]), ValueError, r"keep must name different variables 0…1, got \[2\]"),
    (lambda: marginal_normal(ZEROS, torch.eye(3), [0]), ValueError, r"must share d, got 2 and \(3, 3\)"),
    (lambda: conditional_normal(ZEROS, EYE, [0, 0], ZEROS), ValueError, "given must name different variables"),
    (lambda: conditional_normal(ZEROS, EYE, [0, 1], ZEROS), ValueError, "given names all 2 variables"),
    (lambda: conditional_normal(ZEROS, EYE, [0], ZEROS), ValueError, "one value per given variable, 1, got 2"),
    (
        lambda: conditional_normal(torch.zeros(3), torch.ones(3, 3), [0, 1], T([1.0, 2.0])),
        ValueError,
        r"values \[1\.0, 2\.0\] are impossible: the given variables' covariance is singular",
    ),
    (lambda: affine_multivariate(ZEROS, EYE, EYE, torch.zeros(3)), ValueError, r"matrix must have shape \(3, 2\)"),
    (lambda: Mixture(T([0.5, 0.4]), ZEROS, torch.ones(2)), ValueError, "weights must be positive and sum to 1"),
]
MOMENTS = [
    (lambda: raw_moment(ZEROS, -1), ValueError, "k must be at least 0, got -1"),
    (lambda: raw_moment(ZEROS, 2.0), TypeError, "k must be a whole number, got float"),
    (lambda: raw_moment(torch.zeros(0), 1), ValueError, "x must hold at least one value"),
    (lambda: raw_moment(EYE, 1), ValueError, r"x must have shape \(n,\), got shape \(2, 2\)"),
    (lambda: raw_moment(ZEROS, 1, ZEROS), ValueError, "weights must not all be 0"),
    (lambda: raw_moment(ZEROS, 1, T([1.0, -1.0])), ValueError, "weights must not be negative"),
    (lambda: raw_moment(ZEROS, 1, torch.ones(3)), ValueError, r"same length: x \(2,\), weights \(3,\)"),
    (lambda: moment_about(ZEROS, 2, ZEROS), ValueError, "c must be a single number"),
    (lambda: mixed_moment(ZEROS, torch.zeros(3), 1, 1), ValueError, r"same length: x \(2,\), y \(3,\)"),
    (lambda: mass_moments(ZEROS, T([1.0, -2.0])), ValueError, r"masses must not be negative, got masses\[1\] = -2"),
    (lambda: mass_moments(torch.zeros(0), torch.zeros(0)), ValueError, "masses must not all be 0"),
]
DIVERGENCES = [
    (lambda: kl_discrete(PRIOR, T([0.5, 0.6])), ValueError, "q must sum to 1, but it sums to 1.1"),
    (lambda: kl_discrete(PRIOR, T([1.0])), ValueError, r"same length: p \(2,\), q \(1,\)"),
    (lambda: kl_discrete(EYE, torch.full((3, 2), 0.5)), ValueError, r"do not fit together: p \(2, 2\), q \(3, 2\)"),
    (lambda: cross_entropy(PRIOR, 1.0), ValueError, "q must have at least one outcome"),
    (lambda: entropy(ZEROS), ValueError, "p must sum to 1, but it sums to 0"),
    (lambda: js_divergence(T([-1.0, 2.0]), PRIOR), ValueError, r"p must not be negative, got p\[0\] = -1"),
    (lambda: mutual_information(PRIOR), ValueError, r"joint must have shape \(X, Y\)"),
    (lambda: wasserstein_1d(torch.zeros(0), ZEROS), ValueError, "x must hold at least one value"),
    (lambda: wasserstein_1d(ZEROS, ZEROS, y_weights=ZEROS), ValueError, "y_weights must not all be 0"),
    (lambda: wasserstein_1d(ZEROS, ZEROS, T([1.0])), ValueError, r"same length: x \(2,\), x_weights \(1,\)"),
    (lambda: kl_normal(0, -1, 0, 1), ValueError, "var_p must not be negative, got -1"),
    (lambda: kl_normal(0, 1, math.nan, 1), ValueError, "mean_q must be finite, got nan"),
    (lambda: kl_normal(ZEROS, 1, torch.zeros(3), 1), ValueError, r"do not fit together: mean_p \(2,\)"),
    (lambda: kl_diagonal(0.0, 1.0, 0.0, 1.0), ValueError, "all four arguments are single numbers: use kl_normal"),
    (
        lambda: kl_multivariate(ZEROS, EYE, ZEROS, torch.eye(3)),
        ValueError,
        r"same number of variables, got \[2, 2, 2, 3\]",
    ),
    (lambda: kl_multivariate(ZEROS, EYE, ZEROS, -EYE), ValueError, "the diagonal of cov_q must not be negative"),
    (lambda: kl_multivariate(ZEROS, torch.ones(2), ZEROS, EYE), ValueError, r"cov_p must have shape \(d, d\)"),
]
FITS = [
    (lambda: mean_log_likelihood(torch.zeros(0), 0, 1), ValueError, "samples must hold at least one value"),
    (lambda: mean_log_likelihood(ZEROS, 0, 0), ValueError, "variance must be positive, got 0"),
    (lambda: fit_likelihood(EYE), ValueError, r"samples must have shape \(n,\)"),
    (lambda: forward_kl(MIX, 0, T([1.0, 0.0])), ValueError, r"variance must be positive, got variance\[1\] = 0"),
    (lambda: fit_reverse(MIX, (0.0, -1.0)), ValueError, r"start\[1\] must be positive, got -1"),
    (
        lambda: reparameterise(torch.zeros(3), torch.zeros(2), torch.zeros(3)),
        ValueError,
        r"do not fit together: mean \(3,\), log_var \(2,\), noise \(3,\)",
    ),
    (lambda: reparameterised_gradients(torch.sin, 0, 0, 5), ValueError, "std must be positive, got 0"),
    (lambda: reparameterised_gradients(torch.sin, 0, 1, 0), ValueError, "n must be at least 1, got 0"),
    (lambda: score_function_gradients(torch.sum, 0, 1, 5), ValueError, r"one value per draw, shape \(5,\), got \(\)"),
]
DESCENT = [
    (lambda: list(coordinate_descent(torch.sin, ZEROS, 1)), TypeError, "problem must have value.* and best_coordinate"),
    (lambda: list(coordinate_descent(Corner(), ZEROS, -1)), ValueError, "sweeps must be at least 0, got -1"),
    (
        lambda: list(coordinate_descent(Corner(), torch.zeros(3), 1)),
        ValueError,
        r"x must have shape \(2,\), .* got \(3,\)",
    ),
    (lambda: Quadratic(EYE, torch.zeros(3)), ValueError, r"A must have shape \(3, 3\) to go with b, got \(2, 2\)"),
    (lambda: Quadratic(torch.ones(2, 2), ZEROS), ValueError, "A must be positive definite"),
    (lambda: Quadratic(T([[1.0, 0.5], [0.0, 1.0]]), ZEROS), ValueError, "A must be symmetric"),
    (lambda: Lasso(EYE, torch.zeros(3), 1.0), ValueError, "X must have one row per value of y, 3, got 2"),
    (lambda: Lasso(EYE, ZEROS, -1.0), ValueError, "penalty must not be negative, got -1"),
    (lambda: Lasso(EYE, ZEROS, 1.0).kkt_residual(torch.zeros(3)), ValueError, r"w must have shape \(2,\)"),
    (lambda: soft_threshold(ZEROS, -1.0), ValueError, "threshold must not be negative"),
    (lambda: quadratic_step(-EYE, ZEROS, ZEROS, 1), ValueError, r"A\[1, 1\] must be positive, got -1"),
    (lambda: quadratic_step(EYE, ZEROS, torch.zeros(3), 0), ValueError, r"same length: A \(2, 2\), b \(2,\), x \(3,\)"),
    (lambda: gauss_seidel(EYE, torch.zeros(3), ZEROS), ValueError, r"same length: A \(2, 2\), b \(3,\), x \(2,\)"),
    (
        lambda: lasso_step(EYE, torch.zeros(3), 1.0, ZEROS, 0),
        ValueError,
        "X must have one row per value of y, 3, got 2",
    ),
    (lambda: lasso_residual(EYE, ZEROS, 1.0, torch.zeros(3)), ValueError, r"w must have shape \(2,\)"),
    (lambda: lasso_residual(EYE, ZEROS, -1.0, ZEROS), ValueError, "penalty must not be negative, got -1"),
    (lambda: nearest_centre(EYE, torch.zeros(1, 3)), ValueError, "centres must have 2 numbers each, as points have"),
    (lambda: list(kmeans(torch.zeros(0, 2), EYE)), ValueError, "points must hold at least one point"),
    (lambda: list(kmeans(EYE, EYE, 0)), ValueError, "max_rounds must be at least 1, got 0"),
    (lambda: solve_lasso(Lasso(EYE, ZEROS, 1.0), max_sweeps=0), ValueError, "max_sweeps must be at least 1, got 0"),
]


@pytest.mark.parametrize(
    ("call", "error", "words"), [*BAYES, *MARKOV, *GAUSSIANS, *MOMENTS, *DIVERGENCES, *FITS, *DESCENT]
)
def test_message(call, error, words):
    with pytest.raises(error, match=words):
        call()


BITS = torch.tensor([[True, False]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: correlations(torch.tensor([0.1, 0.0])),
            ValueError,
            r"flips must lie strictly between 0 and 1, got fl",
        ),
        (lambda: flip_bits(torch.zeros(2), 0.1), TypeError, r"bits must be a tensor of booleans, got torch.float32; x"),
        (lambda: flip_bits(BITS, 1.0), ValueError, "flip must lie strictly between 0 and 1, got 1"),
        (lambda: picture_posterior(BITS, BITS[:, :1], 0.5), ValueError, r"pictures \(1, 2\), bits \(1, 1\)"),
        (lambda: picture_posterior(BITS, BITS, 1.5), ValueError, "correlation must lie between -1 and 1, got 1.5"),
        (lambda: picture_posterior(BITS, ~BITS, 1.0), ValueError, r"bits\[0\] cannot have come from any picture"),
        (lambda: picture_posterior(BITS, BITS, 0.5, torch.tensor([0.5])), ValueError, "prior must sum to 1"),
        (lambda: bit_posterior(BITS, BITS, 0.0, 0.5), ValueError, "flip must lie strictly between 0 and 1, got 0"),
        (lambda: list(reverse_bits(BITS[0], torch.tensor([0.1]), 2)), ValueError, r"pictures must have shape \(K, d\)"),
        (lambda: list(reverse_bits(BITS, torch.tensor([0.1]), 0)), ValueError, "n must be at least 1, got 0"),
    ],
)
def test_bits(call, error, message):
    with pytest.raises(error, match=message):
        call()
