"""The training loop. It knows `task(batch) -> Outcome`, an optimiser and a folder, and nothing of pictures or words.

What a step does is a function of (seed, step) and the state in its checkpoint, so a run killed at any instant goes on
from its last checkpoint to the same losses, bit for bit on one machine.
"""

from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pictura.config import Config
from pictura.data.randomness import random_generator
from pictura.distributed.ranks import any_rank, is_main, mean, rank, world
from pictura.distributed.wrap import clip_gradients, units, unsharded, wrap
from pictura.objectives.base import Batch, Outcome, Task
from pictura.training.checkpoints import Checkpoints
from pictura.training.ema import Ema
from pictura.training.flops import count_flops
from pictura.training.gradient_cache import cached_backward, check_cacheable
from pictura.training.metrics import MetricsLog
from pictura.training.optimizers import OptimizerConfig
from pictura.training.precision import Masters
from pictura.training.progress import Progress, measured_peak
from pictura.training.schedules import ScheduleConfig
from pictura.training.signals import Stopped, StopRequest

Evaluate = Callable[[int], dict[str, float]]
Step = tuple[int, Tensor, Batch]  # number, loss, batch


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """How long, how precise, how large.

    micro_batch: examples embedded at once; the loss still sees the whole batch (gradient cache).
    freeze: names of model parts that keep their weights, `image` for a locked picture tower (LiT, Zhai et al. 2022).
    recompute: activations of blocks are computed again in the backward pass, to save memory.
    save_every, evaluate_every: in steps; the end of the run is always saved and evaluated.
    best: metric, and whether `min` or `max` of it is best, for the checkpoint kept beside the last ones.
    """

    steps: int
    precision: Literal["float32", "bf16"] = "bf16"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    clip_norm: float | None = 1.0
    micro_batch: int | None = None
    freeze: tuple[str, ...] = ()
    recompute: bool = False
    compile: bool = False
    ema: float | None = None
    log_every: int = 10
    save_every: int = 500
    keep_last: int = 2
    evaluate_every: int | None = None
    best: tuple[str, Literal["min", "max"]] | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "save_every", "micro_batch", "evaluate_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} is below 1")


class NonFinite(ArithmeticError):
    """The loss is no number any more; the message says at which step, for which examples, and where to go back to."""


