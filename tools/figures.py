"""Draw the figures in assets/figures: `python tools/figures.py`. Each function below makes one of them."""

import math
from pathlib import Path

import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from course_lib import runtime, show
from course_lib.data import photograph
from course_lib.diffusion import Schedule, q_sample
from course_lib.foundations import Corner, Lasso, Quadratic, coordinate_descent, solve_lasso

FIGURES = Path(__file__).resolve().parent.parent / "assets" / "figures"


def hero_05() -> None:
    """The bundled photograph on its way to noise."""
    schedule = Schedule.cosine(1000)
    photo = photograph(96)
    noise = torch.randn(photo.shape, generator=runtime.generator(5))
    steps = [0, 100, 250, 400, 550, 700, 850, 999]
    states = [photo if t == 0 else q_sample(schedule, photo, t, noise) for t in steps]
    figure = show.grid(torch.cat(states), columns=len(steps), scale=1, alt="photograph to noise")
    (FIGURES / "05_hero.png").write_bytes(figure.png())


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
    for draw in (hero_04, hero_05, map_00):
        draw()
        print("drawn:", draw.__name__)
