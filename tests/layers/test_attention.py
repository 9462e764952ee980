import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pictura.layers import attention
from pictura.layers.attention import Attention, attend

Heads = tuple[Tensor, Tensor, Tensor]


def heads(m: int = 5, n: int = 5, seed: int = 0) -> Heads:
    torch.manual_seed(seed)
    return torch.randn(2, 3, m, 4), torch.randn(2, 3, n, 4), torch.randn(2, 3, n, 4)


def naive(q: Tensor, k: Tensor, v: Tensor, seen: Callable[[int, int, int], bool]) -> Tensor:
    """One query at a time, in Python's own floats; `seen(b, i, j)`: may query i of example b see key j?"""
    out = torch.zeros(*q.shape[:-1], v.shape[-1])
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                keys = [j for j in range(k.shape[2]) if seen(b, i, j)]
                scores = [float(q[b, h, i].double() @ k[b, h, j].double()) / math.sqrt(q.shape[-1]) for j in keys]
                weights = [math.exp(score - max(scores)) for score in scores]
                mixed = sum(w * v[b, h, j].double() for w, j in zip(weights, keys, strict=True))
                out[b, h, i] = mixed / sum(weights)
    return out


@pytest.fixture(params=["no gradients", "gradients", "gradients, many keys"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Each way through `attend`; whether gradients are asked for."""
    if "many" in request.param:
        monkeypatch.setattr(attention, "EXPLICIT_BELOW", 0)
    return request.param != "no gradients"


def attended(path: bool, qkv: Heads, **options: Tensor | bool) -> Tensor:
    return attend(*(x.clone().requires_grad_(path) for x in qkv), **options)


def test_against_a_naive_loop(path: bool) -> None:
    qkv = heads()
    torch.testing.assert_close(attended(path, qkv).detach(), naive(*qkv, lambda b, i, j: True))
    torch.testing.assert_close(attended(path, qkv, causal=True).detach(), naive(*qkv, lambda b, i, j: j <= i))


def test_masks_against_a_naive_loop(path: bool) -> None:
    qkv, length = heads(m=1, n=6), [2, 6]
    mask = (torch.arange(6) < torch.tensor(length)[:, None])[:, None, None]
    torch.testing.assert_close(attended(path, qkv, mask=mask).detach(), naive(*qkv, lambda b, i, j: j < length[b]))


@pytest.mark.parametrize("causal", [False, True])
def test_both_ways_have_one_gradient(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for below in (0, 600):
        monkeypatch.setattr(attention, "EXPLICIT_BELOW", below)
        qkv = [x.requires_grad_() for x in heads()]
        attend(*qkv, causal=causal).square().sum().backward()
        found.append([x.grad for x in qkv])
    torch.testing.assert_close(found[0], found[1])


def both(causal: bool = False) -> Attention:
    torch.manual_seed(0)
    layer = Attention(12, 3, causal=causal)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    return layer


@pytest.mark.parametrize("causal", [False, True])
def test_against_torch(causal: bool) -> None:
    layer, peer = both(causal), nn.MultiheadAttention(12, 3, batch_first=True)
    peer.in_proj_weight, peer.in_proj_bias = layer.qkv.weight, layer.qkv.bias
    peer.out_proj = layer.proj
    x = torch.randn(2, 7, 12)
    mask = nn.Transformer.generate_square_subsequent_mask(7) if causal else None
    torch.testing.assert_close(layer(x), peer(x, x, x, attn_mask=mask, is_causal=causal, need_weights=False)[0])


def test_causal_attention_does_not_look_ahead() -> None:
    x = torch.randn(1, 6, 12)
    other = torch.cat([x[:, :4], torch.randn(1, 2, 12)], 1)
    before, after = both(causal=True)(x), both(causal=True)(other)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:], after[:, 4:])
    assert not torch.allclose(both()(x)[:, :4], both()(other)[:, :4])


@settings(deadline=None, max_examples=20)
@given(at=st.lists(st.integers(0, 5), min_size=1, max_size=4), causal=st.booleans(), grad=st.booleans())
def test_read_is_forward_at_one_place(at: list[int], causal: bool, grad: bool) -> None:
    layer, index = both(causal), torch.tensor(at)
    with torch.set_grad_enabled(grad):
        x = torch.randn(len(at), 6, 12, requires_grad=grad)
        whole = layer(x)[torch.arange(len(at)), index].unsqueeze(1)
        one = layer.read(x, index)
    torch.testing.assert_close(one, whole)
    if grad:
        wanted = [x, *layer.parameters()]
        expected = torch.autograd.grad(whole.square().sum(), wanted)
        torch.testing.assert_close(torch.autograd.grad(one.square().sum(), wanted), expected)


def test_names_and_shapes_are_timms() -> None:
    shapes = {name: tuple(p.shape) for name, p in Attention(12, 3).named_parameters()}
    assert shapes == {"qkv.weight": (36, 12), "qkv.bias": (36,), "proj.weight": (12, 12), "proj.bias": (12,)}
