# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: all
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 14 · Measuring images
#
# **Put a number on how good generated pictures are, know what that number is worth – and fool it in three ways.**
#
# | | |
# |---|---|
# | **You will** | *compute* the Fréchet distance behind FID from its closed form · *find* its floor, and why it falls like 1/n · *write* the kernel distance, precision and the floor yourself · *compare* GAN, VAE and diffusion in one table · *fool* every one of these numbers · *score* pictures against captions |
# | **Before this** | [02 Gaussians and moments](02_gaussians_and_moments.ipynb), [09 Train and sample DDPM](09_ddpm_train_and_sample.ipynb), [11 GAN](11_gan.ipynb), [12 VAE](12_vae.ipynb), [13 CLIP](13_clip.ipynb) |
# | **Time** | about 120 minutes with the exercises; the code runs in less than a minute on two CPU cores |
# | **Downloads** | Fashion-MNIST (31 MB), once |
#
# ![Left, rows of garments: real ones, and samples of four generators, each with its distance beside it. Right, pictures that look like pure noise, with a distance as good as the best](../assets/figures/14_hero.png)
#
# Which of two models draws better? Look at sixteen samples of each, and you will have an opinion. Look at sixteen others, and it may change. Papers therefore print a number, and the number decides which idea is followed up. This lesson builds the usual numbers from the ground, and shows for each what it sees, what it misses, and what it says about *perfect* samples: seldom 0.
#
# <!-- badge -->
# <!-- /badge -->
#
# <!-- nav -->
# <!-- /nav -->

# %% [markdown]
# ## Set-up
#
# Run this cell first. It says which profile, device and precision are in use. Nothing is trained here; a GPU is not needed.

# %% tags=["nbval-ignore-output"]
import importlib.util, os

if importlib.util.find_spec("course_lib") is None:  # Colab, Kaggle: fetch the course; torch and numpy stay as they are
    # %pip install -q --no-deps {os.environ.get("COURSE_SOURCE", "git+https://github.com/generative-image-models/course")}
importlib.import_module("course_lib.lesson").setup()

# %% [markdown]
# `features` holds what a classifier saw in pictures: 128 numbers for each. Section 3 says how; until then they are clouds of points. They ship with the course, for real test pictures and for 2,000 samples of each model.

# %% tags=["nbval-ignore-output"]
import math

import torch
import torch.nn.functional as F

from course_lib import checkpoints, runtime, show
from course_lib.data import train_and_test
from course_lib.lesson import exercise, expect, hint, progress, sizes, solution
from course_lib.pixels import from_uint8
from course_lib.recipes import measured_samples

size = sizes(pictures=(250, 1_000))  # how many are shown to the classifier in an experiment
device = runtime.device()
train_set, test_set = train_and_test("fashion_mnist")
fashion = test_set.name == "fashion_mnist"
stored, card = checkpoints.load("measured_samples")
features = measured_samples.sets(stored)


def fresh(seed=0):
    """A generator that always starts at the same place."""
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## 1 · Two bells, one number
#
# Begin with pictures of one pixel. Real ones follow one bell curve, generated ones another. How far apart are the two? Think of the first bell as a heap of sand that has to be moved until it has the form of the second. Moving a grain over a distance costs the distance squared. Who moves cleverly lets no two ways cross: the leftmost grain goes to the leftmost place, and so on in order. The mean cost of the cleverest way is the **Fréchet distance**.
#
# For two bells with means $m_a, m_b$ and standard deviations $s_a, s_b$ it is
#
# $$F = (m_a - m_b)^2 + (s_a - s_b)^2 \tag{14.1}$$
#
# Two bells are equal when both terms are 0. Let us move sand: draw 100,000 numbers from each bell, sort both, and pair them in order.

# %%
def by_moving(x, y):
    """Mean squared way from the numbers x to the numbers y, paired in order of size."""
    return (x.sort().values - y.sort().values).square().mean().item()


g = fresh(1)
sand = torch.randn(2, 100_000, generator=g, dtype=torch.float64)
for m_b, s_b in ((0.0, 1.0), (2.0, 1.0), (0.0, 3.0), (1.0, 2.0)):
    formula = (0 - m_b) ** 2 + (1 - s_b) ** 2
    moved = by_moving(sand[0], m_b + s_b * sand[1])
    print(f"N(0, 1) to N({m_b:.0f}, {s_b:.0f}²): formula {formula:.2f}, moved {moved:.2f}")
    assert abs(moved - formula) < 0.03

