"""A small classifier of 32×32 grey pictures whose last hidden layer serves as a yardstick for generated ones."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_lib.data.images import moved


def _block(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


class Classifier(nn.Module):
    """Pictures in [-1, 1] (batch, 1, side, side) to scores (batch, classes); `features` gives the layer before.

    Three levels of two convolutions each with 32, 64, 128 channels, max-pooled, then averaged over all pixels: 128
    features, so that the Fréchet distance needs thousands of pictures at most, not tens of thousands.
    """

    FEATURES = 128

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(1, 32), _block(32, 32), nn.MaxPool2d(2),
            _block(32, 64), _block(64, 64), nn.MaxPool2d(2),
            _block(64, 128), _block(128, self.FEATURES), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(self.FEATURES, classes)

    def features(self, x: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 128"]:
        """What the head sees: 128 numbers per picture, none negative."""
        return self.body(x)

    def forward(self, x: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch classes"]:
        """Scores (logits) of the classes."""
        return self.head(self.dropout(self.features(x)))


def augmented(images: Float[Tensor, "batch 1 height width"], mirror: Tensor, shift: Tensor) -> Tensor:
    """Pictures mirrored where `mirror` (batch,) is true and moved by `shift` (batch, 2) pixels, black coming in."""
    images = torch.where(mirror[:, None, None, None], images.flip(3), images)
    return moved(images, shift)
