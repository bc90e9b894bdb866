"""Text to tokens and back, for any text that fits."""

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from course_lib.data import ByteTokenizer

tokenizer = ByteTokenizer()
texts = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: len(text.encode()) <= 62)


@given(st.lists(texts, max_size=4))
@example([""])
@example(["\x00", "\x00\x00a\x00", "\x7f\x1b[0m\r\n\t"])
@example(["<start>", "<end><pad><mask>", "256 257 258 259", "Ā\u0101ÿ"])
@example(["生成模型", "🙂" * 15, "a" * 62, "é" * 31])
def test_round_trip(batch):
    ids, mask = tokenizer.encode(batch)
    assert ids.shape == mask.shape == (len(batch), 64)
    assert ids.dtype == torch.int64
    assert mask.dtype == torch.bool
    assert tokenizer.decode(ids) == batch
    for text, row, real in zip(batch, ids, mask, strict=True):
        n = len(text.encode())
        assert real.tolist() == [True] * (n + 2) + [False] * (62 - n)
        assert row.tolist() == [256, *text.encode(), 257] + [258] * (62 - n)


def test_the_special_tokens():
    assert (tokenizer.start, tokenizer.end, tokenizer.pad, tokenizer.mask) == (256, 257, 258, 259)
    assert tokenizer.vocabulary == 260
    assert repr(ByteTokenizer(16)) == "ByteTokenizer(length=16)"


def test_masked_and_unfinished_and_broken_texts():
    ids, _ = tokenizer.encode(["abc"])
    masked = ids.clone()
    masked[0, 2] = tokenizer.mask
    assert tokenizer.decode(masked) == ["ac"]
    assert tokenizer.decode(ids[:, :3]) == ["ab"]
    assert tokenizer.decode(torch.tensor([[256, 0xC3, 257]])) == ["\ufffd"]
    assert tokenizer.decode(torch.tensor([[256, 104, 257, 105, 257]])) == ["h"]


def test_another_length():
    assert ByteTokenizer(4).encode(["ab"])[0].tolist() == [[256, 97, 98, 257]]
