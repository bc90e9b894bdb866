"""The figures of lessons 00 to 04: the map, chances, and what is most likely."""

import math

import torch
from folder import FOLDER, store
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from course_lib import runtime, show
from course_lib.data import photograph, shapes
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
        figure.savefig(FOLDER / f"00_map.{suffix}", metadata={"Date": None} if suffix == "svg" else {"Software": None})


def hero_01() -> None:
    """Two pictures on their way from coin tosses: the bit diffusion of lesson 01."""
    things = [shapes.Thing(size, "red", kind) for kind in shapes.SHAPES for size in shapes.SIZES]
    scenes = shapes.render([shapes.Scene(thing, place) for thing in things for place in shapes.POSITIONS], seed=0)
    flips = torch.linspace(0.002, 0.12, 60)
    states = list(reverse_bits(scenes.masks[:, 0].flatten(1), flips, 8, generator=runtime.generator(1)))
    steps = [0, 26, 33, 38, 43, 48, 54, 60]
    rows = [states[k].bits[sample].reshape(1, 1, 32, 32).float() * 2 - 1 for sample in (5, 2) for k in steps]
    figure = show.grid(torch.cat(rows), columns=len(steps), scale=3, alt="noise to shapes")
    store(figure, "01_hero")


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
    store(figure, "01_states")


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
    store(figure, "02_hero")


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
    store(figure, "03_hero")


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
    store(figure, "04_hero")
