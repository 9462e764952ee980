"""A task replicated (DDP) or sharded (FSDP2) over the processes, so that backward leaves averaged gradients.

Zhao et al., PyTorch FSDP (2023); Li et al., PyTorch Distributed (2020).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from pictura.distributed.batch_norm import batch_norms, synchronise
from pictura.distributed.ranks import world

Mode = Literal["ddp", "fsdp"]
BUCKET = 2**25  # bytes reduced at once where no overlap with backward is to be had, as DDP's default


def wrap(task: nn.Module, mode: Mode = "ddp", *, bf16: bool = False) -> nn.Module:
    """The task, ready to train in this process beside the others; with one process, the task itself.

    `bf16` is for fsdp: it keeps float32 shards and computes with bf16 copies. Every process starts from the weights of
    process 0. The task must lie on its device already. Batch norm counts the examples of all processes.
    """
    if world() == 1:
        return task
    synchronise(task)
    if mode == "fsdp":
        return _shard(task, bf16)
    device = next(task.parameters()).device
    replica = DistributedDataParallel(
        task, device_ids=None if device.type == "cpu" else [device], gradient_as_bucket_view=True
    )
    # constants, and statistics over all processes, need no broadcast before each forward; set here since torch renamed
    # the argument between 2.11 and 2.14
    replica.broadcast_buffers = False
    if any(p.dtype is torch.bfloat16 for p in task.parameters()):
        replica.register_comm_hook(None, _reduce_in_float32)
    return replica


def _reduce_in_float32(
    _: None,
    bucket: dist.GradBucket,  # type: ignore[name-defined]
) -> torch.futures.Future[Tensor]:
    """The mean over processes of a bucket of gradients: rounded to bf16 once, not with each process that adds to it."""
    low = bucket.buffer()
    wide = low.float() / world()
    work = dist.all_reduce(wide, async_op=True)
    return work.get_future().then(lambda done: low.copy_(done.value()[0]))


@torch.no_grad()
def start_equal(task: nn.Module) -> None:
    """Every process takes the weights and buffers of process 0; where there is one process, nothing happens."""
    if world() > 1:
        for tensor in chain(task.parameters(), task.buffers()):
            dist.broadcast(tensor.detach(), 0)


def unwrap(module: nn.Module) -> nn.Module:
    """The task inside; with fsdp the task itself was changed in place."""
    return module.module if isinstance(module, DistributedDataParallel) else module


@contextmanager
def unsharded(module: nn.Module) -> Iterator[None]:
    """Inside, the unwrapped task and its model have whole weights, so that any of their methods may be called.

    For evaluation, without gradients; each process holds the whole model meanwhile. All processes enter together.
    """
    shards = [m for m in module.modules() if isinstance(m, FSDPModule)]
    if shards:
        shards[0]._get_fsdp_state()._lazy_init()  # or the first block called would take itself for the root
    for shard in shards:
        shard.reshard()  # what an earlier forward has left whole may be out of date
        shard.unshard()
    try:
        yield
    finally:
        for shard in shards:
            shard.reshard()


def units(task: nn.Module) -> list[nn.Module]:
    """What is sharded, and gathered for computing, one at a time: the items of every `blocks` list, or the `stages`."""
    lists = (getattr(module, "stages", getattr(module, "blocks", None)) for module in task.modules())
    return [block for blocks in lists if isinstance(blocks, list | nn.ModuleList) for block in blocks]


def _shard(task: nn.Module, bf16: bool) -> nn.Module:
    start_equal(task)
    mesh = init_device_mesh(next(task.parameters()).device.type, (world(),))
    low = torch.bfloat16 if bf16 else None
    for block in units(task):
        _shard_norms(block, mesh)
        fully_shard(block, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32))
    _shard_norms(task, mesh)
    # A number without a shape (a temperature) cannot be cut, and bf16 is too coarse for it: it stays whole and float32
    # in every process, and its gradient is averaged here.
    whole = {p for p in task.parameters() if p.dim() == 0}
    for parameter in whole:
        if parameter.requires_grad:
            parameter.register_hook(_average)
    # inputs of the task are not cast: boxes and labels among them may need their digits
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32, cast_forward_inputs=False)
    fully_shard(task, mesh=mesh, mp_policy=policy, ignored_params=whole)
    for method in ("embed", "score"):  # called by themselves when gradients are cached
        if hasattr(task, method):
            register_fsdp_forward_method(task, method)
    return task


def _shard_norms(module: nn.Module, mesh: DeviceMesh) -> None:
    """The batch norms that no part of it has sharded yet, gathered together and in float32, whatever flows through."""
    norms = [norm for _, norm in batch_norms(module) if [*norm.parameters()] and not isinstance(norm, FSDPModule)]
    if norms:
        fully_shard([*norms], mesh=mesh, mp_policy=MixedPrecisionPolicy(cast_forward_inputs=False))


def _average(grad: Tensor) -> Tensor:
    total = grad.clone()
    dist.all_reduce(total)
    return total / world()


@contextmanager
def accumulate(module: nn.Module, owners: Iterable[Tensor] | None = None) -> Iterator[None]:
    """Several backwards inside, of any methods of the unwrapped task, count as one: averaged gradients at the end.

    DDP reduces once, on leaving. FSDP reduces in each backward, since whole gradients are what it must never hold;
    averages of sums are sums of averages. `owners`: tensors whose gradients are averaged where these are not the
    module's own parameters: float32 masters.
    """
    if not isinstance(module, DistributedDataParallel):
        yield
        return
    with module.no_sync():
        yield
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for owner in module.parameters() if owners is None else owners:
        if owner.grad is not None:
            by_dtype.setdefault(owner.grad.dtype, []).append(owner.grad)
    for grads in by_dtype.values():
        for bucket in _buckets(grads):
            flat = torch.cat([grad.flatten() for grad in bucket])
            dist.all_reduce(flat)
            flat /= world()
            pieces = torch.split(flat, [grad.numel() for grad in bucket])
            torch._foreach_copy_(bucket, [p.view_as(g) for p, g in zip(pieces, bucket, strict=True)])


def _buckets(grads: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    held = 0
    for grad in grads:
        bucket.append(grad)
        held += grad.nbytes
        if held >= BUCKET:
            yield bucket
            bucket, held = [], 0
    if bucket:
        yield bucket


def gradient_norm(gradients: Iterable[Tensor | None]) -> Tensor:
    """The norm over all numbers of all gradients and all shards, [] float32, the same in every process.

    Nothing waits for the device. None, where a parameter has no gradient, counts as zero.
    """
    given = [g for g in gradients if g is not None]
    wide = [g for g in given if g.dtype == torch.float32]  # all shards are, and they refuse to be asked for a dtype
    norms = [*torch._foreach_norm(wide, 2)] if wide else []
    if narrow := [g for g in given if g.dtype != torch.float32]:
        norms += torch._foreach_norm(narrow, 2, dtype=torch.float32)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    # whole before it is used twice: it may still be a sum to be done over processes
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def clip_scale(norm: Tensor, max_norm: float) -> Tensor:
    """What gradients of that norm are multiplied by, [], so that their norm is at most `max_norm`."""
    return (max_norm / norm).clamp(max=1.0)
