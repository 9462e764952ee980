"""README.md: every command, recipe and snippet in it runs, in order, and its figures are those of the run kept."""

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.distributed.run import get_args_parser

from benchmarks import figures
from pictura.cli import main
from pictura.config import load, to_yaml
from pictura.models.vild import ViLDConfig
from pictura.recipe import Recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

# What is laid over a recipe of the README before it is trained here; over one from scratch, a small model too.
TINY: dict[str, Any] = {
    "view": {"image_size": 32},
    "loader": {"batch_size": 4, "workers": 0},
    "schedule": {"warmup": 1},
    "training": {"steps": 4, "save_every": 2, "evaluate_every": 2},
}
SMALL: dict[str, Any] = {
    "model": {
        "embed_dim": 16,
        "image": {"width": 32, "depth": 1, "heads": 2, "image_size": 32, "patch_size": 16},
        "text": {"width": 32, "depth": 1, "heads": 2},
    },
    "tokenizer": {"vocab_size": 600},
}
DETECTOR: dict[str, Any] = {
    "model": {
        "width": 16, "head": {"width": 16}, "proposals": 20, "anchors": 4,
        "image": {"size": "18", "layers": [1, 1, 1, 1], "width": 8, "image_size": 32},
    },
}  # fmt: skip
LONGER = "training.steps=6"  # in the place of a larger number, where a line trains on


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with toy photographs where the README has its own, and in it we are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    random, rows = np.random.default_rng(0), ["image,caption"]
    for name in (f"{number:04d}.jpg" for number in range(1, 9)):
        Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
        rows += [f"{name},a brown dog runs over wet sand", f'{name},"picture {name}, of a child on a swing"']
    for table in ("train.csv", "test.csv"):
        (tmp_path / "photos" / table).write_text("\n".join(rows) + "\n")
    write_boxes(tmp_path / "photos")
    for kind in ("train/child", "train/dog", "test/child", "test/dog"):
        shutil.copytree(tmp_path / "photos", tmp_path / "kinds" / kind, ignore=shutil.ignore_patterns("*.csv"))
    return tmp_path


