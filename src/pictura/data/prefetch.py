"""One thread that keeps batches ready on the device while the training step runs."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

# image, and left and right of a pair: uint8 [b c y x], or a list of b [c y x] where sizes differ; text, question,
# statement, other, words: int64 [b t]; label, index: int64 [b]; key, seed, further keys: lists of b
Batch = dict[str, Any]


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
                    for tensor in value if isinstance(value, list) else [value]:
                        if isinstance(tensor, Tensor):
                            tensor.record_stream(now)  # its memory is not used again before this stream is done with it
            yield batch
    finally:
        stop.set()
        thread.join(timeout=10)


def _move(
    batch: Batch, device: torch.device, copies: torch.cuda.Stream | None
) -> tuple[Batch, torch.cuda.Event | None]:
    if copies is None:
        return changed(batch, lambda tensor: tensor.to(device)), None
    with torch.cuda.stream(copies):
        batch = changed(batch, lambda tensor: tensor.pin_memory().to(device, non_blocking=True))
        return batch, copies.record_event()


def changed(batch: Mapping[str, Any], change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with `change` made to each of its tensors, those in lists too."""

    def one(value: Any) -> Any:
        return change(value) if isinstance(value, Tensor) else value

    return {key: [*map(one, value)] if isinstance(value, list) else one(value) for key, value in batch.items()}
