"""Draw the figures in assets/figures: `python tools/figures.py`. Each function below makes one of them."""

import math
from pathlib import Path

import torch
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Polygon

from course_lib import checkpoints, runtime, show
from course_lib.data import photograph, ring, shapes, train_and_test
from course_lib.diffusion import MixtureDenoiser, Schedule, ddim, ddpm, posterior, q_sample
from course_lib.evaluation import distance_to_real, look
from course_lib.evaluation.shapes_exam import embed_images
from course_lib.foundations import (
    Corner,
    Lasso,
    Mixture,
    Quadratic,
    coordinate_descent,
    forward_kl,
    normal_density,
    reverse_bits,
    solve_lasso,
)
from course_lib.models.conditions import text_condition
from course_lib.models.prior import draw_embeddings
from course_lib.models.unet2015 import UNet2015
from course_lib.pipelines import TextToImage
from course_lib.pixels import from_uint8
from course_lib.recipes import clip_shapes, gan_fashion, measured_samples, prior_shapes, text_shapes, vae_digits
from course_lib.training.fit import FitConfig, fit

FIGURES = Path(__file__).resolve().parent.parent / "assets" / "figures"


def hero_01() -> None:
    """Two pictures on their way from coin tosses: the bit diffusion of lesson 01."""
    things = [shapes.Thing(size, "red", kind) for kind in shapes.SHAPES for size in shapes.SIZES]
    scenes = shapes.render([shapes.Scene(thing, place) for thing in things for place in shapes.POSITIONS], seed=0)
    flips = torch.linspace(0.002, 0.12, 60)
    states = list(reverse_bits(scenes.masks[:, 0].flatten(1), flips, 8, generator=runtime.generator(1)))
    steps = [0, 26, 33, 38, 43, 48, 54, 60]
    rows = [states[k].bits[sample].reshape(1, 1, 32, 32).float() * 2 - 1 for sample in (5, 2) for k in steps]
    figure = show.grid(torch.cat(rows), columns=len(steps), scale=3, alt="noise to shapes")
    (FIGURES / "01_hero.png").write_bytes(figure.png())


def states_01() -> None:
    """The three-state chain as circles and arrows."""
    figure, ax = show.subplots(size=(6, 2.6), alt="three states")
    ax.set(xlim=(-1.2, 5.4), ylim=(-1.5, 1.0), aspect="equal")
    ax.set_axis_off()
    places = {"A": (0.4, 0), "B": (2.6, 0), "C": (4.6, 0)}
    style = {"arrowstyle": "-|>", "mutation_scale": 14, "color": "0.25", "linewidth": 1.4}
    radius = 0.34

    def arrow(start: tuple, end: tuple, bend: float, label: str, at: tuple) -> None:
        ax.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", **style))
        ax.text(*at, label, ha="center", va="center", fontsize=10)

    for k, (name, (x, y)) in enumerate(places.items()):
        ax.add_patch(Circle((x, y), radius, facecolor=show.COLORS[k], alpha=0.35, edgecolor="0.25"))
        ax.text(x, y, name, ha="center", va="center", fontsize=13)
    arrow((0.7, 0.16), (2.3, 0.16), -0.25, "0.7", (1.5, 0.55))
    arrow((2.3, -0.16), (0.7, -0.16), -0.25, "0.9", (1.5, -0.55))
    arrow((0.1, 0.18), (0.1, -0.18), 2.2, "0.3", (-0.55, 0))
    arrow((2.75, 0.32), (2.45, 0.32), 2.0, "0.1", (2.6, 0.82))
    arrow((4.25, 0), (2.96, 0), 0.0, "0.5", (3.6, 0.16))
    arrow((4.4, -0.28), (0.45, -0.36), -0.35, "0.5", (2.6, -1.28))
    (FIGURES / "01_states.png").write_bytes(figure.png())


