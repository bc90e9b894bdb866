"""Exercises 11.4 and 11.5: what moves which network. Networks are drawn, and the gradients of answers are looked at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_lib.lesson.tasks import Exercise, Mistake
from course_lib.models.gan import player_losses, r1_penalty

# --- 11.4 both losses, each for its own network ----------------------------------------------------------------------


def _network(generator: torch.Generator, inputs: int, outputs: int = 0) -> nn.Sequential:
    """Random weights; with no `outputs` a discriminator, whose scores have the shape (n,)."""
    net = nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, outputs or 1))
    if not outputs:
        net.append(nn.Flatten(0))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return net


def _draw_players(generator: torch.Generator) -> tuple:
    n, latent, dim = (int(torch.randint(1, 6, (), generator=generator)) for _ in range(3))
    networks = _network(generator, latent, dim), _network(generator, dim)
    return (*networks, torch.randn(n, dim, generator=generator), torch.randn(n, latent, generator=generator))


def _by_logarithms(generator, discriminator, real, z, *, saturating=False, swapped=False) -> tuple[Tensor, Tensor]:
    """From probabilities, in float64, with nothing that gradients could flow through."""
    with torch.no_grad():
        chances = [1 / (1 + (-discriminator(x).double()).exp()) for x in (real, generator(z))]
    of_real, of_fake = chances[::-1] if swapped else chances
    loss_d = -(of_real.log().mean() + (1 - of_fake).log().mean())
    return loss_d, ((1 - chances[1]).log().mean() if saturating else -chances[1].log().mean())


def _reached(loss: Tensor, network: nn.Module) -> bool:
    """Do any gradients of this loss reach the network?"""
    if not loss.requires_grad:
        return False
    grads = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True, allow_unused=True)
    return any(g is not None and bool(g.abs().max() > 0) for g in grads)


def _each_moves_its_own(answer, generator) -> str | None:
    networks = _network(generator, 2, 3), _network(generator, 3)
    real, z = torch.randn(5, 3, generator=generator), torch.randn(5, 2, generator=generator)
    loss_d, loss_g = answer(*networks, real, z)
    if not all(p.requires_grad for net in networks for p in net.parameters()):
        return "switches requires_grad of some weights off and not on again. They could never be trained after that."
    maker, judge = networks
    if not _reached(loss_d, judge):
        return "has the right values, but the first loss has no gradients for the discriminator. Detach the fakes only."
    if not _reached(loss_g, maker):
        return (
            "has the right values, but the second loss has no gradients for the generator: `fake` was detached there "
            "too. Detach it for the discriminator's loss only."
        )
    if _reached(loss_d, maker):
        return (
            "has the right values, but the discriminator's loss has gradients for the generator too, and would teach "
            "it to be found out. Give the discriminator fake.detach() there."
        )
    if _reached(loss_g, judge):
        return (
            "has the right values, but the generator's loss has gradients for the discriminator too, and would teach "
            "it to be fooled. Use functional_call with detached weights there."
        )
    return None


PLAYER_LOSSES = Exercise(
    id="11.4",
    title="both losses, each for its own network",
    reference=player_losses,
    independent=_by_logarithms,
    draw=_draw_players,
    properties=(_each_moves_its_own,),
    mistakes=(
        Mistake(
            "the generator's loss first",
            lambda *a: _by_logarithms(*a)[::-1],
            "returns the generator's loss first. The discriminator's comes first.",
        ),
        Mistake(
            "the saturating loss",
            lambda *a: _by_logarithms(*a, saturating=True),
            "uses the saturating loss for the generator. generator_loss(scores) alone gives the other one.",
        ),
        Mistake(
            "real and fake swapped",
            lambda *a: _by_logarithms(*a, swapped=True),
            "hands real and fake to discriminator_loss the wrong way round. Real scores come first.",
        ),
        Mistake(
            "the generator scored on real data",
            lambda g, d, real, z: (_by_logarithms(g, d, real, z)[0], -d(real).double().sigmoid().log().mean()),
            "takes the generator's loss of the real examples' scores. It is judged by what it made.",
        ),
    ),
    hints=(
        "Make the fakes once: fake = generator(z). They are used twice, once detached and once not.",
        "The first loss is discriminator_loss(discriminator(real), discriminator(fake.detach())).",
        "frozen = {name: p.detach() for name, p in discriminator.named_parameters()}; the scores for the second loss "
        "are functional_call(discriminator, frozen, (fake,)).",
    ),
)

# --- 11.5 the R1 penalty ---------------------------------------------------------------------------------------------


class _Bowl(nn.Module):
    """Scores ½ xᵀ A x + b·x of whatever shape of example: the slope at x is A x + b, for A symmetric."""

    def __init__(self, generator: torch.Generator, size: int) -> None:
        super().__init__()
        a = torch.randn(size, size, generator=generator) / size**0.5
        self.a, self.b = nn.Parameter(a + a.T), nn.Parameter(torch.randn(size, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return (x @ self.a.to(x) * x).sum(1) / 2 + x @ self.b.to(x)


def _draw_penalty(generator: torch.Generator) -> tuple:
    shape = ((3,), (5,), (1, 3, 3), (2, 2, 4))[int(torch.randint(0, 4, (), generator=generator))]
    n = int(torch.randint(2, 6, (), generator=generator))
    return _Bowl(generator, torch.Size(shape).numel()), torch.randn(n, *shape, generator=generator)


def _slopes(bowl: _Bowl, real: Tensor) -> Tensor:
    """By hand, in float64: (n, values)."""
    return real.flatten(1).double() @ bowl.a.detach().double() + bowl.b.detach().double()


def _leaves_no_trace_and_can_be_followed(answer, generator) -> str | None:
    bowl, real = _Bowl(generator, 3), torch.randn(4, 3, generator=generator)
    found = answer(bowl, real)
    if real.requires_grad:
        return "leaves `real` with requires_grad. Work on a copy: x = real.detach().requires_grad_()."
    if any(p.grad is not None for p in bowl.parameters()):
        return (
            "leaves gradients in the discriminator: it used backward(). torch.autograd.grad(scores.sum(), x, "
            "create_graph=True) gives the slopes and touches nothing."
        )
    if not found.requires_grad:
        return (
            "has the right value, but no gradients. The penalty must move the discriminator: create_graph=True keeps "
            "the slopes differentiable."
        )
    return None


R1_PENALTY = Exercise(
    id="11.5",
    title="the R1 penalty",
    reference=r1_penalty,
    independent=lambda bowl, real: _slopes(bowl, real).square().sum(1).mean(),
    draw=_draw_penalty,
    properties=(_leaves_no_trace_and_can_be_followed,),
    rtol=1e-3,
    mistakes=(
        Mistake(
            "not squared",
            lambda bowl, real: _slopes(bowl, real).norm(dim=1).mean(),
            "averages the lengths of the slopes. Average their squares.",
        ),
        Mistake(
            "mean over the values",
            lambda bowl, real: _slopes(bowl, real).square().mean(),
            "averages over the values of an example too. ‖…‖² is their sum; only the examples are averaged.",
        ),
        Mistake(
            "the slope of the mean score",
            lambda bowl, real: (_slopes(bowl, real) / len(real)).square().sum(1).mean(),
            "differentiates the mean of the scores, so each slope is divided by the size of the batch. Take their sum.",
        ),
        Mistake(
            "summed over the examples",
            lambda bowl, real: _slopes(bowl, real).square().sum(),
            "adds up the examples. E means their mean.",
        ),
        Mistake(
            "the mean slope, squared",
            lambda bowl, real: _slopes(bowl, real).mean(0).square().sum(),
            "averages the slopes before it squares them: slopes of opposite directions cancel. Square first.",
        ),
        Mistake(
            "half of it",
            lambda bowl, real: _slopes(bowl, real).square().sum(1).mean() / 2,
            "halves the penalty. The factor γ/2 stands outside of this function.",
        ),
    ),
    hints=(
        "x = real.detach().requires_grad_() is a copy that torch follows. Then scores = discriminator(x).",
        "(slope,) = torch.autograd.grad(scores.sum(), x, create_graph=True) has the shape of x. The sum is right: each "
        "score depends on its own example only.",
        "slope.flatten(1).square().sum(dim=1).mean().",
    ),
)
