"""Multi-head attention over `scaled_dot_product_attention`, with the explicit form where that one is slow.

Vaswani et al., Attention Is All You Need (2017), section 3.2. Parameter names follow timm: `qkv`, `proj`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.layers.linear import Linear, linear

# On a CPU the fused kernel's backward is 3 to 5 times slower than two plain matrix products while the scores fit in
# cache; beyond this many keys its lower memory wins. See `python -m benchmarks clip_train_step`.
EXPLICIT_BELOW = 600


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    """q: [b h m c], k, v: [b h n c] -> [b h m c], scaled by 1/sqrt(c).

    `causal` lets position i see keys up to i (m == n); `mask`, [b 1 m n] bool, is True where a key may be seen.
    """
    if q.device.type != "cpu" or k.shape[2] >= EXPLICIT_BELOW or not (torch.is_grad_enabled() and q.requires_grad):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if causal:
        m, n = scores.shape[-2:]
        mask = torch.ones(m, n, dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    out: Tensor = scores.softmax(-1) @ v
    return out


class Attention(nn.Module):
    """Self-attention. `forward(x: [b n d]) -> [b n d]`; `read(x, at)` gives the output at one position per example."""

    def __init__(self, width: int, heads: int, *, causal: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        assert heads > 0 and width % heads == 0, "configurations check it"
        self.heads, self.causal = heads, causal
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = attend(q, k, v, causal=self.causal)
        out: Tensor = self.dropout(self.proj(x.transpose(1, 2).reshape(b, n, d)))
        return out

    def read(self, x: Tensor, at: Tensor) -> Tensor:
        """x: [b n d], at: [b] positions -> [b 1 d]: what `forward` gives there, without computing the other rows."""
        b, n, d = x.shape
        # Tensor.split on the weight keeps one fused parameter, as the published layouts have it.
        w_q, w_kv = self.qkv.weight.split([d, 2 * d])
        b_q, b_kv = self.qkv.bias.split([d, 2 * d])
        one = x[torch.arange(b, device=x.device), at].unsqueeze(1)
        q = linear(one, w_q, b_q).view(b, 1, self.heads, -1).transpose(1, 2)
        k, v = linear(x, w_kv, b_kv).view(b, n, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None
        if self.causal:
            mask = (torch.arange(n, device=x.device) <= at[:, None])[:, None, None, :]
        out: Tensor = self.dropout(self.proj(attend(q, k, v, mask=mask).transpose(1, 2).reshape(b, 1, d)))
        return out