# %% [markdown]
# Drag the slider: it widens the second bell. The grey lines are ways, one for each hundredth of the sand. They are parallel when the bells have the same width, and they fan out when the widths differ. (After a restart, run the cell again to wake the slider. Where there are no sliders, as on GitHub, you see one position.)

# %% tags=["nbval-ignore-output"]
axis = torch.linspace(-5, 8, 400, dtype=torch.float64)
shares = (torch.arange(60, dtype=torch.float64) + 0.5) / 60
steps_of_sand = torch.erfinv(2 * shares - 1) * math.sqrt(2)  # sixty places of N(0, 1), each with as much sand


def two_bells(width):
    """The bells, and the ways of the sand between them."""
    distance = 2**2 + (1 - width) ** 2
    figure, ax = show.subplots(
        size=(6.5, 2.8),
        alt=f"Two bell curves, above at 0 with standard deviation 1, below upside down at 2 with {width}; lines join them. Fréchet distance 4 + {(1 - width) ** 2:.2f}",
    )
    for mean, std, sign, color in ((0, 1, 1, show.COLORS[0]), (2, width, -1, show.COLORS[1])):
        height = torch.exp(-((axis - mean) ** 2) / (2 * std**2)) / std
        low = 0.5 if sign > 0 else -0.5
        ax.fill_between(axis, low, low + sign * height, color=color, alpha=0.6, linewidth=0)
    for place in steps_of_sand:
        ax.plot([place, 2 + width * place], [0.5, -0.5], color="0.6", linewidth=0.6)
    ax.set(yticks=[], xlim=(-5, 8), ylim=(-2.6, 1.7), title=f"F = (0 - 2)² + (1 - {width})² = {distance:.2f}")
    return figure


show.slider(two_bells, [0.5, 0.75, 1.0, 1.5, 2.0, 2.5], name="width", start=2.0)

# %% [markdown]
# What if the sand has another form? Equation 14.1 knows two numbers of each heap: mean and standard deviation. So it can't tell heaps apart that agree in both. Here are two narrow bells at ±1, made so that their mean is 0 and their variance 1, against a single bell:

# %%
side = torch.where(torch.rand(100_000, generator=g) < 0.5, -1.0, 1.0).double()
two_heaps = math.sqrt(1 - 0.1**2) * side + 0.1 * sand[1]
by_moments = (sand[0].mean() - two_heaps.mean()) ** 2 + (sand[0].std() - two_heaps.std()) ** 2
print(f"formula from mean and standard deviation: {by_moments:.3f}   really moved: {by_moving(sand[0], two_heaps):.3f}")

# %% [markdown]
# The formula says "equal", the sand says otherwise. In general what is really moved is never less than the formula says. Keep this in mind: it is the first way to fool the distance, and it works on pictures too (section 10).
#
# ## 2 · Many dimensions
#
# A picture is described by many numbers, so the bells become clouds in $d$ dimensions with means $\mu_a, \mu_b$ and covariance matrices $A, B$ ([lesson 02](02_gaussians_and_moments.ipynb)). If the axes of both clouds are the coordinate axes, equation 14.1 holds for each coordinate, and the costs add up. Try the textbook case: $\mathcal N(0, I)$ against $\mathcal N(1, 2^2 I)$ in 8 dimensions. Each coordinate costs $(0-1)^2 + (1-2)^2 = 2$, together **16**.
#
# Two clouds may lie askew to each other. Then the place of the standard deviation is taken by the **root** of the covariance, the symmetric matrix $A^{1/2}$ with $A^{1/2} A^{1/2} = A$. It has the same axes as $A$ and the standard deviations along them. The distance becomes
#
# $$F = \lVert \mu_a - \mu_b \rVert^2 + \operatorname{tr}\left(A + B - 2\,\big(A^{1/2} B\, A^{1/2}\big)^{1/2}\right) \tag{14.2}$$
#
# where the trace $\operatorname{tr}$ is the sum of the diagonal. Compare with 14.1: $(s_a - s_b)^2 = s_a^2 + s_b^2 - 2 s_a s_b$. With the features of a network trained on photographs, Inception-v3, this number is called **FID**, the Fréchet Inception distance. Note that it is a *squared* distance.

# %% tags=["J04"]
def root(matrix):
    """The symmetric root of a covariance: same axes, square roots of the variances along them."""
    variances, axes = torch.linalg.eigh(matrix)
    return axes * variances.clamp(min=0).sqrt() @ axes.T


