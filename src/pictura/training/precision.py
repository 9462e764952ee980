"""bf16 that keeps float32 master weights, without casting every weight again at each operation.

Autocast casts each float32 weight at every use. Here the module itself holds bf16 weights, the optimiser steps
float32 masters, and each weight is cast once a step, after it has changed. Numbers without a shape (temperatures)
stay float32, and so does batch norm, whose kernels take gains and statistics in float32 beside a bf16 input.
Micikevicius et al., Mixed Precision Training, 2018, section 3.1.
"""

import logging
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pictura.distributed.batch_norm import batch_norms
from pictura.distributed.ranks import is_main
from pictura.layers.linear import runs_here

logger = logging.getLogger(__name__)

LARGE = 2**23
"""Numbers that take 32 MiB: what is larger, the C library returns to the system when it is freed, and fresh pages are
slow to get: a vocabulary's gradient took longer to widen than all others together."""


def computed_in(precision: str, device: torch.device) -> torch.dtype:
    """What `training.precision` means on this machine: on a CPU without products of bf16, float32 serves, since torch
    imitates them there far more slowly; a line says so."""
    if precision != "bf16":
        return torch.float32
    if device.type == "cpu" and not runs_here():
        if is_main():
            logger.warning("training.precision: this CPU has no products of bf16; float32 is used")
        return torch.float32
    return torch.bfloat16


class Masters:
    """The float32 parameters that an optimiser steps, beside those the module computes with; in float32 they are one.

    Build it before the optimiser. Each step: backward, then for the parameters of each part of the optimiser `collect`,
    its step and `zero_grad`, `publish`.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
        self.masters: dict[str, Tensor] = {}
        self._rooms: dict[Tensor, Tensor] = {}
        self._copies: dict[Tensor, nn.Parameter] = {}  # of a master: what the module computes with
        exact = {parameter for _, norm in batch_norms(module) for parameter in norm.parameters()}
        for name, parameter in module.named_parameters():
            self.masters[name] = parameter
            if dtype != torch.float32 and parameter.dim() > 0 and parameter not in exact:
                self.masters[name] = parameter.detach().clone().requires_grad_(parameter.requires_grad)
                parameter.data = parameter.data.to(dtype)
                self._copies[self.masters[name]] = parameter

    def trainable(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the module, float32 tensor to step)."""
        return ((name, master) for name, master in self.masters.items() if master.requires_grad)

    @torch.no_grad()
    def finite(self) -> bool:
        """Whether every number of this process's share is one; reads all of them, so for before a checkpoint."""
        shards = [m.to_local() if isinstance(m, DTensor) else m.detach() for m in self.masters.values()]
        largest = torch._foreach_norm([shard for shard in shards if shard.numel()], torch.inf)
        return bool(torch.stack(largest).isfinite().all())

    def gradients(self) -> Iterator[tuple[str, Tensor | None]]:
        """(name in the module, its gradient after a backward: where it was collected, or where the module has it)."""
        for name, master in self.trainable():
            yield name, self._copies.get(master, master).grad if master.grad is None else master.grad

    @torch.no_grad()
    def collect(self, masters: Iterable[Tensor] | None = None, scale: Tensor | None = None) -> None:
        """Move the module's gradients to the masters (all, if None) and add them there in float32: after each of
        several backwards, so that what many parts bring is not rounded to bf16 in between. At last, times `scale`."""
        for master in self.masters.values() if masters is None else masters:
            copy = self._copies.get(master)
            if copy is not None and copy.grad is not None:
                if master.grad is None:
                    master.grad = self._room(master).copy_(copy.grad)
                else:
                    master.grad += copy.grad
                copy.grad = None
            if scale is not None and master.grad is not None:
                master.grad *= scale

    def _room(self, master: Tensor) -> Tensor:
        """Memory for a float32 gradient; on a CPU, that of a large one is kept from step to step."""
        if master.numel() < LARGE or master.device.type != "cpu":
            return torch.empty_like(master)
        if master not in self._rooms:
            self._rooms[master] = torch.empty_like(master)
        return self._rooms[master]

    @torch.no_grad()
    def publish(self, masters: Iterable[Tensor] | None = None) -> None:
        """Copy the masters (all, if None) into the module, after the optimiser has stepped."""
        changed = [m for m in (self._copies if masters is None else masters) if m in self._copies]
        if changed:
            torch._foreach_copy_([self._copies[m] for m in changed], changed)
