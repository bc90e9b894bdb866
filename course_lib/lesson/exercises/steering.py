"""Exercises on steering a U-Net: whether edges are where they were asked, and how several controls add up."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.controlnet import guess_factors

# --- 19.1 edges against edges ----------------------------------------------------------------------------------------


def edge_f1(found: Tensor, asked: Tensor) -> Tensor:
    """F1 of found edges against the asked ones, one per picture; a pixel counts if there is another within one."""

    def near(edges: Tensor) -> Tensor:  # 1 on edges and on their four neighbours
        wide = torch.nn.functional.pad(edges, (1, 1, 1, 1))
        across = wide[..., 1:-1, :-2] + wide[..., 1:-1, 1:-1] + wide[..., 1:-1, 2:]
        return (across + wide[..., :-2, 1:-1] + wide[..., 2:, 1:-1]).clamp(max=1)

    precision = (found * near(asked)).sum(dim=(1, 2, 3)) / found.sum(dim=(1, 2, 3)).clamp(min=1)
    recall = (asked * near(found)).sum(dim=(1, 2, 3)) / asked.sum(dim=(1, 2, 3)).clamp(min=1)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-9)


def _draw_edges(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n, height, width = (int(torch.randint(*span, (), generator=generator)) for span in ((2, 5), (7, 11), (7, 11)))
    share = 0.06 + 0.12 * torch.rand(2, 1, 1, 1, 1, generator=generator)
    found, asked = (torch.rand(2, n, 1, height, width, generator=generator) < share).float()
    asked[:, :, 2, 2:5] = 1  # something is always asked
    if torch.rand((), generator=generator) < 0.2:
        found[0] = 0
    return found, asked


def _pixel_by_pixel(found: Tensor, asked: Tensor) -> Tensor:
    scores = []
    for one, other in zip(found, asked, strict=True):
        a, b = ([(int(y), int(x)) for _, y, x in edges.nonzero().tolist()] for edges in (one, other))

        def met(points, others):
            return sum(any((y - v) ** 2 + (x - u) ** 2 <= 1 for v, u in others) for y, x in points)

        right, reached = met(a, b), met(b, a)
        precision, recall = right / max(len(a), 1), reached / max(len(b), 1)
        scores.append(0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall))
    return torch.tensor(scores, dtype=torch.float64)


def _disc(edges: Tensor) -> Tensor:
    plus = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    return (torch.nn.functional.conv2d(edges, plus[None, None], padding=1) > 0).float()


def _square(edges: Tensor) -> Tensor:
    return torch.nn.functional.max_pool2d(edges, 3, stride=1, padding=1)


def _shares(found: Tensor, asked: Tensor, near=_disc, axes=(1, 2, 3)) -> tuple[Tensor, Tensor]:
    precision = (found * near(asked)).sum(dim=axes) / found.sum(dim=axes).clamp(min=1)
    return precision, (asked * near(found)).sum(dim=axes) / asked.sum(dim=axes).clamp(min=1)


def _harmonic(precision: Tensor, recall: Tensor) -> Tensor:
    return 2 * precision * recall / (precision + recall).clamp(min=1e-9)


def _all_over_is_no_art(answer, generator) -> str | None:
    _, asked = _draw_edges(generator)
    if (answer(torch.ones_like(asked), asked) < 0.95).all():
        return None
    return "gives full marks to a picture that is edges all over: what is found must also have been asked."


EDGE_F1 = Exercise(
    id="19.1",
    title="edges against edges",
    reference=edge_f1,
    independent=_pixel_by_pixel,
    draw=_draw_edges,
    properties=(_all_over_is_no_art,),
    mistakes=(
        Mistake(
            "precision only",
            lambda found, asked: _shares(found, asked)[0],
            "gives precision alone: a picture with one right edge pixel and nothing else would be perfect.",
        ),
        Mistake(
            "recall only",
            lambda found, asked: _shares(found, asked)[1],
            "gives recall alone: a picture that is edges all over would be perfect.",
        ),
        Mistake(
            "arithmetic mean",
            lambda found, asked: sum(_shares(found, asked)) / 2,
            "takes the arithmetic mean of precision and recall. F1 is the harmonic one, 2 P R / (P + R): it is 0 as "
            "soon as one of them is.",
        ),
        Mistake(
            "no tolerance",
            lambda found, asked: _harmonic(*_shares(found, asked, near=lambda edges: edges)),
            "counts exact hits only. One pixel off, straight up, down, left or right, still counts.",
        ),
        Mistake(
            "diagonal neighbours",
            lambda found, asked: _harmonic(*_shares(found, asked, near=_square)),
            "counts diagonal neighbours, which are √2 = 1.4 pixels away. Within one pixel there are four neighbours.",
        ),
        Mistake(
            "one score for all pictures",
            lambda found, asked: _harmonic(*_shares(found, asked, axes=(0, 1, 2, 3))).expand(len(found)),
            "throws the edges of all pictures together. Each picture has a score of its own.",
        ),
    ),
    hints=(
        "First a map that is 1 on edges and on their four neighbours: pad by one and add five shifted copies, or a "
        "convolution with a plus of ones; everything above 0 becomes 1.",
        "Precision: of the found pixels, the share that lies on that map of the asked ones. Recall: the same the other "
        "way round. Sum over dim=(1, 2, 3), and keep the divisor above 0 with .clamp(min=1).",
        "2 * precision * recall / (precision + recall).clamp(min=1e-9)",
    ),
)

# --- 19.4 several controls -------------------------------------------------------------------------------------------


def combined(residuals: list[list[Tensor]], strengths: list[float], guess: bool) -> list[Tensor]:
    """What several ControlNets add together, place by place; `residuals[j][k]` is what number j gives for place k."""
    places = len(residuals[0])
    factors = guess_factors(places) if guess else [1.0] * places
    return [
        sum(strength * factors[k] * maps[k] for strength, maps in zip(strengths, residuals, strict=True))
        for k in range(places)
    ]


def _draw_residuals(generator: torch.Generator) -> tuple[list[list[Tensor]], list[float], bool]:
    controls, places = (int(torch.randint(*span, (), generator=generator)) for span in ((2, 4), (3, 7)))
    maps = [[torch.randn(2, 3 + k, 2, 2, generator=generator) for k in range(places)] for _ in range(controls)]
    strengths = (0.2 + 1.6 * torch.rand(controls, generator=generator)).tolist()
    return maps, strengths, bool(torch.rand((), generator=generator) < 0.5)


def _number_by_number(residuals, strengths, guess) -> tuple[Tensor, ...]:
    places, found = len(residuals[0]), []
    for k in range(places):
        factor = 10 ** (-1 + k / (places - 1)) if guess else 1.0
        flat = [maps[k].flatten().double().tolist() for maps in residuals]
        numbers = [
            math.fsum(s * factor * column[i] for s, column in zip(strengths, flat, strict=True))
            for i in range(len(flat[0]))
        ]
        found.append(torch.tensor(numbers, dtype=torch.float64).reshape(residuals[0][k].shape))
    return tuple(found)


def _nothing_is_used_up(answer, generator) -> str | None:
    maps, strengths, guess = _draw_residuals(generator)
    before = [len(places) for places in maps]
    first, second = answer(maps, strengths, guess), answer(maps, strengths, guess)
    again = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    if [len(places) for places in maps] == before and again:
        return None
    return "uses the lists up: a second call with them gives something else. Take nothing out (no pop) and change none."


def _weighted(residuals, strengths, factors) -> list[Tensor]:
    return [sum(s * f * maps[k] for s, maps in zip(strengths, residuals, strict=True)) for k, f in enumerate(factors)]


def _plain(residuals, guess) -> list[float]:
    return guess_factors(len(residuals[0])) if guess else [1.0] * len(residuals[0])


def _evenly(residuals, guess) -> list[float]:
    places = len(residuals[0])
    return torch.linspace(0.1, 1, places).tolist() if guess else [1.0] * places


COMBINED = Exercise(
    id="19.4",
    title="several controls at once",
    reference=combined,
    independent=_number_by_number,
    draw=_draw_residuals,
    properties=(_nothing_is_used_up,),
    mistakes=(
        Mistake(
            "strengths made to add up to 1",
            lambda residuals, strengths, guess: _weighted(
                residuals, [s / sum(strengths) for s in strengths], _plain(residuals, guess)
            ),
            "divides by the sum of the strengths. Residuals add up; two controls push as hard as each does alone.",
        ),
        Mistake(
            "the last one wins",
            lambda residuals, strengths, guess: _weighted(residuals[-1:], strengths[-1:], _plain(residuals, guess)),
            "keeps the last control only. Start from nothing and add what each of them gives.",
        ),
        Mistake(
            "strengths forgotten",
            lambda residuals, strengths, guess: _weighted(residuals, [1.0] * len(strengths), _plain(residuals, guess)),
            "forgets the strengths: each control's maps are multiplied by its own first.",
        ),
        Mistake(
            "guess factors forgotten",
            lambda residuals, strengths, guess: _weighted(residuals, strengths, _plain(residuals, False)),
            "forgets `guess`: where it is True, place k of K counts 10^(-1 + k / (K - 1)) times.",
        ),
        Mistake(
            "guess factors turned round",
            lambda residuals, strengths, guess: _weighted(residuals, strengths, _plain(residuals, guess)[::-1]),
            "turns the factors round: the first place has .1, the last one, the middle of the U-Net, has 1.",
        ),
        Mistake(
            "guess factors evenly spaced",
            lambda residuals, strengths, guess: _weighted(residuals, strengths, _evenly(residuals, guess)),
            "climbs from .1 to 1 in equal steps. Here each factor is the one before times the same number: equal steps "
            "in the exponent, torch.logspace(-1, 0, places).",
        ),
    ),
    hints=(
        "Place by place: [sum(…) for k in range(len(residuals[0]))], and in the sum every control with its strength.",
        "The factors of guess mode: torch.logspace(-1, 0, places).tolist(). Without it they are all 1.",
        "sum(s * factors[k] * maps[k] for s, maps in zip(strengths, residuals)) is what place k gets.",
    ),
)
