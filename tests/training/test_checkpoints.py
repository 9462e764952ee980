"""Checkpoints: exact round trips, what is kept, and that nothing that goes wrong costs an earlier one."""

import errno
import importlib.util
import json
import os
import pickle
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import pictura
from pictura.training import checkpoints
from pictura.training.checkpoints import CheckpointError, Checkpoints

WORKER = Path(__file__).with_name("checkpoint_worker.py")


def load_worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("checkpoint_worker", WORKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


worker = load_worker()


def start(mode: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    common = {"PYTHONPATH": str(Path(pictura.__file__).parents[1]), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(WORKER), mode, str(folder)]
    return subprocess.Popen(
        command, env=os.environ | common | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy(force=True).tobytes() == b.numpy(force=True).tobytes()


def mixed_tensors() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "float32": torch.randn(3, 4, generator=g),
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
        "int64": torch.arange(-3, 3),
        "uint8": torch.arange(9, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "turned": torch.randn(4, 3, generator=g).t(),
        "view": torch.randn(10, generator=g)[3:5],
    }


def numbered_step(folder: Path, step: int) -> int:
    """Load a checkpoint of `worker.numbered`, check that it is of one step throughout, and say which."""
    state = worker.numbered(-100)
    assert Checkpoints(folder).load(state, step) == step
    assert state["step"] == step
    assert all(torch.equal(t, torch.full_like(t, step + int(i))) for i, t in state["tensors"].items())
    return step


# ---- round trips


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    saved = mixed_tensors()
    Checkpoints(tmp_path).save(1, {"nested": [saved]})
    read = {name: torch.zeros_like(t) for name, t in saved.items()}
    assert Checkpoints(tmp_path).load({"nested": [read]}) == 1
    for name, tensor in saved.items():
        assert same_bits(read[name], tensor), name


def test_bfloat16_and_float16_come_back_bit_for_bit(tmp_path: Path) -> None:
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16)
    saved = {"bf16": bits.view(torch.bfloat16), "f16": bits.view(torch.float16), "scalar": torch.tensor(1.5).bfloat16()}
    Checkpoints(tmp_path).save(1, dict(saved))
    read = {name: torch.zeros_like(t) for name, t in saved.items()}
    Checkpoints(tmp_path).load(read)
    assert all(torch.equal(read[name].view(torch.int16), saved[name].view(torch.int16)) for name in saved)


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    weight = torch.randn(4)
    Checkpoints(tmp_path).save(1, {"in": weight, "out": weight})
    target = torch.zeros(4)
    Checkpoints(tmp_path).load({"in": target, "out": target})
    assert torch.equal(target, weight)


def test_plain_values_are_replaced(tmp_path: Path) -> None:
    state = {"step": 7, "best": float("-inf"), "betas": (0.9, (0.1 + 0.2, None)), "seen": ["a", True], "none": {}}
    Checkpoints(tmp_path).save(7, state)
    read: dict[str, Any] = {"step": 0, "best": 0.0, "betas": None, "seen": [], "none": {}}
    Checkpoints(tmp_path).load(read)
    assert read == state


def test_many_files_when_the_state_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "FILE_BYTES", 1000)
    saved = {str(i): torch.randn(100, i + 1) for i in range(5)}
    folder = Checkpoints(tmp_path).save(1, dict(saved))
    assert len(list(folder.glob("*.safetensors"))) == 5
    read = {name: torch.zeros_like(t) for name, t in saved.items()}
    Checkpoints(tmp_path).load(read)
    assert all(torch.equal(read[name], saved[name]) for name in saved)


def test_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 1))
        return model, torch.optim.AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.98), weight_decay=0.2)

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> list[float]:
        losses = []
        for step in numbers:
            loss = model(torch.randn(5, 4, generator=torch.Generator().manual_seed(step))).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    model, optimizer = fresh()
    steps(model, optimizer, range(3))
    saved_model, saved_optimizer = get_state_dict(model, optimizer)
    Checkpoints(tmp_path).save(3, {"model": saved_model, "optimizer": saved_optimizer})
    expected = steps(model, optimizer, range(3, 8))

    model, optimizer = fresh()
    steps(model, optimizer, range(50, 51))
    own_model, own_optimizer = get_state_dict(model, optimizer)
    state: dict[str, Any] = {"model": own_model, "optimizer": own_optimizer}
    Checkpoints(tmp_path).load(state)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    assert steps(model, optimizer, range(3, 8)) == expected


