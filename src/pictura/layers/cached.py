"""A causal block that is fed a few tokens at a time: keys and values of those before are kept, not computed again."""

import torch
from torch import Tensor

from pictura.layers.attention import attend
from pictura.layers.block import Block

Past = tuple[Tensor, Tensor]
"""Keys and values, [b h n c] each, of the n tokens that a block has seen."""


def further(block: Block, x: Tensor, past: Past | None) -> tuple[Tensor, Past]:
    """x: [b m d], tokens after those of `past`, where m is 1 if there are any -> what `block` gives of them, [b m d],
    and the keys and values of all. In evaluation alone: nothing is dropped."""
    attn, (b, m, d) = block.attn, x.shape
    assert attn.causal and not block.training and (past is None or m == 1)
    qkv: Tensor = attn.qkv(block.norm1(x))
    q, k, v = qkv.view(b, m, 3, attn.heads, d // attn.heads).permute(2, 0, 3, 1, 4)
    if past is not None:
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
    mixed = attend(q, k, v, causal=past is None).transpose(1, 2).reshape(b, m, d)
    x = x + attn.proj(mixed)
    return x + block.mlp(block.norm2(x)), (k, v)
