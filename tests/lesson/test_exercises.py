"""Every checker of the course: the right answer passes, every named mistake is called by its name, over 20 seeds."""

import inspect

import pytest
import torch

from course_lib.diffusion import posterior, q_sample
from course_lib.diffusion.schedule import gather
from course_lib.lesson.checking import call, check, outcome
from course_lib.lesson.sources import runnable
from course_lib.lesson.tasks import catalogue, find

SEEDS = range(20)
TASKS = list(catalogue().values())
MISTAKES = [(task, mistake) for task in TASKS for mistake in task.mistakes]


def with_arguments_of(task, function):
    """`function` under the signature that the exercise asks for, defaults included, as a learner would write it."""

    signature = inspect.signature(task.reference)

    def answer(*args, **options):
        return function(*signature.bind(*args, **options).arguments.values())

    answer.__signature__ = signature
    return answer


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_the_right_answer_passes(task):
    for seed in SEEDS:
        verdict = check(task, task.reference, seed)
        assert verdict.status == "passed", verdict.message


@pytest.mark.parametrize(("task", "mistake"), MISTAKES, ids=[f"{task.id} {mistake.name}" for task, mistake in MISTAKES])
def test_a_usual_mistake_is_called_by_its_name(task, mistake):
    answer = with_arguments_of(task, mistake.function)
    for seed in SEEDS:
        verdict = check(task, answer, seed)
        assert verdict.status == "wrong"
        assert verdict.mistake == mistake.name
        assert mistake.message in verdict.message


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_at_least_two_mistakes_and_hints_and_enough_draws(task):
    assert len({mistake.name for mistake in task.mistakes}) >= 2
    assert len(task.hints) >= 2
    assert task.draws >= 20
    assert task.draw(torch.Generator().manual_seed(0)) is not None


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_the_independent_route_agrees_with_the_library(task):
    """Two implementations that share no code: if they agree on many draws, the checker measures with a true rule."""
    generator = torch.Generator().manual_seed(99)
    for _ in range(50):
        args = task.draw(generator)
        ours, others = (
            outcome(call(task, task.reference, args), number=True),
            outcome(task.independent(*args), number=True),
        )
        for one, other in zip(ours, others, strict=True):
            assert torch.allclose(one.double(), other.double(), rtol=max(task.rtol / 10, 1e-6), atol=task.atol)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_the_solution_runs_as_it_is_printed(task):
    scope = {}
    exec(runnable(task.reference), scope)
    assert check(task, scope[task.reference.__name__]).status == "passed"


def test_ids_are_in_order():
    ids = [tuple(int(part) for part in task.id.split(".")) for task in TASKS]
    assert ids == sorted(set(ids))


def test_one_shot_must_fit_the_whole_lesson():
    """5.3 is used on plain numbers with a single t: an answer that fits images alone is told so."""

    def images_only(s, x, t, z):
        return s.sqrt_alpha_bars[t].view(-1, 1, 1, 1) * x + s.noise_std[t].view(-1, 1, 1, 1) * z

    task = find("5.3")
    verdict = check(task, with_arguments_of(task, images_only))
    assert verdict.status == "wrong"
    assert "gather(schedule.alpha_bars, t, x_start) fits every case" in verdict.message


def test_where_no_noise_is_added_it_may_be_none():
    """10.1 and 10.4: right values, but 0 times None."""
    from course_lib.diffusion import ddim_step, ddpm_step

    def needs_it(step):
        def answer(s, x, p, t, t_prev, noise=None, kind="noise", option=None, clip=None):
            option = {"variance" if step is ddpm_step else "eta": option}
            return step(s, x, p, t, t_prev, noise + 0, kind=kind, **option, clip=clip)

        return answer

    for name, step in (("10.1", ddpm_step), ("10.4", ddim_step)):
        task = find(name)
        verdict = check(task, with_arguments_of(task, needs_it(step)))
        assert verdict.status == "wrong"
        assert "0 * None fails" in verdict.message


