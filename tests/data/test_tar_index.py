import json
import os
from pathlib import Path

import pytest

from pictura.data import tar_index
from pictura.data.tar import Layout
from pictura.data.tar_index import cached_index, index_tar
from tests.data.files import tar, tar_bytes, write

LAYOUT = Layout.of(None, None, "cls")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictura" / "shards"


def test_where_everything_lies(tmp_path: Path) -> None:
    files = [
        ("b/1.txt", "one"),
        ("2.jpg", "J2"),
        ("b/1.jpg", "J1"),
        ("2.cls", "cat\n"),
        ("readme", "x"),
        ("2.seg.png", "x"),
    ]
    path = tar(tmp_path / "a.tar", files)
    index = index_tar(str(path), LAYOUT)
    assert index["keys"] == ["b/1", "2"]
    assert index["labels"] == [None, "cat"]
    assert index["others"] == ["seg.png"]
    assert index["bad"] == []
    content = path.read_bytes()
    found = {
        part: [content[o : o + s] if o >= 0 else None for o, s in spans] for part, spans in index["members"].items()
    }
    assert found == {"txt": [b"one", None], "jpg": [b"J1", b"J2"], "cls": [None, b"cat\n"]}


def test_repeated_members_keep_the_first(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "a.tar", [("1.jpg", "first"), ("1.txt", "t"), ("2.jpg", "x"), ("1.jpg", "other"), ("1.txt", "u")]
    )
    index = index_tar(str(path), LAYOUT)
    offset, size = index["members"]["jpg"][0]
    assert path.read_bytes()[offset : offset + size] == b"first"
    assert index["bad"] == [(f"{path}/1", "a second jpg of this name; the first is used")]  # once for the example


def test_many_names_of_parts_cost_nothing(tmp_path: Path) -> None:
    index = index_tar(str(tar(tmp_path / "a.tar", [(f"{n}.part{n}.jpg", "") for n in range(300)])), LAYOUT)
    assert index["members"] == {}
    assert len(index["keys"]) == 300
    assert len(index["others"]) == 16


def test_a_cut_is_named_with_its_place(tmp_path: Path) -> None:
    content = tar_bytes([("1.jpg", "x" * 600), ("1.txt", "t"), ("2.jpg", "x" * 600), ("2.txt", "t")])
    path = write(tmp_path / "a.tar", content[:3200])
    index = index_tar(str(path), LAYOUT)
    assert index["keys"] == ["1"]
    assert index["cut"] == "2"
    assert index["bad"] == [
        (str(path), "the tar is cut short within 2.jpg (at byte 2,560); what lies before it is used")
    ]


def test_a_tar_that_cannot_be_opened_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.tar: cannot be read: No such file"):
        index_tar(str(tmp_path / "none.tar"), LAYOUT)


def test_compressed_tars_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.tar: is compressed.*gunzip"):
        index_tar(str(write(tmp_path / "a.tar", b"\x1f\x8b\x08")), LAYOUT)


def test_the_index_is_kept_and_used(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tar(tmp_path / "a.tar", [("1.jpg", "x"), ("1.cls", "5")]))
    made = cached_index(path, LAYOUT)
    (kept,) = cache.iterdir()  # and nothing half written beside it
    walked = []
    monkeypatch.setattr(tar_index, "index_tar", lambda path, layout: walked.append(path) or made)
    assert cached_index(path, LAYOUT)["members"] == made["members"]
    assert walked == []
    cached_index(path, Layout.of(None, None, "json.y"))  # another question
    assert len(walked) == 1
    os.utime(path, ns=(0, 1))  # another file, as far as one can see
    cached_index(path, LAYOUT)
    assert len(walked) == 2
    for damaged in (b"", b"{", b"[]", b'{"what": "else"}'):
        for file in cache.iterdir():
            file.write_bytes(damaged)
        cached_index(path, LAYOUT)
    assert len(walked) == 6
    assert kept.exists()
    assert all(
        json.loads(file.read_bytes())["what"]
        for file in cache.iterdir()
        if file.stat().st_mtime_ns > kept.stat().st_mtime_ns
    )


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path: Path, cache: Path) -> None:
    write(cache.parent, "a file where the folder should be")
    assert cached_index(str(tar(tmp_path / "a.tar", [("1.jpg", "x")])), LAYOUT)["keys"] == ["1"]
