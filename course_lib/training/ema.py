"""An exponential moving average of the weights: what one samples with."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


def ema_decay(step: int, decay: float | int) -> float:
    """Decay used at `step`, counted from 0: (1 + step) / (10 + step), until that reaches `decay`.

    The warm-up lets the average forget the first weights; at a constant 0.9999 they would still make up 95% of it
    after 500 steps.
    """
    return min(decay, (1 + step) / (10 + step))


class EMA(AveragedModel):
    """A copy of `model` whose weights follow it slowly; buffers (BatchNorm's statistics) are copied as they are."""

    def __init__(self, model: nn.Module, decay: float | int = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} must be at least 0 and below 1")

        def average(averaged: list[torch.Tensor], current: list[torch.Tensor], count: int | torch.Tensor) -> None:
            torch._foreach_lerp_(averaged, current, 1 - ema_decay(int(count), decay))

        super().__init__(model, multi_avg_fn=average)
        self.requires_grad_(False)
