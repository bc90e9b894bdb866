"""The VAE: terms that are summed and not averaged, normalised likelihoods, gradients for the encoder."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.foundations import kl_diagonal, normal_log_density
from course_lib.models.conv_vae import ConvVAE, ConvVAEConfig, PointVAE
from course_lib.models.gaussian_latent import DiagonalGaussian, kl_to_standard
from course_lib.models.linear_vae import LinearVAE
from course_lib.models.vae import (
    VAE,
    Elbo,
    bernoulli_log_likelihood,
    binarise,
    gaussian_log_likelihood,
    latent_walk,
    log_likelihood_bound,
    log_mean_exp,
    vae_loss,
)

TINY = ConvVAEConfig(size=12, widths=(4, 8), hidden=16, latent=3, groups=2)
KINDS = {
    "plain": TINY,
    "bits": ConvVAEConfig(size=12, widths=(4, 8), hidden=16, latent=3, likelihood="bernoulli"),
    "residual": ConvVAEConfig(size=12, widths=(4, 8), narrow=2, hidden=0, latent=3, blocks=1, groups=2),
    "rgb, one halving": ConvVAEConfig(size=6, channels=3, widths=(4,), hidden=0, latent=1, learn_variance=False),
}


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def pictures(config, n=5):
    x = torch.rand(n, config.channels, config.size, config.size) * 2 - 1
    return binarise(x) if config.likelihood == "bernoulli" else x


# --- the Gaussian of the latent ------------------------------------------------------------------------------------


def test_kl_is_that_of_lesson_03():
    mean, log_var = torch.randn(7, 4), torch.randn(7, 4) * 3
    theirs = kl_diagonal(mean, log_var.double().exp(), 0.0, 1.0)
    torch.testing.assert_close(kl_to_standard(mean, log_var).double(), theirs, rtol=1e-6, atol=1e-6)
    assert kl_to_standard(torch.tensor([[1.0]]), torch.tensor([[2 * math.log(2)]])).item() == pytest.approx(
        1.30685, abs=1e-5
    )
    assert (kl_to_standard(torch.zeros(2, 4), torch.zeros(2, 4)) == 0).all()


def test_kl_near_the_prior_keeps_its_digits():
    """For a log variance of 1e-4, KL is 1e-8 / 4; exp(v) - 1 - v in float32 would be rounding noise."""
    assert kl_to_standard(torch.zeros(1, 1), torch.full((1, 1), 1e-4)).item() == pytest.approx(2.5e-9, rel=0.1)


def test_diagonal_gaussian_draws_and_clamps():
    mean, log_var = (
        torch.tensor([[1.0, -2.0]]).expand(40_000, 2),
        torch.tensor([[math.log(4.0), 0.0]]).expand(40_000, 2),
    )
    q = DiagonalGaussian(mean, log_var)
    z = q.sample(generator=torch.Generator().manual_seed(3))
    assert torch.equal(z, q.sample(generator=torch.Generator().manual_seed(3)))
    error = 4 / 200
    torch.testing.assert_close(z.mean(0), torch.tensor([1.0, -2.0]), rtol=0, atol=2 * error)
    torch.testing.assert_close(z.std(0), torch.tensor([2.0, 1.0]), rtol=2 * error, atol=0)
    assert torch.equal(q.mode, mean)
    extreme = DiagonalGaussian(torch.zeros(1, 2), torch.tensor([[-1e9, 1e9]]))
    assert extreme.log_var.tolist() == [[-30.0, 20.0]]
    assert torch.isfinite(extreme.kl()).all()
    torch.testing.assert_close(q.std.square(), q.variance)


# --- likelihoods -----------------------------------------------------------------------------------------------------


def test_bernoulli_sums_to_one_over_all_pictures():
    """The probabilities of all 2⁶ pictures of six pixels add up to 1."""
    logits = torch.randn(1, 6).expand(64, 6)
    every = torch.tensor([[(k >> i) & 1 for i in range(6)] for k in range(64)]).float()
    assert bernoulli_log_likelihood(logits, every).exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_gaussian_is_the_density_of_lesson_02():
    mean, x = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    ours = gaussian_log_likelihood(mean, x, 0.3)
    theirs = normal_log_density(x, mean, 0.3).sum((1, 2))
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)


def test_gaussian_falls_with_half_the_squared_distance():
    """Row C06: 0.5 at distance 1, 2.0 at distance 2, for a variance of 1."""
    at = [gaussian_log_likelihood(torch.zeros(1, 1), torch.full((1, 1), float(d)), 1.0).item() for d in (0, 1, 2)]
    assert at[0] - at[1] == pytest.approx(0.5, abs=1e-6)
    assert at[0] - at[2] == pytest.approx(2.0, abs=1e-6)


def test_the_grey_floor():
    """Row C09: a perfect reconstruction of 28×28 pixels of 0.5 still costs 543.4; one of bits costs nothing."""
    grey = torch.full((1, 1, 28, 28), 0.5)
    cost = F.binary_cross_entropy(grey, grey, reduction="sum").item()
    assert cost == pytest.approx(784 * math.log(2), rel=1e-6)
    assert round(cost, 1) == 543.4
    with pytest.raises(ValueError, match="0 and 1 only"):
        bernoulli_log_likelihood(torch.zeros_like(grey), grey)
    bits = binarise(torch.ones(1, 1, 28, 28))
    assert bernoulli_log_likelihood(torch.full_like(bits, 30.0), bits).item() == pytest.approx(0, abs=1e-6)


def test_binarise():
    x = torch.tensor([-1.0, -0.2, 0.0, 0.2, 1.0])
    assert binarise(x).tolist() == [0, 0, 0, 1, 1]
    grey = torch.full((40_000,), 0.5)  # brightness 3/4
    share = binarise(grey, torch.rand(40_000)).mean().item()
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / 40_000) ** 0.5
    assert binarise(torch.tensor([-1.0, 1.0]), torch.tensor([0.0, 0.999])).tolist() == [0, 1]


# --- the bound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())
def test_terms_are_sums_per_picture(config):
    """Recomputed picture by picture with torch.distributions: nothing is averaged over pixels or latents."""
    model, x = ConvVAE(config), pictures(config)
    noise = torch.randn(5, config.latent)
    found = model(x, noise)
    mean, log_var = model.encoder(x).chunk(2, dim=1)
    std = (0.5 * log_var).exp()
    raw = model.decoder(mean + std * noise)
    normal, dist = torch.distributions.Normal, torch.distributions
    p = dist.Bernoulli(logits=raw) if config.likelihood == "bernoulli" else normal(raw, model.variance.sqrt())
    kl = dist.kl_divergence(normal(mean, std), normal(torch.zeros(()), torch.ones(()))).sum(1)
    torch.testing.assert_close(found.reconstruction, p.log_prob(x).flatten(1).sum(1), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.kl, kl, rtol=1e-4, atol=1e-5)
    assert found.loss().item() == pytest.approx(-found.value.mean().item(), rel=1e-5)
    assert found.loss(3).item() == pytest.approx((3 * found.kl - found.reconstruction).mean().item(), rel=1e-5)
    single = model(x[2:3], noise[2:3])
    torch.testing.assert_close(single.reconstruction, found.reconstruction[2:3], rtol=1e-4, atol=1e-3)


def test_the_mean_mean_trap():
    """Averaged over latents and over pixels, the KL weighs 784 / latent times as much: another β."""
    model = ConvVAE(ConvVAEConfig(widths=(4, 4), hidden=8, latent=8, likelihood="bernoulli"))
    x, noise = binarise(torch.rand(6, 1, 28, 28) * 2 - 1), torch.randn(6, 8)

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    q = model.encode(x)
    each_kl = 0.5 * (q.variance + q.mean.square() - 1 - q.log_var)
    trap = F.binary_cross_entropy_with_logits(model.raw(q.sample(noise)), x) + each_kl.mean()
    found = model(x, noise)
    torch.testing.assert_close(gradient(trap) * 784, gradient(found.loss(784 / 8)), rtol=1e-3, atol=1e-4)
    right = gradient(model(x, noise).loss())
    assert (gradient(model(x, noise).loss(784 / 8)) - right).norm() > 0.1 * right.norm()


def test_gradient_reaches_the_encoder_and_noise_decides():
    model, x, noise = ConvVAE(TINY), pictures(TINY), torch.randn(5, 3)
    model(x, noise).reconstruction.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.encoder.parameters())
    with torch.no_grad():
        first, again, other = model(x, noise), model(x, noise), model(x, noise + 1)
    assert torch.equal(first.value, again.value)
    assert not torch.equal(first.value, other.value)


def test_importance_weighted_bound_climbs():
    model, x = ConvVAE(TINY), pictures(TINY, 200)
    at = [log_likelihood_bound(model, x, k, torch.Generator().manual_seed(0)).mean().item() for k in (1, 10, 100)]
    elbo = torch.stack([model(x, torch.randn(200, 3)).value.mean() for _ in range(50)]).mean().item()
    assert at[0] < at[1] < at[2]
    assert at[0] == pytest.approx(elbo, abs=1)


def test_importance_weighted_bound_reaches_the_truth():
    """A VAE that is linear: with many draws the bound is ln p(x), which `LinearVAE` knows."""
    known = LinearVAE(torch.tensor([[1.5, 0.2], [0.0, 1.0], [0.3, -0.4]]), 0.0, 0.5)

    class Encoder(nn.Module):  # broad, and off: only the weights of the draws can put it right
        def forward(self, x):
            return torch.cat([known.posterior(x)[0].float() + 0.2, torch.zeros(len(x), 2)], dim=1)

    decoder = nn.Linear(2, 3, bias=False)
    decoder.weight.data = known.weight.float()
    model, x = VAE(Encoder(), decoder, 2, variance=0.5), known.sample(20, torch.Generator().manual_seed(1)).float()
    found = log_likelihood_bound(model, x, 20_000, torch.Generator().manual_seed(2)).double()
    torch.testing.assert_close(found, known.log_evidence(x), rtol=0, atol=0.05)


# --- networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "side"), [(28, 7), (32, 8)])
def test_shapes_by_hand(size, side):
    """Rows C01 and C02: two halvings, a linear layer from 64 · side², and exactly the picture's size at the end."""
    config = ConvVAEConfig(size=size)
    model = ConvVAE(config)
    assert [m.in_features for m in model.encoder if isinstance(m, nn.Linear)] == [64 * side**2, 128]
    x = torch.rand(3, 1, size, size) * 2 - 1
    assert model.encode(x).mean.shape == (3, 16)
    assert model.decode(torch.randn(3, 16)).shape == x.shape


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())
def test_everyday_use(config):
    """One picture, a copy, a state dict there and back, the same call twice."""
    model = ConvVAE(config).eval()
    x, noise = pictures(config, 1), torch.randn(1, config.latent)
    found = model(x, noise)
    twin, reloaded = copy.deepcopy(model), ConvVAE(config).eval()
    reloaded.load_state_dict(model.state_dict())
    for other in (model, twin, reloaded):
        assert torch.equal(other(x, noise).value, found.value)
    drawn = [model.sample(4, torch.Generator().manual_seed(k)) for k in (0, 0, 1)]
    assert drawn[0].shape == (4, *x.shape[1:])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    if config.likelihood == "bernoulli":
        assert drawn[0].min() > 0
        assert drawn[0].max() < 1
    assert model.sample(2).shape[0] == 2


