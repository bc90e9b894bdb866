"""Every tagged equation of lesson 13, checked by a route that does not use the formula itself."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import special, stats

from course_lib.data import shapes
from course_lib.evaluation import clip_score, zero_shot
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.models.clip import CLIP, CLIPConfig, clip_loss
from course_lib.nn import attention
from course_lib.nn.transformer import TransformerBlock, at_end, patches, visible

SMALL = CLIPConfig(dim=16, image_width=24, image_layers=1, text_width=24, text_layers=1)


def directions(n, dim, seed=0):
    drawn = torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return CLIP(SMALL).eval()


def test_eq_13_1(clip):
    """By the law of cosines: unit arrows at distance d have the cosine 1 - d²/2; lengths make no difference."""
    images = shapes.make(5, seed=0).images
    with torch.no_grad():
        raw = clip.image(images).double()
    unit = embed_images(clip, images).double()
    for i in range(5):
        for j in range(5):
            u, v = (7.0 * raw[i] / raw[i].norm()).tolist(), (0.2 * raw[j] / raw[j].norm()).tolist()
            distance = math.dist([x / 7.0 for x in u], [x / 0.2 for x in v])
            assert (unit[i] @ unit[j]).item() == pytest.approx(1 - distance**2 / 2, abs=1e-6)
    assert not torch.allclose(raw.norm(dim=1), torch.ones(5, dtype=torch.float64), atol=0.05)


def test_eq_13_2():
    """A mask does what deleting the hidden tokens does, in attention and in a whole block."""
    g = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 4, 7, 6, generator=g)
    real = torch.arange(7) < torch.tensor([7, 1, 4, 6])[:, None]
    found = attention(q, k, v, real[:, None])
    torch.manual_seed(0)
    block = TransformerBlock(6, 2).eval()
    with torch.no_grad():
        whole = block(q, visible(real))
        for i, flags in enumerate(real):
            alone = F.scaled_dot_product_attention(q[i : i + 1], k[i : i + 1, flags], v[i : i + 1, flags])
            assert torch.allclose(found[i], alone[0], atol=1e-5)
            assert torch.allclose(whole[i, flags], block(q[i : i + 1, flags])[0], atol=1e-5)
        assert torch.equal(at_end(whole, real), torch.stack([whole[i, flags][-1] for i, flags in enumerate(real)]))


@pytest.mark.parametrize(("height", "width", "size", "channels"), [(32, 32, 4, 3), (6, 9, 3, 1), (5, 5, 5, 2)])
def test_eq_13_3(height, width, size, channels):
    """Cut and matrix are one convolution; what is cut can be put together again."""
    g = torch.Generator().manual_seed(0)
    images, kernel = (
        torch.randn(2, channels, height, width, generator=g),
        torch.randn(10, channels, size, size, generator=g),
    )
    bias = torch.randn(10, generator=g)
    cut = patches(images, size)
    found = F.conv2d(images, kernel, bias, stride=size).flatten(2).transpose(1, 2)
    assert torch.allclose(cut @ kernel.flatten(1).T + bias, found, atol=1e-4)
    assert torch.equal(F.fold(cut.transpose(1, 2), (height, width), size, stride=size), images)


def test_eq_13_3_in_the_network(clip):
    images = shapes.make(2, seed=1).images
    stem = clip.image.patches
    with torch.no_grad():
        z = patches(images, 4) @ stem.weight.flatten(1).T + stem.bias + clip.image.positions[1:]
        first = torch.cat([(clip.image.readout + clip.image.positions[0]).expand(2, 1, -1), z], dim=1)
        for block in clip.image.blocks:
            first = block(first)
        by_hand = clip.image.project(clip.image.norm(first[:, 0]))
        assert torch.allclose(by_hand, clip.image(images), atol=1e-5)


def test_eq_13_4(clip):
    """Who wins when Gumbel noise is added to the scaled cosines? Each caption as often as its probability says."""
    u, v = directions(1, 5), directions(6, 5, seed=1)
    n = 200_000
    for scale in (1.0, 14.3):
        share = (scale * u @ v.T).softmax(dim=1)[0]
        uniform = torch.rand(n, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        winners = (scale * (u @ v.T) - (-uniform.log()).log()).argmax(dim=1)
        found = torch.bincount(winners, minlength=6) / n
        assert ((found - share).abs() < 4 * (share * (1 - share) / n).sqrt() + 1e-9).all()
    assert clip.scale.item() == pytest.approx(1 / 0.07, rel=1e-5)
    with torch.no_grad():
        kept = clip.log_scale.clone()
        for value, scale in ((4.0, math.exp(4)), (math.log(100), 100), (9.0, 100)):
            clip.log_scale.fill_(value)
            assert clip.scale.item() == pytest.approx(scale, rel=1e-5)
        clip.log_scale.copy_(kept)


def test_eq_13_5():
    """SciPy's log-softmax, along rows and along columns."""
    for n, scale in ((1, 3.0), (2, 1.0), (9, 20.0)):
        u, v = directions(n, 4), directions(n, 4, seed=1)
        table = scale * (u @ v.T).numpy()
        rows, columns = special.log_softmax(table, axis=1), special.log_softmax(table, axis=0)
        expected = -(np.trace(rows) + np.trace(columns)) / (2 * n)
        assert clip_loss(u, v, scale).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("n", [1, 64, 128, 256])
