"""How much arithmetic a step is, counted by running it once on a few examples."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pictura.objectives.base import Batch


def count_flops(task: nn.Module, batch: Batch) -> float:
    """Floating-point operations of forward and backward for each example of `batch`; matrix products and convolutions.

    Leaves no gradients. Multiply and add count as two.
    """
    size = len(next(iter(batch.values())))
    with FlopCounterMode(display=False) as counter, torch.random.fork_rng():
        task(batch).loss.backward()
    task.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / size