def hero_02() -> None:
    """Sums of dice on their way to the bell."""
    figure, axes = show.subplots(1, 5, size=(9, 1.9), alt="sums of dice")
    chances = one = torch.full((6,), 1 / 6, dtype=torch.float64)
    for dice in range(1, 11):
        if dice > 1:  # the exact distribution of the sum: every way to reach it
            chances = torch.nn.functional.conv1d(chances[None], one.flip(0)[None, None], padding=5)[0]
        if dice in (1, 2, 3, 5, 10):
            ax = axes[(1, 2, 3, 5, 10).index(dice)]
            total = torch.arange(dice, 6 * dice + 1)
            ax.bar(total, chances, width=1, color=show.COLORS[5], edgecolor="white", linewidth=0.4)
            grid = torch.linspace(dice - 1.5, 6 * dice + 1.5, 200)
            ax.plot(grid, normal_density(grid, 3.5 * dice, 35 / 12 * dice), color=show.COLORS[1], linewidth=1.5)
            ax.set(yticks=[], title="1 die" if dice == 1 else f"{dice} dice")
            ax.spines["left"].set_visible(False)
    (FIGURES / "02_hero.png").write_bytes(figure.png())


def hero_03() -> None:
    """The photograph on its way to noise, its grey levels beside the standard Gaussian, and their KL divergence."""
    photo = photograph(96)[0].mean(dim=0)
    counts = torch.histc(photo, bins=32, min=-1, max=1)
    middles = torch.linspace(-1 + 1 / 32, 1 - 1 / 32, 32)[counts > 0]
    greys = Mixture(counts[counts > 0] / counts.sum(), middles, torch.full_like(middles, 1e-12))
    noise = torch.randn(photo.shape, generator=runtime.generator(3))
    x = torch.linspace(-3, 3, 401)
    stages = (1.0, 0.99, 0.9, 0.6, 0.2, 0.01)
    figure, axes = show.subplots(2, len(stages), size=(9, 3), height_ratios=(1.25, 1), alt="nats to pure noise")
    for share, above, below in zip(stages, *axes, strict=True):
        above.imshow(share**0.5 * photo + (1 - share) ** 0.5 * noise, cmap="gray", vmin=-1.6, vmax=1.6)
        above.set_axis_off()
        if share == 1:
            below.bar(middles, 1.5 * counts[counts > 0] / counts.max(), 0.04, color=show.COLORS[1])
            text = "∞"
        else:
            below.fill_between(x, greys.noised(share).density(x), color=show.COLORS[1], alpha=0.6, linewidth=0)
            text = f"{forward_kl(greys.noised(share), 0, 1):.{4 if share < 0.1 else 2}f}"
        below.plot(x, torch.exp(-(x**2) / 2) / (2 * torch.pi) ** 0.5, color=show.COLORS[0], linewidth=1.8)
        below.set(yticks=[], xticks=[], ylim=(0, 1.7), xlim=(-3, 3))
        below.spines["left"].set_visible(False)
        below.set_xlabel(f"KL = {text} nats", fontsize=11)
    (FIGURES / "03_hero.png").write_bytes(figure.png())


def hero_05() -> None:
    """The bundled photograph on its way to noise."""
    schedule = Schedule.cosine(1000)
    photo = photograph(96)
    noise = torch.randn(photo.shape, generator=runtime.generator(5))
    steps = [0, 100, 250, 400, 550, 700, 850, 999]
    states = [photo if t == 0 else q_sample(schedule, photo, t, noise) for t in steps]
    figure = show.grid(torch.cat(states), columns=len(steps), scale=1, alt="photograph to noise")
    (FIGURES / "05_hero.png").write_bytes(figure.png())


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
    (FIGURES / "06_hero.png").write_bytes(figure.png())


