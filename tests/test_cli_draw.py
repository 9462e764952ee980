"""`pictura draw`."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictura.cli import main

QUICK = ["--steps", "4", "--strokes", "5"]


def test_a_picture_its_strokes_and_its_film(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    for name in ("star.png", "star.svg", "star.gif"):
        words = [str(trained / "model"), "a red star", "--out", str(tmp_path / name), "--size", "48", *QUICK]
        more = ["--report", str(tmp_path / "r.html")] if name == "star.png" else ["--against", "a blue ring"]
        assert main(["draw", *words, *more, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["out"] == str(tmp_path / name) and told["frames"][-1] == {"step": 4, "cosine": told["cosine"]}
    picture = np.asarray(Image.open(tmp_path / "star.png"))
    assert picture.shape == (48, 48, 3) and picture.std() > 5
    root = ET.fromstring((tmp_path / "star.svg").read_text())
    assert len(root.findall(".//{http://www.w3.org/2000/svg}path")) == 5
    with Image.open(tmp_path / "star.gif") as film:
        assert film.n_frames == 5 and film.size == (48, 48)  # type: ignore[attr-defined]
    assert (tmp_path / "r.html").stat().st_size > 1000
    assert {path.name for path in tmp_path.iterdir()} == {"star.png", "star.svg", "star.gif", "r.html"}


def test_people_read_a_table(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", str(trained / "model"), "a red star", "--out", str(tmp_path / "a.png"), *QUICK]) == 0
    told = capsys.readouterr()
    assert "cosine with “a red star”" in told.out and "5 strokes after 4 steps" in told.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["", "--out", "a.png"], "text: it is empty"),
        (["a star", "--out", "a.jpg"], "--out a.jpg: give it a name that ends in .png, .svg or .gif"),
        (["a star", "--out", "no/a.png"], "there is no folder no"),
        (["a star", "--out", "a.png", "--size", "0"], "--size: 0 must be from 1 to 8192"),
        (["a star", "--out", "a.png", "--steps", "0"], "steps: 0 must be from 1"),
    ],
)
def test_mistakes(
    words: list[str],
    said: str,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["draw", str(trained / "model"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and line.startswith("pictura draw: ")
    assert not (tmp_path / "a.png").exists()
