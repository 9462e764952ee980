"""Multi-head attention over `scaled_dot_product_attention`, with the explicit form where that one is slow.

Vaswani et al., Attention Is All You Need (2017), section 3.2. Parameter names follow timm: `qkv`, `proj`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.layers.linear import Linear, linear
from pictura.layers.packing import Packing

# On a CPU the fused kernel's backward is 3 to 5 times slower than two plain matrix products while the scores fit in
# cache; beyond this many keys its lower memory wins. See `python -m benchmarks clip_train_step`.
EXPLICIT_BELOW = 600
LONG = 64  # tokens, from which on an example is worth a call of its own


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    """q: [b h m c], k, v: [b h n c] -> [b h m c], scaled by 1/sqrt(c).

    `causal` lets position i see keys up to i (m == n); `mask`, [b 1 m n] bool, is True where a key may be seen.
    """
    if q.device.type != "cpu" or k.shape[2] >= EXPLICIT_BELOW or not _recorded(q):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        m, n = scores.shape[-2:]
        mask = torch.ones(m, n, dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    out: Tensor = scores.softmax(-1) @ v
    return out


def _recorded(x: Tensor) -> bool:
    """Whether a backward pass will want it."""
    return torch.is_grad_enabled() and x.requires_grad


def attend_alone(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """q, k, v: [b h n c] -> [b h n c], of each example its first `lengths[i]` tokens, zeros after them. One by one: a
    mask makes a CPU's fused kernel twice as slow."""
    out = torch.zeros_like(q)
    for i, n in enumerate(lengths):
        own = (slice(i, i + 1), slice(None), slice(n))
        out[own] = F.scaled_dot_product_attention(q[own], k[own], v[own])
    return out


class Attention(nn.Module):
    """Self-attention. `forward(x: [b n d]) -> [b n d]`; `read(x, at)` gives the output at one position per example.

    With a `packing`, x holds the tokens of all examples side by side, [n d], and so does what `forward` returns.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        assert heads > 0 and width % heads == 0, "configurations check it"
        self.heads, self.causal = heads, causal
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, packing: Packing | None = None) -> Tensor:
        qkv: Tensor = self.qkv(x)
        mask = None
        if packing is not None:
            qkv, mask = packing.unpack(qkv), None if self.causal else packing.mask
        b, n, d = *qkv.shape[:2], x.shape[-1]
        q, k, v = qkv.view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if packing is not None and mask is not None and n >= LONG and q.device.type == "cpu" and not _recorded(q):
            mixed = attend_alone(q, k, v, packing.lengths)
        else:
            mixed = attend(q, k, v, causal=self.causal, mask=mask)
        mixed = mixed.transpose(1, 2).reshape(b, n, d)
        out: Tensor = self.proj(mixed if packing is None else packing.pack(mixed))
        return out

    def read(self, x: Tensor, at: Tensor, packing: Packing | None = None) -> Tensor:
        """x: [b n d], or [n d] with its `packing`; at: [b] positions -> [b 1 d]: what `forward` gives there, without
        computing the other rows."""
        # Tensor.split on the weight keeps one fused parameter, as the published layouts have it.
        d = x.shape[-1]
        w_q, w_kv = self.qkv.weight.split([d, 2 * d])
        b_q, b_kv = self.qkv.bias.split([d, 2 * d])
        one, kv = take(x, at, packing), linear(x, w_kv, b_kv)
        if packing is not None:
            kv = packing.unpack(kv)
        b, n = kv.shape[:2]
        q = linear(one, w_q, b_q).view(b, 1, self.heads, -1).transpose(1, 2)
        k, v = kv.view(b, n, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if packing is None or self.causal else packing.mask
        if self.causal:
            mask = (torch.arange(n, device=x.device) <= at[:, None])[:, None, None, :]
        out: Tensor = self.proj(attend(q, k, v, mask=mask).transpose(1, 2).reshape(b, 1, d))
        return out


def take(x: Tensor, at: Tensor, packing: Packing | None = None) -> Tensor:
    """x: [b n d], or [n d] with its `packing`; at: [b] -> [b 1 d], one token of each example."""
    if packing is None:
        return x[torch.arange(x.shape[0], device=x.device), at].unsqueeze(1)
    return x[packing.start + at].unsqueeze(1)