def hero_04() -> None:
    """Arrived in a bowl, stuck on a crease, and a portrait with half of its pixels missing and filled in."""
    figure, axes = show.subplots(
        1, 4, size=(9, 2.6), alt="coordinate descent: arrived, stuck, and a portrait filled in"
    )
    grid = torch.linspace(-2, 2, 401, dtype=torch.float64)
    x, y = grid[None, :], grid[:, None]
    bowl = Quadratic(torch.tensor([[1.0, 0.75], [0.75, 1.0]]), torch.zeros(2))
    scenes = (
        (
            0.5 * (x**2 + 1.5 * x * y + y**2),
            bowl,
            (-1.5, -1.7),
            [0.03, 0.15, 0.4, 0.8, 1.4, 2.3, 3.5],
            "one at a time: arrived",
        ),
        ((x + y).abs() + 3 * (x - y).abs(), Corner(), (-1.7, 1.2), [0.4, 1, 2, 3, 4.2, 5.6, 7.2], "a crease: stuck"),
    )
    for ax, (heights, problem, start, levels, title) in zip(axes[:2], scenes, strict=True):
        blues = [(1 - 0.5 * s, 1 - 0.32 * s, 1 - 0.1 * s) for s in torch.linspace(1, 0.1, len(levels)).tolist()]
        ax.contourf(grid, grid, heights, levels=[-1, *levels], colors=blues)
        path = torch.stack([s.x for s in coordinate_descent(problem, torch.tensor(start, dtype=torch.float64), 12)])
        ax.plot(path[:, 0], path[:, 1], "o-", color=show.COLORS[1], markersize=4, linewidth=2)
        ax.plot(0, 0, "*", color=show.COLORS[2], markersize=15)
        ax.set_title(title, fontsize=10)
    side = 40
    portrait = photograph(96).double().mean(dim=1)[0, 8 : 8 + side, 28 : 28 + side].flatten()
    given = torch.rand(side**2, generator=runtime.generator(0)) < 0.5
    waves = torch.cos(math.pi * torch.outer(torch.arange(side), torch.arange(side) + 0.5).double() / side)
    waves = waves / waves.norm(dim=1, keepdim=True)
    patterns, mean = torch.kron(waves, waves).T, portrait[given].mean()
    w = solve_lasso(Lasso(patterns[given], portrait[given] - mean, 0.1), tolerance=1e-6)
    orange = torch.tensor([0.9, -0.1, -1.0], dtype=torch.float64)[:, None]
    pictures = (torch.where(given, portrait.expand(3, -1), orange), torch.where(given, portrait, patterns @ w + mean))
    for ax, picture, title in zip(axes[2:], pictures, ("half of the pixels", "filled in"), strict=True):
        rgb = picture.expand(3, -1).reshape(3, side, side).permute(1, 2, 0)
        ax.imshow(((rgb + 1) / 2).clamp(0, 1), interpolation="nearest")
        ax.set_title(title, fontsize=10)
    for ax in axes:
        ax.set_axis_off()
        ax.set_aspect("equal")
    figure.get_layout_engine().set(h_pad=0.08)
    (FIGURES / "04_hero.png").write_bytes(figure.png())


def hero_07() -> None:
    """The maps of a small U-Net, trained here, in the shape of its name: grey shapes in, named shapes out."""
    kinds = ("square", "triangle", "cross", "ring")
    generator = runtime.generator(7)
    specs = [
        s
        for s in shapes.random_scenes(8000, generator=generator)
        if all(thing.size == "large" and thing.shape in kinds for thing in s.things)
    ]
    drawn = shapes.render(specs[:1200], generator)
    number = torch.tensor([kinds.index(name) + 1 if name in kinds else 0 for name in shapes.SHAPES])
    classes = (drawn.masks * number[drawn.geometry.shape][:, :, None, None]).amax(dim=1)
    grey = drawn.images.amax(dim=1, keepdim=True)
    padded = torch.nn.functional.pad(grey, (20,) * 4, mode="reflect")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet2015(channels=1, classes=5, width=8, depth=2)
    config = FitConfig(600, batch_size=8, learning_rate=4e-3, warmup=20, betas=(0.9, 0.99), ema=None)

    def loss(model, batch, draws):
        return torch.nn.functional.cross_entropy(model(batch[0]).float(), batch[1])

    net = fit(net, loss, lambda i: (padded[i], classes[i]), 1100, config, progress=False).best.cpu()

    pairs = [k for k in range(1100, 1200) if specs[k].second is not None][:6]
    canvas = grey[pairs].reshape(2, 3, 32, 32).permute(0, 2, 1, 3).reshape(1, 1, 64, 96)
    seen = []
    for part in (*net.down, *net.merge):
        part.register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
    with torch.no_grad():
        named = net(torch.nn.functional.pad(canvas, (20,) * 4, mode="reflect"))[0].argmax(dim=0)

    figure = show.CourseFigure(figsize=(9, 4.1), dpi=100, alt="a U of maps")
    stage = figure.add_axes((0, 0, 1, 1), xlim=(0, 900), ylim=(410, 0))
    stage.set_axis_off()

    def card(picture: torch.Tensor, x: float, y: float, scale: float, colors: str = "gray") -> None:
        high, wide = picture.shape[0] * scale, picture.shape[1] * scale
        ax = figure.add_axes((x / 900, 1 - (y + high) / 410, wide / 900, high / 410), xticks=[], yticks=[])
        ax.imshow(picture, cmap=colors, interpolation="nearest", aspect="auto")
        for spine in ax.spines.values():
            spine.set(color="white", linewidth=1.2)

    # x, y, screen pixels per pixel of the map
    places = ((150, 12, 1.05), (228, 160, 1.7), (378, 275, 3.2), (520, 160, 1.9), (590, 16, 1.25))
    for maps, (x, y, scale) in zip(seen, places, strict=True):
        strongest = maps.flatten(1).std(dim=1).argsort(descending=True)
        for k in (2, 1, 0):
            bright = maps[strongest[k]] / maps[strongest[k]].quantile(0.99)
            card(bright.clamp(0, 1).sqrt(), x + 17 * k, y + 13 * k, scale, "magma")
    card(canvas[0, 0], 12, 40, 1.3)
    palette = ["#1a1a1a", *show.COLORS[:4]]
    colors = torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in palette])
    card(colors[named], 762, 40, 1.3)
    grey_arrow = {"arrowstyle": "-|>", "color": "0.3", "linewidth": 1.5}
    across = grey_arrow | {"color": show.COLORS[1], "linestyle": "--", "linewidth": 2}
    for start, end, style in (
        ((190, 148), (225, 188), grey_arrow),
        ((310, 270), (373, 318), grey_arrow),
        ((503, 330), (575, 257), grey_arrow),
        ((656, 200), (690, 130), grey_arrow),
        ((332, 52), (585, 52), across),
        ((375, 200), (515, 200), across),
    ):
        stage.annotate("", end, start, arrowprops=style)
    stage.text(458, 40, "the details go straight across", ha="center", fontsize=10, color=show.COLORS[1])
    stage.text(230, 335, "down: smaller maps,\nwider view", ha="center", fontsize=10, color="0.25")
    stage.text(690, 320, "up: back to every pixel", ha="center", fontsize=10, color="0.25")
    (FIGURES / "07_hero.png").write_bytes(figure.png())


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
    (FIGURES / "10_hero.png").write_bytes(figure.png())


