"""The two-layer perceptron of a Transformer block, and the activations that published weights were trained with."""

from typing import Literal

import torch
from torch import Tensor, nn

from pictura.layers.linear import Linear

Activation = Literal["gelu", "quick_gelu"]


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), which OpenAI's CLIP weights expect (openai/CLIP, model.py). Any shape."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGELU}


class MLP(nn.Module):
    """[… d] -> [… d] through `hidden` units. Names follow timm: `fc1`, `fc2`."""

    def __init__(self, width: int, hidden: int, activation: Activation = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        exact = isinstance(self.act, nn.GELU)
        x = self.fc1(x, gelu=exact)
        out: Tensor = self.dropout(self.fc2(self.dropout(x if exact else self.act(x))))
        return out
