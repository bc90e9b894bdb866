"""The yardstick for Fashion-MNIST pictures: one fixed classifier, its features, and what they say about samples."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from course_lib import checkpoints, runtime
from course_lib.data.grey_sets import ImageSet
from course_lib.evaluation.frechet import distance_to_real, floor
from course_lib.evaluation.neighbours import nearest
from course_lib.models.classifier import Classifier

CONFIDENT = 0.8  # a picture counts as recognised when one class has at least this probability


@functools.cache
def fashion_classifier(device: torch.device | str | None = None) -> Classifier:
    """The shipped classifier, in eval mode and float32. Raises CheckpointError where it is missing or damaged."""
    tensors, _ = checkpoints.load("fashion_classifier", device=device or runtime.device())
    model = Classifier().to(device or runtime.device())
    model.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    return model.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the classifier sees in n pictures."""

    features: Float[Tensor, "n d"]
    probabilities: Float[Tensor, "n classes"]

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """The most probable class of each picture."""
        return self.probabilities.argmax(dim=1)

    @property
    def confident(self) -> float:
        """Share of the pictures whose most probable class has at least `CONFIDENT`."""
        return (self.probabilities.amax(dim=1) >= CONFIDENT).float().mean().item()

    @property
    def class_shares(self) -> list[float]:
        """Share of the pictures that are called each class."""
        return (torch.bincount(self.labels, minlength=self.probabilities.shape[1]) / len(self.labels)).tolist()


@torch.no_grad()
def look(images: Float[Tensor, "n 1 height width"], batch: int = 500) -> Seen:
    """Show pictures in [-1, 1] to the fixed classifier. In float32 whatever the precision, so that scores compare."""
    model = fashion_classifier(images.device)
    features = torch.cat([model.features(part.clamp(-1, 1)) for part in images.split(batch)])
    return Seen(features.cpu(), model.head(features).softmax(dim=1).cpu())


@dataclass(frozen=True)
class Report:
    """How good n samples are, each number beside that of as many real test pictures."""

    n: int
    frechet: float  # to n real test pictures, mean over several such sets
    floor: float  # of two disjoint sets of n real test pictures, mean over several pairs
    confident: float  # share with one class at CONFIDENT or more
    confident_real: float
    class_shares: tuple[float, ...]
    nearest: float  # median distance to the nearest training picture, root mean square in the units of [-1, 1]
    nearest_real: float

    @property
    def ratio(self) -> float:
        """Fréchet distance over its floor: 1 is as good as real pictures."""
        return self.frechet / self.floor

    def __str__(self) -> str:
        low, high = min(self.class_shares), max(self.class_shares)
        return (
            f"n = {self.n}, {Classifier.FEATURES} features: Fréchet distance {self.frechet:.3f} "
            f"(floor {self.floor:.3f}, ratio {self.ratio:.2f}), "
            f"confident {self.confident:.1%} (real {self.confident_real:.1%}), classes {low:.1%} to {high:.1%}, "
            f"nearest training picture at {self.nearest:.3f} (real {self.nearest_real:.3f})"
        )


def report(images: Float[Tensor, "n 1 32 32"], train: ImageSet, test: ImageSet, seed: int = 0) -> Report:
    """Compare samples with real test pictures, by the fixed classifier's features and by their pixels.

    Up to 4 n test pictures take part, chosen by `seed`. ValueError for more samples than half of the test set; a
    warning for so few (128 or less) that the features' covariance is singular.
    """
    n = len(images)
    if 2 * n > len(test):
        raise ValueError(f"images has n={n}, but the floor needs 2n real pictures and there are {len(test)}")
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))
    real = test.images(order[: 4 * n]).cpu()
    ours, theirs = look(images), look(real)
    return Report(
        n=n,
        frechet=distance_to_real(ours.features, theirs.features, seed),
        floor=floor(theirs.features, n, seed),
        confident=ours.confident,
        confident_real=theirs.confident,
        class_shares=tuple(ours.class_shares),
        nearest=nearest(images.cpu(), train.pixels.cpu()).distance.median().item(),
        nearest_real=nearest(real[:n], train.pixels.cpu()).distance.median().item(),
    )
