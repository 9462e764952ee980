"""One self-contained report.html: numbers, curves, pictures. No script and no network; light and dark."""

import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pictura.evaluation.panels import Curves, Numbers, Panel, Table, escape
from pictura.output.files import write_text

# The browser itself refuses to fetch or run anything, whatever a caption says.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(
    path: Path | str,
    *,
    title: str,
    metrics: Mapping[str, float],
    curves: Sequence[Mapping[str, Any]] | None = None,
    panels: Iterable[Panel] = (),
) -> None:
    """Write the page whole, so that a reader never sees half of one.

    `metrics`: {slash name: value}; the first of each parent name becomes its headline. `curves`: the records of a
    metrics.jsonl, each with a `step`. `panels` follow in the order given. OSError when the folder cannot be written.
    """
    every: list[Panel] = [Numbers("Results", metrics)] if metrics else []
    series = curves_of(curves or ())
    if series:
        every.append(Curves("Training", series))
    every += panels
    write_text(Path(path), page(title, every))


def page(title: str, panels: Sequence[Panel]) -> str:
    """The whole document."""
    links = "".join(f'<a href="#s{i}">{escape(panel.title)}</a>' for i, panel in enumerate(panels))
    sections = "".join(
        f'<section id="s{i}"><h2>{escape(panel.title)}</h2>'
        f"{f'<p>{escape(panel.note)}</p>' if panel.note else ''}{panel.html()}</section>\n"
        for i, panel in enumerate(panels)
    )
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    date = datetime.now().astimezone().strftime("%d %B %Y, %H:%M %Z")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{escape(title)}</h1><p>Pictura · {date}</p><nav>{links}</nav></header>
<main>
{sections}</main>
</body>
</html>
"""


def curves_of(records: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Records of a metrics.jsonl -> {name: [(step, value)]}. A resumed run writes a step again: the last one counts.

    What was measured once is a number and no curve: it is left out.
    """
    series: dict[str, dict[float, float]] = {}
    for record in records:
        step = record.get("step")
        if not isinstance(step, int | float):
            continue
        for name, value in record.items():
            if name in ("step", "time", "epoch") or isinstance(value, bool):
                continue
            if value is None or isinstance(value, int | float):  # JSON has no NaN; None stands for it
                series.setdefault(name, {})[float(step)] = math.nan if value is None else float(value)
    return {name: sorted(points.items()) for name, points in series.items() if len(points) > 1}


def environment() -> Table:
    """What the run stood on, for the report's last section."""
    import torch

    rows = [
        ("Python", platform.python_version()),
        ("system", platform.platform()),
        ("processors", f"{os.cpu_count()} × {platform.machine()}"),
        ("threads", str(torch.get_num_threads())),
    ]
    rows += [("GPU", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    for package in ("pictura", "torch", "torchvision", "numpy", "Pillow", "tokenizers", "safetensors"):
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return Table("Environment", ("what", "which"), rows)
