"""From a sentence to a picture: CLIP reads it, the prior draws an image embedding, the decoder draws the picture.

    from course_lib.pipelines import TextToImage

    images = TextToImage.load("shapes")(["a small red circle above a large blue square"])   # (1, 3, 32, 32) in [-1, 1]

The three parts were trained separately, and can be called separately: `embed`, `paint`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from course_lib import runtime
from course_lib.data import shapes
from course_lib.diffusion import ddim
from course_lib.diffusion.guidance import check_scale
from course_lib.models.clip import CLIP
from course_lib.models.conditions import decoder_condition, text_condition
from course_lib.models.prior import Prior, draw_embeddings
from course_lib.models.unclip import UnclipDecoder
from course_lib.recipes import _decoder, clip_fashion, clip_shapes, decoder_fashion, decoder_shapes, prior_fashion
from course_lib.recipes import prior_shapes as prior_of_shapes
from course_lib.recipes._weights import fingerprint

KINDS = ("shapes", "fashion")


@dataclass(frozen=True, eq=False)
class TextToImage:
    """The three parts, frozen. Raises ValueError for parts that were trained with different CLIPs."""

    clip: CLIP
    prior: Prior
    decoder: UnclipDecoder
    guidance: float | int = 2.0  # of the decoder, where a call names none
    kind: str = ""  # "shapes" or "fashion" for the shipped ones: what sentences may be about

    def __post_init__(self) -> None:
        own = fingerprint(self.clip)
        for name in ("prior", "decoder"):
            trained_with = getattr(getattr(self, name), "clip_fingerprint", None)
            if trained_with is not None and trained_with != own:
                raise ValueError(
                    f"{name} was trained with another CLIP than the one given (fingerprint {trained_with}, not {own}); "
                    "embeddings of one CLIP mean nothing to another: take parts that belong together"
                )
        dims = (self.clip.config.dim, self.prior.config.dim, self.decoder.config.image_dim)
        if len(set(dims)) > 1:
            raise ValueError(f"clip, prior and decoder have embeddings of width {dims}; they must be equal")

    @classmethod
    def load(cls, kind: Literal["shapes", "fashion"] = "shapes") -> TextToImage:
        """The shipped parts, on the course's device. Raises ValueError for another kind, CheckpointError for damage."""
        if kind == "shapes":
            parts = clip_shapes.load(), prior_of_shapes.load(), decoder_shapes.load()
            return cls(*parts, guidance=decoder_shapes.SCALE, kind=kind)
        if kind == "fashion":
            parts = clip_fashion.load(), prior_fashion.load(), decoder_fashion.load()
            return cls(*parts, guidance=decoder_fashion.SCALE, kind=kind)
        raise ValueError(f"kind={kind!r} is not known; use one of {', '.join(map(repr, KINDS))}")

    def check(self, captions: Sequence[str]) -> list[str]:
        """The captions, if this pipeline can read them; those of shapes in small letters, as it was taught.

        Raises TypeError for something other than a list of strings; ValueError for none at all, for one that is empty,
        too long or not ASCII, and for one that is no sentence about shapes where the parts know nothing else.
        """
        self.clip.tokens(captions)
        return shapes.plain(captions) if self.kind == "shapes" else list(captions)

    def embed(
        self, captions: Sequence[str], *, seed: int = 0, draws: int = 2, guidance: float | int = 1.0
    ) -> Float[Tensor, "n dim"]:
        """An image embedding of length 1 per sentence, drawn by the prior: of `draws`, the closest to the sentence."""
        text = text_condition(self.clip, self.check(captions))
        generator = runtime.generator(seed, text.embedding.device)
        return draw_embeddings(self.prior, text, draws=draws, scale=guidance, generator=generator)

    def paint(
        self,
        embeddings: Float[Tensor, "n dim"],
        captions: Sequence[str] | None = None,
        *,
        seed: int = 0,
        guidance: float | int | None = None,
        steps: int | None = 25,
        sampler: Callable = ddim,
        progress: bool = True,
        **options: object,
    ) -> Float[Tensor, "n channel height width"]:
        """A picture in [-1, 1] per image embedding, on the CPU; the captions help where they are given.

        Raises ValueError for embeddings of another width, captions in another number, or a guidance below 0.
        """
        scale = check_scale(self.guidance if guidance is None else guidance, "guidance")
        dim = self.decoder.config.image_dim
        if embeddings.ndim != 2 or embeddings.shape[1] != dim:
            raise ValueError(f"embeddings has shape {tuple(embeddings.shape)}; this decoder takes (n, {dim})")
        if captions is not None and len(captions) != len(embeddings):
            raise ValueError(f"captions holds {len(captions)} sentences, but there are {len(embeddings)} embeddings")
        given = self.check(captions) if captions is not None else ["?"] * len(embeddings)
        text = text_condition(self.clip, given).kept(captions is not None)
        embeddings = F.normalize(embeddings.to(text.embedding), dim=-1)
        return _decoder.draw(
            self.decoder, decoder_condition(embeddings, text), scale=scale, steps=steps, seed=seed, progress=progress,
            sampler=sampler, **options,
        )  # fmt: skip

    def __call__(
        self, captions: Sequence[str], *, seed: int = 0, guidance: float | int | None = None, steps: int | None = 25,
        **options: object,
    ) -> Float[Tensor, "n channel height width"]:  # fmt: skip
        """A picture in [-1, 1] per sentence: `embed`, then `paint`, both with this seed."""
        check_scale(self.guidance if guidance is None else guidance, "guidance")  # before any work
        embeddings = self.embed(captions, seed=seed)
        return self.paint(embeddings, captions, seed=seed, guidance=guidance, steps=steps, **options)

    @torch.no_grad()
    def variations(
        self, image: Float[Tensor, "channel height width"], n: int = 8, *, seed: int = 0, **options: object
    ) -> Float[Tensor, "n channel height width"]:
        """n pictures with the CLIP embedding of one: what CLIP sees in it stays, the rest is drawn anew.

        Raises ValueError for n below 1, and what `CLIP.encode_image` raises. Ramesh et al. 2022, section 3.1.
        """
        if n < 1:
            raise ValueError(f"n={n} must be at least 1")
        embedding = self.clip.encode_image(image[None].to(self.clip.log_scale.device))
        return self.paint(embedding.expand(n, -1), seed=seed, **options)
