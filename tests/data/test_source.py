import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictura.data.source import BadSample, Classes, Example, Source, Strings, existing, read_file, shown, under
from tests.data.files import write


class Lines(Source):
    provides = frozenset({"captions"})

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Example:
        if index == 1:
            raise BadSample("one", "is bad")
        return {"key": str(index), "captions": [f"caption {index}", "another"]}


def test_captions_pass_over_the_bad_ones() -> None:
    assert list(Lines().all_captions()) == ["caption 0", "another", "caption 2", "another"]


def test_a_bad_sample_crosses_process_borders_and_cannot_upset_a_terminal() -> None:
    bad = pickle.loads(pickle.dumps(BadSample("a\x1b[2J\ud800.jpg", "x" * 1000)))
    assert bad.key == "a�[2J�.jpg"
    assert len(bad.reason) == 300
    assert str(bad).startswith("a�[2J�.jpg: xxx")
    assert shown("ein schönes Bild.jpg") == "ein schönes Bild.jpg"


@settings(deadline=None)
@given(st.lists(st.text(st.characters(categories=None), max_size=8)))
def test_strings_are_a_list_of_strings(strings: list[str]) -> None:
    packed = pickle.loads(pickle.dumps(Strings(strings)))
    assert list(packed) == strings
    assert packed[1:] == strings[1:]
    assert packed[::-2] == strings[::-2]
    if strings:
        assert packed[-1] == strings[-1]
    with pytest.raises(IndexError):
        packed[len(strings)]


def test_classes_found_in_the_data() -> None:
    words = Classes.of(None, ["dog", "cat", "dog", "", None])
    assert words.names == ("cat", "dog")
    assert [words.find(value) for value in ("cat", "dog", "", "cow", None)] == [0, 1, None, None, None]
    numbers = Classes.of(None, ["3", 0, 7.0])
    assert numbers.names == ()
    assert [numbers.find(value) for value in ("3", 0, 7.0, -1, 1.5, "-1", "9" * 30)] == [
        3,
        0,
        7,
        None,
        None,
        None,
        None,
    ]
    mixed = Classes.of(None, ["3", "three"])
    assert mixed.names == ("3", "three")
    assert mixed.find("3") == 0


def test_classes_given(tmp_path: Path) -> None:
    given = Classes.of(["dog", "cat"], ["cat", 1])
    assert (given.find("cat"), given.find(1), given.find(2), given.find("cow")) == (1, 1, None, None)
    lines = Classes.of(write(tmp_path / "names.txt", "\ufeffdog\r\n\r\ncat\n"), ["cat"])
    assert lines == given
    codes = write(tmp_path / "codes.json", json.dumps({"n02": ["tabby", "cat"], "n01": "crane", "n03": ["crane"]}))
    named = Classes.of(codes, ["n01"])
    assert named.names == ("tabby", "crane", "crane")
    assert named.label("n03", "key") == 2
    with pytest.raises(BadSample, match=r"key: label 'n04' is not among the 3 class names"):
        named.label("n04", "key")
    with pytest.raises(BadSample, match="key: no label"):
        named.label(float("nan"), "key")


def test_classes_given_as_yaml(tmp_path: Path) -> None:
    assert Classes.of(write(tmp_path / "a.yaml", "- dog\n- no\n- 7\n"), ["dog"]).names == ("dog", "no", "7")
    named = Classes.of(write(tmp_path / "b.yml", "# codes\nn02: [tabby, cat]\nn01: crane\n3: 'yes'\n"), ["n01"])
    assert named == Classes(("tabby", "crane", "yes"), {"n02": 0, "n01": 1, "3": 2})
    for content in ("[dog, null]", "{a: true}", "[[dog]]", "- dog\n-\n"):
        with pytest.raises(ValueError, match=r"class_names: .*c\.yaml cannot be read as YAML names: .* is not a name"):
            Classes.of(write(tmp_path / "c.yaml", content), [])
    for content in ("[", "!!python/object/apply:os.system [ls]", "dog", "", "{a: []}"):
        with pytest.raises(ValueError, match=r"class_names: .*c\.yaml"):
            Classes.of(write(tmp_path / "c.yaml", content), [])


def test_mistakes_in_class_names(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"none of the labels in the data is among the 2 given names.*did you mean 'dog'"
    ):
        Classes.of(["dog", "cat"], ["dogs", "wolves"])
    write(tmp_path / "name.txt", "a")
    with pytest.raises(ValueError, match=r"names\.txt: no such file; did you mean 'name\.txt'"):
        Classes.of(tmp_path / "names.txt", [])
    for content in ("{", "3", '{"a": []}', "[" * 100_000, "[null]"):
        with pytest.raises(ValueError, match=r"class_names: .*bad\.json"):
            Classes.of(write(tmp_path / "bad.json", content), [])


def test_existing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert existing(tmp_path, "folder") == tmp_path
    with pytest.raises(ValueError, match="a file is needed here"):
        existing(tmp_path, "file")
    with pytest.raises(ValueError, match="no such folder"):
        existing(tmp_path / "no" / "where", "folder")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match="no permission to read it"):
        existing(tmp_path, "folder")


def test_under_keeps_relative_names_in_the_root(tmp_path: Path) -> None:
    root = os.path.realpath(tmp_path / "root")
    write(Path(root) / "a" / "b.jpg", b"x")
    outside = write(tmp_path / "outside.jpg", b"x")
    (Path(root) / "inner.jpg").symlink_to(Path(root) / "a" / "b.jpg")
    (Path(root) / "outer.jpg").symlink_to(outside)
    (Path(root) / "folder").symlink_to(tmp_path)
    assert under(root, "a/../a/b.jpg") == under(root, "inner.jpg") == f"{root}/a/b.jpg"
    assert under("/", "etc/hostname") == "/etc/hostname"
    assert under(root, str(outside)) == str(outside)  # the user's own absolute name
    for name in ("../outside.jpg", "a/../../outside.jpg", "outer.jpg", "folder/outside.jpg", "../root2/x.jpg"):
        with pytest.raises(BadSample, match="leads outside"):
            under(root, name)
    with pytest.raises(BadSample, match="web address"):
        under(root, "https://host/a.jpg")
    with pytest.raises(BadSample, match=r"a.b\.jpg: "):
        read_file(under(root, "a\0b.jpg"), "a\0b.jpg")


def test_read_file_refuses_what_is_not_a_file(tmp_path: Path) -> None:
    assert read_file(str(write(tmp_path / "a", b"content")), "key") == b"content"
    assert read_file(str(write(tmp_path / "empty", b"")), "key") == b""
    with pytest.raises(BadSample, match="key: no such file"):
        read_file(str(tmp_path / "none"), "key")
    with pytest.raises(BadSample, match="not a regular file"):
        read_file(str(tmp_path), "key")
    with pytest.raises(BadSample, match="7 bytes, above the limit of 6"):
        read_file(str(tmp_path / "a"), "key", limit=6)
    with pytest.raises(BadSample, match="File name too long"):
        read_file(str(tmp_path / ("x" * 5000)), "key")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadSample, match="not a regular file"):  # and does not wait for a writer
        read_file(str(tmp_path / "pipe"), "key")
    left = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    with pytest.raises(BadSample):
        read_file(str(tmp_path), "key")
    assert not left or set(os.listdir("/proc/self/fd")) == left
