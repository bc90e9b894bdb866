"""A network that is used, not trained: no gradients, no dropout, whatever happens around it."""

from __future__ import annotations

from torch import nn


class Freezable(nn.Module):
    """A module with `freeze()`: from then on `train()`, also of a network it is part of, leaves it in eval mode."""

    _frozen = False

    @property
    def frozen(self) -> bool:
        """Whether `freeze` was called."""
        return self._frozen

    def freeze(self) -> Freezable:
        """Take the parameters out of training and keep eval mode for good; returns the module."""
        self._frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Freezable:
        """As for every module, but a frozen one stays in eval mode."""
        return super().train(mode and not self._frozen)
