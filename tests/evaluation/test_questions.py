from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pictura.config import load
from pictura.data.scene_questions import ANSWERS
from pictura.data.scenes import Scenes, ScenesConfig
from pictura.data.source import BadSample, Example, Source
from pictura.data.text import Tokenizer
from pictura.data.vqa import Vqa, VqaConfig
from pictura.data.wordpiece import WordPieceTokenizerConfig
from pictura.evaluation.base import EvaluatorConfig
from pictura.evaluation.embed import Embedder
from pictura.evaluation.panels import Gallery
from pictura.evaluation.questions import SHOWN, Questions, QuestionsConfig
from pictura.evaluation.report import write_report
from pictura.models.clip import CLIP
from pictura.models.vilt import JointTask, ViLT, ViLTConfig
from pictura.models.vilt_parts import WordsConfig
from pictura.models.vit import ViTConfig
from tests.data.files import jpeg, write
from tests.data.test_vqa import annotation, annotations, question, questions

SIZE = 32


@cache
def word_pieces() -> Tokenizer:
    """Knows few words, and spells the others in pieces."""
    return WordPieceTokenizerConfig(vocab_size=120, context_length=64).build(lambda: ["is there a red star?"] * 9)


def joint_model(*tasks: JointTask, answers: tuple[str, ...] = (), **image: Any) -> ViLT:
    """Random, and so large that what it says depends on what it is given."""
    torch.manual_seed(0)
    words = word_pieces()
    text = WordsConfig(
        vocab_size=words.vocab_size, context_length=words.context_length, end_token=words.end, mask_token=words.mask
    )
    vit = ViTConfig(image_size=SIZE, patch_size=8, width=32, depth=2, heads=2, dropout=0.5, **image)
    model = ViLTConfig(image=vit, text=text, tasks=tasks, answers=answers).build()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    return model


def saying(answer: str, answers: tuple[str, ...]) -> ViLT:
    """One that says this whatever it is asked."""
    model = joint_model("answers", answers=answers)
    last = model.get_submodule("heads.answers.fc2")
    last.weight.data.zero_()  # type: ignore[operator, union-attr]
    last.bias.data = torch.eye(len(answers))[answers.index(answer)]
    return model


def embedder_of(model: torch.nn.Module) -> Embedder:
    return Embedder(model, word_pieces(), batch_size=4)


def scenes(count: int, *gives: Any) -> Scenes:
    return ScenesConfig(count=count, image_size=SIZE, gives=gives, objects=(1, 3), split="fresh").build()


class Broken(Source):
    """Those of another source, but for some."""

    def __init__(self, of: Source, broken: Sequence[int]) -> None:
        self.of, self.broken, self.provides = of, broken, of.provides

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> Example:
        if index in self.broken:
            raise BadSample(f"made/{index}", "made to be broken")
        return self.of[index]


def said_alone(model: ViLT, source: Source, embedder: Embedder) -> list[str]:
    """The answer to each question, asked by itself."""
    found = []
    with torch.no_grad():
        for index in range(len(source)):
            example: Any = source[index]
            image = embedder.view(np.asarray(example["image"]), np.random.default_rng(0))
            ids = word_pieces()([example["question"]])
            found.append(model.config.answers[int(model.eval().answer([image], ids).argmax())])
    return found


def test_accuracy_in_all_and_by_kind_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    model, source = joint_model("answers", answers=ANSWERS[:6]), scenes(80, "image", "question")
    embedder, evaluator = embedder_of(model), Questions(source, "made")
    said = said_alone(model, source, embedder)
    model.train()
    values = dict(evaluator.run(embedder))
    assert model.training and dict(evaluator.run(embedder)) == values
    scores: dict[str, list[float]] = {}
    for index, answer in enumerate(said):
        example: Any = source[index]
        scores.setdefault(example["question_kind"], []).append(example["answers"].get(answer, 0.0))
    everything = [score for some in scores.values() for score in some]
    assert len(set(said)) > 2 and 0 < sum(everything) < 80 and len(scores) == 5
    kinds = {f"questions/made/{kind}": pytest.approx(np.mean(scores[kind])) for kind in sorted(scores)}
    assert values == {"questions/made/accuracy": pytest.approx(sum(everything) / 80)} | kinds
    assert next(iter(values)) == "questions/made/accuracy"
    (gallery,) = evaluator.panels()
    assert isinstance(gallery, Gallery)
    ((_, pictures),) = gallery.rows
    assert len(pictures) == SHOWN
    for place, picture in enumerate(pictures):
        shown: Any = source[5 * place]
        right = said[5 * place] in shown["answers"]
        texts = [line.text for line in picture.lines]
        assert texts[0].replace(" ", "") == shown["question"].replace(" ", "") and texts[1] == said[5 * place]
        assert texts[2:] == ([] if right else [f"right: {next(iter(shown['answers']))}"]) and picture.good == right
    write_report(tmp_path / "r.html", title="t", metrics=values, panels=[gallery])


