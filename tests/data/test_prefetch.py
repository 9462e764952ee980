"""The prefetching thread: same batches, ahead of time, errors in their turn, and an end."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from pictura.data.prefetch import Batch, prefetch


def batches(count: int) -> Iterator[Batch]:
    for number in range(count):
        image = torch.full((2, 4, 4, 3), number, dtype=torch.uint8).movedim(-1, -3)
        yield {"image": image, "index": torch.tensor([number, -number]), "key": [f"k{number}"]}


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]


def test_the_same_batches_in_the_same_order() -> None:
    got = list(prefetch(batches(7), "cpu"))
    assert [batch["key"] for batch in got] == [batch["key"] for batch in batches(7)]
    for ours, theirs in zip(got, batches(7), strict=True):
        assert torch.equal(ours["image"], theirs["image"])
        assert torch.equal(ours["index"], theirs["index"])
        assert ours["image"].is_contiguous(memory_format=torch.channels_last)
    assert not threads()


def test_it_works_ahead_but_not_further_than_told() -> None:
    made = []

    def noted() -> Iterator[Batch]:
        for batch in batches(100):
            made.append(1)
            yield batch

    iterator = prefetch(noted(), "cpu", depth=3)
    next(iterator)
    for _ in range(100):
        if len(made) == 5:
            break
        time.sleep(0.02)
    time.sleep(0.05)
    assert len(made) == 1 + 3 + 1  # given, ready, and in the thread's hand
    del iterator
    gc.collect()
    assert not threads()


def test_an_error_comes_in_its_turn() -> None:
    def failing() -> Iterator[Batch]:
        yield from batches(2)
        raise ValueError("no more pictures")

    iterator = prefetch(failing(), "cpu")
    assert [next(iterator)["key"], next(iterator)["key"]] == [["k0"], ["k1"]]
    with pytest.raises(ValueError, match="no more pictures"):
        next(iterator)
    assert not threads()


def test_closing_closes_what_it_reads() -> None:
    closed = []

    def noted() -> Iterator[Batch]:
        try:
            yield from batches(10**6)
        finally:
            closed.append(threading.current_thread().name)

    iterator = prefetch(noted(), "cpu")
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    assert closed == ["prefetch"]
    assert not threads()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_cuda_device() -> None:
    for number, batch in enumerate(prefetch(batches(50), "cuda")):
        assert batch["image"].is_cuda
        assert batch["image"].is_contiguous(memory_format=torch.channels_last)
        assert (batch["image"].float() * 1.0 == number).all()
        assert batch["index"].tolist() == [number, -number]
        assert batch["key"] == [f"k{number}"]
