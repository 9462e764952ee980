import json
import os
from pathlib import Path

import pytest

from pictura.data.official import brief, entries, files, find_picture, picture_folders, read_list
from pictura.data.source import BadSample
from tests.data.files import jpeg, write


def test_files_by_name_pattern_and_braces(tmp_path: Path) -> None:
    one, two = write(tmp_path / "q_train.json", "{}"), write(tmp_path / "q_val.json", "{}")
    assert files(str(one)) == [one]
    assert files(f"{tmp_path}/q_*.json") == [one, two]
    assert files(f"{tmp_path}/q_{{val,train}}.json") == [two, one]
    assert files([str(two), f"{tmp_path}/q_*.json"]) == [two, one]
    with pytest.raises(ValueError, match=r"q_vall.json: no such file; did you mean 'q_val.json'"):
        files(f"{tmp_path}/q_vall.json")
    with pytest.raises(ValueError, match="a file is needed"):
        files(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as JSON"),
        (b'{"things": [', "cannot be read as JSON"),
        (b'{"things": ["\xff"]}', "cannot be read as JSON"),
        (b"[" * 200_000, "cannot be read as JSON"),
        (b'{"things": [' + b"9" * 5000 + b"]}", "cannot be read as JSON"),
        (b"[]", "should be a list of things, one JSON object with the list `things`"),
        (b'{"things": {}}', "with the list `things`"),
        (b"null", "with the list `things`"),
    ],
    ids=range(8),
)
def test_what_is_not_the_file_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_list(write(tmp_path / "x.json", content), "things", "a list of things")


def test_objects_shrink_while_they_are_read_and_others_are_bad(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", json.dumps({"things": [{"parts": [{"name": "a", "more": 1}]}, 7, None]}))
    content = read_list(path, "things", "", lambda part: part.get("name", part))
    bad: list[BadSample] = []
    assert list(entries(path, "things", content, bad)) == [(f"{path}: things[0]", {"parts": ["a"]})]
    assert [str(sample) for sample in bad] == [f"{path}: things[{number}]: not a JSON object" for number in (1, 2)]


def test_the_first_place_that_holds_a_picture_is_taken(tmp_path: Path) -> None:
    table = write(tmp_path / "notes" / "x.json", "{}")
    picture = write(tmp_path / "images" / "part" / "7.jpg", jpeg())
    names = [["no.jpg"], ["no.jpg", "7.jpg"]]
    folders = picture_folders(table, None, (".", "none", "../images"), ("part", "other"), names)
    assert folders == [str(tmp_path / "images"), str(tmp_path / "images" / "part")]
    assert find_picture(folders, names[1], "key") == str(picture)
    with pytest.raises(ValueError, match=r"no picture such as 'no.jpg' in .*/notes; set `images`"):
        picture_folders(table, None, (".",), ("part",), names)
    with pytest.raises(ValueError, match="set `images`"):
        picture_folders(table, [], (".",), (), names)
    with pytest.raises(ValueError, match="no such folder"):
        picture_folders(table, tmp_path / "nowhere", (".",), (), names)


def test_folders_that_are_given_are_all_looked_in_and_may_be_links(tmp_path: Path) -> None:
    table = write(tmp_path / "x.json", "{}")
    write(tmp_path / "disk" / "1.jpg", jpeg(1))
    write(tmp_path / "b" / "2.jpg", jpeg(2))
    os.symlink(tmp_path / "disk", tmp_path / "a")
    folders = picture_folders(table, [tmp_path / "a", tmp_path / "b"], (), (), [["2.jpg"]])
    assert [find_picture(folders, [name], "") for name in ("1.jpg", "2.jpg")] == [
        str(tmp_path / "disk" / "1.jpg"),
        str(tmp_path / "b" / "2.jpg"),
    ]


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "in/../../secret.jpg", "link.jpg", "\0.jpg", "\ud800.jpg", "x" * 999]
)
def test_no_name_leads_outside_or_crashes(tmp_path: Path, name: str) -> None:
    write(tmp_path / "secret.jpg", jpeg())
    write(tmp_path / "in" / "7.jpg", jpeg())
    os.symlink(tmp_path / "secret.jpg", tmp_path / "in" / "link.jpg")
    with pytest.raises(BadSample, match=r"leads outside|not a file name|no such file") as caught:
        find_picture([str(tmp_path / "in")], [name], "key")
    assert caught.value.key == "key"


def test_strange_values_are_shown_in_brief() -> None:
    assert brief("x" * 100) == repr("x" * 80)
    assert [brief(value) for value in (None, True, 5, {"a": [1]}, [[[]]])] == ["None", "True", "5", "a dict", "a list"]
