"""Lesson 16: what only the properties of its exercises catch, other right forms, what it says of masks and names."""

import math

import torch
import torch.nn.functional as F
from verdicts import verdict

from course_lib.lesson.exercises.embeddings import draw
from course_lib.models.prior import looks
from course_lib.models.sources_unclip import SOURCES, raw_caption


def test_noising_in_another_form():
    def by_angles(embedding, alpha_bar, noise):
        angle = alpha_bar.sqrt().acos()[:, None]
        return angle.cos() * embedding * math.sqrt(embedding.shape[1]) + angle.sin() * noise

    assert verdict("16.1", by_angles).status == "passed"
    found = verdict("16.1", lambda embedding, alpha_bar, noise: by_angles(embedding, alpha_bar, noise)[:, :-1])
    assert "shape" in found.message


def test_attention_by_minus_infinity_and_by_pytorch():
    def by_infinity(q, k, v, real):
        scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[2])
        length = real.shape[1]
        for i in range(length):
            for j in range(length):
                hidden = torch.tensor([j > i]) | (~real[:, j] & torch.tensor([i != j]))
                scores[hidden, i, j] = -math.inf
        return scores.softmax(dim=2) @ v

    assert verdict("16.2", by_infinity).status == "passed"
    assert verdict("16.2", lambda q, k, v, real: F.scaled_dot_product_attention(q, k, v, looks(real)[:, 0])).status == (
        "passed"
    )


def test_bayes_rule_by_precisions():
    def by_precisions(x_t, guess, variance, alpha_bar):
        precision = 1 / variance + (alpha_bar / (1 - alpha_bar))[:, None]
        mean = (guess / variance + x_t * (alpha_bar.sqrt() / (1 - alpha_bar))[:, None]) / precision
        return mean, 1 / precision

    assert verdict("16.3", by_precisions).status == "passed"
    column = verdict("16.3", lambda *args: (by_precisions(*args)[0], by_precisions(*args)[1][:, 0]))
    assert column.status == "wrong"
    assert "as second value" in column.message


def test_drawing_in_another_form_and_one_that_shrinks():
    def recursive(guess, alpha_bars, steps, x):
        x_start = guess(x, steps[0])
        if len(steps) == 1:
            return x_start
        here, there = alpha_bars[steps[0]], alpha_bars[steps[1]]
        ratio = math.sqrt((1 - there) / (1 - here))
        x = math.sqrt(there) * x_start + ratio * (x - math.sqrt(here) * x_start)
        return recursive(guess, alpha_bars, steps[1:], x)

    assert verdict("16.4", recursive).status == "passed"
    found = verdict("16.4", lambda guess, alpha_bars, steps, x: 0.5 * draw(guess, alpha_bars, steps, x))
    assert found.status == "wrong"


def test_choosing_by_distance_is_choosing_by_dot_product():
    def by_distance(candidates, text):
        best = (candidates - text).norm(dim=2).argmin(dim=0)  # arrows of length 1
        return torch.stack([candidates[k, i] for i, k in enumerate(best.tolist())])

    assert verdict("16.5", by_distance).status == "passed"


def test_what_the_lesson_says_of_masks_of_numbers():
    """E17: added numbers hide nothing; True means the opposite to MultiheadAttention, whose last row is no number."""
    tril, x = torch.ones(5, 5).tril(), torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, 4] += torch.arange(8.0)
    for mask, leaks in ((tril, True), (tril.bool(), False)):
        one, two = (F.scaled_dot_product_attention(y, y, y, mask) for y in (x, other))
        assert ((one - two)[:, 0].abs().max() > 1e-3) == leaks
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = torch.nn.MultiheadAttention(8, 1, batch_first=True).eval()
    found, weights = layer(x, x, x, attn_mask=tril.bool())
    assert found[0, 4].isnan().all()
    assert weights[0, 0, 0] == 0
    assert weights[0, 0, 1:].min() > 0
    _, weights = layer(x, x, x, attn_mask=~tril.bool())
    assert weights[0, 0].tolist() == [1, 0, 0, 0, 0]


def test_what_the_lesson_says_of_raw_captions():
    """E13: as long as hundreds, and alike or not by the alphabet's accident."""
    ids = torch.tensor([list(f"a photo of a {it}".encode().ljust(64, b"\0")) for it in ("dress", "coat")])
    raw = raw_caption(ids)
    assert raw.shape == (2, SOURCES.dim)
    assert raw.norm(dim=1).min() > 300
    usual = F.cosine_similarity(raw[0], raw[1], dim=0).item()
    assert usual > 0.9
    renamed = []
    for seed in range(5):
        numbers = torch.randperm(255, generator=torch.Generator().manual_seed(seed)) + 1
        table = torch.cat([torch.zeros(1, dtype=torch.long), numbers])
        again = raw_caption(table[ids])
        renamed.append(F.cosine_similarity(again[0], again[1], dim=0).item())
    assert max(renamed) - min(renamed) > 0.02
    assert all(abs(value - usual) > 0.005 for value in renamed)