def hero_11() -> None:
    """The ring of eight as three methods learn it, and twelve garments that the GAN draws in one call each."""
    stored, _ = checkpoints.load("ring")
    titles = {"plain_gan": "a plain GAN", "gan": "the same, cured", "ddpm": "a diffusion model"}
    figure, axes = show.subplots(2, 3, size=(9, 4.2), height_ratios=(3, 1), alt="a ring, learned three times")
    garments = gan_fashion.draw(gan_fashion.load("cpu"), 24, seed=2)[[0, 15, 8, 5, 2, 7, 1, 18, 3, 19, 4, 9], 0]
    for k, (method, title) in enumerate(titles.items()):
        ax, below = axes[:, k]
        ax.scatter(*ring.means().T, s=260, facecolors="none", edgecolors="0.4", linewidths=1)
        ax.scatter(*stored[f"samples.{method}"][0].float().T, s=3, color=show.COLORS[(1, 0, 2)[k]], alpha=0.6)
        ax.set(xlim=(-1.8, 1.8), ylim=(-1.4, 1.4), aspect="equal", title=title)
        below.imshow(torch.cat(list(garments[4 * k : 4 * k + 4]), dim=1), cmap="gray", interpolation="nearest")
        for each in (ax, below):
            each.set_axis_off()
    (FIGURES / "11_hero.png").write_bytes(figure.png())