def test_a_single_step_starts_in_pure_noise():
    """10.2: right for two steps and more, and either 0 or no answer at all for one."""

    def trailing(T, steps, spacing):
        if spacing == "linspace":
            return [round(i * (T - 1) / (steps - 1)) for i in reversed(range(steps))]
        stride = T // steps if spacing == "leading" else T / steps
        first = 0 if spacing == "leading" else T - 1 - (steps - 1) * stride
        return [round(first + i * stride) for i in reversed(range(steps))]

    def zero(T, steps, spacing):
        return [0] if steps == 1 else trailing(T, steps, spacing)

    task = find("10.2")
    for answer, words in ((trailing, "999 in every spacing"), (zero, "gives [0] for T = 1000")):
        verdict = check(task, with_arguments_of(task, answer))
        assert verdict.status == "wrong"
        assert words in verdict.message


def test_without_observations_the_prior_is_left():
    """1.2 on no shots at all: the mean of an empty tensor is NaN, and the message says what to use."""

    def with_mean(prior_mean, prior_var, observations, noise_var):
        n = len(observations)
        precision = 1 / prior_var + n / noise_var
        return (prior_mean / prior_var + n * observations.mean() / noise_var) / precision, 1 / precision

    verdict = check(find("1.2"), with_mean)
    assert verdict.status == "wrong"
    assert "use observations.sum() and len(observations)" in verdict.message


def test_a_sweep_must_leave_the_start_alone():
    """4.2: right values, but written into the caller's x."""

    def in_place(A, b, x):
        for i in range(len(x)):
            x[i] = (b[i] - A[i] @ x + A[i, i] * x[i]) / A[i, i]
        return x

    verdict = check(find("4.2"), in_place)
    assert verdict.status == "wrong"
    assert "changes one of its arguments in place" in verdict.message


def test_a_soft_threshold_must_take_a_single_number():
    """4.3: right for every shape that has rows, but the coordinate step has none."""

    def row_by_row(value, threshold):
        return torch.stack([row.sign() * (row.abs() - threshold).clamp(min=0) for row in value])

    verdict = check(find("4.3"), row_by_row)
    assert verdict.status == "wrong"
    assert "fails for a tensor that holds a single number" in verdict.message


def test_other_right_forms_of_lesson_04_pass():
    """The step as a correction of x_i, in float32 or as a plain number; the residual as a tensor."""

    def correction(A, b, x, i):
        return (x[i] - (A[i] @ x - b[i]) / A[i, i]).float()

    def plain(A, b, x, i):
        return float(x[i] - (A[i] @ x - b[i]) / A[i, i])

    def softshrink(value, threshold):
        return torch.nn.functional.softshrink(value.float(), threshold)

    def residual(X, y, penalty, w):
        g = X.T @ (X @ w - y)
        return torch.where(w == 0, (g.abs() - penalty).clamp(min=0), (g + penalty * w.sign()).abs()).max().float()

    for task, answer in (("4.1", correction), ("4.1", plain), ("4.3", softshrink), ("4.4", residual)):
        verdict = check(find(task), with_arguments_of(find(task), answer))
        assert verdict.status == "passed", verdict.message


def test_lesson_06_must_fit_the_whole_lesson():
    """6.1, 6.3 and 6.4 are used on single pixels, 6.1 with one t for all: answers that fit pictures alone are told."""

    def column(table, t):
        return table.float()[t.tolist()].view(-1, 1, 1, 1)

    def images_only(s, x_start, x_t, t):
        mean = column(s.posterior_coef_x_start, t) * x_start + column(s.posterior_coef_x_t, t) * x_t
        return mean, column(s.posterior_variance, t)

    def mean_of_images(s, x_t, t, noise):
        return (x_t - column(s.betas / s.noise_std, t) * noise) / column(s.alphas.sqrt(), t)

    def loss_of_images(model, s, x_start, t, noise, cond=None):
        x_t = column(s.sqrt_alpha_bars, t) * x_start + column(s.noise_std, t) * noise
        return ((model(x_t, t, cond) - noise) ** 2).mean(dim=(1, 2, 3))

    for task, answer in (("6.1", images_only), ("6.3", mean_of_images), ("6.4", loss_of_images)):
        verdict = check(find(task), with_arguments_of(find(task), answer))
        assert verdict.status == "wrong"
        assert "single pixels" in verdict.message


def test_a_loss_must_pass_gradients_on():
    """6.4: right values, but cut off from the model."""
    task = find("6.4")
    verdict = check(task, with_arguments_of(task, lambda *args: task.reference(*args).detach()))
    assert verdict.status == "wrong"
    assert "no gradient reaches the model" in verdict.message


