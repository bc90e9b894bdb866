"""How much noise hides a garment: test accuracy of a linear reader of Fashion-MNIST against the log-SNR.

At each noise level a ridge classifier is fitted, in closed form, to noisy training images and read off on noisy test
images. Chance is 10%. A schedule enters only through the log-SNR, so one curve serves every schedule. Lesson 05 shows
it and measures one of its points again.
"""

from __future__ import annotations

import time

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from course_lib import checkpoints, runtime
from course_lib.data import fashion_mnist
from course_lib.data.grey_sets import ImageSet
from course_lib.recipes import _card

LOG_SNRS = tuple(range(-10, 7))  # nats, for an image of variance 1
SEEDS = (0, 1, 2)
TRAIN_IMAGES, TEST_IMAGES = 10_000, 10_000
RIDGE = 1.0


def noisy_features(
    images: Float[Tensor, "n channel height width"], log_snr: float, generator: torch.Generator
) -> Float[Tensor, "n pixels"]:
    """√ᾱ image + √(1 - ᾱ) noise with ᾱ = sigmoid(log_snr), one row per image, and a last column of ones."""
    alpha_bar = torch.sigmoid(torch.tensor(log_snr, dtype=torch.float64)).item()
    noise = torch.randn(images.shape, generator=generator)
    x_t = alpha_bar**0.5 * images + (1 - alpha_bar) ** 0.5 * noise
    return torch.cat([x_t.flatten(1), torch.ones(len(images), 1)], dim=1)


def accuracy(train: ImageSet, test: ImageSet, log_snr: float, seed: int) -> float:
    """Share of noisy test images that a ridge classifier, fitted to noisy training images, names rightly.

    `seed` draws the noise and which 10,000 training images are used; the test images are the first 10,000.
    """
    generator = runtime.generator(seed)
    rows = torch.randperm(len(train), generator=generator)[:TRAIN_IMAGES]
    classes = len(train.class_names)
    x = noisy_features(train.images(rows), log_snr, generator)
    targets = torch.nn.functional.one_hot(train.labels[rows], classes).float() - 1 / classes
    weights = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(x.shape[1]), x.T @ targets)
    rows = torch.arange(min(len(test), TEST_IMAGES))
    guessed: Int[Tensor, "n"] = (noisy_features(test.images(rows), log_snr, generator) @ weights).argmax(dim=1)
    return (guessed == test.labels[rows]).float().mean().item()


def train() -> None:
    """Measure the whole curve for three seeds and store it as the checkpoint `recognition_curve`."""
    started = time.monotonic()
    train_set, test_set = fashion_mnist("train"), fashion_mnist("test")
    table = torch.zeros(len(LOG_SNRS), len(SEEDS), dtype=torch.float64)
    for i, log_snr in enumerate(tqdm(LOG_SNRS, desc="noise levels")):
        for k, seed in enumerate(SEEDS):
            table[i, k] = accuracy(train_set, test_set, log_snr, seed)
    path = checkpoints.save(
        "recognition_curve",
        {"log_snr": torch.tensor(LOG_SNRS, dtype=torch.float64), "accuracy": table},
        {
            "recipe": "recognition_curve",
            "config": {"seeds": list(SEEDS), "ridge": RIDGE, "train_images": TRAIN_IMAGES, "test_images": TEST_IMAGES},
            "seed": SEEDS[0],
            "data": f"Fashion-MNIST, padded to 32x32, {TRAIN_IMAGES} training images, measured on its test set",
            "commit": _card.commit(),
            "hardware": _card.hardware(),
            "minutes": round((time.monotonic() - started) / 60, 2),
            "metrics": {
                "test accuracy at the cleanest level": {"value": round(table[-1].mean().item(), 4), "floor": 0.1},
                "test accuracy at the noisiest level": {"value": round(table[0].mean().item(), 4), "floor": 0.1},
            },
        },
        dtype=None,
    )
    print(f"written: {path}")