def hero_12() -> None:
    """A sheet of digits, each drawn from two numbers; and the way of one digit through its latent and back."""
    plane = vae_digits.load("plane", "cpu")
    across, down = (torch.distributions.Normal(0, 1).icdf(torch.linspace(0.04, 0.96, n)) for n in (13, 7))
    z = torch.cartesian_prod(down.flip(0), across)[:, [1, 0]]
    picture = vae_digits.bits(train_and_test("mnist", 28)[1])[3:4]
    with torch.no_grad():
        sheet = plane.decode(z).reshape(7, 13, 28, 28).permute(0, 2, 1, 3).reshape(7 * 28, 13 * 28)
        q = plane.encode(picture)
        cloud = q.mean + q.std * torch.randn(60, 2, generator=runtime.generator(12))
        back = plane.decode(q.mean)
    figure, (left, right) = show.subplots(1, 2, size=(9, 3), width_ratios=(13, 11), alt="digits from two numbers")
    for ax in (left, right):
        ax.set_axis_off()
    left.imshow(sheet, cmap="gray", vmin=0, vmax=1)
    right.set(xlim=(0, 11), ylim=(-2.6, 2.6), aspect="equal")
    for image, x in ((picture, 0), (back, 8.6)):
        right.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1, extent=(x, x + 2.4, -1.2, 1.2))
    for wide, narrow, color, name in ((2.6, 4.4, show.COLORS[0], "encoder"), (8.4, 6.6, show.COLORS[1], "decoder")):
        corners = [(wide, 1.3), (narrow, 0.55), (narrow, -0.55), (wide, -1.3)]
        right.add_patch(Polygon(corners, facecolor=color, alpha=0.35, edgecolor="white"))
        right.text((wide + narrow) / 2, 0, name, ha="center", va="center", fontsize=8)
    spread = (cloud - q.mean) / q.std * 0.28
    right.plot(5.5 + spread[:, 0], spread[:, 1], ".", color=show.COLORS[2], markersize=3)
    right.text(5.5, -1.35, "z: two numbers,\nand how sure", ha="center", va="top", fontsize=8)
    right.set(xlim=(0, 11), ylim=(-2.6, 2.6))
    (FIGURES / "12_hero.png").write_bytes(figure.png())


def hero_08() -> None:
    """The U, from noisy shapes to the noise in them; a clock tells every block the time."""
    scene = shapes.make(40, seed=5, kind="two").images[3:4]
    noise = torch.randn(scene.shape, generator=runtime.generator(8))
    noisy = q_sample(Schedule.linear(1000), scene, 120, noise)
    figure, ax = show.subplots(size=(9, 3.6), alt="the U-Net")
    ax.set_axis_off()
    sides, widths, blocks = (32, 16, 8, 4), (1.0, 1.5, 1.5, 2.0), 2
    down = [(0, 1.0)] + [(level, widths[level]) for level in range(4) for _ in range(blocks)]
    boxes = [("down", *box) for box in down] + [("middle", 3, 2.0)] * 2
    boxes += [("up", level, widths[level]) for level, _ in reversed(down)]
    colors = {"down": show.COLORS[0], "middle": show.COLORS[3], "up": show.COLORS[1]}
    bottoms, x, tops = (0.0, -9.0, -15.0, -19.0), 0.0, []
    for way, level, width in boxes:
        side = sides[level] * 0.62
        low = bottoms[level] - side / 2
        box = "round,pad=0.02,rounding_size=0.25"
        ax.add_patch(
            FancyBboxPatch((x, low), width, side, boxstyle=box, facecolor=colors[way], alpha=0.55, edgecolor="white")
        )
        tops.append((x + width / 2, low + side))
        x += width + 0.45
    style = {"arrowstyle": "-|>", "mutation_scale": 8, "color": "0.45", "linewidth": 0.9}
    for k in range(len(down)):
        bend = f"arc3,rad={-0.16 + 0.006 * k}"
        ax.add_patch(FancyArrowPatch(tops[k], tops[-1 - k], connectionstyle=bend, **style))
    for k, angle in enumerate((1.1, 2.4, 0.5)):  # fast, middle and slow hand
        centre = (x / 2 - 2.6 + 2.6 * k, -27.5)
        clock = ax.inset_axes((centre[0] - 1.15, centre[1] - 4.0, 2.3, 8.0), transform=ax.transData)
        clock.add_patch(Circle((0, 0), 1, facecolor=show.COLORS[4], alpha=0.35, edgecolor="0.4"))
        clock.plot([0, 0.85 * math.sin(angle)], [0, 0.85 * math.cos(angle)], color="0.2", linewidth=2)
        clock.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
        clock.set_axis_off()
    ax.text(x / 2 - 5, -27.5, "$t$", fontsize=13, ha="center", va="center")
    for place, (picture, text) in ((-6.4, (noisy, "$x_t$")), (x + 0.6, (noise / 3, r"$\epsilon$"))):
        view = ax.inset_axes((place, -9.5, 5.4, 19), transform=ax.transData)
        view.imshow((picture[0].clamp(-1, 1).permute(1, 2, 0) + 1) / 2, interpolation="nearest")
        view.set_axis_off()
        view.set_title(text, fontsize=13)
    ax.set(xlim=(-6.6, x + 6.2), ylim=(-32, 22))
    (FIGURES / "08_hero.png").write_bytes(figure.png())