def test_noisy_samples_are_draws_from_the_likelihood():
    """A decoder that ignores z: what is drawn must have its mean, and the variance that goes with it."""
    for likelihood, variance in (("gaussian", 0.49), ("bernoulli", 0.75 * 0.25)):
        model = VAE(nn.Linear(1, 2), nn.Linear(1, 1), 1, likelihood, variance=0.49)
        model.decoder.weight.data.zero_()
        model.decoder.bias.data.fill_(math.log(3))  # as a logit: a probability of 3/4
        x = model.sample(40_000, torch.Generator().manual_seed(0), noisy=True)
        mean = model.sample(1)[0, 0].item()
        assert abs(x.mean().item() - mean) < 4 * (variance / 40_000) ** 0.5
        assert x.var().item() == pytest.approx(variance, rel=0.03)
        if likelihood == "bernoulli":
            assert sorted(x.unique().tolist()) == [0, 1]


def test_variance_learns_only_if_told():
    learns, fixed = (
        ConvVAE(TINY),
        ConvVAE(ConvVAEConfig(size=12, widths=(4,), latent=1, learn_variance=False, variance=2)),
    )
    assert "log_variance" in dict(learns.named_parameters())
    assert "log_variance" in dict(fixed.named_buffers())
    assert fixed.variance.item() == pytest.approx(2)


