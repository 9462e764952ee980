import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from pictura.config import load
from pictura.data.decode import decode
from pictura.data.source import BadSample, SourceConfig
from pictura.data.vqa import Vqa, VqaConfig
from pictura.data.vqa_answers import accuracy, vocabulary
from tests.data.files import jpeg, shared, write


def question(number: int, picture: int, text: Any = "What is it?") -> dict[str, Any]:
    return {"image_id": picture, "question": text, "question_id": number}


def annotation(number: int, answers: list[Any], kind: Any = "other") -> dict[str, Any]:
    said = [{"answer": a, "answer_confidence": "yes", "answer_id": k + 1} for k, a in enumerate(answers)]
    return {"question_type": "what is", "multiple_choice_answer": answers[0] if answers else "", "answers": said,
            "image_id": number // 1000, "answer_type": kind, "question_id": number}  # fmt: skip


def questions(path: Path, *entries: Any, subtype: Any = "train2014") -> str:
    content = {"info": {"version": "2.0"}, "task_type": "Open-Ended", "data_type": "mscoco", "questions": entries}
    return str(write(path, json.dumps(content | ({} if subtype is None else {"data_subtype": subtype}))))


def annotations(path: Path, *entries: Any) -> str:
    return str(write(path, json.dumps({"info": {}, "data_subtype": "train2014", "annotations": entries})))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pictures, three questions, in the order that no two lists share."""
    questions(
        tmp_path / "q.json", question(9000, 9), question(5001, 5, "How many dogs?"), question(5000, 5, "Is it red?")
    )
    annotations(
        tmp_path / "a.json",
        annotation(5000, ["yes"] * 6 + ["no"] * 4, "yes/no"),
        annotation(5001, ["two"] * 2 + ["2", "3", "a few", "Two.", "", "4", "4", "4"], "number"),
        annotation(9000, ["cat"] * 10),
    )
    for number in (5, 9):
        write(tmp_path / "train2014" / f"COCO_train2014_{number:012d}.jpg", jpeg(number))
    return tmp_path


def build(root: Path, **more: Any) -> Vqa:
    return VqaConfig(**{"questions": f"{root}/q.json", "annotations": f"{root}/a.json"} | more).build()


def test_one_example_a_question(root: Path) -> None:
    given = {"kind": "vqa", "questions": f"{root}/q.json", "annotations": f"{root}/a.json"}
    source = load(SourceConfig, given).build()
    assert source.provides == {"image", "question", "question_id", "answers", "question_kind"}
    assert [dict(source[index]) for index in range(len(source))] == [
        {
            "key": f"{root}/train2014/COCO_train2014_000000000009.jpg, question 9000",
            "image": jpeg(9),
            "question": "What is it?",
            "question_id": 9000,
            "answers": {"cat": 1.0},
            "question_kind": "other",
        },
        {
            "key": f"{root}/train2014/COCO_train2014_000000000005.jpg, question 5001",
            "image": jpeg(5),
            "question": "How many dogs?",
            "question_id": 5001,
            "answers": {"2": 1.0, "4": 0.9, "3": 0.3, "few": 0.3},
            "question_kind": "number",
        },
        {
            "key": f"{root}/train2014/COCO_train2014_000000000005.jpg, question 5000",
            "image": jpeg(5),
            "question": "Is it red?",
            "question_id": 5000,
            "answers": {"yes": 1.0, "no": 1.0},
            "question_kind": "yes/no",
        },
    ]
    assert list(source.all_captions()) == ["What is it?", "How many dogs?", "Is it red?"]
    assert dict(source[-1]) == dict(source[2])
    assert not source.bad
    with pytest.raises(IndexError):
        source[3]


def test_answers_without_reading_a_picture(root: Path) -> None:
    source = build(root)
    expected = [dict(source[index])["answers"] for index in range(3)]
    for picture in (root / "train2014").iterdir():
        picture.unlink()
    assert list(source.all_answers()) == expected
    assert vocabulary(source.all_answers(), least=1) == ("2", "cat", "yes")
    assert source.humans(1) == ["two", "two", "2", "3", "a few", "Two.", "", "4", "4", "4"]
    assert source.humans(-1) == source.humans(2)


def test_the_soft_score_of_an_answer_is_its_official_accuracy(root: Path) -> None:
    source = build(root)
    for index in (1, 2):
        for answer, score in dict(source[index])["answers"].items():
            assert score == pytest.approx(accuracy(answer, source.humans(index)))


def test_without_annotations_there_are_only_pictures_and_questions(root: Path) -> None:
    source = build(root, annotations=None)
    assert source.provides == {"image", "question", "question_id"}
    assert dict(source[1]).keys() == {"key", "image", "question", "question_id"}
    for ask in (lambda: source.humans(0), lambda: next(source.all_answers())):
        with pytest.raises(ValueError, match="annotations: not given"):
            ask()


def test_several_files_are_one_source(root: Path) -> None:
    questions(root / "q_val.json", question(7000, 7), subtype="val2014")
    annotations(root / "a_val.json", annotation(7000, ["dog"] * 10))
    write(root / "val2014" / "COCO_val2014_000000000007.jpg", jpeg(7))
    whole = build(root, questions=f"{root}/q{{,_val}}.json", annotations=f"{root}/a*.json")
    assert [dict(whole[index])["question_id"] for index in range(len(whole))] == [9000, 5001, 5000, 7000]
    assert (whole[3]["image"], dict(whole[3])["answers"]) == (jpeg(7), {"dog": 1.0})
    with pytest.raises(ValueError, match=r"no picture such as 'COCO_val2014_000000000007\.jpg' in .*train2014"):
        build(root, questions=[f"{root}/q.json", f"{root}/q_val.json"], annotations=None, images=root / "train2014")


@pytest.mark.parametrize(
    ("subtype", "name"),
    [
        ("train2014", "COCO_train2014_000000000005.jpg"),
        ("train2014", "train2014/COCO_train2014_000000000005.jpg"),
        ("train2014", "../images/train2014/COCO_train2014_000000000005.jpg"),
        ("train2014", "../Images/mscoco/train2014/COCO_train2014_000000000005.jpg"),
        ("val2014", "train2017/000000000005.jpg"),
        ("val2014", "images/val2017/000000000005.jpg"),
        ("test-dev2015", "test2015/COCO_test2015_000000000005.jpg"),
        (None, "000000000005.jpg"),
    ],
)
def test_pictures_are_found_beside_the_questions(tmp_path: Path, subtype: str | None, name: str) -> None:
    path = questions(tmp_path / "notes" / "q.json", question(1, 5), subtype=subtype)
    write(tmp_path / "notes" / name, jpeg(5))
    assert VqaConfig(questions=path).build()[0]["image"] == jpeg(5)


def test_a_question_whose_picture_is_missing_is_a_bad_sample(root: Path) -> None:
    (root / "train2014" / "COCO_train2014_000000000009.jpg").unlink()
    source = build(root)
    assert source[1]["image"] == jpeg(5)
    with pytest.raises(BadSample, match=r"question 9000: no such file: COCO_train2014_000000000009\.jpg"):
        source[0]


def test_bad_questions_are_named(root: Path) -> None:
    path = questions(
        root / "q.json",
        question(5000, 5),
        question(5000, 9),
        question(1, 5, " "),
        question(2, 5, None),
        question(3, 5, {"question": "What?"}),
        question(4, -5),
        question(5, 10**30),
        question(6, True),
        question(7, 5) | {"question_id": "7"},
        question(8, 5) | {"question_id": 1.0},
        {"question": "What?"},
        "x",
    )
    source = build(root, annotations=None)
    assert len(source) == 1
    assert [str(bad).removeprefix(f"{path}: questions") for bad in source.bad] == [
        "[1]: question_id 5000 is there already",
        "[2]: empty caption",
        "[3]: empty caption",
        "[4]: empty caption",
        "[5]: image_id -5 is not a whole number",
        f"[6]: image_id 1{'0' * 30} is not a whole number",
        "[7]: image_id True is not a whole number",
        "[8]: question_id '7' is not a whole number",
        "[9]: question_id 1.0 is not a whole number",
        "[10]: question_id None is not a whole number",
        "[11]: not a JSON object",
    ]


def test_bad_annotations_are_named_and_take_their_questions_with_them(root: Path) -> None:
    many = [question(number, 5) for number in range(8)]
    questions(root / "q.json", *many)
    path = annotations(
        root / "a.json",
        annotation(0, ["red"] * 10),
        annotation(0, ["blue"] * 10),
        annotation(77, ["red"]),
        annotation(1, ["red"], kind=3),
        annotation(2, []),
        annotation(3, ["the", " "]),
        annotation(4, ["red", 5]),
        annotation(5, ["red"]) | {"answers": "red"},
        annotation(6, ["red"]) | {"answers": [["red"], [[["red"]]]]},
        annotation(7, ["red"]) | {"question_id": None},
        {"answer": "red"},
        None,
    )
    source = build(root)
    assert [dict(source[index])["question_id"] for index in range(len(source))] == [0]
    assert dict(source[0])["answers"] == {"red": 1.0}
    assert [str(bad).removeprefix(f"{path}: annotations") for bad in source.bad] == [
        "[1]: question 0 has an annotation already",
        "[2]: there is no question 77",
        "[3]: no answer_type such as yes/no, number or other",
        "[4]: no usable answer",
        "[5]: no usable answer",
        "[6]: an answer is not text",
        "[7]: has no list of answers",
        "[8]: an answer is not text",
        "[9]: question_id None is not a whole number",
        "[10]: not a JSON object",
        "[11]: not a JSON object",
        *(f"question {number}: no usable annotation" for number in range(1, 8)),
    ]


def test_strange_answers_are_cleaned_like_captions(root: Path) -> None:
    questions(root / "q.json", question(5000, 5))
    annotations(root / "a.json", annotation(5000, ["red\ud800 white and blue, all of it", "bl\x00ue" + "e" * 100_000]))
    (answers,) = build(root).all_answers()
    assert [answer[:16] for answer in answers] == ["bl ueeeeeeeeeeee", "red� white and b"]
    assert all(len(answer) <= 65536 for answer in answers)


def test_what_is_kept_is_small_and_crosses_a_process_border(root: Path) -> None:
    count = 2000
    questions(root / "q.json", *(question(number, 5, f"How many in {number}?") for number in range(count)))
    annotations(root / "a.json", *(annotation(number, [str(number % 7)] * 10) for number in range(count)))
    packed = pickle.dumps(build(root))
    assert len(packed) / count < 160, "bytes for a question with ten answers"
    again = pickle.loads(packed)
    assert dict(again[count - 1])["answers"] == {str((count - 1) % 7): 1.0}


def test_mistakes(root: Path) -> None:
    with pytest.raises(ValueError, match=r"none of .* can be used; .*are the annotations those of the same questions"):
        build(root, annotations=annotations(root / "b.json", annotation(1, ["red"])))
    with pytest.raises(ValueError, match=r"q\.json: should be VQA's annotations, .* with the list `annotations`"):
        build(root, annotations=f"{root}/q.json")
    with pytest.raises(ValueError, match=r"a\.json: should be VQA's questions"):
        build(root, questions=f"{root}/a.json")
    with pytest.raises(ValueError, match="cannot be read as JSON"):
        build(root, questions=str(write(root / "c.json", '{"questions": ' + "[" * 200_000)))
    with pytest.raises(ValueError, match="for example there are none"):
        build(root, questions=questions(root / "c.json"), annotations=None)
    for subtype in ("../../etc", 5, ["train2014"], "x" * 99):
        with pytest.raises(ValueError, match=r"data_subtype .* is not a name such as train2014"):
            build(root, questions=questions(root / "c.json", question(1, 5), subtype=subtype))
    with pytest.raises(ValueError, match=r"no such file; did you mean 'q\.json'"):
        build(root, questions=f"{root}/q.jsn")


def test_real_pictures_of_coco(tmp_path: Path) -> None:
    folder = shared("coco-mini")
    numbers = sorted(int(path.stem) for path in (folder / "val2017").iterdir())[:5]
    path = questions(tmp_path / "q.json", *(question(9 * n, n) for n in numbers), subtype="val2014")
    source = VqaConfig(questions=path, images=folder).build()
    assert [dict(source[index])["question_id"] for index in range(5)] == [9 * number for number in numbers]
    assert all(min(decode(source[index]["image"]).size) > 100 for index in range(5))
