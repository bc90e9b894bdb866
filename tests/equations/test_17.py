"""Every tagged equation of lesson 17, checked by a route that does not use the formula itself."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from course_lib.diffusion import GaussianDenoiser, MixtureDenoiser, Schedule, ddim, ddpm, ddpm_step, q_sample, sample
from course_lib.evaluation.faithfulness import wilson
from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.conditioned_unet import BodyConfig
from course_lib.models.conditions import decoder_condition
from course_lib.models.unclip import DecoderConfig, ImageTokens, UnclipDecoder
from course_lib.nn import ResidualBlock
from course_lib.nn.cross_attention import JointAttention2d
from course_lib.nn.residual import group_norm
from course_lib.recipes._decoder import DecoderObjective
from course_lib.training import Draws

SCHEDULE = Schedule.cosine(1000)


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def test_eq_17_1():
    """Drawing z, then x given z, gives each picture its own share: exactly, where everything can be counted.

    Five pictures with probabilities given a sentence; an "embedding" is a function of the picture (its parity).
    """
    pictures = {0: 0.1, 1: 0.15, 2: 0.3, 3: 0.05, 4: 0.4}
    of = {x: x % 2 for x in pictures}
    prior = {z: sum(p for x, p in pictures.items() if of[x] == z) for z in (0, 1)}
    decoder = {z: {x: p / prior[z] for x, p in pictures.items() if of[x] == z} for z in (0, 1)}
    for x, p in pictures.items():
        assert sum(prior[z] * decoder[z].get(x, 0.0) for z in prior) == pytest.approx(p)
    assert all(math.isclose(sum(table.values()), 1) for table in decoder.values())


def test_two_stages_give_the_mixture():
    """The same with numbers: an exact prior over two kinds, an exact decoder of each, against the exact whole."""
    kinds = [GaussianDenoiser(SCHEDULE, torch.tensor([m]), torch.tensor([0.01])) for m in (-1.0, 1.0)]
    z = torch.rand(1500, 1, generator=fresh(0)) < 0.25

    def told(x_t, t, cond=None):
        return torch.where(z, kinds[1](x_t, t), kinds[0](x_t, t))

    told.prediction = "noise"
    whole = MixtureDenoiser(
        SCHEDULE, torch.tensor([0.75, 0.25]), torch.tensor([[-1.0], [1.0]]), torch.tensor([0.01, 0.01])
    )
    how = {"sampler": ddim, "dtype": torch.float64, "progress": False}
    two = sample(told, SCHEDULE, (1500, 1), 60, generator=fresh(1), **how)
    one = sample(whole, SCHEDULE, (1500, 1), 60, generator=fresh(2), **how)
    assert (two > 0).double().mean().item() == pytest.approx((one > 0).double().mean().item(), abs=0.06)
    assert two[two > 0].std().item() == pytest.approx(one[one > 0].std().item(), rel=0.2)


def test_eq_17_2():
    """Block by block parts: each norm checked as numbers of mean 0 and variance 1, the scale as a change of them."""
    torch.manual_seed(0)
    block = ResidualBlock(8, 8, 6, scale_shift=True, order="pyramid", groups=2)
    x, e = torch.randn(3, 8, 5, 5, generator=fresh()), torch.randn(3, 6, generator=fresh(1))
    assert torch.equal(block(x, e), x), "the last norm starts at 0: a new block passes on what it gets"
    with torch.no_grad():
        block.norm3.weight.fill_(1.0)
    branch = block(x, e) - x
    parts = branch.reshape(3, 2, -1)
    assert torch.allclose(parts.mean(dim=2), torch.zeros(3, 2), atol=1e-5), "a norm comes last"
    assert torch.allclose(parts.var(dim=2, unbiased=False), torch.ones(3, 2), atol=1e-3)
    with torch.no_grad():  # no first SiLU: what comes in may be turned over, and only signs change inside
        block.conv1.bias.zero_()
        seen = {}
        block.norm2.register_forward_hook(lambda _, args, out: seen.update(h=out))
        block(x, e), (first := seen["h"]).shape
        block(-x, e)
        assert torch.allclose(seen["h"], -first, atol=1e-5)
        block.time.weight.zero_()
        block.time.bias.copy_(torch.cat([torch.full((8,), 1.0), torch.full((8,), 0.5)]))  # s = 1, b = 0.5
        inside = {}
        block.dropout.register_forward_hook(lambda _, args, out: inside.update(h=out))
        block(x, e)
        normed = group_norm(block.conv1(group_norm(x, 2)), 2)
        assert torch.allclose(inside["h"], F.silu(2 * normed + 0.5), atol=1e-4)


@pytest.mark.parametrize(("dim", "count", "width"), [(6, 4, 5), (12, 2, 3), (4, 1, 7)])
def test_eq_17_3(dim, count, width):
    """Each token is a linear map of its own: found by asking with one unit vector after the other."""
    torch.manual_seed(0)
    layer = ImageTokens(dim, count, width)
    with torch.no_grad():
        at_zero = layer(torch.zeros(1, dim))[0]
        columns = [layer(torch.eye(dim)[k : k + 1])[0] - at_zero for k in range(dim)]
        z = torch.randn(1, dim, generator=fresh())
        assert torch.allclose(layer(z)[0], at_zero + sum(float(z[0, k]) * columns[k] for k in range(dim)), atol=1e-5)
    maps = torch.stack(columns, dim=2)  # (count, width, dim)
    for i in range(count):
        for j in range(i):
            assert torch.linalg.matrix_rank(torch.cat([maps[i], maps[j]]).double()) > min(width, dim) or width >= dim


def test_eq_17_4():
    """A token is a pixel more: appending it gives what self-attention gives where such a pixel existed."""
    torch.manual_seed(0)
    layer = JointAttention2d(4, 4, groups=1)
    with torch.no_grad():
        layer.out.weight.copy_(torch.eye(4)[:, :, None, None])
        layer.norm = torch.nn.Identity()
        layer.kv.weight.copy_(layer.qkv.weight[4:, :, 0, 0])  # tokens are seen as pixels are
        layer.kv.bias.copy_(layer.qkv.bias[4:])
        picture, more = torch.randn(2, 4, 1, 6, generator=fresh()), torch.randn(2, 3, 4, generator=fresh(1))
        real = torch.tensor([[True, True, False], [True, True, True]])
        found = layer(picture, more, real)
        for b in range(2):
            extra = more[b, real[b]].T[None, :, None, :]
            wider = layer(torch.cat([picture[b : b + 1], extra], dim=3))
            assert torch.allclose(found[b], wider[0, :, :, :6], atol=1e-5)
        weights = layer.weights(picture, more, real)
        assert torch.allclose(weights.sum(dim=3), torch.ones(2, 1, 6), atol=1e-6)
        assert not weights[0, ..., 8].any()


def test_eq_17_5():
    """One number of the objective, rebuilt picture by picture from the lesson's own words."""
    torch.manual_seed(0)
    body = BodyConfig(
        size=8, width=8, mults=(1, 2), blocks=1, attention=(1,), heads=2, groups=4, dropout=0.0, embedding_dim=12,
        token_dim=8,
    )  # fmt: skip
    model = UnclipDecoder(DecoderConfig(body, image_dim=6, reads="nothing"))
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.normal_(0, 0.2)
    n = 12
    x = torch.randn(n, 3, 8, 8, generator=fresh())
    clip = CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1)).freeze()
    own = F.normalize(clip.encode_image(F.interpolate(x, 32).clamp(-1, 1)), dim=1)
    cond = decoder_condition(own)
    found = DecoderObjective()(model, x, cond, Draws(5, 3, n, slice(0, n)))
    draws = Draws(5, 3, n, slice(0, n))
    told, _ = draws.uniform() >= 0.1, draws.uniform()
    t, noise = draws.integers(1000), draws.normal(3, 8, 8)
    total = 0.0
    with torch.no_grad():
        for i in range(n):
            x_t = q_sample(SCHEDULE, x[i : i + 1], int(t[i]), noise[i : i + 1])
            guess = model(x_t, t[i : i + 1], cond[i : i + 1].kept(told[i : i + 1]))
            total += ((guess - noise[i : i + 1]) ** 2).mean().item()
    assert found.item() == pytest.approx(total / n, rel=1e-4)


