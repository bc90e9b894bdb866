"""The unCLIP prior: from a sentence to the CLIP embedding of a picture that it could describe.

A causal transformer reads, in this order: the encoded caption, its CLIP embedding, the time, the noisy image embedding,
and a learned query, whose output is the guess of the clean embedding. Many pictures fit one sentence, so one guess is
only their mean; sampling step by step, as with any diffusion model, draws one of them.
Ramesh et al. 2022, arXiv:2204.06125, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from course_lib.diffusion import Schedule, dpm_solver_pp_2m, sample
from course_lib.diffusion.guidance import Guided
from course_lib.diffusion.schedule import gather
from course_lib.models.conditions import TextCondition, check_told
from course_lib.models.text_unet import Withheld
from course_lib.nn import Freezable, TimeMLP, TransformerBlock, timestep_embedding

EXTRA = 4  # tokens after the caption: its embedding, the time, the noisy image embedding, the query


@dataclass(frozen=True)
class PriorConfig:
    """Sizes of a `Prior`."""

    dim: int = 128  # of CLIP's embeddings
    text_width: int = 128  # of CLIP's token states
    text_length: int = 64
    width: int = 160
    layers: int = 4
    heads: int = 4
    dropout: float | int = 0.0
    bias: bool = True
    T: int = 1000
    guess_width: int = 512  # of the network that makes the first guess, see `FirstGuess`

    @classmethod
    def sources(cls) -> PriorConfig:
        """The sizes that the course's sources train on Fashion-MNIST."""
        return cls(dim=256, text_width=256, width=256, layers=6, heads=8, dropout=0.2, bias=False)


def causal(length: int, device: torch.device | str | None = None) -> Bool[Tensor, "length length"]:
    """True where a token (row) may look at another (column): at itself and at those before it."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def looks(real: Bool[Tensor, "n length"]) -> Bool[Tensor, "n 1 length length"]:
    """The mask for `TransformerBlock`: a token looks at itself, and at the real ones before it.

    `real` is True for real tokens. Padding looks at itself, too: a row that sees nothing has no weights.
    """
    length = real.shape[1]
    itself = torch.eye(length, dtype=torch.bool, device=real.device)
    return causal(length, real.device) & real[:, None, None, :] | itself


def check_fits(config: PriorConfig, x_t: Tensor, cond: object) -> None:
    """Raise TypeError for a condition that is no `TextCondition`, ValueError for one that doesn't fit the network."""
    check_told(cond, TextCondition, len(x_t))
    if cond.tokens.ndim != 3:
        raise ValueError(
            "cond.tokens are token numbers; this network reads encoded ones: text_condition(clip, captions)"
        )
    given = (x_t.shape[1], cond.embedding.shape[1], cond.tokens.shape[2])
    if given != (config.dim, config.dim, config.text_width):
        raise ValueError(
            f"x_t, cond.embedding and cond.tokens have the widths {given}; this prior takes {config.dim}, "
            f"{config.dim} and {config.text_width}: give it the CLIP it was trained with"
        )
    if cond.tokens.shape[1] > config.text_length:
        raise ValueError(f"cond has {cond.tokens.shape[1]} tokens, at most {config.text_length} fit")


class FirstGuess(nn.Module):
    """Where the clean embedding lies by the sentence alone: mean and variance of each of its numbers.

    It starts with the sentence's embedding itself, and a variance of .03.
    """

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.line = nn.Linear(dim, dim)
        self.bend = nn.Sequential(
            nn.Linear(dim, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 2 * dim)
        )
        nn.init.eye_(self.line.weight)
        for start in (self.line.bias, self.bend[-1].weight, self.bend[-1].bias):
            nn.init.zeros_(start)

    def forward(self, sentence: Float[Tensor, "n dim"]) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n dim"]]:
        """Sentence embeddings of length √dim to means and variances."""
        shift, log = self.bend(sentence).float().chunk(2, dim=1)
        bounded = log + (log.clamp(-6, 4) - log).detach()  # its gradient doesn't end at the bounds, so it can come back
        return self.line(sentence).float() + shift, 0.03 * bounded.exp()


