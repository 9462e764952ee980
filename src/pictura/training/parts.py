"""What is done to parts of a model before it trains: some are locked, blocks compiled or made to forget activations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pictura.distributed.batch_norm import batch_norms, still
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


def hold(model: nn.Module, names: tuple[str, ...]) -> None:
    """What keeps its weights computes as it will when it is used: without dropout, its batch norms as they are."""
    for name in names:
        part = dict(model.named_modules()).get(name)
        if part is not None:
            part.eval()


def recompute(task: nn.Module) -> None:
    """Blocks forget their activations and compute them again in the backward pass (Chen et al. 2016).

    Running statistics of batch norms move in the first pass only. For this, blocks that have some are not compiled.
    """
    for block in units(task):
        block.forward = _recomputed(block)


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


def _recomputed(block: nn.Module) -> Callable[..., Tensor]:
    forward = block.forward
    if not any(True for _ in batch_norms(block)):
        return lambda *args: checkpoint(forward, *args, use_reentrant=False)
    run: Callable[..., Tensor] = torch.compiler.disable(
        lambda *args: checkpoint(_moving_once(block, forward), *args, use_reentrant=False)
    )
    return run


def _moving_once(block: nn.Module, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`forward`, of which all calls but the first leave the running statistics of `block` as they are."""
    repeated = False

    def run(*args: Tensor) -> Tensor:
        nonlocal repeated
        moving, repeated = still(block) if repeated else nullcontext(), True
        with moving:
            return forward(*args)

    return run