def hero_09() -> None:
    """Four digits on their way from noise, with the times above: columns of a shipped denoising grid."""
    tensors, _ = checkpoints.load("mnist_denoisers")
    chosen, columns = (4, 0, 10, 7), range(5, 16)
    times = [f"t = {int(tensors['shown'][c])}" for c in columns]
    pictures = from_uint8(tensors["grid.ddpm_unet"][list(chosen)][:, list(columns)]).flatten(0, 1)
    sheet = show.grid(pictures, columns=len(times), scale=3, column_titles=times, alt="digits appear from noise")
    (FIGURES / "09_hero.png").write_bytes(sheet.png())


def hero_13() -> None:
    """Five sentences, and beside each the four of four thousand new pictures that fit it best."""
    sentences = (
        "a large blue star at the top",
        "there is a small green ring at the left",
        "a large cyan circle in the center",  # a pair that was never trained on
        "a small orange triangle at the right",
        "a large red circle above a large yellow cross",
    )
    clip, pool = clip_shapes.load(), shapes.make(4000, seed=7)
    with torch.no_grad():
        found = (clip.encode_captions(sentences) @ embed_images(clip, pool.images).T).topk(4, dim=1).indices.cpu()
    rows = [f"“{sentence}”".replace(" above ", "\nabove ").replace(" at the", "\nat the") for sentence in sentences]
    rows = [row.replace(" in the", "\nin the") for row in rows]
    figure = show.grid(pool.images[found.flatten()], columns=4, scale=3, row_titles=rows, alt="sentences find pictures")
    (FIGURES / "13_hero.png").write_bytes(figure.png())


def hero_14() -> None:
    """Samples of each family with their distance to real pictures, and noise that beats them all."""
    tensors, _ = checkpoints.load(measured_samples.NAME)
    features = measured_samples.sets(tensors)
    rows = {name: from_uint8(tensors[f"pictures.{name}"])[:12] for name in measured_samples.FAMILIES}
    forged = from_uint8(tensors["pictures.forged"])
    clouds = {name: features[name][: len(forged)] for name in rows} | {"noise?": look(forged).features}
    titles = [f"{name}\nF = {distance_to_real(x, features['test']):.1f}" for name, x in clouds.items()]
    pictures = torch.cat([*rows.values(), forged[:12]])
    sheet = show.grid(pictures, columns=12, scale=2, row_titles=titles, alt="samples, and their distances")
    (FIGURES / "14_hero.png").write_bytes(sheet.png())


def hero_17() -> None:
    """Five sentences of meanings that were never trained on, and four pictures that the pipeline drew for each."""
    sentences = (
        "a large green ring at the left",
        "a large orange circle at the right",
        "a small blue star left of a large yellow circle",
        "a small green star above a small blue square",
        "a large cyan triangle at the bottom",
    )
    images = TextToImage.load("shapes")([sentence for sentence in sentences for _ in range(4)], seed=1, steps=50)
    rows = [f"“{sentence}”".replace(" above ", "\nabove ").replace(" left of", "\nleft of") for sentence in sentences]
    rows = [row.replace(" at the", "\nat the") for row in rows]
    figure = show.grid(images, columns=4, scale=3, row_titles=rows, alt="pictures drawn from sentences")
    (FIGURES / "17_hero.png").write_bytes(figure.png())


def hero_15() -> None:
    """Four sentences, and what the model of lesson 15 draws for each."""
    sentences = (
        "a large red ring at the left", "a small green cross at the bottom",
        "a small yellow star above a large blue circle", "a large purple square right of a small orange triangle",
    )  # fmt: skip
    asked = [sentence for sentence in sentences for _ in range(6)]
    pictures = text_shapes.draw(text_shapes.load(), clip_shapes.load(), asked, scale=3, seed=2)
    titles = [
        s.replace(" at", "\nat").replace(" above", "\nabove").replace(" right of", "\nright of") for s in sentences
    ]
    sheet = show.grid(pictures, columns=6, scale=3, row_titles=titles, alt="sentences and pictures")
    (FIGURES / "15_hero.png").write_bytes(sheet.png())


