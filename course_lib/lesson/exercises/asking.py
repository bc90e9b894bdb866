"""Exercises on asking a text-to-image model: how sure a share of successes is, and a path between two embeddings."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.diffusion.editing import slerp
from course_lib.evaluation.faithfulness import wilson
from course_lib.lesson.tasks import Exercise, Mistake

# --- 17.3 how sure is a share ----------------------------------------------------------------------------------------


def _draw_count(generator: torch.Generator) -> tuple[int, int, float]:
    n = int(torch.randint(5, 200, (), generator=generator))
    right = int(torch.randint(0, n + 1, (), generator=generator))
    if torch.rand((), generator=generator) < 0.25:
        right = n if torch.rand((), generator=generator) < 0.5 else 0
    return right, n, 1.0 + 1.6 * torch.rand((), generator=generator).item()


def _by_halving(right: int, n: int, z: float = 1.96) -> list[float]:
    """The two truths from which `right` is exactly z standard deviations away, by halving intervals."""

    def off(truth: float) -> float:
        return (right / n - truth) ** 2 - z**2 * truth * (1 - truth) / n

    found = []
    for inside, outside in ((right / n, -1e-9), (right / n, 1 + 1e-9)):
        low, high = inside, outside
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if off(middle) <= 0 else (low, middle)
        found.append(low)
    return found


def _plain(right, n, z=1.96, *, root=True, squared=True):
    share = right / n
    spread = share * (1 - share) / (n if squared else 1)
    half = z * (math.sqrt(spread) if root else spread)
    return share - half, share + half


def _never_certain(answer, generator) -> str | None:
    low, high = answer(20, 20, 1.96)
    if low > 0.9 or high > 1 + 1e-6:
        return "is too sure of 20 right out of 20: another 20 might well hold a wrong one."
    return None


INTERVAL = Exercise(
    id="17.3",
    title="how sure is a share",
    reference=wilson,
    independent=_by_halving,
    draw=_draw_count,
    properties=(_never_certain,),
    mistakes=(
        Mistake(
            "the plain interval",
            _plain,
            "is the share ± z √(p (1-p) / n). With all right, or none, that has width 0: it takes the measured share "
            "for the true one. Equation 17.8 asks which truths would make the measurement unsurprising.",
        ),
        Mistake(
            "the variance for its root",
            lambda right, n, z=1.96: _plain(right, n, z, root=False),
            "adds z times a variance. A standard deviation is wanted, its root.",
        ),
        Mistake(
            "not divided by n",
            lambda right, n, z=1.96: _plain(right, n, z, squared=False),
            "forgets that the mean of n answers spreads less than one answer: divide the variance by n.",
        ),
        Mistake(
            "one end twice",
            lambda right, n, z=1.96: (wilson(right, n, z)[0],) * 2,
            "gives the lower end twice.",
        ),
        Mistake(
            "half-width alone",
            lambda right, n, z=1.96: (
                right / n - (wilson(right, n, z)[1] - wilson(right, n, z)[0]) / 2,
                right / n + (wilson(right, n, z)[1] - wilson(right, n, z)[0]) / 2,
            ),
            "has the right width, but lies around the measured share. The middle is (p + z²/2n) / (1 + z²/n), a little "
            "nearer to one half.",
        ),
    ),
    hints=(
        "Three pieces: share = right / n, the middle (share + z²/(2n)) / (1 + z²/n), and half the width.",
        "Half the width is z √(share (1 - share) / n + z²/(4n²)) / (1 + z²/n).",
        "Return middle - half and middle + half, two plain numbers (math.sqrt).",
    ),
)

# --- 17.4 along the sphere -------------------------------------------------------------------------------------------


def _draw_arrows(generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    n, dim = (int(torch.randint(*span, (), generator=generator)) for span in ((2, 5), (3, 8)))
    a, b = F.normalize(torch.randn(2, n, dim, generator=generator), dim=-1)
    weight = 0.1 + 0.3 * torch.rand((), generator=generator).item()
    return a, b, weight if torch.rand((), generator=generator) < 0.5 else 1 - weight


def _turned(a: Tensor, b: Tensor, weight: float) -> Tensor:
    """Each a turned towards its b by a share of the angle between them, in the plane of the two."""
    found = []
    for u, v in zip(a.double(), b.double(), strict=True):
        angle = 2 * math.atan2((u - v).norm().item(), (u + v).norm().item())
        aside = v - (u @ v) * u
        found.append(math.cos(weight * angle) * u + math.sin(weight * angle) * aside / aside.norm())
    return torch.stack(found)


def _angle(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1, keepdim=True).clamp(-1, 1).arccos()


def _keeps_its_length(answer, generator) -> str | None:
    a, b, _ = _draw_arrows(generator)
    for weight in (0.0, 0.5, 1.0):
        found = answer(a, b, weight)
        if not torch.allclose(found.norm(dim=1), torch.ones(len(a)), atol=1e-4):
            return f"leaves the sphere: at weight {weight} the result is not of length 1."
    if not torch.allclose(answer(a, b, 0.0), a, atol=1e-4):
        return "does not begin at a: weight 0 is a, weight 1 is b."
    return None


SLERP = Exercise(
    id="17.4",
    title="along the sphere",
    reference=slerp,
    independent=_turned,
    draw=_draw_arrows,
    properties=(_keeps_its_length,),
    mistakes=(
        Mistake(
            "a straight line",
            lambda a, b, weight: (1 - weight) * a + weight * b,
            "goes straight from a to b, through the inside of the sphere: half-way the arrow is too short.",
        ),
        Mistake(
            "a straight line, stretched",
            lambda a, b, weight: F.normalize((1 - weight) * a + weight * b, dim=-1),
            "goes straight and then stretches to length 1. It arrives on the right path, but not at the right place: "
            "the angle must grow in proportion to the weight.",
        ),
        Mistake(
            "from b to a",
            lambda a, b, weight: slerp(b, a, weight),
            "goes from b to a. Weight 0 is a, weight 1 is b.",
        ),
        Mistake(
            "not divided by sin θ",
            lambda a, b, weight: ((1 - weight) * _angle(a, b)).sin() * a + (weight * _angle(a, b)).sin() * b,
            "forgets to divide by sin θ: at weight 0 it gives sin θ · a.",
        ),
        Mistake(
            "the cosine for the angle",
            lambda a, b, weight: (
                (((1 - weight) * (c := (a * b).sum(dim=1, keepdim=True))).sin() * a + (weight * c).sin() * b) / c.sin()
            ),
            "takes the dot product for the angle. It is the angle's cosine: .arccos() gives the angle.",
        ),
    ),
    hints=(
        "The dot product of two arrows of length 1 is the cosine of their angle: theta = (a * b).sum(dim=1, "
        "keepdim=True).arccos().",
        "The share of a is sin((1 - weight) θ) / sin θ, that of b is sin(weight θ) / sin θ.",
        "((1 - weight) * theta).sin() / theta.sin() * a + (weight * theta).sin() / theta.sin() * b",
    ),
)
