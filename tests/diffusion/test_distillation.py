"""Progressive distillation: one step that is two, exactly; and students that match their teachers where they can."""

import math

import pytest
import torch
from torch import nn

from course_lib.diffusion import (
    GaussianDenoiser,
    MixtureDenoiser,
    Schedule,
    convert,
    ddim,
    ddim_step,
    distillation_loss,
    one_step_target,
    q_sample,
    timesteps,
    two_steps,
)

S = Schedule.cosine(200)
MEAN, VARIANCES = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.04, 1.5]).double()


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def double(*shape, seed=0):
    return torch.randn(shape, generator=fresh(seed), dtype=torch.float64)


def mixture(kind="noise"):
    return MixtureDenoiser(
        S, torch.tensor([0.4, 0.6]), torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), torch.tensor([0.05, 0.1]), kind
    )


def last(states):
    *_, state = states
    return state.x


class Affine(nn.Module):
    """For each step of a list its own affine map of x_t: all that Gaussian data need."""

    def __init__(self, steps, prediction="x_start"):
        super().__init__()
        self.prediction = prediction
        self.maps = nn.ModuleDict({str(t): nn.Linear(2, 2).double() for t in steps})

    def forward(self, x_t, t, cond=None):
        maps = [self.maps[str(step)] for step in t.tolist()]
        return torch.stack([one(x) for one, x in zip(maps, x_t, strict=True)])

    def fit(self, teacher, visited):
        """Least squares, exactly: read off the target at three places of each step."""
        with torch.no_grad():
            for k, t in enumerate(visited[::2]):
                after = [*visited, -1][2 * k + 1 : 2 * k + 3]
                probe = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]).double()
                wanted = one_step_target(S, probe, two_steps(teacher, S, probe, t, *after), t, after[1])
                self.maps[str(t)].bias.copy_(wanted[0])
                self.maps[str(t)].weight.copy_((wanted[1:] - wanted[0]).T)
        return self


@pytest.mark.parametrize(("t", "t_end"), [(199, 150), (150, 99), (60, 0), (99, -1), (199, -1)])
def test_the_target_makes_one_ddim_step_arrive_where_it_should(t, t_end):
    x_t, x_end = double(6, 2), double(6, 2, seed=1)
    target = one_step_target(S, x_t, x_end, t, t_end)
    arrived, _ = ddim_step(S, x_t, target, t, t_end, kind="x_start")
    assert torch.allclose(arrived, x_end, atol=1e-8)


def test_at_the_clean_end_the_target_is_what_the_teacher_made():
    x_t, x_end = double(3, 2), double(3, 2, seed=1)
    assert torch.allclose(one_step_target(S, x_t, x_end, 120, -1), x_end)


def test_a_step_for_each_example_is_that_step_alone():
    x_t, x_end, t, t_end = double(3, 2), double(3, 2, seed=1), torch.tensor([40, 120, 199]), torch.tensor([-1, 60, 3])
    together = one_step_target(S, x_t, x_end, t, t_end)
    alone = [one_step_target(S, x_t[k : k + 1], x_end[k : k + 1], int(t[k]), int(t_end[k])) for k in range(3)]
    assert torch.allclose(together, torch.cat(alone))


@pytest.mark.parametrize("kind", ["noise", "x_start", "v"])
def test_two_steps_are_two_steps_of_the_sampler(kind):
    teacher, x = mixture(kind), double(8, 2)
    assert torch.allclose(two_steps(teacher, S, x, 199, 99, -1), last(ddim(teacher, S, (8, 2), 2, x=x)), atol=1e-12)


def test_a_perfect_teacher_of_one_point_teaches_the_point():
    """All its steps aim at the same place, so nothing is new in one step of double length."""
    point = torch.tensor([[0.3, -0.7]]).double()
    teacher = MixtureDenoiser(S, torch.ones(1), point, torch.zeros(1))
    x = double(5, 2)
    target = one_step_target(S, x, two_steps(teacher, S, x, 180, 120, 50), 180, 50)
    assert torch.allclose(target, point.expand(5, 2), atol=1e-8)


def test_a_student_in_one_step_is_the_teacher_in_two():
    teacher, visited = GaussianDenoiser(S, MEAN, VARIANCES), timesteps(200, 2)
    student, x = Affine(visited[::2]).fit(teacher, visited), double(50, 2)
    with torch.no_grad():
        one = last(ddim(student, S, (50, 2), 1, x=x))
    assert torch.allclose(one, last(ddim(teacher, S, (50, 2), 2, x=x)), atol=1e-8)
    plain = last(ddim(teacher, S, (50, 2), 1, x=x))
    assert (one - plain).abs().max() > 0.1, "the teacher in one step is another thing"
    place = torch.zeros(50, dtype=torch.long)
    loss = distillation_loss(student, teacher, S, double(50, 2, seed=2), place, double(50, 2, seed=3), visited)
    assert loss.shape == (50,)
    assert loss.max() < 1e-12


