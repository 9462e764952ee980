"""The training loop. It knows `task(batch) -> Outcome`, an optimiser and a folder, and nothing of pictures or words.

What a step does is a function of (seed, step) and the state in its checkpoint, so a run killed at any instant goes on
from its last checkpoint to the same losses, bit for bit on one machine.
"""

import json
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pictura.config.messages import nearest
from pictura.data.prefetch import changed
from pictura.data.randomness import random_generator
from pictura.distributed.batch_norm import statistics
from pictura.distributed.ranks import any_rank, collect, is_main, mean, rank, world
from pictura.distributed.wrap import clip_scale, gradient_norm, start_equal, unsharded, wrap
from pictura.objectives.base import Batch, Outcome, Task
from pictura.output.progress import Progress
from pictura.training.checkpoints import Checkpoints
from pictura.training.config import TrainingConfig
from pictura.training.ema import Ema
from pictura.training.flops import count_flops
from pictura.training.gradient_cache import cached_backward, check_cacheable
from pictura.training.metrics import MetricsLog
from pictura.training.optimizers import OptimizerConfig, owned
from pictura.training.parts import compile_blocks, freeze, hold, recompute, remembering
from pictura.training.peak import measured_peak
from pictura.training.precision import Masters, computed_in
from pictura.training.schedules import ScheduleConfig
from pictura.training.signals import Stopped, StopRequest

