"""LARS: a rate for each weight by the size of it and of its gradient (You, Gitman and Ginsburg 2017).

Order as in SimCLR's own code (Chen et al. 2020, `lars_optimizer.py`), for a weight w with gradient g:

    g ← g + weight_decay · w
    trust ← eta · ‖w‖ / ‖g‖        1 where either norm is zero, and for what is not to adapt
    v ← momentum · v + lr · trust · g
    w ← w − v

Others in the field (lightly, solo-learn) divide by ‖g‖ + weight_decay · ‖w‖, g without decay there, and keep the rate
out of the buffer: w ← w − lr · v. With SimCLR's order a step keeps the rate that it was collected at, so the two part
wherever the rate changes, most of all in a warm-up.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class LARS(torch.optim.Optimizer):
    """`params`: parameters or groups of them; a group whose `trust` (eta above) is None does not adapt.

    Sharded parameters (DTensor) have the norms of the whole, in one reduction for each group. No value is read on the
    host, so nothing waits for a GPU.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        weight_decay: float = 1e-6,
        momentum: float = 0.9,
        trust: float | None = 1e-3,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if stepped := [parameter for parameter in group["params"] if parameter.grad is not None]:
                self._step(stepped, **{name: group[name] for name in ("lr", "weight_decay", "momentum", "trust")})
        return loss

    def _step(
        self, weights: list[Tensor], *, lr: float, weight_decay: float, momentum: float, trust: float | None
    ) -> None:
        gradients: list[Tensor] = [weight.grad for weight in weights if weight.grad is not None]
        if weight_decay:
            gradients = [*torch._foreach_add(gradients, weights, alpha=weight_decay)]
        rates = None if trust is None else lr * trusts(weights, gradients, trust)
        buffers, own, gradients = ([*map(local, some)] for some in (self._buffers(weights), weights, gradients))
        torch._foreach_mul_(buffers, momentum)
        if rates is None:
            torch._foreach_add_(buffers, gradients, alpha=lr)
        else:
            torch._foreach_addcmul_(buffers, gradients, [*rates.unbind()])
        torch._foreach_sub_(own, buffers)

    def _buffers(self, weights: list[Tensor]) -> list[Tensor]:
        for weight in weights:
            if not (state := self.state[weight]):
                state["momentum_buffer"] = torch.zeros_like(weight)
        return [self.state[weight]["momentum_buffer"] for weight in weights]


def trusts(weights: list[Tensor], gradients: list[Tensor], eta: float) -> Tensor:
    """eta · ‖w‖ / ‖g‖ of each pair, [n]; 1 where either norm is zero."""
    norms = torch.stack([*torch._foreach_norm([*weights, *gradients], 2)])
    if isinstance(norms, DTensor):  # of the shards so far
        norms = norms.full_tensor()
    of_weight, of_gradient = norms.chunk(2)
    return torch.where((of_weight > 0) & (of_gradient > 0), eta * of_weight / of_gradient, 1.0)


def local(tensor: Tensor) -> Tensor:
    """The part that lies in this process, and shares its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
