"""Samplers: from pure noise to an image, one state at a time.

Each is a loop over one step function of `course_lib.diffusion.steps` and yields a `State` after every step, so a GIF,
a progress bar, a metric per step or an early stop need nothing but a `for`. Whoever assigns `state.x` inside the loop
changes what the next step starts from, and assigning a higher step of the list to `state.t` sends the sampler back
there: that is all that inpainting needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
from torch import Tensor
from tqdm.auto import tqdm

from course_lib import runtime
from course_lib.diffusion import spacing as spacings
from course_lib.diffusion.prediction import Clip, checked_clip, prediction_kind
from course_lib.diffusion.randomness import Generators, randn
from course_lib.diffusion.reverse import check_variance
from course_lib.diffusion.schedule import Schedule
from course_lib.diffusion.steps import check_eta, ddim_step, ddpm_step, dpm_solver_pp_2m_step, euler_step, heun_step


@dataclass
class State:
    """Where a sampler stands: `x` at step index `t` (-1: finished), and the clean image `x_start` it last aimed at."""

    x: Tensor
    t: int
    x_start: Tensor


class SamplerOptions(TypedDict, total=False):
    """What every sampler accepts besides its own arguments."""

    spacing: str  # of the steps, see `timesteps`; default "trailing"
    timesteps: Sequence[int]  # visit these instead, highest first
    x: Tensor  # start from this x_t, not from noise
    cond: object  # handed to the model as its third argument
    kind: str  # what the model predicts; default: its own attribute `prediction`
    clip: Clip  # clip every x_start to this range
    generator: Generators  # one for the batch, or a list with one per image
    device: torch.device | str  # default: that of x, else of the model's weights, else the CPU
    dtype: torch.dtype  # of the start noise; default float32


def ddpm(
    model: Callable,
    schedule: Schedule,
    shape: Sequence[int],
    steps: int | None = None,
    *,
    variance: str = "small",
    **options: Unpack[SamplerOptions],
) -> Iterator[State]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), by default over all T steps. `variance`: see `ddpm_step`."""
    walk = _Walk(model, schedule, shape, schedule.T if steps is None else steps, **options)
    check_variance(variance)

    def step(x, prediction, t, t_prev):
        noise = walk.noise() if t_prev >= 0 else None
        return ddpm_step(schedule, x, prediction, t, t_prev, noise, variance=variance, **walk.reading)

    return walk.states(step)


def ddim(
    model: Callable,
    schedule: Schedule,
    shape: Sequence[int],
    steps: int = 50,
    *,
    eta: float | int = 0.0,
    **options: Unpack[SamplerOptions],
) -> Iterator[State]:
    """DDIM (Song et al. 2021): deterministic with eta = 0, ancestral with eta = 1, and anything between."""
    walk = _Walk(model, schedule, shape, steps, **options)
    check_eta(eta)

    def step(x, prediction, t, t_prev):
        noise = walk.noise() if eta > 0 and t_prev >= 0 else None
        return ddim_step(schedule, x, prediction, t, t_prev, noise, eta=eta, **walk.reading)

    return walk.states(step)


def dpm_solver_pp_2m(
    model: Callable, schedule: Schedule, shape: Sequence[int], steps: int = 20, **options: Unpack[SamplerOptions]
) -> Iterator[State]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order, one model call per step, deterministic."""
    walk = _Walk(model, schedule, shape, steps, **options)
    before = None

    def step(x, prediction, t, t_prev):
        nonlocal before
        if before is not None and before[1] <= t:  # somebody sent the sampler back: no history there
            before = None
        x, x_start = dpm_solver_pp_2m_step(schedule, x, prediction, t, t_prev, before, **walk.reading)
        before = (x_start, t)
        return x, x_start

    return walk.states(step)


def euler(
    model: Callable, schedule: Schedule, shape: Sequence[int], steps: int = 50, **options: Unpack[SamplerOptions]
) -> Iterator[State]:
    """Euler's method on the probability-flow ODE (Karras et al. 2022, section 3): first order, equal to DDIM, eta 0."""
    walk = _Walk(model, schedule, shape, steps, **options)

    def step(x, prediction, t, t_prev):
        return euler_step(schedule, x, prediction, t, t_prev, **walk.reading)

    return walk.states(step)


