"""The trainer in two processes, in bf16."""

from typing import Any

import pytest
import torch

from pictura.training.flops import count_flops
from tests.distributed import worker

Results = list[dict[str, Any]]
MODES = ("ddp", "fsdp")


@pytest.mark.parametrize("mode", MODES)
def test_every_process_starts_from_the_same_masters_and_stays_with_them(results: Results, mode: str) -> None:
    first, second = (result["trained"][mode] for result in results)
    begun = dict(worker.tiny_task("clip", seed=0).named_parameters())
    for name, tensor in first["before"].items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, begun[name]), name
    for what in ("before", "plain", "cached", "after"):
        assert all(torch.equal(first[what][name], second[what][name]) for name in first[what]), what


@pytest.mark.parametrize("mode", MODES)
def test_many_small_parts_have_the_gradient_of_the_whole(results: Results, mode: str) -> None:
    task = worker.tiny_task("clip")
    task(worker.whole_batch()).loss.backward()
    exact = {name: p.grad for name, p in task.named_parameters() if p.grad is not None}
    found = results[0]["trained"][mode]
    for name, wanted in exact.items():
        for what in ("plain", "cached"):
            assert found[what][name].dtype == torch.float32
            far = float((found[what][name] - wanted).norm() / wanted.norm())
            assert far < 0.06, f"{what} {name}"


def test_replicas_reduce_in_float32(results: Results) -> None:
    for result in results:
        assert result["trained"]["ddp"]["plain reduced"] == ["torch.float32"]
        assert result["trained"]["ddp"]["cached reduced"] == ["torch.float32"]


@pytest.mark.parametrize("mode", MODES)
def test_arithmetic_of_all_processes_without_what_is_recomputed(results: Results, mode: str) -> None:
    alone = count_flops(worker.tiny_task("clip"), worker.whole_batch()) * worker.BATCH
    for result in results:
        assert result["trained"][mode]["flops"] == pytest.approx(alone, rel=0.15)  # captions are cut elsewhere


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_of_another_process(results: Results, mode: str) -> None:
    for result in results:
        told = result["trained"][mode]["lost"]
        assert told.startswith(
            "step 3: the loss is nan in process 1, in the batch of 0-0, 0-1, 0-2, 0-3 and 4 more, in "
        )