askew = torch.tensor([[2.0, 1.2], [1.2, 1.0]], dtype=torch.float64)
print("a covariance, and its root:\n", askew.numpy(), "\n", root(askew).numpy().round(3))
assert torch.allclose(root(askew) @ root(askew), askew)

# %% [markdown]
# Is 14.2 the cost of moving a cloud? The cleverest way is a straight stretch, $x \mapsto \mu_b + M (x - \mu_a)$ with $M = A^{-1/2} (A^{1/2} B A^{1/2})^{1/2} A^{-1/2}$. We move ten thousand points with it, see that they arrive with the right covariance, and add up the cost:

# %% tags=["J04"]
other = torch.tensor([[0.5, -0.3], [-0.3, 1.5]], dtype=torch.float64)
mean_b = torch.tensor([3.0, 1.0], dtype=torch.float64)
half = root(askew)
back = torch.linalg.inv(half)
stretch = back @ root(half @ other @ half) @ back

points = torch.randn(10_000, 2, generator=fresh(2), dtype=torch.float64)
points = points - points.mean(0)
points = points @ torch.linalg.inv(root(torch.cov(points.T, correction=0))) @ half  # exactly mean 0 and covariance A
arrived = mean_b + points @ stretch
assert torch.allclose(torch.cov(arrived.T, correction=0), other)

cost = (points - arrived).square().sum(dim=1).mean()
formula = mean_b.square().sum() + (askew + other - 2 * root(half @ other @ half)).trace()
print(f"equation 14.2: {formula:.4f}   cost of moving: {cost:.4f}")
assert abs(cost - formula) < 1e-8

# %% [markdown]
# In the picture each line is one point's way from the blue cloud to the orange one. No lines cross wildly: the cloud is moved, turned a little and stretched.

# %%
figure, ax = show.subplots(
    size=(5.5, 3.4),
    alt="A blue cloud around (0, 0), long from lower left to upper right, and an orange one around (3, 1), longer upwards and leaning left; forty grey lines join points of both",
)
ax.plot(*points[:400].T, ".", color=show.COLORS[0], markersize=3, label="from")
ax.plot(*arrived[:400].T, "^", color=show.COLORS[1], markersize=2.5, label="to")
for p, q in zip(points[:40], arrived[:40], strict=True):
    ax.plot([p[0], q[0]], [p[1], q[1]], color="0.6", linewidth=0.5, zorder=0)
ax.set(aspect="equal")
ax.legend(frameon=False, loc="upper left")
figure

# %% [markdown]
# **Exercise 14.1.** Write equation 14.2 for means of shape (d,) and covariances of shape (d, d). Return a number. The covariances may be singular (a feature that never changes, or fewer pictures than features): then some eigenvalues are 0, and rounding may make them -1e-17. Running the cell checks your answer. It never stops the lesson: as long as your answer is missing or wrong, the library's function takes its place, and the message tells you what is off. `hint("14.1")` helps.

# %%
@exercise("14.1")
def frechet_distance(mean_a, cov_a, mean_b, cov_b):
    """Equation 14.2, from the means and covariances of two sets of features."""
    ...


# %% tags=["J04"]
from course_lib import evaluation

textbook = float(frechet_distance(torch.zeros(8), torch.eye(8), torch.ones(8), 4 * torch.eye(8)))
print(f"N(0, I) and N(1, 2² I) in 8 dimensions: {textbook:.1f}")
assert abs(textbook - 16) < 1e-4

a, b = (torch.randn(40, 6, generator=fresh(k), dtype=torch.float64) for k in (3, 4))
by_hand = float(frechet_distance(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T)))
assert abs(by_hand - evaluation.feature_distance(a, b)) < 1e-4
print(f"two clouds of 40 points in 6 dimensions: {by_hand:.3f}, also with the library")

# %% [markdown]
# ### A well-known mistake: the root of a product that is not symmetric
#
# Most code writes $\operatorname{tr}\,(AB)^{1/2}$. On paper it is the same number: $AB$ has the same eigenvalues as $A^{1/2} B A^{1/2}$. But $AB$ is not symmetric, so a computer may find eigenvalues that are negative or complex where there should be zeros, and then the root, and the distance, turn complex. It happens as soon as there are fewer pictures than features. Here are 60 points in 100 dimensions:

