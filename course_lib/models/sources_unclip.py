"""The unCLIP of the course's sources, as they configured it for Fashion-MNIST: three networks, and how each is trained.

    SOURCES.prior.network          # sizes: a PriorConfig
    SOURCES.prior.batch_size       # 128
    optimizer = SOURCES.prior.optimizer(network.parameters())
    schedule = SOURCES.prior.learning_rates(optimizer)  # schedule.step() once per epoch

And `FiveTokens`, the sequence that their prior reads, built from an encoded caption rather than from raw token numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from course_lib.models.clip import CLIPConfig
from course_lib.models.conditions import TextCondition
from course_lib.models.prior import PriorConfig, causal, check_fits
from course_lib.models.unclip import DecoderConfig
from course_lib.nn import TimeMLP, TransformerBlock, timestep_embedding

# --- how the three are trained ---------------------------------------------------------------------------------------


def optimizer(
    parameters: Iterable[nn.Parameter], learning_rate: float | int, weight_decay: float | int = 0.0
) -> Optimizer:
    """AdamW where there is a weight decay, else Adam. Raises ValueError for a negative weight decay."""
    if weight_decay < 0:
        raise ValueError(f"weight_decay={weight_decay} must be at least 0")
    if weight_decay:
        return AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    return Adam(parameters, lr=learning_rate)


def learning_rates(
    optimizer: Optimizer, epochs: int, warmup_epochs: int = 5, lowest: float | int = 1e-5
) -> LRScheduler:
    """A rate per epoch: 1/W, 2/W … W/W of the full one in the first W epochs, then along a cosine to `lowest`.

    Call `step()` at the end of each epoch; the last of `epochs` has the lowest rate. Raises ValueError unless
    0 ≤ warmup_epochs < epochs.
    """
    if not 0 <= warmup_epochs < epochs:
        raise ValueError(f"warmup_epochs={warmup_epochs} must be at least 0 and below epochs={epochs}")
    full = max(warmup_epochs - 1, 0)  # the epoch with the full rate, counted from 0
    if not full:
        return CosineAnnealingLR(optimizer, T_max=max(epochs - 1, 1), eta_min=lowest)
    climb = LinearLR(optimizer, start_factor=1 / warmup_epochs, total_iters=full)
    fall = CosineAnnealingLR(optimizer, T_max=epochs - 1 - full, eta_min=lowest)
    return SequentialLR(optimizer, [climb, fall], milestones=[full])


@dataclass(frozen=True)
class Training:
    """One of the three networks, and how it is trained."""

    network: CLIPConfig | PriorConfig | DecoderConfig
    batch_size: int
    epochs: int
    augment: bool = False
    learning_rate: float = 5e-4
    lowest_rate: float = 1e-5
    weight_decay: float = 1e-4
    warmup_epochs: int = 5
    clip_norm: float = 1.0  # longest gradient

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimiser: see the function of that name."""
        return optimizer(parameters, self.learning_rate, self.weight_decay)

    def learning_rates(self, optimizer: Optimizer) -> LRScheduler:
        """The rate of each epoch: see the function of that name."""
        return learning_rates(optimizer, self.epochs, self.warmup_epochs, self.lowest_rate)


@dataclass(frozen=True)
class Standardize:
    """Pictures with grey values from 0 to 1 -> (picture - mean) / std, and back, so that they can be shown."""

    mean: float
    std: float

    def __call__(self, pictures: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Standardise: over the training set, mean 0 and variance 1."""
        return (pictures - self.mean) / self.std

    def inverse(self, values: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Grey values again; what lies outside 0…1 stays outside."""
        return values * self.std + self.mean

    @property
    def range(self) -> tuple[float, float]:
        """What black and white become. Not -1 and 1: whoever clips to these loses the light half of every garment."""
        return (0 - self.mean) / self.std, (1 - self.mean) / self.std


@dataclass(frozen=True)
class FashionMNIST:
    """What the three share. Nothing in it can be changed, so no experiment can change another one's settings."""

    dim: int = 256  # of the CLIP embeddings
    side: int = 32  # pixels, resized from 28
    channels: int = 1
    vocabulary: int = 256
    text_length: int = 64
    flip: float = 0.5  # probability, when a CLIP is trained
    crop_padding: int = 4
    split: tuple[int, int] = (50_000, 10_000)
    pixels: Standardize = field(default_factory=lambda: Standardize(0.2855552, 0.33848408))
    clip: Training = field(default_factory=lambda: Training(CLIPConfig.sources(), 128, 200, augment=True))
    prior: Training = field(default_factory=lambda: Training(PriorConfig.sources(), 128, 150))
    decoder: Training = field(default_factory=lambda: Training(DecoderConfig.sources(), 32, 100))


SOURCES = FashionMNIST()

# --- the sequence that their prior reads -----------------------------------------------------------------------------


def raw_caption(ids: Int[Tensor, "n length"], width: int = 256) -> Float[Tensor, "n width"]:
    """The sources' "caption embedding": token numbers cut off, or filled up with zeros, at `width`. Names, not amounts.

    Kept to show what is wrong with it; no network of the course reads it.
    """
    return nn.functional.pad(ids[:, :width], (0, max(0, width - ids.shape[1]))).float()


class FiveTokens(nn.Module):
    """(x_t, t, TextCondition) -> x_start by the sources' layout: one token for everything that there is.

    Caption, sentence embedding, time, noisy embedding and a learned query make (n, 5, width). In place of raw token
    numbers the caption is the mean of its encoded tokens. `Prior` gives it a token per byte instead.
    Like the sources' it can't withhold a caption. Raises what `Prior` does.
    """

    prediction = "x_start"

    def __init__(self, config: PriorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SOURCES.prior.network
        self.caption = nn.Linear(config.text_width, config.width, bias=config.bias)
        self.sentence, self.noisy = (nn.Linear(config.dim, config.width, bias=config.bias) for _ in range(2))
        self.time = TimeMLP(config.width, config.width)
        self.query = nn.Parameter(0.02 * torch.randn(config.width))
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads, dropout=config.dropout, bias=config.bias)
            for _ in range(config.layers)
        )
        self.norm, self.out = nn.LayerNorm(config.width), nn.Linear(config.width, config.dim, bias=config.bias)

    def tokens(
        self, x_t: Float[Tensor, "n dim"], t: Int[Tensor, " n"], cond: TextCondition
    ) -> Float[Tensor, "n 5 width"]:
        """The five tokens, in the sources' order."""
        real = cond.real[:, :, None].to(cond.tokens.dtype)
        caption = (cond.tokens * real).sum(dim=1) / real.sum(dim=1)
        parts = (
            self.caption(caption),
            self.sentence(self.config.dim**0.5 * cond.embedding),
            self.time(timestep_embedding(t, self.config.width).to(x_t.dtype)),
            self.noisy(x_t),
            self.query.expand(len(x_t), -1),
        )
        return torch.stack(parts, dim=1)

    def forward(self, x_t: Float[Tensor, "n dim"], t: Int[Tensor, " n"], cond: TextCondition) -> Float[Tensor, "n dim"]:
        """Guess the clean embedding (of length √dim) from what the last of the five tokens found."""
        check_fits(self.config, x_t, cond)
        tokens, mask = self.tokens(x_t, t, cond), causal(5, x_t.device)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return self.out(self.norm(tokens[:, -1]))
