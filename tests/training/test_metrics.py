"""metrics.jsonl stays valid JSON without doubled or torn lines, and TensorBoard holds the same numbers."""

import json
import math
import os
import resource
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pictura.training import metrics
from pictura.training.metrics import MetricsLog, json_ready, read_metrics


def strict(path: Path) -> list[dict[str, Any]]:
    """As a reader that knows only the JSON standard sees the file."""

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_a_line_for_each_write_with_the_step_first(tmp_path: Path) -> None:
    with MetricsLog(tmp_path / "run", tensorboard=False) as log:
        log.write(1, {"clip/loss": torch.tensor(0.5, requires_grad=True), "lr": 1e-3})
        assert len(strict(log.path)) == 1  # there before the file is closed
        log.write(2, {"clip/loss": 0.25, "seen": 7, "note": "Bäume"})
    assert strict(log.path) == [
        {"step": 1, "clip/loss": 0.5, "lr": 1e-3},
        {"step": 2, "clip/loss": 0.25, "seen": 7, "note": "Bäume"},
    ]
    assert all(line.startswith('{"step": ') for line in log.path.read_text().splitlines())


def test_what_is_not_finite_is_written_as_words_that_float_reads(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(3, {"a": float("nan"), "b": torch.tensor(float("inf")), "c": -math.inf})
    (line,) = strict(log.path)
    assert line == {"step": 3, "a": "NaN", "b": "Infinity", "c": "-Infinity"}
    assert math.isnan(float(line["a"])) and float(line["b"]) == math.inf and float(line["c"]) == -math.inf


def test_bfloat16_is_written_as_it_is() -> None:
    assert json_ready({"x": torch.tensor(0.1, dtype=torch.bfloat16)}) == {"x": 0.10009765625}


def test_resuming_drops_what_comes_again(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, tensorboard=False) as log:
        for step in (10, 20, 20, 30, 40):
            log.write(step, {"loss": step})
    with MetricsLog(tmp_path, resume=20, tensorboard=False) as log:
        log.write(30, {"loss": 31})
    assert [(line["step"], line["loss"]) for line in strict(log.path)] == [(10, 10), (20, 20), (20, 20), (30, 31)]
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_a_new_run_begins_anew(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(0, {"loss": 1})
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(0, {"loss": 2})
    assert strict(log.path) == [{"step": 0, "loss": 2}]


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"step": 3', '{"step": 3, "note": "\xc3', "{"])
def test_a_torn_last_line_is_dropped(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n' + torn.encode("latin-1"))
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    with MetricsLog(tmp_path, resume=5, tensorboard=False) as log:
        log.write(6, {})
    assert strict(path) == [{"step": 1}, {"step": 2}, {"step": 6}]


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl: line 1 has no step"):
        MetricsLog(tmp_path, resume=5, tensorboard=False)
    assert path.read_text() == '{"epoch": 1}\n'


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ValueError, match=r"run/metrics.jsonl: cannot be written \(.*\); free some space, or choose"):
        MetricsLog(tmp_path / "run")


def test_a_full_disk(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(1, {"loss": 1})
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 5, hard))
        try:
            with pytest.raises(ValueError, match=r"metrics.jsonl: cannot be written"):
                log.write(2, {"loss": 1})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_metrics(log.path) == [{"step": 1, "loss": 1}]


def test_tensorboard_holds_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"clip/loss": torch.tensor(1.0 / step), "note": "words are for the other file"})
    with MetricsLog(tmp_path, resume=2) as log:
        log.write(3, {"clip/loss": 0.25})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Tags()["scalars"] == ["clip/loss"]
    assert [(e.step, e.value) for e in events.Scalars("clip/loss")] == [(1, 1.0), (2, 0.5), (3, 0.25)]


def test_tensorboard_is_imported_only_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it is an error
    fresh = runpy.run_path(metrics.__file__)
    with fresh["MetricsLog"](tmp_path, tensorboard=False) as log:
        log.write(1, {"loss": 1.0})
    assert strict(log.path) == [{"step": 1, "loss": 1.0}]


def test_tensorboard_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="tensorboard: not installed; pip install tensorboard, or set it to false"):
        MetricsLog(tmp_path)
