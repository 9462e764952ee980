from typing import Any

import torch

from pictura.distributed.gather import gather

Results = list[dict[str, Any]]


def test_alone_there_is_nothing_to_gather() -> None:
    features = {"image": torch.zeros(3, 2)}
    assert gather(features)["image"] is features["image"]
    assert gather({}) == {}


def test_everybody_has_everything_in_order_of_rank(results: Results) -> None:
    own = [result["gather"]["own"] for result in results]
    for result in results:
        for name, whole in result["gather"]["whole"].items():
            expected = torch.cat([o[name] for o in own])
            assert whole.dtype == expected.dtype
            assert torch.equal(whole, expected), name


def test_one_collective_each_way(results: Results) -> None:
    for result in results:
        assert result["gather"]["calls"] == ["_all_gather", "_reduce_scatter"]


def test_gradients_are_summed_over_processes(results: Results) -> None:
    for result in results:
        found = result["gather"]
        assert found["differentiable"] == list(found["gradients"]) == ["float32", "bfloat16", "float64"]
        for name, gradient in found["gradients"].items():
            # process r adds (r + 1) x²: 2 x + 4 x
            own = found["own"][name]
            assert gradient.dtype == own.dtype
            assert torch.equal(gradient, (6 * own.double()).to(own.dtype)), name


def test_unequal_processes_are_told_apart(results: Results) -> None:
    for rank, result in enumerate(results):
        said = result["refusals"]
        assert f"between 2 and 3 examples (process {rank}: {3 - rank})" in said["sizes"]
        assert "different features" in said["names"] and ("image" if rank else "text") in said["names"]
        assert "different features" in said["dtypes"] and ("float32" if rank else "bfloat16") in said["dtypes"]