def test_eq_17_6():
    """Mean and spread of the step, against Bayes' rule on a grid: q(x_t | x_(t-1)) q(x_(t-1) | x_0), normalised."""
    grid = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    for t in (1, 200, 500, 900):
        bar_prev, alpha = SCHEDULE.alpha_bars[t - 1].item(), SCHEDULE.alphas[t].item()
        x_0, x_t = 0.4, 0.7
        log = -((grid - bar_prev**0.5 * x_0) ** 2) / (2 * (1 - bar_prev)) - (x_t - alpha**0.5 * grid) ** 2 / (
            2 * (1 - alpha)
        )
        p = (log - log.max()).exp()
        p /= p.sum()
        mean = (p * grid).sum()
        variance = (p * (grid - mean) ** 2).sum()
        assert SCHEDULE.posterior_variance[t].item() == pytest.approx(variance.item(), rel=1e-4)
        one = torch.tensor([[x_t]], dtype=torch.float64)
        clean = torch.tensor([[x_0]], dtype=torch.float64)
        middle, _ = ddpm_step(SCHEDULE, one, clean, t, t - 1, torch.zeros_like(one), kind="x_start")
        upper, _ = ddpm_step(SCHEDULE, one, clean, t, t - 1, torch.ones_like(one), kind="x_start")
        assert middle.item() == pytest.approx(mean.item(), abs=1e-5)
        assert (upper - middle).item() == pytest.approx(variance.item() ** 0.5, rel=1e-4), "the root, not the variance"