def write_boxes(folder: Path) -> None:
    """One box in each picture, in COCO's form."""
    images = [
        {"id": n, "file_name": path.name, "width": 48, "height": 40} for n, path in enumerate(folder.glob("*.jpg"))
    ]
    boxes = [
        {"id": n + 1, "image_id": n, "category_id": 7, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
        for n in range(8)
    ]
    coco = {"images": images, "annotations": boxes, "categories": [{"id": 7, "name": "dog"}]}
    (folder / "boxes.json").write_text(json.dumps(coco))


def write_recipe(text: str) -> None:
    """A yaml block, whose first line names its file: read as it stands, then left there cut down."""
    name = text.splitlines()[0].removeprefix("# ")
    Path(name).write_text(text)
    recipe = load(Recipe, name)
    small = DETECTOR if isinstance(recipe.model, ViLDConfig) else SMALL if recipe.initial is None else {}
    Path(name).write_text(to_yaml(load(Recipe, name, TINY | small)))


def run_line(line: str) -> None:
    """One line of a shell block. What sets up a machine is only looked up; torchrun starts one process, this one."""
    words = [re.sub(r"^training\.steps=\d+$", LONGER, word) for word in shlex.split(line, comments=True)]
    if words[:1] == ["make"]:
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
    elif words[:1] == ["torchrun"]:
        asked = get_args_parser().parse_args(words[1:])
        assert (asked.module, asked.training_script) == (True, "pictura"), line
        assert main(asked.training_script_args) == 0, line
    elif words[:1] == ["pictura"]:
        with contextlib.suppress(SystemExit) if "--version" in words else contextlib.nullcontext():
            assert main(words[1:]) == 0, line
    else:
        assert words in ([], [".", ".venv/bin/activate"]), line


def said(text: str) -> Iterator[tuple[list[str], str]]:
    """(words of a command, the lines that it answers) of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, answer = part.partition("\n")
        yield shlex.split(command), answer


def test_every_block_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    namespace: dict[str, Any] = {}
    for language, text in BLOCKS:
        if language == "yaml":
            write_recipe(text)
        elif language == "sh":
            for line in text.splitlines():
                run_line(line)
        elif language == "python":
            exec(compile(text, "README.md", "exec"), namespace)
        elif language == "console":
            for command, answer in said(text):
                capsys.readouterr()
                assert command[0] == "pictura"
                assert main(command[1:]) == 2
                assert capsys.readouterr().err == answer
        else:
            assert language == "text", f"no test knows what to do with a block of {language}"
    assert {path.name for path in (folder / "runs/mine").iterdir()} >= {"model", "report.html", "metrics.jsonl"}
    assert (folder / "report.html").is_file()
    assert np.load("pictures.npy").shape == (8, 16)
    assert json.loads(Path("runs/mine/results.json").read_text())["step"] == 6, "resumed, and trained longer"
    assert "accuracy/top1" in json.loads(Path("runs/kinds/results.json").read_text())
    assert "retrieval/text_to_image/R@1" in json.loads(Path("runs/joint/results.json").read_text())
    assert Path("found.png").is_file()
    assert Path("found/0001.png").is_file() and Path("found/detections.json").is_file()
    assert json.loads(Path("kinds-timm/config.json").read_text())["label_names"] == ["child", "dog"]


def test_the_blocks_are_of_the_kinds_that_run() -> None:
    kinds = [language for language, _ in BLOCKS]
    assert {"sh", "yaml", "python", "console"} <= set(kinds)
    assert README.count("```") == 2 * len(BLOCKS), "a block that the pattern does not find is not tested"


@pytest.mark.slow
def test_torchrun_lines_with_two_processes(folder: Path) -> None:
    write_recipe(next(text for language, text in BLOCKS if language == "yaml"))
    lines = re.findall(r"^torchrun .*$", README, re.MULTILINE)
    assert lines
    for line in lines:
        words = [sys.executable, "-m", "torch.distributed.run", *shlex.split(line, comments=True)[1:]]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        assert (folder / words[words.index("--out") + 1] / "model" / "model.safetensors").is_file()


def test_the_figures_are_those_of_the_run_kept() -> None:
    _, inside, _ = figures.between(README)
    written = figures.table(figures.read()) if figures.RUN.exists() else figures.NONE
    assert inside == written, "run python -m benchmarks.figures"


RUN = {
    "zeroshot/shape/top1": 0.9815,
    "zeroshot/colour/top1": 0.97,
    "zeroshot/heldout/top1": 0.75,
    "retrieval/image_to_text/R@1": 0.5,
    "retrieval/text_to_image/R@1": 0.25,
    "seconds": 330.0,
}


@pytest.fixture
def printed(tmp_path: Path) -> tuple[Path, Path]:
    """A README with markers, and the file that `make demo ARGS=--json` leaves on a machine that it had to set up."""
    readme, run = tmp_path / "README.md", tmp_path / "demo.json"
    readme.write_text(f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n")
    run.write_text("Setting up .venv ...\n" + json.dumps(RUN) + "\n")
    return readme, run


def test_figures_are_written_between_the_markers(printed: tuple[Path, Path]) -> None:
    readme, run = printed
    figures.write(readme, run)
    text = readme.read_text()
    assert text.startswith("before\n<!-- demo -->\n|")
    assert text.endswith("<!-- /demo -->\nafter\n")
    assert "| which shape is it | 98.2% | 12 |" in text
    assert "which colour and shape is it" not in text, "the run did not measure it"
    assert "| the picture of a caption | 25.0% | 500 |" in text
    assert "5.5 minutes" in text
    assert figures.machine() in text


def test_a_run_keeps_the_date_and_machine_of_its_first_stamp(printed: tuple[Path, Path]) -> None:
    readme, run = printed
    figures.write(readme, run)
    other = {"machine": "another", "date": "2025-02-03T04:05:06+00:00"}
    run.write_text(json.dumps(json.loads(run.read_text()) | other))
    figures.write(readme, run)
    assert "on another; 3 February 2025." in readme.read_text()
    assert "old" not in readme.read_text()


def test_without_a_run_it_says_so(printed: tuple[Path, Path]) -> None:
    readme, run = printed
    figures.write(readme, run.with_name("none.json"))
    assert figures.between(readme.read_text())[1] == figures.NONE


@pytest.mark.parametrize("text", ["", "{", "[1]", json.dumps({name: RUN[name] for name in RUN if name != "seconds"})])
def test_what_is_no_run_is_refused(printed: tuple[Path, Path], text: str) -> None:
    readme, run = printed
    before = readme.read_text()
    run.write_text(text)
    with pytest.raises(ValueError, match=r"demo\.json: its last line is not what `pictura demo --json` prints"):
        figures.write(readme, run)
    assert readme.read_text() == before


def test_a_readme_without_markers_is_refused(printed: tuple[Path, Path]) -> None:
    readme, run = printed
    readme.write_text("nothing\n")
    with pytest.raises(ValueError, match=r"README\.md: expected the lines"):
        figures.write(readme, run)
