"""The figures of lessons 07 and 08: U-Nets."""

import math

import torch
from folder import store
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from course_lib import runtime, show
from course_lib.data import shapes
from course_lib.diffusion import Schedule, q_sample
from course_lib.models.unet2015 import UNet2015
from course_lib.training.fit import FitConfig, fit


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
    store(figure, "07_hero")


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
    store(figure, "08_hero")
