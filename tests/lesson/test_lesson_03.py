"""Lesson 03's checkers on answers that no random draw unmasks, and on right answers of other kinds."""

import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from course_lib.lesson.checking import check
from course_lib.lesson.tasks import find


def plain(p, q):
    return (p * (p / q).log()).sum(-1)


def split(p, q):
    return (p * (p.log() - q.log())).sum(-1)


def with_epsilon(p, q):
    return (p * ((p + 1e-10) / (q + 1e-10)).log()).sum(-1)


def clamped(p, q):
    return (p * (p.clamp(min=1e-12).log() - q.clamp(min=1e-12).log())).sum(-1)


def masked(p, q):
    both = (p > 0) & (q > 0)
    return torch.where(both, torch.xlogy(p, p) - torch.xlogy(p, q), 0.0).sum(-1)


def one_pair_only(p, q):
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (plain, "gives NaN where p holds a 0"),
        (split, "gives NaN where p holds a 0"),
        (with_epsilon, "An epsilon, a clamp or a mask hides it"),
        (clamped, "An epsilon, a clamp or a mask hides it"),
        (masked, "An epsilon, a clamp or a mask hides it"),
        (one_pair_only, "not for a table with one pair per row"),
    ],
)
def test_zeros_and_rows(answer, words):
    verdict = check(find("3.1"), answer)
    assert verdict.status == "wrong"
    assert words in verdict.message


def by_torch(p, q):
    return kl_divergence(Categorical(p), Categorical(q))


def with_where(p, q):
    return torch.where(p > 0, p * (p / q).log(), torch.zeros_like(p)).sum(-1)


def in_float32(p, q):
    return (torch.xlogy(p.float(), p.float()) - torch.xlogy(p.float(), q.float())).sum(-1)


def normals_by_torch(mean_p, var_p, mean_q, var_q):
    return kl_divergence(Normal(mean_p, var_p.sqrt()), Normal(mean_q, var_q.sqrt()))


def second_moments(data):
    mean = (data.weights * data.means).sum()
    return mean.float(), ((data.weights * (data.variances + data.means**2)).sum() - mean**2).float()


def properties_of_the_mixture(data):
    return torch.tensor(data.mean), torch.tensor(data.variance)


def root_of_the_variance(mean, log_var, noise):
    return torch.addcmul(mean, torch.exp(log_var).sqrt(), noise)


@pytest.mark.parametrize(
    ("exercise_id", "answer"),
    [
        ("3.1", by_torch),
        ("3.1", with_where),
        ("3.1", in_float32),
        ("3.2", normals_by_torch),
        ("3.3", second_moments),
        ("3.3", properties_of_the_mixture),
        ("3.4", root_of_the_variance),
    ],
)
def test_other_right_answers_pass(exercise_id, answer):
    verdict = check(find(exercise_id), answer)
    assert verdict.status == "passed", verdict.message


def detached(mean, log_var, noise):
    return mean + torch.exp(0.5 * log_var).detach() * noise


def without_gradients(mean, log_var, noise):
    with torch.no_grad():
        return mean + torch.exp(0.5 * log_var) * noise


def mean_detached_twice(mean, log_var, noise):
    return mean.detach() + 0 * mean + torch.exp(0.5 * log_var) * noise


def own_noise(mean, log_var, noise):
    return mean + torch.exp(0.5 * log_var) * torch.randn_like(noise)


def stacked(mean, log_var, noise):
    return torch.stack([mean, torch.exp(0.5 * log_var) * noise]).sum(0)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (detached, "no gradient gets back to mean and log_var"),
        (without_gradients, "no gradient gets back to mean and log_var"),
        (mean_detached_twice, "has the right values but wrong gradients"),
        (own_noise, "use the noise it is handed, draw none"),
        (stacked, "fails for one mean and one log_var with many noises"),
    ],
)
def test_gradients_must_get_through_the_draw(answer, words):
    verdict = check(find("3.4"), answer)
    assert verdict.status == "wrong"
    assert words in verdict.message


def half_a_nat_from_itself(mean_p, var_p, mean_q, var_q):
    kl = kl_divergence(Normal(mean_p, var_p.sqrt()), Normal(mean_q, var_q.sqrt()))
    return torch.where(mean_p == mean_q, 0.5, kl)


def test_a_gaussian_is_no_nats_from_itself():
    verdict = check(find("3.2"), half_a_nat_from_itself)
    assert "gives 0.5 between a Gaussian and itself" in verdict.message
