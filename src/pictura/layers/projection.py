"""SimCLR's projection head, between a tower's features and the contrastive loss; thrown away after training.

Chen et al. 2020, section 4.2 (none, linear and nonlinear heads), in the form of their code: no linear layer has a bias,
batch norm follows each, the last one without a shift. Two layers are the paper's; three are SimCLRv2's (2020b).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn


class Projection(nn.Module):
    """[n f] -> [n out]: `layers` linear layers, ReLU between them; 0 gives the features back."""

    def __init__(self, features: int, layers: int = 2, width: int | None = None, out: int = 128) -> None:
        super().__init__()
        widths = [features, *[width or features] * (layers - 1), out] if layers else [features]
        self.linears = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(b) for b in widths[1:])
        if layers:
            self.norms[-1].register_parameter("bias", None)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """He's normal weights, so that their size means the same at every width; batch norm takes it out again."""
        for linear, norm in zip(self.linears, self.norms, strict=True):
            assert isinstance(linear, nn.Linear) and isinstance(norm, nn.BatchNorm1d)
            nn.init.kaiming_normal_(linear.weight)
            norm.reset_running_stats()
            nn.init.ones_(norm.weight)
            if norm.bias is not None:
                nn.init.zeros_(norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        for i, (linear, norm) in enumerate(zip(self.linears, self.norms, strict=True)):
            x = norm(linear(x if i == 0 else x.relu()))
        return x
