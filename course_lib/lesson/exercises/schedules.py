"""Exercises on noise schedules: the log signal-to-noise ratio and the cosine schedule."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.diffusion import cosine_betas, log_snr
from course_lib.lesson.tasks import Exercise, Mistake

# --- 5.4 log-SNR ---------------------------------------------------------------------------------------------------


def _draw_alpha_bars(generator: torch.Generator) -> tuple[Tensor]:
    n = int(torch.randint(3, 20, (), generator=generator))
    return (torch.rand((n,), generator=generator, dtype=torch.float64) * 0.98 + 0.01,)


def _log_snr_by_hand(alpha_bars: Tensor) -> Tensor:
    return torch.tensor([math.log(a / (1 - a)) for a in alpha_bars.tolist()], dtype=torch.float64)


def _even_at_half(answer, generator) -> str | None:
    value = float(answer(torch.tensor([0.5], dtype=torch.float64)))
    return (
        None if abs(value) < 1e-6 else f"gives {value:.3g} for ᾱ = ½: equal shares have a ratio of 1, whose log is 0."
    )


LOG_SNR = Exercise(
    id="5.4",
    title="log signal-to-noise ratio",
    reference=log_snr,
    independent=_log_snr_by_hand,
    draw=_draw_alpha_bars,
    properties=(_even_at_half,),
    mistakes=(
        Mistake(
            "ratio of standard deviations",
            lambda a: 0.5 * torch.log(a / (1 - a)),
            "is half of what is wanted: SNR is the ratio of the variances ᾱ and 1 - ᾱ, so take no roots.",
        ),
        Mistake(
            "noise over signal",
            lambda a: torch.log((1 - a) / a),
            "has the wrong sign: signal stands above noise, so a clean image has a large positive log-SNR.",
        ),
        Mistake("logarithm missing", lambda a: a / (1 - a), "is the SNR itself: take its natural logarithm."),
        Mistake(
            "decibels",
            lambda a: 10 * torch.log10(a / (1 - a)),
            "is in decibels (10 log₁₀). The course measures in nats: use the natural logarithm.",
        ),
        Mistake(
            "logarithm to base 10",
            lambda a: torch.log10(a / (1 - a)),
            "uses the logarithm to base 10. The course measures in nats: torch.log is the natural one.",
        ),
        Mistake(
            "logarithm to base 2",
            lambda a: torch.log2(a / (1 - a)),
            "uses the logarithm to base 2, which gives bits. The course measures in nats: torch.log.",
        ),
        Mistake(
            "log of the share",
            lambda a: torch.log(a),
            "is the log of the signal's share ᾱ. Divide by the noise's share 1 - ᾱ before you take the log.",
        ),
    ),
    hints=(
        "Which variance does the image have in x_t, and which the noise? (Take an image of variance 1.)",
        "ᾱ for the image, 1 - ᾱ for the noise. Divide, then torch.log.",
        "torch.log(alpha_bars) minus the log of what is left.",
    ),
)

# --- 5.5 the cosine schedule ---------------------------------------------------------------------------------------


def _draw_cosine(generator: torch.Generator) -> tuple[int, float]:
    T = int(torch.randint(5, 400, (), generator=generator))
    return T, 0.004 + 0.01 * float(torch.rand((), generator=generator))


def _cosine_by_hand(T: int, s: float = 0.008) -> Tensor:
    def f(t: int) -> float:
        return (1 + math.cos(math.pi * (t / T + s) / (1 + s))) / 2  # cos² by the half-angle formula

    return torch.tensor([min(1 - f(t) / f(t - 1), 0.999) for t in range(1, T + 1)], dtype=torch.float64)


def _cosine(
    T: int, s: float, *, offset: float | None = None, power: int = 2, start: int = 0, cap: float = 0.999
) -> Tensor:
    t = torch.arange(start, T + 1 + start, dtype=torch.float64)
    f = torch.cos((t / T + (s if offset is None else offset)) / (1 + s) * math.pi / 2) ** power
    return (1 - f[1:] / f[:-1]).clamp(max=cap)


def _unbracketed(T: int, s: float) -> Tensor:
    t = torch.arange(T + 1, dtype=torch.float64)
    f = torch.cos((t / T + s / (1 + s)) * math.pi / 2) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=0.999)


COSINE_BETAS = Exercise(
    id="5.5",
    title="the cosine schedule",
    reference=cosine_betas,
    independent=_cosine_by_hand,
    draw=_draw_cosine,
    rtol=1e-3,  # float32 loses three digits in the first betas: differences of nearly equal numbers
    atol=1e-6,
    mistakes=(
        Mistake(
            "offset ten times too large",
            lambda T, s=0.008: _cosine(T, s, offset=10 * s),
            "adds 10 s in the numerator (0.08 where 0.008 is meant, a misprint that is going round). The angle then "
            "passes 90°, ᾱ rises again, and betas turn negative.",
        ),
        Mistake(
            "square missing",
            lambda T, s=0.008: _cosine(T, s, power=1),
            "uses the cosine, not its square: f(t) is cos².",
        ),
        Mistake(
            "last beta not capped",
            lambda T, s=0.008: _cosine(T, s, cap=1.0),
            "leaves the last beta at 1: that step would erase the image completely. Cap the betas at 0.999.",
        ),
        Mistake(
            "one step late",
            lambda T, s=0.008: _cosine(T, s, start=1),
            "starts at t = 1 where f(0) is needed: β_1 = 1 - f(1)/f(0), so f is wanted at the T + 1 points 0…T.",
        ),
        Mistake(
            "ratio upside down",
            lambda T, s=0.008: 1 - 1 / (1 - _cosine(T, s, cap=1 - 1e-15)),
            "divides f(t - 1) by f(t). The later value is the smaller one: β_t = 1 - f(t)/f(t - 1).",
        ),
        Mistake(
            "α instead of β",
            lambda T, s=0.008: 1 - _cosine(T, s),
            "returns the ratio f(t)/f(t - 1), which is α_t. β_t is what is missing to 1.",
        ),
        Mistake(
            "offset not divided",
            lambda T, s=0.008: _unbracketed(T, s),
            "divides only s by (1 + s). The sum t/T + s stands in the numerator: put it in brackets.",
        ),
        Mistake(
            "ᾱ instead of β",
            lambda T, s=0.008: torch.cumprod(1 - _cosine(T, s, cap=1.0), 0),
            "returns ᾱ_t = f(t)/f(0). The betas are wanted: 1 minus the ratio of neighbours.",
        ),
        Mistake(
            "1 - ᾱ instead of β",
            lambda T, s=0.008: 1 - torch.cumprod(1 - _cosine(T, s, cap=1.0), 0),
            "returns 1 - f(t)/f(0), the noise of all steps so far. One step's beta compares f(t) with f(t - 1).",
        ),
    ),
    hints=(
        "Compute f at the T + 1 points t = 0, 1, …, T first: torch.arange(T + 1, dtype=torch.float64).",
        "Neighbours: f[1:] / f[:-1] is ᾱ_t / ᾱ_{t-1} = α_t. And β_t = 1 - α_t.",
        "f = cos((t/T + s)/(1 + s) · π/2)², then 1 - f[1:]/f[:-1], clamped to at most 0.999. Use float64.",
    ),
)
