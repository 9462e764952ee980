import itertools
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pictura.config import load
from pictura.data.decode import decode
from pictura.data.scene_choices import MOST
from pictura.data.scenes import Scenes, ScenesConfig
from pictura.data.source import Example, Source
from pictura.data.winoground import WinogroundConfig
from pictura.evaluation.base import TIE, EvaluatorConfig
from pictura.evaluation.choices import LINES, SHOWN, Choices, ChoicesConfig, pair_metrics
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery, Table
from pictura.evaluation.report import write_report
from pictura.models.clip import CLIP
from tests.data.test_winoground import lines, pictures, row
from tests.evaluation.conftest import Made
from tests.evaluation.test_questions import Broken, embedder_of, joint_model


class Given(Source):
    """Made pictures with these choices; what else is given goes beside them."""

    def __init__(self, *choices: tuple[list[str], int], **more: list[Any]) -> None:
        self.pictures, self.choices, self.more = Made(len(choices)), choices, more
        self.provides = frozenset({"image", "choices", "answer", *more})

    def __len__(self) -> int:
        return len(self.choices)

    def __getitem__(self, index: int) -> Example:
        choices, answer = self.choices[index]
        more = {key: values[index] for key, values in self.more.items()}
        return {**self.pictures[index], "choices": choices, "answer": answer, **more}  # type: ignore[typeddict-item]


def scenes(count: int = 70, **changes: Any) -> Scenes:
    return ScenesConfig(count=count, image_size=32, gives=("image", "choices"), **changes).build()


def alone(embedder: Embedder, source: Source, index: int, texts: list[str]) -> list[float]:
    """The cosines of one picture and some texts, each by itself."""
    image = embedder.view(decode(source[index]["image"]), np.random.default_rng(0))
    with torch.no_grad():
        a = embedder.model.eval().encode_image(image[None])
        assert embedder.tokenizer is not None
        b = embedder.model.encode_text(embedder.tokenizer(texts, embedder.model.config.text.context_length))
    rows: list[float] = torch.cosine_similarity(a, b).tolist()
    return rows


def test_accuracy_of_each_kind_is_that_of_a_plain_loop(embedder: Embedder, tmp_path: Path) -> None:
    source = scenes()
    evaluator = Choices(Broken(source, [3, 11]), "made")
    assert evaluator.panels() == []
    right: dict[str, list[bool]] = defaultdict(list)
    chance: dict[str, list[float]] = defaultdict(list)
    for index in range(70):
        example: Any = source[index]
        if index not in (3, 11):
            scores = alone(embedder, source, index, example["choices"])
            own = scores.pop(example["answer"])
            right[example["choice_kind"]].append(all(other < own - TIE for other in scores))
            chance[example["choice_kind"]].append(1 / (1 + len(scores)))
    values = dict(evaluator.run(embedder))
    assert dict(evaluator.run(embedder)) == values and len(embedder.bad) == 2
    expected = {
        "choices/made/accuracy": np.mean([*itertools.chain(*right.values())]),
        "choices/made/chance": np.mean([*itertools.chain(*chance.values())]),
    }
    for kind in right:
        expected[f"choices/made/{kind}/accuracy"] = np.mean(right[kind])
        expected[f"choices/made/{kind}/chance"] = np.mean(chance[kind])
    assert values == {name: pytest.approx(value) for name, value in expected.items()}
    assert [*values] == [*list(expected)[:2], *sorted(list(expected)[2:], key=lambda name: name.split("/")[2])]
    assert len(right) == 7 and 0.1 < values["choices/made/accuracy"] < 0.9
    assert values["choices/made/shape/chance"] == 1 / MOST and values["choices/made/order/chance"] == 0.5
    table, gallery = evaluator.panels()
    assert isinstance(table, Table) and isinstance(gallery, Gallery)
    assert [r[0] for r in table.rows] == ["all", *sorted(right)] and table.rows[0][2] == 68
    html = write_and_read(tmp_path, values, [table, gallery])
    assert "surest mistakes" in html and "class=true" in html
    shown = [picture for _, some in gallery.rows for picture in some]
    assert 0 < len(shown) <= SHOWN and all(p.good is False and sum(line.mark for line in p.lines) == 1 for p in shown)
    assert all(not p.lines[0].mark for p in shown) and [kind for kind, _ in gallery.rows] == sorted(right)


def write_and_read(folder: Path, values: dict[str, float], panels: list[Any]) -> str:
    write_report(folder / "r.html", title="t", metrics=values, panels=panels)
    return (folder / "r.html").read_text()


