"""`pictura classify --csv`."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictura.cli import main
from pictura.data.scenes import ScenesConfig

LABELS = "red star,blue ring,green heart"


@pytest.fixture
def place(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained model, and five pictures whose names are hard to write into a table."""
    shutil.copytree(trained / "model", tmp_path / "model")
    scenes = ScenesConfig(count=5, image_size=16, seed=5).build()
    (tmp_path / "some").mkdir()
    for index, name in enumerate(("a.png", "b, c.png", 'd "e".png', "f\ng.png", os.fsdecode(b"h\xff.png"))):
        Image.fromarray(np.asarray(scenes[index]["image"])).save(tmp_path / "some" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def classify(words: str) -> int:
    return main(["classify", "model", "some", "--labels", LABELS, *words.split()])


def read(path: str) -> list[list[str]]:
    with Path(path).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def test_the_table_says_what_json_says(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert classify("--top 2 --csv found.csv --json") == 0
    told = capsys.readouterr()
    wanted = json.loads(told.out)
    assert "table: found.csv" in told.err
    heads, *lines = read("found.csv")
    assert heads == ["path", "rank", "label", "probability"]
    assert list(wanted) == sorted(str(path.relative_to(place)) for path in (place / "some").iterdir())
    assert lines == [
        [path, str(rank), label, repr(share)]
        for path, best in wanted.items()
        for rank, (label, share) in enumerate(best.items(), 1)
    ]
    shares = [float(line[3]) for line in lines]
    assert len(lines) == 10 and all(a >= b > 0 for a, b in zip(shares[::2], shares[1::2], strict=True))


def test_one_label_needs_no_rank(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert classify("--top 1 --csv found.csv") == 0
    heads, *lines = read("found.csv")
    assert heads == ["path", "label", "probability"] and len(lines) == 5
    assert all(Path(path).is_file() for path, _, _ in lines)
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    often = {" ".join(words[:2]): int(words[2]) for words in shown}
    assert sum(often.values()) == 5 and often == {k: [line[1] for line in lines].count(k) for k in often}
    assert list(often.values()) == sorted(often.values(), reverse=True)


def test_a_table_is_whole_or_not_there(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("found.csv").write_text("old")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        assert classify("--csv found.csv") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert Path("found.csv").read_text() == "old"
    Path("some/z.png").write_text("no picture")
    assert classify("--csv found.csv") == 2
    assert "z.png: not a picture" in capsys.readouterr().err
    assert Path("found.csv").read_text() == "old"
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--csv nowhere/found.csv", "--csv nowhere/found.csv: there is no folder nowhere; give the path of a file"),
        ("--csv some", "--csv some: is a folder"),
        ("--csv found.csv --top 0", "--top: 0 shows nothing; give 1 or more"),
        ("--csv found.csv --templates nosuch", "templates: 'nosuch' is no set"),
    ],
)
def test_mistakes(words: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert classify(words) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert said in line and told.out == ""
    assert not Path("found.csv").exists()
