"""Recall among many: ours, open_clip's and the loop's are one, and the naive count's."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from benchmarks import retrieval
from benchmarks.retrieval import CASES, RetrievalMemory, RetrievalTime

open_clip = pytest.param(
    "open_clip_torch",
    marks=pytest.mark.skipif(importlib.util.find_spec("open_clip_train") is None, reason="open_clip is not installed"),
)


def naive(image: torch.Tensor, text: torch.Tensor) -> list[float]:
    found = []
    for scores in (image @ text.T, text @ image.T):
        ranks = [sum(other > row[i] for other in row) for i, row in enumerate(scores.tolist())]
        found += [sum(rank < k for rank in ranks) / len(ranks) for k in (1, 5, 10)]
    return found


@pytest.mark.parametrize("peer", [open_clip, "a loop over chunks"])
@pytest.mark.parametrize("kind", [RetrievalTime, RetrievalMemory])
def test_both_sides_count_as_a_naive_loop_does(peer: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "CHUNK", 64)  # several of them
    case = kind(name="toy", case="toy", peer_setting="toy", peer_name=peer, n=200, dim=64)
    expected = torch.tensor(naive(*retrieval.pairs(200, 64, "cpu")), dtype=torch.float64)
    assert expected.min() > 0 and expected.max() < 1 and len(expected.unique()) > 3
    for side in (case.ours("cpu"), case.peer("cpu")):
        torch.testing.assert_close(side().double(), expected)


def test_one_product_is_counted() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    case = RetrievalTime(name="toy", case="toy", peer_setting="toy", peer_name="a loop over chunks", n=300, dim=16)
    ours, peer = case.ours("cpu"), case.peer("cpu")
    with FlopCounterMode(display=False) as counter:
        ours()
    assert counter.get_total_flops() == case.flops()
    with FlopCounterMode(display=False) as counter:
        peer()
    assert counter.get_total_flops() == 2 * case.flops()


def test_items_are_the_queries_of_both_ways() -> None:
    assert all(case.items == 2 * case.n for case in CASES if isinstance(case, RetrievalTime))