def hero_16() -> None:
    """Four sentences; beside each the pictures nearest to its own embedding, and to five that the prior drew for it."""
    sentences = (
        "a small green ring below a large cyan square",
        "a large yellow star at the right",
        "a small purple circle above a small orange cross",
        "a large purple square left of a small green star",
    )
    clip, prior, pool = clip_shapes.load(), prior_shapes.load(), shapes.make(3940, seed=7)
    wanted = shapes.render([shapes.parse_caption(sentence) for sentence in sentences for _ in range(15)], seed=16)
    pictures = torch.cat([wanted.images, pool.images])
    told = text_condition(clip, sentences)
    draws = [
        draw_embeddings(prior, told, draws=1, generator=torch.Generator().manual_seed(k), progress=False)
        for k in range(5)
    ]
    asked = torch.stack([told.embedding, *draws], dim=1).flatten(0, 1)
    found = (asked @ embed_images(clip, pictures).T).argmax(dim=1).cpu()
    rows = [f"“{sentence}”" for sentence in sentences]
    for words in (" above ", " below ", " left of ", " at the "):
        rows = [row.replace(words, f"\n{words.strip()} ") for row in rows]
    titles = ["sentence", *(f"draw {k}" for k in range(1, 6)), *[""] * 18]
    sheet = show.grid(
        pictures[found], titles, columns=6, scale=3, row_titles=rows, alt="sentences and draws find pictures"
    )
    (FIGURES / "16_hero.png").write_bytes(sheet.png())


def map_00() -> None:
    """The course's themes and what stands on what."""
    boxes = {  # name: (column, row, text)
        "probability": (0, 1, "01–04\nprobability, KL,\noptimisation"),
        "forward": (1, 1, "05\nforward noising"),
        "maths": (2, 1, "06\nbound and\nposterior"),
        "nets": (2, 2, "07–08\nU-Nets"),
        "ddpm": (3, 1, "09\nDDPM: train\nand sample"),
        "ddim": (4, 2, "10\nfast samplers"),
        "gan": (1, 0, "11–12\nGAN, VAE"),
        "clip": (2, 0, "13\nCLIP"),
        "measure": (3, 0, "14\nmeasuring\nimages"),
        "guidance": (4, 1, "15\nguidance,\ncross-attention"),
        "unclip": (5, 0, "16–17\nunCLIP"),
        "latent": (5, 1, "18\nlatent diffusion"),
        "control": (5, 2, "19\nControlNet"),
    }
    arrows = (
        "probability-forward probability-gan forward-maths maths-ddpm nets-ddpm ddpm-ddim ddpm-guidance gan-clip "
        "clip-measure measure-guidance guidance-unclip guidance-latent latent-control"
    )
    figure, ax = show.subplots(size=(9, 3.4), alt="map of the course")
    ax.set_axis_off()
    ax.set(xlim=(-0.5, 5.5), ylim=(-0.5, 2.5))
    colors = {0: show.COLORS[4], 1: show.COLORS[5], 2: show.COLORS[2]}
    for column, row, text in boxes.values():
        box = "round,pad=0.02,rounding_size=0.08"
        ax.add_patch(
            FancyBboxPatch((column - 0.38, row - 0.3), 0.76, 0.6, boxstyle=box, facecolor=colors[row], alpha=0.35)
        )
        ax.text(column, row, text, ha="center", va="center", fontsize=8.5)
    for pair in arrows.split():
        (x0, y0, _), (x1, y1, _) = (boxes[name] for name in pair.split("-"))
        dx, dy = (0.4 if x1 > x0 else 0), (0.32 if y1 > y0 else -0.32 if y1 < y0 else 0)
        start, end = ((x0, y0 + dy), (x1, y1 - dy)) if x0 == x1 else ((x0 + dx, y0), (x1 - dx, y1))
        ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, color="0.3", linewidth=1))
    for suffix in ("png", "svg"):
        figure.savefig(FIGURES / f"00_map.{suffix}", metadata={"Date": None} if suffix == "svg" else {"Software": None})


if __name__ == "__main__":
    for draw in (
        hero_01, states_01, hero_02, hero_03, hero_04, hero_05, hero_06, hero_07, hero_08, hero_09, hero_10, hero_11,
        hero_12, hero_13, hero_14, hero_15, hero_16,
        map_00,
    ):  # fmt: skip
        draw()
        print("drawn:", draw.__name__)
