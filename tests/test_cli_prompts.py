"""`pictura prompts`, and what `classify` makes of its file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictura.cli import main
from pictura.data.scenes import ScenesConfig


@pytest.fixture
def place(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained model, pictures of two classes in folders, and some without."""
    shutil.copytree(trained, tmp_path / "runs" / "demo")
    scenes = ScenesConfig(count=24, image_size=16, seed=5).build()
    for index in range(24):
        folder = tmp_path / ("kinds/red star" if index % 2 else "kinds/blue ring")
        for path in (folder / f"{index}.png", tmp_path / "loose" / f"{index}.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(scenes[index]["image"])).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_best_of_some_sets_goes_into_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "runs/demo/model --data kinds --sets plain,drawn --out best.yaml --report r.html --json"
    assert main(["prompts", *words.split()]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["sets"])[:3] == ["plain", "drawn", "all together"]
    assert told["best"] in told["sets"] and 0 <= told["sets"][told["best"]]["top1"] <= 1
    assert (place / "r.html").stat().st_size > 1000
    asked = ["runs/demo/model", "loose/0.png", "--labels", "red star,blue ring", "--templates", "best.yaml"]
    assert main(["classify", *asked, "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out).values()
    assert set(answer) == {"red star", "blue ring", "none of these"}
    assert sum(answer.values()) == pytest.approx(1)


def test_pictures_without_labels(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["runs/demo/model", "--data", "loose", "--labels", "red star,blue ring", "--sets", "plain,drawn"]
    assert main(["prompts", *words]) == 0
    out = capsys.readouterr().out
    assert "how much pictures decide" in out and "weighted without labels *" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--data nowhere", "nowhere"),
        ("--data loose", "give --labels"),
        ("--data loose --labels a,a", "'a' names two classes"),
        ("--data kinds --labels a,b,c", "3 given, but the data has 2 classes"),
        ("--data kinds --sets phto", "did you mean photo?"),
        ("--data kinds --sets ,", "--sets: none given"),
        ("--data kinds --out best.txt", "give it a name that ends in .yaml"),
        ("--data kinds --out no/best.yaml", "there is no folder no"),
        ("--data none.yaml", "none.yaml: no such file"),
    ],
)
def test_mistakes(words: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts", "runs/demo/model", *words.split()]) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert said in line and line.startswith("pictura prompts: ") and told.out == ""
