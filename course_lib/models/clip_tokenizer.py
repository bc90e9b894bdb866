"""The tokenizer of OpenAI's CLIP: pieces of words, from the two files that are published with its weights.

Byte-pair encoding: a word begins as single bytes, and the pair of pieces that stands first in the list of merges is
joined, again and again, until no pair in the word is in the list. Sennrich, Haddow, Birch 2016, arXiv:1508.07909;
Radford et al. 2021, section 2.4. The course's own models read bytes and need no such files.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

START, END = "<|startoftext|>", "<|endoftext|>"
_WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:_|[^\s\w])+")
_LAST = "</w>"  # marks the last piece of a word


def _letters() -> dict[int, str]:
    """A printable letter for each of the 256 bytes: itself where it is one, else one from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    strange = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + k) for k, byte in enumerate(strange)}


class CLIPTokenizer:
    """Captions to ids, padded to `length` with the end token, as Stable Diffusion 1 wants them.

    `vocabulary`: piece to id; `merges`: pairs of pieces, first come first. Raises ValueError where the vocabulary
    lacks the start or the end token.
    """

    def __init__(self, vocabulary: dict[str, int], merges: Sequence[tuple[str, str]], length: int = 77) -> None:
        for token in (START, END):
            if token not in vocabulary:
                raise ValueError(f"vocabulary lacks {token!r}; give CLIP's vocab.json")
        self.vocabulary, self.length = vocabulary, length
        self.rank = {pair: rank for rank, pair in enumerate(merges)}
        self.letters = _letters()

    @classmethod
    def from_folder(cls, folder: Path | str) -> CLIPTokenizer:
        """From `vocab.json` and `merges.txt`. Raises FileNotFoundError where one is missing."""
        folder = Path(folder)
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
        return cls(vocabulary, merges)

    def pieces(self, word: str) -> list[str]:
        """One word in pieces of the vocabulary."""
        parts = [self.letters[byte] for byte in word.encode()]
        parts[-1] += _LAST
        while len(parts) > 1:
            pairs = list(itertools.pairwise(parts))
            best = min(pairs, key=lambda pair: self.rank.get(pair, len(self.rank)))
            if best not in self.rank:
                break
            joined, k = [], 0
            while k < len(parts):
                both = k + 1 < len(parts) and (parts[k], parts[k + 1]) == best
                joined.append(parts[k] + parts[k + 1] if both else parts[k])
                k += 1 + both
            parts = joined
        return parts

    def ids(self, caption: str) -> list[int]:
        """One caption, in small letters, without start, end and padding."""
        found = [piece for word in _WORDS.findall(caption.lower()) for piece in self.pieces(word)]
        return [self.vocabulary.get(piece, self.vocabulary[END]) for piece in found]

    def encode(self, captions: Sequence[str]) -> Int[Tensor, "n length"]:
        """Start, caption, end, and ends up to `length`; what is too long is cut. TypeError for a single string."""
        if isinstance(captions, str):
            raise TypeError("captions is one string; give a list of captions")
        start, end = self.vocabulary[START], self.vocabulary[END]
        rows = [[start, *self.ids(caption)[: self.length - 2], end] for caption in captions]
        return torch.tensor([row + [end] * (self.length - len(row)) for row in rows])
