"""Lesson 16, the unCLIP prior: exercises 16.1 to 16.5 with the mistakes that are usually made in them.

The one on the guess, 16.3, stands in `first_guess`, those on drawing, 16.4 and 16.5, in `embeddings`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.lesson.exercises.embeddings import CLOSEST, DRAW
from course_lib.lesson.exercises.first_guess import GAUSSIAN_GUESS
from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.nn import attention

# --- 16.1 an embedding among noise -----------------------------------------------------------------------------------


def noisy_embedding(embedding: Tensor, alpha_bar: Tensor, noise: Tensor) -> Tensor:
    """x_t for embeddings of length 1, in units where they have length √dim."""
    x_start = embedding.shape[1] ** 0.5 * embedding
    keep, change = alpha_bar.sqrt()[:, None], (1 - alpha_bar).sqrt()[:, None]
    return keep * x_start + change * noise


def _draw_noising(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    n, dim = (int(torch.randint(*span, (), generator=generator)) for span in ((2, 5), (5, 12)))
    embedding, noise = torch.randn(2, n, dim, generator=generator)
    bars = 0.02 + 0.96 * torch.rand(n, generator=generator)
    return embedding / embedding.norm(dim=1, keepdim=True), bars, noise


def _number_by_number(embedding: Tensor, alpha_bar: Tensor, noise: Tensor) -> Tensor:
    root = math.sqrt(embedding.shape[1])
    rows = zip(embedding.tolist(), alpha_bar.tolist(), noise.tolist(), strict=True)
    return torch.tensor(
        [[math.sqrt(a) * root * e + math.sqrt(1 - a) * z for e, z in zip(es, zs, strict=True)] for es, a, zs in rows]
    )


def _noised(scale, keep=torch.sqrt, change=torch.sqrt, noise_scale=lambda dim: 1.0):
    """A wrong x_t: `scale` and `noise_scale` of the dimension, `keep` and `change` of ᾱ and 1-ᾱ."""

    def function(embedding: Tensor, alpha_bar: Tensor, noise: Tensor) -> Tensor:
        dim = embedding.shape[1]
        kept = keep(alpha_bar)[:, None] * scale(dim) * embedding
        return kept + change(1 - alpha_bar)[:, None] * noise_scale(dim) * noise

    return function


def _same(x: Tensor) -> Tensor:
    return x


NOISY_EMBEDDING = Exercise(
    id="16.1",
    title="an embedding among noise",
    reference=noisy_embedding,
    independent=_number_by_number,
    draw=_draw_noising,
    mistakes=(
        Mistake(
            "not scaled",
            _noised(lambda dim: 1.0),
            "leaves the embedding at length 1: its numbers are then √dim times smaller than those of the noise, and "
            "drown in the first steps. Multiply by √dim.",
        ),
        Mistake(
            "noise scaled, too",
            _noised(math.sqrt, noise_scale=math.sqrt),
            "multiplies the noise by √dim as well. Then nothing is won: it is as much larger as before.",
        ),
        Mistake(
            "scaled by dim",
            _noised(float),
            "multiplies by dim. A vector of length 1 has numbers with the mean square 1/dim; times √dim they have 1, "
            "like the noise.",
        ),
        Mistake(
            "divided by √dim",
            _noised(lambda dim: dim**-0.5),
            "divides by √dim, so the embedding gets smaller still. Multiply.",
        ),
        Mistake(
            "variances for standard deviations",
            _noised(math.sqrt, keep=_same, change=_same),
            "uses ᾱ and 1-ᾱ, which are shares of a variance. What multiplies numbers is a root: √ᾱ and √(1-ᾱ).",
        ),
        Mistake(
            "swapped",
            lambda embedding, alpha_bar, noise: noisy_embedding(embedding, 1 - alpha_bar, noise),
            "keeps √(1-ᾱ) of the embedding: ᾱ is the share that is kept, and 1 at the start.",
        ),
    ),
    hints=(
        "Two things happen, in this order: the embedding is stretched to length √dim; then it is mixed with noise as "
        "any x_start (lesson 05).",
        "x_start = embedding.shape[1] ** 0.5 * embedding. One ᾱ per row: alpha_bar.sqrt()[:, None] is a column.",
        "alpha_bar.sqrt()[:, None] * x_start + (1 - alpha_bar).sqrt()[:, None] * noise",
    ),
)

# --- 16.2 attention that looks back ----------------------------------------------------------------------------------


def causal_attention(q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
    """What each token finds when it looks at itself and at the real tokens before it."""
    length = real.shape[1]
    before = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=real.device)
    return attention(q, k, v, before & real[:, None, :] | itself)


def _draw_tokens(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, length = (int(torch.randint(*span, (), generator=generator)) for span in ((2, 4), (5, 8)))
    q, k, v = torch.randn(3, n, length, 4, generator=generator)
    real = torch.arange(length) < torch.randint(1, length - 2, (n, 1), generator=generator)
    real[:, -1] = True  # behind the caption's padding come other tokens
    return q, k, v, real


def _token_by_token(q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
    found = torch.zeros_like(v)
    for n in range(len(q)):
        for i in range(q.shape[1]):
            seen = [j for j in range(i + 1) if real[n, j] or j == i]
            scores = torch.stack([(q[n, i].double() * k[n, j].double()).sum() / q.shape[2] ** 0.5 for j in seen])
            weights = torch.exp(scores) / torch.exp(scores).sum()
            found[n, i] = sum(w * v[n, j].double() for w, j in zip(weights, seen, strict=True))
    return found


def _with_mask(make):
    """Attention under another mask; `make(before, itself, real)` is True where one may look."""

    def function(q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
        length = real.shape[1]
        before = torch.ones(length, length, dtype=torch.bool).tril()
        return attention(q, k, v, make(before, torch.eye(length, dtype=torch.bool), real))

    return function


def _added(q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
    mask = (torch.ones(real.shape[1], real.shape[1]).tril().bool() & real[:, None, :]).to(q.dtype)
    return (q @ k.transpose(1, 2) / q.shape[2] ** 0.5 + mask).softmax(dim=-1) @ v


CAUSAL_ATTENTION = Exercise(
    id="16.2",
    title="attention that looks back",
    reference=causal_attention,
    independent=_token_by_token,
    draw=_draw_tokens,
    mistakes=(
        Mistake(
            "no mask",
            lambda q, k, v, real: attention(q, k, v),
            "lets every token look at every other, those behind it and the padding included.",
        ),
        Mistake(
            "padding seen",
            _with_mask(lambda before, itself, real: before),
            "looks back, but at padding, too: the answer then depends on how long other sentences are. Use `real`.",
        ),
        Mistake(
            "the future seen",
            _with_mask(lambda before, itself, real: real[:, None, :] | itself),
            "hides the padding, but a token sees those behind it. Let row i look at columns up to i only: tril.",
        ),
        Mistake(
            "forward",
            _with_mask(lambda before, itself, real: before.T & real[:, None, :] | itself),
            "looks ahead instead of back: the triangle is upside down. Rows look, columns are looked at.",
        ),
        Mistake(
            "True hides",
            _with_mask(lambda before, itself, real: ~(before & real[:, None, :] | itself)),
            "has True and False exchanged. Here, as in scaled_dot_product_attention, True means: may look. "
            "(nn.MultiheadAttention means the opposite.)",
        ),
        Mistake(
            "added to the scores",
            _added,
            "adds ones and zeros to the scores. That hides nothing, it only makes some tokens a little louder. Use a "
            "mask of bools.",
        ),
        Mistake(
            "padding doesn't see itself",
            _with_mask(lambda before, itself, real: before & real[:, None, :]),
            "is right for real tokens. But padding in the first place would see nothing at all, and its weights would "
            "be 0/0. Let every token see itself: `| itself`.",
        ),
        Mistake(
            "the wrong side of the table",
            _with_mask(lambda before, itself, real: before & real[:, :, None] | itself),
            "hides what padding looks at, rather than hiding padding from others. `real` belongs to the columns: "
            "real[:, None, :].",
        ),
    ),
    hints=(
        "A table of bools per sentence, (n, length, length): row i looks, column j is looked at. It is True if j isn't "
        "behind i and j is real, or if j is i.",
        "torch.ones(length, length, dtype=torch.bool).tril() looks back; real[:, None, :] speaks of columns; "
        "torch.eye(length, dtype=torch.bool) is each token itself.",
        "attention(q, k, v, before & real[:, None, :] | itself)",
    ),
)

EXERCISES = (NOISY_EMBEDDING, CAUSAL_ATTENTION, GAUSSIAN_GUESS, DRAW, CLOSEST)
