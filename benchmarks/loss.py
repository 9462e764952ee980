"""The contrastive loss, forward and backward, against open_clip.ClipLoss, which stores its N x N matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import flops
from .harness import Case, MemoryCase

if TYPE_CHECKING:
    import torch

SCALE = 100.0  # the inverse temperature at which CLIP's training stays
Step = Callable[[], "torch.Tensor"]


def inputs(n: int, dim: int, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """image, text: [n d], unit length, pairs at cosine 0.3 as trained models put them; scale []: all want gradients.

    Pairs that are much more alike would leave probabilities so small that float32 holds them as subnormal numbers,
    which slow a processor's products ten times and would be measured instead of the loss.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    image, noise = (torch.randn(n, dim, generator=generator) for _ in range(2))
    leaves = (image, 0.3 * image + 0.95 * noise)
    a, b = (torch.nn.functional.normalize(x, dim=1).to(device).requires_grad_() for x in leaves)
    return a, b, torch.tensor(SCALE, device=device, requires_grad=True)


def our_step(n: int, dim: int, device: str) -> Step:
    """Loss of n pairs and the gradients of both sides and of the scale."""
    from pictura.losses.contrastive import contrastive_loss

    image, text, scale = inputs(n, dim, device)

    def step() -> torch.Tensor:
        image.grad = text.grad = scale.grad = None
        loss, _ = contrastive_loss(image, text, scale)
        loss.backward()
        return loss

    return step


def their_step(n: int, dim: int, device: str) -> Step:
    """The same by open_clip, in float32: autocast was measured to save no memory, and its logits are off by 0.3."""
    import torch
    from open_clip import ClipLoss

    torch.backends.cuda.matmul.allow_tf32 = True  # as open_clip's own training does
    image, text, scale = inputs(n, dim, device)
    objective = ClipLoss(cache_labels=True)

    def step() -> torch.Tensor:
        image.grad = text.grad = scale.grad = None
        loss: torch.Tensor = objective(image, text, scale)
        loss.backward()
        return loss

    return step


@dataclass(frozen=True, kw_only=True)
class LossTime(Case):
    """Pairs per second through forward and backward."""

    n: int
    dim: int = 512
    unit: str = "pairs/s"
    dtype: str = "float32"

    def flops(self) -> float:
        return flops.contrastive(self.n, self.dim)

    def ours(self, device: str) -> Step:
        return our_step(self.n, self.dim, device)

    def peer(self, device: str) -> Step:
        return their_step(self.n, self.dim, device)


@dataclass(frozen=True, kw_only=True)
class LossMemory(MemoryCase):
    """Extra memory of one forward and backward: logits, what autograd keeps, gradients of the inputs."""

    n: int
    dim: int = 512

    def ours(self, device: str) -> Step:
        our_step(WARM, self.dim, device)()
        return our_step(self.n, self.dim, device)

    def peer(self, device: str) -> Step:
        their_step(WARM, self.dim, device)()
        return their_step(self.n, self.dim, device)


WARM = 64  # pairs of the first call, which loads kernels and starts threads

CASES = (
    LossMemory(
        name="contrastive_memory", case="n32768_d512_memory", n=32768, tolerance=1e-3,
        peer_setting="ClipLoss, float32 features, one process",
    ),
    LossTime(
        name="contrastive_memory", case="n4096_time", n=4096, items=4096, tolerance=1e-3,
        peer_setting="ClipLoss, float32 features, one process",
    ),
)  # fmt: skip