def test_a_tie_is_wrong_and_so_is_what_is_no_number(embedder: Embedder, model: CLIP) -> None:
    """The same words: equal but for capitals, which this tokenizer does not tell apart."""
    tied = Choices(Given((["a red dog", "A RED DOG"], 0), (["A red dog", "a red dog"], 1)))
    assert dict(tied.run(embedder)) == {"choices/accuracy": 0.0, "choices/chance": 0.5}
    before = model.logit_scale.detach().clone()
    weight = next(model.parameters())
    kept = weight.detach().clone()
    try:
        weight.data.fill_(math.nan)
        evaluator = Choices(Given((["a", "a dog"], 0), (["a", "a dog", "a cat"], 2)))
        values = dict(evaluator.run(embedder))
        assert values == {"choices/accuracy": 0.0, "choices/chance": pytest.approx((1 / 2 + 1 / 3) / 2)}
        assert len(evaluator.panels()) == 2
    finally:
        weight.data.copy_(kept)
    assert torch.equal(before, model.logit_scale)


def test_a_text_is_embedded_once_and_one_picture_may_have_more_choices(embedder: Embedder) -> None:
    seen: list[str] = []
    told, source = embedder.texts, Given((["a dog", "a cat"], 0), (["a cat", "a dog", "a tree", "the old house"], 2))
    embedder.texts = lambda texts: (seen.extend(texts), told(texts))[1]  # type: ignore[method-assign, func-returns-value]
    evaluator = Choices(source)
    dict(evaluator.run(embedder))
    assert seen == ["a dog", "a cat", "a tree", "the old house"]
    assert evaluator.scores.shape == (2, 4) and evaluator.scores[0, 2:].eq(-torch.inf).all()
    for index, (texts, _) in enumerate(source.choices):
        torch.testing.assert_close(
            evaluator.scores[index, : len(texts)],
            torch.tensor(alone(embedder, source, index, texts)),
            atol=1e-5,
            rtol=0,
        )


def test_of_many_choices_the_report_lists_the_best_and_the_true_one(embedder: Embedder) -> None:
    texts = [f"{colour} {noun}" for colour in ("red", "green", "blue") for noun in ("dog", "cat", "tree")]
    scores = alone(embedder, Given((texts, 0)), 0, texts)
    evaluator = Choices(Given((texts, int(np.argmin(scores)))))
    dict(evaluator.run(embedder))
    gallery = evaluator.panels()[1]
    assert isinstance(gallery, Gallery)
    ((_, (picture,)),) = gallery.rows
    best = sorted(texts, key=lambda text: -scores[texts.index(text)])
    assert [line.text for line in picture.lines] == [*best[: LINES - 1], best[-1]]
    assert [line.mark for line in picture.lines] == [False] * (LINES - 1) + [True]


def naive_pairs(embedder: Embedder, source: Source) -> dict[str, list[bool]]:
    """Thrush et al., equations 1 to 3."""
    found: dict[str, list[bool]] = {"text": [], "image": [], "group": []}
    for first in range(0, len(source), 2):
        example: Any = source[first]
        s = [alone(embedder, source, first + i, example["choices"]) for i in (0, 1)]  # s[picture][caption]
        found["text"].append(s[0][0] > s[0][1] and s[1][1] > s[1][0])
        found["image"].append(s[0][0] > s[1][0] and s[1][1] > s[0][1])
        found["group"].append(found["text"][-1] and found["image"][-1])
    return found


@pytest.fixture
def winoground(tmp_path: Path) -> Source:
    words = ["red", "green", "blue", "dog", "cat", "house", "tree", "runs", "sleeps", "stands"]
    rng = np.random.default_rng(1)
    rows = []
    for n in range(30):
        some = rng.permutation(words)[:5].tolist()
        captions = {"caption_0": " ".join(some), "caption_1": " ".join(some[::-1])}
        rows.append(row(n, collapsed_tag=("Object", "Relation")[n % 3 == 0], **captions))
    pictures(tmp_path, *range(30))
    return WinogroundConfig(path=lines(tmp_path / "examples.jsonl", *rows)).build()


