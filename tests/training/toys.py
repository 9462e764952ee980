"""A task without pictures or words: a linear model and an objective, and its batches, for the tests of the loop."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.data.randomness import random_generator
from pictura.objectives.base import Batch, Features, Objective, Outcome, Task
from pictura.training.config import TrainingConfig
from pictura.training.loop import Trainer
from pictura.training.optimizers import AdamWConfig, OptimizerConfig
from pictura.training.schedules import ConstantConfig, ScheduleConfig


class Toy(nn.Module):
    """Two towers, with dropout where asked."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image, self.text = nn.Linear(6, 4), nn.Linear(5, 4)
        self.blocks = nn.ModuleList([nn.Linear(4, 4)])
        self.drop = nn.Dropout(dropout)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        with torch.no_grad():
            for part in (self.image, self.text, self.blocks):
                for parameter in part.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)

    def look(self, image: Tensor) -> Tensor:
        x = self.image(image)
        for block in self.blocks:
            x = x + block(x)
        out: Tensor = self.drop(x)
        return out


class Match(Objective):
    """Contrastive, as CLIP's, on the stored matrix."""

    needs = frozenset({"image", "text"})
    across = True

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        assert isinstance(model, Toy)
        dtype = model.image.weight.dtype
        return {
            "image": F.normalize(model.look(batch["image"].to(dtype)).float(), dim=1),
            "text": F.normalize(model.text(batch["text"].to(dtype)).float(), dim=1),
            "index": batch["index"],
        }

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        assert isinstance(model, Toy)
        logits = model.logit_scale.exp() * features["image"] @ features["text"].T
        loss = F.cross_entropy(logits, torch.arange(len(logits)))
        return Outcome(loss, {"scale": model.logit_scale.exp()})


def task(dropout: float = 0.0) -> Task:
    return Task(Toy(dropout), {"match": Match()}, {"match": 1.0})


def batch(step: int, size: int = 8) -> dict[str, Any]:
    """The batch of a step: two views of the same random things."""
    random = torch.from_numpy(random_generator(0, step, 0, "toys").normal(size=(size, 6))).float()
    index = torch.arange(size)
    keys = [f"{step}-{i}" for i in range(size)]
    return {"image": random, "text": random[:, :5].clone(), "index": index, "key": keys}


def batches(start: int) -> Generator[Batch, None, None]:
    step = start
    while True:
        yield batch(step)
        step += 1


def trainer(
    folder: Path,
    *,
    toy: Task | None = None,
    optimizer: OptimizerConfig | None = None,
    schedule: ScheduleConfig | None = None,
    seed: int = 0,
    **config: Any,
) -> Trainer:
    """A trainer of the toy, in float32 unless asked otherwise, with every loss in its log."""
    given: dict[str, Any] = {"steps": 20, "precision": "float32", "log_every": 1, "save_every": 5, **config}
    optimizer, schedule = optimizer or AdamWConfig(lr=0.05), schedule or ConstantConfig()
    return Trainer(toy or task(), TrainingConfig(**given), optimizer, schedule, folder, seed=seed)


def weights(of: Trainer) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in of.task.model.state_dict().items()}
