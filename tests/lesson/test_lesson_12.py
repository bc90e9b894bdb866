"""Answers to lesson 12 that the random draws alone do not tell from right ones, and right ones written otherwise."""

import math

import pytest
import torch
import torch.nn.functional as F

from course_lib.lesson.checking import check
from course_lib.lesson.tasks import find


def verdict(exercise, function):
    return check(find(exercise), function)


def test_exp_without_care_fails_far_from_zero():
    def log_mean_exp(values):
        return values.double().exp().mean(dim=0).log()  # right for the draws, 0 or infinite far out

    found = verdict("12.1", log_mean_exp)
    assert found.status == "wrong"
    assert "leaves the range" in found.message


def test_sigmoid_then_log_fails_where_the_decoder_is_certain():
    def vae_loss(logits, bits, mean, log_var, beta=1.0):
        p = torch.sigmoid(logits.double())
        cross_entropy = -torch.where(bits == 1, p.log(), (1 - p).log()).flatten(1).sum(dim=1)
        kl = 0.5 * (log_var.exp() + mean**2 - 1 - log_var).sum(dim=1)
        return (cross_entropy + beta * kl).mean()

    found = verdict("12.4", vae_loss)
    assert found.status == "wrong"
    assert "logsigmoid" in found.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_right_answers(dtype):
    def log_mean_exp(values):
        return torch.logsumexp(values.to(dtype), dim=0) - math.log(values.shape[0])

    def kl_to_standard(mean, log_var):
        mean, log_var = mean.to(dtype), log_var.to(dtype)
        return torch.stack([-0.5 * (1 + v - m**2 - v.exp()).sum() for m, v in zip(mean, log_var, strict=True)])

    def gaussian_log_likelihood(mean, x, variance):
        std = torch.as_tensor(variance, dtype=dtype).sqrt()
        return torch.distributions.Normal(mean.to(dtype), std).log_prob(x.to(dtype)).flatten(1).sum(1)

    def vae_loss(logits, bits, mean, log_var, beta=1.0):
        total = F.binary_cross_entropy_with_logits(logits.to(dtype), bits.to(dtype), reduction="sum")
        return (total + beta * kl_to_standard(mean, log_var).sum()) / len(bits)

    def latent_walk(start, end, steps):
        return torch.stack([start.to(dtype) + k / (steps - 1) * (end - start).to(dtype) for k in range(steps)])

    for exercise, answer in (
        ("12.1", log_mean_exp),
        ("12.2", kl_to_standard),
        ("12.3", gaussian_log_likelihood),
        ("12.4", vae_loss),
        ("12.5", latent_walk),
    ):
        found = verdict(exercise, answer)
        assert found.status == "passed", (exercise, found.message)
