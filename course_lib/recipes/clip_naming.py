"""Which thing is where: each encoder of the shapes' CLIP learns to say it, alone.

Thousands of steps of contrastive training leave "a red ring left of a blue star" and the opposite at a coin toss,
though both are in every batch. Neither encoder gains anything by telling them apart before the other one does. So each
learns by itself to name the things through one linear layer, which is then thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from course_lib import runtime
from course_lib.data import ByteTokenizer
from course_lib.data.images import from_uint8
from course_lib.data.shapes_scene import COLORS, SHAPES, SIZES, Scene
from course_lib.training import Draws

RELATIONS = ("left of", "above")  # of a canonical scene
THING = (SIZES, COLORS, SHAPES)
QUESTIONS = (RELATIONS, *THING, *THING)  # the relation; size, color and shape of the left or upper thing; of the other
SHARPNESS = 16.0  # embeddings have length 1: too short for a linear layer to be sure of anything


def answers(scenes: Sequence[Scene]) -> Int[Tensor, "n questions"]:
    """The right answers for scenes of two objects, as indices into `QUESTIONS`."""
    rows = []
    for scene in (scene.canonical for scene in scenes):
        words = [scene.place, *(word for thing in scene.things for word in (thing.size, thing.color, thing.shape))]
        rows.append([choices.index(word) for choices, word in zip(QUESTIONS, words, strict=True)])
    return torch.tensor(rows).reshape(-1, len(QUESTIONS))


class Namer(nn.Module):
    """One of the encoders, and a linear layer that names what the embedding holds."""

    def __init__(self, encoder: nn.Module, dim: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(dim, sum(map(len, QUESTIONS)))

    def forward(self, *inputs: Tensor) -> tuple[Float[Tensor, "n choices"], ...]:
        """Logits for each question."""
        found = self.head(SHARPNESS * F.normalize(self.encoder(*inputs), dim=-1).float())
        return found.split([len(choices) for choices in QUESTIONS], dim=1)


def naming_loss(logits: Sequence[Tensor], right: Int[Tensor, "n questions"]) -> Float[Tensor, ""]:
    """Cross-entropy of the right answers, in nats, summed over the questions."""
    return torch.stack([F.cross_entropy(each, right[:, q]) for q, each in enumerate(logits)]).sum()


def all_right(logits: Sequence[Tensor], right: Int[Tensor, "n questions"]) -> float:
    """Share of scenes in which every question is answered right."""
    guesses = torch.stack([each.argmax(dim=1) for each in logits], dim=1)
    return (guesses == right.to(guesses.device)).all(dim=1).float().mean().item()


def name_pictures(model: nn.Module, batch: tuple[Tensor, ...], draws: Draws) -> Tensor:
    """The loss of the image encoder: a batch is (pictures as bytes, token ids of every wording, right answers)."""
    pixels, _, right = (part.flatten(0, 1) for part in batch)
    return naming_loss(model(from_uint8(pixels).contiguous(memory_format=torch.channels_last)), right)


def name_captions(model: nn.Module, batch: tuple[Tensor, ...], draws: Draws) -> Tensor:
    """The loss of the text encoder, each caption in a wording drawn for it."""
    _, ids, right = (part.flatten(0, 1) for part in batch)
    wording = (draws.uniform(4).flatten() * ids.shape[1]).long()
    ids = ids[torch.arange(len(ids), device=ids.device), wording].long()
    longest = int((ids != ByteTokenizer.pad).sum(dim=1).amax())
    ids = ids[:, :longest]
    return naming_loss(model(ids, ids != ByteTokenizer.pad), right)


def namer(encoder: nn.Module, dim: int, seed: int = 0) -> Namer:
    """A `Namer` whose linear layer is the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Namer(encoder, dim).to(runtime.device())
