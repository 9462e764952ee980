"""Checkpoints of a run: sharded, written aside and renamed, the last and the best kept.

    step-000100/checkpoint.json                                   step, metrics, plain values, list of files
    step-000100/shard-00001-model-00001-of-00001.safetensors      one or more for each process

Tensors go through torch's distributed checkpoint (DCP) in its safetensors layout: every process writes the shards it
owns, and a later run may read them with another number of processes. DCP's default layout keeps its index in a pickle,
whose reading executes what it says; this one has none.

A folder named `step-…` is whole at every instant: it is written as `.tmp-step-…`, synced to the disk, then renamed; and
renamed before it is deleted. One run writes to a folder at a time; the next one clears away what a killed one left.
"""

import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load
from torch.distributed.checkpoint.state_dict_saver import save as dcp_save
from torch.distributed.checkpoint.storage import WriteResult

from pictura.distributed.ranks import broadcast, is_main, world
from pictura.training.leaves import State, decode, encode, split, storable
from pictura.training.metrics import json_ready

RECORD = "checkpoint.json"
FILE_BYTES = 2**29  # a file is put together in memory before it is written, so this bounds the extra memory of a save


class CheckpointError(ValueError):
    """A checkpoint could not be written or read; the message says which one and why."""


class Checkpoints:
    """The checkpoints in one folder. All processes of a run construct it and call `save`, `load` and `latest` together.

    Args:
        folder: where the `step-…` folders lie; shared by all processes.
        keep_last: this many of the newest steps are kept.
        keep_best: and this many of those with the best value of `best`.
        best: name of a metric given to `save`, and whether less or more is better; None keeps only the last ones.
    """

    def __init__(
        self,
        folder: Path | str,
        keep_last: int = 2,
        keep_best: int = 1,
        best: tuple[str, Literal["min", "max"]] | None = None,
    ) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last: {keep_last} keeps no checkpoint to resume from; give 1 or more")
        if keep_best < 0:
            raise ValueError(f"keep_best: {keep_best} is negative; give 0 to keep only the last ones")
        if best is not None and best[1] not in ("min", "max"):
            raise ValueError(f"best: {best[1]!r} is no direction; write min or max after the metric {best[0]}")
        self.folder = Path(folder)
        self.keep_last, self.keep_best, self.best = keep_last, keep_best, best
        if is_main():
            self._clear()

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, oldest first."""
        found = (re.fullmatch(r"step-(\d{6,})", path.parent.name) for path in self.folder.glob(f"step-*/{RECORD}"))
        return sorted(int(match[1]) for match in found if match)

    def latest(self) -> int | None:
        """Newest step, the same on every process; None where there is no checkpoint yet."""
        newest = max(self.steps(), default=None)
        step: int | None = broadcast(newest)  # processes on several machines may see a shared folder at different ages
        return step

    def best_steps(self) -> list[int]:
        """Steps that have the metric `best`, best first; the later one first where they are equal."""
        if self.best is None:
            return []
        name, direction = self.best
        sign = 1.0 if direction == "min" else -1.0
        values: dict[int, float] = {}
        for step in self.steps():
            with suppress(CheckpointError):  # a damaged record must not stop the run from saving the next one
                value = self.record(step)["metrics"].get(name)
                if isinstance(value, int | float):  # "NaN" is a string there
                    values[step] = value
        return sorted(values, key=lambda step: (sign * values[step], -step))

    def record(self, step: int) -> dict[str, Any]:
        """`checkpoint.json` of a step: step, metrics, torch, world, values, files."""
        path = self.path(step) / RECORD
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); {self._others(step)}") from error
        return record

    def save(self, step: int, state: State, metrics: Mapping[str, float] | None = None) -> Path:
        """Write `state`, then delete what is kept no longer; steps after this one too, which a run left that went back.

        Args:
            state: nested dicts and lists of tensors and plain values (None, bool, int, float, str, tuples of these).
                All but sharded tensors (DTensor) are the same on every process.

        Raises:
            CheckpointError: full disk, read-only folder. Earlier checkpoints are untouched, and no half is left.
        """
        tensors, values = split(state)
        record = {
            "step": step,
            "metrics": json_ready(metrics or {}),
            "torch": torch.__version__,
            "world": world(),
            "values": {name: encode(box[key], name) for name, (box, key) in values.items()},
        }
        stored = storable({name: box[key] for name, (box, key) in tensors.items()})
        try:
            with _quiet():
                dcp_save(
                    stored,
                    storage_writer=_Writer(self.path(step), record, _files(stored)),
                    planner=DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
                    no_dist=not dist.is_initialized(),
                )
            if is_main():
                self._prune(step)
        except CheckpointException as failure:
            if is_main():
                self._clear()
            raise self._explain(step, _cause(failure)) from failure
        except OSError as error:
            raise self._explain(step, error) from error
        return self.path(step)

    def load(self, state: State, step: int | None = None) -> int:
        """Fill the tensors of `state` in place and replace its plain values. Returns the step; None takes the newest.

        `state` has the structure that was saved (torch's `get_state_dict` gives it for a fresh optimiser too); its
        tensors may be sharded over another number of processes.
        """
        step = self.latest() if step is None else step
        if step is None:
            raise CheckpointError(f"{self.folder}: there is no checkpoint to resume from")
        if step not in self.steps():
            raise CheckpointError(f"{self.folder}: no checkpoint of step {step}; there are {self.steps() or 'none'}")
        record = self.record(step)
        tensors, values = split(state)
        targets = {name: box[key] for name, (box, key) in tensors.items()}
        reader = HuggingFaceStorageReader(str(self.path(step)))
        self._check(record, reader, targets, set(values))
        try:
            with _quiet():
                planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
                dcp_load(targets, storage_reader=reader, planner=planner, no_dist=not dist.is_initialized())
        except CheckpointException as failure:
            raise CheckpointError(
                f"{self.path(step)}: cannot be read: {_cause(failure)}; {self._others(step)}"
            ) from failure
        for name, (box, key) in values.items():
            box[key] = decode(record["values"][name])
        return step

    def _check(
        self, record: dict[str, Any], reader: HuggingFaceStorageReader, targets: dict[str, Tensor], values: set[str]
    ) -> None:
        """Whole on the disk, and the same names, shapes and types as the run that asks for it."""
        path, advice = self.path(record["step"]), self._others(record["step"])
        for file, size in record["files"].items():
            found = (path / file).stat().st_size if (path / file).exists() else 0
            if found != size:
                raise CheckpointError(f"{path}: damaged, {file} has {found} bytes of {size}; {advice}")
        try:
            saved = reader.read_metadata().state_dict_metadata
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{path}: damaged ({error}); {advice}") from error
        advice = (
            f"resume with the recipe it was trained with (and torch {record['torch']}; this is {torch.__version__})"
        )
        here, there = targets.keys() | values, saved.keys() | record["values"].keys()
        for names, verdict in ((there - here, "not in this run"), (here - there, "not in the checkpoint")):
            if names:
                raise CheckpointError(f"{path}: {min(names)} ({len(names)} in all) is {verdict}; {advice}")
        for name, target in targets.items():
            was = saved[name]
            assert isinstance(was, TensorStorageMetadata)
            if (was.size, was.properties.dtype) != (target.shape, target.dtype):
                told = f"{was.properties.dtype} {list(was.size)}, in this run {target.dtype} {list(target.shape)}"
                raise CheckpointError(f"{path}: {name} is {told}; {advice}")

    def _prune(self, step: int) -> None:
        kept = {s for s in self.steps() if s <= step}
        keep = set(sorted(kept)[-self.keep_last :]) | set([s for s in self.best_steps() if s in kept][: self.keep_best])
        for old in set(self.steps()) - keep:
            os.rename(self.path(old), self.folder / f".tmp-{self.path(old).name}")  # never a half-deleted `step-…`
        self._clear()

    def _clear(self) -> None:
        """Remove what an interrupted save left. A step moved aside for its successor, which never came, returns."""
        for path in self.folder.glob(".old-step-*"):
            if (home := self.folder / path.name.removeprefix(".old-")).exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):  # a read-only folder can still be loaded from
                    path.rename(home)
        for path in self.folder.glob(".tmp-step-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _others(self, step: int) -> str:
        before = max((s for s in self.steps() if s != step), default=None)
        return f"delete {self.path(step)} to " + ("begin anew" if before is None else f"go on from step {before}")

    def _explain(self, step: int, cause: BaseException) -> BaseException:
        if not isinstance(cause, OSError):
            return cause
        full = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "free some space there" if full else "make it a folder that this user can write to"
        kept = f"earlier checkpoints are untouched: {self.steps()}" if self.steps() else "there is no earlier one"
        reason = cause.strerror or str(cause)
        return CheckpointError(f"{self.folder}: step {step} could not be written ({reason}); {advice}; {kept}")


class _Writer(HuggingFaceStorageWriter):
    """DCP's safetensors writer, with a last act: record, sync, rename. DCP tells every process of an error in one."""

    def __init__(self, final: Path, record: dict[str, Any], files: dict[str, int]) -> None:
        self.final, self.temporary = final, final.with_name(f".tmp-{final.name}")
        super().__init__(str(self.temporary), fqn_to_index_mapping=files, save_distributed=True)
        self.record = record
        self.is_coordinator = False

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        super().set_up_storage_writer(is_coordinator, *args, **kwargs)
        self.is_coordinator = is_coordinator

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        if self.is_coordinator:  # before any process writes: DCP gathers the plans first
            shutil.rmtree(self.temporary, ignore_errors=True)
            self.temporary.mkdir(parents=True)
        return plan

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        self.record["files"] = {path.name: path.stat().st_size for path in sorted(self.temporary.iterdir())}
        with (self.temporary / RECORD).open("w", encoding="utf-8") as file:
            json.dump(self.record, file, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        _sync(self.temporary)
        if self.final.exists():  # the same step again: a run that went back and came here once more
            os.rename(self.final, self.final.with_name(f".old-{self.final.name}"))
        os.rename(self.temporary, self.final)
        _sync(self.final.parent)


def _files(tensors: dict[str, Tensor]) -> dict[str, int]:
    """Number of the file (1, 2, …) that each tensor goes to, so that no file is much over FILE_BYTES."""
    files, number, filled = {}, 1, 0
    for name, tensor in tensors.items():
        if filled and filled + tensor.nbytes > FILE_BYTES:
            number, filled = number + 1, 0
        files[name], filled = number, filled + tensor.nbytes
    return files


def _cause(failure: CheckpointException) -> BaseException:
    """The error of the first process that failed; an interruption goes first."""
    errors = [error for _, (error, _) in sorted(failure.failures.items())]
    return next((error for error in errors if not isinstance(error, Exception)), errors[0])


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _quiet() -> Iterator[None]:
    """DCP warns at each call that one process without a process group is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield
