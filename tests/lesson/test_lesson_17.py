"""Lesson 17: what only the properties of its exercises catch, other right forms, and what the lesson says in words."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import optimize
from verdicts import verdict

from course_lib import checkpoints
from course_lib.data import ByteTokenizer
from course_lib.data.grey_sets import GARMENTS
from course_lib.models.sources_unclip import SOURCES
from course_lib.recipes._garments import source_captions

# --- 17.1 one embedding as several tokens ----------------------------------------------------------------------------


def test_tokens_in_other_forms():
    assert verdict("17.1", lambda z, w, b, n: F.linear(z, w, b).reshape(len(z), n, -1)).status == "passed"

    def token_by_token(image, weight, bias, count):
        parts = zip(weight.chunk(count), bias.chunk(count), strict=True)
        return torch.stack([image @ w.T + b for w, b in parts], dim=1)

    assert verdict("17.1", token_by_token).status == "passed"


def test_tokens_that_say_the_same_are_refused():
    def source(image, weight, bias, count):
        width = len(weight) // count
        base = (image @ weight.T + bias)[:, :width]
        return torch.stack([(k + 1) * base for k in range(count)], dim=1)

    assert verdict("17.1", source).status == "wrong"


# --- 17.2 pixels and tokens in one row -------------------------------------------------------------------------------


def test_joint_attention_in_other_forms():
    def with_torch(q, k, v, token_k, token_v, real):
        mask = torch.cat([torch.ones(k.shape[:2], dtype=torch.bool), real], dim=1)[:, None, :]
        return F.scaled_dot_product_attention(q, torch.cat([k, token_k], 1), torch.cat([v, token_v], 1), mask)

    def cut_away(q, k, v, token_k, token_v, real):
        found = []
        for b in range(len(q)):
            keys, values = torch.cat([k[b], token_k[b, real[b]]]), torch.cat([v[b], token_v[b, real[b]]])
            found.append((q[b] @ keys.T / math.sqrt(q.shape[-1])).softmax(dim=-1) @ values)
        return torch.stack(found)

    assert verdict("17.2", with_torch).status == "passed"
    assert verdict("17.2", cut_away).status == "passed"


def test_padding_set_to_zero_is_still_listened_to():
    def zeroed(q, k, v, token_k, token_v, real):
        keys = torch.cat([k, token_k * real[:, :, None]], dim=1)
        values = torch.cat([v, token_v * real[:, :, None]], dim=1)
        return (q @ keys.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(dim=-1) @ values

    assert verdict("17.2", zeroed).status == "wrong", "a score of 0 is a share of the softmax"


# --- 17.3 how sure is a share ----------------------------------------------------------------------------------------


def test_the_interval_in_other_forms():
    def by_roots(right, n, z):
        p = right / n
        a, b, c = 1 + z**2 / n, -2 * p - z**2 / n, p**2
        root = math.sqrt(max(b**2 - 4 * a * c, 0))
        return (-b - root) / (2 * a), (-b + root) / (2 * a)

    def by_search(right, n, z):
        p = right / n

        def off(truth):
            return (p - truth) ** 2 - z**2 * truth * (1 - truth) / n

        low = optimize.brentq(off, 0, p - 1e-7) if right else 0.0
        high = optimize.brentq(off, p + 1e-7, 1) if right < n else 1.0
        return low, high

    assert verdict("17.3", by_roots).status == "passed"
    assert verdict("17.3", by_search).status == "passed"


def test_all_right_is_not_certain():
    """The plain interval is called by its name, whatever is drawn; the exact one of Clopper and Pearson is another."""
    from scipy import stats

    found = verdict("17.3", lambda right, n, z: (right / n - z * (right / n * (1 - right / n) / n) ** 0.5,) * 2)
    assert found.status == "wrong"

    def exact(right, n, z):
        tail = stats.norm.sf(z)
        low = stats.beta.ppf(tail, right, n - right + 1) if right else 0.0
        high = stats.beta.isf(tail, right + 1, n - right) if right < n else 1.0
        return float(low), float(high)

    assert verdict("17.3", exact).status == "wrong"


# --- 17.4 along the sphere -------------------------------------------------------------------------------------------


def test_slerp_in_other_forms():
    def turned(a, b, weight):
        angle = F.cosine_similarity(a, b, dim=1).clamp(-1, 1).arccos()[:, None]
        aside = F.normalize(b - (a * b).sum(dim=1, keepdim=True) * a, dim=1)
        return (weight * angle).cos() * a + (weight * angle).sin() * aside

    assert verdict("17.4", turned).status == "passed"


# --- what the lesson says --------------------------------------------------------------------------------------------


def test_the_ten_captions_fit_and_leave_much_padding():
    captions = source_captions()
    ids, real = ByteTokenizer(SOURCES.text_length).encode(captions)
    assert len(set(captions)) == len(GARMENTS) == 10
    assert all(caption.startswith("an image of ") for caption in captions)
    assert ids.shape == (10, 64)
    assert real.sum(dim=1).max() <= 64
    assert ByteTokenizer(64).decode(ids) == captions
    for name, caption in zip(GARMENTS, captions, strict=True):
        assert name.lower().split("/")[0].split("-")[0] in caption


def test_the_sources_decoder_settings():
    decoder = SOURCES.decoder
    body = decoder.network.body
    assert (body.width, body.mults, body.blocks, body.embedding_dim) == (32, (1, 2, 4, 8), 2, 128)
    assert (body.groups, body.heads, body.dropout) == (8, 8, 0.1)
    assert (decoder.network.image_tokens, decoder.network.text_layers) == (4, 4)
    assert (decoder.batch_size, decoder.epochs, decoder.warmup_epochs) == (32, 100, 5)
    assert (decoder.learning_rate, decoder.lowest_rate) == (5e-4, 1e-5)
    assert (decoder.weight_decay, decoder.clip_norm) == (1e-4, 1.0)


def test_the_pyramid_order_was_measured_against_the_classic_one():
    """Lesson 08's shipped curves: the same seeds, the pyramid order behind with each, by less than a tenth."""
    curves, card = checkpoints.load("block_ablations")
    names = card["config"]["variants"]
    classic, pyramid = (curves["loss"][names.index(name)][:, -1] for name in ("add", "pyramid"))
    assert (pyramid > classic).all()
    assert ((pyramid - classic).mean() / classic.mean()).item() == pytest.approx(0.027, abs=0.03)
