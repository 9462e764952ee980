"""Questions about pictures, answered: VQA's accuracy (Antol et al. 2015), in all and by kind of question."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from pictura.data.source import Source, SourceConfig
from pictura.data.vqa_answers import accuracy
from pictura.evaluation.base import Evaluator, EvaluatorConfig, thumbnail
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery, Line, Panel

SHOWN = 16  # questions in the report


class Shown(NamedTuple):
    """One question, for the report."""

    example: int
    question: str
    said: str
    right: str
    score: float


@dataclass(frozen=True, kw_only=True)
class QuestionsConfig(EvaluatorConfig):
    """`data` needs pictures, questions and answers."""

    kind: ClassVar[str] = "questions"

    data: SourceConfig

    def build(self) -> "Questions":
        """The evaluator, its data opened."""
        return Questions(self.data.build(), self.name)


class Questions(Evaluator):
    """Yields `accuracy`, then that of each kind of question: the score that people gave the model's first answer, by
    VQA's own rule where the data has each person's answer."""

    def __init__(self, source: Source, name: str = "") -> None:
        if missing := {"image", "question", "answers"} - source.provides:
            raise ValueError(f"questions: the data has no {' and no '.join(sorted(missing))}")
        self.title = f"questions/{name}" if name else "questions"
        self.source, self.asked = source, list[Shown]()

    def check(self, model: Any) -> None:
        check_task(model, "answers")

    def run(self, embedder: Embedder) -> Iterator[tuple[str, float]]:
        self.check(embedder.model)
        words, humans = embedder.model.config.answers, getattr(self.source, "humans", None)
        scores: dict[str, list[float]] = defaultdict(list)
        self.asked = []
        every = max(1, len(self.source) // SHOWN)
        for found, batch in embedder.asked(self.source, lambda model, b: model.answer(b["image"], b["question"])):
            kinds = batch.get("question_kind", [""] * len(found))
            for row, index in enumerate(batch["index"].tolist()):
                said, right = words[int(found[row].argmax())], batch["answers"][row]
                score = accuracy(said, humans(index)) if humans else right.get(said, 0.0)
                scores[kinds[row]].append(score)
                if index % every == 0 and len(self.asked) < SHOWN:
                    question = embedder.tokenizer.decode(batch["question"][row]) if embedder.tokenizer else ""
                    self.asked.append(
                        Shown(index, question, said, max(right, key=right.__getitem__, default=""), score)
                    )
        if not scores:
            raise ValueError(f"{self.title}: the data has no usable question")
        everything = [score for some in scores.values() for score in some]
        yield f"{self.title}/accuracy", sum(everything) / len(everything)
        for kind in sorted(filter(None, scores)):  # VQA has one that is called yes/no
            yield f"{self.title}/{kind.replace('/', ' or ')}", sum(scores[kind]) / len(scores[kind])

    def panels(self) -> list[Panel]:
        if not self.asked:
            return []
        pictures = []
        for one in self.asked:
            lines = [Line(one.question), Line(one.said, "", one.score > 0)]
            lines += [Line(f"right: {one.right}")] if one.score == 0 else []
            pictures.append(thumbnail(self.source, one.example, tuple(lines), one.score > 0))
        return [Gallery(f"{self.title}: what the model answers", [("", pictures)], wide=True)]


def check_task(model: Any, task: str) -> None:
    """ValueError for a model that has no head for it."""
    if task not in getattr(model, "heads", ()):
        raise ValueError(f"this model ({model.config.kind}) has no head for {task}; train a vilt with tasks: [{task}]")