class Prior(Freezable):
    """(x_t, t, TextCondition) -> the clean image embedding, in units where an embedding has length √dim.

    With that length its numbers have a mean square of 1, like the noise; at length 1 they would drown in it a few steps
    in. The transformer does not write the answer anew. It corrects what Bayes' rule says of a Gaussian: before x_t is
    seen, the clean embedding lies around a first guess, with a variance that is guessed, too; seeing x_t moves the
    mean, and the correction is in units of the standard deviation that remains. A network that writes anew errs by more
    than pictures of one caption differ.
    Raises TypeError for a condition that is no `TextCondition`, ValueError for one that doesn't fit the network.
    """

    prediction = "x_start"

    def __init__(self, config: PriorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or PriorConfig()
        self.schedule = Schedule.cosine(config.T)
        width = config.width
        self.caption = nn.Linear(config.text_width, width)
        self.sentence = nn.Linear(config.dim, width)
        self.time = TimeMLP(width, width)
        self.noisy = nn.Linear(config.dim, width)
        self.query = nn.Parameter(0.02 * torch.randn(width))
        self.no_token, self.no_sentence, self.no_guess = Withheld(width), Withheld(width), Withheld(config.dim)
        self.first = FirstGuess(config.dim, config.guess_width)
        self.positions = nn.Parameter(0.2 * torch.randn(config.text_length + EXTRA, width))
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.heads, dropout=config.dropout, bias=config.bias)
            for _ in range(config.layers)
        )
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, config.dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def tokens(
        self, x_t: Float[Tensor, "n dim"], t: Int[Tensor, " n"], cond: TextCondition
    ) -> tuple[Float[Tensor, "n tokens width"], Bool[Tensor, "n tokens"]]:
        """The sequence, and which of its tokens are real. Withheld captions leave one learned token and no other."""
        caption, real = self.no_token.tokens(self.caption(cond.tokens), cond.real, cond.keep)
        sentence = self.no_sentence.vector(self.sentence(self.config.dim**0.5 * cond.embedding), cond.keep)
        time = self.time(timestep_embedding(t, self.config.width).to(x_t.dtype))
        parts = [sentence, time, self.noisy(x_t), self.query.expand(len(x_t), -1)]
        x = torch.cat([caption, torch.stack([part.to(caption.dtype) for part in parts], dim=1)], dim=1)
        places = torch.cat([self.positions[: caption.shape[1]], self.positions[-EXTRA:]])
        return x + places, F.pad(real, (0, EXTRA), value=True)

    def transform(
        self, tokens: Float[Tensor, "n tokens width"], real: Bool[Tensor, "n tokens"]
    ) -> Float[Tensor, "n tokens width"]:
        """The transformer: output i depends on real tokens up to i only."""
        mask = looks(real)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return self.norm(tokens)

    def forward(self, x_t: Float[Tensor, "n dim"], t: Int[Tensor, " n"], cond: TextCondition) -> Float[Tensor, "n dim"]:
        """Guess the clean embedding (of length √dim) from the noisy one, the step 0…T-1 and one sentence each."""
        check_fits(self.config, x_t, cond)
        bar = gather(self.schedule.alpha_bars, t, x_t)
        guess, variance = self.guess(cond)
        total = bar * variance + 1 - bar  # variance of x_t around √ᾱ guess
        surprise = x_t - bar.sqrt() * guess
        tokens, real = self.tokens(surprise / total.detach().sqrt(), t, cond)
        correction = self.out(self.transform(tokens, real)[:, -1]).to(x_t.dtype)
        mean = guess + bar.sqrt() * variance / total * surprise
        return mean + self.left(t, variance).sqrt() * correction

    def guess(self, cond: TextCondition) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n dim"]]:
        """Mean and variance of the clean embedding's numbers from the sentence alone; of a withheld one, variance 1."""
        mean, variance = self.first(self.config.dim**0.5 * cond.embedding)
        return self.no_guess.vector(mean, cond.keep), torch.where(cond.keep[:, None], variance, 1.0)

    def left(self, t: Int[Tensor, " n"], variance: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """The variance that is left of `variance` once x_t is seen: one over it is the weight of a squared error.

        No gradient flows through it: the variance is learned from how far x_t should move the mean.
        """
        bar, variance = gather(self.schedule.alpha_bars, t, variance), variance.detach()
        return variance * (1 - bar) / (bar * variance + 1 - bar)


def towards_clean(T: int, steps: int) -> list[int]:
    """`steps` of the times 0…T-1, falling, spaced by squares: most of them lie near the clean embedding.

    Pictures of one caption differ by little. The last step gives a mean, not a sample, so it must start where less
    noise is left than they differ by. Raises ValueError unless 1 ≤ steps ≤ T. Song et al. 2021, appendix D.3.
    """
    if not 1 <= steps <= T:
        raise ValueError(f"steps={steps} must lie between 1 and {T}: no time is visited twice")
    found: list[int] = []
    for k in range(1, steps + 1):
        found.append(max(round(T * (k / steps) ** 2) - 1, found[-1] + 1 if found else 0))
    return found[::-1]


@torch.no_grad()
def draw_embeddings(
    prior: Prior,
    text: TextCondition,
    *,
    draws: int = 2,
    scale: float | int = 1.0,
    steps: int = 25,
    sampler: Callable = dpm_solver_pp_2m,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Float[Tensor, "n dim"]:
    """One image embedding of length 1 per sentence: of `draws` samples, the one closest to the sentence's embedding.

    Raises ValueError for fewer than one draw. Ramesh et al. 2022, section 2.2: two draws.
    """
    if draws < 1:
        raise ValueError(f"draws={draws} must be at least 1")
    rows = torch.arange(len(text), device=text.embedding.device).repeat(draws)
    repeated = text[rows]
    guided = Guided(prior, null=repeated.null(), scale=scale)
    shape = (len(rows), prior.config.dim)
    x = sample(
        guided, prior.schedule, shape, steps, sampler=sampler, timesteps=towards_clean(prior.config.T, steps),
        cond=repeated, generator=generator, device=text.embedding.device, progress=progress,
    )  # fmt: skip
    found = F.normalize(x.float(), dim=-1).unflatten(0, (draws, len(text)))
    return closest(found, text.embedding)


def closest(candidates: Float[Tensor, "draws n dim"], text: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Of each sentence's candidates, the one with the largest dot product with the sentence's embedding."""
    best = torch.einsum("knd,nd->kn", candidates, text.to(candidates.dtype)).argmax(dim=0)
    return candidates[best, torch.arange(candidates.shape[1], device=best.device)]
