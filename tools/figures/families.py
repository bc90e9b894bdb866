"""The figures of lessons 11, 12 and 14: GAN, VAE, and what their pictures are worth."""

import torch
from folder import store
from matplotlib.patches import Polygon

from course_lib import checkpoints, runtime, show
from course_lib.data import ring, train_and_test
from course_lib.evaluation import distance_to_real, look
from course_lib.pixels import from_uint8
from course_lib.recipes import gan_fashion, measured_samples, vae_digits


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
    store(figure, "11_hero")


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
    store(figure, "12_hero")


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
    store(sheet, "14_hero")
