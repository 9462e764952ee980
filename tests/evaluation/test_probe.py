from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pictura.config import load
from pictura.data.source import Example, Source
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.linear_fit import Solver
from pictura.evaluation.probe import Probe, ProbeConfig
from pictura.evaluation.report import write_report
from tests.evaluation.conftest import Made

NAMES = ("red", "green", "blue")
SOLVERS: tuple[Solver, ...] = ("ridge", "logistic")


class Coloured(Source):
    """Flat pictures from number `first` on, labelled by the colour that is strongest in them."""

    provides = frozenset({"image", "label"})

    def __init__(self, n: int, first: int = 0, names: tuple[str, ...] = NAMES, broken: tuple[int, ...] = ()) -> None:
        self.n, self.first, self.class_names = n, first, names
        self.made = Made(first + n, broken=[first + place for place in broken])

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Example:
        example = self.made[self.first + index]
        colour = NAMES[int(np.asarray(example["image"])[-1, -1].argmax())]
        return example | Example(key=f"{index}", label=(self.class_names or NAMES).index(colour))

    def labels(self) -> torch.Tensor:
        return torch.tensor([self[i]["label"] for i in range(self.n) if self.first + i not in self.made.broken])


def naive(x: torch.Tensor, label: torch.Tensor, l2: float) -> torch.Tensor:
    """Ridge regression in as few words as it has, [d + 1, k]."""
    x = x.double()
    centred, target = x - x.mean(0), F.one_hot(label).double()
    gram = centred.T @ centred / len(x) + l2 * centred.square().mean() * torch.eye(x.shape[1]).double()
    weight = torch.linalg.solve(gram, centred.T @ (target - target.mean(0)) / len(x))
    return torch.cat([weight, (target.mean(0) - x.mean(0) @ weight)[None]])


@pytest.mark.parametrize("layer", [None, 0])
def test_numbers_are_those_of_a_plain_solve(embedder: Embedder, layer: int | None, tmp_path: Path) -> None:
    train, test = Coloured(60, broken=(3,)), Coloured(40, first=100, broken=(0, 9))
    evaluator = Probe(train, test, layer=layer, name="colour")
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    assert [name.removeprefix("probe/colour/") for name in values] == ["top1", "mean_per_class", "l2"]
    x, asked = (embedder.images(source, "features" if layer is None else layer) for source in (train, test))
    solved = naive(x, train.labels(), values["probe/colour/l2"])
    told = (asked.double() @ solved[:-1] + solved[-1]).argmax(1)
    right = told == test.labels()
    recall = [float(right[test.labels() == c].double().mean()) for c in range(3)]
    assert values["probe/colour/top1"] == pytest.approx(float(right.double().mean()))
    assert values["probe/colour/mean_per_class"] == pytest.approx(sum(recall) / 3)
    assert values["probe/colour/top1"] > 0.6, "a third is chance"
    assert torch.equal(evaluator.outcome[0], torch.tensor([i for i in range(40) if i not in (0, 9)]))
    note = evaluator.panels()[0].note
    assert "38 pictures, 3 classes, ridge regression on features" in note and "of 59 other pictures, l2 " in note
    assert ("of layer 0" in note) == (layer == 0)
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())


@pytest.mark.parametrize("solver", SOLVERS)
def test_what_it_answers_is_confident_and_mostly_right(embedder: Embedder, solver: Solver) -> None:
    """A scale for a softmax of ridge regression's scores is found: confidence is neither chance nor certainty."""
    evaluator = Probe(Coloured(120), Coloured(60, first=200), solver)
    values = dict(evaluator.run(embedder))
    sure = evaluator.outcome[3].exp()
    assert values["probe/top1"] > 0.6
    assert abs(float(sure.mean()) - values["probe/top1"]) < 0.2


@pytest.mark.parametrize("solver", SOLVERS)
def test_classes_in_another_order_change_nothing(embedder: Embedder, solver: Solver) -> None:
    same = Probe(Coloured(60), Coloured(40, first=100), solver)
    other = Probe(Coloured(60), Coloured(40, first=100, names=("blue", "red", "green")), solver)
    assert dict(same.run(embedder)) == dict(other.run(embedder))
    assert torch.equal(same.confusion(), other.confusion())


def test_it_can_be_run_again(embedder: Embedder) -> None:
    evaluator = Probe(Coloured(60), Coloured(40, first=100), "logistic")
    assert dict(evaluator.run(embedder)) == dict(evaluator.run(embedder))


def test_bare_numbers_are_counted_in_the_training_data(embedder: Embedder) -> None:
    wanted = dict(Probe(Coloured(60), Coloured(40, first=100)).run(embedder))
    for train_names, test_names, names in (((), (), tuple("012")), ((), NAMES, NAMES), (NAMES, (), NAMES)):
        evaluator = Probe(Coloured(60, names=train_names), Coloured(40, first=100, names=test_names))
        assert dict(evaluator.run(embedder)) == wanted
        assert evaluator.names == names


def test_top5_is_there_where_there_are_more_classes_than_five(embedder: Embedder) -> None:
    source = Made(30, labels=[i % 6 for i in range(30)])
    values = dict(Probe(source, source).run(embedder))
    assert list(values) == ["probe/top1", "probe/top5", "probe/mean_per_class", "probe/l2"]
    assert values["probe/top1"] <= values["probe/top5"] <= 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_broken_model_is_never_right(embedder: Embedder, solver: Solver, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Made(30, labels=[i % 3 for i in range(30)])
    for value in (torch.nan, 1.0):
        monkeypatch.setattr(embedder.model, "encode_image", lambda image, v=value: torch.full((len(image), 24), v))
        values = dict(Probe(source, source, solver).run(embedder))
        assert values["probe/top1"] == values["probe/mean_per_class"] == 0


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (Made(2), Made(2, labels=[0, 1]), "^probe: train: the data has no label"),
        (Made(2, labels=[0, 1]), Made(2), "^probe: the data has no label"),
        (Coloured(9), Made(2, labels=[0, 1], names=("red", "dog")), "^probe: test has 2 classes and train 3.*'dog'"),
        (Coloured(9), Made(2, labels=[0, 3]), "label 3 in the data, but there are 3"),
        (Made(2, labels=[0, 3], names=NAMES), Coloured(9), "^probe: train: label 3 in the data, but there are 3"),
        (Made(3, labels=[0, 1, 2]), Coloured(9, names=()), "^probe: train: there must be a class with two pictures"),
    ],
)
def test_mistakes_are_named(embedder: Embedder, train: Source, test: Source, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dict(Probe(train, test).run(embedder))


def test_a_layer_that_is_not_there_is_refused(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match="layer 2: this model's picture tower has 2 layers: 0 to 1, or -2 to -1"):
        dict(Probe(Coloured(9), Coloured(9), layer=2).run(embedder))


def test_a_recipe_names_it_by_kind() -> None:
    scenes = {"kind": "scenes", "gives": ["image", "label"], "objects": [1, 1], "count": 6, "label_of": "shape"}
    words = {"kind": "probe", "train": scenes, "test": scenes | {"split": "fresh"}, "solver": "logistic", "layer": -1}
    config = load(EvaluatorConfig, words)
    assert isinstance(config, ProbeConfig)
    built = config.build()
    assert (built.solver, built.layer, built.title) == ("logistic", -1, "probe")
    with pytest.raises(ValueError, match="solver"):
        load(EvaluatorConfig, words | {"solver": "svm"})
