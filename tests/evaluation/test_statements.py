from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pictura.config import load
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.panels import Table
from pictura.evaluation.report import write_report
from pictura.evaluation.statements import Statements, StatementsConfig
from pictura.models.clip import CLIP
from pictura.models.vilt import ViLT
from tests.evaluation.test_questions import Broken, Empty, embedder_of, joint_model, scenes, word_pieces


def comparing() -> ViLT:
    """One that says neither always the same nor by the statement alone."""
    return joint_model("pair")


def saying(truth: int) -> ViLT:
    model = comparing()
    last = model.get_submodule("heads.pair.fc2")
    last.weight.data.zero_()  # type: ignore[operator, union-attr]
    last.bias.data = torch.eye(2)[truth]
    return model


def test_accuracy_and_the_shares_of_both_truths_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    model, source = comparing(), scenes(60, "statement")
    embedder, evaluator = embedder_of(model), Statements(Broken(source, [3]), "made")
    assert evaluator.panels() == []
    right: dict[int, list[bool]] = {0: [], 1: []}
    said = []
    with torch.no_grad():
        for index in range(60):
            example: Any = source[index]
            pair = [embedder.view(image, np.random.default_rng(0)) for image in example["images"]]
            ids = word_pieces()([example["statement"]])
            scores = model.eval().compare([pair[0]], [pair[1]], ids)[0]
            if index != 3:
                said.append(int(scores[1] > scores[0]))
                right[example["label"]].append(said[-1] == example["label"])
    assert 5 < sum(said) < 54 and all(0 < sum(some) < len(some) for some in right.values())
    values = dict(evaluator.run(embedder))
    expected = {"accuracy": np.mean(right[0] + right[1]), "true": np.mean(right[1]), "false": np.mean(right[0])}
    assert values == {f"statements/made/{name}": pytest.approx(value) for name, value in expected.items()}
    assert len(embedder.bad) == 1 and dict(evaluator.run(embedder)) == values
    (table,) = evaluator.panels()
    assert isinstance(table, Table)
    assert list(table.rows) == [(name, f"{value:.1%}") for name, value in expected.items()]
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=[table])


@pytest.mark.parametrize("truth", [0, 1])
def test_one_that_always_says_the_same_is_right_about_half(truth: int) -> None:
    source = scenes(24, "statement")
    labels: list[Any] = [dict(source[index])["label"] for index in range(24)]
    values = dict(Statements(source).run(embedder_of(saying(truth))))
    assert values == {
        "statements/accuracy": pytest.approx(labels.count(truth) / 24),
        "statements/true": float(truth == 1),
        "statements/false": float(truth == 0),
    }


def test_of_what_is_not_there_no_share_is_given() -> None:
    source = scenes(12, "statement")
    false = [index for index in range(12) if dict(source[index])["label"] == 0]
    values = dict(Statements(Broken(source, false)).run(embedder_of(saying(1))))
    assert 0 < len(false) < 12 and values == {"statements/accuracy": 1.0, "statements/true": 1.0}


def test_data_that_states_nothing() -> None:
    with pytest.raises(ValueError, match=r"^statements: the data has no images and no label and no statement$"):
        Statements(scenes(3, "image", "question"))
    source = scenes(3, "statement")
    source.provides -= {"label"}
    with pytest.raises(ValueError, match=r"^statements: the data has no label$"):
        Statements(source)


def test_models_that_do_not_compare(model: CLIP) -> None:
    evaluator = Statements(scenes(3, "statement"))
    for other, kind in ((model, "clip"), (joint_model("words"), "vilt")):
        with pytest.raises(ValueError, match=rf"this model \({kind}\) has no head for pair; .*tasks: \[pair\]"):
            evaluator.check(other)
        with pytest.raises(ValueError, match="no head for pair"):
            dict(evaluator.run(embedder_of(other)))
    evaluator.check(comparing())


def test_no_usable_pair() -> None:
    model, source = comparing(), scenes(3, "statement")
    with pytest.raises(ValueError, match="not one of 3 examples can be read; the first is made/0: made to be broken"):
        dict(Statements(Broken(source, range(3))).run(embedder_of(model)))
    with pytest.raises(ValueError, match=r"^statements/x: the data has no usable pair$"):
        dict(Statements(Empty(source, ()), "x").run(embedder_of(model)))


def test_a_recipe_names_it_by_kind() -> None:
    data = {"kind": "scenes", "gives": ["statement"], "count": 6}
    config = load(EvaluatorConfig, {"kind": "statements", "data": data, "name": "scenes"})
    assert isinstance(config, StatementsConfig)
    assert config.build().title == "statements/scenes"
