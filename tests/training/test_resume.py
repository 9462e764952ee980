"""A run that is killed, at any instant, goes on to the same losses, bit for bit."""

import random
import shutil
import signal
import subprocess
import time
from functools import cache
from pathlib import Path

import pytest

from pictura.cli import main
from pictura.training.metrics import MetricsLog
from tests.tiny import RETRIEVAL, command, environment, losses, pictura, write_tiny

LONG = ("training.steps=60", "training.save_every=3", RETRIEVAL)
SETTINGS = {
    "plain": LONG,
    "everything": (
        *LONG,
        "model.image.dropout=0.1",
        "model.text.dropout=0.1",
        "model.image.patch_dropout=0.25",
        "training.ema=0.9",
        "training.precision=bf16",
        "training.micro_batch=8",
        "optimizer.kind=muon",
    ),
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> "cache[Path]":
    """name of the settings -> the folder of a run that nobody disturbed."""

    @cache
    def run(settings: str) -> Path:
        folder = tmp_path_factory.mktemp(settings)
        done = pictura("train", write_tiny(folder, *SETTINGS[settings]), "--out", folder / "run")
        assert done.returncode == 0, done.stderr
        assert len(losses(folder / "run")) == 60
        return folder / "run"

    return run


def killed(words: list[str | Path], run: Path, seconds: float) -> bool:
    """Start it, kill -9 it so many seconds after its run has begun; False if it was done before."""
    process = subprocess.Popen(command(*words), env=environment(), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run / "config.yaml").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(seconds)
    process.kill()
    told = process.communicate()[1]
    assert process.returncode in (0, -signal.SIGKILL), told
    return process.returncode != 0


def same(run: Path, reference: Path) -> None:
    """Every loss, and the model at the end."""
    assert losses(run) == losses(reference)
    weights = Path("model") / "model.safetensors"
    assert (run / weights).read_bytes() == (reference / weights).read_bytes()


def took(run: Path) -> float:
    """Seconds from the beginning of a run to its end."""
    return (run / "results.json").stat().st_mtime - (run / "config.yaml").stat().st_mtime


def test_killed_at_a_random_instant(uninterrupted: "cache[Path]", tmp_path: Path) -> None:
    reference = uninterrupted("everything")
    recipe = write_tiny(tmp_path, *SETTINGS["everything"], "loader.workers=1")  # the reference had none
    for _ in range(5):  # it may be quicker than the reference
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        if killed(["train", recipe, "--out", tmp_path / "run"], tmp_path / "run", random.uniform(0, took(reference))):
            break
    done = pictura("train", "--resume", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    same(tmp_path / "run", reference)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_killed_again_and_again(uninterrupted: "cache[Path]", tmp_path: Path, number: int) -> None:
    settings = ("plain", "everything")[number % 2]
    reference, run, chance = uninterrupted(settings), tmp_path / "run", random.Random(number + time.time_ns())
    recipe = write_tiny(tmp_path, *SETTINGS[settings], f"loader.workers={chance.randrange(3)}")
    words: list[str | Path] = ["train", recipe, "--out", run]
    for _ in range(3):
        # when it goes on, its first seconds are spent on importing and reading
        killed(words, run, chance.uniform(0, took(reference) + (0 if words[1] == recipe else 3)))
        words = ["train", "--resume", run, f"loader.workers={chance.randrange(3)}"]
    done = pictura(*words)
    assert done.returncode == 0, done.stderr
    same(run, reference)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop(
    tmp_path: Path,
    trained: Path,
    number: signal.Signals,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    one_thread: None,
) -> None:
    run, write = tmp_path / "run", MetricsLog.write

    def signalled(log: MetricsLog, step: int, metrics: dict[str, float]) -> None:
        write(log, step, metrics)
        if step == 6:
            signal.raise_signal(number)

    monkeypatch.setattr(MetricsLog, "write", signalled)
    assert main(["train", str(write_tiny(tmp_path, RETRIEVAL)), "--out", str(run)]) == code
    monkeypatch.undo()
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(
        f"stopped by {number.name} at step 7, checkpoint saved; go on with: pictura train --resume {run}"
    )
    assert list(losses(run)) == list(range(1, 8))
    assert not (run / "model").exists()
    assert main(["train", "--resume", str(run)]) == 0
    assert "going on after step 7 of 20" in capsys.readouterr().err
    same(run, trained)


def test_sigterm_from_outside(tmp_path: Path) -> None:
    """The process itself: its exit code, its last line, and no loader worker that stays or shouts."""
    run = tmp_path / "run"
    recipe = write_tiny(tmp_path, "training.steps=100000", "loader.workers=1")
    process = subprocess.Popen(
        command("train", recipe, "--out", run, "--json"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (run / "checkpoints").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert err.splitlines()[-1].endswith(f"go on with: pictura train --resume {run}")
    assert "Traceback" not in err
    assert out == ""


def test_killed_before_its_first_checkpoint(tmp_path: Path, trained: Path, one_thread: None) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "tokenizer.json"):
        shutil.copy(trained / name, run)
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 99.0}\n{"step": 2, "lo')
    (run / "checkpoints" / ".tmp-step-000005").mkdir(parents=True)
    assert main(["train", "--resume", str(run)]) == 0
    same(run, trained)
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")] == []


def test_killed_before_it_began(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to resume, which is said, and the same command begins again."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "tokenizer.json").write_text('{"half')
    (run / ".config.yaml.123").write_text("about: hal")
    assert main(["train", "--resume", str(run)]) == 2
    assert "no config.yaml); start one without --resume" in capsys.readouterr().err
    assert main(["train", str(write_tiny(tmp_path, RETRIEVAL)), "--out", str(run)]) == 0
    assert list(losses(run)) == list(losses(trained))


@pytest.mark.parametrize("lost", [("results.json",), ("results.json", "report.html", "model")])
def test_killed_between_the_last_checkpoint_and_the_results(
    tmp_path: Path, trained: Path, lost: tuple[str, ...], one_thread: None
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for name in lost:
        shutil.rmtree(run / name) if name == "model" else (run / name).unlink()
    assert main(["train", "--resume", str(run)]) == 0
    same(run, trained)
    assert (run / "results.json").read_text() == (trained / "results.json").read_text()
    assert "nearest captions" in (run / "report.html").read_text()


def test_a_finished_run_says_so_and_stays_as_it_is(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert main(["train", "--resume", str(run), "--json"]) == 0
    told = capsys.readouterr()
    assert "finished, all 20 steps are done; to train on, add training.steps=40" in told.err
    assert '"retrieval/image_to_text/R@1"' in told.out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_more_steps(tmp_path: Path, one_thread: None) -> None:
    """Where the rate does not depend on the number of steps, a longer run is the same as one planned so."""
    recipe = str(write_tiny(tmp_path, "schedule={kind: constant}"))
    short, long = tmp_path / "short", tmp_path / "long"
    assert main(["train", recipe, "training.steps=12", "--out", str(short)]) == 0
    assert main(["train", "--resume", str(short), "training.steps=17"]) == 0
    assert main(["train", recipe, "--out", str(long), "training.steps=17"]) == 0
    same(short, long)
    # and the change stays: resumed once more, it is finished
    assert main(["train", "--resume", str(short)]) == 0


def test_fewer_steps_than_are_done(tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    assert main(["train", "--resume", str(run), "training.steps=10"]) == 2
    assert "training.steps: 10 lies behind" in capsys.readouterr().err
    assert "steps: 20" in (run / "config.yaml").read_text()