def test_sixteen_steps_in_one_by_halving_four_times():
    first = teacher = GaussianDenoiser(S, MEAN, VARIANCES)
    x = double(20, 2)
    for steps in (16, 8, 4, 2):
        visited = timesteps(200, steps)
        assert visited[::2] == timesteps(200, steps // 2), "the student visits every second step of its teacher"
        teacher = Affine(visited[::2]).fit(teacher, visited)
    with torch.no_grad():
        assert torch.allclose(
            last(ddim(teacher, S, (20, 2), 1, x=x)), last(ddim(first, S, (20, 2), 16, x=x)), atol=1e-6
        )


def test_training_finds_that_student():
    """By gradients and the loss alone, from random weights."""
    teacher, visited = GaussianDenoiser(S, MEAN, VARIANCES), timesteps(200, 4)
    torch.manual_seed(0)
    student = Affine(visited[::2])
    place = torch.arange(64) % 2
    x, noise = MEAN + VARIANCES.sqrt() * double(64, 2, seed=4), double(64, 2, seed=5)
    optimizer = torch.optim.LBFGS(student.parameters(), max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure():
        optimizer.zero_grad()
        loss = distillation_loss(student, teacher, S, x, place, noise, visited).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    start = double(20, 2, seed=6)
    with torch.no_grad():
        two = last(ddim(student, S, (20, 2), 2, x=start))
    assert torch.allclose(two, last(ddim(teacher, S, (20, 2), 4, x=start)), atol=1e-3)


@pytest.mark.parametrize("kind", ["v", "x_start", "noise"])
def test_the_error_is_one_of_the_students_own_kind(kind):
    teacher, visited = mixture(), timesteps(200, 4)
    place = torch.tensor([0, 1, 1])
    x, noise = double(3, 2), double(3, 2, seed=1)

    def student(x_t, t, cond=None):
        return torch.zeros_like(x_t)

    student.prediction = kind
    found = distillation_loss(student, teacher, S, x, place, noise, visited)
    for k, row in enumerate(place.tolist()):
        t, mid, end = ([*visited, -1][2 * row + j] for j in range(3))
        x_t = q_sample(S, x[k : k + 1], t, noise[k : k + 1])
        y = last(ddim(teacher, S, (1, 2), 1, x=x_t, timesteps=[t])) if end == mid else None
        assert y is None
        y, _ = ddim_step(S, x_t, teacher(x_t, t), t, mid)
        y, _ = ddim_step(S, y, teacher(y, mid), mid, end)
        a, s = S.alpha_bars[t].sqrt(), S.noise_std[t]
        a_end, s_end = (1.0, 0.0) if end < 0 else (S.alpha_bars[end].sqrt().item(), S.noise_std[end].item())
        clean = (s * y - s_end * x_t) / (s * a_end - s_end * a)
        wanted = convert(S, x_t, t, clean, "x_start", kind)
        assert found[k].item() == pytest.approx(wanted.square().mean().item(), rel=1e-6)


def test_only_the_student_learns():
    visited = timesteps(200, 2)
    teacher, student = Affine(visited), Affine(visited[::2])
    loss = distillation_loss(
        student, teacher, S, double(4, 2), torch.zeros(4, dtype=torch.long), double(4, 2, seed=1), visited
    )
    loss.mean().backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_the_condition_reaches_both():
    heard = []

    def told(x_t, t, cond):
        heard.append(cond)
        return torch.zeros_like(x_t)

    told.prediction = "v"
    x = double(2, 2)
    distillation_loss(told, told, S, x, torch.zeros(2, dtype=torch.long), x, [150, 40], "a word")
    assert heard == ["a word"] * 3


def test_pictures_and_float32():
    x = torch.randn(2, 1, 4, 4, generator=fresh())
    teacher = MixtureDenoiser(S, torch.ones(1), torch.zeros(1, 1, 4, 4), torch.tensor([0.3]), "v")
    loss = distillation_loss(teacher, teacher, S, x, torch.tensor([0, 1]), x.flip(0), timesteps(200, 4))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()


def test_what_noise_alone_cannot_say():
    """At the noisiest step an error of the predicted noise becomes an error of x_start that is 1/√ᾱ times as large."""
    factor = math.sqrt(1 / float(S.alpha_bars[-1]) - 1)
    assert factor > 1000
    x = double(4, 2)
    a, b = (ddim_step(S, x, noise, 199, -1)[0] for noise in (x, x + 0.01))
    assert torch.allclose((b - a).abs(), torch.full_like(x, 0.01 * factor), rtol=1e-6)