def test_eq_17_7():
    """Draw x_t and x_(t-1) of one path: what of x_(t-1) is a multiple of x_t's noise, and what is left over."""
    g = fresh(3)
    for t in (2, 50, 500, 990):
        bar, bar_prev = SCHEDULE.alpha_bars[t], SCHEDULE.alpha_bars[t - 1]
        n = 200_000
        before = (1 - bar_prev).sqrt() * torch.randn(n, generator=g, dtype=torch.float64)  # x_0 = 0: x is noise
        after = (bar / bar_prev).sqrt() * before + (1 - bar / bar_prev).sqrt() * torch.randn(
            n, generator=g, dtype=torch.float64
        )
        slope = (before * after).mean() / (after**2).mean()
        carried, fresh_part = (slope * after).var(), (before - slope * after).var()
        assert (carried + fresh_part).item() == pytest.approx((1 - bar_prev).item(), rel=0.02)
        assert fresh_part.item() == pytest.approx(SCHEDULE.posterior_variance[t].item(), rel=0.02)


@pytest.mark.parametrize(("right", "n"), [(0, 12), (12, 12), (45, 50), (7, 40)])
def test_eq_17_8(right, n):
    """Its ends are the truths that a score test rejects at exactly the 5% of |z| > 1.96."""
    for truth in wilson(right, n):
        if 0 < truth < 1:
            z = (right / n - truth) / math.sqrt(truth * (1 - truth) / n)
            assert 2 * stats.norm.sf(abs(z)) == pytest.approx(0.05, abs=1e-4)
    low, high = wilson(right, n)
    assert low <= right / n <= high + 1e-12


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_the_variance_in_place_of_its_root_collapses():
    """Exactly, by following the variance of a chain whose steps are affine: 0.011 instead of 0.300."""
    exact = GaussianDenoiser(SCHEDULE, torch.zeros(1), torch.tensor([0.09]))
    one = torch.ones(1, 1, dtype=torch.float64)
    ends = {}
    for name, power in (("root", 1), ("variance", 2)):
        variance = 1.0
        for t in reversed(range(1000)):
            slope, _ = ddpm_step(SCHEDULE, one, exact(one, torch.tensor([t])), t, t - 1, None if t == 0 else 0 * one)
            variance = slope.item() ** 2 * variance + SCHEDULE.posterior_variance[t].item() ** power
        ends[name] = variance**0.5
    assert ends["root"] == pytest.approx(0.300, abs=0.003)
    assert ends["variance"] == pytest.approx(0.011, abs=0.002)
    assert SCHEDULE.posterior_variance[499].item() == pytest.approx(0.0031, abs=5e-5)
    assert SCHEDULE.posterior_variance[499].item() ** 0.5 == pytest.approx(0.056, abs=5e-4)


def test_clamping_x_t_loses_the_bright_half():
    two = MixtureDenoiser(
        SCHEDULE, torch.tensor([0.5, 0.5]), torch.tensor([[-0.84], [1.8]]), torch.tensor([0.01, 0.01])
    )
    g = fresh(0)
    x = torch.randn(1500, 1, generator=g, dtype=torch.float64)
    for state in ddpm(two, SCHEDULE, (1500, 1), 1000, x=x, generator=g, dtype=torch.float64):
        state.x.clamp_(-1, 1)
    assert state.x.max() <= 1
    assert (state.x > 0.5).double().mean().item() < 0.42
    clipped = sample(
        two, SCHEDULE, (1500, 1), 1000, sampler=ddpm, clip=(-0.844, 2.111), generator=fresh(0), dtype=torch.float64,
        progress=False,
    )  # fmt: skip
    assert (clipped > 0.5).double().mean().item() == pytest.approx(0.5, abs=0.06)
    assert clipped.max() > 1.7


def test_a_new_goal_at_each_step_reaches_neither():
    kinds = [GaussianDenoiser(SCHEDULE, torch.tensor([m]), torch.tensor([0.01])) for m in (-1.0, 1.0)]
    shares = []
    for redraw in (False, True):
        g = fresh(1)
        fixed = torch.rand(1500, 1, generator=g) < 0.5

        def told(x_t, t, cond=None, g=g, fixed=fixed, redraw=redraw):
            z = torch.rand(1500, 1, generator=g) < 0.5 if redraw else fixed
            return torch.where(z, kinds[1](x_t, t), kinds[0](x_t, t))

        told.prediction = "noise"
        x = sample(told, SCHEDULE, (1500, 1), 50, sampler=ddim, generator=fresh(2), dtype=torch.float64, progress=False)
        shares.append(((x.abs() - 1).abs() < 0.3).double().mean().item())
    assert shares[0] > 0.98
    assert shares[1] < 0.9
