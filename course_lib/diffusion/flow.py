"""Flow matching: straight lines from pictures to noise, and the velocity field that a network learns from them.

    x_t = (1 - t) x_start + t noise        velocity = dx_t/dt = noise - x_start

Time runs as everywhere in the course: t = 0 is the clean picture, t = 1 noise, and samplers go down. But here t is a
share from 0 to 1, not the number of a step. Lipman et al. 2023 (arXiv:2210.02747) and Liu et al. 2023
(arXiv:2209.03003) count the other way, from noise at 0 to data at 1: their t is 1 - t, their velocity minus ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from course_lib.diffusion.exact import ExactDenoiser
from course_lib.diffusion.prediction import same_shape
from course_lib.diffusion.randomness import Generators, randn
from course_lib.diffusion.schedule import per_image

FLOW_KINDS = ("velocity", "x_start", "noise")
Images = Float[Tensor, "batch *shape"]
Times = Float[Tensor, " n"] | float | int  # one share in [0, 1] per picture, or one for all


def flow_path(x_start: Images, t: Times, noise: Images) -> tuple[Images, Images]:
    """The place x_t on the line from x_start to noise, and the velocity there, the same at every t."""
    same_shape(x_start, noise=noise)
    share = per_image(shares(t, len(x_start)), x_start)
    return (1 - share) * x_start + share * noise, noise - x_start


def flow_convert(x_t: Images, t: Times, value: Images, source: str, target: str) -> Images:
    """A prediction of kind `source` as kind `target`: x_start = x_t - t velocity, noise = x_t + (1 - t) velocity.

    From x_start nothing follows at t = 0, nor from noise at t = 1: ValueError, as for kinds not in `FLOW_KINDS`.
    """
    same_shape(x_t, value=value)
    if not {source, target} <= set(FLOW_KINDS):
        raise ValueError(f"source and target must be among {', '.join(FLOW_KINDS)}; got {source!r} and {target!r}")
    times = shares(t, len(x_t))
    share = per_image(times, x_t)
    blind = {"velocity": -1, "x_start": 0, "noise": 1}[source]
    if source == target:
        return value
    if (times == blind).any():
        raise ValueError(f"source={source!r} says nothing where t is {blind}: there x_t is all of it")
    velocity = value if source == "velocity" else (x_t - value) / (share if source == "x_start" else share - 1)
    return {"velocity": velocity, "x_start": x_t - share * velocity, "noise": x_t + (1 - share) * velocity}[target]


def flow_loss(
    model: Callable, x_start: Images, t: Float[Tensor, " batch"], noise: Images, cond: object = None
) -> Float[Tensor, " batch"]:
    """Mean squared error of `model(x_t, t, cond)` as velocity, one number per picture (Lipman et al. 2023, eq. 23)."""
    x_t, velocity = flow_path(x_start, t, noise)
    answer = checked(model)(x_t, t, cond)
    same_shape(x_t, answer=answer)
    return ((answer - velocity) ** 2).flatten(1).mean(dim=1)


def flow_alpha_bar(t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """ᾱ of the diffusion step with the same ratio of picture to noise: x_t / √((1-t)² + t²) is a diffusion's x_t."""
    return (1 - t) ** 2 / ((1 - t) ** 2 + t**2)


@dataclass
class ExactVelocity:
    """The best possible velocity field, E[noise - x_start | x_t], for data whose exact denoiser is known; 0 < t ≤ 1."""

    denoiser: ExactDenoiser
    prediction: str = "velocity"

    def __call__(self, x_t: Images, t: Times, cond: object = None) -> Images:
        times, x = shares(t, len(x_t))[:, None], x_t.detach().to("cpu", torch.float64).flatten(1)
        diffused = x / ((1 - times) ** 2 + times**2).sqrt()
        x_start = self.denoiser.expected_x_start(diffused, flow_alpha_bar(times)).reshape(x_t.shape).to(x_t)
        return flow_convert(x_t, t, x_start, "x_start", "velocity")


@dataclass
class FlowState:
    """Where a sampler stands: `x` at time t, and the clean picture `x_start` it last aimed at."""

    x: Tensor
    t: float
    x_start: Tensor


def flow_ode(
    model: Callable, shape: Sequence[int], steps: int = 16, *, heun: bool = False, times: Sequence[float] | None = None,
    x: Tensor | None = None, cond: object = None, generator: Generators = None, device: torch.device | str = "cpu",
) -> Iterator[FlowState]:  # fmt: skip
    """From noise at t = 1 down to pictures at t = 0, with Euler's method: `steps` equal ones, or along falling `times`.

    `x`: start from this. `heun=True`: each step but the last takes the mean of the velocities at its two ends (Heun's
    method), 2·steps - 1 calls of the model. A state after every step; the next one starts from that state's `x`.
    """
    checked(model)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps={steps!r} must be a whole number of at least 1")
    times = [1 - k / steps for k in range(steps)] + [0.0] if times is None else times
    if len(times) < 2 or not all(1 >= a > b >= 0 for a, b in pairwise(times)):
        raise ValueError(f"times must fall strictly within 1…0, two of them at least; got {list(times)}")
    if x is not None and tuple(x.shape) != tuple(shape):
        raise ValueError(f"x must have the given shape {tuple(shape)}, got {tuple(x.shape)}")
    return _states(model, randn(shape, generator, device) if x is None else x, times, heun, cond)


@torch.no_grad()
def _states(model: Callable, x: Tensor, times: Sequence[float], heun: bool, cond: object) -> Iterator[FlowState]:
    def ask(x: Tensor, t: float) -> Tensor:
        return model(
            x, torch.full((len(x),), t, device=x.device, dtype=torch.promote_types(x.dtype, torch.float32)), cond
        )

    for t, t_next in pairwise(times):
        velocity = ask(x, t)
        state = FlowState(x + (t_next - t) * velocity, t_next, x - t * velocity)
        if heun and t_next > 0:
            state.x = x + (t_next - t) * (velocity + ask(state.x, t_next)) / 2
        yield state
        x = state.x


def straightness(path: Float[Tensor, "points batch ..."]) -> float:
    """E ∫ ‖(x_1 - x_0) - velocity‖² dt of paths, places at even times, noise first; 0 if all are straight and even.

    Liu et al. 2023, section 2, there called S.
    """
    velocity = (path[:-1] - path[1:]).double() * (len(path) - 1)
    return (path[0] - path[-1] - velocity).square().flatten(2).sum(dim=2).mean().item()


def shares(t: Times, batch: int) -> Float64[Tensor, " n"]:
    """`t` in float64 on the CPU, (batch,) or (1,). Raises ValueError unless all lie in [0, 1]."""
    t = t.detach() if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)
    found = t.to("cpu", torch.float64).reshape(-1)
    if len(found) not in (1, batch) or not ((found >= 0) & (found <= 1)).all():
        raise ValueError(f"t must hold one time in [0, 1] per picture ({batch}), or a single one: a share, not a step")
    return found


def checked(model: Callable) -> Callable:
    """`model` itself. Raises ValueError unless it declares that it predicts a velocity."""
    if (given := getattr(model, "prediction", None)) != "velocity":
        raise ValueError(f"model must predict velocities and say so, prediction = 'velocity'; it says {given!r}")
    return model
