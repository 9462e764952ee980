"""The pre-norm Transformer block (ViT, section 3.1, equations 2 and 3), with stochastic depth."""

import torch
from torch import Tensor, nn

from pictura.layers.attention import Attention, take
from pictura.layers.dropout import Dropout
from pictura.layers.mlp import MLP, Activation
from pictura.layers.packing import Packing


def drop_path(x: Tensor, rate: float, training: bool, packing: Packing | None = None) -> Tensor:
    """[b …] -> [b …]: whole examples zeroed with probability `rate`, the rest scaled up (Huang et al. 2016).

    With a `packing`, x is [n d], the tokens of its examples.
    """
    if not training or rate == 0.0:
        return x
    examples = x.shape[0] if packing is None else packing.shape[0]
    keep = (torch.rand(examples, device=x.device) >= rate) / (1 - rate)
    if packing is not None:
        keep = keep[packing.example]
    return x * keep.to(x.dtype).view(-1, *(1,) * (x.dim() - 1))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)). [b n d] -> [b n d]. Names follow timm."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        *,
        causal: bool = False,
        activation: Activation = "gelu",
        eps: float = 1e-5,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, causal=causal)
        self.dropout = Dropout(dropout)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, round(width * mlp_ratio), activation, dropout)
        self.drop_path = drop_path

    @torch.no_grad()
    def reset_parameters(self, std: float, residual: float) -> None:
        """CLIP's initialisation: `std` is width^-0.5, `residual` scales what is added to the stream, (2 depth)^-0.5."""
        for linear, scale in (
            (self.attn.qkv, 1.0),
            (self.attn.proj, residual),
            (self.mlp.fc1, 2**-0.5),
            (self.mlp.fc2, residual),
        ):
            nn.init.normal_(linear.weight, std=std * scale)
            nn.init.zeros_(linear.bias)
        self.norm1.reset_parameters()
        self.norm2.reset_parameters()

    def forward(
        self, x: Tensor, at: Tensor | None = None, packing: Packing | None = None, twice: bool = False
    ) -> Tensor:
        """With `at`, [b] positions, only those tokens leave the block: [b 1 d], and only they are computed.

        With a `packing`, x is [n d], and so is what leaves, unless `at` is given. `twice` gives two draws, [2b n d], of
        an x without a packing: what is mixed before the first chance is computed once.
        """
        if at is None:
            mixed = self.attn(self.norm1(x), packing)
        else:
            mixed = self.attn.read(self.norm1(x), at, packing)
            x, packing = take(x, at, packing), None
        if twice:
            x, mixed = torch.cat([x, x]), torch.cat([mixed, mixed])
        x = x + drop_path(self.dropout(mixed), self.drop_path, self.training, packing)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop_path, self.training, packing)
