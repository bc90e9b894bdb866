"""Every tagged equation of lesson 18, checked by a route that does not use the formula itself."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from torch.distributions import Normal, kl_divergence
from torch.utils.flop_counter import FlopCounterMode

from course_lib.diffusion import GaussianDenoiser, Schedule, convert, q_sample
from course_lib.evaluation.reconstruction import psnr
from course_lib.models.clip import CLIP, CLIPConfig
from course_lib.models.kl_autoencoder import KLAutoencoder, KLAutoencoderConfig
from course_lib.models.latent_unet import LatentUNet, LatentUNetConfig
from course_lib.nn import conv_multiplications
from course_lib.nn.spatial_transformer import GEGLU, TransformerLayer
from course_lib.recipes.latent_shapes import LatentObjective
from course_lib.training import Draws

SCHEDULE = Schedule.cosine(1000)


def fresh(seed=0):
    return torch.Generator().manual_seed(seed)


def test_eq_18_1():
    """torch's own counter, which knows no formula of ours, counts a multiplication and an addition as two."""
    for side, channels, out in ((8, 12, 20), (16, 12, 20)):
        n = side**2
        with FlopCounterMode(display=False) as counter:
            nn.Conv2d(channels, out, 3, padding=1)(torch.zeros(1, channels, side, side))
        assert counter.get_total_flops() == 2 * 9 * channels * out * n
        assert conv_multiplications(channels, out, 3, side, side) == 9 * channels * out * n
        q, k, v = torch.zeros(3, n, channels)
        with FlopCounterMode(display=False) as counter:
            (q @ k.T).softmax(dim=1) @ v
        assert counter.get_total_flops() == 2 * 2 * channels * n**2


def test_eq_18_2():
    """The library's loss against torch's distributions: minus the log-likelihood plus β times the divergence."""
    torch.manual_seed(0)
    model = KLAutoencoder(KLAutoencoderConfig(size=16, width=8, mults=(1, 2), groups=4, variance=0.01)).eval()
    x, noise = torch.rand(3, 3, 16, 16) * 2 - 1, torch.randn(3, 4, 8, 8)
    q = model.encode(x)
    of_latents = Normal(q.mean, q.std)
    decoded = model.decode(q.mean + q.std * noise)
    likelihood = Normal(decoded, 0.1).log_prob(x).flatten(1).sum(dim=1)
    divergence = kl_divergence(of_latents, Normal(0.0, 1.0)).flatten(1).sum(dim=1)
    for beta in (0.05, 1.0):
        assert model(x, noise).loss(beta).item() == pytest.approx(
            (beta * divergence - likelihood).mean().item(), rel=1e-5
        )
    constant = 0.5 * x[0].numel() * math.log(2 * math.pi * 0.01)
    squares = (x - decoded).square().flatten(1).sum(dim=1) / (2 * 0.01)
    assert torch.allclose(-likelihood, squares + constant, rtol=1e-4)


def test_eq_18_3():
    x = torch.rand(3, 3, 16, 16, generator=fresh()) - 0.5
    for error, decibels in ((2.0, 0.0), (0.2, 20.0), (0.02, 40.0)):
        assert torch.allclose(psnr(x + error, x), torch.full((3,), decibels), atol=1e-3)
    noise = torch.randn(x.shape, generator=fresh(1))
    gained = psnr(x + 0.05 * noise, x) - psnr(x + 0.1 * noise, x)
    assert torch.allclose(gained, torch.full((3,), 20 * math.log10(2)), atol=1e-3), "half the error: 6 decibels"
    assert psnr(x, x).isinf().all()
    one = torch.cat([x[:1], x[1:2] + 0.2])
    assert psnr(one, x[:2]).tolist() == [math.inf, pytest.approx(20, abs=1e-3)], "picture by picture"


@pytest.mark.parametrize("s", [1.0, 5.49])
def test_eq_18_4(s):
    """By what the ratio decides: the best guess at data of variance s² leaves the share 1 / (1 + SNR) of it."""
    schedule = Schedule.scaled_linear(1000)
    exact = GaussianDenoiser(schedule, torch.zeros(1), torch.tensor([s**2]))
    one = torch.ones(1, 1, dtype=torch.float64)
    for t in (0, 100, 400, 700, 999):
        of_data, of_noise = (
            q_sample(schedule, data, t, noise).item() for data, noise in ((one, 0 * one), (0 * one, one))
        )
        step = torch.tensor([t])
        slope = convert(schedule, one, step, exact(one, step), "noise", "x_start").item()  # the guess is slope · z_t
        left = (1 - slope * of_data) ** 2 * s**2 + (slope * of_noise) ** 2  # variance of guess - z
        bar = schedule.alpha_bars[t].item()
        assert s**2 / left - 1 == pytest.approx(s**2 * bar / (1 - bar), rel=1e-4)


