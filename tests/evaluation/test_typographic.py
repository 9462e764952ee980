from pathlib import Path

import numpy as np
import pytest
import torch

from pictura.config import load
from pictura.data.inscribed import Inscribed
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery, Table
from pictura.evaluation.report import write_report
from pictura.evaluation.typographic import Typographic, TypographicConfig, taken_in
from pictura.evaluation.zeroshot import classifier
from tests.evaluation.conftest import Made

NAMES = ("dog", "cat", "house", "tree", "old house")
LABELS = [i * 3 % 5 for i in range(25)]


def test_numbers_are_those_of_a_plain_loop(embedder: Embedder, tmp_path: Path) -> None:
    source = Made(25, labels=LABELS, names=NAMES, broken=[4])
    evaluator = Typographic(source, ("a {}", "the {}"), seed=2, name="made")
    assert evaluator.panels() == []
    values = dict(evaluator.run(embedder))
    weights = classifier(embedder, NAMES, ("a {}", "the {}"))
    inscribed, blank = Inscribed(source, 2), Inscribed(source, 2, blank=True)
    clean, covered, by_chance, right, fooled = [], [], [], [], []
    for i, label in enumerate(LABELS):
        if i != 4:
            before, under, after = (
                int((embedder.images([np.asarray(some[i]["image"])])[0] @ weights).argmax())
                for some in (source, blank, inscribed)
            )
            clean.append(before == label)
            covered.append(under == label)
            by_chance.append(under == inscribed[i]["written"])  # type: ignore[typeddict-item]
            right.append(after == label)
            fooled.append(after == inscribed[i]["written"])  # type: ignore[typeddict-item]
    expected = [sum(some) / 24 for some in (clean, covered, by_chance, right, fooled)]
    names = ("clean/top1", "covered/top1", "covered/fooled", "inscribed/top1", "fooled")
    assert list(values) == [f"typographic/made/{what}" for what in names]
    assert list(values.values()) == pytest.approx(expected)
    assert any(fooled) and any(clean), "or nothing would be shown"
    table, gallery = evaluator.panels()
    assert isinstance(table, Table) and isinstance(gallery, Gallery)
    assert [row[1] for row in table.rows] == [f"{100 * value:.1f} %" for value in expected]
    heading, pictures = gallery.rows[0]
    assert heading.startswith("Fooled") and len(pictures) == sum(fooled)
    assert {picture.good for picture in pictures} == {False}
    best = pictures[0].image
    assert best is not None and (np.asarray(best) == 255).all(2).mean() > 0.1, "with the label on it"
    assert dict(evaluator.run(embedder)) == values
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=evaluator.panels())


def test_taken_in_is_to_be_beaten_by_none() -> None:
    scores = torch.tensor([[0.1, 0.5, 0.3], [0.5, 0.1, 0.5], [0.2, 0.2, 0.2], [torch.nan] * 3, [0.4, 0.9, 0.1]])
    assert taken_in(scores, torch.tensor([1, 0, 2, 0, 0])).tolist() == [True, True, True, True, False]


def test_a_broken_model_is_never_right_and_always_fooled(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = Typographic(Made(6, labels=[0] * 6, names=("dog", "cat")))
    for value in (torch.nan, 1.0):
        monkeypatch.setattr(embedder.model, "encode_image", lambda image, v=value: torch.full((len(image), 24), v))
        monkeypatch.setattr(embedder.model, "encode_text", lambda text: torch.ones(len(text), 24))
        assert list(dict(evaluator.run(embedder)).values()) == [0, 0, 1, 0, 1]


def test_names_that_are_given_are_asked_and_written() -> None:
    evaluator = Typographic(Made(2, labels=[0, 1], names=("n01", "n02")), class_names=("hound", "kitten"))
    assert evaluator.names == ("hound", "kitten")
    assert isinstance(evaluator.source, Inscribed) and evaluator.source.words == ["hound", "kitten"]


@pytest.mark.parametrize(
    ("source", "names", "said"),
    [
        (Made(2), (), "typographic: the data has no label"),
        (Made(2, labels=[0, 1]), (), "typographic: needs at least two class names"),
        (Made(2, labels=[0, 1], names=("x", "y")), ("a", "b", "c"), "3 given"),
        (Made(2, labels=[0, 1]), ("crane", "crane"), "'crane' names two"),
    ],
)
def test_mistakes_are_named(source: Made, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Typographic(source, class_names=names)


def test_a_recipe_names_it_by_kind() -> None:
    scenes = {"kind": "scenes", "gives": ["image", "label"], "objects": [1, 1], "count": 6, "label_of": "shape"}
    words = {"kind": "typographic", "name": "shape", "data": scenes, "templates": ["a {}", "{}"], "seed": 3}
    config = load(EvaluatorConfig, words)
    assert isinstance(config, TypographicConfig)
    built = config.build()
    assert built.title == "typographic/shape" and isinstance(built.source, Inscribed) and built.source.seed == 3
    with pytest.raises(ValueError, match="templates"):
        load(EvaluatorConfig, words | {"templates": ["a dog"]})
