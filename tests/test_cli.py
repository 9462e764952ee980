"""The command, as somebody types it."""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pictura import cli
from pictura.cli import main, mendable, parse, parser
from pictura.data.scenes import ScenesConfig
from pictura.models.classifier import ClassifierConfig
from pictura.models.vit import ViTConfig
from pictura.recipe import read_recipe
from pictura.verbs import classify
from pictura.weights.folder import save_folder
from tests.tiny import RETRIEVAL, command, environment, pictura, write_tiny


def verbs() -> dict[str, argparse.ArgumentParser]:
    (action,) = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


def examples() -> list[str]:
    """Every line that a verb's help shows as an example."""
    lines = [line.strip() for p in verbs().values() for line in (p.epilog or "").splitlines()[1:]]
    assert len({line.split()[1] for line in lines if line.startswith("pictura ")}) == len(verbs())
    return lines


def words_of(example: str) -> list[str]:
    """What comes after `pictura`."""
    words = shlex.split(example)
    return words[words.index("pictura") + 1 :]


@pytest.fixture
def place(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name: a trained model, pictures, labels. We are in it."""
    shutil.copytree(trained, tmp_path / "runs" / "demo")
    scenes = ScenesConfig(count=51, image_size=16, seed=5).build()
    for index, name in enumerate(("a.png", "more/b.png", "more/deep/c.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        image = scenes[index]["image"]
        assert isinstance(image, np.ndarray)
        Image.fromarray(image).save(tmp_path / name)
    shutil.copytree(trained / "model", tmp_path / "runs" / "other" / "model")
    for number, example in enumerate(map(scenes.__getitem__, range(3, 51))):
        image, part = example["image"], "train" if number < 36 else "test"
        path = tmp_path / "kinds" / part / ("red star", "blue ring")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(image, np.ndarray)
        Image.fromarray(image).save(path)
    (tmp_path / "labels.txt").write_text("red star\n\nblue ring\n")
    write_tiny(tmp_path, RETRIEVAL)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Help


@pytest.mark.parametrize("example", examples())
def test_every_example_is_understood(example: str) -> None:
    assert callable(parse(words_of(example)).verb)


@pytest.mark.parametrize("example", [e for e in examples() if re.search(r"pictura (classify|embed|list)", e)])
def test_the_examples_that_are_cheap_run(example: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words_of(example)) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("example", [e for e in examples() if re.search(r"pictura (train|plan) demo", e)])
def test_the_recipes_of_the_examples_fit_together(example: str) -> None:
    """The warm-up fits into the steps, for one."""
    arguments = parse(words_of(example))
    recipe = read_recipe(arguments.recipe, arguments.overrides)
    assert callable(recipe.schedule.build(recipe.training.steps))


@pytest.mark.slow
@pytest.mark.parametrize("example", [e for e in examples() if re.search(r"pictura (train|plan|evaluate)", e)])
def test_the_dear_ones_run_too(example: str, place: Path) -> None:
    if "--resume" in example:
        shutil.copytree("runs/demo", "runs/short")
    words = shlex.split(example)
    program = {"pictura": command(), "torchrun": [sys.executable, "-m", "torch.distributed.run"]}[words[0]]
    # twenty steps are run as they stand; a whole demo is made short
    small = ["data.count=2000", "training.steps=20", "schedule.warmup=5"] if "torchrun" in example else []
    done = subprocess.run(
        [*program, *words[1:], *small],
        env=environment(),
        cwd=place,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", ["", *verbs()])
def test_help_is_immediate(verb: str) -> None:
    """It imports nothing heavy: half a second is torch alone."""
    code = (
        "import sys, pictura.cli\n"
        "try: pictura.cli.main(sys.argv[1:])\n"
        "except SystemExit as left: assert left.code == 0\n"
        "heavy = {'torch', 'numpy', 'PIL', 'rich', 'yaml', 'pictura.run'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *verb.split(), "-h"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "example" in done.stdout


def test_python_m_pictura() -> None:
    done = pictura("--version")
    assert (done.returncode, done.stdout) == (0, f"pictura {cli.__version__}\n")


def test_words_may_stand_on_either_side_of_options() -> None:
    wanted = ["seed=1", "seed=2"]
    assert parse(["train", "demo", *wanted, "--out", "x"]).overrides == wanted
    assert parse(["train", "demo", "--out", "x", *wanted]).overrides == wanted
    assert parse(["train", "demo", "seed=1", "--out", "x", "seed=2"]).overrides == wanted
    assert parse(["embed", "model", "--out", "x", "a.png", "b.png"]).images == ["a.png", "b.png"]


# Answers


def test_classify(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "runs/demo/model", "a.png", "more", "--labels", "red star,[blue] ring"]) == 0
    told = capsys.readouterr()
    lines = [line.split() for line in told.out.splitlines() if line.strip()]
    assert [line[0] for line in lines[::2]] == ["a.png", "more/b.png", "more/deep/c.png"]
    assert "[blue] ring" in told.out, "a label in brackets is no colour of the table"
    shares = [float(word.rstrip("%")) for line in lines for word in line if word.endswith("%")]
    assert len(shares) == 6
    assert all(first >= second for first, second in zip(shares[::2], shares[1::2], strict=True))


def test_classify_in_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "runs/demo/model", "a.png", "--labels", "labels.txt", "--json"]) == 0
    told = capsys.readouterr()
    answer = json.loads(told.out)
    assert answer.keys() == {"a.png"}
    assert answer["a.png"].keys() == {"red star", "blue ring"}
    assert sum(answer["a.png"].values()) == pytest.approx(1)
    assert "a.png" in told.err, "the table is for people, beside"


def test_embed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "runs/demo/model", "more", "a.png", "--out", "v.npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": "v.npy", "names": "v.txt", "shape": [3, 16]}
    vectors = np.load("v.npy")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert Path("v.txt").read_text().splitlines() == ["more/b.png", "more/deep/c.png", "a.png"]
    assert main(["embed", "runs/demo/model", "--texts", "labels.txt", "--out", "t.npy"]) == 0
    assert np.load("t.npy").shape == (2, 16)
    assert Path("t.txt").read_text().splitlines() == ["red star", "blue ring"]
    assert [p.name for p in place.iterdir() if p.name.startswith(".")] == []


def test_embed_layers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "runs/demo/model", "more", "a.png", "--layers=-1,0", "--out", "v.npy", "--json"]) == 0
    layers = {n: {"path": f"v.layer{n}.npy", "shape": [3, 32]} for n in ("-1", "0")}
    assert json.loads(capsys.readouterr().out) == {"names": "v.txt", "layers": layers}
    last, first = (np.load(layers[n]["path"]) for n in ("-1", "0"))
    assert last.dtype == np.float32 and not np.allclose(last, first)
    assert not Path("v.npy").exists(), "what the model ends with was not asked for"
    assert Path("v.txt").read_text().splitlines() == ["more/b.png", "more/deep/c.png", "a.png"]


@pytest.fixture
def classifier(place: Path) -> Path:
    """The folder of a model that has classes and reads no texts."""
    torch.manual_seed(0)
    tower = ViTConfig(image_size=16, patch_size=8, width=32, depth=2, heads=2)
    model = ClassifierConfig(image=tower, classes=3, class_names=("star", "ring", "cross")).build()
    assert model.head is not None
    torch.nn.init.normal_(model.head.weight)
    save_folder(place / "classifier", model, None)
    return place / "classifier"


def test_a_classifier_needs_no_labels(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "classifier", "a.png", "more", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer.keys() == {"a.png", "more/b.png", "more/deep/c.png"}
    for shares in answer.values():
        assert shares.keys() == {"star", "ring", "cross"}
        assert sum(shares.values()) == pytest.approx(1)
    assert main(["embed", "classifier", "a.png", "--out", "v.npy"]) == 0
    assert np.load("v.npy").shape == (1, 32)


def test_a_classifier_reads_no_texts(classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = fails(["classify", "classifier", "a.png", "--labels", "star,ring"], capsys)
    assert told == "pictura classify: labels: this model reads no texts; leave them out, and its own head answers"
    told = fails(["embed", "classifier", "--texts", "labels.txt", "--out", "t.npy"], capsys)
    assert told == "pictura embed: this model has no tokenizer, so it cannot read texts"


def test_evaluate(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the same data it finds what the run itself found, to the last digit."""
    assert main(["evaluate", "runs/demo/model", "--on", "tiny.yaml", "--report", "page.html", "--json"]) == 0
    told = capsys.readouterr()
    kept = json.loads(Path("runs/demo/results.json").read_text())
    assert json.loads(told.out) == {name: value for name, value in kept.items() if name.startswith("retrieval/")}
    assert "report: page.html" in told.err
    assert "nearest captions" in Path("page.html").read_text()


def test_train_in_json(place: Path) -> None:
    """In a process of its own: what others write to stdout would show."""
    done = pictura("train", "tiny.yaml", "--out", "runs/new", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert {"loss", "retrieval/image_to_text/R@1"} <= json.loads(line).keys()
    assert "train 20/20" in done.stderr
    assert "report: runs/new/report.html" in done.stderr


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "models", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    b32 = models["clip ViT-B/32"]
    assert b32["parameters"] == 151_277_313  # openai/CLIP's, by the sum of its state dict
    assert b32["gflops"] == pytest.approx(
        14.8, rel=0.1
    )  # open_clip's docs/model_profile.csv, without our shorter last blocks
    assert "Radford et al." in b32["source"]
    assert main(["list", "models"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "ViT-B/32" in line)
    assert re.split(r"  +", line.strip()) == [
        "clip ViT-B/32",
        "151 million",
        f"{b32['gflops']:.3g}",
        "Radford et al. 2021",
    ]
    assert main(["list", "data", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["sidecar"].startswith("pictures with a text file of the same name")
    assert all(10 < len(words) < 200 for words in data.values()), data
    assert main(["list", "recipes"]) == 0
    assert "demo" in capsys.readouterr().out


def test_plan(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "tiny.yaml"]) == 0
    table = capsys.readouterr().out
    for words in ("parameters", "GFLOPs", "epochs", "GiB", "ms", "for the whole run"):
        assert words in table
    assert main(["plan", "tiny.yaml", "training.steps=250", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["steps"] == 250
    assert facts["epochs"] == pytest.approx(250 / 12)  # 200 examples are 12 whole batches of 16
    assert facts["hours"] == pytest.approx(250 * facts["seconds_per_step"] / 3600)
    assert set(place.iterdir()) == {place / n for n in ("runs", "a.png", "more", "kinds", "labels.txt", "tiny.yaml")}


def test_demo(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its story, without its length: `runs/demo` is taken, so it goes beside; and the object that --json promises."""
    small = ["training.steps=5", "loader.batch_size=8", "schedule.warmup=0", "data.count=300"]
    small += [f"evaluation.{name}.data.count=20" for name in ("shape", "colour", "seen", "heldout", "retrieval")]
    small += ["model.image.depth=1", "model.text.depth=1"]
    assert main(["demo", *small, "--json"]) == 0
    told = capsys.readouterr()
    answer = json.loads(told.out.splitlines()[-1])
    assert {
        *("zeroshot/shape/top1", "zeroshot/colour/top1", "zeroshot/heldout/top1"),
        *("retrieval/image_to_text/R@1", "retrieval/text_to_image/R@1", "seconds"),
    } <= answer.keys()
    assert "no labels" in told.err.splitlines()[0]
    assert "never seen in training" in told.err
    assert "report: runs/demo-2/report.html" in told.err
    assert Path("runs/demo-2/model/model.safetensors").exists()


# A user's mistakes: exit code 2, and one line that says what to do


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line."""
    capsys.readouterr()
    try:
        code = main(words)
    except SystemExit as left:  # argparse
        code = int(left.code or 0)
    told = capsys.readouterr()
    assert code == 2
    assert told.out == ""
    lines = [line for line in told.err.splitlines() if not line.startswith("train ")]  # how far it came
    (line,) = lines
    return line


TRAIN = "train tiny.yaml --out runs/new"
CLASSIFY = "classify runs/demo/model a.png --labels"
MISTAKES: dict[str, tuple[str, str]] = {
    "no verb": ("", r"pictura: the following arguments are required: verb; see pictura -h"),
    "unknown verb": ("trian", r"argument verb: invalid choice: 'trian' \(choose from"),
    "unknown option": ("train tiny.yaml --ouut x", r"train does not know --ouut x"),
    "too many words": ("list models now", r"list does not know now"),
    "no recipe": ("train", r"pictura train: give a recipe \(pictura list recipes\), or --resume RUN"),
    "unknown recipe": ("train demoo", r"recipe demoo: no \.yaml file.*did you mean demo\?"),
    "no such file": ("train tni.yaml", r"tni\.yaml: no such file or directory; beside it: .*tiny\.yaml"),
    "a run for a recipe": ("train runs/demo", r"it is a run: go on with it by --resume runs/demo"),
    "not YAML": ("train broken.yaml", r"broken\.yaml: "),
    "typo in a key": (f"{TRAIN} model.image.pach_size=8", r"model\.image\.pach_size: no such key; did you mean"),
    "wrong type": (f"{TRAIN} training.steps=many", r"training\.steps: expected int, got 'many' \(str\)"),
    "no key": (f"{TRAIN} many", r"override 'many': expected key=value"),
    "does not divide": (f"{TRAIN} model.image.patch_size=7", r"model\.image\.image_size: 16 is no multiple of"),
    "neither model nor initial": (f"{TRAIN} model=null", r"model: missing; only a run that begins with an `initial`"),
    "initial is no model": (f"{TRAIN} initial=more tokenizer=null", r"more: not a model folder: it has no config"),
    "initial and a tokenizer": (f"{TRAIN} initial=runs/demo/model", r"tokenizer: given beside `initial`.*leave it out"),
    "initial does not fit": (
        f"{TRAIN} initial=runs/demo/model tokenizer=null model.text.vocab_size=9",
        r"model: the weights of runs/demo/model do not fit \(of another shape: text\.token_embedding\.weight",
    ),
    "two sizes": (f"{TRAIN} view.image_size=24", r"view\.image_size: 24, but model\.image\.image_size is 16; give"),
    "run folder taken": (
        "train tiny.yaml --out runs/demo",
        r"runs/demo: holds a run already; go on with it by --resume runs/demo, or choose another --out",
    ),
    "run folder of others": ("train tiny.yaml --out more", r"more: holds other things \(b\.png, deep\)"),
    "run folder is a file": ("train tiny.yaml --out a.png", r"a\.png: is a file; choose another --out"),
    "run folder in a file": ("train tiny.yaml --out a.png/b", r"a\.png/b: .*a\.png does not let this user write there"),
    "data is not there": (
        f"{TRAIN} 'data={{kind: sidecar, path: photoz}}' view.kind=random_crop",
        r"photoz: no such folder",
    ),
    "data gives too little": (
        f"{TRAIN} 'data={{kind: folder, path: classes}}' tokenizer.kind=file tokenizer.path=runs/demo "
        "'view={kind: crop, image_size: 16}'",
        r"objectives\.clip: needs captions of every example, but this data \(folder\) gives image, label; "
        r"kinds of data that can give captions: .*coco.*sidecar.*table",
    ),
    "batch too large": (f"{TRAIN} loader.batch_size=201", r"loader\.batch_size: 201 is more than the 200 examples"),
    "warm-up too long": (f"{TRAIN} schedule.warmup=20", r"warmup: 20 steps do not fit into a run of 20"),
    "no such part": (f"{TRAIN} training.freeze=[picture]", r"training\.freeze: the model has no part picture"),
    "the rate": (
        f"{TRAIN} optimizer.lr=1e30",
        r"step \d+: .*(loss is|not finite).*in the batch of train-\d+, .*there is no checkpoint yet.*A lower optim",
    ),
    "resume nothing": ("train --resume runs/none", r"runs/none: there is no run here to resume"),
    "resume and a recipe": ("train tiny.yaml --resume runs/demo", r"goes on with a run's own recipe: tiny\.yaml is"),
    "resume elsewhere": ("train --resume runs/demo --out x", r"leave --out out"),
    "resume another model": (
        "train --resume runs/demo training.steps=30 model.embed_dim=8",
        r"step-000020: .*resume with the recipe it was trained with",
    ),
    "no model": ("classify runs/none/model a.png --labels a,b", r"none/model: there is no such folder; give the path"),
    "a run for a model": ("classify runs/demo a.png --labels a,b", r"its model is in runs/demo/model"),
    "broken weights": ("classify broken a.png --labels a,b", r"broken/model\.safetensors: damaged or cut short"),
    "not a picture": ("classify runs/demo/model labels.txt --labels a,b", r"labels\.txt: not a picture"),
    "no picture": ("classify runs/demo/model z.png --labels a,b", r"z\.png: No such file or directory"),
    "no pictures": ("classify runs/demo/model empty --labels a,b", r"empty: there is no picture in this folder"),
    "one label": (f"{CLASSIFY} star", r"--labels: star is no text file, and not several"),
    "one label and a comma": (f"{CLASSIFY} star,", r"labels: at least two.*got star"),
    "labels twice": (f"{CLASSIFY} a,a", r"at least two different ones.*got a, a"),
    "labels that are no text": (f"{CLASSIFY} a.png", r"a\.png: not UTF-8 text \(byte 0\)"),
    "no slot": (f"{CLASSIFY} a,b --templates 'a photo'", r"no \{\} where"),
    "top": (f"{CLASSIFY} a,b --top 0", r"--top: 0 shows nothing"),
    "embed nothing": ("embed runs/demo/model --out v.npy", r"give picture files, or --texts FILE: one of the two"),
    "embed both": ("embed runs/demo/model a.png --texts labels.txt --out v.npy", r"one of the two"),
    "embed into nowhere": ("embed runs/demo/model a.png --out no/v.npy", r"--out no/v\.npy: there is no folder no;"),
    "embed into a folder": ("embed runs/demo/model a.png --out more", r"--out more: is a folder; give"),
    "layers of texts": (
        "embed runs/demo/model --texts labels.txt --layers 0 --out v.npy",
        r"--layers: they are of the picture tower",
    ),
    "layers that are no numbers": ("embed runs/demo/model a.png --layers 0,x --out v.npy", r"--layers: 0,x is no list"),
    "a layer twice": ("embed runs/demo/model a.png --layers 1,01 --out v.npy", r"--layers: 1,01 is no list of"),
    "no such layer": ("embed runs/demo/model a.png --layers 2 --out v.npy", r"layer 2: .*has 2 layers: 0 to 1, or -2"),
    "no labels and no head": ("classify runs/demo/model a.png", r"this model \(clip\) has no head.*give labels"),
    "report into nowhere": ("evaluate runs/demo/model --on tiny.yaml --report no/r.html", r"no/r\.html: there is no"),
    "texts not there": ("embed runs/demo/model --texts no.txt --out v.npy", r"no\.txt: No such file"),
    "texts empty": ("embed runs/demo/model --texts blank.txt --out v.npy", r"blank\.txt: has no lines"),
    "nothing to evaluate": (
        "evaluate runs/demo/model --on tiny.yaml evaluation.retrieval=null",
        r"this recipe has no `evaluation`; add one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("runs/demo/model", "broken")
    (place / "broken" / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    (place / "broken.yaml").write_text("a: [1\nb: 2")
    (place / "blank.txt").write_text("\n \n")
    (place / "empty").mkdir()
    (place / "classes" / "stars").mkdir(parents=True)
    shutil.copy("a.png", "classes/stars")
    words, wanted = MISTAKES[name]
    assert re.search(wanted, fails(shlex.split(words), capsys))
    if words.startswith("train") and "1e30" not in words:
        assert not Path("runs/new").exists(), "it leaves nothing behind"


def test_a_loss_that_is_no_number_names_the_last_checkpoint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a good run on, at a rate that nothing survives: what was there before is whole."""
    kept = Path("runs/demo/checkpoints/step-000020/checkpoint.json").read_text()
    words = ["train", "--resume", "runs/demo", "training.steps=40", "optimizer.lr=1e30", "training.save_every=100"]
    capsys.readouterr()
    assert main(words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.search(
        r"pictura train: step 2\d: .* the last good checkpoint is runs/demo/checkpoints/step-000020\. A", line
    )
    assert Path("runs/demo/checkpoints/step-000020/checkpoint.json").read_text() == kept


def test_a_run_folder_that_cannot_be_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Root may write everywhere, so for a while we are nobody."""
    locked = place / "locked"
    locked.mkdir(mode=0o555)
    for path in (place, *place.parents[:3]):
        path.chmod(path.stat().st_mode | 0o055)  # pytest's own folders are for their owner only
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        line = fails(["train", "tiny.yaml", "--out", "locked/run"], capsys)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    assert re.search(r"locked/run: (.*locked does not let this user write there|Permission denied)", line)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte. Only root can make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this user cannot mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk(small_disk: Path, place: Path) -> None:
    """In a process of its own: a checkpoint fits, then no more. One line; the checkpoint before is whole; with space
    again, the run goes on."""
    run = small_disk / "run"
    words: list[str | Path] = ["train", "tiny.yaml", "--out", run, "training.keep_last=9", "training.save_every=1"]
    done = pictura(*words, cwd=place)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert re.search(
        r"(checkpoints: step \d+ could not be written|metrics\.jsonl: cannot be written) \(No space left", last
    )
    kept = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    assert kept
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    done = pictura("train", "--resume", run, cwd=place)
    assert done.returncode == 0, done.stderr
    assert f"going on after step {int(kept[-1][-6:])} of 20" in done.stderr


def test_a_disk_that_is_full_from_the_start(small_disk: Path, place: Path) -> None:
    (small_disk / "filler").write_bytes(b"\0" * (2**20 - 4096))
    done = pictura("train", "tiny.yaml", "--out", small_disk / "run", cwd=place)
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# Our mistakes: the traceback, and exit code 1


BUGS: dict[str, Callable[[], Any]] = {
    "torch": lambda: torch.testing.assert_close("a", object()),
    "numpy": lambda: np.zeros(3).reshape(2, 2),
    "python": lambda: int("many"),
    "zip": lambda: list(zip([1], [1, 2], strict=True)),
    "arithmetic": lambda: 1 // 0,
    "standard library": lambda: json.loads("{"),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_of_ours_is_shown_whole(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever finds it, even where it happens to be a ValueError."""
    monkeypatch.setattr(classify, "bar", lambda share: BUGS[name]())
    with pytest.raises((ValueError, ArithmeticError, TypeError)):
        main(["classify", "runs/demo/model", "a.png", "--labels", "a,b"])


def test_builtins_that_fail_in_our_own_lines_are_bugs() -> None:
    """`int("x")` fails inside our file, without a `raise` of ours."""
    namespace: dict[str, Any] = {}
    source = """
def told():
    raise ValueError("x: cannot be")
def bug():
    return int("x")
def wrapped():
    with open("/dev/null"):
        told()
"""
    exec(compile(source, str(Path(cli.__file__).with_name("imagined.py")), "exec"), namespace)
    for name, wanted in {"told": True, "bug": False, "wrapped": True}.items():
        with pytest.raises(ValueError) as caught:
            namespace[name]()
        assert mendable(caught.value) is wanted, name
    with pytest.raises(ValueError) as caught:
        raise ValueError("raised, but not in this package")
    assert not mendable(caught.value)


def test_a_bug_ends_the_process_with_its_traceback(place: Path) -> None:
    code = (
        "import sys, pictura.run\n"
        "from pictura.cli import main\n"
        "pictura.run.free = lambda path: 1 // 0\n"
        "sys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr and "ZeroDivisionError" in done.stderr


def test_ctrl_c_outside_of_training(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(share: float) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(classify, "bar", interrupted)
    assert main(["classify", "runs/demo/model", "a.png", "--labels", "a,b"]) == 130
    assert capsys.readouterr().err == "pictura classify: interrupted\n"
