from pathlib import Path

import pytest

from pictura.evaluation.aside import aside


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
