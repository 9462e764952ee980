"""How much arithmetic a step is, counted by running it once on a few examples."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pictura.layers.linear import FUSED
from pictura.objectives.base import Batch


def count_flops(task: nn.Module, batch: Batch) -> float:
    """Floating-point operations of forward and backward for each example of `batch`; matrix products and convolutions.

    Leaves no trace: no gradients, no statistics of batch norm, no random numbers drawn, nothing compiled for so few
    examples. Multiply and add count as two.
    """
    size = len(next(iter(batch.values())))
    device = next(v.device for v in batch.values() if isinstance(v, Tensor))
    buffers = {name: buffer.clone() for name, buffer in task.named_buffers()}
    eager, own = torch.compiler.set_stance("force_eager"), [device] if device.type == "cuda" else []
    with (
        FlopCounterMode(display=False, custom_mapping=unknown_to_torch()) as counter,
        eager,
        torch.random.fork_rng(own),
    ):
        task(batch).loss.backward()
    with torch.no_grad():
        for name, buffer in task.named_buffers():
            buffer.copy_(buffers[name])
    task.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / size


def unknown_to_torch() -> dict[Any, Any]:
    """Arithmetic of the CPU kernels that torch's counter passes over, as its `custom_mapping`."""

    def attention(q: torch.Size, k: torch.Size, v: torch.Size, *_: Any, **__: Any) -> int:
        b, h, m, c = q
        return 2 * b * h * m * k[2] * (c + v[3])

    def product(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
        return 2 * x.numel() * weight[0]

    known = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    return known | ({torch.ops.mkldnn._linear_pointwise: product} if FUSED else {})