def test_reading_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    folder = Checkpoints(tmp_path).save(1, worker.numbered(1))
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    (folder / ".metadata").write_bytes(pickle.dumps(Trap()))

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("something was unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    assert numbered_step(tmp_path, 1) == 1
    assert not (tmp_path / "sprung").exists()


# ---- what is kept


def test_last_and_best_are_kept(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, keep_last=2, keep_best=1, best=("clip/loss", "min"))
    for step, loss in enumerate([3.0, 1.0, 2.0, float("nan"), 2.5, 2.4], start=1):
        kept.save(step, {"step": step}, {"clip/loss": loss})
    assert kept.steps() == [2, 5, 6]
    assert kept.best_steps() == [2, 6, 5]
    assert kept.latest() == 6
    assert kept.record(2)["metrics"] == {"clip/loss": 1.0}


def test_best_by_the_greatest_and_without_the_metric(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, keep_last=1, keep_best=2, best=("top1", "max"))
    for step, metrics in enumerate([{"top1": 0.5}, {"top1": 0.9}, {}, {"top1": 0.5}, {"top1": 0.1}], start=1):
        kept.save(step, {"step": step}, metrics)
    assert kept.best_steps()[:2] == [2, 4]  # of two equal ones the later
    assert kept.steps() == [2, 4, 5]


def test_without_a_best_only_the_last_are_kept(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, keep_last=1)
    for step in (1, 2, 3):
        kept.save(step, {"step": step}, {"clip/loss": step})
    assert kept.steps() == [3]


def test_a_run_that_went_back_drops_the_future_it_left(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, keep_last=3)
    for step in (10, 20, 30):
        kept.save(step, worker.numbered(step))
    kept.load(worker.numbered(0), 10)
    kept.save(15, worker.numbered(15))
    assert kept.steps() == [10, 15]
    assert kept.latest() == 15


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(5, {"x": torch.zeros(2)}, {"loss": 2.0})
    kept.save(5, {"x": torch.ones(2)}, {"loss": 1.0})
    read = {"x": torch.zeros(2)}
    assert kept.load(read) == 5
    assert torch.equal(read["x"], torch.ones(2))
    assert os.listdir(tmp_path) == ["step-000005"]


# ---- what goes wrong


def test_no_checkpoint(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "none")
    assert kept.latest() is None
    assert kept.steps() == []
    assert not (tmp_path / "none").exists()
    with pytest.raises(CheckpointError, match="none: there is no checkpoint to resume from"):
        kept.load({})


def test_a_step_that_is_not_there(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(5, {"x": 1})
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 6; there are \[5\]"):
        kept.load({"x": 1}, 6)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"keep_last": 0}, "keep_last: 0 keeps no checkpoint"),
        ({"keep_best": -1}, "keep_best: -1"),
        ({"best": ("loss", "least")}, "'least' is no direction; write min or max"),
    ],
)
def test_arguments(tmp_path: Path, arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Checkpoints(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (
            {"a": torch.zeros(2), "b": torch.zeros(3), "c": 1},
            r"b \(1 in all\) is not in the checkpoint; resume with the",
        ),
        ({"a": torch.zeros(2)}, r"c \(1 in all\) is not in this run"),
        ({"a": torch.zeros(3), "c": 1}, r"a is torch.float32 \[2\], in this run torch.float32 \[3\]"),
        ({"a": torch.zeros(2).bfloat16(), "c": 1}, r"a is torch.float32 \[2\], in this run torch.bfloat16 \[2\]"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, state: dict[str, Any], match: str) -> None:
    Checkpoints(tmp_path).save(1, {"a": torch.ones(2), "c": 0})
    with pytest.raises(CheckpointError, match=match):
        Checkpoints(tmp_path).load(state)
    assert not state["a"].any()  # refused before anything was read


@pytest.mark.parametrize("damage", ["cut", "missing", "record", "header"])
def test_damage_is_named_and_does_not_stop_saving(tmp_path: Path, damage: str) -> None:
    kept = Checkpoints(tmp_path, best=("loss", "min"))
    kept.save(1, worker.numbered(1), {"loss": 1.0})
    folder = kept.save(2, worker.numbered(2), {"loss": 2.0})
    (shard,) = folder.glob("*.safetensors")
    if damage == "cut":
        os.truncate(shard, 1000)
    elif damage == "missing":
        shard.unlink()
    elif damage == "record":
        (folder / "checkpoint.json").write_text('{"step": 2, "metr')
    else:
        shard.write_bytes(b"\xff" * shard.stat().st_size)
    with pytest.raises(CheckpointError, match=r"step-000002.*delete \S*step-000002 to go on from step 1$"):
        kept.load(worker.numbered(0))
    assert numbered_step(tmp_path, 1) == 1
    if damage == "cut":
        shutil.rmtree(tmp_path / "step-000001")
        with pytest.raises(CheckpointError, match=r"delete \S*step-000002 to begin anew$"):
            kept.load(worker.numbered(0))
    kept.save(3, worker.numbered(3), {"loss": 3.0})
    assert numbered_step(tmp_path, 3) == 3


def test_what_json_cannot_hold_is_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="generator/state: a Random here cannot be checkpointed"):
        Checkpoints(tmp_path).save(1, {"generator": {"state": random.Random()}})
    assert os.listdir(tmp_path) == []


def test_a_file_that_grows_too_large(tmp_path: Path) -> None:
    """The system refuses in the middle of a real file, as on a full disk."""
    kept = Checkpoints(tmp_path)
    kept.save(1, worker.numbered(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"step 2 could not be written \(File too large\); free some space"):
            kept.save(2, worker.numbered(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["step-000001"]
    assert numbered_step(tmp_path, 1) == 1
    kept.save(2, worker.numbered(2))
    assert numbered_step(tmp_path, 2) == 2


@pytest.mark.parametrize("call", ["fsync", "rename"])
@pytest.mark.parametrize("again", [False, True])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, again: bool) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(1, worker.numbered(1))
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(
            CheckpointError, match=r"No space left on device\); free some.*are untouched: \[1\]"
        ) as told:
            kept.save(1 if again else 2, worker.numbered(5))
    assert str(tmp_path) in str(told.value)
    assert "\n" not in str(told.value)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    assert numbered_step(tmp_path, 1) == 1


@pytest.mark.skipif(not Path("/sys/kernel").exists(), reason="needs a folder that not even root can write to")
def test_a_read_only_folder() -> None:
    with pytest.raises(CheckpointError, match=r"/sys/pictura: step 1 could not be written .*; make it a folder that"):
        Checkpoints("/sys/pictura").save(1, {"x": torch.zeros(2)})


def test_what_an_interrupted_save_left_is_not_mixed_in(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.save(1, worker.numbered(1)).rename(tmp_path / ".tmp-step-000002")
    (shard,) = (tmp_path / ".tmp-step-000002").glob("*.safetensors")
    shard.rename(shard.with_name("shard-00009-model-00001-of-00001.safetensors"))  # of a run with more processes
    kept.save(2, worker.numbered(2))
    assert numbered_step(tmp_path, 2) == 2


def test_interruption_is_not_turned_into_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    kept = Checkpoints(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            kept.save(1, worker.numbered(1))
    assert os.listdir(tmp_path) == []


# ---- kill -9


class Killed(BaseException):
    pass


@pytest.mark.parametrize("again", [False, True])
def test_killed_at_every_call_to_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool) -> None:
    """Nothing happens from some call on; whichever it is, the next start finds the old or the new step whole."""
    target = 2 if again else 3
    rmtree = shutil.rmtree
    places = [
        (os, "fsync"),
        (os, "rename"),
        (shutil, "rmtree"),
        (Path, "mkdir"),
        (Path, "open"),
    ]
    survived = 0
    for last in range(100):
        folder = tmp_path / str(last)
        kept = Checkpoints(folder, keep_last=1)
        kept.save(1, worker.numbered(1))
        kept.save(2, worker.numbered(2))
        calls = 0

        def guarded(real: Callable[..., Any], last: int = last) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > last:
                    if calls == last + 1 and real is rmtree:  # in the middle of it
                        for path in sorted(arguments[0].glob("*"))[:1]:
                            path.unlink()
                    raise Killed
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for owner, name in places:
                patch.setattr(owner, name, guarded(getattr(owner, name)))
            try:
                kept.save(target, worker.numbered(target))
                finished = True
            except Killed:
                finished = False
        next_start = Checkpoints(folder, keep_last=1)
        assert {path.name for path in folder.iterdir()} == {f"step-{step:06d}" for step in next_start.steps()}
        assert next_start.latest() in ((target,) if finished else (2, target))
        assert [numbered_step(folder, step) for step in next_start.steps()] == next_start.steps()
        if finished:
            break
        survived += 1
    assert survived > 8  # it was killed at each of several places


def kill_while_saving(folder: Path, wait: float) -> None:
    child = start("saves", folder)
    assert child.stdout is not None
    try:
        first = child.stdout.readline()
        assert first.strip().isdigit(), first + child.stdout.read()
        time.sleep(wait)
    finally:
        child.send_signal(signal.SIGKILL)
        told = [int(line) for line in [first, *child.stdout.read().split("\n")] if line.strip().isdigit()]
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
    for path in folder.glob("step-*"):  # before anything is cleared away
        assert numbered_step(folder, int(path.name.removeprefix("step-"))) > 0
    kept = Checkpoints(folder)
    newest = kept.latest()
    assert newest is not None and newest >= told[-1], f"waited {wait}"
    assert {path.name for path in folder.iterdir()} == {f"step-{step:06d}" for step in kept.steps()}


def test_killed_while_saving(tmp_path: Path) -> None:
    kill_while_saving(tmp_path, random.uniform(0, 0.2))


@pytest.mark.slow
def test_killed_ten_times_while_saving(tmp_path: Path) -> None:
    for _ in range(10):
        kill_while_saving(tmp_path, random.uniform(0, 0.3))


# ---- several processes


def test_another_number_of_processes(tmp_path: Path) -> None:
    """Two write what one reads and goes on from, one writes what two read; and one of two meets a full disk."""
    torch.manual_seed(1)
    one = worker.Run()
    one.train(7)
    Checkpoints(tmp_path / "one").save(1, one.state())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    children = [
        start("shards", tmp_path, RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        for rank in range(2)
    ]
    try:
        logs = [child.communicate(timeout=300)[0] for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert [child.returncode for child in children] == [0, 0], "\n".join(logs)

    two = {name: load_file(tmp_path / f"{name}.safetensors") for name in ("at_2", "at_3", "from_one", "after_one")}
    record = json.loads((tmp_path / "two/step-000002/checkpoint.json").read_text())
    assert record["world"] == 2
    assert len(record["files"]) == 2
    run = worker.Run()
    assert run.load(tmp_path / "two") == 2
    mine = run.whole()
    assert mine.keys() == two["at_2"].keys()
    assert all(same_bits(mine[name], two["at_2"][name]) for name in mine)
    run.train(3)
    for name, tensor in run.whole().items():
        torch.testing.assert_close(tensor, two["at_3"][name], rtol=1e-6, atol=1e-7)

    assert all(same_bits(tensor, two["from_one"][name]) for name, tensor in one.whole().items())
    one.train(2)
    for name, tensor in one.whole().items():
        torch.testing.assert_close(tensor, two["after_one"][name], rtol=1e-6, atol=1e-7)

    for rank in range(2):
        told, *left = (tmp_path / f"told-{rank}.txt").read_text().split("\n")
        assert "step 3 could not be written (No space left on device)" in told
        assert left == ["step-000002"]