def heun(
    model: Callable, schedule: Schedule, shape: Sequence[int], steps: int = 25, **options: Unpack[SamplerOptions]
) -> Iterator[State]:
    """Heun's method on the same ODE (Karras et al. 2022, algorithm 1): second order, 2·steps - 1 model calls."""
    walk = _Walk(model, schedule, shape, steps, **options)

    def step(x, prediction, t, t_prev):
        ahead, x_start = euler_step(schedule, x, prediction, t, t_prev, **walk.reading)
        if t_prev < 0:
            return ahead, x_start
        return heun_step(schedule, x, prediction, t, t_prev, ahead, walk.predict(ahead, t_prev), **walk.reading)

    return walk.states(step)


def sample(
    model: Callable,
    schedule: Schedule,
    shape: Sequence[int],
    steps: int | None = None,
    *,
    sampler: Callable[..., Iterator[State]] = ddim,
    progress: bool = True,
    **options: object,
) -> Tensor:
    """Run `sampler` to its end and return the images (batch, …). A progress bar appears after two seconds.

    steps: the sampler's own default if None. options: what the sampler takes, such as eta, clip or generator.
    """
    runtime.keep_memory()
    count = {} if steps is None else {"steps": steps}
    states = sampler(model, schedule, shape, **count, **options)
    for state in tqdm(states, desc=sampler.__name__, delay=2, disable=not progress):
        x = state.x
    return x


class _Walk:
    """What all samplers share: checked arguments, the start, the list of steps, the model, the noise."""

    def __init__(
        self,
        model: Callable,
        schedule: Schedule,
        shape: Sequence[int],
        steps: int,
        *,
        spacing: str = "trailing",
        timesteps: Sequence[int] | None = None,
        x: Tensor | None = None,
        cond: object = None,
        kind: str | None = None,
        clip: Clip = None,
        generator: Generators = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.model, self.cond, self.generator = model, cond, generator
        self.reading = {"kind": prediction_kind(model, kind), "clip": None if clip is None else checked_clip(clip)}
        if timesteps is None:
            self.ts = spacings.timesteps(schedule.T, steps, spacing)
        else:
            self.ts = spacings.checked_timesteps(timesteps, schedule.T)
        if x is not None and tuple(x.shape) != tuple(shape):
            raise ValueError(f"x must have the given shape {tuple(shape)}, got {tuple(x.shape)}")
        if x is None:
            x = randn(shape, generator, device or _device_of(model), dtype)
        self.x = x if device is None else x.to(device)

    def states(self, step: Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]) -> _States:
        """After each step, from the first of the list to -1, the state; the next step starts from the state's x."""
        return _States(self._run(step), self.ts)

    def _run(self, step: Callable) -> Iterator[State]:
        x, t = self.x, self.ts[0]
        following = dict(zip(self.ts, [*self.ts[1:], -1], strict=True))
        while t >= 0:
            t_prev = following[t]
            x, x_start = step(x, self.predict(x, t), t, t_prev)
            state = State(x, t_prev, x_start)
            yield state
            x, t = state.x, state.t

    def predict(self, x: Tensor, t: int) -> Tensor:
        """The model's prediction for all images at step t, without gradients."""
        with torch.no_grad():
            prediction = self.model(x, torch.full((len(x),), t, device=x.device), self.cond)
        if not isinstance(prediction, Tensor) or prediction.shape != x.shape:
            given = tuple(prediction.shape) if isinstance(prediction, Tensor) else type(prediction).__name__
            raise ValueError(f"the model must return a tensor of its input's shape {tuple(x.shape)}, got {given}")
        return prediction

    def noise(self) -> Tensor:
        """Fresh N(0, 1) numbers for one step."""
        return randn(self.x.shape, self.generator, self.x.device, self.x.dtype)


class _States(Iterator[State]):
    """A generator of states that knows its length, so that `tqdm(ddim(…))` shows how far it is."""

    def __init__(self, states: Iterator[State], visited: list[int]):
        self._states, self.timesteps = states, visited

    def __next__(self) -> State:
        return next(self._states)

    def __len__(self) -> int:
        return len(self.timesteps)


def _device_of(model: object) -> torch.device | str:
    """Where the model's weights are, or the CPU for a model without any."""
    weight = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    return "cpu" if weight is None else weight.device
