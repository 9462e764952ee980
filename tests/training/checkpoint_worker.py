"""What the tests of checkpoints start: `saves` runs until it is killed, `shards` is one of two processes."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from pictura.training import checkpoints
from pictura.training.checkpoints import CheckpointError, Checkpoints
from pictura.training.ema import Ema
from pictura.training.leaves import split


def numbered(step: int) -> dict[str, Any]:
    """A state that shows which step it is of, everywhere."""
    return {"tensors": {str(i): torch.full((50_000,), float(step + i)) for i in range(4)}, "step": step}


def saves(folder: Path) -> None:
    """Save step after step, saying each number when it is done; goes on from what is there."""
    kept = Checkpoints(folder, keep_last=2, keep_best=1, best=("loss", "min"))
    step = kept.latest() or 0
    while True:
        step += 1
        kept.save(step, numbered(step), {"loss": 1 / step if step % 7 else 0.0})
        sys.stdout.write(f"{step}\n")
        sys.stdout.flush()


class Toy(nn.Module):
    """Rows that two processes cannot share evenly: three, and one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 3), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.tanh(self.first(x)))
        return out


class Run:
    """A toy, its optimiser and its average, as a training loop has them."""

    def __init__(self, sharded: bool = False) -> None:
        self.model = Toy()
        if sharded:
            fully_shard(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.05)
        self.ema = Ema(self.model.named_parameters(), decay=0.9)

    def train(self, step: int) -> None:
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        F.mse_loss(self.model(x), x.sum(1, keepdim=True)).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()

    def state(self) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizer)
        return {"model": model, "optimizer": optimizer, "ema": self.ema.state_dict()}

    def load(self, folder: Path) -> int:
        state = self.state()
        step = Checkpoints(folder).load(state)
        set_state_dict(self.model, self.optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        self.ema.load_state_dict(state["ema"])
        return step

    def whole(self) -> dict[str, Tensor]:
        """Every tensor of the state, put together from all processes."""
        leaves = split(self.state())[0]
        tensors = {name: box[key].detach() for name, (box, key) in leaves.items()}
        return {name: (t.full_tensor() if isinstance(t, DTensor) else t).clone() for name, t in tensors.items()}


def shards(folder: Path) -> None:
    """In each of two processes: train, save, go on; fail to save in one; read what a single process wrote."""
    dist.init_process_group("gloo")
    main = dist.get_rank() == 0
    run = Run(sharded=True)
    kept = Checkpoints(folder / "two")
    run.train(1)
    run.train(2)
    kept.save(2, run.state())
    at_2 = run.whole()
    run.train(3)
    at_3 = run.whole()

    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    write = checkpoints._Writer.write_data
    if not main:
        checkpoints._Writer.write_data = full_disk  # type: ignore[assignment, method-assign]
    try:
        kept.save(3, run.state())
        told = "nothing"
    except CheckpointError as error:
        told = str(error)
    checkpoints._Writer.write_data = write  # type: ignore[method-assign]
    dist.barrier()
    left = sorted(os.listdir(folder / "two"))

    other = Run(sharded=True)
    step = other.load(folder / "one")
    from_one = other.whole()
    other.train(step + 1)
    after_one = other.whole()
    if main:
        for name, tensors in {"at_2": at_2, "at_3": at_3, "from_one": from_one, "after_one": after_one}.items():
            save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"told-{dist.get_rank()}.txt").write_text("\n".join([told, *left]))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"saves": saves, "shards": shards}[sys.argv[1]](Path(sys.argv[2]))
