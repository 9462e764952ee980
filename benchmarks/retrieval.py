"""R@1, R@5 and R@10 both ways among n pictures and n texts: ours in blocks, and open_clip's, which keeps the n x n
scores and sorts them. At 100,000 those are 40 GB, and their order 80 GB: there the peer is a loop over chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .harness import Case, MemoryCase

if TYPE_CHECKING:
    import torch

Step = Callable[[], "torch.Tensor"]
AT = (1, 5, 10)
CHUNK = 1024  # queries of the loop at a time: 400 MB of scores at 100,000
WARM = 64  # pairs of the first call, which loads kernels and starts threads


def pairs(n: int, dim: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """image, text: [n d], unit length, row i of both belonging together at cosine 0.17: of so many others at chance
    the best come as near, so that R@1 is neither 0 nor 1."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(n, dim, generator=generator) for _ in range(2))
    F.normalize(image, out=image)  # in place: what is freed here would serve the call that is to be measured
    F.normalize(text, out=text)
    F.normalize(text.mul_(0.985).add_(image, alpha=0.17), out=text)
    return image.to(device), text.to(device)


def ours(image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """[6] R@k of pictures that look for texts, then of texts that look for pictures."""
    import torch

    from pictura.evaluation.recall import ranks_both_ways

    both = ranks_both_ways(image, text, torch.arange(len(image)).expand(2, -1), device=image.device)
    return torch.stack([(ranks < k).double().mean() for ranks in both for k in AT])


def open_clips(image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """The same by the function with which open_clip measures while it trains."""
    import torch
    from open_clip_train.train import get_clip_metrics

    found = get_clip_metrics(image, text, torch.tensor(100.0, device=image.device))
    return torch.tensor([found[f"{way}_R@{k}"] for way in ("image_to_text", "text_to_image") for k in AT])


def looped(image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """The same by chunks of queries against all candidates, each way by itself, and their ten best."""
    import torch

    def way(queries: torch.Tensor, candidates: torch.Tensor) -> list[torch.Tensor]:
        found = [(chunk @ candidates.T).topk(min(AT[-1], len(text))).indices for chunk in queries.split(CHUNK)]
        right = torch.cat(found) == torch.arange(len(queries), device=queries.device)[:, None]
        return [right[:, :k].any(1).double().mean() for k in AT]

    return torch.stack(way(image, text) + way(text, image)).cpu()


PEERS = {"open_clip_torch": open_clips, "a loop over chunks": looped}


def both_steps(n: int, dim: int, device: str, peer: str | None) -> Step:
    """Our step, or a peer's, which has run once over a few."""
    step = ours if peer is None else PEERS[peer]
    step(*pairs(min(n, WARM), dim, device))
    image, text = pairs(n, dim, device)
    return lambda: step(image, text)


@dataclass(frozen=True, kw_only=True)
class RetrievalTime(Case):
    """Queries per second, of which there are n each way, in float32."""

    n: int
    dim: int = 512
    unit: str = "queries/s"
    dtype: str = "float32"

    warm_up: ClassVar[int] = 0
    rounds: ClassVar[int] = 3

    def flops(self) -> float:
        return 2.0 * self.n**2 * self.dim  # one product serves both ways

    def ours(self, device: str) -> Step:
        return both_steps(self.n, self.dim, device, None)

    def peer(self, device: str) -> Step:
        return both_steps(self.n, self.dim, device, self.peer_name)


@dataclass(frozen=True, kw_only=True)
class RetrievalMemory(MemoryCase):
    """Memory of one call beyond the vectors."""

    n: int
    dim: int = 512

    def ours(self, device: str) -> Step:
        return both_steps(self.n, self.dim, device, None)

    def peer(self, device: str) -> Step:
        return both_steps(self.n, self.dim, device, self.peer_name)


WHOLE = "get_clip_metrics of open_clip_train, the whole matrix and its order, float32"
LOOP = f"topk of {CHUNK:,} queries against all at a time, each way, float32; open_clip's would need 120 GB"

CASES = (
    RetrievalTime(
        name="retrieval_blocks", case="n10000_time", n=10_000, items=20_000, tolerance=2e-3, peer_setting=WHOLE
    ),
    RetrievalMemory(name="retrieval_blocks", case="n10000_memory", n=10_000, tolerance=2e-3, peer_setting=WHOLE),
    RetrievalTime(
        name="retrieval_blocks", case="n100000_time", n=100_000, items=200_000, tolerance=2e-3, opt_in=True,
        peer_name="a loop over chunks", peer_setting=LOOP,
    ),
    RetrievalMemory(
        name="retrieval_blocks", case="n100000_memory", n=100_000, tolerance=2e-3, opt_in=True,
        peer_name="a loop over chunks", peer_setting=LOOP,
    ),
)  # fmt: skip
