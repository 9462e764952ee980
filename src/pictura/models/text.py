"""CLIP's text Transformer (Radford et al. 2021, section 2.4): causal, read at the end token.

Because attention is causal, nothing after the end token can change what is read there: callers give as many positions
as the longest caption of the batch has, and on a CPU the tower computes no token after any caption's end. Nor can
anything change what stands before it: where nothing is learnt, a beginning that captions share with the one above them
is computed once.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.layers.beginnings import Beginnings
from pictura.layers.block import Block
from pictura.layers.draws import Drawing
from pictura.layers.mlp import Activation
from pictura.layers.packing import Packing
from pictura.models.base import TextTowerConfig, check_heads, check_positive, check_share


@dataclass(frozen=True, kw_only=True)
class TextTransformerConfig(TextTowerConfig):
    """Read at the end token."""

    kind: ClassVar[str] = "transformer"

    depth: int = 12
    heads: int = 8
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    eps: float = 1e-5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(depth=self.depth, mlp_ratio=self.mlp_ratio, eps=self.eps)
        check_heads(self.heads, self.width)
        check_share(dropout=self.dropout)

    def build(self) -> "TextTransformer":
        """The module, with fresh weights."""
        return TextTransformer(self)


class TextTransformer(Drawing):
    """text: [b t] int64, t up to `context_length` -> [b d]. Raises ValueError for longer texts."""

    def __init__(self, config: TextTransformerConfig) -> None:
        super().__init__()
        c = self.config = config
        self.width = c.width
        self.token_embedding = nn.Embedding(c.vocab_size, c.width)
        self.pos_embed = nn.Parameter(torch.empty(c.context_length, c.width))
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.mlp_ratio, causal=True, activation=c.activation, eps=c.eps, dropout=c.dropout)
            for _ in range(c.depth)
        )
        self.norm = nn.LayerNorm(c.width, eps=c.eps)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """CLIP's initialisation (openai/CLIP, model.py, `initialize_parameters`)."""
        d, residual = self.width, (2 * self.config.depth) ** -0.5
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.01)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.reset_parameters(d**-0.5, residual)
        self.norm.reset_parameters()

    def forward(self, text: Tensor) -> Tensor:
        t = text.shape[1]
        text = self.drawn(text, self, len(text))
        at = self.config.ends(text)
        x = F.embedding(text, self.token_embedding.weight) + self.pos_embed[:t]
        packing = None
        if text.device.type == "cpu":  # how many tokens there are is read from the device, which a GPU would wait for
            alone = self.training or torch.is_grad_enabled()
            packing = Packing(at + 1, width=t) if alone else Beginnings(text, at + 1)
            x = packing.pack(x)
        for block in self.blocks[:-1]:
            x = block(x, None, packing)
        out: Tensor = self.norm(self.blocks[-1](x, at, packing)).squeeze(1)
        return out
