"""`pictura demo`."""

import argparse
from pathlib import Path

from pictura.verbs.common import Answer, overridable, say, show

ABOUT = "Train a CLIP on the built-in picture world and show what it can do."
EXAMPLES = ("pictura demo",)


def arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", type=Path, help="run folder (default: runs/demo, or the first free runs/demo-2, …)")
    overridable(p)


def answer(a: argparse.Namespace) -> Answer:
    from pictura import run

    say("A small CLIP learns from drawn scenes and sentences about them: no labels, no downloads.")
    out = a.out or run.free(Path("runs/demo"))
    metrics = run.demo(out, a.overrides, say=say)
    rows = [(f"{metrics[name]:.1%}", words) for name, words in run.DEMO.items() if name in metrics]
    show(a, f"right after {metrics['seconds'] / 60:.1f} minutes, on scenes that it has never seen", rows)
    return metrics
