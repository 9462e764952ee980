"""Zero-shot over a folder: ours and both peers' scripts give one answer, and the harness runs whole processes."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import zeroshot, zeroshot_scripts
from benchmarks.harness import compare
from benchmarks.zeroshot import ZeroshotFolder
from pictura import cli
from pictura.config import sized
from pictura.models.clip import CLIPConfig

needs = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("open_clip", "transformers")
}
ONE = zeroshot_scripts.ONE


@dataclass(frozen=True, kw_only=True)
class SmallFolder(ZeroshotFolder):
    """ViT-B/32's form, two layers deep and 64 wide."""

    def config(self) -> CLIPConfig:
        config = sized(CLIPConfig, "ViT-B/32")
        image = replace(config.image, width=64, heads=1, depth=2, activation="gelu")
        text = replace(config.text, width=64, heads=1, depth=2, activation="gelu")
        return replace(config, image=image, text=text, embed_dim=64)


COMMON = {"name": "toy", "peer_setting": "as in the real case", "precision": "fp32"}
CASES = (
    SmallFolder(**COMMON, case="open_clip", script="open_clip", pictures=5, labels=7, items=5),
    SmallFolder(**COMMON, case="transformers", script="transformers", pictures=5, labels=7, items=5, templates=ONE),
)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder that both sides of a run read."""
    monkeypatch.setenv(zeroshot.SHARED, str(tmp_path))
    zeroshot.shared.cache_clear()
    yield tmp_path
    zeroshot.shared.cache_clear()


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Instead of a process each, here, in float32: an import of the peers takes longer than all of the rest."""
    asked: list[list[str]] = []
    monkeypatch.setattr("pictura.evaluation.ready.runs_here", lambda: False)

    def run(words: list[str], environment: dict[str, str] | None = None) -> None:
        asked.append(words)
        if words[1] == "pictura":
            assert cli.main(words[2:]) == 0
        else:
            monkeypatch.setattr("sys.argv", words[1:])
            zeroshot_scripts.main()

    monkeypatch.setattr(zeroshot, "run", run)
    return asked


@pytest.mark.parametrize("case", [pytest.param(case, id=case.case, marks=needs[case.script]) for case in CASES])
def test_both_sides_give_one_answer(
    case: SmallFolder, place: Path, in_process: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zeroshot_scripts, "BATCH", 2)  # several of them
    monkeypatch.setattr(zeroshot_scripts, "MANY", 2)
    monkeypatch.setattr(zeroshot, "SCALE", 20.0)  # so few numbers are surer of themselves
    said: list[list[tuple[str, str, float]]] = []

    def heard(read: Callable[[Path], list[tuple[str, str, float]]]) -> Callable[[Path], list[tuple[str, str, float]]]:
        return lambda file: said.append(found := sorted(read(file))) or found

    monkeypatch.setattr(zeroshot_scripts, "read", heard(zeroshot_scripts.read))
    ours, peer = case.ours("cpu")(), case.peer("cpu")()
    assert len(in_process) == 4  # each has run over two pictures first
    assert [(path, label) for path, label, _ in said[0]] == [(path, label) for path, label, _ in said[1]]
    assert ours.shape == (5,) and ours.std() > 0.02  # so that they could have differed
    # Hugging Face resizes with torchvision, the others with PIL.
    torch.testing.assert_close(ours, peer, rtol=1e-4 if case.script == "open_clip" else 2e-2, atol=0)


@needs["transformers"]
def test_the_pipeline_is_asked_all_sentences(place: Path, in_process: list[list[str]]) -> None:
    """Of each label the probabilities of its eighty are added, so that they are of labels, and sum to one."""
    chances = replace(CASES[1], templates="imagenet", labels=2).peer("cpu")()
    assert chances.shape == (5,) and bool((chances >= 0.5 - 1e-3).all() and (chances <= 1 + 1e-3).all())


@needs["open_clip"]
def test_a_run_of_one_size_writes_its_pictures_and_models_once(place: Path, in_process: list[list[str]]) -> None:
    case = CASES[0]
    call = case.ours("cpu")
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()}
    assert {path.name for path in place.iterdir()} == {
        "model-pictura", "pictures-2", "pictures-5", "labels-2.txt", "labels-7.txt",
    }  # fmt: skip
    case.ours("cpu")
    call()
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.is_file()} == before


def test_both_sides_are_told_the_same_folder() -> None:
    one, two = (CASES[0].environment(side) for side in ("ours", "peer"))
    assert one == two and Path(one[zeroshot.SHARED]).is_dir()


def test_pictures_are_all_different_and_as_large_as_photographs(tmp_path: Path) -> None:
    zeroshot.draw(tmp_path / "some", 6)
    files = sorted((tmp_path / "some").iterdir())
    assert [file.name for file in files] == [f"{i:05}.jpg" for i in range(6)]
    pixels = [np.asarray(Image.open(file)) for file in files]
    assert all(one.shape == (375, 500, 3) and one.std() > 10 for one in pixels)
    assert len({one.tobytes() for one in pixels}) == 6
    assert 30_000 < sum(file.stat().st_size for file in files) / 6 < 200_000


@needs["open_clip"]
def test_labels_are_all_different() -> None:
    found = zeroshot.names(1000)
    assert len(found) == len(set(found)) == 1000
    assert zeroshot.names(3) == found[:3] == ["tench", "goldfish", "great white shark"]


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"^-c raise SystemExit.* ended with code 1: no such folder$"):
        zeroshot.run(["-c", "raise SystemExit('no such folder')"])


@pytest.mark.slow
@needs["open_clip"]
def test_whole_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    here = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv("PYTHONPATH", here)
    case = importlib.import_module("test_zeroshot").CASES[0]  # under the name by which a worker finds it
    answer = compare(replace(case, tolerance=0.1), runs=1, seconds=0.0)
    assert answer["unit"] == "images/s" and answer["ours"] > 0 and answer["peer"] > 0
    assert answer["disagreement"] is not None
    assert min(answer["peak_rss_mib"].values()) > 100  # of the processes started, not of the workers alone
