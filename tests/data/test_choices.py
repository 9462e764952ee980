import csv
import json
from pathlib import Path
from typing import Any

import pytest

from pictura.config import load
from pictura.data.choices import MOST, ChoiceTable, ChoiceTableConfig
from pictura.data.source import BadSample, SourceConfig
from tests.data.files import jpeg, write

HEADER = ["image", "true", "false"]


def table(path: Path, header: list[str], *rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t").writerows([header, *rows])
    return path


def lines(path: Path, *rows: Any) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def crepe(path: Path, *rows: tuple[str, str, str]) -> Path:
    names = ("filename", "caption", "negative_caption")
    return write(path, json.dumps({str(i): dict(zip(names, row, strict=True)) for i, row in enumerate(rows)}))


def pictures(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        write(folder / name, jpeg(seed))


def build(path: Path | list[Path], images: Path | None = None) -> ChoiceTable:
    given = [str(one) for one in path] if isinstance(path, list) else str(path)
    return ChoiceTableConfig(path=given, images=images).build()


def told(source: ChoiceTable) -> list[tuple[list[str], int]]:
    examples: list[Any] = [source[index] for index in range(len(source))]
    return [(one["choices"], one["answer"]) for one in examples]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_of_true_and_false(tmp_path: Path, suffix: str) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    rows = ["a.jpg", "a dog", "a cat"], ["b.jpg", " two, or more ", '["one", "none, ever"]']
    path = table(tmp_path / f"t{suffix}", HEADER, *rows)
    source = load(SourceConfig, {"kind": "choices", "path": str(path)}).build()
    assert source.provides == {"image", "choices", "answer"} and len(source) == 2 and not source.bad
    assert dict(source[0]) == {
        "key": str(tmp_path / "a.jpg"), "image": jpeg(0), "choices": ["a dog", "a cat"], "answer": 0,
    }  # fmt: skip
    assert dict(source[-1]) == dict(source[1])
    assert dict(source[1])["choices"] == ["two, or more", "one", "none, ever"]
    assert list(source.all_captions()) == ["a dog", "two, or more"]
    with pytest.raises(IndexError):
        source[2]


def test_a_list_of_choices_with_the_place_of_the_true_one(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    rows = ["a.jpg", '["x", "y", "z"]', "2"], ["a.jpg", '["x", "y"]', ""]
    made = build(table(tmp_path / "t.csv", ["image", "choices", "answer"], *rows))
    assert told(made) == [(["x", "y", "z"], 2), (["x", "y"], 0)]
    assert made.captions(0) == ["z"] and made.captions(-1) == ["x"]
    path = lines(tmp_path / "t.jsonl", {"filepath": "a.jpg", "choices": ["x", "y"], "answer": 1})
    assert told(build(path)) == [(["x", "y"], 1)]
    path = lines(tmp_path / "t.jsonl", {"img": "a.jpg", "true": "x", "false": ["y", "z"]})
    assert told(build(path)) == [(["x", "y", "z"], 0)]


def test_a_table_that_a_spreadsheet_wrote(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    write(tmp_path / "t.tsv", " Image \tTRUE\tFalse\r\na.jpg\tein Käfer\tein Hund\r\n".encode("utf-16"))
    assert told(build(tmp_path / "t.tsv")) == [(["ein Käfer", "ein Hund"], 0)]


def test_a_column_of_kinds(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    rows = ["a.jpg", "a dog", "a cat", "noun"], ["a.jpg", "a dog", "no dog", "yes/no"], ["a.jpg", "a", "b", ""]
    source = build(table(tmp_path / "mine.csv", [*HEADER, "kind"], *rows))
    assert source.provides == {"image", "choices", "answer", "choice_kind"}
    assert [dict(source[i])["choice_kind"] for i in range(3)] == ["noun", "yes or no", "mine"]


def test_the_files_of_sugar_crepe(tmp_path: Path) -> None:
    folder = tmp_path / "sugar-crepe"
    pictures(tmp_path / "val2017", "000000085329.jpg", "000000460147.jpg")
    crepe(folder / "swap_obj.json", ("000000085329.jpg", "A cat on a dog.", "A dog on a cat."))
    crepe(folder / "add_att.json", ("000000460147.jpg", "A bus.", "A red bus."), ("000000085329.jpg", "A.", "B."))
    one = build(folder / "swap_obj.json")  # pictures are looked for beside the folder
    assert told(one) == [(["A cat on a dog.", "A dog on a cat."], 0)]
    assert one.provides == {"image", "choices", "answer"} and one[0]["image"] == jpeg(0)
    both = ChoiceTableConfig(path=str(folder / "*.json"), images=tmp_path).build()
    assert [dict(both[i])["choice_kind"] for i in range(3)] == ["add_att", "add_att", "swap_obj"]
    assert [dict(both[i])["image"] for i in range(3)] == [jpeg(1), jpeg(0), jpeg(0)]
    listed = [{"id": 7, "filename": "000000085329.jpg", "caption": "A.", "negative_caption": "B."}]
    assert told(build(write(folder / "list.json", json.dumps(listed)))) == [(["A.", "B."], 0)]


def test_bad_rows_are_named(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    good = {"image": "a.jpg", "true": "x", "false": "y"}
    rows = [
        good,
        good | {"image": " "},
        good | {"image": 5},
        {"true": "x", "false": "y"},
        {"image": "a.jpg", "answer": 0},
        good | {"true": ["x", "z"]},
        good | {"true": ""},
        good | {"false": []},
        good | {"false": None},
        good | {"false": ["y", 3]},
        good | {"false": "x"},
        good | {"false": "[x"},
        good | {"false": ["y"] * (MOST + 1)},
        good | {"kind": ["a"]},
        good | {"kind": "x" * 65},
        *({"image": "a.jpg", "choices": ["x", "y"], "answer": answer} for answer in (2, -1, True, 0.0, "one", [0])),
        [good],
    ]
    path = lines(tmp_path / "t.jsonl", *rows)
    path.write_bytes(path.read_bytes() + b"{\n" + b"[" * 200_000 + b"\n")
    source = build(path)
    assert told(source) == [(["x", "y"], 0)]
    said = {int(bad.key.rpartition(":")[2]): bad.reason for bad in source.bad}
    assert said.pop(12).startswith("false: not a JSON list")
    assert said.pop(23).startswith("not JSON") and said.pop(24).startswith("not JSON")
    nothing = "names no picture; call the column `image`"
    assert said == {
        2: nothing, 3: nothing, 4: nothing,
        5: "no column `choices`, and none called `true`; there are image, answer",
        6: "2 sentences are said to be true; one is wanted",
        7: "empty caption",
        8: "1 sentence to choose among; 2 or more are wanted",
        9: "false: None is not a sentence",
        10: "false: 3 is not a sentence",
        11: "two of the choices are the same",
        13: "false: 1,001 sentences, more than 1,000",
        14: "kind a list is not a short name",
        15: f"kind '{'x' * 65}' is not a short name",
        16: "answer 2 is not a place among 2 choices, from 0",
        17: "answer -1 is not a place among 2 choices, from 0",
        18: "answer True is not a place among 2 choices, from 0",
        19: "answer 0.0 is not a place among 2 choices, from 0",
        20: "answer 'one' is not a place among 2 choices, from 0",
        21: "answer a list is not a place among 2 choices, from 0",
        22: "not a JSON object",
    }  # fmt: skip


def test_bad_rows_of_text(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg")
    path = table(
        tmp_path / "t.csv", HEADER, ["a.jpg", "x", "y"], ["a.jpg", "x", "y", "z"], [], ["a.jpg", "x" * 200_000]
    )
    source = build(path)
    assert len(source) == 1
    assert [bad.reason for bad in source.bad] == [
        "4 cells where the header has 3; quote text that holds ','",
        "not a row: field larger than field limit (131072)",
    ]


def test_strangers_files_stay_in_their_folder(tmp_path: Path) -> None:
    write(tmp_path / "secret.jpg", jpeg(9))
    pictures(tmp_path / "in", "a.jpg")
    (tmp_path / "in" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    rows = [("a.jpg", "x", "y"), ("../secret.jpg", "x", "y"), ("link.jpg", "x", "y"), ("gone.jpg", "x", "y")]
    outside = (str(tmp_path / "secret.jpg"), "x", "y")
    source = build(crepe(tmp_path / "in" / "c.json", *rows, outside), tmp_path / "in")
    assert len(source) == 4 and source[0]["image"] == jpeg(0)
    (bad,) = source.bad
    assert bad.key.endswith("c.json: 4") and "leads outside the pictures' folder" in bad.reason
    for index, says in ((1, "leads outside"), (2, "leads outside"), (3, "no such file")):
        with pytest.raises(BadSample, match=says):
            source[index]
    mine = table(tmp_path / "mine.csv", HEADER, list(outside))  # one's own table may name any file
    assert build(mine)[0]["image"] == jpeg(9)


def test_mistakes(tmp_path: Path) -> None:
    table(tmp_path / "t.csv", HEADER)
    with pytest.raises(ValueError, match=r"no such file; did you mean 't\.csv'"):
        build(tmp_path / "t.cvs")
    with pytest.raises(ValueError, match=r"^path: .*t\.csv has no usable row; nothing is in it$"):
        build(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"^path: .*none\.csv has no usable row; nothing is in it$"):
        build(write(tmp_path / "none.csv", ""))
    with pytest.raises(ValueError, match=r"no usable row; for example .*t\.csv:2: names no picture; call the column"):
        build(table(tmp_path / "t.csv", ["foto", "true", "false"], ["a.jpg", "x", "y"]))
    with pytest.raises(ValueError, match=r"no picture such as 'a\.jpg' in .*; set `images`"):
        build(table(tmp_path / "t.csv", HEADER, ["a.jpg", "x", "y"]))
    with pytest.raises(ValueError, match=r"choices come in \.csv, \.tsv, \.jsonl, or SugarCrepe's \.json"):
        build(write(tmp_path / "t.txt", "x"))
    with pytest.raises(ValueError, match=r"t\.json: cannot be read as JSON"):
        build(write(tmp_path / "t.json", "{"))
    with pytest.raises(ValueError, match=r"t\.json: should be SugarCrepe's"):
        build(write(tmp_path / "t.json", "3"))
    with pytest.raises(ValueError, match=r"no usable row; for example .*t\.json: 0: not a JSON object"):
        build(write(tmp_path / "t.json", '{"0": "x"}'))
