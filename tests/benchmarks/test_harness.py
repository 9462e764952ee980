"""The harness: two processes in turn, the arithmetic of a result, what is kept, and the tables written from it."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import measure, report
from benchmarks.harness import ROOT, BenchmarkError, Case, Worker, compare, find_cases

HERE = Path(__file__).parent
KEYS = {
    "name", "case", "ours", "peer", "peer_name", "peer_setting", "unit", "ratio", "share_of_peak", "peak_rss_mib",
    "runs", "machine", "date",
}  # fmt: skip
QUICK = {"runs": 1, "seconds": 0.01}


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> dict[str, Case]:
    """The toy cases by name, importable here and in worker processes."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    return {case.case: case for case in importlib.import_module("toy_cases").CASES}


def result(**changes: Any) -> dict[str, Any]:
    """A result as `compare` makes it."""
    plain = {
        "name": "toy", "case": "rate", "ours": 4000.0, "peer": 1000.0, "peer_name": "nobody", "peer_setting": "idle",
        "unit": "numbers/s", "ratio": 4.0, "share_of_peak": 0.5, "peak_rss_mib": {"ours": 10, "peer": 2000}, "runs": 5,
        "device": "cpu", "machine": "abacus", "versions": {"nobody": "1.2"}, "date": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip
    return plain | changes


# Two processes


def test_result_has_the_designs_keys_and_is_json(toys: dict[str, Case]) -> None:
    answer = compare(toys["rate"], runs=2, seconds=0.01)
    assert set(answer) >= KEYS
    assert json.loads(json.dumps(answer)) == answer
    assert (answer["name"], answer["case"], answer["unit"], answer["runs"]) == ("toy", "rate", "numbers/s", 2)
    assert len(answer["ours_runs"]) == len(answer["peer_runs"]) == 2
    assert answer["ours"] > 0
    assert answer["disagreement"] == 0
    assert answer["share_of_peak"] is None  # the toy counts no FLOPs


def test_a_side_stays_in_one_process_and_builds_once(toys: dict[str, Case]) -> None:
    worker = Worker(toys["rate"], "ours", "cpu")
    try:
        worker.ask("build")
        answers = [worker.ask("measure", seconds=0.0) for _ in range(2)]
    finally:
        worker.close()
    assert worker.process.returncode == 0
    assert [answer["first"] for answer in answers] == [[499500.0]] * 2


def test_memory_is_measured_in_fresh_processes(toys: dict[str, Case]) -> None:
    answer = compare(toys["hold"], runs=2)
    assert answer["unit"] == "MiB"
    for side, size in (("ours", 16), ("peer", 64)):
        assert all(abs(value - size) < 4 for value in answer[f"{side}_runs"])
    assert 3 < answer["ratio"] < 6


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("disagrees", "toy disagrees: first results differ by 0.0099"),
        ("nan", "toy nan: first results differ by nan"),
        ("raises", "toy raises, peer: ValueError: no such setting"),
        ("dies", "toy dies, peer: its process ended with code 3 at `build`"),
    ],
)
def test_failures_say_which_side_and_why(toys: dict[str, Case], case: str, message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        compare(toys[case], **QUICK)


# Arithmetic


def canned(monkeypatch: pytest.MonkeyPatch, ours: list[float], peer: list[float], **more: Any) -> None:
    """Let the processes have answered these values."""
    common = {"memory": 1.0, "first": None, "idle": 0.0, "device_name": "", "threads": 1, "versions": {}, "flops": 0.0}

    def turns(*_: object) -> Iterator[tuple[str, dict[str, Any]]]:
        for a, b in zip(ours, peer, strict=True):
            yield "ours", common | {"value": a} | more
            yield "peer", common | {"value": b}

    monkeypatch.setattr("benchmarks.harness._turns", turns)


def test_more_per_second_is_better(monkeypatch: pytest.MonkeyPatch, toys: dict[str, Case]) -> None:
    monkeypatch.setattr("benchmarks.harness._disagreement", lambda *_: 0.0)
    canned(monkeypatch, [300, 900, 600], [100, 300, 200])
    answer = compare(toys["rate"])
    assert (answer["ours"], answer["peer"], answer["ratio"]) == (600, 200, 3)


def test_fewer_milliseconds_are_better(monkeypatch: pytest.MonkeyPatch, toys: dict[str, Case]) -> None:
    canned(monkeypatch, [10, 30, 20], [80, 10, 40])
    answer = compare(toys["milliseconds"])
    assert (answer["ours"], answer["peer"], answer["ratio"]) == (20, 40, 2)


def test_share_of_peak(monkeypatch: pytest.MonkeyPatch, toys: dict[str, Case]) -> None:
    canned(monkeypatch, [20, 20], [20, 20], flops=3e9, peak=600e9)
    assert compare(toys["milliseconds"])["share_of_peak"] == pytest.approx(3e9 / 20e-3 / 600e9)


def test_a_waiting_process_that_works_is_reported(
    monkeypatch: pytest.MonkeyPatch, toys: dict[str, Case], capsys: pytest.CaptureFixture[str]
) -> None:
    canned(monkeypatch, [20], [20], idle=0.9)
    compare(toys["milliseconds"])
    assert "a waiting process used 90% of a core" in capsys.readouterr().err


def test_rounds_that_differ_much_are_reported(
    monkeypatch: pytest.MonkeyPatch, toys: dict[str, Case], capsys: pytest.CaptureFixture[str]
) -> None:
    canned(monkeypatch, [20, 21], [20, 50])
    compare(toys["milliseconds"])
    err = capsys.readouterr().err
    assert "peer differed by 2.5 times between rounds" in err
    assert "ours differed" not in err


def test_matmul_peak_is_a_speed() -> None:
    pytest.importorskip("torch")
    peak = measure.matmul_peak("cpu", "float32", sizes=(32, 64), seconds=0.01)
    assert 0 < peak < math.inf


# The command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, toys: dict[str, Case], tmp_path: Path) -> Any:
    """`main` over the toy cases, quick, keeping runs in a folder of its own."""
    monkeypatch.setattr(command, "find_cases", lambda: list(toys.values()))
    return lambda *arguments: command.main([*arguments, "--results", str(tmp_path / "results"), "--seconds", "0.01"])


def test_json_lines_are_printed_and_kept(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("toy", "--case", "rate", "--runs", "1", "--json") == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert report.read(tmp_path / "results") == printed
    assert run("toy", "--case", "rate", "--runs", "1", "--no-keep") == 0
    assert "nobody" in capsys.readouterr().out
    assert len(report.read(tmp_path / "results")) == 1


def test_one_failure_does_not_stop_the_others(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("toy", "--case", "raises", "--case", "milliseconds", "--runs", "1", "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["case"] == "milliseconds"
    assert "no such setting" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toi"], "toi: no such benchmark; did you mean toy?"),
        (["toy", "--case", "hold"], "hold: no such case"),
        (["toy", "--runs", "0"], "--runs 0: give at least 1"),
        ([], "name a benchmark"),
    ],
)
def test_mistakes_are_told_in_one_line(
    run: Any, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_opt_in_cases_run_only_by_name(toys: dict[str, Case]) -> None:
    cases = list(toys.values())
    assert toys["milliseconds"] not in command.choose(cases, ["toy"], [])
    assert command.choose(cases, ["toy"], ["milliseconds"]) == [toys["milliseconds"]]


# What is kept, and the page


def test_tables_show_the_last_run_of_each_case_on_each_machine(tmp_path: Path) -> None:
    for ratio, machine in ((2.0, "abacus"), (7.0, "loom"), (3.5, "abacus")):
        report.keep(result(ratio=ratio, machine=machine), tmp_path)
    text = report.tables(report.read(tmp_path))
    assert text.count("### ") == 2
    assert "**3.50 ×**" in text
    assert "**7.00 ×**" in text
    assert "2.00" not in text
    assert "| `toy` | rate | 4,000 | 1,000 | numbers/s | **7.00 ×** | 50% | 10 / 2,000 | 5 | 2026-01-02 |" in text
    assert "- `toy` rate: nobody 1.2, idle" in text


def test_write_docs_replaces_what_is_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Before\n\n{report.BEGIN}\nold\n{report.END}\n\nAfter\n", encoding="utf-8")
    report.keep(result(), tmp_path)
    report.write_docs(page, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# Before\n\n{report.BEGIN}\n\n### abacus\n")
    assert text.endswith(f"{report.END}\n\nAfter\n")
    assert "old" not in text
    report.write_docs(page, tmp_path)
    assert page.read_text(encoding="utf-8") == text


def test_write_docs_wants_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("# Nothing here\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected the lines"):
        report.write_docs(page, tmp_path)


def test_the_page_has_its_markers() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    assert text.count(report.BEGIN) == text.count(report.END) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.0123"), (4.567, "4.57"), (12.34, "12.3"), (8191.6, "8,192"), (0.0, "0"), (math.inf, "inf")],
)
def test_number(value: float, text: str) -> None:
    assert report.number(value) == text


# The real cases


def test_names() -> None:
    names = {case.name for case in find_cases()}
    assert names >= {"import_time", "clip_train_step", "clip_embed_images", "clip_embed_texts", "contrastive_memory"}


def test_cases_are_told_apart_and_found_by_a_worker() -> None:
    cases = find_cases()
    assert len({(case.name, case.case) for case in cases}) == len(cases)
    for case in cases:
        assert case in importlib.import_module(type(case).__module__).CASES


def test_listing_does_not_import_torch() -> None:
    code = "import sys; from benchmarks.harness import find_cases; find_cases(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"clip_train_step", "import_time"} <= {row["name"] for row in rows}
    assert all(row["peer_setting"] for row in rows)
