"""Guidance: its ends bit for bit, both conventions, the calls it costs, and the way of a classifier, exactly."""

import math

import pytest
import torch
from torch import nn

from course_lib.diffusion import MixtureDenoiser, Schedule, convert, ddim, ddpm, sample
from course_lib.diffusion.guidance import ClassifierGuided, Guided, check_scale, guide, rescale, scale_from_w

SCHEDULE = Schedule.cosine(200)
MEANS = torch.tensor([[-2.0, 1.0], [-1.5, -1.5], [0.4, 0.2], [1.8, 0.9], [2.0, -1.2]], dtype=torch.float64)
VARIANCES = torch.linspace(0.05, 0.2, 5, dtype=torch.float64)
CLASSES = ([0, 1], [2], [3, 4])


def bells(which, prediction="noise"):
    """The exact denoiser of some of the five bells."""
    n = len(which)
    weights = torch.full((n,), 1 / n, dtype=torch.float64)
    return MixtureDenoiser(SCHEDULE, weights, MEANS[which], VARIANCES[which], prediction)


class Exact(nn.Module):
    """The exact denoiser of the class that each example is told; -1 tells nothing."""

    def __init__(self, prediction="noise"):
        super().__init__()
        self.prediction, self.seen = prediction, []
        self.parts = {-1: bells(range(5), prediction)}
        self.parts |= {k: bells(which, prediction) for k, which in enumerate(CLASSES)}

    def forward(self, x_t, t, cond):
        self.seen.append(cond)
        answers = torch.stack([self.parts[k](x_t, t) for k in (-1, 0, 1, 2)])
        return answers[cond + 1, torch.arange(len(x_t))]


def posterior_logits(x_t, t):
    """ln P(class | x_t) but for a constant, noise and all."""
    alpha_bar = SCHEDULE.alpha_bars[t][:, None]
    total = alpha_bar * VARIANCES + 1 - alpha_bar  # variance of x_t in each bell
    squared = ((x_t[:, None] - alpha_bar[..., None].sqrt() * MEANS) ** 2).sum(dim=2)
    each = -squared / (2 * total) - total.log()
    return torch.stack([each[:, which].logsumexp(dim=1) for which in CLASSES], dim=1)


def points(n=40, seed=0, std=1.5):
    g = torch.Generator().manual_seed(seed)
    x_t = std * torch.randn(n, 2, generator=g, dtype=torch.float64)
    return x_t, torch.randint(0, SCHEDULE.T, (n,), generator=g), torch.randint(0, 3, (n,), generator=g)


def nothing(n):
    return torch.full((n,), -1)


# --- the formula -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_scale_1_is_conditional_and_0_unconditional_bit_for_bit(dtype):
    g = torch.Generator().manual_seed(0)
    cond, null = ((100 * torch.randn(64, 5, generator=g)).to(dtype) for _ in range(2))
    for one, zero in ((1, 0), (1.0, 0.0)):
        assert torch.equal(guide(cond, null, one), cond)
        assert torch.equal(guide(cond, null, zero), null)
    if dtype in (torch.float16, torch.bfloat16):
        assert not torch.equal(null + 1 * (cond - null), cond), "the plain formula rounds"


def test_the_formula_is_a_line_through_both():
    cond, null = torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0, 1.0]])
    assert guide(cond, null, 2.5).tolist() == [[6.0, -4.0]]
    assert guide(cond, null, 0.5).tolist() == [[2.0, 0.0]]
    assert torch.equal(guide(cond, cond, 7.0), cond)


def test_the_other_convention():
    """Ho & Salimans: (1 + w) conditional - w unconditional; w = 0 is conditional, w = -1 unconditional."""
    g = torch.Generator().manual_seed(1)
    cond, null = torch.randn(2, 30, 4, generator=g, dtype=torch.float64)
    for w in (-1, -0.5, 0, 0.3, 2, 7.5):
        assert torch.allclose(guide(cond, null, scale_from_w(w)), (1 + w) * cond - w * null, atol=1e-12)
    assert scale_from_w(6.5) == 7.5
    assert isinstance(scale_from_w(2), float)
    with pytest.raises(ValueError, match="scale"):
        scale_from_w(-1.5)


