from typing import Any

import pytest
import torch

from pictura.distributed import ranks

Results = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ranks.VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_torchrun_there_is_one_process() -> None:
    started = ranks.start("gloo")
    assert (started.rank, started.world, started.local, started.device.type) == (0, 1, 0, "cpu")
    assert not torch.distributed.is_initialized()
    assert (ranks.rank(), ranks.world(), ranks.is_main()) == (0, 1, True)
    assert ranks.mean({"b": torch.tensor(2.0, requires_grad=True), "a": 1}) == {"b": 2.0, "a": 1.0}
    assert ranks.mean({}) == {}
    assert not ranks.any_rank(False) and ranks.any_rank(True)
    # as it comes back from other processes, so that one process behaves as many do
    assert ranks.collect({"path": ("a", 1)}) == [{"path": ["a", 1]}]
    assert ranks.broadcast([1, "ß"]) == [1, "ß"]
    ranks.stop()


def test_half_of_an_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(
        ValueError, match=r"RANK, MASTER_PORT set, but WORLD_SIZE, LOCAL_RANK, MASTER_ADDR missing.*torchrun"
    ):
        ranks.start("gloo")


def test_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="no CUDA device; use gloo"):
        ranks.start("nccl")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in zip(ranks.VARIABLES, ("3", "4", "3", "localhost", "1"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"LOCAL_RANK 3: this machine has 2 GPUs; use --nproc-per-node=2"):
        ranks.start()


def test_two_processes_know_themselves(results: Results) -> None:
    assert [r["started"] for r in results] == [[0, 2, 0, "cpu"], [1, 2, 1, "cpu"]]
    assert [(r["ranks"]["rank"], r["ranks"]["world"], r["ranks"]["main"]) for r in results] == [
        (0, 2, True),
        (1, 2, False),
    ]


def test_means_take_one_collective(results: Results) -> None:
    for result in results:
        assert result["ranks"]["means"] == {"b": 1.5, "a": 1.5, "lr": 5e-4}
        assert list(result["ranks"]["means"]) == ["b", "a", "lr"]
        assert result["ranks"]["collectives"] == 1


def test_two_processes_agree(results: Results) -> None:
    for result in results:
        assert result["ranks"]["any"] == [False, True, True]


def test_values_travel(results: Results) -> None:
    for result in results:
        assert result["ranks"]["collected"] == [{"keys": [], "rank": 0}, {"keys": ["schön"] * 3, "rank": 1}]
        assert result["ranks"]["broadcast"] == ["from 0", [1, 2.5]]
