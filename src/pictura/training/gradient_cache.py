"""Contrastive batches larger than memory: the loss sees the whole batch, the towers see micro-batches.

Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021 (GradCache): embed all
without gradients, score all, keep each feature's gradient, then embed again, part by part, and send it back. Exact,
for towers and temperature, for any objective that embeds each example alone.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pictura.distributed.batch_norm import batch_norms
from pictura.distributed.wrap import accumulate, unwrap
from pictura.objectives.base import Batch, Outcome, Task
from pictura.training.precision import Masters


def cached_backward(module: nn.Module, batch: Batch, micro_batch: int, masters: Masters | None = None) -> Outcome:
    """The task's outcome on `batch`, [b …], and its gradients, with at most `micro_batch` examples embedded at once.

    `module` is a task, or what `wrap` made of one. Each part is embedded twice with the same random numbers, so dropout
    is exact too; batch norm is not, since it looks across examples, and is refused by `check_cacheable` (unless it is
    locked: then it uses its running statistics). With
    `masters`, the gradients of all parts are added there, in float32.
    """
    task = unwrap(module)
    masters = masters or Masters(task)
    assert isinstance(task, Task)
    parts = list(_split(batch, micro_batch))
    seeds = [int(seed) for seed in torch.randint(2**62, (len(parts),))]
    with torch.no_grad():
        embedded = []
        for part, seed in zip(parts, seeds, strict=True):
            with _seeded(seed, _device(batch)):
                embedded.append(task.embed(part))
    features = {key: torch.cat([e[key] for e in embedded]) for key in embedded[0]}
    leaves = {k: v.requires_grad_() if v.is_floating_point() else v for k, v in features.items()}
    with accumulate(module, masters.masters.values()):
        outcome = task.score(leaves)
        outcome.loss.backward()
        masters.collect()
        start = 0
        for part, seed in zip(parts, seeds, strict=True):
            with _seeded(seed, _device(batch)):
                again = task.embed(part)
            end = start + len(next(iter(again.values())))
            grads = {k: x.grad[start:end] for k, x in leaves.items() if x.grad is not None and again[k].requires_grad}
            if grads:
                torch.autograd.backward([again[k] for k in grads], list(grads.values()))
                masters.collect()
            start = end
    return outcome


def check_cacheable(task: nn.Module) -> None:
    """Raises ValueError for a model in which one example's features depend on the others of its batch."""
    for name, norm in batch_norms(task):
        parameters = list(norm.parameters())
        if any(p.requires_grad for p in parameters) or not parameters:
            raise ValueError(
                f"training.micro_batch: {name} is batch norm, whose statistics would differ between micro-batches and "
                "the whole batch; leave micro_batch out, name that part in training.freeze, or use a model without "
                "batch norm"
            )


def _split(batch: Batch, size: int) -> Iterator[dict[str, Any]]:
    length = len(next(iter(batch.values())))
    for i in range(0, length, size):
        yield {key: value[i : i + size] for key, value in batch.items()}


def _device(batch: Mapping[str, Any]) -> torch.device:
    return next(v.device for v in batch.values() if isinstance(v, Tensor))


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
