from pathlib import Path
from typing import Any

import pytest

from pictura.output.files import aside, write_text


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("before")

    def fails() -> None:
        with aside(path) as beside:
            beside.write_text("half")
            assert beside.suffix == ".png" and path.read_text() == "before"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert [*tmp_path.iterdir()] == [path] and path.read_text() == "before"
    with aside(path) as beside:
        beside.write_text("after")
    assert [*tmp_path.iterdir()] == [path] and path.read_text() == "after"


def test_a_text_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", "old")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_name_of_a_file_that_is_no_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "names.txt", "caf\udce9.jpg\n")
    assert (tmp_path / "names.txt").read_bytes() == b"caf\xe9.jpg\n"
