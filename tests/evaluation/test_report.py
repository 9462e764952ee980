import math
import re
from pathlib import Path

import pytest
from PIL import Image

from pictura.evaluation.panels import Gallery, Line, Panel, Picture, Table
from pictura.evaluation.report import curves_of, environment, write_report


def test_the_page_holds_everything_in_order(tmp_path: Path) -> None:
    picture = Picture(Image.new("RGB", (20, 20)), (Line("a dog"),))
    panels: list[Panel] = [Gallery("Best", [("", [picture])]), Table("Bad samples", ("key",), [("x.jpg",)])]
    write_report(
        tmp_path / "report.html",
        title="A run",
        metrics={"zeroshot/top1": 0.75},
        curves=[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}],
        panels=panels,
    )
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["Results", "Training", "Best", "Bad samples"]
    assert re.findall(r'href="(#s\d)"', html) == [f"#s{i}" for i in range(4)]
    assert "75.0 %" in html and "<polyline" in html and "x.jpg" in html


def test_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    picture = Picture(Image.new("RGB", (20, 20)), (Line("<script src=https://evil.example/x.js></script>"),))
    write_report(
        tmp_path / "r.html", title="</title><script>1</script>", metrics={}, panels=[Gallery("G", [("", [picture])])]
    )
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert "<link" not in html
    assert "url(" not in html and "@import" not in html
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)"', html))
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html


def test_a_failure_leaves_the_old_report_and_nothing_else(tmp_path: Path) -> None:
    class Broken(Table):
        def html(self) -> str:
            raise RuntimeError("broken panel")

    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="broken panel"):
        write_report(path, title="new", metrics={}, panels=[Broken("B", (), ())])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_report(path, title="new", metrics={})
    assert "<h1>new</h1>" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


def test_curves_follow_steps_and_the_last_record_of_a_step_counts() -> None:
    records = [
        {"step": 2, "loss": 5.0, "time": 1.0, "note": "text", "done": True},
        {"step": 1, "loss": 6.0},
        {"step": 2, "loss": 4.0, "lr": 0.1},
        {"step": 3, "loss": None},
        {"event": "no step"},
    ]
    series = curves_of(records)
    assert set(series) == {"loss"}  # the learning rate was recorded once, which is no curve
    assert series["loss"][:2] == [(1.0, 6.0), (2.0, 4.0)]
    assert math.isnan(series["loss"][2][1])


def test_the_environment_names_what_matters() -> None:
    names = [row[0] for row in environment().rows]
    assert {"Python", "torch", "processors"} <= set(names)
