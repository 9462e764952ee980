"""Exponential moving average of the parameters, in float32, for evaluation (Polyak averaging).

The running statistics of batch norm are averaged beside them: those of the newest weights would not fit.

The warm-up of the decay is that of TensorFlow's `ExponentialMovingAverage(num_updates=…)`.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class Ema:
    """Average of parameters; sharded ones (DTensor) are averaged where their shards lie, without communication.

    Args:
        parameters: named, as `module.named_parameters()` gives them, after `fully_shard`, which replaces them;
            and what else is to be averaged with them.
        decay: weight of the average at each update; that of the parameters is 1 - decay.
        warmup: update t (from 0) uses min(decay, (1 + t) / (warmup + t)), which forgets the random start; 0 for none.
    """

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], decay: float = 0.999, warmup: int = 10) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay: {decay} is no weight of an average; give 0 … 1, for example 0.999")
        if warmup < 0:
            raise ValueError(f"warmup: {warmup} is negative; give 0 for none")
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self._parameters = dict(parameters)
        self.averages = {name: p.detach().to(torch.float32, copy=True) for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Once after each optimiser step."""
        decay = min(self.decay, (1 + self.updates) / max(self.warmup + self.updates, 1))
        now = [p if p.dtype == torch.float32 else p.float() for p in _shards(self._parameters.values())]
        torch._foreach_lerp_(_shards(self.averages.values()), now, 1.0 - decay)
        self.updates += 1

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the parameters hold the average; afterwards they are what they were, to the bit."""
        with torch.no_grad():
            parameters = _shards(self._parameters.values())
            own = [p.clone() for p in parameters]
            torch._foreach_copy_(parameters, _shards(self.averages.values()))
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(parameters, own)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "averages": dict(self.averages)}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["averages"].keys() != self.averages.keys():
            odd = min(state["averages"].keys() ^ self.averages.keys())
            raise ValueError(f"ema: {odd} is not on both sides, the saved average and this model")
        self.updates = int(state["updates"])
        for name, average in self.averages.items():
            if state["averages"][name] is not average:
                average.copy_(state["averages"][name])


def _shards(tensors: Iterable[Tensor]) -> list[Tensor]:
    """What this process holds of each tensor; call it without grad, where the shard itself comes and no view of it."""
    return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
