"""The yardstick for Fashion-MNIST: a classifier, trained before any generator was scored, and fixed since.

Mirrored and slightly moved training pictures, cross-entropy, a moving average of the weights. Its accuracy is measured
on the test set, which it never saw.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import checkpoints, runtime
from course_lib.data import fashion_mnist
from course_lib.data.grey_sets import ImageSet
from course_lib.models.classifier import Classifier, augmented
from course_lib.recipes import _card
from course_lib.training import Draws, FitConfig, fit

NAME = "fashion_classifier"
CONFIG = FitConfig(steps=6_000, batch_size=128, learning_rate=2e-3, warmup=200, weight_decay=0.02, ema=0.998)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor], draws: Draws) -> Tensor:
    """Cross-entropy of augmented pictures: mirrored in half of all cases, moved by up to two pixels."""
    images, labels = batch
    shift = torch.stack([draws.integers(5), draws.integers(5)], dim=1) - 2
    images = augmented(images, draws.uniform() < 0.5, shift)
    return F.cross_entropy(model(images.contiguous(memory_format=torch.channels_last)), labels)


@torch.no_grad()
def accuracy(model: nn.Module, test: ImageSet, batch: int = 500) -> float:
    """Share of the set's pictures that the model names rightly."""
    device = next(model.parameters()).device
    right = 0
    for first in range(0, len(test), batch):
        some = slice(first, first + batch)
        right += (model(test.images(some).to(device)).argmax(1) == test.labels[some].to(device)).sum().item()
    return right / len(test)


def train(folder: str | None = None, config: FitConfig = CONFIG) -> None:
    """Train it (resumable, state in `folder`) and store the checkpoint `fashion_classifier` with its card."""
    train_set, test_set = (fashion_mnist(split).to(runtime.device()) for split in ("train", "test"))
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = Classifier().to(memory_format=torch.channels_last)

    def batches(index: Tensor) -> Any:
        return train_set.images(index), train_set.labels[index.to(train_set.device)]

    run = fit(model, loss, batches, len(train_set), config, folder=folder or runtime.state_root() / "runs" / NAME)
    score = accuracy(run.best, test_set)
    path = checkpoints.save(
        NAME,
        run.best.state_dict(),
        _card.of_run(
            NAME,
            config,
            run,
            data="Fashion-MNIST, padded to 32x32, all 60,000 training images; measured on its 10,000 test images",
            metrics={"test accuracy": {"value": round(score, 4), "floor": 0.1}},
        ),
    )
    print(f"test accuracy {score:.2%}; written: {path}")
