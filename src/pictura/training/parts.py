"""What is done to parts of a model before it trains: some are locked, blocks compiled or made to forget activations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pictura.distributed.wrap import units


def freeze(model: nn.Module, names: tuple[str, ...]) -> None:
    """Parts of `model` that keep their weights. Raises ValueError for a name that is no part of it."""
    for name in names:
        found = [p for n, p in model.named_parameters() if n == name or n.startswith(f"{name}.")]
        if not found:
            parts = ", ".join(dict(model.named_children()))
            raise ValueError(f"training.freeze: the model has no part {name}; it has {parts}")
        for parameter in found:
            parameter.requires_grad_(False)


def recompute(task: nn.Module) -> None:
    """Blocks forget their activations and compute them again in the backward pass (Chen et al. 2016)."""
    for block in units(task):
        block.forward = _recomputed(block.forward)


@contextmanager
def remembering(task: nn.Module) -> Iterator[None]:
    """Inside, blocks do not compute again: what a step achieves does not grow with what it throws away."""
    changed = [(block, block.__dict__.pop("forward")) for block in units(task) if "forward" in block.__dict__]
    try:
        yield
    finally:
        for block, forward in changed:
            block.forward = forward


def compile_blocks(task: nn.Module) -> None:
    """Blocks share their code, and torch counts by code how often it compiles before it gives up: each block does for
    training, evaluation, another length, and its own `drop_path`."""
    blocks, limits = units(task), torch._dynamo.config
    limits.recompile_limit = max(limits.recompile_limit, 8 * len(blocks))
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, 8 * len(blocks))
    for block in blocks:
        block.compile()


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args: checkpoint(forward, *args, use_reentrant=False)
