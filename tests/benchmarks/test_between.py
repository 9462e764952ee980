"""The study of models between two: what is asked can be asked, and what the page says of it."""

from pathlib import Path

import pytest

from benchmarks import between
from pictura.config import load
from pictura.data.source import SourceConfig
from pictura.evaluation.base import EvaluatorConfig

STAMP = {"machine": "two cores", "seconds": 90.0, "date": "2026-11-23T00:00:00"}


@pytest.mark.parametrize("subject", between.SUBJECTS)
def test_what_is_learnt_and_asked_are_configurations(subject: str) -> None:
    about = between.SUBJECTS[subject]
    assert load(SourceConfig, about["data"]).kind == about["data"]["kind"]
    for name in ("known", "new"):
        assert load(EvaluatorConfig, {"kind": "zeroshot", "name": name} | about[name]).kind == "zeroshot"
    assert about["new"]["data"] not in (about["data"], about["data"].get("of")), "asked of what it learnt from"


def test_the_page_tells_what_was_measured(tmp_path: Path) -> None:
    shares = [i / 10 for i in range(11)]
    half = {end: dict.fromkeys(("known", "new"), (0.1, 0.05, 0.15)) for end in ("before", "tuned")}
    run = STAMP | {"top1": {"known": [0.9 - 0.1 * s for s in shares], "new": shares}, "half": half}
    text = between.page({"scenes": run})
    assert "| 0.5 | 85.0 % | 50.0 % |" in text and "| half, less the tuned model | +10.0 (+5.0 to +15.0) |" in text
    assert "100 steps" in text and "two cores, 2026-11-23" in text
    between.plot({"scenes": run}, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().count("<path") > 10
