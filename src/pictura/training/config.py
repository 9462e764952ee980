"""How a run goes, as its recipe says it: apart from the loop, whose imports cost as much as torch itself."""

from dataclasses import dataclass
from typing import Literal

from pictura.config import Config


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Config):
    """How long, how precise, how large.

    micro_batch: examples embedded at once; the loss still sees the whole batch (gradient cache).
    freeze: names of model parts that keep their weights, `image` for a locked picture tower (LiT, Zhai et al. 2022).
    recompute: activations of blocks are computed again in the backward pass, to save memory.
    save_every, evaluate_every: in steps; the end of the run is always saved and evaluated.
    best: metric, and whether `min` or `max` of it is best, for the checkpoint kept beside the last ones; with it, each
        step that is evaluated is saved.
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
