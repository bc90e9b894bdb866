"""GANs: what each loss moves, the penalty against calculus, shapes and odd sizes, and training that can be resumed."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.models.gan import (
    GAN,
    Discriminator,
    GANConfig,
    Generator,
    discriminator_loss,
    generator_loss,
    make_gan,
    player_losses,
    r1_penalty,
)
from course_lib.models.points import PointDenoiser, PointDiscriminator, PointGenerator
from course_lib.training import Draws, FitConfig, GANObjective, fit

SMALL = GANConfig(8, 2, 4, 3, generator=(8, 8, 8), discriminator=(8, 8), groups=4, hidden=8)


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")


def point_gan(seed=0, classes=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GAN(PointGenerator(2, 2, 16, 2, classes), PointDiscriminator(2, 16, 2, classes))


def batch(n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=generator), torch.randn(n, 2, generator=generator)


# --- losses --------------------------------------------------------------------------------------------------------


def test_losses_are_those_of_the_paper():
    real, fake = torch.tensor([2.0, -1.0, 0.3]), torch.tensor([-0.5, 1.5])
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    value = d_real.log().mean() + (1 - d_fake).log().mean()
    assert discriminator_loss(real, fake).item() == pytest.approx(-value.item(), abs=1e-6)
    assert generator_loss(fake).item() == pytest.approx(-d_fake.log().mean().item(), abs=1e-6)
    assert generator_loss(fake, "saturating").item() == pytest.approx((1 - d_fake).log().mean().item(), abs=1e-6)
    zero = torch.zeros(4)
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))


def test_losses_survive_extreme_scores_and_slopes_are_right():
    for kind, at_sure, at_fooled in (("non_saturating", -1.0, 0.0), ("saturating", 0.0, -1.0)):
        for score, slope in ((-80.0, at_sure), (80.0, at_fooled)):
            fake = torch.tensor([score], requires_grad=True)
            loss = generator_loss(fake, kind)
            loss.backward()
            assert math.isfinite(loss.item())
            assert fake.grad.item() == pytest.approx(slope, abs=1e-6), kind


def test_penalty_is_the_squared_slope():
    weight = torch.tensor([3.0, -4.0])
    x = torch.randn(7, 2)
    assert r1_penalty(lambda x: x @ weight, x).item() == pytest.approx(25)
    x = torch.tensor([[1.0, 2.0], [0.0, 3.0]])  # D = |x|²: slope 2x
    assert r1_penalty(lambda x: x.square().sum(1), x).item() == pytest.approx(4 * (5 + 9) / 2)
    assert r1_penalty(lambda x: 2 * x.sum((1, 2, 3)), torch.ones(2, 1, 3, 3)).item() == pytest.approx(4 * 9)
    assert not x.requires_grad


def test_penalty_can_be_differentiated():
    scale = torch.tensor(2.0, requires_grad=True)
    r1_penalty(lambda x: scale * x.sum(1), torch.randn(5, 3)).backward()
    assert scale.grad.item() == pytest.approx(2 * 2 * 3)


def test_plain_losses_are_those_of_the_module():
    gan, (real, z) = point_gan(), batch()
    both, found = gan(real, z), player_losses(gan.generator, gan.discriminator, real, z)
    assert torch.equal(both.discriminator, found[0])
    assert torch.equal(both.generator, found[1])
    sum(found).backward()
    grads = [p.grad.clone() for p in gan.parameters()]
    gan.zero_grad()
    (both.discriminator + both.generator).backward()
    assert all(torch.allclose(p.grad, g, atol=1e-7) for p, g in zip(gan.parameters(), grads, strict=True))


# --- who is moved by what ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["non_saturating", "saturating"])
def test_each_loss_moves_its_own_network_only(kind):
    real, z = batch()
    for name, moved, still in (
        ("discriminator", "discriminator", "generator"),
        ("generator", "generator", "discriminator"),
        ("penalty", "discriminator", "generator"),
    ):
        gan = point_gan()
        getattr(gan(real, z, kind=kind, penalise=True), name).backward()
        grads = [p.grad for p in getattr(gan, moved).parameters()]
        assert any(g is not None and g.abs().max() > 0 for g in grads)
        assert all(p.grad is None for p in getattr(gan, still).parameters())


def test_the_sum_has_the_gradients_of_two_separate_steps():
    real, z = batch()
    gan = point_gan()
    losses = gan(real, z, penalise=True)
    (losses.discriminator + losses.generator + 0.5 * losses.penalty).backward()
    two = point_gan()
    fake = two.generator(z)
    of_d = discriminator_loss(two.discriminator(real), two.discriminator(fake.detach()))
    of_d = of_d + 0.5 * r1_penalty(two.discriminator, real)
    d_grads = torch.autograd.grad(of_d, list(two.discriminator.parameters()))
    g_grads = torch.autograd.grad(generator_loss(two.discriminator(fake)), list(two.generator.parameters()))
    for module, grads in ((gan.discriminator, d_grads), (gan.generator, g_grads)):
        for parameter, grad in zip(module.parameters(), grads, strict=True):
            assert torch.allclose(parameter.grad, grad, atol=1e-6)


def test_forward_leaves_its_arguments_and_the_networks_alone():
    gan, (real, z) = point_gan(), batch()
    before, state = real.clone(), copy.deepcopy(gan.state_dict())
    first, second = gan(real, z, penalise=True), gan(real, z, penalise=True)
    assert torch.equal(real, before)
    assert not real.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), "the same call, the same answer"
    assert all(torch.equal(v, state[k]) for k, v in gan.state_dict().items())
    assert gan(real, z).penalty == 0


# --- networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("config", [SMALL, GANConfig(12, 3, 5, generator=(8, 8), discriminator=(8,)), GANConfig()])
def test_pictures_in_and_out(config, n):
    gan = make_gan(config)
    label = torch.arange(n) % config.classes if config.classes else None
    made = gan.generator(torch.randn(n, config.latent), label)
    assert made.shape == (n, config.channels, config.size, config.size)
    assert made.abs().max() <= 1
    assert gan.discriminator(made, label).shape == (n,)


def test_a_picture_does_not_depend_on_its_batch():
    gan, z, label = make_gan(SMALL).eval(), torch.randn(4, 4), torch.tensor([0, 1, 2, 0])
    for block in gan.generator.blocks:  # as after training: they start as no change at all
        nn.init.normal_(block.conv2.weight)
        nn.init.normal_(block.style.weight)
    together = gan.generator(z, label)
    alone = gan.generator(z[2:3], label[2:3])
    assert torch.allclose(together[2:3], alone, atol=1e-5)
    scores = gan.discriminator(together, label)
    assert torch.allclose(scores[1:2], gan.discriminator(together[1:2], label[1:2]), atol=1e-5)


def test_noise_and_class_reach_every_block():
    gan, z = make_gan(SMALL), torch.randn(1, 4)
    for block in gan.generator.blocks:
        nn.init.normal_(block.conv2.weight)
        nn.init.normal_(block.style.weight)
    first, other = (gan.generator(z, torch.tensor([k])) for k in (0, 1))
    assert (first - other).abs().max() > 1e-3
    assert (gan.discriminator(first, torch.tensor([0])) - gan.discriminator(first, torch.tensor([1]))).abs() > 1e-4


def test_double_precision_stays_double():
    gan = make_gan(SMALL).double()
    made = gan.generator(torch.randn(2, 4, dtype=torch.float64), torch.tensor([0, 1]))
    assert made.dtype == gan.discriminator(made, torch.tensor([0, 1])).dtype == torch.float64


def test_seeds_copies_and_state():
    one, same, other = make_gan(SMALL, 1), make_gan(SMALL, 1), make_gan(SMALL, 2)
    z, label = torch.randn(2, 4), torch.tensor([0, 1])
    assert torch.equal(one.generator(z, label), same.generator(z, label))
    assert not torch.equal(one.generator(z, label), other.generator(z, label))
    other.load_state_dict(one.state_dict())
    assert torch.equal(copy.deepcopy(other).generator(z, label), one.generator(z, label))
    state = torch.random.get_rng_state()
    make_gan(SMALL)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_points_keep_their_digits_under_autocast():
    gan, (real, z) = point_gan(classes=3), batch()
    label = torch.arange(6) % 3
    exact = gan.generator(z, label), gan.discriminator(real, label)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = gan.generator(z, label), gan.discriminator(real, label)
    assert all(torch.equal(a, b) for a, b in zip(exact, rough, strict=True))
    assert not torch.equal(gan.generator(z, label), gan.generator(z, (label + 1) % 3)), "the class is heard"
    denoiser = PointDenoiser(T=10)
    t = torch.tensor([0, 9, 3, 3, 3, 3])
    assert denoiser(real, t).shape == (6, 2)
    assert not torch.equal(denoiser(real, t), denoiser(real, t.flip(0)))


# --- training ------------------------------------------------------------------------------------------------------


def config(**changes):
    return FitConfig(**{"steps": 8, "batch_size": 4, "betas": (0, 0.99), "warmup": 0, "clip_norm": None, **changes})


def train(gan=None, folder=None, objective=None, **changes):
    data = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    objective = objective or GANObjective(gamma=1.0, every=3)
    return fit(gan or point_gan(), objective, lambda i: data[i], 20, config(**changes), folder=folder, progress=False)


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    whole = train()

    class Stop(Exception):
        pass

    def stopping(model, batch, draws):
        if draws.step == 5:
            raise Stop
        return GANObjective(gamma=1.0, every=3)(model, batch, draws)

    with pytest.raises(Stop):
        train(folder=tmp_path, objective=stopping, save_every=0)
    again = train(folder=tmp_path, save_every=0)
    for name, tensor in whole.best.state_dict().items():
        assert torch.equal(again.best.state_dict()[name], tensor), name


def test_lazy_penalty_counts_as_often_as_it_is_left_out():
    gan, (real, _) = point_gan(), batch(4)

    def at(step, **options):
        return GANObjective(**options)(gan, real, Draws(0, step, 4, slice(0, 4))).item()

    penalty = 2 * (at(0, gamma=1.0) - at(0))
    assert penalty > 0
    assert at(0, gamma=1.0, every=4) - at(0) == pytest.approx(4 * penalty / 2, rel=1e-3)
    assert at(1, gamma=1.0, every=4) == at(1)
    z = Draws(0, 1, 4, slice(0, 4)).normal(2)
    losses = gan(real, z, kind="saturating")
    assert at(1, kind="saturating") == pytest.approx((losses.discriminator + losses.generator).item())


def test_labels_come_with_the_batch():
    gan, (real, _) = point_gan(classes=3), batch(4)
    draws = Draws(0, 1, 4, slice(0, 4))
    value = GANObjective()(gan, (real, torch.tensor([0, 1, 2, 0])), draws)
    assert value.isfinite()


def test_two_players_find_a_gaussian():
    """One dimension: mean 2, standard deviation 0.5, from N(0, 1)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        gan = GAN(PointGenerator(1, 1, 16, 1), PointDiscriminator(1, 16, 1))
    data = 2 + 0.5 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(1))
    settings = config(steps=400, batch_size=64, learning_rate=5e-3, ema=0.95)
    run = fit(gan, GANObjective(gamma=0.3), lambda i: data[i], 2000, settings, progress=False)
    made = run.best.generator(torch.randn(4000, 1, generator=torch.Generator().manual_seed(2)))
    assert made.mean().item() == pytest.approx(2, abs=0.15)
    assert made.std().item() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_pictures_train_in_either_precision(precision, monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", precision)
    gan, images = make_gan(SMALL).to(memory_format=torch.channels_last), torch.rand(12, 2, 8, 8) * 2 - 1
    label = torch.arange(12) % 3
    before = copy.deepcopy(gan.state_dict())
    run = fit(
        gan, GANObjective(gamma=1.0, every=2), lambda i: (images[i], label[i]), 12, config(steps=4), progress=False
    )
    assert run.losses.isfinite().all()
    after = run.model.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in before)


def test_networks_have_the_stated_sizes():
    assert sum(p.numel() for p in Generator().parameters()) < 750_000, "it ships in 1.5 MB"
    assert isinstance(Discriminator().halve[0], nn.Conv2d)
    assert F.softplus(torch.zeros(())).item() == pytest.approx(math.log(2))
