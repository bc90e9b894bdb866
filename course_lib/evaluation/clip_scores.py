"""How well pictures and sentences fit together, by their CLIP embeddings. All embeddings have length 1."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

HESSEL_WEIGHT = 2.5


def clip_score(
    image_emb: Float[Tensor, "n dim"],
    text_emb: Float[Tensor, "n dim"],
    scaling: Literal["cosine", "hessel", "torchmetrics"] = "cosine",
) -> Float[Tensor, " n"] | Float[Tensor, ""]:
    """How well picture i and sentence i agree.

    `cosine`: the plain similarity of each pair, -1 to 1. `hessel`: 2.5 · max(cosine, 0) of each pair (Hessel et al.
    2021, arXiv:2104.08718, equation 1). `torchmetrics`: one number, max(100 · mean cosine, 0), as that library prints.
    Scores of different CLIPs, or under different scalings, do not compare. Raises ValueError for another scaling and
    for embeddings that are not paired or not of length 1.
    """
    _checked(image_emb, "image_emb")
    _checked(text_emb, "text_emb")
    if image_emb.shape != text_emb.shape:
        raise ValueError(f"image_emb has shape {tuple(image_emb.shape)}, text_emb {tuple(text_emb.shape)}; pair them")
    cosine = (image_emb * text_emb).sum(dim=1)
    if scaling == "cosine":
        return cosine
    if scaling == "hessel":
        return HESSEL_WEIGHT * cosine.clamp(min=0)
    if scaling == "torchmetrics":
        return (100 * cosine.mean()).clamp(min=0)
    raise ValueError(f"scaling={scaling!r} is not known; use 'cosine', 'hessel' or 'torchmetrics'")


def zero_shot(image_emb: Float[Tensor, "n dim"], class_emb: Float[Tensor, "classes dim"]) -> Int[Tensor, " n"]:
    """The class whose sentence is most similar to each picture (Radford et al. 2021, section 3.1)."""
    return (_checked(image_emb, "image_emb") @ _checked(class_emb, "class_emb").T).argmax(dim=1)


def retrieval_at_k(
    image_emb: Float[Tensor, "n dim"],
    text_emb: Float[Tensor, "n dim"],
    k: int = 1,
    same: Bool[Tensor, "n n"] | None = None,
) -> tuple[float, float]:
    """Share of pictures with a right sentence among their k most similar ones, and of sentences with a right picture.

    `same[i, j]`: sentence j is right for picture i; None: sentence i only. Chance is about k / n.
    Raises ValueError for k outside 1…n.
    """
    n = len(image_emb)
    if not 1 <= k <= n:
        raise ValueError(f"k={k} must lie between 1 and the number of pairs, {n}")
    similarity = _checked(image_emb, "image_emb") @ _checked(text_emb, "text_emb").T
    right = torch.eye(n, dtype=torch.bool, device=similarity.device) if same is None else same
    by_image = right.gather(1, similarity.topk(k, dim=1).indices).any(dim=1)
    by_text = right.T.gather(1, similarity.T.topk(k, dim=1).indices).any(dim=1)
    return by_image.float().mean().item(), by_text.float().mean().item()


def above_shuffled(
    image_emb: Float[Tensor, "n dim"], text_emb: Float[Tensor, "n dim"], shift: int = 1,
    same: Bool[Tensor, "n n"] | None = None,
) -> float:  # fmt: skip
    """Share of pictures that are more similar to their own sentence than to another's, `shift` rows further on.

    Pairs in which the other sentence is right, too (`same`), are left out. Chance is ½.
    Raises ValueError where `shift` leads back to the own sentence, or nothing is left to compare.
    """
    n = len(image_emb)
    if n < 2 or shift % n == 0:
        raise ValueError(f"shift={shift} leads each of {n} pictures back to its own sentence; use one from 1 to n - 1")
    own = clip_score(image_emb, text_emb)
    other = clip_score(image_emb, text_emb.roll(-shift, dims=0))
    rows = torch.arange(n, device=own.device)
    counted = torch.ones_like(rows, dtype=torch.bool) if same is None else ~same[rows, (rows + shift) % n]
    if not counted.any():
        raise ValueError("same leaves no pair to compare: every other sentence is right, too")
    return (own > other)[counted].float().mean().item()


def _checked(embeddings: Tensor, name: str) -> Tensor:
    """`embeddings`, or ValueError if there are none or they are not of length 1."""
    if not len(embeddings):
        raise ValueError(f"{name} is empty; give at least one embedding")
    length = embeddings.float().norm(dim=1)
    if not torch.allclose(length, torch.ones_like(length), atol=1e-2):
        raise ValueError(
            f"{name} has rows of length {length.amin().item():.3g} to {length.amax().item():.3g}; "
            "divide each by its length (encode_image and encode_captions do)"
        )
    return embeddings
