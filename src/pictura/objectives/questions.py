"""Visual question answering as classification among known answers (ViLT, Kim et al. 2021, section 4.3).

Several answers may be right to a degree, so each has a sigmoid of its own, summed over answers (Teney et al., Tips and
Tricks for Visual Question Answering, 2018, section 3.7).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.losses.divergence import bernoulli_divergence
from pictura.models.vilt import ViLT
from pictura.objectives.base import Batch, Features, Objective, ObjectiveConfig, Outcome
from pictura.objectives.joint import check_joint


@dataclass(frozen=True, kw_only=True)
class QuestionsConfig(ObjectiveConfig):
    """least: of how many questions of the data an answer must be the most common one, to be among the model's answers,
    where it has none yet."""

    kind: ClassVar[str] = "questions"

    least: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least < 1:
            raise ValueError(f"least: {self.least} is below 1; the paper has 9")

    def build(self) -> "Questions":
        """The objective."""
        return Questions(self)


class Questions(Objective):
    """Metrics: `hits`, the mean score that people gave the answer with the model's highest one. A question none of
    whose answers is among the model's counts too: every answer to it is wrong."""

    needs = frozenset({"image", "question", "answers"})

    def __init__(self, config: QuestionsConfig) -> None:
        super().__init__()
        self.config = config
        self._number: dict[str, int] = {}

    def attach(self, model: nn.Module) -> None:
        answers = check_joint(model, "answers").config.answers
        if not answers:
            raise ValueError("the model has no answers, and the data none that it could take; set model.answers")
        self._number = {answer: k for k, answer in enumerate(answers)}

    def embed(self, model: nn.Module, batch: Batch) -> Features:
        """image, question: [b t], answers: b of {answer: score} -> scores, target: [b k] float32."""
        assert isinstance(model, ViLT)
        target = soft_targets(batch["answers"], self._number).to(batch["question"].device)
        return {"scores": model.answer(batch["image"], batch["question"]), "target": target}

    def score(self, model: nn.Module, features: Features, rows: slice) -> Outcome:
        scores, target = features["scores"][rows], features["target"][rows]
        loss = F.binary_cross_entropy_with_logits(scores, target, reduction="none").sum(1).mean()
        hits = target.gather(1, scores.argmax(1, keepdim=True)).mean()
        return Outcome(loss, {"hits": hits}, {"scores": scores})

    def divergence(self, model: nn.Module, one: Features, two: Features, rows: slice) -> Tensor:
        return bernoulli_divergence(one["scores"][rows], two["scores"][rows]).mean()


def soft_targets(answers: Sequence[Mapping[str, float]], number: Mapping[str, int]) -> Tensor:
    """b of {answer: score} -> [b k]; answers without a number are left out."""
    target = torch.zeros(len(answers), len(number))
    for row, given in zip(target, answers, strict=True):
        for answer, score in given.items():
            if answer in number:
                row[number[answer]] = score
    return target