# %% tags=["mistake", "nbval-ignore-output"]
few = torch.randn(2, 60, 100, generator=fresh(5), dtype=torch.float64)
cov_1, cov_2 = (torch.cov(x.T) for x in few)
product = torch.linalg.eigvals(cov_1 @ cov_2)
strange = ((product.real < 0) | (product.imag.abs() > 0)).sum().item()
print(f"eigenvalues of A B that are negative or complex: {strange} of {len(product)}")
print(f"trace of its root: {product.sqrt().sum():.8f}")
safe = torch.linalg.svdvals(root(cov_1) @ root(cov_2)).sum()  # the roots of the eigenvalues of A^½ B A^½
print(f"from singular values, always real: {safe:.8f}")

# %% [markdown]
# > **A well-known mistake.** The usual repair is to throw the imaginary part away, if it is small. Better not to make it: the singular values of $A^{1/2} B^{1/2}$ are the roots of the eigenvalues of $A^{1/2} B A^{1/2}$, real and never negative. The library takes them.

# %% [markdown]
# ## 3 · Through a network's eyes
#
# Why not take the pixels themselves as the numbers? Because pixels have no idea what matters. Move a shirt by two pixels: to you it is the same shirt, in pixels it is far away. A network that was trained to tell garments apart has learnt what matters, at least for telling garments apart. So we look at its last hidden layer. Our classifier's has 128 numbers, the **features** of a picture. It was trained once, on real garments, before any generator was scored.
#
# Here are 64 test pictures, changed in five ways. How far is the changed picture from its original, compared with how far two random pictures are apart? Both in pixels and in features:

# %% tags=["nbval-ignore-output"]
from course_lib.evaluation import fashion_classifier, look

some = test_set.images(slice(0, 64)).to(device)
changed = {
    "moved by 2 pixels": some.roll((2, 2), (2, 3)),
    "mirrored": some.flip(3),
    "blurred": F.avg_pool2d(F.pad(some, (1, 1, 1, 1), value=-1.0), 3, 1),
    "grainy": (some + 0.15 * torch.randn(some.shape, generator=fresh()).to(device)).clamp(-1, 1),
    "upper half black": torch.cat([torch.full_like(some[:, :, :16], -1.0), some[:, :, 16:]], dim=2),
}


def gap(a, b):
    """Mean distance of paired rows."""
    return (a.flatten(1) - b.flatten(1)).norm(dim=1).mean().item()


seen = look(some).features
pixels_apart, features_apart = gap(some, some.roll(1, 0)), gap(seen, seen.roll(1, 0))
print(f"{'':20s}distance in pixels   in features     (100% = two random pictures)")
for name, images in changed.items():
    print(f"{name:20s}{gap(images, some) / pixels_apart:16.0%}{gap(look(images).features, seen) / features_apart:14.0%}")

# %% tags=["nbval-ignore-output"]
show.grid(
    torch.cat([some[:8], *(images[:8] for images in changed.values())]).cpu(),
    columns=8,
    scale=2,
    row_titles=["original", *changed],
    alt="Six rows of eight garments: originals, then the same moved by two pixels, mirrored, blurred, grainy, and with the upper half black",
)

# %% [markdown]
# In pixels, moving and mirroring are big changes, and grain hardly one. The features see it the other way round. That fits what we want better, but mind what it is: *this network's* opinion. It was shown moved and mirrored pictures in training and learnt to ignore that. Nobody told it about grain. Another network has other opinions, and so other distances: **a Fréchet distance without its network is no number at all.**
#
# For this reason the FID of grey 32×32 garments, scaled up and fed to a network that knows colour photographs, is a *relative* number at best. For one and the same set of samples a course reports 33.8 with one such network and 63.8 with another.
#
# ### A well-known mistake: the features of another scale
#
# The classifier was trained on pictures in $[-1, 1]$. Show it pictures in $[0, 1]$. They look the same on your screen, and nothing crashes.

# %% tags=["mistake", "nbval-ignore-output"]
from course_lib.evaluation import distance_to_real, floor

test_features = features["test"] if fashion else look(test_set.images(slice(0, 1_000)).to(device)).features
right = test_set.images(slice(0, size.pictures)).to(device)
wrong = (right + 1) / 2  # in [0, 1]
print(f"real pictures, n = {size.pictures}, Fréchet distance to real pictures")
for name, images in (("in [-1, 1]", right), ("in [0, 1]", wrong)):
    saw = look(images)
    print(
        f"{name:11s}{distance_to_real(saw.features, test_features):8.2f}   at least 80% sure of a class: {saw.confident:.0%}"
    )
