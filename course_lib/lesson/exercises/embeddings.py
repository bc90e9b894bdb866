"""Exercises 16.4 and 16.5: to draw an embedding by steps, and to keep the closer of several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.prior import closest

# --- 16.4 step by step -----------------------------------------------------------------------------------------------


def draw(guess: Callable, alpha_bars: Sequence[float], steps: Sequence[int], x: Tensor) -> Tensor:
    """From noise `x` to a sample: guess x_start, take out the noise that this leaves, go to the next step, repeat."""
    for t, t_next in zip(steps, [*steps[1:], -1], strict=True):
        x_start = guess(x, t)
        if t_next < 0:
            return x_start
        here, there = alpha_bars[t], alpha_bars[t_next]
        noise = (x - here**0.5 * x_start) / (1 - here) ** 0.5
        x = there**0.5 * x_start + (1 - there) ** 0.5 * noise


def _cosine_bars(T: int = 60) -> list[float]:
    curve = [math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(T + 1)]
    return [max(value / curve[0], 1e-9) for value in curve[1:]]


def _two_modes(bars: Sequence[float], place: float, variance: float) -> Callable:
    """The exact guess for numbers that lie around -place or place."""

    def guess(x: Tensor, t: int) -> Tensor:
        keep, total = math.sqrt(bars[t]), bars[t] * variance + 1 - bars[t]
        side = torch.tanh(keep * place * x / total)  # P(right) - P(left)
        gain = keep * variance / total
        return gain * x + (1 - gain * keep) * place * side

    return guess


def _draw_walks(generator: torch.Generator) -> tuple[Callable, list[float], list[int], Tensor]:
    bars, count = _cosine_bars(), int(torch.randint(3, 8, (), generator=generator))
    steps = sorted((torch.randperm(58, generator=generator)[: count - 1] + 1).tolist(), reverse=True)
    place, variance = (0.5 + torch.rand(2, generator=generator)).tolist()
    return _two_modes(bars, place, 0.1 * variance), bars, [59, *steps], torch.randn(6, generator=generator)


def _by_angles(guess: Callable, alpha_bars: Sequence[float], steps: Sequence[int], x: Tensor) -> Tensor:
    """The same walk in polar form: x_start and noise are the two legs, ᾱ the squared cosine of an angle."""
    angles = [math.acos(math.sqrt(alpha_bars[t])) for t in steps] + [0.0]
    for k, t in enumerate(steps):
        x_start = guess(x, t)
        a, b = angles[k], angles[k + 1]
        # sin(a - b) / sin(a) of x_start, sin(b) / sin(a) of x
        x = math.sin(a - b) / math.sin(a) * x_start + math.sin(b) / math.sin(a) * x
    return x


def _walk(noise_of: Callable | None = None, last: bool = True, change=math.sqrt):
    """A wrong walk: noise from elsewhere, no last step, or another share of noise."""

    def function(guess: Callable, alpha_bars: Sequence[float], steps: Sequence[int], x: Tensor) -> Tensor:
        first = x
        for t, t_next in zip(steps, [*steps[1:], -1], strict=True):
            x_start = guess(x, t)
            if t_next < 0:
                return x_start if last else x
            noise = (x - alpha_bars[t] ** 0.5 * x_start) / (1 - alpha_bars[t]) ** 0.5
            noise = noise if noise_of is None else noise_of(first, noise)
            x = alpha_bars[t_next] ** 0.5 * x_start + change(1 - alpha_bars[t_next]) * noise
        return x

    return function


def _guesses_only(guess: Callable, alpha_bars: Sequence[float], steps: Sequence[int], x: Tensor) -> Tensor:
    for t in steps:
        x = guess(x, t)
    return x


def _hits_both(answer: Callable, generator: torch.Generator) -> str | None:
    bars = _cosine_bars()
    noise = torch.randn(400, generator=generator)
    found = answer(_two_modes(bars, 1.0, 0.0025), bars, list(range(59, -1, -1)), noise)
    if 0.8 < float(found.var()) < 1.2:
        return None
    return f"draws numbers with the variance {float(found.var()):.2g} where the data, two peaks at -1 and 1, has 1.0."


DRAW = Exercise(
    id="16.4",
    title="drawing instead of guessing",
    reference=draw,
    independent=_by_angles,
    draw=_draw_walks,
    properties=(_hits_both,),
    mistakes=(
        Mistake(
            "one call",
            lambda guess, alpha_bars, steps, x: guess(x, steps[0]),
            "asks once and returns the guess. That is the mean of all that is possible, not a sample: repeat it at "
            "every step.",
        ),
        Mistake(
            "guess upon guess",
            _guesses_only,
            "hands the clean guess to the next step as if it were noisy. Between two guesses x must get the noise of "
            "the next step: √ᾱ x_start + √(1-ᾱ) noise.",
        ),
        Mistake(
            "the last step missing",
            _walk(last=False),
            "returns x at the last step, noise included. After the last guess nothing is added: return x_start.",
        ),
        Mistake(
            "the first noise again",
            _walk(lambda first, noise: first),
            "adds the noise it started from at every step. Take the noise that is in x now: (x - √ᾱ x_start) / √(1-ᾱ).",
        ),
        Mistake(
            "variance for standard deviation",
            _walk(change=lambda variance: variance),
            "adds (1-ᾱ) of the noise, which is a variance. The share is its root.",
        ),
    ),
    hints=(
        "A loop over pairs: the step where you are, t, and the next one. At t: x_start = guess(x, t). Which noise does "
        "that leave in x?",
        "noise = (x - ᾱ_t ** 0.5 * x_start) / (1 - ᾱ_t) ** 0.5; at the next step x is made of the same two parts, with "
        "that step's ᾱ. After the last guess, return it.",
        "for t, t_next in zip(steps, steps[1:]): … x = alpha_bars[t_next] ** 0.5 * x_start + (1 - alpha_bars[t_next]) "
        "** 0.5 * noise; and then return guess(x, steps[-1])",
    ),
    rtol=1e-3,
    atol=1e-4,
)

# --- 16.5 the closer one ---------------------------------------------------------------------------------------------


def _draw_candidates(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    draws, n = (int(torch.randint(*span, (), generator=generator)) for span in ((2, 5), (3, 6)))
    candidates, text = torch.randn(draws, n, 7, generator=generator), torch.randn(n, 7, generator=generator)
    return candidates / candidates.norm(dim=2, keepdim=True), text / text.norm(dim=1, keepdim=True)


def _pair_by_pair(candidates: Tensor, text: Tensor) -> Tensor:
    rows = []
    for i, sentence in enumerate(text.tolist()):
        vectors = candidates[:, i].tolist()
        rows.append(max(vectors, key=lambda v: sum(a * b for a, b in zip(v, sentence, strict=True))))
    return torch.tensor(rows)


def _pick(choose: Callable):
    """`choose(scores)` with scores (draws, n) -> one number of a draw per sentence."""

    def function(candidates: Tensor, text: Tensor) -> Tensor:
        scores = (candidates * text).sum(dim=2)
        return candidates[choose(scores), torch.arange(len(text))]

    return function


CLOSEST = Exercise(
    id="16.5",
    title="the closer of several draws",
    reference=closest,
    independent=_pair_by_pair,
    draw=_draw_candidates,
    mistakes=(
        Mistake(
            "the farthest",
            _pick(lambda scores: scores.argmin(dim=0)),
            "keeps the draw that fits worst: a large dot product means alike. argmax, not argmin.",
        ),
        Mistake(
            "one draw for all",
            _pick(lambda scores: scores.sum(dim=1).argmax().expand(scores.shape[1])),
            "keeps the same draw for all sentences, the one that is best on average. Choose anew for each sentence.",
        ),
        Mistake(
            "the mean",
            lambda candidates, text: candidates.mean(dim=0),
            "averages the draws. The mean of two embeddings is shorter than either, and no picture's.",
        ),
        Mistake(
            "the first",
            lambda candidates, text: candidates[0],
            "always keeps the first draw.",
        ),
        Mistake(
            "the last",
            lambda candidates, text: candidates[-1],
            "always keeps the last draw.",
        ),
    ),
    hints=(
        "First the scores, (draws, n): the dot product of each draw with its own sentence. Then, for each sentence, "
        "the number of the best draw.",
        'torch.einsum("knd,nd->kn", candidates, text), or (candidates * text).sum(dim=2); then .argmax(dim=0).',
        "candidates[best, torch.arange(len(text))]",
    ),
)
