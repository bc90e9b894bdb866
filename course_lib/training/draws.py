"""Random numbers that depend on the seed, the step and the place in the batch, and on nothing else.

So a training run can stop after any step and go on as if nothing had been, and two processes that share a batch draw
what one process would have drawn.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def key(*numbers: int) -> int:
    """One 63-bit seed from several whole numbers; other numbers, or another order, give an unrelated seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Draws:
    """The random numbers of one training step: rows `rows` of those that belong to a batch of `batch` pictures.

    Every call draws for the whole batch and hands out its rows, so calls must come in the same order in every process.
    """

    def __init__(self, seed: int, step: int, batch: int, rows: slice, device: torch.device | str = "cpu") -> None:
        self.step, self.batch, self.rows, self.device = step, batch, rows, torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(key(seed, step, 1))

    def normal(self, *shape: int) -> Float[Tensor, "rows ..."]:
        """Standard Gaussian numbers, `shape` of them for each picture."""
        return torch.randn(self.batch, *shape, generator=self.generator, device=self.device)[self.rows]

    def uniform(self, *shape: int) -> Float[Tensor, "rows ..."]:
        """Numbers from 0 (included) to 1 (not), `shape` of them for each picture."""
        return torch.rand(self.batch, *shape, generator=self.generator, device=self.device)[self.rows]

    def integers(self, high: int) -> Int[Tensor, " rows"]:
        """A whole number from 0 to high - 1 for each picture."""
        return torch.randint(high, (self.batch,), generator=self.generator, device=self.device)[self.rows]


class Order:
    """Which pictures make up which batch: each epoch in a new order, incomplete batches left out.

    Raises ValueError for a batch that is larger than the number of pictures.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        if not 1 <= batch <= count:
            raise ValueError(f"batch_size={batch} needs that many pictures, but there are {count}")
        self.count, self.batch, self.seed = count, batch, seed
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return self.count // self.batch

    def __call__(self, step: int) -> Int[Tensor, " batch"]:
        """Indices of the batch of this step, counted from 0."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(key(self.seed, epoch, 2))
            self._epoch, self._order = epoch, torch.randperm(self.count, generator=generator)
        return self._order[place * self.batch : (place + 1) * self.batch]