Evaluate = Callable[[int], dict[str, float]]
Step = tuple[int, Tensor, Batch]  # number, loss, batch


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
        self.step, self._tried = 0, False
        freeze(task.model, config.freeze)
        if not any(parameter.requires_grad for parameter in task.parameters()):
            raise ValueError("training.freeze: nothing is left to train; leave some part out of it")
        if config.micro_batch is not None:
            check_cacheable(task)
        if config.recompute:
            recompute(task)
        if config.compile:
            compile_blocks(task)
        self.dtype, sharded = computed_in(config.precision, self.device), config.parallel == "fsdp" and world() > 1
        if sharded:  # FSDP keeps float32 shards and casts each once, when it gathers them
            self.module = wrap(task, "fsdp", bf16=self.dtype is torch.bfloat16)
            self.masters = Masters(task)
        else:
            start_equal(task)  # here, since DDP would see bf16 copies only
            self.masters = Masters(task, self.dtype)
            self.module = wrap(task, "ddp")
            self.masters.publish()
        self.optimizer = optimizer.build(self.masters.trainable())
        self.ema = None if config.ema is None else Ema(chain(self.masters.trainable(), statistics(task)), config.ema)
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
                    evaluating = evaluate is not None and (last or _due(self.step, config.evaluate_every))
                    saving = last or _due(self.step, config.save_every) or (evaluating and config.best is not None)
                    # a loss is read one step late, so that nothing waits for a GPU; before a save, at once
                    halt = any_rank(stop.requested or _lost(recent[0]))
                    evaluating = evaluating and (last or not halt)  # who stops a run does not want to wait
                    checking = saving or halt or evaluating
                    if checking and any_rank(any(map(_lost, recent)) or not self.masters.finite()):
                        raise NonFinite(self._non_finite(recent))
                    now: dict[str, float] = {}
                    if last or self.step % config.log_every == 0:
                        now |= self._measure(outcome) | _speed(progress)
                        log.write(self.step, now)
                    with progress.paused():
                        if evaluate and evaluating:
                            found = self._evaluate_or_save(evaluate, now, outcome)
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
        return changed(batch, lambda tensor: tensor.to(self.device))

    def _advance(self, batch: Batch) -> Outcome:
        """One optimiser step."""
        torch.manual_seed(int(random_generator(self.seed, self.step, rank(), "step").integers(2**63)))
        self.module.train()
        hold(self.task.model, self.config.freeze)
        self.optimizer.schedule(self.schedule(self.step))
        self.task.done = self.step / self.config.steps
        if self.config.micro_batch is None:
            outcome: Outcome = self.module(batch)
            outcome.loss.backward()
        else:
            outcome = cached_backward(self.module, batch, self.config.micro_batch, self.masters)
        if not self._tried:
            self._check_used()
        scale = None
        if self.config.clip_norm is not None:
            norm = gradient_norm(gradient for _, gradient in self.masters.gradients())
            outcome.metrics["gradient_norm"] = norm
            scale = clip_scale(norm, self.config.clip_norm)
        for part in self.optimizer.parts:  # float32 gradients are held for one part at a time
            masters = owned(part)
            self.masters.collect(masters, scale)
            part.step()
            part.zero_grad()
            self.masters.publish(masters)
        self.task.settle()
        if self.ema is not None:
            self.ema.update()
        self.step += 1
        return outcome

    def _non_finite(self, recent: Iterable[Step]) -> str:
        """What happened, the same words in every process; the keys of the whole batch go to a file."""
        told = collect([(step, float(loss), list(map(str, batch.get("key", ())))) for step, loss, batch in recent])
        steps = [list(of_all) for of_all in zip(*told, strict=True)]  # for each step, what each process tells
        processes = next((s for s in steps if not all(isfinite(loss) for _, loss, _ in s)), steps[-1])
        step, keys = processes[0][0], [key for _, _, own in processes for key in own]
        lost = {n: loss for n, (_, loss, _) in enumerate(processes) if not isfinite(loss)}
        what = f"the loss is {next(iter(lost.values()))}" if lost else "the weights are not finite any more"
        if 0 < len(lost) < world():
            what += f" in process {', '.join(map(str, lost))}"
        path = self.folder / "non-finite.json"
        if is_main():
            with suppress(OSError):  # a full disk must not hide what happened
                path.write_text(json.dumps({"step": step, "keys": keys}, indent=1), encoding="utf-8")
        examples = ", ".join(keys[:4]) or "unnamed examples"
        more = f" and {len(keys) - 4} more, in {path}" if len(keys) > 4 else ""
        kept = self.checkpoints.steps()
        back = (
            f"the last good checkpoint is {self.checkpoints.path(kept[-1])}" if kept else "there is no checkpoint yet"
        )
        return (
            f"step {step}: {what}, in the batch of {examples}{more}; {back}. "
            "A lower optimizer.lr, a longer schedule.warmup or precision float32 usually help"
        )

    def _check_used(self) -> None:
        """After the first backward. Without a gradient there are no moments, so a checkpoint would lack them."""
        for name, gradient in self.masters.gradients():
            if gradient is None:
                name = name.removeprefix("model.")
                raise ValueError(
                    f"model: {name} is to be trained, but no objective uses it; "
                    "leave it out, or name it in training.freeze"
                )
        self._tried = True

    def _evaluate_or_save(self, evaluate: Evaluate, now: dict[str, float], outcome: Outcome) -> dict[str, float]:
        """What goes wrong in an evaluation, in any process, must not cost the steps since the last save."""
        found, failure = dict[str, float](), None
        try:
            found = self.evaluate(evaluate)
            names = sorted(found.keys() | outcome.metrics.keys())
            if self.config.best is not None and (name := self.config.best[0]) not in names:
                hint = nearest(name, names) or f"; there are {', '.join(names)}"
                raise ValueError(f"training.best: {name} is no metric of this run{hint}")
        except Exception as error:  # noqa: BLE001  raised again, when all have saved
            failure = error
        if any_rank(failure is not None):
            self.save(now)
            raise failure or RuntimeError("the evaluation failed in another process, which tells why")
        return found

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
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        return mean(outcome.metrics) | {"learning_rate": rate}

    def _log(self) -> "MetricsLog | _NoLog":
        return MetricsLog(self.folder, self.step or None) if is_main() else _NoLog()

    def _progress(self, batch: Batch) -> Progress:
        """The display; the arithmetic of a step is counted on two examples of each process."""
        size = len(next(iter(batch.values())))
        flops = None
        if size > 1:
            with remembering(self.task):
                flops = count_flops(self.task, {k: v[:2] for k, v in batch.items()}) * size * world()
        return Progress(
            self.config.steps,
            start=self.step,
            samples=size * world(),
            flops=flops,
            peak=measured_peak(self.device, self.dtype) * world() if is_main() else None,
            enabled=is_main(),
        )


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


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