def test_other_right_forms_of_lesson_06_pass():
    """Precisions in place of tables, everything in float32; the KL written out; the mean through the clean image."""

    def by_precisions(s, x_start, x_t, t):
        bar, alpha = gather(s.alpha_bars_prev, t, x_t), gather(s.alphas, t, x_t)
        variance = 1 / (alpha / (1 - alpha) + 1 / (1 - bar))
        mean = variance * (alpha.sqrt() / (1 - alpha) * x_t + bar.sqrt() / (1 - bar) * x_start)
        return torch.where(bar < 1, mean, x_start), torch.where(bar < 1, variance, 0.0)

    def written_out(s, x_start):
        bar = s.alpha_bars[-1]
        return (0.5 * (bar * x_start**2 + (1 - bar) - 1 - torch.log(1 - bar))).flatten(1).sum(dim=1).float()

    def through_the_image(s, x_t, t, noise):
        bar = gather(s.alpha_bars, t, x_t.double())
        x_start = (x_t - (1 - bar).sqrt() * noise) / bar.sqrt()
        return posterior(s, x_start, x_t.double(), t)[0]

    def mse(model, s, x_start, t, noise, cond=None):
        error = torch.nn.functional.mse_loss(model(q_sample(s, x_start, t, noise), t, cond), noise, reduction="none")
        return error.flatten(1).mean(1)

    for task, answer in (("6.1", by_precisions), ("6.2", written_out), ("6.3", through_the_image), ("6.4", mse)):
        verdict = check(find(task), with_arguments_of(find(task), answer))
        assert verdict.status == "passed", verdict.message


def test_maps_that_fit_already_and_gaps_and_odd_sizes():
    """7.1 to 7.4: right on every draw, wrong where nobody looks."""

    def stamp_without_gaps(x, kernel, stride):
        grown = torch.nn.functional.conv_transpose2d(x[None, None], kernel[None, None], stride=stride)[0, 0]
        return grown + (grown == 0)  # something between the stamps

    def crop_from_both_ends(x, size):
        d, e = (x.shape[2] - size[0]) // 2, (x.shape[3] - size[1]) // 2
        return x[:, :, d:-d, e:-e]

    def never_refuses(size, kernel, stride=1, padding=0, dilation=1):
        return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1

    def rounds_silently(size, depth=4):
        return size - 12 * 2**depth + 8

    for name, answer, words in (
        ("7.1", never_refuses, "does not fit even once: raise ValueError"),
        ("7.2", stamp_without_gaps, "between the stamps stays 0"),
        ("7.3", crop_from_both_ends, "is empty for d = 0"),
        ("7.4", rounds_silently, "its third pooling would have to halve 121: raise ValueError"),
    ):
        verdict = check(find(name), answer)
        assert verdict.status == "wrong"
        assert words in verdict.message


def test_other_right_forms_of_lesson_07_pass():
    """Sizes as plain or float numbers; stamps by outer products in float64; closed forms."""

    def counted(size, kernel, stride=1, padding=0, dilation=1):
        places = len(range(0, size + 2 * padding - dilation * (kernel - 1), stride))
        if places == 0:
            raise ValueError("does not fit")
        return float(places)

    def outer(x, kernel, stride):
        k = len(kernel)
        spread = torch.zeros((len(x) - 1) * stride + 1, (x.shape[1] - 1) * stride + 1, dtype=torch.float64)
        spread[::stride, ::stride] = x
        flipped = kernel.double().flip(0, 1)[None, None]
        return torch.nn.functional.conv2d(spread[None, None], flipped, padding=k - 1)[0, 0]

    def closed(size, depth=4):
        if (size + 4) % 2**depth or size - 12 * 2**depth + 8 < 1:
            raise ValueError("no")
        return size - 12 * 2**depth + 8

    def backwards(layers):
        field = 1
        for layer in reversed(layers):
            field = (field - 1) * layer.stride + layer.dilation * (layer.kernel - 1) + 1
        return field

    for name, answer in (("7.1", counted), ("7.2", outer), ("7.4", closed), ("7.5", backwards)):
        verdict = check(find(name), answer)
        assert verdict.status == "passed", verdict.message