def test_eq_13_6(n):
    """Exact: no arrow says more than another, whatever the scale."""
    alike, sideways = torch.zeros(n, 3), torch.zeros(n, 3)
    alike[:, 0], sideways[:, 1] = 1.0, 1.0
    for text in (alike, sideways):
        for scale in (1.0, 14.3, 100.0):
            assert clip_loss(alike, text, scale).item() == pytest.approx(math.log(n), abs=1e-5)
    assert {64: 4.159, 128: 4.852, 256: 5.545}.get(n, math.log(n)) == pytest.approx(math.log(n), abs=5e-4)


def two_tables(same):
    rows = same / same.sum(axis=1, keepdims=True)
    columns = same.T / same.T.sum(axis=1, keepdims=True)
    return rows, columns


def some_same(n, seed):
    drawn = np.random.default_rng(seed).random((n, n)) < 0.3
    return drawn | np.eye(n, dtype=bool)


def test_eq_13_7():
    """Cross-entropy as entropy plus divergence, both by SciPy, row by row."""
    for seed in range(5):
        same = some_same(7, seed)
        u, v = directions(7, 4, seed=seed), directions(7, 4, seed=seed + 9)
        table, total = 5.0 * (u @ v.T).numpy(), 0.0
        for targets, logits in zip(two_tables(same), (table, table.T), strict=True):
            for target, row in zip(targets, special.softmax(logits, axis=1), strict=True):
                total += stats.entropy(target) + stats.entropy(target, row)
        assert clip_loss(u, v, 5.0, torch.from_numpy(same)).item() == pytest.approx(total / 14, abs=1e-9)


def test_eq_13_7_identical_captions_need_no_table():
    """What the lesson says: letter for letter the same, and one right caption is as good as all."""
    number = torch.tensor([0, 0, 0, 1, 2, 2, 3])
    u, v = directions(7, 4), directions(4, 4, seed=1)[number]
    one, every = clip_loss(u, v, 9.0), clip_loss(u, v, 9.0, number[:, None] == number)
    assert one.item() == pytest.approx(every.item(), abs=1e-10)
    other = torch.cat([v[:1], directions(1, 4, seed=5), v[2:]])  # the second caption in other words
    one, every = clip_loss(u, other, 9.0), clip_loss(u, other, 9.0, number[:, None] == number)
    assert abs(one.item() - every.item()) > 0.01


def test_eq_13_8():
    """Counted by hand; a perfect network reaches it, and free arrows walking downhill never pass it."""
    number = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4])
    same = number[:, None] == number
    bound = sum(n * math.log(n) for n in Counter(number.tolist()).values()) / 8  # n_i = n'_i
    perfect = F.one_hot(number, 5).double()
    assert clip_loss(perfect, perfect, 100.0, same).item() == pytest.approx(bound, abs=1e-6)
    assert clip_loss(perfect, perfect, 100.0).item() == pytest.approx(bound, abs=1e-6)
    u, v = directions(8, 3).requires_grad_(), directions(8, 3, seed=1).requires_grad_()
    optimizer, seen = torch.optim.Adam([u, v], lr=0.1), []
    for _ in range(200):
        loss = clip_loss(F.normalize(u, dim=1), F.normalize(v, dim=1), 20.0, same)
        seen.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(seen) >= bound - 1e-9
    assert seen[-1] < bound + 0.2 < seen[0]


def test_eq_13_9():
    """Finite differences of the loss, entry by entry of the table."""
    for same in (None, torch.from_numpy(some_same(4, 3))):
        z, eye = 2 * directions(4, 4), torch.eye(4, dtype=torch.float64)
        target = np.eye(4, dtype=bool) if same is None else same.numpy()
        rows, columns = two_tables(target)
        table = z.numpy()
        expected = special.softmax(table, axis=1) - rows + special.softmax(table, axis=0) - columns.T
        for i in range(4):
            for j in range(4):
                step = torch.zeros(4, 4, dtype=torch.float64)
                step[i, j] = 1e-5
                slope = (clip_loss(z + step, eye, 1.0, same) - clip_loss(z - step, eye, 1.0, same)).item() / 2e-5
                assert slope == pytest.approx(expected[i, j] / 8, abs=1e-8)


def test_eq_13_10():
    """For arrows of length 1 the most similar class is the nearest one; names given in another order stay names."""
    u, v = directions(50, 6).float(), directions(9, 6, seed=1).float()
    found = zero_shot(u, v)
    assert torch.equal(found, torch.cdist(u, v).argmin(dim=1))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert torch.equal(order[zero_shot(u, v[order])], found)


def test_eq_13_11():
    """Arrows with rational coordinates, so that the cosines are exact fractions."""
    points = [
        (Fraction(3, 5), Fraction(4, 5)),
        (Fraction(5, 13), Fraction(-12, 13)),
        (Fraction(-8, 17), Fraction(15, 17)),
    ]
    pairs = [(a, b) for a in points for b in points]
    u, v = (torch.tensor([[float(x) for x in pair[k]] for pair in pairs]) for k in (0, 1))
    exact = [a[0] * b[0] + a[1] * b[1] for a, b in pairs]
    assert min(exact) < 0
    hessel = [max(Fraction(5, 2) * c, Fraction(0)) for c in exact]
    assert clip_score(u, v, "hessel").tolist() == pytest.approx([float(c) for c in hessel], abs=1e-6)
    assert clip_score(u, v).tolist() == pytest.approx([float(c) for c in exact], abs=1e-6)
    mean = 100 * sum(exact) / len(exact)
    assert clip_score(u, v, "torchmetrics").item() == pytest.approx(float(max(mean, Fraction(0))), abs=1e-4)
    assert clip_score(u, -u, "torchmetrics").item() == 0
