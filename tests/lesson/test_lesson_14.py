"""Lesson 14's exercises: what only their properties catch, and other right forms."""

import torch

from course_lib.evaluation import cubic_kernel, feature_distance, neighbour_radius
from course_lib.lesson.checking import check
from course_lib.lesson.tasks import find


def half(cov):
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def test_frechet_in_other_right_forms():
    def by_eigenvalues(mean_a, cov_a, mean_b, cov_b):
        middle = half(cov_a) @ cov_b @ half(cov_a)
        overlap = torch.linalg.eigvalsh(middle).clamp(min=0).sqrt().sum()
        return ((mean_a - mean_b) ** 2).sum() + torch.trace(cov_a + cov_b) - 2 * overlap

    def by_the_nuclear_norm(mean_a, cov_a, mean_b, cov_b):
        overlap = torch.linalg.matrix_norm(half(cov_a) @ half(cov_b), "nuc")
        return float((mean_a - mean_b).norm() ** 2 + cov_a.trace() + cov_b.trace() - 2 * overlap)

    def in_float32(mean_a, cov_a, mean_b, cov_b):
        root = half(cov_a).float()
        middle = (root @ cov_b.float() @ root).double()
        overlap = torch.linalg.eigvalsh(middle).clamp(min=0).sqrt().sum()
        return ((mean_a - mean_b).float() ** 2).sum() + (cov_a.trace() + cov_b.trace() - 2 * overlap).float()

    for answer in (by_eigenvalues, by_the_nuclear_norm, in_float32):
        verdict = check(find("14.1"), answer)
        assert verdict.status == "passed", verdict.message


def test_a_root_that_is_not_clamped_is_told():
    def not_clamped(mean_a, cov_a, mean_b, cov_b):
        values, vectors = torch.linalg.eigh(cov_a)
        root = vectors * values.sqrt() @ vectors.T
        overlap = torch.linalg.eigvalsh(root @ cov_b @ root).sqrt().sum()
        return (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap

    verdict = check(find("14.1"), not_clamped)
    assert verdict.status == "wrong"
    assert "clamp them at 0" in verdict.message


def test_a_complex_answer_is_told():
    def complex_root(mean_a, cov_a, mean_b, cov_b):
        overlap = torch.linalg.eigvals(cov_a @ cov_b).sqrt().sum()
        return (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap

    verdict = check(find("14.1"), complex_root)
    assert verdict.status == "wrong"
    assert "real numbers are wanted" in verdict.message


def test_the_floor_in_another_right_form():
    def stacked(features, n, orders):
        parts = [features[order].split(n) for order in orders]
        return torch.tensor([feature_distance(part[0], part[1]) for part in parts], dtype=torch.float64).mean()

    assert check(find("14.2"), stacked).status == "passed"


def test_the_kernel_distance_in_other_right_forms_and_for_unequal_sets():
    def masked(a, b):
        def within(x):
            return cubic_kernel(x, x)[~torch.eye(len(x), dtype=torch.bool)].mean()

        return within(a) + within(b) - 2 * cubic_kernel(a, b).mean()

    def one_size_for_both(a, b):
        n = len(a)
        inner = sum(cubic_kernel(x, x).sum() - cubic_kernel(x, x).diagonal().sum() for x in (a, b))
        return inner / (n * (n - 1)) - 2 * cubic_kernel(a, b).sum() / n**2

    assert check(find("14.3"), masked).status == "passed"
    assert check(find("14.3"), one_size_for_both).status == "wrong"


def test_precision_in_other_right_forms():
    def by_sorting(samples, real, k=3):
        radius = torch.cdist(real, real).sort(dim=1).values[:, k]
        return ((samples[:, None] - real).norm(dim=2) <= radius).any(1).float().mean()

    def by_counting(samples, real, k=3):
        radius = neighbour_radius(real, k)
        return sum(bool((((real - s) ** 2).sum(1).sqrt() <= radius).any()) for s in samples) / len(samples)

    for answer in (by_sorting, by_counting):
        verdict = check(find("14.4"), answer)
        assert verdict.status == "passed", verdict.message