def test_the_numbers_of_an_unscaled_space():
    bars = Schedule.scaled_linear(1000).alpha_bars
    snr = bars / (1 - bars)
    assert pytest.approx(30, abs=0.2) == 5.49**2
    assert pytest.approx(5.49, abs=0.001) == 1 / 0.18215
    assert snr[999].item() == pytest.approx(0.00468, abs=5e-5)
    assert 5.49**2 * snr[999].item() == pytest.approx(0.141, abs=0.001)
    assert (snr - 5.49**2 * snr[999]).abs().argmin().item() == 642


def test_eq_18_5():
    """v is the speed of z_t on its way around the circle from z to noise; and the shipped objective asks for it."""
    g = fresh()
    z, noise = torch.randn(2, 4, 8, 8, generator=g, dtype=torch.float64), torch.randn(2, 4, 8, 8, generator=g).double()
    for t in (50, 500, 950):
        bar = SCHEDULE.alpha_bars[t]
        angle, h = torch.acos(bar.sqrt()), 1e-6
        speed = [torch.cos(a) * z + torch.sin(a) * noise for a in (angle + h, angle - h)]
        v = bar.sqrt() * noise - (1 - bar).sqrt() * z
        assert torch.allclose((speed[0] - speed[1]) / (2 * h), v, atol=1e-6)
        assert torch.allclose(
            convert(SCHEDULE, q_sample(SCHEDULE, z, t, noise), torch.tensor([t] * 2), v, "v", "noise"), noise
        )


def test_the_objective_is_equation_18_5():
    torch.manual_seed(0)
    clip = CLIP(CLIPConfig(dim=6, image_width=8, image_layers=1, text_width=8, text_layers=1)).freeze()
    model = LatentUNet(LatentUNetConfig(width=8, heads=2, groups=4, context_width=8, text_dim=6))
    with torch.no_grad():
        model.conv_out.weight.normal_(std=0.1)
    means, stds = torch.randn(6, 4, 8, 8), torch.rand(6, 4, 8, 8)
    ids = torch.randint(1, 100, (6, 3, 64))
    seen = []
    model.register_forward_hook(lambda _, inputs, output: seen.append((*inputs, output)))
    found = LatentObjective(clip, dropped=0.5)(
        model, (means.half(), stds.half(), ids.short()), Draws(0, 0, 6, slice(0, 6))
    )
    z_t, t, cond, answer = seen[0]
    draws = Draws(0, 0, 6, slice(0, 6))
    draws.uniform()  # the wording
    assert torch.equal(cond.keep, draws.uniform() >= 0.5)
    z = means.half().float() + stds.half().float() * draws.normal(4, 8, 8)
    assert torch.equal(t, draws.integers(1000))
    noise, bar = draws.normal(4, 8, 8), SCHEDULE.alpha_bars[t].float()[:, None, None, None]
    assert torch.allclose(z_t, bar.sqrt() * z + (1 - bar).sqrt() * noise, atol=1e-5)
    assert torch.allclose(found, F.mse_loss(answer, bar.sqrt() * noise - (1 - bar).sqrt() * z), rtol=1e-4)


def test_eq_18_6():
    """Against torch's own transformer layer, which asks itself, then a memory, norms first; its network is swapped."""
    torch.manual_seed(0)
    layer = TransformerLayer(8, 8, heads=2).eval()
    theirs = nn.TransformerDecoderLayer(8, 2, 32, dropout=0.0, batch_first=True, norm_first=True).eval()
    vars(theirs)["_ff_block"] = layer.mlp
    with torch.no_grad():
        for mine, own in ((layer.pixels, theirs.self_attn), (layer.words, theirs.multihead_attn)):
            own.in_proj_weight.copy_(torch.cat([mine.q.weight, mine.k.weight, mine.v.weight]))
            own.in_proj_bias.zero_()
            own.out_proj.load_state_dict(mine.out.state_dict())
        for mine, own in (
            (layer.norm_pixels, theirs.norm1),
            (layer.norm_words, theirs.norm2),
            (layer.norm_mlp, theirs.norm3),
        ):
            mine.weight.normal_(1, 0.3)
            mine.bias.normal_(0, 0.3)
            own.load_state_dict(mine.state_dict())
        h, y = torch.randn(3, 10, 8), torch.randn(3, 7, 8)
        real = torch.arange(7) < torch.tensor([[4], [7], [1]])
        expected = theirs(h, y, memory_key_padding_mask=~real)
        assert torch.allclose(layer(h, y, real), expected, atol=1e-5)


def test_eq_18_7():
    """GELU as a share: a number times the probability that N(0, 1) lies below it."""
    layer, u = GEGLU(5, 4).double(), torch.randn(6, 2, 5, dtype=torch.float64)
    with torch.no_grad():
        values = u @ layer.both.weight[:4].T + layer.both.bias[:4]
        gates = u @ layer.both.weight[4:].T + layer.both.bias[4:]
        expected = values * gates * torch.from_numpy(stats.norm.cdf(gates.numpy()))
        assert torch.allclose(layer(u), expected, atol=1e-10)
        layer.both.bias[4:] = -50
        assert layer(u).abs().max() < 1e-12, "shut"
