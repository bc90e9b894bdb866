"""The figures of lessons 05, 06, 09, 10 and 20: from pictures to noise, and back."""

import torch
from folder import store

from course_lib import checkpoints, runtime, show
from course_lib.data import photograph, ring
from course_lib.diffusion import MixtureDenoiser, Schedule, ddim, ddpm, flow_loss, flow_ode, posterior, q_sample
from course_lib.models.points import PointDenoiser
from course_lib.pixels import from_uint8
from course_lib.training import FitConfig, fit


def hero_05() -> None:
    """The bundled photograph on its way to noise."""
    schedule = Schedule.cosine(1000)
    photo = photograph(96)
    noise = torch.randn(photo.shape, generator=runtime.generator(5))
    steps = [0, 100, 250, 400, 550, 700, 850, 999]
    states = [photo if t == 0 else q_sample(schedule, photo, t, noise) for t in steps]
    figure = show.grid(torch.cat(states), columns=len(steps), scale=1, alt="photograph to noise")
    store(figure, "05_hero")


def hero_06() -> None:
    """The photograph walks back from noise by its own posterior, and forty paths of a single pixel do the same."""
    schedule, generator = Schedule.linear(150), runtime.generator(6)
    photo = photograph(48)
    pixel = photo[0, :, 20, 24].mean()  # on the face
    x, paths = (torch.randn(shape, generator=generator) for shape in (photo.shape, (40, 1)))
    shown, history = {schedule.T: x}, [paths]
    for t in reversed(range(schedule.T)):
        walkers = []
        for end, now in ((photo, x), (pixel.expand(40, 1), paths)):
            mean, variance = posterior(schedule, end, now, t)
            walkers.append(mean + variance.sqrt() * torch.randn(now.shape, generator=generator))
        x, paths = walkers
        shown[t] = x
        history.append(paths)
    steps = [150, 90, 60, 40, 20, 8, 0]
    figure = show.CourseFigure(figsize=(9, 3.1), dpi=100, layout="constrained", alt="a photograph returns from noise")
    places = figure.add_gridspec(2, len(steps), height_ratios=(1, 1.25))
    for k, t in enumerate(steps):
        ax = figure.add_subplot(places[0, k])
        ax.imshow(((shown[t][0].permute(1, 2, 0) + 1) / 2).clamp(0, 1), interpolation="nearest")
        ax.set_axis_off()
    ax = figure.add_subplot(places[1, :])
    for k, path in enumerate(torch.cat(history, dim=1)):
        ax.plot(range(schedule.T, -1, -1), path, color=show.COLORS[k % 2 * 5], linewidth=0.7, alpha=0.7)
    ax.plot(0, pixel, "o", color=show.COLORS[1], markersize=9, clip_on=False)
    ax.set(xlim=(schedule.T, 0), ylim=(-3.3, 3.3), yticks=[], xticks=[])
    ax.set_xlabel(
        "t = T: pure noise"
        + 20 * " "
        + "the posterior: each step knows where it must end"
        + 20 * " "
        + "t = 0: the image"
    )
    ax.spines[["top", "right", "left"]].set_visible(False)
    store(figure, "06_hero")


def hero_09() -> None:
    """Four digits on their way from noise, with the times above: columns of a shipped denoising grid."""
    tensors, _ = checkpoints.load("mnist_denoisers")
    chosen, columns = (4, 0, 10, 7), range(5, 16)
    times = [f"t = {int(tensors['shown'][c])}" for c in columns]
    pictures = from_uint8(tensors["grid.ddpm_unet"][list(chosen)][:, list(columns)]).flatten(0, 1)
    sheet = show.grid(pictures, columns=len(times), scale=3, column_titles=times, alt="digits appear from noise")
    store(sheet, "09_hero")


def hero_10() -> None:
    """The same noise on its way to two bells: jagged with DDPM's 1000 steps, smooth with DDIM's 20."""
    schedule = Schedule.linear(1000)
    bells = MixtureDenoiser(schedule, torch.tensor([0.6, 0.4]), torch.tensor([[-1.0], [1.0]]), torch.full((2,), 0.01))
    start = torch.linspace(-2.4, 2.4, 60, dtype=torch.float64)[:, None]
    figure, axes = show.subplots(1, 2, size=(9, 3), sharey=True, alt="paths of DDPM and of DDIM")
    for ax, sampler, steps, title in (
        (axes[0], ddpm, 1000, "DDPM: 1000 steps, fresh noise in each"),
        (axes[1], ddim, 20, "DDIM: 20 steps, no fresh noise"),
    ):
        states = [(1000, start)]
        for state in sampler(bells, schedule, (60, 1), steps, x=start, generator=runtime.generator(10)):
            if steps == 20 or (state.t + 1) % 10 == 0:
                states.append((state.t + 1, state.x))
        ts, path = [t for t, _ in states], torch.cat([x for _, x in states], dim=1)
        for side, color in ((path[:, -1] < 0, show.COLORS[0]), (path[:, -1] >= 0, show.COLORS[1])):
            ax.plot(ts, path[side].T, color=color, linewidth=0.6, alpha=0.8)
            if steps == 20:
                ax.plot(ts, path[side].T, ".", color=color, markersize=2.5)
        ax.set(xlim=(1000, 0), ylim=(-3, 3), yticks=[-1, 1], xticks=[1000, 500, 0], title=title)
        ax.set_xticklabels(["noise", "", "data"])
    store(figure, "10_hero")


class _Velocity(torch.nn.Module):
    """Lesson 20's network for points."""

    prediction = "velocity"

    def __init__(self) -> None:
        super().__init__()
        self.points = PointDenoiser(T=1000)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, cond: None = None) -> torch.Tensor:
        return self.points(x_t, (1000 * t).round().long())


def hero_20() -> None:
    """The same noise on its way to the ring: along the curves of a diffusion, and straight, after reflow."""
    schedule = Schedule.cosine(1000)
    perfect = MixtureDenoiser(schedule, torch.full((8,), 1 / 8), ring.means(), torch.full((8,), ring.STD**2))
    noise = torch.randn(8_000, 2, generator=runtime.generator(20))
    paths = [noise, *(state.x for state in ddim(perfect, schedule, noise.shape, 60, x=noise))]
    torch.manual_seed(0)
    config = FitConfig(steps=5_000, batch_size=256, learning_rate=6e-3, warmup=0, clip_norm=None, ema=0.99)
    network = fit(
        _Velocity(), lambda model, pair, draws: flow_loss(model, pair[0], draws.uniform(), pair[1]).mean(),
        lambda index: (paths[-1][index], noise[index]), len(noise), config, progress=False,
    ).best.cpu()  # fmt: skip
    few = noise[:80]
    straight = [few, *(state.x for state in flow_ode(network, few.shape, 60, x=few))]
    figure, axes = show.subplots(1, 2, size=(8, 3.9), alt="curved paths and straight ones")
    for ax, path, title in (
        (axes[0], torch.stack([x[:80] for x in paths]), "diffusion"),
        (axes[1], torch.stack(straight), "flow, straightened"),
    ):
        ax.plot(path[..., 0], path[..., 1], color=show.COLORS[0], linewidth=1, alpha=0.8)
        ax.plot(*path[0].T, "o", color=show.COLORS[1], markersize=3)
        ax.plot(*path[-1].T, "o", color="black", markersize=4)
        ax.set(xlim=(-2.5, 2.5), ylim=(-2.3, 2.3), aspect="equal", title=title)
        ax.set_axis_off()
    store(figure, "20_hero")
