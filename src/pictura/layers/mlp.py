"""The two-layer perceptron of a Transformer block, and the activations that published weights were trained with."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pictura.layers.dropout import Dropout
from pictura.layers.linear import Linear

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), which OpenAI's CLIP weights expect (openai/CLIP, model.py). Any shape."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return x * torch.sigmoid(1.702 * x)
        if torch.is_grad_enabled() and x.requires_grad:
            out: Tensor = _QuickGELU.apply(x)
            return out
        return _quick_gelu(x)


def _quick_gelu(x: Tensor) -> Tensor:
    return (1.702 * x).sigmoid_().mul_(x)  # one new tensor instead of three


class _QuickGELU(torch.autograd.Function):
    """Keeps `x` alone for the backward pass, where autograd would keep the sigmoid too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _quick_gelu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # x * sigmoid(1.702 x) is silu(1.702 x) / 1.702, so that its slope is silu's, at 1.702 x
        out: Tensor = torch.ops.aten.silu_backward(grad, 1.702 * x)
        return out


# `gelu_tanh` is what JAX calls GELU, and what weights from there were trained with.
ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, "tanh"),
    "quick_gelu": QuickGELU,
}


class MLP(nn.Module):
    """[… d] -> [… d] through `hidden` units. Names follow timm: `fc1`, `fc2`."""

    def __init__(self, width: int, hidden: int, activation: Activation = "gelu", dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.act = ACTIVATIONS[activation]()
        self.fc2 = Linear(hidden, width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        act = self.act
        x = self.fc1(x, gelu=act.approximate) if isinstance(act, nn.GELU) else act(self.fc1(x))
        out: Tensor = self.dropout(self.fc2(self.dropout(x)))
        return out
