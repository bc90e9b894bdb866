"""The forward process: shapes, dtypes, one noise per call, and the difference between one shot and the chain."""

import pytest
import torch

from course_lib.diffusion import Schedule, path_log_prob, q_chain, q_mean_variance, q_sample, q_step, unrolled_weights


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("move", [q_sample, q_step])
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 1, 8, 8), (4, 2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_any_shape_and_dtype(move, shape, dtype):
    x, noise = normal(*shape, dtype=dtype), normal(*shape, seed=1, dtype=dtype)
    moved = move(Schedule.linear(100), x, torch.tensor([0, 30, 60, 99]), noise)
    assert moved.shape == shape
    assert moved.dtype == dtype


@pytest.mark.parametrize("move", [q_sample, q_step])
def test_every_image_has_its_own_t(move):
    schedule, x, noise = Schedule.cosine(100), normal(5, 1, 4, 4), normal(5, 1, 4, 4, seed=1)
    t = torch.tensor([3, 99, 0, 50, 3])
    together = move(schedule, x, t, noise)
    for i in range(5):
        alone = move(schedule, x[i : i + 1], int(t[i]), noise[i : i + 1])
        assert torch.allclose(together[i : i + 1], alone, atol=1e-6)


def test_one_shot_draws_nothing_itself(monkeypatch):
    """The noise is handed in: a call of q_sample leaves every random state alone, and the same call gives the same."""
    for name in ("randn", "randn_like", "normal"):
        monkeypatch.setattr(torch, name, None)
    x = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    schedule = Schedule.linear(50)
    before = torch.get_rng_state()
    assert torch.equal(q_sample(schedule, x, 7, x.flip(2)), q_sample(schedule, x, 7, x.flip(2)))
    assert torch.equal(before, torch.get_rng_state())


def test_the_chain_draws_fresh_noise_from_its_generator_only():
    schedule, x = Schedule.linear(50), normal(2, 3)
    before = torch.get_rng_state()
    first = list(q_chain(schedule, x, torch.Generator().manual_seed(3)))
    again = list(q_chain(schedule, x, torch.Generator().manual_seed(3)))
    other = list(q_chain(schedule, x, torch.Generator().manual_seed(4)))
    assert torch.equal(before, torch.get_rng_state())
    assert len(first) == 50
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[-1], other[-1])


def test_same_marginals_but_another_joint():
    """Neighbours in the chain correlate by √α; with one shared noise they move in lock-step."""
    schedule, n = Schedule.linear(100), 100_000
    x_0 = torch.zeros(n, 1, dtype=torch.float64)
    path = [x for _, x in zip(range(21), q_chain(schedule, x_0, torch.Generator().manual_seed(0)), strict=False)]
    noise = normal(n, 1, seed=1, dtype=torch.float64)
    shots = [q_sample(schedule, x_0, t, noise) for t in (10, 20)]

    def correlation(a, b):
        return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()

    a = schedule.alpha_bars
    wanted = ((a[20] / a[10]).sqrt() * ((1 - a[10]) / (1 - a[20])).sqrt()).item()
    assert correlation(path[10], path[20]) == pytest.approx(wanted, abs=4 / n**0.5)
    assert correlation(*shots) == pytest.approx(1)
    assert path[20].std().item() == pytest.approx(shots[1].std().item(), rel=0.02)


def test_the_end_is_standard_normal():
    schedule, n = Schedule.linear(1000), 200_000
    end = q_sample(schedule, torch.ones(n, 1, dtype=torch.float64), 999, normal(n, 1, dtype=torch.float64))
    assert abs(end.mean().item() - schedule.sqrt_alpha_bars[-1].item()) < 4 / n**0.5
    assert abs(end.var().item() - 1) < 4 * (2 / n) ** 0.5


def test_mean_and_variance_have_one_value_per_image():
    x = normal(3, 1, 4, 4)
    mean, variance, log_variance = q_mean_variance(Schedule.linear(60), x, torch.tensor([0, 10, 59]))
    assert mean.shape == x.shape
    assert variance.shape == log_variance.shape == (3, 1, 1, 1)
    assert torch.allclose(variance.log(), log_variance)


def test_gradients_pass_to_the_image():
    x = normal(2, 1, 4, 4).requires_grad_()
    q_sample(Schedule.linear(60), x, torch.tensor([5, 40]), normal(2, 1, 4, 4, seed=1)).sum().backward()
    weights = Schedule.linear(60).sqrt_alpha_bars[[5, 40]].float()
    assert torch.allclose(x.grad, weights.view(2, 1, 1, 1).expand_as(x))


def test_no_parameters_to_learn():
    """The forward process is fixed: a schedule is plain tables, none of which asks for a gradient."""
    schedule = Schedule.linear(60)
    assert not isinstance(schedule, torch.nn.Module)
    assert not any(v.requires_grad for v in (schedule.betas, schedule.alpha_bars, *unrolled_weights(schedule, 9)))


def test_path_log_prob_per_image():
    schedule, x = Schedule.linear(30), normal(4, 2, 3)
    path = torch.stack(list(q_chain(schedule, x, torch.Generator().manual_seed(1))))
    together = path_log_prob(schedule, x, path)
    assert together.shape == (4,)
    alone = torch.cat([path_log_prob(schedule, x[i : i + 1], path[:, i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, rtol=1e-5)
    assert (path_log_prob(schedule, x, path + 0.5) < together).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu(dtype):
    x, noise = (normal(4, 1, 8, 8, seed=k).to("cuda", dtype) for k in range(2))
    t = torch.tensor([0, 30, 60, 99])
    wanted = q_sample(Schedule.linear(100), x.cpu().float(), t, noise.cpu().float())
    for steps in (t, t.cuda()):
        assert torch.allclose(q_sample(Schedule.linear(100), x, steps, noise).cpu().float(), wanted, atol=2e-2)


def test_correlation_with_the_image_is_the_root_of_alpha_bar():
    """For an image of variance 1, at 25, 50, 75 and 100% of the steps."""
    schedule, n = Schedule.linear(400), 100_000
    x_0, noise = normal(n, 1, dtype=torch.float64), normal(n, 1, seed=1, dtype=torch.float64)
    for t in (99, 199, 299, 399):
        x_t = q_sample(schedule, x_0, t, noise)
        found = torch.corrcoef(torch.cat([x_0, x_t], dim=1).T)[0, 1].item()
        assert found == pytest.approx(schedule.sqrt_alpha_bars[t].item(), abs=4 / n**0.5)
