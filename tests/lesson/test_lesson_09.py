"""Lesson 09's exercises: what only their properties catch, and other right forms."""

import math

import torch
from verdicts import verdict

from course_lib.diffusion import q_sample
from course_lib.lesson.tasks import find


def loss_of(model, schedule, x_start, t, noise):
    return torch.nn.functional.mse_loss(model(q_sample(schedule, x_start, t, noise), t, None), noise)


def test_a_step_must_change_the_weights():
    found = verdict("9.1", lambda m, o, s, x, t, e: loss_of(m, s, x, t, e).item())
    assert found.status == "wrong"
    assert "not where one step of the optimizer leads" in found.message


def test_gradients_must_not_pile_up():
    def piling(model, optimizer, schedule, x_start, t, noise):
        loss = loss_of(model, schedule, x_start, t, noise)
        loss.backward()
        optimizer.step()
        return loss.item()

    found = verdict("9.1", piling)
    assert found.status == "wrong"
    assert "right once and wrong when called again" in found.message


def test_a_tensor_is_a_loss_too_and_the_gradient_may_be_cleared_last():
    def other(model, optimizer, schedule, x_start, t, noise):
        loss = loss_of(model, schedule, x_start, t, noise)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    assert verdict("9.1", other).status == "passed"


def test_other_right_forms():
    def by_minimum(scores):
        found = []
        for k, score in enumerate(scores):
            numbers = [s for s in scores[:k] if not math.isnan(s)]
            found.append(not math.isnan(score) and score < min(numbers, default=math.inf))
        return found

    assert verdict("9.2", by_minimum).status == "passed"
    assert verdict("9.4", lambda T, positions: [T - 1 - k % T for k in positions]).status == "passed"

    @torch.no_grad()
    def from_noise(model, schedule, x, noise, clip):
        """Equation 6.17's mean where nothing is clipped, written in float32 with numbers from the tables."""
        for t in range(schedule.T - 1, -1, -1):
            bar, prev = schedule.alpha_bars[t].item(), schedule.alpha_bars_prev[t].item()
            guess = (x - math.sqrt(1 - bar) * model(x, torch.full((len(x),), t), None)) / math.sqrt(bar)
            guess = guess if clip is None else guess.clamp(*clip)
            beta = schedule.betas[t].item()
            x = (math.sqrt(prev) * beta * guess + math.sqrt(1 - beta) * (1 - prev) * x) / (1 - bar)
            if t > 0:
                x = x + math.sqrt(beta * (1 - prev) / (1 - bar)) * noise[t]
        return x

    assert verdict("9.3", from_noise).status == "passed"


def test_pictures_only_is_told():
    def pictures_only(model, schedule, x, noise, clip):
        assert x.ndim == 4
        return find("9.3").reference(model, schedule, x, noise, clip)

    found = verdict("9.3", pictures_only)
    assert found.status == "wrong"
