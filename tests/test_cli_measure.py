"""`pictura evaluate` on data and of several models, `audit`, `describe` and `blend`."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pictura.cli import main
from pictura.data.scenes import ScenesConfig
from pictura.weights.folder import load_folder, save_folder


@pytest.fixture
def place(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, another one like it, pictures of two classes, and a list of phrases."""
    shutil.copytree(trained / "model", tmp_path / "one")
    model, tokenizer = load_folder(tmp_path / "one")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_folder(tmp_path / "two", model, tokenizer)
    scenes = ScenesConfig(count=20, image_size=16, seed=5).build()
    for index in range(20):
        path = tmp_path / "kinds" / ("red star" if index % 2 else "blue ring") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(scenes[index]["image"])).save(path)
    (tmp_path / "phrases.txt").write_text("a red star\na blue ring\n\na green heart\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_data_are_measured_without_a_recipe(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "one", "--on", "kinds", "--templates", "drawn", "--report", "r.html", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"zeroshot/top1", "calibration/error", "throughput/pictures_per_second"} <= set(found)
    assert "zeroshot: confusion" in (place / "r.html").read_text()


def test_two_models_side_by_side(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "one", "two", "--on", "kinds", "--csv", "both.csv", "--report", "r.html", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["models"]) == ["one", "two"]
    difference, low, high = found["differences"]["two"]["zeroshot/top1"]
    values = [found["models"][name]["zeroshot/top1"] for name in ("one", "two")]
    assert difference == pytest.approx(values[1] - values[0]) and low <= difference <= high
    with (place / "both.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["model"] for line in lines} == {"one", "two"}
    assert "Side by side" in (place / "r.html").read_text()


def test_an_audit_of_ones_own_pictures(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "one", "--on", "kinds", "--outside", "kinds/red star", "--report", "r.html"]) == 0
    out = capsys.readouterr().out
    assert "written words" in out and "corrupted pictures" in out and "something else" in out
    page = (place / "r.html").read_text()
    assert "Where it should not be trusted" in page and "pictures of something else" in page
    assert main(["audit", "one", "--outside", "kinds"]) == 2
    assert "--outside: is of none of the classes of --on" in capsys.readouterr().err


def test_phrases(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "one", "kinds/red star/1.png", "--phrases", "phrases.txt", "--top", "2", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out).values()
    assert len(told) == 2 and told[0]["score"] >= told[1]["score"]
    assert {one["text"] for one in told} < {"a red star", "a blue ring", "a green heart"}


def test_a_model_between_two(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blend", "one", "two", "between", "--share", "0.25"]) == 0
    (one, _), (two, _), (between, _) = (load_folder(place / name) for name in ("one", "two", "between"))
    for a, b, c in zip(one.parameters(), two.parameters(), between.parameters(), strict=True):
        torch.testing.assert_close(c, 0.75 * a + 0.25 * b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evaluate one one --on kinds", "one is given twice"),
        ("evaluate a=b --on kinds", "give a model; a=b is a change to a recipe"),
        ("evaluate one a=b --on kinds", "a=b: data have nothing to change"),
        ("evaluate one --on demo --train kinds", "--train: a recipe names its own data"),
        ("evaluate one --on kinds --csv no/x.csv", "there is no folder no"),
        ("evaluate one --on nowhere", "nowhere"),
        ("audit one --train kinds", "--train: is of the same classes as --on"),
        ("audit one --pictures 5", "--pictures: 5 are too few"),
        ("describe one kinds", "this model (clip) tells no captions; train one"),
        ("describe one kinds --phrases none.txt", "none.txt"),
        ("describe one kinds --beams 0", "--beams: 0 tells nothing"),
        ("blend one two kinds", "is there already; choose a new folder"),
        ("blend one two new --share 2", "share"),
    ],
)
def test_mistakes(words: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert said in line and told.out == ""