def test_guidance_of_any_kind_of_prediction_is_the_same_guidance():
    """The three kinds are affine in one another with the same x_t, so it doesn't matter which one is guided."""
    x_t, t, label = points()
    in_noise = Guided(Exact("noise"), null=nothing(40), scale=3)(x_t, t, label)
    for kind in ("x_start", "v"):
        guided = Guided(Exact(kind), null=nothing(40), scale=3)
        assert guided.prediction == kind
        assert torch.allclose(convert(SCHEDULE, x_t, t, guided(x_t, t, label), kind, "noise"), in_noise, atol=1e-8)


@pytest.mark.parametrize("scale", [-0.1, -3, math.nan, math.inf, -math.inf])
def test_scales_that_are_none(scale):
    x = torch.zeros(2, 3)
    for build in (
        lambda: guide(x, x, scale),
        lambda: Guided(Exact(), null=None, scale=scale),
        lambda: ClassifierGuided(Exact(), posterior_logits, SCHEDULE, scale=scale),
        lambda: check_scale(scale),
    ):
        with pytest.raises(ValueError, match="at least 0"):
            build()


@pytest.mark.parametrize("scale", ["3", None, True])
def test_scales_that_are_no_numbers(scale):
    with pytest.raises(TypeError, match="scale must be a number"):
        check_scale(scale)


# --- rescale ---------------------------------------------------------------------------------------------------------


def test_rescale_gives_each_picture_the_standard_deviation_of_its_conditional_one():
    g = torch.Generator().manual_seed(2)
    cond = torch.randn(5, 3, 8, 8, generator=g) * torch.arange(1.0, 6)[:, None, None, None]
    guided = 4 * cond + torch.randn(5, 3, 8, 8, generator=g)
    stds = lambda x: x.flatten(1).std(dim=1)  # noqa: E731
    assert torch.allclose(stds(rescale(guided, cond, 1)), stds(cond), rtol=1e-5)
    assert torch.equal(rescale(guided, cond, 0), guided)
    half = rescale(guided, cond, 0.5)
    assert torch.allclose(stds(half), (stds(guided) + stds(cond)) / 2, rtol=1e-5)
    assert torch.allclose(rescale(guided, cond, 1)[2:3], rescale(guided[2:3], cond[2:3], 1)), "each by itself"


@pytest.mark.parametrize("strength", [-0.1, 1.1, math.nan])
def test_rescale_outside_0_to_1(strength):
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match="between 0 and 1"):
        rescale(x, x, strength)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Guided(Exact(), null=None, scale=2, rescale=strength)


@pytest.mark.parametrize("kind", ["noise", "x_start", "v"])
def test_guided_rescales_the_clean_picture_whatever_the_model_predicts(kind):
    schedule, g = Schedule.cosine(1000), torch.Generator().manual_seed(3)
    x_t, t = torch.randn(6, 3, 4, 4, generator=g), torch.tensor([1, 100, 300, 500, 700, 900])
    told, silent = torch.randn(2, 6, 3, 4, 4, generator=g)

    def model(x, t, cond):
        return told if cond == "told" else silent

    model.prediction = kind
    found = Guided(model, null="nothing", scale=4, rescale=1, schedule=schedule)(x_t, t, "told")
    stds = [convert(schedule, x_t, t, part, kind, "x_start").flatten(1).std(dim=1) for part in (found, told)]
    assert torch.allclose(*stds, rtol=1e-3)


def test_rescaling_needs_a_schedule():
    with pytest.raises(ValueError, match="schedule"):
        Guided(Exact(), null=None, scale=2, rescale=0.5)


# --- the guided model ------------------------------------------------------------------------------------------------


def test_a_guided_model_at_both_ends_is_the_model_itself():
    x_t, t, label = points()
    model = Exact()
    assert torch.equal(Guided(model, null=nothing(40), scale=1)(x_t, t, label), model(x_t, t, label))
    assert torch.equal(Guided(model, null=nothing(40), scale=0)(x_t, t, label), model(x_t, t, nothing(40)))
    assert torch.equal(Guided(model, null=nothing(40), scale=0)(x_t, t), model(x_t, t, nothing(40)))


@pytest.mark.parametrize("scale", [0, 1])
def test_both_ends_hold_through_a_whole_sampling(scale):
    start = points(16)[0]
    label = torch.arange(16) % 3
    told = label if scale else nothing(16)
    guided = Guided(Exact(), null=nothing(16), scale=scale)
    options = {"steps": 20, "x": start, "progress": False}
    found = sample(guided, SCHEDULE, (16, 2), cond=label, **options)
    assert torch.equal(found, sample(Exact(), SCHEDULE, (16, 2), cond=told, **options))