ratio = distance_to_real(look(wrong).features, test_features) / floor(test_features, size.pictures)
expect("distance of the wrongly scaled pictures over the floor", ratio, 5, 1000)

# %% [markdown]
# > **A well-known mistake.** Real pictures at the wrong scale score worse than many a generator. If *both* sets are scaled wrongly, the distances become small again, and nobody notices that the network sees nothing but grey fog. So test your whole pipeline with real pictures first. They must get the floor, which is what comes next.
#
# ## 4 · The floor
#
# Suppose a model is perfect: its samples come from the very same distribution as the data. Its Fréchet distance is not 0. For means and covariances are *measured*, from $n$ pictures each, and two measurements of the same thing differ. Let us see how much, with two sets of $n$ points from the same bell in 64 dimensions:

# %% tags=["J04"]
import warnings

from course_lib.evaluation import feature_distance


def same_bell(n, d=64, seed=0):
    """Fréchet distance of two sets of n points from N(0, I) in d dimensions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns where n ≤ d
        return feature_distance(*torch.randn(2, n, d, generator=fresh(seed)))


print("n          100     500    2000   10000")
print("measured " + "".join(f"{same_bell(n):7.2f} " for n in (100, 500, 2_000, 10_000)))
print("formula  " + "".join(f"{64 * 69 / (2 * n):7.2f} " for n in (100, 500, 2_000, 10_000)))

# %% [markdown]
# From 22 down to 0.22, for perfect samples! The formula in the last line can be understood. Take one dimension, and remember how precise measurements are ([lesson 02](02_gaussians_and_moments.ipynb)). Each of the two means has variance $1/n$, so $(m_a - m_b)^2$ is $2/n$ on average. Each standard deviation has variance about $1/(2n)$, which adds $1/n$. In $d$ dimensions this happens $d$ times, and each of the $d(d-1)/2$ covariances between two features adds another $1/n$:
#
# $$\mathbb E\,F \;\approx\; \frac{1}{n}\left(2d + d + \frac{d(d-1)}{2}\right) = \frac{d\,(d+5)}{2n} \tag{14.3}$$
#
# So the floor falls like $1/n$, and grows with the *square* of the number of features. Inception's 2,048 features would need a hundred thousand pictures for what 64 features get with a hundred. It's a systematic error: always upwards, never down. In the picture both axes are logarithmic, so $1/n$ is a straight line. Left of the small arrows there are no more points than dimensions; there the measured distance runs below the line.

# %%
sweep = [64, 128, 256, 512, 1024, 2048, 4096, 8192]
figure, ax = show.subplots(
    size=(6.5, 3),
    alt="Fréchet distance of two sets from the same bell against n from 64 to 8192, both axes logarithmic. Circles for 128 features lie on a straight line from about 115 at n = 64 to 1 at n = 8192, triangles for 64 features a quarter as high",
)
for d, marker, color in ((128, "o", show.COLORS[0]), (64, "^", show.COLORS[1])):
    ax.plot(sweep, [same_bell(n, d) for n in sweep], marker, color=color, label=f"{d} features")
    ax.plot(sweep, [d * (d + 5) / (2 * n) for n in sweep], color=color, linewidth=0.8)
    ax.annotate("n = d", (d, d * (d + 5) / (2 * d)), (d * 1.1, d * 1.1), fontsize=8, color=color)
ax.set(xscale="log", yscale="log", xlabel="n", ylabel="Fréchet distance")
ax.set_xticks(sweep, labels=sweep)
ax.minorticks_off()
ax.legend(frameon=False)
figure

# %% [markdown]
# Features of pictures are no round cloud. Their covariance $\Sigma$ has a few large variances $\lambda_i$ along its axes and many tiny ones, and tiny ones add little. For any covariance, what perfect samples get is
#
# $$\mathbb E\,F \;\approx\; \frac{1}{n}\left(\frac52 \sum_i \lambda_i + \sum_{i,j} \frac{\lambda_i \lambda_j}{\lambda_i + \lambda_j}\right) \tag{14.4}$$
#
# (with all $\lambda_i = 1$ it becomes 14.3). It's the library's `expected_floor`. More honest than any formula is to *measure* the floor: split real pictures at random into two sets of $n$, and take their distance. Do it several times, since a single pair has luck or bad luck.
#
# **Exercise 14.2.** Write it. `features` has the shape (count, d). `orders` is a list of random orders of 0 … count - 1, each a tensor. For each order, compare the first `n` features with the next `n`, using `feature_distance(a, b)`. Return the mean.

# %%
@exercise("14.2")
def mean_over_pairs(features, n, orders):
    """What perfect samples get at this n: mean distance of two disjoint sets of n, one pair for each order."""
    ...


# %% tags=["J04", "nbval-ignore-output"]
from course_lib.evaluation import expected_floor

test = features["test"]
orders = [torch.randperm(len(test), generator=fresh(k)) for k in range(8)]
cov_of_garments = torch.cov(test.double().T)
print(f"real garments, {len(test):,} test pictures\n{'n':>5s}{'floor':>9s}{'eq. 14.4':>10s}")
for n in (250, 500, 1_000, 2_000, 4_000):
    measured = float(mean_over_pairs(test, n, orders))
    print(f"{n:5d}{measured:9.3f}{expected_floor(cov_of_garments, n):10.3f}")
    assert 0.6 < measured / expected_floor(cov_of_garments, n) < 1.6

# %% [markdown]
# The two columns agree, although features of garments are no Gaussians: ten clusters, and none below 0. This is a useful check of any set of features that you meet.
#
# ### A well-known mistake: unequal n
#
# Here is the shipped diffusion model with 50 steps, compared with real pictures. The samples get no better from line to line. There are only more of them:

# %% tags=["mistake"]
samples = features["diffusion, 50 steps"]
print(f"{'n':>5s}{'distance':>10s}{'floor':>8s}{'ratio':>8s}")
for n in (200, 500, 1_000, 2_000):
    distance, lowest = distance_to_real(samples[:n], test), floor(test, n)
    print(f"{n:5d}{distance:10.2f}{lowest:8.2f}{distance / lowest:8.1f}")

# %% [markdown]
# > **A well-known mistake.** Whoever measures at a small $n$ gets a large number, and looks worse than a paper with a large $n$. Compare at equal $n$ only, and always with the floor beside it. Is the *ratio* to the floor fairer? No: for imperfect samples the distance approaches a true value above 0, while the floor goes to 0. So the ratio grows with $n$. Equal $n$ it must be.
#
# ## 5 · What moves it
#
# Is a larger distance worse? We spoil real pictures on purpose, a little and a lot: blur them, add grain, or leave out whole classes of garments (a generator that does this has *dropped modes*). For the last we take the features as they are. (What the classifier calls a picture decides its class.)

# %% tags=["nbval-ignore-output"]
def blur(images, width):
    """Each pixel replaced by a bell-shaped average of its surroundings, of this standard deviation in pixels."""
    if width == 0:
        return images
    places = torch.arange(-6, 7, device=images.device)
    bell = torch.exp(-(places**2) / (2 * width**2))
    bell = bell / bell.sum()
    padded = F.pad(images, (6, 6, 6, 6), value=-1.0)
    return F.conv2d(F.conv2d(padded, bell.reshape(1, 1, 1, 13)), bell.reshape(1, 1, 13, 1))


def grain(images, strength):
    """With Gaussian noise of this standard deviation on every pixel."""
    noise = torch.randn(images.shape, generator=fresh(6)).to(images.device)
    return (images + strength * noise).clamp(-1, 1)


spoil = {"blur": (blur, (0.4, 0.6, 0.8, 1.2)), "grain": (grain, (0.02, 0.05, 0.1, 0.2))}
clean = test_set.images(slice(0, size.pictures)).to(device)
spoiled = {
    (name, strength): look(how(clean, strength)).features
    for name, (how, strengths) in spoil.items()
    for strength in strengths
}

# %% [markdown]
# Drag the slider to see how the spoiled pictures look. Which of the two would you rather have?

# %% tags=["nbval-ignore-output"]
eight = test_set.images(slice(8, 16))


def at_level(level):
    """Eight garments blurred, and with grain, at the same place of the two scales."""
    widths, strengths = spoil["blur"][1], spoil["grain"][1]
    return show.grid(
        torch.cat([eight, blur(eight, widths[level - 1]), grain(eight, strengths[level - 1])]),
        columns=8,
        scale=2,
        row_titles=["clean", f"blur {widths[level - 1]}", f"grain {strengths[level - 1]}"],
        alt=f"Three rows of eight garments: clean, blurred with standard deviation {widths[level - 1]} pixels, and with grain of standard deviation {strengths[level - 1]}",
    )


show.slider(at_level, [1, 2, 3, 4], name="level", start=3)

# %% tags=["nbval-ignore-output"]
called = fashion_classifier("cpu").head(test).argmax(dim=1)
lowest = floor(test_features, size.pictures)
print(f"n = {size.pictures}, floor {lowest:.2f}")
print(f"{'clean':14s}{distance_to_real(look(clean).features, test_features):7.2f}")
distances = {}
for (name, strength), saw in spoiled.items():
    distances[name, strength] = distance_to_real(saw, test_features)
    print(f"{name} {strength:<9}{distances[name, strength]:7.2f}")
shuffled = torch.randperm(len(test), generator=fresh(7))
for kept in (9, 7, 5, 2):
    fewer = test[shuffled][called[shuffled] < kept][: size.pictures]
    distances["classes kept", kept] = distance_to_real(fewer, test)
    print(f"{kept} classes kept{distances['classes kept', kept]:8.2f}")

# %% [markdown]
# The distance grows with the damage, in all three ways. That is the good news. But look at the *rates*. Grain of 0.05, which you have to look for, costs about as much as a clearly visible blur, and dropping a whole class, a tenth of all garments, may cost less than either. The order of these is this network's taste. And one number can't tell *which* damage was done. Section 8 asks for more than one.

# %% [markdown]
# ## 6 · Along the sampler
#
# A diffusion model makes its pictures in steps ([lesson 10](10_ddim_and_fast_samplers.ipynb)). We can take the distance at *every* step: of the noisy pictures $x_t$, and of the guesses $\hat x_0$ that the network makes from them. One walk of 1,000 pictures with DDIM in 20 steps was measured and shipped. Follow the picture from left to right, as the sampler goes. The guesses (triangles) are ahead: they begin as grey averages and have taken form when $x_t$ is still mostly noise.

# %%
times = stored["walk.t"].tolist()
figure, ax = show.subplots(
    size=(6.5, 3),
    alt="Fréchet distance on a logarithmic axis against t from 1000 down to 0. Circles for the noisy pictures stay high until t = 200 and then fall; triangles for the guesses lie below them and fall earlier; both end at the same value, far above a dashed line for the floor",
)
ax.plot(times, stored["walk.state"], "o-", color=show.COLORS[0], markersize=4, linewidth=1, label="noisy pictures x_t")
ax.plot(times[:-1], stored["walk.guess"], "^-", color=show.COLORS[1], markersize=4, linewidth=1, label="guesses of x_0")
ax.axhline(floor(test, 1_000), color="black", linewidth=1, linestyle="--", label="floor at n = 1000")
ax.set(xlim=(1020, -20), yscale="log", xlabel="t", ylabel="Fréchet distance")
ax.legend(frameon=False, loc="lower left")
figure

# %% tags=["nbval-ignore-output"]
print("t        " + "".join(f"{t:8d}" for t in times[::4]))
print("x_t      " + "".join(f"{v:8.2f}" for v in stored["walk.state"][::4].tolist()))
print("guess    " + "".join(f"{v:8.2f}" for v in stored["walk.guess"][::4].tolist()))
noise = torch.randn(1_000, 1, 32, 32, generator=fresh())  # the walk's own start
again = distance_to_real(look(noise.to(device)).features, test, splits=4)
expect("t = 1000 once more, over the shipped value", again / stored["walk.state"][0], 0.97, 1.03)

# %% [markdown]
# Three lessons from one curve. The number knows nothing of time: most of the way it is flat, since the classifier makes no difference between noise and more noise. The last few steps do nearly all that it sees. And the end of the curve is not the floor: what is missing there is the model's own error, or too few steps.
#
# ## 7 · The kernel distance
#
# The Fréchet distance has two weaknesses: it looks at means and covariances only, and it is biased upwards at small $n$. The **kernel distance** (KID) mends the second, and a little of the first. It asks a simple question: how *similar* are two pictures, by their features $x$ and $y$? Its answer is a **kernel**, a function that is large for similar ones:
#
# $$k(x, y) = \left(\frac{x \cdot y}{d} + 1\right)^3 \tag{14.5}$$
#
# where $x \cdot y$ is the sum of the products, feature by feature. If two sets come from the same distribution, then two members of the first are as similar, on average, as two members of the second, and as one of each. So compare the three averages. With $n$ features $x_i$ and $m$ features $y_j$, the estimate is
#
# $$\widehat{\mathrm{MMD}}{}^2 = \frac{1}{n(n-1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m(m-1)} \sum_{i \ne j} k(y_i, y_j) - \frac{2}{nm} \sum_{i, j} k(x_i, y_j) \tag{14.6}$$
#
# (MMD stands for *maximum mean discrepancy*.) Note $i \ne j$: a picture is not compared with itself. A picture is most similar to itself, so those terms would raise the first two averages, the more the smaller the set: that would be a floor again.
#
# > **Think.** Multiply out $(xy + 1)^3$ for single numbers $x$ and $y$. Which moments of the two sets does the kernel distance compare?
# >
# > <details><summary>Answer</summary>x³y³ + 3x²y² + 3xy + 1. The average of xy over all pairs is the product of the two means; of x²y², the product of the second moments; and so on. So MMD² is 3 times the squared difference of the means, plus 3 times that of the second moments, plus once that of the third. Three moments in place of two: the two heaps of section 1 still look alike to it, for their third moments are both 0.</details>
#
# **Exercise 14.3.** Write equation 14.6. `a` has the shape (n, d), `b` (m, d), and n and m may differ. `cubic_kernel(x, y)` returns all values of 14.5 as a matrix, one row for each x. Return a number. It may be negative!

# %%
from course_lib.evaluation import cubic_kernel


@exercise("14.3")
def mmd_squared(a, b):
    """The unbiased estimate of equation 14.6."""
    ...


# %% [markdown]
# *Unbiased* means: the estimate is right on average, for any $n$. We draw many pairs of small sets of real pictures, so the truth is 0. The distances behave very differently:

# %%
def mean_of_pairs(measure, n, pairs=60):
    """Mean of a measure over pairs of disjoint random sets of n real pictures."""
    found = []
    for k in range(pairs):
        order = torch.randperm(len(test), generator=fresh(k))
        found.append(float(measure(test[order[:n]], test[order[n : 2 * n]])))
    return sum(found) / pairs, torch.tensor(found).std().item() / math.sqrt(pairs)


def with_own_pairs(a, b):
    """Equation 14.6 without its i ≠ j."""
    return (cubic_kernel(a, a).mean() + cubic_kernel(b, b).mean() - 2 * cubic_kernel(a, b).mean()).item()


print(f"{'n':>4s}{'Fréchet':>10s}{'kernel with i = j':>20s}{'kernel':>22s}")
for n in (25, 50, 100, 200):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frechet, _ = mean_of_pairs(feature_distance, n, 8)
    (biased, _), (unbiased, error) = mean_of_pairs(with_own_pairs, n), mean_of_pairs(mmd_squared, n)
    print(f"{n:4d}{frechet:10.2f}{biased:20.3f}{unbiased:16.3f} ± {error:.3f}")
    assert abs(unbiased) < 4 * error < biased

# %% [markdown]
# The last column is 0 within its error at every $n$. So samples may be fewer than real pictures, and a result at $n = 500$ may be compared with one at $n = 5{,}000$. There is no floor, but there is *noise*, and it must be told. Deal both sets out to $B$ blocks that share no picture, and estimate once per block. The estimates $v_1 \dots v_B$ are independent, so their mean $\bar v$ has the standard error ([lesson 02](02_gaussians_and_moments.ipynb))
#
# $$\mathrm{SE} = \sqrt{\frac{1}{B(B-1)} \sum_{b=1}^{B} (v_b - \bar v)^2} \tag{14.7}$$

# %%
def in_blocks(a, b, blocks=10):
    """Kernel distance as a mean over blocks, with its standard error."""
    values = torch.tensor([float(mmd_squared(x, y)) for x, y in zip(a.chunk(blocks), b.chunk(blocks), strict=True)])
    return values.mean().item(), values.std().item() / math.sqrt(blocks)


from course_lib.evaluation import kernel_distance

for name in ("real", *card["config"]["calls"]):
    value, error = in_blocks(features[name], features["reference"])
    library = kernel_distance(features[name], features["reference"])
    print(f"{name:22s}{value:7.3f} ± {error:.3f}    library, other blocks: {library.value:.3f} ± {library.standard_error:.3f}")
    assert abs(value - library.value) < 5 * (error + library.standard_error)

# %% [markdown]
# Real pictures get 0 within the error, all models are many errors away from it. (Two things differ in other people's code. The usual KID draws a hundred *overlapping* blocks, and prints the standard deviation of one block for an error bar; that is neither the error of the mean nor smaller with more pictures. And features of Inception have another scale, so those numbers lie elsewhere.)
