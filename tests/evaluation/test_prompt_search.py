from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pictura.config import load
from pictura.data.text import Tokenizer
from pictura.evaluation.embed import Embedder
from pictura.evaluation.prompt_search import JOINED, Half, Search, panels, search, warmed
from pictura.evaluation.prompts import Prompts
from pictura.evaluation.report import write_report
from pictura.evaluation.zeroshot import Classifier
from pictura.models.clip import CLIP
from tests.evaluation.conftest import Made

NAMES = ("dog", "cat", "house", "tree")
SETS = {
    "plain": Prompts(),
    "two": Prompts(templates=("a {}", "the small photo of the {}")),
    "described": Prompts(templates=("a {}",), descriptions={"dog": ("dog", "red dog", "small dog")}),
}


class Answering(Embedder):
    """A model whose pictures lie near the words "a" and their class's name, so that templates differ in worth."""

    def images_of(self, label: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        own = self.texts([f"a {name}" for name in NAMES])
        return F.normalize(own[label] + 0.35 * torch.randn(len(label), own.shape[1]) / own.shape[1] ** 0.5, dim=1)

    def walk(self, source: Any, *more: Any, **options: Any) -> Any:
        label = torch.tensor(source.labels or [i % 4 for i in range(len(source))])
        x = self.images_of(label)
        for begin in range(0, len(x), 7):
            batch = {"label": label[begin : begin + 7]} if "label" in source.provides else {}
            yield x[begin : begin + 7], batch


@pytest.fixture
def answering(model: CLIP, tokenizer: Tokenizer) -> Embedder:
    return Answering(model, tokenizer)


@pytest.fixture
def found(answering: Embedder) -> Search:
    return search(answering, Made(80, labels=[i % 4 for i in range(80)], names=NAMES), NAMES, SETS)


def test_every_set_and_all_together_are_tried(found: Search) -> None:
    joint = [JOINED + more for more in ("", ", probabilities averaged", ", weighted without labels")]
    names = [trial.name for trial in found.trials]
    assert names == ["plain", "two", "described", *joint, f"{JOINED}, weighted with labels"]
    assert found.trials[3].prompts.templates == ("{}", "a {}", "the small photo of the {}")
    assert found.best.chosen_by == max(trial.chosen_by for trial in found.trials)


def test_what_chooses_does_not_judge(answering: Embedder, found: Search) -> None:
    """A trial's figures are of 40 pictures, a plain loop over the others says."""
    label = torch.tensor([i % 4 for i in range(80)])
    x = answering.images_of(label)
    asked = Classifier.of(answering, NAMES, SETS["two"])
    hits = {i for i in range(80) if int(asked.scores(x[i : i + 1]).argmax()) == label[i]}
    two = found.trials[1]
    assert two.right is not None and len(two.right) == 40
    assert round(two.chosen_by * 40) + int(two.right.sum()) == len(hits)


def test_the_best_is_calibrated_and_goes_into_a_file(answering: Embedder, found: Search, tmp_path: Path) -> None:
    assert found.best.prompts.temperature is not None and found.best.prompts.known is not None
    assert found.told["calibration_error/after"] <= found.told["calibration_error/before"] + 0.05
    assert found.told["known/separation"] > 0.5
    path = tmp_path / "best.yaml"
    path.write_text(found.as_file("pets"))
    again = load(Prompts, path)
    assert again.templates == found.best.prompts.templates and again.known == found.best.prompts.known
    assert again.about.startswith(f"{found.best.name}, the best of 7 on pets: ")
    x = answering.images_of(torch.arange(4))
    assert torch.equal(
        Classifier.of(answering, NAMES, again).scores(x), Classifier.of(answering, NAMES, found.best.prompts).scores(x)
    )
    write_report(tmp_path / "r.html", title="t", metrics=found.told, panels=panels(found))


@pytest.mark.parametrize("average", ["vectors", "probabilities"])
def test_no_other_temperature_is_better(average: str, answering: Embedder) -> None:
    label = torch.arange(40) % 4
    prompts = Prompts(templates=("a {}", "the {}"), average=average)  # type: ignore[arg-type]
    asked, half = Classifier.of(answering, NAMES, prompts), Half(answering.images_of(label), label)  # type: ignore[attr-defined]
    warm = warmed(asked, half)
    losses = [
        half.loss(Classifier(warm.vectors, warm.shares, warm.temperature * times))
        for times in (0.8, 0.95, 1, 1.05, 1.25)
    ]
    assert min(losses) == losses[2]


def test_without_labels(answering: Embedder, tmp_path: Path) -> None:
    found = search(answering, Made(30), NAMES, {"plain": Prompts(), "two": SETS["two"]})
    assert [trial.name for trial in found.trials] == ["plain", "two", f"{JOINED}, weighted without labels"]
    assert found.best.prompts.weights and sum(found.best.prompts.weights) == pytest.approx(1)
    assert found.best.right is None and not found.told
    assert found.as_file("more").startswith("about: all together, weighted without labels, the best of 3 on more\n")
    write_report(tmp_path / "r.html", title="t", metrics={}, panels=panels(found))


@pytest.mark.parametrize("labels", [[i % 4 for i in range(40)], None])
def test_where_every_set_describes_its_classes_nothing_is_joined(answering: Embedder, labels: list[int] | None) -> None:
    sets = {"described": SETS["described"], "otherwise": replace(SETS["described"], templates=("the photo of a {}",))}
    found = search(answering, Made(40, labels=labels, names=NAMES), NAMES, sets)
    assert [trial.name for trial in found.trials] == [*sets]
    assert found.best.name in sets and found.best.chosen_by == max(trial.chosen_by for trial in found.trials)


def test_too_few_to_halve(answering: Embedder) -> None:
    with pytest.raises(ValueError, match="8 labelled pictures are too few"):
        search(answering, Made(8, labels=[0, 1] * 4, names=NAMES), NAMES, SETS)