def test_calls_are_counted():
    start = points(8)[0]
    for scale, each in ((3, 2), (1.5, 2), (1, 1), (0, 1)):
        model = Exact()
        guided = Guided(model, null=nothing(8), scale=scale)
        sample(guided, SCHEDULE, (8, 2), 25, sampler=ddim, x=start, cond=torch.zeros(8).long(), progress=False)
        assert guided.calls == len(model.seen) == 25 * each


def test_the_null_condition_is_handed_on_as_it_is():
    """Never guessed, never changed: the very object reaches the model, and so does the condition."""
    null, cond = object(), object()
    seen = []

    def model(x_t, t, given):
        seen.append(given)
        return x_t

    model.prediction = "noise"
    Guided(model, null=null, scale=2)(torch.zeros(1, 2), torch.zeros(1).long(), cond)
    assert seen == [cond, null]
    with pytest.raises(TypeError, match="null"):
        Guided(model, scale=2)


def test_identical_calls_are_identical():
    x_t, t, label = points()
    guided = Guided(Exact(), null=nothing(40), scale=5)
    assert torch.equal(guided(x_t, t, label), guided(x_t, t, label))
    draws = [
        sample(
            Guided(Exact(), null=nothing(12), scale=3), SCHEDULE, (12, 2), 30, sampler=ddpm,
            cond=torch.arange(12) % 3, generator=torch.Generator().manual_seed(7), progress=False,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert torch.equal(*draws)


def test_samples_obey_their_class():
    n = 300
    label = torch.arange(n) % 3
    start = torch.randn(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = sample(Exact(), SCHEDULE, (n, 2), 100, x=start, cond=label, progress=False)
    nearest = torch.cdist(x, MEANS).argmin(dim=1)
    of_bell = torch.tensor([0, 0, 1, 2, 2])
    assert (of_bell[nearest] == label).double().mean() > 0.97


# --- classifier guidance ---------------------------------------------------------------------------------------------


def test_the_exact_classifier_at_scale_1_makes_the_conditional_model():
    x_t, t, label = points(200)
    told = Exact()
    found = ClassifierGuided(bells(range(5)), posterior_logits, SCHEDULE, scale=1)(x_t, t, label)
    assert torch.allclose(found, told(x_t, t, label), atol=1e-8)


@pytest.mark.parametrize("scale", [0, 0.5, 3])
def test_classifier_guidance_and_classifier_free_guidance_agree(scale):
    x_t, t, label = points(100, seed=3)
    for kind in ("noise", "x_start", "v"):  # of the unconditional model; what comes out is noise
        by_classifier = ClassifierGuided(bells(range(5), kind), posterior_logits, SCHEDULE, scale=scale)
        assert by_classifier.prediction == "noise"
        free = Guided(Exact(), null=nothing(100), scale=scale)
        assert torch.allclose(by_classifier(x_t, t, label), free(x_t, t, label), atol=1e-7)


def test_classifier_guidance_works_where_gradients_are_off_and_leaves_none_behind():
    x_t, t, label = points(10)
    guided = ClassifierGuided(bells(range(5)), posterior_logits, SCHEDULE, scale=2)
    with torch.no_grad():
        quiet = guided(x_t, t, label)
    assert torch.equal(quiet, guided(x_t, t, label))
    assert not quiet.requires_grad
    assert not x_t.requires_grad


def test_a_classifier_of_clean_data_misleads():
    """Asked about noisy points as if they were clean, it pushes far too hard, or not at all."""
    n = 400
    start = torch.randn(n, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    label = torch.full((n,), 1)  # one bell, in the middle

    def clean(x_t, t):
        return posterior_logits(x_t, torch.zeros_like(t))

    ends = {}
    for name, classifier in (("noise-aware", posterior_logits), ("clean", clean)):
        model = ClassifierGuided(bells(range(5)), classifier, SCHEDULE, scale=1)
        x = sample(model, SCHEDULE, (n, 2), 100, x=start, cond=label, progress=False)
        ends[name] = (x - MEANS[2]).norm(dim=1).median().item()
    assert ends["noise-aware"] < 0.6 < ends["clean"]


@pytest.mark.parametrize("label", [None, torch.tensor([0, 1]), torch.zeros(4), torch.zeros(4, 1).long()])
def test_labels_that_are_none(label):
    guided = ClassifierGuided(bells(range(5)), posterior_logits, SCHEDULE, scale=1)
    x_t, t, _ = points(4)
    with pytest.raises((ValueError, TypeError), match="label"):
        guided(x_t, t, label)
