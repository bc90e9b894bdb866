"""A tokenizer without a vocabulary file: text becomes its UTF-8 bytes, framed by a start and an end token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor


class ByteTokenizer:
    """Tokens 0…255 are bytes; 256 starts a text, 257 ends it, 258 pads it, 259 stands for a masked token.

    A text of up to `length` − 2 bytes fits. No text can contain a special token: bytes only reach 255.
    Raises ValueError for a length below 2.
    """

    start, end, pad, mask = 256, 257, 258, 259
    vocabulary = 260

    def __init__(self, length: int = 64) -> None:
        if isinstance(length, bool) or not isinstance(length, int) or length < 2:
            raise ValueError(f"length={length!r} must be a whole number of at least 2: a start and an end token")
        self.length = length

    def __repr__(self) -> str:
        return f"ByteTokenizer(length={self.length})"

    def encode(self, texts: Sequence[str]) -> tuple[Int64[Tensor, "n length"], Bool[Tensor, "n length"]]:
        """Tokens of each text, and a mask that is True for real tokens (start and end included), False for padding.

        Raises TypeError for something other than a list of strings; ValueError for a text that does not fit or
        that no UTF-8 can hold (half of a surrogate pair).
        """
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise TypeError(f"texts must be a list of strings, not {type(texts).__name__}; for one text use [text]")
        ids = torch.full((len(texts), self.length), self.pad)
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"texts[{i}] must be a string, not {type(text).__name__}")
            try:
                data = text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"texts[{i}] has half of a surrogate pair at character {error.start}, which is no text: {text!r}"
                ) from None
            if len(data) > self.length - 2:
                raise ValueError(
                    f"texts[{i}] is too long: {len(data)} bytes, {self.length - 2} fit beside start and end: {text!r}"
                )
            ids[i, : len(data) + 2] = torch.tensor([self.start, *data, self.end])
        return ids, ids != self.pad

    def decode(self, ids: Int64[Tensor, "n length"]) -> list[str]:
        """The texts: the bytes between start and end; special tokens are left out.

        Bytes that are no UTF-8 (a model may write such) become U+FFFD. Without an end token everything counts.
        Raises TypeError for anything but a tensor of whole numbers, ValueError for another shape or a token
        outside 0…259.
        """
        if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.dtype == torch.bool:
            kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
            raise TypeError(f"ids must be a tensor of whole numbers, not {kind}")
        if ids.ndim != 2:
            raise ValueError(f"ids must have the shape (texts, tokens), not {tuple(ids.shape)}")
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= self.vocabulary):
            raise ValueError(
                f"ids must lie between 0 and {self.vocabulary - 1}, but reach from {int(ids.min())} to {int(ids.max())}"
            )
        texts = []
        for row in ids.tolist():
            if self.end in row:
                row = row[: row.index(self.end)]
            texts.append(bytes(token for token in row if token < 256).decode("utf-8", errors="replace"))
        return texts