def test_learned_variance_is_the_mean_squared_error():
    """Where nothing else is learned, the best single variance is the mean squared error: the σ-VAE's closed form."""
    model, x, noise = ConvVAE(TINY), pictures(TINY, 50), torch.randn(50, 3)
    error = (model.raw(model.encode(x).sample(noise)) - x).square().mean().detach()
    model.log_variance.data = error.log()
    (slope,) = torch.autograd.grad(model(x, noise).loss(), model.log_variance)
    assert abs(slope.item()) < 1e-2
    model.log_variance.data = error.log() + 0.1
    (slope,) = torch.autograd.grad(model(x, noise).loss(), model.log_variance)
    assert slope.item() > 1


def test_a_few_steps_help_points():
    model, points = PointVAE(hidden=32), torch.randn(256, 2) * torch.tensor([2.0, 0.1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        loss = model(points, torch.randn(256, 2)).loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) / 20 < losses[0] - 0.5


def test_elbo_is_a_pair():
    found = Elbo(torch.tensor([-3.0, -5.0]), torch.tensor([1.0, 2.0]))
    assert found.value.tolist() == [-4, -7]
    assert found.loss().item() == 5.5
    assert found.loss(0).item() == 4


# --- small parts that lesson 12 writes by hand -----------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0, 1, 4.5])
def test_vae_loss_is_the_networks(beta):
    model = ConvVAE(KINDS["bits"])
    x, noise = pictures(KINDS["bits"]), torch.randn(5, 3)
    q = model.encode(x)
    ours = vae_loss(model.raw(q.sample(noise)), x, q.mean, q.log_var, beta)
    torch.testing.assert_close(ours, model(x, noise).loss(beta))
    extreme = vae_loss(torch.full((1, 4), 500.0), torch.zeros(1, 4), torch.zeros(1, 1), torch.zeros(1, 1))
    assert extreme.item() == pytest.approx(2000)  # finite, where ln(1 - sigmoid) would be ln 0


def test_log_mean_exp():
    values = torch.randn(50, 3)
    torch.testing.assert_close(log_mean_exp(values), values.exp().mean(0).log())
    torch.testing.assert_close(log_mean_exp(values - 2_000), values.exp().mean(0).log() - 2_000, rtol=0, atol=1e-3)
    assert torch.equal(log_mean_exp(values[:1]), values[0])


def test_latent_walk():
    a, b = torch.randn(4), torch.randn(4)
    path = latent_walk(a, b, 5)
    assert torch.equal(path[0], a)
    assert torch.equal(path[-1], b)
    torch.testing.assert_close(path[2], (a + b) / 2)
    torch.testing.assert_close(path.diff(dim=0), ((b - a) / 4).expand(4, 4))
    assert len(latent_walk(a, b, 2)) == 2
