"""Lesson 11: what only the exercises' properties catch, and what the lesson shows live, held by numbers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from verdicts import verdict

from course_lib.foundations import wasserstein_1d
from course_lib.models.gan import discriminator_loss, generator_loss, player_losses
from course_lib.models.points import PointDiscriminator, PointGenerator

MEANS, STDS = torch.tensor([-1.5, 1.0]), torch.tensor([0.3, 0.6])


# --- exercises -----------------------------------------------------------------------------------------------------


def test_a_fraction_without_care_for_zeros():
    found = verdict("11.1", lambda p, q: p / (p + q))
    assert "NaN" in found.message
    found = verdict("11.1", lambda p, q: p / (p + q).clamp(min=1e-12))
    assert "should get ½" in found.message
    assert verdict("11.1", lambda p, q: torch.where(p + q > 0, p / (p + q), 0.5).float()).status == "passed"


def test_logarithms_of_rounded_probabilities():
    naive = verdict("11.2", lambda r, f: -(r.sigmoid().log().mean() + (1 - f.sigmoid()).log().mean()))
    assert "gives inf for a score of" in naive.message
    assert "gives inf" in verdict("11.3", lambda f, kind: _naive(f, kind)).message
    ready = verdict(
        "11.2",
        lambda r, f: (
            F.binary_cross_entropy_with_logits(r, torch.ones_like(r))
            + F.binary_cross_entropy_with_logits(f, torch.zeros_like(f))
        ),
    )
    assert ready.status == "passed"


def _naive(fake, kind):
    return -fake.sigmoid().log().mean() if kind == "non_saturating" else (1 - fake.sigmoid()).log().mean()


def losses(cut_fake, cut_judge):
    """Answers to 11.4 with the right values and other gradients."""

    def answer(generator, discriminator, real, z):
        fake = generator(z)
        judge = copy.deepcopy(discriminator) if cut_judge else discriminator
        loss_d = discriminator_loss(discriminator(real), discriminator(fake.detach() if cut_fake else fake))
        return loss_d, generator_loss(judge(fake))

    return answer


@pytest.mark.parametrize(
    ("cuts", "says"),
    [((False, True), "teach it to be found out"), ((True, False), "teach it to be fooled"), ((True, True), "passed")],
)
def test_gradients_for_the_wrong_network(cuts, says):
    assert says in verdict("11.4", losses(*cuts)).message


def test_gradients_for_nobody():
    def detached(generator, discriminator, real, z):
        fake = generator(z).detach()
        return discriminator_loss(discriminator(real), discriminator(fake)), generator_loss(discriminator(fake))

    def switched_off(generator, discriminator, real, z):
        fake = generator(z)
        loss_d = discriminator_loss(discriminator(real), discriminator(fake.detach()))
        discriminator.requires_grad_(False)
        return loss_d, generator_loss(discriminator(fake))

    def switched_back(generator, discriminator, real, z):
        found = switched_off(generator, discriminator, real, z)
        discriminator.requires_grad_(True)
        return found

    def nothing(generator, discriminator, real, z):
        with torch.no_grad():
            return player_losses(generator, discriminator, real, z)

    assert "second loss has no gradients" in verdict("11.4", detached).message
    assert "off and not on again" in verdict("11.4", switched_off).message
    assert verdict("11.4", switched_back).status == "passed"
    assert "first loss has no gradients" in verdict("11.4", nothing).message


def slope(discriminator, x, **options):
    return torch.autograd.grad(discriminator(x).sum(), x, **options)[0].flatten(1).square().sum(1).mean()


@pytest.mark.filterwarnings("ignore:Using backward")
def test_penalties_that_cannot_train_or_leave_traces():
    def backward(d, real):
        x = real.clone().requires_grad_()
        d(x).sum().backward(create_graph=True)
        return x.grad.flatten(1).square().sum(1).mean()

    def in_place(d, real):
        return slope(d, real.requires_grad_(), create_graph=True)

    assert "no gradients" in verdict("11.5", lambda d, real: slope(d, real.clone().requires_grad_())).message
    assert "used backward()" in verdict("11.5", backward).message
    assert "leaves `real` with requires_grad" in verdict("11.5", in_place).message
    exact = verdict("11.5", lambda d, real: slope(d, real.double().requires_grad_(), create_graph=True))
    assert exact.status == "passed"


# --- what the lesson shows live --------------------------------------------------------------------------------------


def data(n, generator):
    label = (torch.rand(n, generator=generator) < 0.65).long()
    return (MEANS[label] + STDS[label] * torch.randn(n, generator=generator))[:, None], label


def fresh(seed):
    return torch.Generator().manual_seed(seed)


def networks(classes=0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PointGenerator(1, 1, 32, 2, classes), PointDiscriminator(1, 32, 2)


def test_a_generator_pushed_by_w1_reaches_the_data_class_by_class():
    maker, generator = networks(2)[0], fresh(1)
    test, label = data(4000, fresh(5))
    z = torch.randn(4000, 1, generator=fresh(6))

    def distance():
        return wasserstein_1d(maker(z, label)[:, 0].detach(), test[:, 0]).item()

    before = distance()
    optimizer = torch.optim.Adam(maker.parameters(), lr=5e-3)
    for _ in range(200):
        real, wanted = data(256, generator)
        made = maker(torch.randn(256, 1, generator=generator), wanted)
        pairs = [(made[wanted == k, 0].sort().values, real[wanted == k, 0].sort().values) for k in (0, 1)]
        optimizer.zero_grad()
        sum((a - b).abs().mean() for a, b in pairs).backward()
        optimizer.step()
    assert before > 1
    assert distance() < 0.2
    made = maker(z, label).detach()
    for k in (0, 1):
        assert made[label == k].mean().item() == pytest.approx(MEANS[k].item(), abs=0.15)
        assert made[label == k].std().item() == pytest.approx(STDS[k].item(), rel=0.25)


def play(both, steps=400):
    """As in section 5: a head start for the discriminator, then both. (accuracy, standard deviation) on the way."""
    (maker, judge), numbers = networks(), fresh(1)
    test, z = data(2000, fresh(5))[0], torch.randn(2000, 1, generator=fresh(6))
    optimizer, found = torch.optim.Adam([*maker.parameters(), *judge.parameters()], lr=2e-3, betas=(0.0, 0.99)), []
    for step in range(-60, steps):
        made = maker(z).detach()
        right = ((judge(test) > 0).float().mean() + (judge(made) < 0).float().mean()).item() / 2
        found.append((right, made.mean().item(), made.std().item()))
        real, noise = data(128, numbers)[0], torch.randn(128, 1, generator=numbers)
        loss_d, loss_g = both(maker, judge, real, noise)
        optimizer.zero_grad()
        (loss_d if step < 0 else loss_d + loss_g).backward()
        optimizer.step()
    return found


def test_accuracy_starts_high_and_falls_and_the_moments_come_near():
    found = torch.tensor(play(player_losses))
    assert found[20:60, 0].max() > 0.9
    late = found[-150:].mean(dim=0)
    assert late[0].item() == pytest.approx(0.5, abs=0.1)
    assert late[1].item() == pytest.approx(0.125, abs=0.3)
    assert late[2].item() == pytest.approx(1.3, abs=0.4)


def test_without_the_cuts_the_generator_shrinks():
    def without(generator, discriminator, real, z):
        fake = discriminator(generator(z))
        return discriminator_loss(discriminator(real), fake), generator_loss(fake)

    assert play(without)[-1][2] < 0.3