def test_text_image_and_group_are_those_of_a_plain_loop(embedder: Embedder, winoground: Source) -> None:
    evaluator = Choices(winoground)
    values, naive = dict(evaluator.run(embedder)), naive_pairs(embedder, winoground)
    assert sum(naive["text"]) and sum(naive["image"]), "or this test says little"
    for metric, told in naive.items():
        assert values[f"choices/{metric}"] == pytest.approx(np.mean(told))
        assert values[f"choices/Relation/{metric}"] == pytest.approx(np.mean(told[::3]))
    assert values["choices/Object/chance"] == 0.5 and len(values) == 3 * (2 + 3)
    table = evaluator.panels()[0]
    assert isinstance(table, Table)
    assert [r[:3] for r in table.rows][:4] == [
        ("all", "accuracy", 60), ("all", "text", 30), ("all", "image", 30), ("all", "group", 30),
    ]  # fmt: skip
    assert [r[4] for r in table.rows][:4] == ["50.0 %", "25.0 %", "25.0 %", "16.7 %"]


def test_half_a_pair_is_none(embedder: Embedder, winoground: Source) -> None:
    whole = naive_pairs(embedder, winoground)
    values = dict(Choices(Broken(winoground, [1, 2])).run(embedder))
    for metric, told in whole.items():
        assert values[f"choices/{metric}"] == pytest.approx(np.mean(told[2:]))
    assert len(embedder.bad) == 2
    values = dict(Choices(Broken(winoground, range(1, 60, 2))).run(embedder))
    assert set(values) == {f"choices/{k}{m}" for k in ("", "Object/", "Relation/") for m in ("accuracy", "chance")}


@pytest.mark.parametrize(
    ("scores", "text", "image"),
    [
        ([[2.0, 1.0], [0.0, 3.0]], True, True),
        ([[2.0, 1.0], [2.5, 3.0]], True, False),
        ([[2.0, 2.5], [1.0, 3.0]], False, True),
        ([[2.0, 2.0], [1.0, 3.0]], False, True),  # ties are wrong
        ([[2.0, 1.0], [2.0, 3.0]], True, False),
        ([[1.0, 1.0], [1.0, 1.0]], False, False),
        ([[math.nan, 1.0], [0.0, 3.0]], False, False),
    ],
)
def test_the_inequalities_of_winoground(scores: list[list[float]], text: bool, image: bool) -> None:
    assert pair_metrics(torch.tensor(scores)) == {"text": text, "image": image, "group": text and image}


def test_a_joint_model_by_what_it_says_of_pairs() -> None:
    model, source = joint_model("matching"), scenes(20)
    embedder, right = embedder_of(model), []
    values = dict(Choices(source).run(embedder))
    for index in range(20):
        example: Any = source[index]
        image = embedder.view(decode(example["image"]), np.random.default_rng(0))
        assert embedder.tokenizer is not None
        with torch.no_grad():
            rows = [float(model.eval().match([image], embedder.tokenizer([text]))) for text in example["choices"]]
        own = rows.pop(example["answer"])
        right.append(all(other < own for other in rows))
    assert values["choices/accuracy"] == pytest.approx(np.mean(right)) and 0 < sum(right) < 20


def test_models_that_cannot() -> None:
    evaluator = Choices(scenes(3))
    with pytest.raises(ValueError, match=r"this model \(vilt\) has no head for rank or matching"):
        evaluator.check(joint_model("pair"))
    classifier: Any = torch.nn.Linear(1, 1)
    classifier.config = type("Config", (), {"kind": "classifier"})
    with pytest.raises(ValueError, match=r"this model \(classifier\) reads no texts alone"):
        evaluator.check(classifier)


def test_data_without_choices(embedder: Embedder) -> None:
    with pytest.raises(ValueError, match=r"^choices: the data has no answer and no choices$"):
        Choices(ScenesConfig(count=3).build())
    with pytest.raises(ValueError, match=r"^choices: the data has no usable picture$"):
        dict(Choices(Given()).run(embedder))
    with pytest.raises(ValueError, match=r"^choices/x: example 1 has 2 choices, and its answer is 2$"):
        dict(Choices(Given((["a", "b"], 1), (["a", "b"], 2)), "x").run(embedder))
    with pytest.raises(ValueError, match="not one of 3 examples can be read"):
        dict(Choices(Broken(scenes(3), range(3))).run(embedder))


def test_a_recipe_names_it_by_kind() -> None:
    data = {"kind": "scenes", "gives": ["image", "choices"], "count": 6, "choice_kinds": ["binding"]}
    config = load(EvaluatorConfig, {"kind": "choices", "data": data, "name": "scenes"})
    assert isinstance(config, ChoicesConfig)
    assert config.build().title == "choices/scenes"
