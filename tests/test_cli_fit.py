"""`pictura fit`, `evaluate --shifted`, phrases from data, and prompts with synonyms and from text files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pictura
from pictura.cli import main
from pictura.data.scenes import ScenesConfig
from pictura.evaluation.fitted import read_fitted
from pictura.evaluation.prompts import prompts_of
from pictura.evaluation.synonyms import VARIABLE
from tests.evaluation.test_synonyms import write_wordnet


@pytest.fixture
def place(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, pictures of two classes, others of theirs and one more, a table of captions, a WordNet."""
    shutil.copytree(trained / "model", tmp_path / "one")
    scenes = ScenesConfig(count=48, image_size=16, seed=5).build()
    for index in range(48):
        if index < 24:
            path = tmp_path / "kinds" / ("sofa", "dog")[index % 2] / f"{index}.png"
        else:
            path = tmp_path / "later" / ("dog", "sofa", "crane")[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(scenes[index]["image"])).save(path)
    table = [("path", "caption"), ("kinds/dog/1.png", "a red star"), ("kinds/dog/3.png", "a blue ring")]
    (tmp_path / "photos.csv").write_text("".join(f"{path},{caption}\n" for path, caption in table))
    (tmp_path / "mine.txt").write_text("a drawing of a {}\n\n  {}\n")
    monkeypatch.setenv(VARIABLE, str(write_wordnet(tmp_path / "dict")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_classifier_from_a_few_pictures(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "fit one --data kinds --shots 5 --templates mine.txt --out kinds.safetensors"
    assert main([*words.split(), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"] == 10 and told["classes"] == 2 and told["method"] == "prompt_logistic"
    assert told["top1"]["low"] <= told["top1"]["mean"] <= told["top1"]["high"] and "zeroshot" in told
    assert read_fitted(place / "kinds.safetensors").names == ("dog", "sofa")
    assert main(words.split()) == 0
    out = capsys.readouterr()
    assert "zero-shot, of the same pictures" in out.out and "2 classes, from 10 pictures" in out.err


def test_classify_asks_the_file_that_fit_wrote(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "one", "--data", "kinds", "--templates", "mine.txt", "--out", "kinds.safetensors"]) == 0
    capsys.readouterr()
    assert main(["classify", "one", "kinds/dog", "kinds/sofa", "--classifier", "kinds.safetensors", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    fitted, model = read_fitted(place / "kinds.safetensors"), pictura.load(place / "one")
    wanted = fitted.probabilities(model.embedder.images(list(answers)))
    for row, answer in zip(wanted.tolist(), answers.values(), strict=True):
        assert answer == pytest.approx(dict(zip(fitted.names, row, strict=True)), abs=1e-6)
        assert list(answer.values()) == sorted(row, reverse=True)
    right = sum(Path(path).parent.name == next(iter(answer)) for path, answer in answers.items())
    assert right > len(answers) / 2  # of those it has learnt from
    assert main(["classify", "one", "kinds/dog", "--classifier", "kinds.safetensors", "--labels", "dog,sofa"]) == 2
    assert "--classifier: it has labels of its own; leave out --labels" in capsys.readouterr().err


def test_a_shift(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "one", "--on", "kinds", "--shifted", "later", "--report", "r.html", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shift/source/top1"] == found["zeroshot/top1"]
    assert found["shift/drop/top1"] == pytest.approx(found["shift/source/top1"] - found["shift/shifted/top1"])
    assert "being in shifted alone: &#x27;crane&#x27;" in (place / "r.html").read_text()


def test_phrases_from_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "one", "kinds/dog/1.png", "--phrases", "photos.csv", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out).values()
    assert {one["text"] for one in told} == {"a red star", "a blue ring"}


def test_synonyms_are_compared_with_the_names(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "prompts one --data kinds --sets plain,mine.txt --synonyms --out best.yaml --json"
    assert main(words.split()) == 0
    told = capsys.readouterr()
    sets = json.loads(told.out)["sets"]
    assert list(sets)[:4] == ["plain", "mine.txt", "plain, synonyms", "mine.txt, synonyms"]
    assert "synonyms: of 2 of 2 classes" in told.err


def test_without_labels_synonyms_are_as_asked_for(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(place / "kinds" / "dog", place / "loose")
    words = "prompts one --data loose --labels sofa,crane,tree --sets mine.txt --synonyms --out best.yaml --json"
    assert main(words.split()) == 0
    assert list(json.loads(capsys.readouterr().out)["sets"]) == ["mine.txt", "all together, weighted without labels"]
    best = prompts_of(place / "best.yaml")
    assert best.descriptions == {"sofa": ("sofa", "couch", "lounge"), "crane": ("crane", "Stephen Crane")}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("fit one --data kinds --out kinds.pt", "give it a name that ends in .safetensors"),
        ("fit one --data kinds --out no/kinds.safetensors", "there is no folder no"),
        ("fit one --data kinds --out k.safetensors --shots 1", "shots: 1 of each class are too few"),
        ("fit one --data photos.csv --out k.safetensors", "photos.csv: the data has no label"),
        ("fit one --data kinds --out k.safetensors --labels a,b,c", "3 given, but the data has 2 classes"),
        ("evaluate one --on photos.csv --shifted kinds", "--shifted: is compared zero-shot"),
        ("evaluate one --on kinds --shifted photos.csv", "shift: shifted: the data has no label"),
        ("evaluate one --on demo --shifted kinds", "--shifted: a recipe names its own data"),
        ("describe one kinds --phrases kinds", "--phrases kinds: has no captions; try a text file"),
        ("prompts one --data kinds --sets none.txt", "none.txt: no templates there"),
    ],
)
def test_mistakes(words: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert said in line and told.out == ""


def test_synonyms_that_are_nowhere(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(place))
    assert main(["prompts", "one", "--data", "kinds", "--synonyms"]) == 2
    assert "apt install wordnet-base" in capsys.readouterr().err
