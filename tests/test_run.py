"""From a recipe to a model folder, in Python, and in several processes."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import pictura
from pictura import run
from pictura.config import load
from pictura.data.scenes import ScenesConfig
from pictura.facts import number
from pictura.models.clip import CLIPConfig
from pictura.prepare import prepare
from pictura.recipe import Recipe, read_recipe
from tests.tiny import RETRIEVAL, environment, losses, tiny, with_torn_pictures, write_tiny

# What a run leaves


def test_the_folder_of_a_run(trained: Path) -> None:
    assert {path.name for path in trained.iterdir() if not path.name.startswith("events.out.tfevents")} == {
        *("config.yaml", "tokenizer.json", "metrics.jsonl", "checkpoints", "model", "report.html", "results.json")
    }
    recipe = load(Recipe, trained / "config.yaml")
    wanted = prepare(tiny(RETRIEVAL)).recipe
    assert recipe == wanted, "the resolved recipe, with the vocabulary that the tokenizer has"
    assert isinstance(recipe.model, CLIPConfig)
    assert recipe.model.text.vocab_size < 600 or recipe.model.text.end_token is not None
    results = json.loads((trained / "results.json").read_text())
    assert results["step"] == 20
    assert {"loss", "retrieval/text_to_image/R@1", "samples_per_second"} <= results.keys()


def test_the_model_classifies(trained: Path, tmp_path: Path) -> None:
    model = pictura.load(trained / "model", dtype=torch.float32)
    image = ScenesConfig(count=1, image_size=16).build()[0]["image"]
    assert isinstance(image, np.ndarray)
    Image.fromarray(image).save(tmp_path / "a.png")
    given: list[Any] = [image, str(tmp_path / "a.png"), tmp_path / "a.png", Image.fromarray(image)]
    answers = model.classify([*given, (tmp_path / "a.png").read_bytes()], ["red star", "blue ring", "grey cross"])
    assert len(answers) == 5
    for answer in answers:
        assert list(answer) == ["red star", "blue ring", "grey cross"]
        assert sum(answer.values()) == pytest.approx(1)
        assert answer == pytest.approx(answers[0])
    # and by hand
    vectors = model.embed_images(given[:1]) @ model.embed_texts(list(answers[0])).T
    scaled = np.exp(vectors[0] * np.exp(model.model.logit_scale.item()))
    np.testing.assert_allclose(list(answers[0].values()), scaled / scaled.sum(), rtol=1e-4)
    assert model.classify(given[:1], ["star", "ring"], templates=("a {}", "the {}"))[0].keys() == {"star", "ring"}


def test_a_run_is_a_function_of_its_recipe(trained: Path, tmp_path: Path, one_thread: None) -> None:
    torch.manual_seed(1234)
    run.train(tiny(RETRIEVAL), tmp_path / "again")
    assert losses(tmp_path / "again") == losses(trained)
    run.train(tiny(RETRIEVAL, "seed=1"), tmp_path / "other")
    assert losses(tmp_path / "other") != losses(trained)


# Beginning with a model that is there


def test_it_begins_with_the_weights_and_the_tokenizer_of_another(trained: Path) -> None:
    prepared = prepare(tiny(f"initial={trained / 'model'}", "model=null", "tokenizer=null", "seed=5"))
    stored = load_file(trained / "model" / "model.safetensors")
    for name, tensor in prepared.task.model.state_dict().items():
        assert torch.equal(tensor, stored[name]), name
    assert prepared.recipe.model == pictura.load(trained / "model").model.config
    texts = ["a red star", "something else"]
    assert torch.equal(prepared.tokenizer(texts), pictura.load(trained / "model").tokenizer(texts))


def test_what_has_no_weights_may_be_changed(trained: Path) -> None:
    model = load(CLIPConfig, trained / "model" / "config.yaml")
    changed = replace(model, image=replace(model.image, dropout=0.5))
    prepared = prepare(replace(tiny(f"initial={trained / 'model'}", "tokenizer=null"), model=changed))
    assert prepared.recipe.model == changed


def test_such_a_run_is_trained_and_resumed(trained: Path, tmp_path: Path, one_thread: None) -> None:
    recipe = tiny(f"initial={trained / 'model'}", "model=null", "tokenizer=null", "schedule={kind: constant}")
    whole, part = tmp_path / "whole", tmp_path / "part"
    run.train(recipe, whole)
    run.train(replace(recipe, training=replace(recipe.training, steps=10)), part)
    run.resume(part, ["training.steps=20"])
    assert losses(part) == losses(whole)
    (whole / "results.json").unlink()
    shutil.rmtree(whole / "checkpoints")  # as if it had been killed before its first checkpoint
    run.resume(whole)
    assert losses(whole) == losses(part)


# Small things


def test_the_demo_says_how_many_there_are() -> None:
    """Its table names numbers; they are those of its recipe."""
    evaluators = {name: config.build() for name, config in read_recipe("demo").evaluation.items()}
    for metric, words in run.DEMO.items():
        kind, _, rest = metric.partition("/")
        if kind == "zeroshot" and (numbers := [word for word in words.replace(",", "").split() if word.isdigit()]):
            assert numbers == [str(len(evaluators[rest.partition("/")[0]].names))], metric  # type: ignore[attr-defined]
        elif kind == "retrieval":
            assert words.endswith(f"among {len(evaluators['retrieval'].source)}")  # type: ignore[attr-defined]


def test_a_free_folder(tmp_path: Path) -> None:
    for wanted in ("demo", "demo-2", "demo-3"):
        path = run.free(tmp_path / "demo")
        assert path == tmp_path / wanted
        path.mkdir()


@pytest.mark.parametrize(("count", "words"), [(12, "12"), (151_277_313, "151 million"), (2.5e9, "2.5 billion")])
def test_numbers_in_words(count: float, words: str) -> None:
    assert number(count) == words


# Several processes


def together(place: Path, *words: str | Path, processes: int = 2) -> "subprocess.CompletedProcess[str]":
    """`torchrun -m pictura WORDS`."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*torchrun, "-m", "pictura", *map(str, words)]
    done = subprocess.run(
        command, env=environment(), cwd=place, capture_output=True, text=True, timeout=500, check=False
    )
    return done


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "close"), [("adamw", 1e-4), ("muon", 1e-3)])  # Muon in bf16
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_the_same_model(tmp_path: Path, parallel: str, optimizer: str, close: float) -> None:
    """Five steps in float32, an evaluation, a resumption, the model folder: as one process does it."""
    small = ("training.steps=5", "training.save_every=3", "training.ema=0.9", f"optimizer.kind={optimizer}")
    recipe = write_tiny(tmp_path, RETRIEVAL, *small, "training.evaluate_every=2", f"training.parallel={parallel}")
    done = together(tmp_path, "train", recipe, "--out", "two", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert done.stderr.count("report: two/report.html") == 1, "one of them talks"
    run.train(load(Recipe, recipe), tmp_path / "one")
    one, two = ({k: float(v) for k, v in losses(tmp_path / name).items()} for name in ("one", "two"))
    assert two == pytest.approx(one, rel=close)
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")]
    torch.testing.assert_close(*weights, rtol=close, atol=close)
    kept = json.loads((tmp_path / "one" / "results.json").read_text())
    for name, value in json.loads(line).items():
        if name.startswith("retrieval/"):
            assert value == pytest.approx(kept[name], abs=0.051), name  # a tie may fall the other way
    # go on from the checkpoint of step 3, with one process and with two
    for processes in (1, 2):
        copy = tmp_path / f"resumed-{processes}"
        shutil.copytree(tmp_path / "two", copy)
        shutil.rmtree(copy / "checkpoints" / "step-000005")
        (copy / "results.json").unlink()
        done = together(tmp_path, "train", "--resume", copy, processes=processes)
        assert done.returncode == 0, done.stderr
        assert "going on after step 3 of 5" in done.stderr
        again = load_file(copy / "model" / "model.safetensors")
        torch.testing.assert_close(again, weights[1], rtol=close, atol=close)


@pytest.mark.slow
def test_two_processes_bring_their_bad_samples_together(tmp_path: Path) -> None:
    """One tokenizer is learned and one evaluation made, for both."""
    changes = (with_torn_pictures(tmp_path), RETRIEVAL, "loader.max_bad=0.2", "loader.batch_size=8")
    recipe = write_tiny(tmp_path, *changes, "training.steps=10")
    done = together(tmp_path, "train", recipe, "--out", "two")
    assert done.returncode == 0, done.stderr
    assert "bad samples: 2 could not be used" in done.stderr
    page = (tmp_path / "two" / "report.html").read_text()
    assert "07" in page and "30" in page
    assert "retrieval/text_to_image/R@1" in json.loads((tmp_path / "two" / "results.json").read_text())


@pytest.mark.slow
def test_a_mistake_in_two_processes(tmp_path: Path) -> None:
    """Both leave with the one line, and neither waits for the other."""
    recipe = write_tiny(tmp_path)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "config.yaml").write_text("")
    done = together(tmp_path, "train", recipe, "--out", "two")
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("pictura train")]
    assert sorted(line.partition(": ")[0] for line in told) in (
        ["pictura train", "pictura train (process 1)"],
        ["pictura train"],  # torchrun ends the other as soon as one has left
        ["pictura train (process 1)"],
    )
    assert all("two: holds a run already" in line for line in told)
    assert "exitcode  : 2" in done.stderr
