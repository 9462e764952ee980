import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pictura.layers.attention import take
from pictura.layers.beginnings import Beginnings
from pictura.layers.block import Block
from pictura.layers.packing import Packing

TEXTS = st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=6), min_size=1, max_size=7)


def packed(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, Beginnings]:
    text = torch.tensor([row + [0] * (6 - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return text, lengths, Beginnings(text, lengths)


@given(rows=TEXTS)
def test_sorted_texts_have_as_many_tokens_as_beginnings(rows: list[list[int]]) -> None:
    *_, packing = packed(sorted(rows))
    different = {tuple(row[:n]) for row in rows for n in range(1, len(row) + 1)}
    assert len(packing.place) == len(different)


@given(rows=TEXTS)
def test_every_place_finds_its_own_beginning(rows: list[list[int]]) -> None:
    """In any order, a place gets back what was packed for a place with the same tokens up to it."""
    text, lengths, packing = packed(rows)
    told = {place: tuple(row[: j + 1]) for i, row in enumerate(rows) for j in range(len(row)) for place in [6 * i + j]}
    x = torch.arange(1.0, 1 + text.numel()).view(*text.shape, 1)
    back = packing.unpack(packing.pack(x))
    for i in range(len(rows)):
        for j in range(6):
            found = int(back[i, j]) - 1
            assert found == -1 if j >= lengths[i] else told[found] == told[6 * i + j]
    ends = take(packing.pack(x), lengths - 1, packing)[:, 0, 0]
    assert [told[int(end) - 1] for end in ends] == [tuple(row) for row in rows]


@pytest.mark.parametrize("at_end", [False, True])
@torch.no_grad()
def test_a_block_gives_what_it_gives_to_each_text_alone(at_end: bool) -> None:
    torch.manual_seed(0)
    block, embedding = Block(16, 2, causal=True).eval(), torch.randn(3, 16)
    text, lengths, packing = packed([[1, 1, 2], [1, 1, 2], [1, 1, 1, 2, 2, 1], [1, 2], [2], [1, 2, 1]])
    x, apart = embedding[text], Packing(lengths, width=6)
    if at_end:
        found = block(packing.pack(x), lengths - 1, packing)
        torch.testing.assert_close(found, block(apart.pack(x), lengths - 1, apart))
        return
    found = packing.unpack(block(packing.pack(x), None, packing))
    torch.testing.assert_close(found, apart.unpack(block(apart.pack(x), None, apart)))
    assert len(packing.place) == 12 and lengths.sum() == 18
