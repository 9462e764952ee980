from typing import Any

import pytest
import torch
from torch import nn

from pictura.distributed.wrap import accumulate, clip_scale, gradient_norm, units, unsharded, unwrap, wrap
from pictura.training.precision import Masters
from tests.distributed import worker

Results = list[dict[str, Any]]
MODES = ("ddp", "fsdp")


def test_alone_a_task_stays_as_it_is() -> None:
    task = nn.Linear(2, 1)
    for mode in MODES:
        assert wrap(task, mode) is task  # type: ignore[arg-type]
    assert unwrap(task) is task
    with unsharded(task):
        assert task(torch.zeros(1, 2)).shape == (1, 1)
    with accumulate(task):
        for _ in range(2):
            task(torch.ones(1, 2)).sum().backward()
    assert torch.equal(task.bias.grad, torch.tensor([2.0]))


def test_units_are_the_items_of_every_blocks_list() -> None:
    class Tower(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(depth))
            self.others = nn.ModuleList([nn.Linear(1, 1)])

    model = nn.ModuleDict({"image": Tower(2), "text": Tower(1)})
    expected = [*model["image"].blocks, *model["text"].blocks]
    assert all(a is b for a, b in zip(units(model), expected, strict=True))


@pytest.mark.parametrize("first", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("second", [torch.float32, torch.bfloat16])
def test_the_norm_is_that_of_all_gradients(first: torch.dtype, second: torch.dtype) -> None:
    gradients = [torch.full((3, 2), 2.0, dtype=first), None, torch.tensor(5.0, dtype=second)]
    norm = gradient_norm(gradients)
    assert norm.dtype == torch.float32
    assert norm.item() == pytest.approx(7.0)  # sqrt(6 * 4 + 25)


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping_is_by_the_norm_of_all_gradients(max_norm: float) -> None:
    model = nn.ParameterDict({"a": torch.zeros(3, 2), "b": torch.tensor(0.0), "unused": torch.zeros(1)})
    model["a"].grad, model["b"].grad = torch.full((3, 2), 2.0), torch.tensor(5.0)
    masters = Masters(model)
    norm = gradient_norm(gradient for _, gradient in masters.gradients())
    assert norm.item() == pytest.approx(7.0)
    masters.collect(scale=clip_scale(norm, max_norm))
    factor = min(1.0, max_norm / 7.0)
    torch.testing.assert_close(model["a"].grad, torch.full((3, 2), 2.0 * factor))
    torch.testing.assert_close(model["b"].grad, torch.tensor(5.0 * factor))
    assert clip_scale(torch.tensor(0.0), max_norm) == 1.0


def test_buffers_are_never_sent(results: Results) -> None:
    """Constants, and statistics that are the same in every process already."""
    assert all(result["flags"] == {"plain": False, "batch_norm": False} for result in results)


@pytest.mark.parametrize("mode", MODES)
def test_accumulation_adds_up(results: Results, mode: str) -> None:
    plain = results[0]["equivalence"][f"clip {mode} plain"]["gradients"]
    for result in results:
        for name, gradient in result["accumulated"][mode].items():
            torch.testing.assert_close(gradient, 2 * plain[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_processes_start_and_stay_equal(results: Results, mode: str) -> None:
    first, second = (result["steps"][mode] for result in results)
    for what in ("before", "after"):
        assert all(torch.equal(first[what][name], second[what][name]) for name in first[what])
    assert all(not torch.equal(first["before"][name], first["after"][name]) for name in first["before"])
    assert first["losses"][2] < first["losses"][0]


@pytest.mark.parametrize("mode", MODES)
def test_evaluation_sees_the_newest_weights(results: Results, mode: str) -> None:
    alone = worker.tiny_task("clip")
    expected = []
    with torch.no_grad():
        for change in (0.0, 0.0, 0.5):
            for parameter in alone.parameters():
                parameter += change
            expected.append(alone.model.encode_image(worker.whole_batch()["image"]))
    for result in results:
        found = result["evaluation"][mode]
        torch.testing.assert_close(found["embedded"], expected)
        assert found["sharded"] == (mode == "fsdp")


def test_sharded_and_replicated_take_the_same_steps(results: Results) -> None:
    ddp, fsdp = (results[0]["steps"][mode] for mode in MODES)
    assert fsdp["losses"] == pytest.approx(ddp["losses"], rel=1e-5)
    assert ddp["sharded"] == []
    whole = ddp["before"].keys() - set(fsdp["sharded"])
    assert whole == {"model.logit_scale"}


@pytest.mark.parametrize("mode", MODES)
def test_a_locked_tower_keeps_its_weights(results: Results, mode: str) -> None:
    for result in results:
        case = result["locked"][mode]
        moved = {name for name in case["before"] if not torch.equal(case["before"][name], case["after"][name])}
        assert moved == set(case["gradients"]) == {n for n in case["before"] if not n.startswith("model.image")}


def test_bf16_keeps_float32_shards_and_temperature(results: Results) -> None:
    exact, low = results[0]["steps"]["fsdp"], results[0]["bf16"]
    assert all(tensor.dtype == torch.float32 for what in ("after", "gradients") for tensor in low[what].values())
    assert low["losses"] != exact["losses"]  # it did compute in bf16
    assert low["losses"] == pytest.approx(exact["losses"], rel=0.02)
    second = results[1]["bf16"]["after"]
    assert all(torch.equal(low["after"][name], second[name]) for name in second)
