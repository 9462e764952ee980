"""One thread that keeps batches ready on the device while the training step runs."""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch import Tensor

Batch = dict[
    str, Any
]  # image: uint8 [b c y x]; text: int64 [b t]; label, index: int64 [b]; key, seed, further keys: lists of b


def prefetch(batches: Iterator[Batch], device: torch.device | str, depth: int = 2) -> Generator[Batch, None, None]:
    """The same batches on `device`, made up to `depth` ahead by one thread; to a CUDA device through pinned memory,
    beside the step.

    An error in making a batch is raised here when its turn comes. Closing this iterator closes `batches`.
    """
    device = torch.device(device)
    copies = torch.cuda.Stream(device) if device.type == "cuda" else None
    ready: queue.Queue[tuple[Batch | BaseException | None, torch.cuda.Event | None]] = queue.Queue(depth)
    stop = threading.Event()

    def offer(item: Batch | BaseException | None, event: torch.cuda.Event | None = None) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((item, event), timeout=0.1)
                break

    def fill() -> None:
        try:
            for batch in batches:
                offer(*_move(batch, device, copies))
                if stop.is_set():
                    break
            offer(None)
        except BaseException as error:  # noqa: BLE001  (raised again in the consumer's thread)
            offer(error)
        finally:
            if isinstance(batches, Generator):
                batches.close()

    thread = threading.Thread(target=fill, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            batch, event = ready.get()
            if batch is None:
                return
            if isinstance(batch, BaseException):
                raise batch
            if event is not None:
                now = torch.cuda.current_stream(device)
                event.wait(now)
                for value in batch.values():
                    if isinstance(value, Tensor):
                        value.record_stream(now)  # its memory is not used again before this stream is done with it
            yield batch
    finally:
        stop.set()
        thread.join(timeout=10)


def _move(
    batch: Batch, device: torch.device, copies: torch.cuda.Stream | None
) -> tuple[Batch, torch.cuda.Event | None]:
    if copies is None:
        return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}, None
    with torch.cuda.stream(copies):
        batch = {
            key: value.pin_memory().to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }
        return batch, copies.record_event()
