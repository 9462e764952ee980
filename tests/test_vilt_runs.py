"""Pre-training of a ViLT, and what is trained from it: the smallest runs, whole."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pictura
from pictura.cli import main
from pictura.config.loader import load
from pictura.data.scene_questions import ANSWERS
from pictura.evaluation.embed import Embedder
from pictura.evaluation.pointing import word_maps
from pictura.evaluation.ready import Pictura
from pictura.models.vilt import ViLT
from pictura.prepare import prepare
from pictura.recipe import Recipe
from pictura.run import train
from pictura.weights.foreign import load_model
from tests.models.small import BY_KIND, built
from tests.tiny import TINY

VIT = {"kind": "vit", "image_size": 32, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "dropout": 0.1}
SCENES = {"kind": "scenes", "count": 64, "image_size": 32, "objects": [1, 2]}
COMMON: dict[str, Any] = {key: TINY[key] for key in ("about", "loader", "optimizer", "schedule", "training")}
COMMON["view"] = {"kind": "none", "image_size": 32}
PRETRAINED = COMMON | {
    "model": {"kind": "vilt", "image": VIT},
    "objectives": {"words": {"kind": "masked_words"}, "matching": {"kind": "matching", "alignment": 0.1}},
    "data": SCENES,
    "tokenizer": {"kind": "wordpiece", "vocab_size": 200, "max_captions": 64},
}
QUESTIONS = {
    "model": {"kind": "vilt", "tasks": ["answers"]},
    "objectives": {"questions": {"kind": "rdrop", "of": {"kind": "questions", "least": 1}}},
    "data": SCENES | {"gives": ["image", "question"]},
    "evaluation": {"q": {"kind": "questions", "data": SCENES | {"gives": ["image", "question"], "split": "fresh"}}},
}
STATEMENTS = {
    "model": {"kind": "vilt", "tasks": ["pair"]},
    "objectives": {"statements": {"kind": "statements"}},
    "data": SCENES | {"gives": ["statement"]},
    "evaluation": {"s": {"kind": "statements", "data": SCENES | {"gives": ["statement"], "split": "fresh"}}},
}


def recipe(*parts: dict[str, Any], overrides: tuple[str, ...] = ()) -> Recipe:
    whole: dict[str, Any] = {}
    for part in parts:
        whole |= part
    return load(Recipe, whole, overrides=overrides)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vilt") / "run"
    found = train(recipe(PRETRAINED), folder, say=lambda _: None)
    assert {"words/hits", "matching/hits", "matching/apart"} <= found.keys()
    return folder / "model"


def test_what_is_pre_trained_knows_its_tokens(pretrained: Path) -> None:
    model, tokenizer = load_model(pretrained)
    assert isinstance(model, ViLT) and tokenizer is not None
    text = model.config.text
    assert (text.vocab_size, text.end_token, text.mask_token) == (
        tokenizer.vocab_size,
        tokenizer.end,
        tokenizer.mask,
    )


def test_questions_begin_with_it(pretrained: Path, tmp_path: Path) -> None:
    start = recipe(COMMON, QUESTIONS, {"initial": str(pretrained)})
    prepared = prepare(start)
    model, old = prepared.task.model, load_model(pretrained)[0].state_dict()
    new = model.state_dict()
    assert all(torch.equal(new[name], old[name]) for name in new if not name.startswith("heads."))
    assert model.config.answers == ANSWERS and model.config.vit.dropout == 0.1
    found = train(start, tmp_path / "run", say=lambda _: None)
    assert 0 <= found["questions/accuracy"] <= 1 and found["questions/kl"] > 0
    assert {"questions/count", "questions/exist", "questions/colour"} <= found.keys()
    assert "what the model answers" in (tmp_path / "run" / "report.html").read_text()


@pytest.fixture(scope="module")
def answering(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions") / "run"
    train(recipe(COMMON, QUESTIONS, {"initial": str(pretrained), "evaluation": {}}), folder, say=lambda _: None)
    return folder / "model"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Neither square nor of the model's size."""
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_asked_from_the_command_line(
    answering: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, drawing = ["is there a red star?", "how many?"], tmp_path / "words.png"
    given = ["ask", str(answering), str(picture), *asked, "--top", "2", "--words", str(drawing), "--json"]
    assert main(given) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == asked
    model, tokenizer = load_model(answering)
    assert isinstance(model, ViLT) and tokenizer is not None
    view = Embedder(model, tokenizer).view
    with Image.open(picture) as opened:
        image = view(opened.convert("RGB"), np.random.default_rng(0))
    assert image.shape == (3, 24, 48)
    for question, best in found.items():
        scores = model.eval().answer([image], tokenizer([question]))[0].sigmoid()
        right = dict(zip(model.config.answers, scores.tolist(), strict=True))
        assert len(best) == 2 and list(best) == sorted(best, key=best.__getitem__, reverse=True)
        assert best == pytest.approx({answer: right[answer] for answer in best}, abs=0.02)
    words = word_maps(model, tokenizer, image, asked[0])
    assert " ".join(word for word, _ in words) == "is there a red star ?"
    assert all(shares.shape == (3, 6) and shares.max() == pytest.approx(1) for _, shares in words)
    with Image.open(drawing) as sheet:
        assert sheet.size[0] > 5 * 64


def test_a_question_asked_twice_is_answered_once(
    answering: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = "is there a red star?", "how many?"
    told = []
    for asked in ([one, other], [one, other, one]):
        assert main(["ask", str(answering), str(picture), *asked, "--json"]) == 0
        told.append(capsys.readouterr())
    assert told[0].out == told[1].out and list(json.loads(told[1].out)) == [one, other]
    assert told[1].err.count(one) == 1, "the table says it once too"


@pytest.mark.parametrize(
    ("question", "complaint"),
    [("  ", "question: it is empty"), ("red " * 60, r"question: \d+ tokens, and this model reads 40; use fewer")],
)
def test_questions_that_cannot_be_asked(
    question: str, complaint: str, answering: Path, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ask", str(answering), str(picture), question]) == 2
    assert re.search(complaint, capsys.readouterr().err)


def test_who_knows_no_answers_is_not_asked(pretrained: Path, picture: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no head for answers"):
        pictura.load(pretrained).ask([picture], ["is there a star?"])
    with pytest.raises(ValueError, match="does not read words beside patches"):
        Pictura(built(BY_KIND["clip"]), None, torch.device("cpu")).point(picture, "a star")


def test_a_picture_that_cannot_be_read_is_named(answering: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"torn\.png: "):
        pictura.load(answering).ask([tmp_path / "torn.png"], ["is there a star?"])
    with pytest.raises(ValueError, match="1 pictures and 2 questions"):
        pictura.load(answering).ask([tmp_path / "torn.png"], ["is there a star?", "and a ring?"])


@pytest.mark.parametrize(
    "given", [["embed", "a.png", "--out", "v.npy"], ["classify", "a.png", "--labels", "star,ring"]]
)
def test_verbs_that_need_a_picture_alone(
    given: list[str], answering: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(picture.read_bytes())
    verb, *rest = given
    assert main([verb, str(answering), *rest]) == 2
    assert re.search("beside a text, not alone|only beside a picture", capsys.readouterr().err)


def test_the_longest_side_is_kept_with_the_model(tmp_path: Path) -> None:
    """Pictures are read as in training by whoever opens the folder."""
    wide = ("view={kind: fit, image_size: 32, patch_size: 8, longest: 96}", "model.longest=96", "training.steps=3")
    start = recipe(PRETRAINED, overrides=wide)
    train(start, tmp_path / "run", say=lambda _: None)
    view = pictura.load(tmp_path / "run" / "model").embedder.view
    pixels = np.random.default_rng(1).integers(0, 256, (20, 90, 3), np.uint8)
    seen = view(pixels, np.random.default_rng(0))
    assert seen.shape == (3, 16, 96) and torch.equal(seen, start.view.build()(pixels, np.random.default_rng(0)))
    usual = prepare(recipe(PRETRAINED)).task.model
    assert Embedder(usual, None).view(pixels, np.random.default_rng(0)).shape == (3, 8, 48)


def test_masked_words_alone(tmp_path: Path) -> None:
    """The pooler has no use then, and is named in `freeze`."""
    alone = {"model": {"kind": "vilt", "image": VIT, "tasks": ["words"]}, "objectives": {"w": {"kind": "masked_words"}}}
    with pytest.raises(
        ValueError, match=r"pooler\.weight is to be trained, but no objective uses it.*training\.freeze"
    ):
        train(recipe(PRETRAINED, alone), tmp_path / "a", say=lambda _: None)
    frozen = recipe(PRETRAINED, alone, overrides=("training.freeze=[pooler]", "training.steps=3"))
    assert "w/hits" in train(frozen, tmp_path / "b", say=lambda _: None)


def test_statements_begin_with_it(pretrained: Path, tmp_path: Path) -> None:
    start = recipe(COMMON, STATEMENTS, {"initial": str(pretrained)})
    prepared = prepare(start)
    types = prepared.task.model.state_dict()["type_embed"]
    assert len(types) == 3 and torch.equal(types[1], types[2]), "the second picture begins as the first"
    found = train(start, tmp_path / "run", say=lambda _: None)
    assert 0 <= found["statements/accuracy"] <= 1


def test_a_rank_begins_as_the_score_for_a_match(pretrained: Path) -> None:
    model = prepare(
        recipe(PRETRAINED, {"initial": str(pretrained), "tokenizer": None},
               {"model": {"kind": "vilt", "tasks": ["rank", "matching"]}, "objectives": {"m": {"kind": "matching"}}})
    ).task.model  # fmt: skip
    assert isinstance(model, ViLT)
    assert torch.equal(model.heads["rank"].weight, model.heads["matching"].weight[1:])  # type: ignore[arg-type]


def test_it_can_begin_with_the_tower_of_a_classifier(tmp_path: Path) -> None:
    """The words are new then, and so is their tokenizer."""
    classes = COMMON | {
        "model": {"kind": "classifier", "image": VIT},
        "objectives": {"c": {"kind": "classification"}},
        "data": SCENES | {"gives": ["image", "label"], "objects": [1, 1]},
    }
    train(recipe(classes), tmp_path / "run", say=lambda _: None)
    tower = load_model(tmp_path / "run" / "model")[0].state_dict()
    start = recipe(PRETRAINED, {"initial": str(tmp_path / "run" / "model"), "model": {"kind": "vilt"}})
    prepared = prepare(start)
    found = prepared.task.model.state_dict()
    names = [name for name in tower if name.startswith("image.")]
    assert names and all(torch.equal(found[name], tower[name]) for name in names)
    assert prepared.tokenizer is not None and prepared.tokenizer.mask is not None
    with pytest.raises(ValueError, match=r"tokenizer: missing; the words are new .* try \{kind: wordpiece\}"):
        prepare(recipe(PRETRAINED, {"initial": start.initial, "model": {"kind": "vilt"}, "tokenizer": None}))


@pytest.mark.parametrize(
    ("parts", "overrides", "complaint"),
    [
        ([PRETRAINED], ("tokenizer={kind: train, vocab_size: 600}",), "needs a token that hides a word"),
        ([PRETRAINED, {"data": SCENES | {"gives": ["image", "label"], "objects": [1, 1]}}], (), "needs captions"),
        ([PRETRAINED, QUESTIONS], (), "image: missing"),
        ([PRETRAINED, {"objectives": {"q": {"kind": "questions"}}}], (), "needs (answers|question) of every example"),
        ([PRETRAINED], ("view={kind: fit, image_size: 32, patch_size: 16}",), "patch_size: 16, but the model's is 8"),
        ([PRETRAINED, {"evaluation": QUESTIONS["evaluation"]}], (), "has no head for answers"),
        ([TINY], ("view={kind: fit, image_size: 16, patch_size: 8}",), "this model wants all of one; try crop"),
        (
            [PRETRAINED],
            ("view={kind: fit, image_size: 32, patch_size: 8, longest: 64}",),
            r"view\.longest: 64, but model\.longest is None",
        ),
        (
            [PRETRAINED],
            ("view={kind: fit, image_size: 32, patch_size: 8}", "model.longest=64"),
            r"view\.longest: None, but model\.longest is 64, by which .* give both the same",
        ),
        ([PRETRAINED], ("model.longest=24",), r"model: cannot be built .* longest: 24 is below image\.image_size"),
        ([PRETRAINED], ("model.answers=[yes, yes]",), "answers: 'yes' is there twice"),
    ],
)
def test_what_does_not_fit_is_said_before_training(
    parts: list[dict[str, Any]], overrides: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        prepare(recipe(*parts, overrides=overrides))
