import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pictura.layers import attention
from pictura.layers.attention import take
from pictura.layers.block import Block
from pictura.layers.packing import Packing

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def grid(lengths: list[int], width: int = 6) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(len(lengths), width, 4, requires_grad=True)


@given(lengths=LENGTHS)
def test_tokens_lie_side_by_side_in_their_order(lengths: list[int]) -> None:
    x, packing = grid(lengths), Packing(torch.tensor(lengths), width=6)
    packed = packing.pack(x)
    assert torch.equal(packed, torch.cat([row[:length] for row, length in zip(x, lengths, strict=True)]))
    for i, start in enumerate(packing.start.tolist()):
        assert torch.equal(packed[start], x[i, 0])
    back = packing.unpack(packed)
    for row, found, length in zip(x, back, lengths, strict=True):
        assert torch.equal(found[:length], row[:length])
        assert not found[length:].any()


@given(lengths=LENGTHS)
def test_gradients_against_indexing(lengths: list[int]) -> None:
    packing, seed = Packing(torch.tensor(lengths), width=6), grid(lengths).detach()
    inside = torch.arange(6) < torch.tensor(lengths)[:, None]
    x, y = grid(lengths), grid(lengths)
    (packing.unpack(packing.pack(x).square()) * seed).sum().backward()
    (y.square() * inside[..., None] * seed).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("read", [False, True])
def test_a_block_gives_packed_what_it_gives_padded(read: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    block = Block(8, 2, causal=True).to(dtype)
    lengths = torch.tensor([3, 6, 1])
    packing, padded = Packing(lengths, width=6), torch.randn(3, 6, 8, dtype=dtype, requires_grad=True)
    at = lengths - 1 if read else None
    found = block(packing.pack(padded), at, packing)
    wanted = block(padded, at) if read else packing.pack(block(padded))
    close = {"rtol": 0.05, "atol": 0.05} if dtype is torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found, wanted, **close)
    leaves = [padded, *block.parameters()]
    ours = torch.autograd.grad(found.square().sum(), leaves)
    theirs = torch.autograd.grad(wanted.square().sum(), leaves)
    if dtype is torch.float32:
        torch.testing.assert_close(ours, theirs, **close)


def test_one_token_of_each_example() -> None:
    x, at = grid([2, 5, 3]), torch.tensor([1, 4, 0])
    packing = Packing(torch.tensor([2, 5, 3]), width=6)
    assert torch.equal(take(packing.pack(x), at, packing), take(x, at))
    assert torch.equal(take(x, at)[:, 0], torch.stack([x[0, 1], x[1, 4], x[2, 0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_long_examples_are_attended_to_one_by_one_without_gradients(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same numbers as behind a mask, and as each example alone."""
    torch.manual_seed(0)
    block, lengths = Block(8, 2).to(dtype), torch.tensor([70, 3, 41])
    packing, padded = Packing(lengths), torch.randn(3, 70, 8, dtype=dtype)
    calls: list[list[int]] = []
    alone = attention.attend_alone
    monkeypatch.setattr(attention, "attend_alone", lambda q, k, v, n: (calls.append(n), alone(q, k, v, n))[1])
    with torch.no_grad():
        found = block(packing.pack(padded), None, packing)
    assert calls == [[70, 3, 41]]
    masked = block(packing.pack(padded), None, packing)
    assert len(calls) == 1, "with gradients the padded form is quicker"
    each = torch.cat([block(row[None, :n])[0] for row, n in zip(padded, lengths.tolist(), strict=True)])
    close = {"rtol": 0.05, "atol": 0.05} if dtype is torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found, masked.detach(), **close)
    torch.testing.assert_close(found, each.detach(), **close)