def test_before_it_has_run_there_is_nothing_to_look_at() -> None:
    assert Questions(scenes(3, "image", "question")).panels() == []


@pytest.fixture
def asked(tmp_path: Path) -> Vqa:
    """Three questions with ten people's answers each; of the first two the people are not of one mind."""
    pictures = [5, 5, 9]
    numbered = [question(5000, 5, "Is it red?"), question(5001, 5, "How many dogs?"), question(9000, 9, "How many?")]
    path = questions(tmp_path / "q.json", *numbered)
    told = annotations(
        tmp_path / "a.json",
        annotation(5000, ["yes"] * 8 + ["no"] * 2, "yes/no"),
        annotation(5001, ["two"] * 3 + ["4"] + ["3"] * 5 + ["a dog"], "number"),
        annotation(9000, ["Two."] * 10, "number"),
    )
    for number in pictures:
        write(tmp_path / "train2014" / f"COCO_train2014_{number:012d}.jpg", jpeg(number))
    return VqaConfig(questions=path, annotations=told).build()


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ("yes", (1.0, 0.0, 0.0)),
        ("no", (0.6, 0.0, 0.0)),  # in 8 sets of nine people two said so, in 2 sets one
        ("4", (0.0, 0.3, 0.0)),
        ("2", (0.0, 0.9, 0.0)),  # cleaned where people differ; where all say the same, nothing is
        ("Two.", (0.0, 0.9, 1.0)),
    ],
)
def test_where_each_person_s_answer_is_there_the_official_rule_holds(
    asked: Vqa, answer: str, scores: tuple[float, float, float]
) -> None:
    model = saying(answer, ("yes", "no", "4", "2", "Two."))
    values = dict(Questions(asked).run(embedder_of(model)))
    assert values == {
        "questions/accuracy": pytest.approx(sum(scores) / 3),
        "questions/number": pytest.approx((scores[1] + scores[2]) / 2),
        "questions/yes or no": pytest.approx(scores[0]),
    }


def test_a_question_whose_picture_is_gone_is_left_out_and_counted(asked: Vqa, tmp_path: Path) -> None:
    """The people's answers still are those to each question."""
    (tmp_path / "train2014" / "COCO_train2014_000000000005.jpg").unlink()
    embedder = embedder_of(saying("Two.", ("yes", "Two.")))
    assert dict(Questions(asked).run(embedder)) == {"questions/accuracy": 1.0, "questions/number": 1.0}
    assert len(embedder.bad) == 2


def test_questions_without_a_kind_have_accuracy_alone() -> None:
    source = scenes(12, "image", "question")
    source.provides -= {"question_kind"}
    values = dict(Questions(source).run(embedder_of(saying("yes", ANSWERS))))
    yes = [dict(source[index])["answers"] == {"yes": 1.0} for index in range(12)]
    assert 0 < sum(yes) < 12 and values == {"questions/accuracy": pytest.approx(sum(yes) / 12)}


def test_data_that_asks_nothing(asked: Vqa, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^questions: the data has no answers and no question$"):
        Questions(scenes(3, "image", "captions"))
    with pytest.raises(ValueError, match=r"^questions: the data has no image$"):
        Questions(scenes(3, "question"))
    with pytest.raises(ValueError, match=r"^questions: the data has no answers$"):
        Questions(VqaConfig(questions=f"{tmp_path}/q.json").build())


def test_models_that_do_not_answer(model: CLIP) -> None:
    evaluator = Questions(scenes(3, "image", "question"))
    for other, kind in ((model, "clip"), (joint_model("words"), "vilt")):
        with pytest.raises(ValueError, match=rf"this model \({kind}\) has no head for answers; .*tasks: \[answers\]"):
            evaluator.check(other)
        with pytest.raises(ValueError, match="no head for answers"):
            dict(evaluator.run(embedder_of(other)))
    evaluator.check(saying("yes", ANSWERS))


def test_no_usable_question() -> None:
    model, source = saying("yes", ANSWERS), scenes(3, "image", "question")
    with pytest.raises(ValueError, match="not one of 3 examples can be read; the first is made/0: made to be broken"):
        dict(Questions(Broken(source, range(3))).run(embedder_of(model)))
    with pytest.raises(ValueError, match=r"^questions/x: the data has no usable question$"):
        dict(Questions(Empty(source, ()), "x").run(embedder_of(model)))


class Empty(Broken):
    def __len__(self) -> int:
        return 0


def test_a_recipe_names_it_by_kind() -> None:
    data = {"kind": "scenes", "gives": ["image", "question"], "count": 6}
    config = load(EvaluatorConfig, {"kind": "questions", "data": data, "name": "scenes"})
    assert isinstance(config, QuestionsConfig)
    assert config.build().title == "questions/scenes"
