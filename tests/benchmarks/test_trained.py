import os
from pathlib import Path

import pytest

from benchmarks import trained
from benchmarks.trained import Run, kept, train_missing


def add_one(run: Run) -> Run:
    if run["number"] == 7:
        raise ValueError("seven")
    return {"more": run["number"] + 1, "process": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_missing_is_made_once_by_so_many_processes(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "RESULTS", tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = [{"number": number} for number in (1, 2)]
    train_missing("study", asked[:1], add_one, "more", 1e9, jobs)
    train_missing("study", asked, add_one, "more", 1e9, jobs)
    assert sorted((run["number"], run["more"]) for run in kept("study")) == [(1, 2), (2, 3)]
    processes = {run["process"] for run in kept("study")}
    assert (os.getpid() in processes) == (jobs == 1) and len(processes) == jobs
    train_missing("study", [{"number": 3}], add_one, "more", -1, jobs)
    assert len(kept("study")) == 2
    with pytest.raises(ValueError, match="seven"):
        train_missing("study", [{"number": 7}], add_one, "more", 1e9, jobs)
