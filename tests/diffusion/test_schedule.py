"""Schedules: closed forms at every t, tables re-derived, published values, and another library's numbers."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.diffusion import Schedule, cosine_betas, gather, log_snr

ALL = {"linear": Schedule.linear, "cosine": Schedule.cosine, "scaled_linear": Schedule.scaled_linear}


def by_hand(name, T):
    """Betas of a named schedule from plain Python arithmetic."""
    if name == "linear":
        return [1000 / T * (1e-4 + (0.02 - 1e-4) * k / (T - 1)) for k in range(T)]
    if name == "scaled_linear":
        a, b = math.sqrt(0.00085), math.sqrt(0.012)
        return [(a + (b - a) * k / (T - 1)) ** 2 for k in range(T)]
    f = [math.cos((k / T + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(T + 1)]
    return [min(1 - f[k + 1] / f[k], 0.999) for k in range(T)]


@pytest.mark.parametrize("T", [50, 500, 1000, 1777])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore:x_T is not noise")
def test_closed_form_at_every_t(name, T):
    schedule, betas = ALL[name](T), by_hand(name, T)
    assert schedule.T == T
    assert schedule.betas.dtype == torch.float64
    assert torch.allclose(schedule.betas, torch.tensor(betas, dtype=torch.float64), rtol=1e-9)
    kept = 1.0
    for t, beta in enumerate(betas):
        before, kept = kept, kept * (1 - beta)
        assert schedule.alpha_bars[t].item() == pytest.approx(kept, rel=1e-9)
        assert schedule.alpha_bars_prev[t].item() == pytest.approx(before, rel=1e-9)
        wanted = beta * (1 - before) / (1 - kept)
        assert schedule.posterior_variance[t].item() == pytest.approx(wanted, rel=1e-8, abs=1e-15)


@pytest.mark.parametrize("name", ALL)
def test_tables_follow_from_alpha_bars(name):
    s = ALL[name](1000)
    a = s.alpha_bars
    for table, wanted in (
        (s.alphas, 1 - s.betas),
        (s.sqrt_alpha_bars**2, a),
        (s.noise_std**2, 1 - a),
        (s.log_snr.exp(), a / (1 - a)),
        (s.recip_sqrt_alpha_bars**2, 1 / a),
        (s.recipm1_sqrt_alpha_bars**2, 1 / a - 1),
        (s.posterior_std**2, s.posterior_variance),
    ):
        assert table.dtype == torch.float64
        assert table.shape == (1000,)
        assert torch.allclose(table, wanted, rtol=1e-9)
    assert (s.posterior_variance <= s.betas).all()
    assert s.posterior_variance[0] == 0


def test_posterior_coefficients_undo_the_forward_process():
    """Averaging the posterior over x_t gives back q(x_{t-1} | x_0); at the first step the weights are (1, 0)."""
    s = Schedule.linear(300)
    through = s.posterior_coef_x_start + s.posterior_coef_x_t * s.sqrt_alpha_bars
    assert torch.allclose(through, s.alpha_bars_prev.sqrt(), rtol=1e-9)
    spread = s.posterior_variance + s.posterior_coef_x_t**2 * (1 - s.alpha_bars)
    assert torch.allclose(spread, 1 - s.alpha_bars_prev, atol=1e-12)
    assert s.posterior_coef_x_start[0].item() == pytest.approx(1)
    assert s.posterior_coef_x_t[0].item() == 0


def test_published_values():
    linear, cosine = Schedule.linear(1000), Schedule.cosine(1000)
    assert linear.alpha_bars[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)
    for t, wanted in ((100, 0.89702), (250, 0.52409), (500, 0.07859), (750, 0.00335)):
        assert linear.alpha_bars[t - 1].item() == pytest.approx(wanted, abs=6e-6)
    assert (linear.log_snr < 0).nonzero()[0].item() + 1 == 260
    assert cosine.betas[0].item() == pytest.approx(4.128e-5, rel=1e-3)
    assert cosine.betas[998].item() == pytest.approx(0.750, abs=1e-3)
    assert (cosine.betas == 0.999).sum().item() == 1
    assert cosine.alpha_bars[499].item() == pytest.approx(0.4938, abs=1e-4)
    assert cosine.alpha_bars[-1].item() == pytest.approx(2.43e-9, rel=1e-2)
    assert Schedule.scaled_linear(1000).alpha_bars[-1].item() == pytest.approx(0.00466, rel=1e-3)
    assert (linear.alpha_bars < 0.01).nonzero()[0].item() + 1 == pytest.approx(673, abs=1)
    assert (cosine.alpha_bars < 0.01).nonzero()[0].item() + 1 == pytest.approx(935, abs=1)
    for t, wanted in ((2, 0.455), (11, 0.864), (501, 0.9991), (1000, 1.0)):
        ratio = (linear.posterior_variance / linear.betas)[t - 1].item()
        assert ratio == pytest.approx(wanted, abs=6e-4)


def test_rescaled_linear_ends_in_noise_whatever_T():
    for T, wanted in ((100, 2.0e-5), (200, 3.0e-5), (500, 3.8e-5), (1000, 4.0e-5), (4000, 4.2e-5)):
        assert Schedule.linear(T).alpha_bars[-1].item() == pytest.approx(wanted, rel=0.03)
    for T, wanted in ((100, 0.364), (200, 0.132), (400, 0.0175)):
        with pytest.warns(UserWarning, match="x_T is not noise"):
            cut = Schedule.linear(T, rescale=False)
        assert cut.alpha_bars[-1].item() == pytest.approx(wanted, rel=5e-3)


def test_warns_only_when_the_end_is_not_noise():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ALL:
            ALL[name](1000)
        Schedule.cosine(5)
        Schedule.linear(21)
    t = torch.arange(1, 1001, dtype=torch.float64)
    for betas in (1 / (t + 1) ** 2, torch.linspace(1e-4, 0.002, 1000), torch.full((3,), 0.1)):
        with pytest.warns(UserWarning, match="x_T is not noise"):
            Schedule(betas)


def test_coarse_offset_misprint_is_refused():
    """0.08 in the place of 0.008 makes betas negative; no clamp hides it."""
    t = torch.arange(1001, dtype=torch.float64)
    f = torch.cos((t / 1000 + 0.08) / 1.008 * math.pi / 2) ** 2
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        Schedule((1 - f[1:] / f[:-1]).clamp(max=0.999))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1e-6, 0.9999), min_size=1, max_size=50))
@pytest.mark.filterwarnings("ignore:x_T is not noise")
def test_any_valid_betas(values):
    s = Schedule(torch.tensor(values, dtype=torch.float64))
    assert (s.alpha_bars.diff() < 0).all()
    assert (s.alpha_bars > 0).all()
    assert torch.isfinite(s.log_snr).all()
    assert torch.allclose(s.sqrt_alpha_bars**2 + s.noise_std**2, torch.ones(s.T, dtype=torch.float64))


def test_a_schedule_keeps_its_own_copy_of_the_betas():
    betas = torch.full((2000,), 0.01)
    s = Schedule(betas)
    betas[:] = 0.5
    assert s.alpha_bars[0].item() == pytest.approx(0.99)


def test_float32_would_lose_digits():
    """Why tables are float64: the first cosine beta in float32 is off by about a thousandth."""
    t = torch.arange(1001, dtype=torch.float32)
    f = torch.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    lost = abs((1 - f[1] / f[0]).item() / cosine_betas(1000)[0].item() - 1)
    assert 1e-4 < lost < 1e-2


def test_log_snr_is_antisymmetric_and_zero_in_the_middle():
    a = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    assert torch.allclose(log_snr(a), -log_snr(a.flip(0)), atol=1e-12)
    assert log_snr(torch.tensor([0.5], dtype=torch.float64)).item() == 0


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 1, 4, 4), (3, 2, 5, 6, 7)])
def test_gather_fits_any_number_of_axes(shape):
    s = Schedule.linear(100)
    like = torch.zeros(shape)
    values = gather(s.betas, torch.tensor([0, 50, 99]), like)
    assert values.shape == (3, *[1] * (len(shape) - 1))
    assert values.dtype == like.dtype
    assert torch.equal(values.flatten(), s.betas[[0, 50, 99]].float())
    assert (values * like).shape == shape
    assert torch.equal(gather(s.betas, 7, like).flatten(), s.betas[7:8].float())
    assert torch.equal(gather(s.betas, torch.tensor(7), like), gather(s.betas, 7, like))
    assert gather(s.betas, 7, like.to(torch.float64)).dtype == torch.float64


@pytest.mark.filterwarnings("ignore")  # diffusers warns about its own imports
@pytest.mark.parametrize(
    ("name", "options", "rtol"),
    [
        ("linear", {"beta_start": 1e-4, "beta_end": 0.02}, 4e-7),
        ("scaled_linear", {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}, 1e-6),
        ("cosine", {"beta_schedule": "squaredcos_cap_v2"}, 2e-5),
    ],
)
def test_diffusers_has_the_same_schedule(name, options, rtol):
    """Within diffusers' float32, at every t. The SNR is compared relatively: at the last steps ᾱ is so small that an
    absolute comparison would not notice a lost cap."""
    from diffusers import DDPMScheduler

    theirs, ours = DDPMScheduler(1000, **options), ALL[name](1000)
    bars = theirs.alphas_cumprod.double()
    snr = bars / (1 - bars)
    assert (theirs.betas.double() / ours.betas - 1).abs().max() < 3e-7
    assert (bars / ours.alpha_bars - 1).abs().max() < rtol
    assert (snr / ours.log_snr.exp() - 1).abs()[-10:].max() < rtol
    # at the first steps 1 - ᾱ in float32 has lost digits: they are diffusers', the schedule's are float64
    assert (snr / ours.log_snr.exp() - 1).abs().max() < 1e-3


def test_offset_keeps_the_first_step_below_a_grey_level():
    """s = 0.008 puts the first step's noise just below a grey level's width, 1/127.5; without it, far below."""
    width = 1 / 127.5
    assert 0.7 * width < Schedule.cosine(1000).betas[0].sqrt() < width
    assert Schedule.cosine(1000, s=0.0).betas[0].sqrt() < 0.25 * width
