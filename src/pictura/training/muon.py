"""torch's Muon (Jordan et al. 2024), whose products are float32 on a CPU that would only imitate those of bf16."""

import math
from typing import Any

import torch
from torch import Tensor

from pictura.layers.linear import runs_here

COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of the quintic iteration: Jordan's, and torch's
STEPS = 5
LEAST = 1e-7  # of a norm that is divided by


class Muon(torch.optim.Muon):
    """Steps are as large as AdamW's: 0.2 sqrt(the longer side) times the rate (Liu et al. 2025, section 2.2)."""

    def __init__(self, params: Any, *, lr: float, weight_decay: float, momentum: float) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, momentum=momentum, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient. On a machine with bf16, to the last bit what torch's does."""
        assert closure is None
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                mean = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonal(matrix.grad.lerp(mean, group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-(group["lr"] * (0.2 * math.sqrt(max(matrix.shape)))))


def orthogonal(matrix: Tensor) -> Tensor:
    """[y x] -> nearly the orthogonal matrix next to it, by Newton and Schulz: singular values between 0.7 and 1.2, but
    for those that were hundreds of times smaller than the norm, which stay small."""
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16 if matrix.device.type != "cpu" or runs_here() else torch.float32, copy=True)
    x = x.T if (tall := x.shape[0] > x.shape[1]) else x
    x.div_(x.norm().clamp(min=LEAST))
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
