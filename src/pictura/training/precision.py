"""bf16 that keeps float32 master weights, without casting every weight again at each operation.

Autocast casts each float32 weight at every use. Here the module itself holds bf16 weights, the optimiser steps
float32 masters, and each weight is cast once a step, after it has changed. Numbers without a shape (temperatures)
stay float32. Micikevicius et al., Mixed Precision Training, 2018, section 3.1.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Masters:
    """The float32 parameters that an optimiser steps, beside those the module computes with; in float32 they are one.

    Build it before the optimiser. Each step: backward, `collect()`, optimiser step and its `zero_grad`, `publish()`.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        self.masters: dict[str, Tensor] = {}
        self._pairs: list[tuple[Tensor, nn.Parameter]] = []  # master, what the module computes with
        for name, parameter in module.named_parameters():
            self.masters[name] = parameter
            if dtype != torch.float32 and parameter.dim() > 0:
                self.masters[name] = parameter.detach().clone().requires_grad_(parameter.requires_grad)
                parameter.data = parameter.data.to(dtype)
                self._pairs.append((self.masters[name], parameter))

    def trainable(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the module, float32 tensor to step)."""
        return ((name, master) for name, master in self.masters.items() if master.requires_grad)

    @torch.no_grad()
    def finite(self) -> bool:
        """Whether every number of this process's share is one; reads all of them, so for before a checkpoint."""
        shards = [m.to_local() if isinstance(m, DTensor) else m.detach() for m in self.masters.values()]
        largest = torch._foreach_norm([shard for shard in shards if shard.numel()], torch.inf)
        return bool(torch.stack(largest).isfinite().all())

    @torch.no_grad()
    def collect(self) -> None:
        """Move the module's gradients to the masters and add them there in float32: after each of several backwards,
        so that what many parts bring is not rounded to bf16 in between."""
        for master, parameter in self._pairs:
            if parameter.grad is None:
                continue
            if master.grad is None:
                master.grad = parameter.grad.float()
            else:
                master.grad += parameter.grad
            parameter.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters into the module, after the optimiser has stepped."""
        if self._pairs:
            torch._foreach_copy_([p for _, p in self._pairs], [m for m, _ in self._pairs])
