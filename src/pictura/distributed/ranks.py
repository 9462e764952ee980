"""Which of the processes this one is, and the small things they tell each other.

`torchrun` says so in the environment. Without it everything here works as one process, with no process group.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

_alone = ContextVar("alone", default=False)
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """This process: `rank` of `world`, `local` on its machine, computing on `device`."""

    rank: int
    world: int
    local: int
    device: torch.device


def start(backend: Literal["gloo", "nccl"] | None = None, timeout: float = 1800.0) -> Ranks:
    """Join the other processes that `torchrun` started, if it did.

    `backend`: gloo computes on the CPU, nccl on one GPU each; None takes the GPU where there is one. `timeout`, in
    seconds, is how long a process waits for the others before it gives up. Raises ValueError when the environment or
    the machine does not allow what is asked.
    """
    gpus = torch.cuda.device_count()
    if backend == "nccl" and gpus == 0:
        raise ValueError("backend nccl: this machine has no CUDA device; use gloo, or leave the backend out")
    on_gpu = backend == "nccl" or (backend is None and gpus > 0)
    present = [name for name in VARIABLES if name in os.environ]
    if "RANK" not in present and "WORLD_SIZE" not in present:
        return Ranks(0, 1, 0, torch.device("cuda", 0) if on_gpu else torch.device("cpu"))
    if missing := [name for name in VARIABLES if name not in present]:
        raise ValueError(
            f"environment: {', '.join(present)} set, but {', '.join(missing)} missing; "
            "start with torchrun, which sets all five, or unset them for one process"
        )
    local = int(os.environ["LOCAL_RANK"])
    if on_gpu and local >= gpus:
        raise ValueError(f"LOCAL_RANK {local}: this machine has {gpus} GPUs; use --nproc-per-node={gpus}")
    device = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group(
        # beside nccl, gloo carries what lies on the CPU: flags and names then never wait for the GPU
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        timeout=timedelta(seconds=timeout),
        device_id=device if on_gpu else None,
    )
    return Ranks(dist.get_rank(), dist.get_world_size(), local, device)


def stop() -> None:
    """Leave the group. Nothing happens where there is none."""
    if dist.is_initialized():
        dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process, `code` being its exit code, without Python's own clearing up: for the last line of a script.

    torch's caches keep the group, with its threads, though it was left; a thread that lets go of a tensor while Python
    shuts down aborts the process (pytorch/pytorch#179291), which torchrun then reports as a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() and not _alone.get() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() and not _alone.get() else 1


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return not dist.is_initialized() or dist.get_rank() == 0


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process computes as if it were the only one, and waits for nobody: for what one of them measures."""
    before = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(before)


def any_rank(flag: bool) -> bool:
    """Whether `flag` holds in any process: how they agree to stop at the same step. Does not wait for a GPU."""
    if world() == 1:
        return flag
    told = torch.tensor(int(flag))
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return bool(told)


def mean(metrics: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Numbers under names -> their means over processes, as floats: one all-reduce and one wait for the device.

    Every process must bring the same names.
    """
    if not metrics:
        return {}
    values = (metrics[name] for name in sorted(metrics))
    tensors = [v.detach() if isinstance(v, Tensor) else torch.tensor(v, dtype=torch.float64) for v in values]
    device = next((t.device for t in tensors if t.device.type != "cpu"), torch.device("cpu"))
    wide = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    total = torch.stack([t.to(device, wide).reshape(()) for t in tensors])
    if world() > 1:
        dist.all_reduce(total)
        total /= world()
    means: dict[str, float] = dict(zip(sorted(metrics), total.tolist(), strict=True))
    return {name: means[name] for name in metrics}


def collect(value: Any) -> list[Any]:
    """A small JSON value of each process -> all of them, in order of rank, in every process. Nothing is pickled."""
    text = json.dumps(value).encode()
    if world() == 1:
        return [json.loads(text)]
    sizes = [torch.zeros((), dtype=torch.int64) for _ in range(world())]
    dist.all_gather(sizes, torch.tensor(len(text)))
    longest = max(int(size) for size in sizes)
    padded = torch.frombuffer(bytearray(text.ljust(longest)), dtype=torch.uint8)
    texts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(texts, padded)
    return [json.loads(t.numpy().tobytes()) for t in texts]


def broadcast(value: Any, source: int = 0) -> Any:
    """The JSON value that process `source` has, in every process; what the others bring is ignored."""
    return collect(value if rank() == source else None)[source]