class Trainer:
    """Everything that training changes: `run()` changes it, `save()` and `resume()` move it to and from the disk."""

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        folder: Path,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.folder, self.seed, self.device = config, folder, seed, torch.device(device)
        self.task = task.to(self.device)
        self.schedule = schedule.build(config.steps)
        self.step = 0
        freeze(task.model, config.freeze)
        if config.micro_batch is not None:
            check_cacheable(task)
        if config.recompute:
            recompute(task)
        if config.compile:
            for block in units(task):
                block.compile()
        bf16, sharded = config.precision == "bf16", config.parallel == "fsdp" and world() > 1
        if sharded:  # FSDP keeps float32 shards and casts each once, when it gathers them
            self.module = wrap(task, "fsdp", bf16=bf16)
            self.masters = Masters(task)
        else:
            self.masters = Masters(task, torch.bfloat16 if bf16 else torch.float32)
            self.module = wrap(task, "ddp")
            self.masters.publish()
        self.optimizer = optimizer.build(self.masters.trainable())
        self.ema = None if config.ema is None else Ema(self.masters.trainable(), config.ema)
        self.checkpoints = Checkpoints(folder / "checkpoints", config.keep_last, best=config.best)

    def run(
        self, batches: Callable[[int], Generator[Batch, None, None]], evaluate: Evaluate | None = None
    ) -> dict[str, float]:
        """Train to the last step. `batches(step)` gives the batches from that step on.

        Returns the newest metrics. Raises Stopped after SIGTERM or Ctrl-C, NonFinite, and what checkpoints and data
        raise.
        """
        config, newest = self.config, dict[str, float]()
        if self.step >= config.steps:
            return newest
        with closing(batches(self.step)) as stream:
            first = self._moved(next(stream))
            with StopRequest() as stop, self._log() as log, self._progress(first) as progress:
                recent: deque[Step] = deque(maxlen=2)
                for batch in chain([first], map(self._moved, stream)):
                    outcome = self._advance(batch)
                    progress.update(self.step, {"loss": outcome.loss.detach()})
                    recent.append((self.step, outcome.loss.detach(), batch))
                    last = self.step == config.steps
                    saving = last or self.step % config.save_every == 0
                    # a loss is read one step late, so that nothing waits for a GPU; before a save, at once
                    halt = any_rank(stop.requested or _lost(recent[0]))
                    if (saving or halt) and any_rank(any(map(_lost, recent)) or not self.masters.finite()):
                        raise NonFinite(self._non_finite(*next(filter(_lost, recent), recent[-1])))
                    now: dict[str, float] = {}
                    if last or self.step % config.log_every == 0:
                        now |= self._measure(outcome) | _speed(progress)
                        log.write(self.step, now)
                    with progress.paused():
                        if evaluate and (last or (config.evaluate_every and self.step % config.evaluate_every == 0)):
                            found = self.evaluate(evaluate)
                            log.write(self.step, found)
                            now |= found
                        if saving or halt:
                            self.save(now)  # what was measured here only: `best` must not go by a neighbour
                    newest |= now
                    if last:
                        break
                    if halt:
                        raise Stopped(stop.signal, self.step, self.folder)
        return newest

    def _moved(self, batch: Batch) -> Batch:
        return {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in batch.items()}

    def _advance(self, batch: Batch) -> Outcome:
        """One optimiser step."""
        torch.manual_seed(int(random_generator(self.seed, self.step, rank(), "step").integers(2**63)))
        self.module.train()
        self.optimizer.schedule(self.schedule(self.step))
        if self.config.micro_batch is None:
            outcome: Outcome = self.module(batch)
            outcome.loss.backward()
        else:
            outcome = cached_backward(self.module, batch, self.config.micro_batch)
        self.masters.collect()
        if self.config.clip_norm is not None:
            norm = clip_gradients((p for _, p in self.masters.trainable()), self.config.clip_norm)
            outcome.metrics["gradient_norm"] = norm
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.masters.publish()
        self.task.settle()
        if self.ema is not None:
            self.ema.update()
        self.step += 1
        return outcome

    def _non_finite(self, step: int, loss: Tensor, batch: Batch) -> str:
        kept = self.checkpoints.steps()
        keys = ", ".join(map(str, batch.get("key", ())[:4]))
        back = (
            f"the last good checkpoint is {self.checkpoints.path(kept[-1])}" if kept else "there is no checkpoint yet"
        )
        what = "the weights are not finite any more" if loss.isfinite() else f"the loss is {float(loss)}"
        return (
            f"step {step}: {what}, in the batch of {keys or 'unnamed examples'}; {back}. "
            "A lower optimizer.lr, a longer schedule.warmup or precision float32 usually help"
        )

    def evaluate(self, evaluate: Evaluate) -> dict[str, float]:
        """Metrics of the model as it is, or of its moving average where there is one."""
        with self.averaged(), unsharded(self.module):
            self.module.eval()
            found = evaluate(self.step)
            self.module.train()
        return found

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the module computes with the moving average, if the run keeps one."""
        return nullcontext() if self.ema is None else _swapped(self.ema, self.masters)

    def weights(self) -> dict[str, Tensor]:
        """The model's weights in float32, whole, on the CPU: those of the moving average, if the run keeps one."""
        averages = {} if self.ema is None else self.ema.averages
        state = {k: averages.get(k, self.masters.masters.get(k, v)) for k, v in self.task.state_dict().items()}
        whole = {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in state.items()}
        return {k.removeprefix("model."): v.detach().cpu() for k, v in whole.items() if k.startswith("model.")}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        buffers = {k: v for k, v in self.task.state_dict().items() if k not in self.masters.masters}
        moments = {name: self.optimizer.moments(parameter) for name, parameter in self.masters.trainable()}
        state: dict[str, Any] = {"weights": dict(self.masters.masters), "buffers": buffers, "optimizer": moments}
        return state if self.ema is None else state | {"ema": self.ema.state_dict()}

    def save(self, metrics: dict[str, float] | None = None) -> Path:
        """Write a checkpoint of this step."""
        return self.checkpoints.save(self.step, self.state(), metrics)

    def resume(self) -> int:
        """Go back to the newest checkpoint. Returns its step."""
        self._make_moments()
        state = self.state()
        with torch.no_grad():
            self.step = self.checkpoints.load(state)
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self.masters.publish()
        return self.step

    def _make_moments(self) -> None:
        """The optimiser makes its moments at its first step; a step of rate zero makes them, to be filled."""
        for _, parameter in self.masters.trainable():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.schedule(0.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _measure(self, outcome: Outcome) -> dict[str, float]:
        rate = self.optimizer.param_groups[0]["lr"]
        return mean(outcome.metrics) | {"learning_rate": rate}

    def _log(self) -> "MetricsLog | _NoLog":
        return MetricsLog(self.folder, self.step or None) if is_main() else _NoLog()

    def _progress(self, batch: Batch) -> Progress:
        """The display; the arithmetic of a step is counted on two examples, when nothing is sharded yet."""
        size = len(next(iter(batch.values())))
        flops = None
        if world() == 1 and size > 1:
            flops = count_flops(self.task, {k: v[:2] for k, v in batch.items()}) * size
        dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float32
        return Progress(
            self.config.steps,
            start=self.step,
            samples=size * world(),
            flops=flops,
            peak=measured_peak(self.device, dtype) if is_main() else None,
            enabled=is_main(),
        )


def _lost(step: Step) -> bool:
    return not bool(step[1].isfinite())


def _speed(progress: Progress) -> dict[str, float]:
    told = {"samples_per_second": progress.samples_per_second, "share_of_peak": progress.share_of_peak}
    return {name: value for name, value in told.items() if value is not None}


class _NoLog:
    """What processes other than the main one write to."""

    def __enter__(self) -> "_NoLog":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def write(self, step: int, metrics: dict[str, float]) -> None:
        pass


class _swapped(AbstractContextManager[None]):
    def __init__(self, ema: Ema, masters: Masters) -> None:
        self._inside, self._masters = ema.swapped(), masters

    def __enter__(self) -> None:
        self._inside.__enter__()
        self._masters.publish()

    def __exit__(self, *error: Any) -> None:
        self._inside.__exit__(*error)
        self._masters.publish()


def freeze(model: nn.Module, names: tuple[str, ...]) -> None:
    """Parts of `model` that keep their weights. Raises ValueError for a name that is no part of it."""
    for name in names:
        found = [p for n, p in model.named_parameters() if n == name or n.startswith(f"{name}.")]
        if not found:
            parts = ", ".join(dict(model.named_children()))
            raise ValueError(f"training.freeze: the model has no part {name}; it has {parts}")
        for parameter in found:
            parameter.requires_grad_(False)


def recompute(task: nn.Module) -> None:
    """Blocks forget their activations and compute them again in the backward pass (Chen et al. 2016)."""
    for block in units(task):
        block.forward = _recomputed(block.forward)


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args: checkpoint(forward, *args, use_reentrant=False)
