"""The prefetching thread: same batches, ahead of time, errors in their turn, and an end."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from pictura.data.prefetch import Batch, changed, prefetch


def batches(count: int) -> Iterator[Batch]:
    for number in range(count):
        image = torch.full((2, 4, 4, 3), number, dtype=torch.uint8).movedim(-1, -3)
        some = [image[0], image[1, :, :2]]  # of several sizes
        yield {"image": image, "index": torch.tensor([number, -number]), "key": [f"k{number}"], "left": some}


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "prefetch"]


def test_the_same_batches_in_the_same_order() -> None:
    got = list(prefetch(batches(7), "cpu"))
    assert [batch["key"] for batch in got] == [batch["key"] for batch in batches(7)]
    for ours, theirs in zip(got, batches(7), strict=True):
        assert torch.equal(ours["image"], theirs["image"])
        assert torch.equal(ours["index"], theirs["index"])
        assert ours["image"].is_contiguous(memory_format=torch.channels_last)
        assert all(map(torch.equal, ours["left"], theirs["left"]))
    assert not threads()


def test_tensors_in_lists_are_changed_and_nothing_else_is() -> None:
    image, words = torch.arange(6).view(2, 3), ["a", "b"]
    batch = {"image": image, "left": [image[0], image[1]], "key": words, "mixed": [image, "c", None], "none": []}
    found = changed(batch, lambda tensor: tensor + 10)
    assert torch.equal(found["image"], image + 10)
    assert [one.tolist() for one in found["left"]] == [[10, 11, 12], [13, 14, 15]]
    assert found["key"] == words
    assert torch.equal(found["mixed"][0], image + 10)
    assert found["mixed"][1:] == ["c", None]
    assert found["none"] == []
    assert batch["left"][0].tolist() == [0, 1, 2]


def test_to_another_device_all_of_them() -> None:
    """The device without memory, which every machine has."""
    for batch in prefetch(batches(3), "meta"):
        assert batch["image"].is_meta
        assert [tuple(one.shape) for one in batch["left"] if one.is_meta] == [(3, 4, 4), (3, 2, 4)]


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
        assert all(one.is_cuda and (one == number).all() for one in batch["left"])
