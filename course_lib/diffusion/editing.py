"""Uses of the samplers' loop: start from an image, keep a part of one, run backwards, walk between two noises."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from course_lib.diffusion.forward import q_sample
from course_lib.diffusion.prediction import x_start_and_noise
from course_lib.diffusion.randomness import randn
from course_lib.diffusion.samplers import State, _Walk, ddim, ddpm
from course_lib.diffusion.schedule import Schedule, alpha_bar_at, per_image
from course_lib.diffusion.spacing import timesteps


def img2img(
    model: Callable,
    schedule: Schedule,
    image: Float[Tensor, "batch ..."],
    strength: float | int,
    steps: int = 50,
    *,
    sampler: Callable[..., Iterator[State]] = ddim,
    spacing: str = "trailing",
    generator: object = None,
    **options: object,
) -> Iterator[State]:
    """Noise `image` part of the way and sample from there (SDEdit, Meng et al. 2022, algorithm 1).

    strength: the share of the steps that is run, above 0 and up to 1: a little changes details, 1 forgets the image.
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength must lie above 0 and up to 1 (the share of the steps to run), got {strength}")
    visited = timesteps(schedule.T, steps, spacing)
    visited = visited[len(visited) - max(1, round(strength * len(visited))) :]
    x = q_sample(schedule, image, visited[0], randn(image.shape, generator, image.device, image.dtype))
    return sampler(model, schedule, tuple(image.shape), timesteps=visited, x=x, generator=generator, **options)


def inpaint(
    model: Callable,
    schedule: Schedule,
    image: Float[Tensor, "batch ..."],
    keep: Bool[Tensor, "..."],
    steps: int | None = None,
    *,
    resample: int = 5,
    sampler: Callable[..., Iterator[State]] = ddpm,
    generator: object = None,
    **options: object,
) -> Iterator[State]:
    """Invent what `keep` (True: known) leaves open: after every step the known part is overwritten, noised alike.

    resample: how often each step is run. Between two runs the state is noised back to where the step began, so that
    the invented part hears of the known one before it is too late (RePaint, Lugmayr et al. 2022, algorithm 1). With
    1 it often ignores it. The result is close to a draw from the conditional distribution, and never exactly that.
    """
    if not isinstance(resample, int) or resample < 1:
        raise ValueError(f"resample must be a whole number of at least 1, got {resample!r}")
    keep = _checked_mask(keep, image)
    count = {} if steps is None else {"steps": steps}
    states = sampler(model, schedule, tuple(image.shape), generator=generator, device=image.device, **count, **options)
    return _overwritten(schedule, states, image, keep, resample, generator)


def _checked_mask(keep: Tensor, image: Tensor) -> Tensor:
    if not isinstance(keep, Tensor) or keep.dtype != torch.bool:
        given = keep.dtype if isinstance(keep, Tensor) else type(keep).__name__
        raise TypeError(f"keep must be a boolean tensor, True where the image is known, got {given}")
    try:
        return keep.to(image.device).expand_as(image)
    except RuntimeError:
        raise ValueError(f"keep {tuple(keep.shape)} does not fit the image {tuple(image.shape)}") from None


def _overwritten(
    schedule: Schedule, states: Iterator[State], image: Tensor, keep: Tensor, resample: int, generator: object
) -> Iterator[State]:
    """The states of a sampler, each with its known part replaced; each step is run `resample` times."""

    def noise() -> Tensor:
        return randn(image.shape, generator, image.device, image.dtype)

    t, runs = states.timesteps[0], 0
    for state in states:
        known = image if state.t < 0 else q_sample(schedule, image, state.t, noise())
        state.x = torch.where(keep, known, state.x)
        yield state
        runs += 1
        if runs < resample:  # noise the whole state back to where this step began
            kept = alpha_bar_at(schedule, t, 1) / alpha_bar_at(schedule, state.t, 1)
            state.x = per_image(kept.sqrt(), image) * state.x + per_image((1 - kept).sqrt(), image) * noise()
            state.t = t
        else:
            t, runs = state.t, 0


def invert(
    model: Callable,
    schedule: Schedule,
    image: Float[Tensor, "batch ..."],
    steps: int = 50,
    *,
    spacing: str = "trailing",
    cond: object = None,
    kind: str | None = None,
) -> Iterator[State]:
    """DDIM run backwards: from an image to the noise that DDIM (eta 0) turns into it (Song et al. 2021, section 4.3).

    Each step noises the predicted x_start with the predicted noise. The prediction is made at the lower end of the
    step, so the way there and back misses the image by an error that shrinks with the number of steps.
    """
    walk = _Walk(model, schedule, tuple(image.shape), steps, spacing=spacing, x=image, cond=cond, kind=kind)

    def ascending() -> Iterator[State]:
        x, t = walk.x, -1
        for t_next in reversed(walk.ts):
            asked = max(t, 0)  # no network knows ᾱ = 1: the clean image is shown to it as step 0
            x_start, noise = x_start_and_noise(schedule, x, asked, walk.predict(x, asked), walk.reading["kind"])
            x_start = x if t < 0 else x_start
            x, t = q_sample(schedule, x_start, t_next, noise), t_next
            yield State(x, t, x_start)

    return ascending()


def slerp(
    a: Float[Tensor, "batch ..."], b: Float[Tensor, "batch ..."], weight: float | int
) -> Float[Tensor, "batch ..."]:
    """Spherical interpolation from a (weight 0) to b (weight 1), image by image (Shoemake 1985).

    Between two noise images it stays as long as noise is; a straight line would pass through images that are too
    short, by 29% in the middle, and a denoiser has never seen those.
    """
    if a.shape != b.shape:
        raise ValueError(f"a and b must have the same shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must lie in [0, 1], got {weight}")
    cosine = torch.nn.functional.cosine_similarity(a.flatten(1).double(), b.flatten(1).double(), dim=1)
    angle = cosine.clamp(-1, 1).arccos()[(...,) + (None,) * (a.ndim - 1)]
    straight = angle.sin() < 1e-6  # the same direction: a straight line does
    wa = torch.where(straight, 1 - weight, ((1 - weight) * angle).sin() / angle.sin())
    wb = torch.where(straight, weight, (weight * angle).sin() / angle.sin())
    return wa.to(a.dtype) * a + wb.to(a.dtype) * b
